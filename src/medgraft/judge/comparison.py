"""All strategies of a comparison on the test set, which is opened once for them together."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch

from medgraft.evaluate.comparison import too_few_for_a_verdict
from medgraft.evaluate.efficiency import latency_ms
from medgraft.evaluate.intervals import Difference
from medgraft.evaluate.over_seeds import difference_over_seeds, holm, interval_over_seeds
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.verdict import Verdict, adjusted_verdict, loss_p
from medgraft.judge.plan import JudgePlan
from medgraft.judge.test import judged_by_trial
from medgraft.metrics.measures import measure_of, measured
from medgraft.result.advice import NamedCut
from medgraft.result.comparison import Gap, MetricOverSeeds, StrategyResult
from medgraft.search.fair import FairChoice
from medgraft.search.trial import Trial, TrialContext, load_trial_model
from medgraft.study.dataset import Dataset
from medgraft.transfer.strategies import STRATEGIES
from medgraft.types import Judged, Preprocessing

__all__ = ["BASELINE", "RANKING", "SECOND", "TunedStrategy", "judge_strategies"]

BASELINE: Final = "ftl"
"""Everything is measured against full fine-tuning."""
SECOND: Final = "ftl-pretrained"
"""Full fine-tuning of the part that is pretrained, where the weights lack the network's tail."""
RANKING: Final = ("auroc", "auprc")
"""Metrics that strategies are compared by; the first decides the verdict."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedStrategy:
    """One strategy on one set of training data: what validation chose, and its trainings.

    Args:
        name: As tables call it: with the policy for uncertain labels, where it is not the first of several.
        key: A key of `medgraft.transfer.strategies.STRATEGIES`, or `SECOND`.
        fraction: Share of the training groups.
        uncertain: Policy for uncertain labels, empty where none was asked for.
        choice: Choice of depth and learning rate.
        trials: Trainings with the chosen depth and learning rate, one per seed.
        tuning: Trainings that led to the choice.
        dataset: Its images.
        context: Context of its trials.
    """

    name: str
    key: str
    fraction: float
    uncertain: str
    choice: FairChoice
    trials: tuple[Trial, ...]
    tuning: tuple[Trial, ...]
    dataset: Dataset
    context: TrialContext


def judge_strategies(plan: JudgePlan, tuned: Sequence[TunedStrategy]) -> tuple[StrategyResult, ...]:
    """Every strategy on the test set, and against full fine-tuning with the same training data.

    Args:
        plan: Fixed beforehand.
        tuned: Full fine-tuning at every fraction among them.

    Raises:
        DataError: A class is absent from the test set.
        RunError: Weights of a trial are gone.
    """
    predictions = [
        [judged_by_trial(plan, trial, entry.dataset, entry.context, "test") for trial in entry.trials]
        for entry in tuned
    ]
    weights = bootstrap_weights(predictions[0][0], plan.replicates, plan.seed)
    times = _latencies(tuned, tuned[0].dataset.preprocessing)
    rows = [
        _row(plan, entry, judged, weights, times[_place(entry)])
        for entry, judged in zip(tuned, predictions, strict=True)
    ]
    return _compared(plan, rows, predictions, weights)


def _latencies(entries: Sequence[TunedStrategy], settings: Preprocessing) -> dict[str, dict[str, float]]:
    """Milliseconds on the CPU and, where there is one, the GPU, taking turns; by `_place`."""
    models = {_place(entry): load_trial_model(entry.trials[0], entry.context)[0] for entry in entries}
    example = torch.rand(1, settings.channels, *settings.sides)
    times = {name: {"cpu_ms": value} for name, value in latency_ms(models, example).items()}
    device = entries[0].context.engine.device
    if device.startswith("cuda"):
        for name, value in latency_ms(models, example, device=device).items():
            times[name]["gpu_ms"] = value
    return times


def _place(entry: TunedStrategy) -> str:
    return f"{entry.name} at {entry.fraction:g}"


def _row(
    plan: JudgePlan, entry: TunedStrategy, judged: Sequence[Judged], weights: np.ndarray, times: Mapping[str, float]
) -> StrategyResult:
    """The result of one strategy, not yet compared with the baseline.

    Args:
        plan: Seeds the bootstrap.
        entry: The strategy as it was tuned.
        judged: What its models say of the test cases, one per seed.
        weights: (replicates, N) bootstrap weights of the test cases.
        times: Milliseconds for one image: ``cpu_ms`` and, where there is a GPU, ``gpu_ms``.
    """
    first, depth = entry.trials[0], entry.choice.depth
    return StrategyResult(
        strategy=entry.name,
        key=entry.key,
        fraction=entry.fraction,
        uncertain=entry.uncertain,
        num_train=len(entry.context.study.train),
        cut=NamedCut(index=depth.index, name=depth.name) if STRATEGIES[first.spec.strategy].has_depth else None,
        head=first.spec.head.kind,
        lr=entry.choice.lr if first.history else None,
        tried=entry.choice.tried,
        val_score=float(np.mean([trial.score for trial in entry.trials])),
        test={name: _over_seeds(plan, judged, name, weights) for name in measure_of(judged[0]).metrics(judged[0])},
        num_params=first.num_params,
        macs=first.macs,
        cpu_ms=times["cpu_ms"],
        gpu_ms=times.get("gpu_ms"),
        train_seconds=float(np.mean([trial.seconds for trial in entry.trials])),
        train_macs=float(np.mean([trial.train_macs for trial in entry.trials])),
        tuning_macs=float(sum(trial.train_macs for trial in entry.tuning)),
    )


def _over_seeds(plan: JudgePlan, judged: Sequence[Judged], name: str, weights: np.ndarray) -> MetricOverSeeds:
    """A metric over seeds, with an interval where strategies are compared by it.

    Args:
        plan: Seeds the bootstrap.
        judged: What the models say of the test cases, one per seed.
        name: Name of the metric.
        weights: (replicates, N) bootstrap weights of the test cases.
    """
    values = [measured(outputs, name) for outputs in judged]
    return MetricOverSeeds(
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        ci95=interval_over_seeds(judged, name, weights) if name in RANKING else None,
    )


def _compared(
    plan: JudgePlan, rows: Sequence[StrategyResult], predictions: Sequence[Sequence[Judged]], weights: np.ndarray
) -> tuple[StrategyResult, ...]:
    """The rows with their differences to full fine-tuning on the same fraction.

    Where the weights lack the tail of the network, full fine-tuning trains that tail from random weights, which
    flatters truncation; so every strategy is compared with full fine-tuning of the pretrained part, too.

    Args:
        plan: Tells the margin and seeds the bootstrap.
        rows: Results, one per strategy and fraction.
        predictions: What the models of each row say of the test cases, one per seed.
        weights: (replicates, N) bootstrap weights of the test cases.
    """
    compared = list(rows)
    for fraction in sorted({row.fraction for row in rows}):
        at = [i for i, row in enumerate(rows) if row.fraction == fraction]
        base = next(i for i in at if rows[i].strategy == BASELINE)
        second = next((i for i in at if rows[i].key == SECOND), None)
        gaps = _gaps(plan, at, base, rows, predictions, weights)
        for i in at:
            compared[i] = dataclasses.replace(
                rows[i],
                cost_in_ftl=rows[i].train_macs / rows[base].train_macs,
                seconds_in_ftl=rows[i].train_seconds / rows[base].train_seconds,
                difference={metric: by_row[i] for metric, by_row in gaps.items() if i in by_row},
                verdict=_word(gaps["auroc"][i], predictions[i][0], plan) if i in gaps["auroc"] else None,
                second_difference=None
                if second is None or i in (base, second)
                else _gap(difference_over_seeds(predictions[i], predictions[second], "auroc", weights)),
            )
    return tuple(compared)


def _word(gap: Gap, judged: Judged, plan: JudgePlan) -> Verdict:
    """What the difference to full fine-tuning allows to say, given how many were asked about.

    Args:
        gap: Difference with its adjusted p.
        judged: The test cases.
        plan: Tells the margin.
    """
    if too_few_for_a_verdict(judged) is not None:
        return "inconclusive"
    # Outside the family (full fine-tuning of the pretrained part) one question is asked.
    p = gap.p if gap.p_holm is None else gap.p_holm
    p_loss = loss_p(gap, plan.margin) if gap.p_loss_holm is None else gap.p_loss_holm
    return adjusted_verdict(gap, plan.margin, p, p_loss)


def _gaps(
    plan: JudgePlan,
    at: Sequence[int],
    base: int,
    rows: Sequence[StrategyResult],
    predictions: Sequence[Sequence[Judged]],
    weights: np.ndarray,
) -> dict[str, dict[int, Gap]]:
    """Differences to the baseline by metric and row, with Holm's adjustment over all strategies of a fraction.

    Args:
        plan: Seeds the bootstrap.
        at: Indices of the rows of one fraction.
        base: Index of the row of full fine-tuning.
        rows: Results, one per strategy and fraction.
        predictions: What the models of each row say of the test cases, one per seed.
        weights: (replicates, N) bootstrap weights of the test cases.
    """
    asked = [i for i in at if i != base]
    family = [i for i in asked if rows[i].key != SECOND]
    gaps: dict[str, dict[int, Gap]] = {}
    for metric in RANKING:
        by_row = {i: difference_over_seeds(predictions[i], predictions[base], metric, weights) for i in asked}
        adjusted = dict(zip(family, holm([by_row[i].p for i in family]), strict=True))
        losses = dict(zip(family, holm([loss_p(by_row[i], plan.margin) for i in family]), strict=True))
        gaps[metric] = {i: _gap(by_row[i], adjusted.get(i), losses.get(i)) for i in asked}
    return gaps


def _gap(difference: Difference, p_holm: float | None = None, p_loss_holm: float | None = None) -> Gap:
    facts = {field.name: getattr(difference, field.name) for field in dataclasses.fields(difference)}
    return Gap(**facts, p_holm=p_holm, p_loss_holm=p_loss_holm)
