"""All strategies under one protocol: tuned alike on validation, repeated over seeds, tested together once."""

import dataclasses
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from medgraft.config import RunConfig
from medgraft.data.split import write_splits
from medgraft.files import write_json, write_table
from medgraft.judge.comparison import RANKING, SECOND, TunedStrategy, judge_strategies
from medgraft.listener import Listener
from medgraft.prepare.material import Material
from medgraft.report.comparison_page import write_comparison
from medgraft.result.advice import Advice
from medgraft.result.comparison import (
    AdviceOutcome,
    ComparisonResult,
    StrategyResult,
    read_comparison,
    write_comparison_result,
)
from medgraft.result.run import Ledger
from medgraft.run.advise import advice_from
from medgraft.search.cross_fit import choosing_score
from medgraft.search.executor import Executor, open_executor
from medgraft.search.fair import fair_search
from medgraft.search.proposals import drive
from medgraft.search.run_engine import engine_for
from medgraft.search.trainer import Progress, Trainer, label_of
from medgraft.search.trial import Trial, TrialContext, TrialSpec, forget_weights
from medgraft.setup.begin import as_begun, begin
from medgraft.setup.comparison import ComparisonPlan, Part, parts_of, plan_comparison, taught
from medgraft.setup.folder import log_event, open_run
from medgraft.setup.opening import note_opening
from medgraft.setup.plan import context_of, material_of, wish_of
from medgraft.setup.refusals import refuse_early
from medgraft.train.engine import Engine
from medgraft.types import Cut
from medgraft.version import __version__, installed_versions

__all__ = ["compare"]


def compare(
    config: RunConfig, out: str | Path, *, listener: Listener | None = None, command: str | None = None
) -> ComparisonResult:
    """Compare strategies into the folder `out`; the result stands in its `comparison.json`, too.

    Every strategy gets the same number of trainings over depth and learning rate, chosen on the first seed's
    validation and rerun on the other seeds; so the spread over seeds underestimates what choosing anew per seed would
    show. The test set is opened once, at the end, for all. The same call continues an interrupted comparison; a
    kill loses at most the running training.

    Args:
        config: With `compare` set.
        out: New, empty, or the folder of the same comparison.
        listener: Told how things go.
        command: As the user typed it, for the report.

    Raises:
        MedgraftError: Whatever is wrong with data, weights, options or the folder.
    """
    folder = Path(out)
    listener = listener or Listener()
    config = as_begun(folder, config)
    refuse_early(config, "compare")
    with open_run(folder, config), open_executor(config.executor) as executor:
        if (folder / "comparison.json").is_file() and (folder / "comparison.html").is_file():
            listener.say(f"{folder} holds the finished comparison.")
            return read_comparison(folder)
        log_event(folder, "start", command=command or "", version=__version__)
        material = material_of(config, listener)
        dataset = material.dataset
        config = begin(folder, config, material)
        write_splits(dataset.cohort, dataset.groups, folder / "splits.csv")
        # What cannot be done is said before anything is trained.
        plan = plan_comparison(config, material, listener)
        parts = parts_of(plan, config, material)
        write_json(folder / "plan.json", plan)
        engine = engine_for(wish_of(config), plan.recipe, material.source, dataset, folder / "engine.json", listener)
        # Advice is of what its first word is measured by: the whole of the training data, and the first policy.
        whole = taught(material, dataset.cohort, plan.policies[0], config.seed)
        probing = Trainer(context_of(whole, engine, folder), listener, executor=executor)
        advice = advice_from(whole, plan.recipe, probing, plan.judge.replicates)
        entries = _trained(plan, parts, Workplace(folder, engine, executor, listener))
        openings = note_opening(dataset, folder, listener)
        rows = judge_strategies(plan.judge, entries)
        result = _result(plan, material, rows, advice)
        result = dataclasses.replace(result, ledger=Ledger(openings=openings), command=command or "")
        write_comparison_result(result, folder)
        write_table(_table(rows), folder / "comparison.csv")
        write_comparison(folder)
        for entry in entries:
            for trial in (*entry.trials, *entry.tuning):
                forget_weights(trial)
            shutil.rmtree(entry.context.folder / "features", ignore_errors=True)
        shutil.rmtree(probing.context.folder / "features", ignore_errors=True)
        log_event(folder, "done")
        return result


class Workplace(NamedTuple):
    """Where a comparison is computed and kept, and who is told."""

    folder: Path
    engine: Engine
    executor: Executor
    listener: Listener


def _trained(plan: ComparisonPlan, parts: Sequence[Part], place: Workplace) -> list[TunedStrategy]:
    """Every strategy, tuned and repeated on all training data.

    Args:
        plan: The comparison.
        parts: All training data, by fraction and policy.
        place: Where the trainings run and are kept.
    """
    firsts = [part for part in parts if not part.number]
    num_entries = len(plan.depths) * len(parts) + len(firsts) * (plan.second is not None)
    progress = Progress(num_entries * (plan.num_trials + len(plan.seeds) - 1))
    entries = []
    for part in parts:
        for note in part.notes if not part.number else ():
            place.listener.say(note)
        context = context_of(part.material, place.engine, part.below(place.folder))
        prefix = "" if part.fraction == 1 else f"{part.fraction:g} "
        trainer = Trainer(
            context,
            place.listener,
            executor=place.executor,
            progress=progress,
            label=functools.partial(_label, prefix),
        )
        for name, depths in plan.depths.items():
            entry = _entry(plan, part, trainer, name, depths)
            entries.append(entry)
            log_event(place.folder, "strategy", strategy=entry.name, fraction=part.fraction)
        if plan.second is not None and not part.number:
            entries.append(_entry(plan, part, trainer, SECOND, (plan.second,)))
    return entries


def _label(prefix: str, spec: TrialSpec, context: TrialContext) -> str:
    """Words for a trial of a comparison, whose learning rates differ.

    Args:
        prefix: Put first; names the fraction.
        spec: The trial's specification.
        context: The trial's context.
    """
    lr = "" if spec.is_solved else f", lr {spec.lr:.1e}"
    return f"{prefix}{label_of(spec, context)}{lr}"


def _entry(plan: ComparisonPlan, part: Part, trainer: Trainer, key: str, indices: Sequence[int]) -> TunedStrategy:
    """Tune one strategy and repeat its choice.

    Args:
        plan: The comparison.
        part: The training data.
        trainer: Runs the trainings.
        key: A key of `medgraft.transfer.strategies.STRATEGIES`, or `SECOND`, which is a truncation.
        indices: Indices of the depths to try, the most promising first.
    """
    recipe, seed, name = part.recipe, plan.seeds[0], "ttl" if key == SECOND else key
    depths = [part.material.source.depth(index) for index in indices]
    has_lr = not recipe.spec(name, depths[0].index, seed).is_solved
    tuning: list[Trial] = []

    def scored(asked: Sequence[tuple[Cut, float]]) -> list[float]:
        specs = [recipe.spec(name, depth.index, seed, lr=lr) for depth, lr in asked]
        trials = trainer.run([(spec, "tuning") for spec in specs])
        tuning.extend(trials)
        return [choosing_score(trial, trainer.context) for trial in trials]

    choice = drive(fair_search(depths, recipe.lr, plan.num_trials, has_lr=has_lr), scored)
    if trainer.progress is not None:
        trainer.progress.total -= plan.num_trials - len(tuning)
    first = next(t for t in tuning if t.cut.index == choice.depth.index and t.spec.lr == choice.lr)
    again = [recipe.spec(name, choice.depth.index, other, lr=choice.lr) for other in plan.seeds[1:]]
    repeats = trainer.run([(spec, "seed") for spec in again])
    for trial in tuning:
        # A trial at the last pretrained cut is one of the second baseline's, too.
        if trial is not first and trial.cut.index != plan.second:
            forget_weights(trial)
    return TunedStrategy(
        # The first policy is the one all others are compared with.
        name=f"{key} ({part.policy})" if part.number else key,
        key=key,
        fraction=part.fraction,
        uncertain=part.policy,
        choice=choice,
        trials=(first, *repeats),
        tuning=tuple(tuning),
        dataset=part.material.dataset,
        context=trainer.context,
    )


def _outcome(advice: Advice, rows: Sequence[StrategyResult]) -> AdviceOutcome | None:
    """How right the first word of the advice was; None where that strategy was not compared."""
    largest = max(row.fraction for row in rows)
    # Of the first policy alone: the others are variants of the same strategies, of which advice says nothing.
    judged = [row for row in rows if row.fraction == largest and row.key != SECOND and row.strategy == row.key]
    ranked = sorted(judged, key=lambda row: -row.test["auroc"].mean)
    names, first = [row.strategy for row in ranked], advice.advice[0]
    if first.strategy not in names:
        return None
    rank = names.index(first.strategy)
    chosen = ranked[rank].cut
    return AdviceOutcome(
        strategy=first.strategy,
        rank=rank + 1,
        num_strategies=len(names),
        behind_best=ranked[0].test["auroc"].mean - ranked[rank].test["auroc"].mean,
        advised_cut=first.cut.index if first.cut else None,
        chosen_cut=chosen.index if chosen else None,
    )


def _result(
    plan: ComparisonPlan, material: Material, rows: tuple[StrategyResult, ...], advice: Advice
) -> ComparisonResult:
    """The result of a comparison; the caller fills in ledger and command.

    Args:
        plan: The comparison.
        material: Cohort and network.
        rows: Every strategy at every fraction.
        advice: What probes advised before.
    """
    dataset, cohort = material.dataset, material.dataset.cohort
    tested = cohort.case_rows("test")
    return ComparisonResult(
        task=cohort.task,
        classes=cohort.classes,
        positive=cohort.positive,
        backbone=material.source.backbone.spec.name,
        weights=material.source.backbone.report,
        sides=dataset.preprocessing.sides,
        seeds=plan.seeds,
        num_trials=plan.num_trials,
        epochs=plan.recipe.train.epochs,
        margin=plan.judge.margin,
        rows=rows,
        ledger=Ledger(openings=1),
        num_test=len(tested),
        num_test_groups=len(np.unique(dataset.groups[tested])),
        noun=cohort.noun,
        case_noun=cohort.case_noun,
        advice=advice,
        outcome=_outcome(advice, rows),
        left_out=plan.left_out,
        notes=cohort.notes,
        versions=installed_versions(),
    )


def _table(rows: Sequence[StrategyResult]) -> pd.DataFrame:
    flat = []
    for row in rows:
        gap = row.difference.get("auroc")
        ends = {metric: row.test[metric].ci95 or (None, None) for metric in RANKING}
        flat.append(
            {
                "strategy": row.strategy,
                "fraction": row.fraction,
                "cut": row.cut.index if row.cut else None,
                "lr": row.lr,
                **{f"{metric}_{key}": getattr(row.test[metric], key) for metric in RANKING for key in ("mean", "sd")},
                **{f"{m}_{end}": ends[m][i] for m in RANKING for i, end in enumerate(("low", "high"))},
                "difference": gap.value if gap else None,
                "p_holm": gap.p_holm if gap else None,
                "verdict": row.verdict,
                "num_params": row.num_params,
                "macs": row.macs,
                "cpu_ms": row.cpu_ms,
                "cost_in_ftl": row.cost_in_ftl,
                "seconds_in_ftl": row.seconds_in_ftl,
            }
        )
    return pd.DataFrame(flat)
