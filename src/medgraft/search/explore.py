"""Which cuts a run tries, and the one its rule picks from validation."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from medgraft.analysis.networks import probe_cuts
from medgraft.metrics.classification import auprc
from medgraft.search.guided import ShortTraining, cuts_to_try, halving, within_budget
from medgraft.search.incremental import incremental
from medgraft.search.plan import Method, SearchPlan
from medgraft.search.proposals import Search, drive
from medgraft.search.rule import Choice, choose, is_clearly_behind
from medgraft.search.svcca import overlap_share, overlapping_cut, reuse_at_cuts
from medgraft.search.trainer import Trainer
from medgraft.search.trial import Trial, feature_path, load_trial_model, probed_sample
from medgraft.search.two_stage import exhaustive, two_stage
from medgraft.train.features import keep_features
from medgraft.transfer.source import BELOW_STEM
from medgraft.transfer.strategies import STRATEGIES, apply_strategy
from medgraft.types import Cut, Predictions

__all__ = ["Explored", "choose_probe", "explore"]

_COMPARED_IMAGES: Final = 1000
# At the last cut these are full fine-tuning: the baseline has its own role in the table.
_BASELINES: Final = (*(name for name, strategy in STRATEGIES.items() if strategy.is_ftl_whole), "ftl")

CutSearch = Search[tuple[Cut, str], Sequence[float], dict[int, float]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explored:
    """What a search found out, from validation alone.

    Args:
        choice: The rule's choice.
        warm: Epochs of each warm start, from the trunk of full fine-tuning, that made the chosen model; empty where
            it started from the source's weights.
        signals: Cut index to what its features said before it was trained, by name; empty where nothing was asked.
        pass_macs: Multiply-accumulates of forward passes beside the trainings.
        pass_seconds: Seconds of these forward passes, with what was computed from them.
    """

    choice: Choice
    warm: tuple[int, ...] = ()
    signals: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    pass_macs: float = 0.0
    pass_seconds: float = 0.0


def explore(plan: SearchPlan, trainer: Trainer) -> Explored:
    """Train at the depths that the search wants to see, and let the rule choose.

    Args:
        plan: What may be trained, and the rule.
        trainer: Trains it.

    Raises:
        ConfigError: The search's budget pays for nothing.
        MedgraftError: A training failed.
    """
    return _EXPLORERS[plan.method](plan, trainer)


def _by_training(plan: SearchPlan, trainer: Trainer) -> Explored:
    """Train every depth that the method asks for, from the source's weights, and compare."""
    source, study = trainer.context.source, trainer.context.study
    seeds = range(plan.seed, plan.seed + plan.num_seeds)
    last, epochs = plan.depths[-1], plan.search_epochs
    tried: dict[int, list[Trial]] = {}

    def trained(asked: Sequence[tuple[Cut, str]], seeds: Sequence[int]) -> list[Trial]:
        return trainer.run(
            [
                (plan.recipe.spec(plan.strategy, cut.index, seed, epochs=epochs), role)
                for cut, role in asked
                for seed in seeds
            ]
        )

    def scored(asked: Sequence[tuple[Cut, str]]) -> list[float]:
        """The mean over the seeds; a cut whose first seed is clearly behind the best one gets no further one."""
        named = [
            (cut, "baseline" if cut.index == last and plan.strategy in _BASELINES else role) for cut, role in asked
        ]
        firsts = trained(named, seeds[:1])
        best = study.val_judged(max([*tried.values(), *([first] for first in firsts)], key=_mean_score)[0].val_outputs)
        again = [
            one
            for one, first in zip(named, firsts, strict=True)
            if len(seeds) > 1 and not is_clearly_behind(study.val_judged(first.val_outputs), best)
        ]
        # All in one batch: an executor may train several at once.
        further = trained(again, seeds[1:])
        for first in firsts:
            tried[first.cut.index] = [first, *(trial for trial in further if trial.cut.index == first.cut.index)]
        return [_mean_score(tried[cut.index]) for cut, _ in asked]

    if plan.is_searched:
        trainer.listener.say(
            f"Searching among {len(plan.depths)} cuts, {_times(plan.num_seeds, epochs)} each; everything is chosen on "
            "validation."
        )
        cuts = tuple(source.depth(index) for index in plan.depths)
        drive(_SEARCHES[plan.method](plan, trainer, cuts), scored)
    else:
        scored([(source.depth(plan.given), "given")])
    # Where the weights lack the tail, full fine-tuning of the pretrained part is a truncation like any other.
    if plan.second is not None and plan.second not in tried and plan.strategy == "ttl" and plan.is_searched:
        scored([(source.depth(plan.second), "second baseline")])
    return Explored(choice=_choose(plan, trainer, tried))


def _incremental(plan: SearchPlan, trainer: Trainer, cuts: tuple[Cut, ...]) -> CutSearch:
    """One more layer each time; the level to reach is that of full fine-tuning where none is given."""
    level = plan.level
    if level is None:
        seeds = range(plan.seed, plan.seed + plan.num_seeds)
        specs = [plan.recipe.spec("ftl", cuts[-1].index, seed, epochs=plan.search_epochs) for seed in seeds]
        level = _mean_score(trainer.run([(spec, "baseline") for spec in specs]))
    return incremental((BELOW_STEM, *cuts), level, max_trials=plan.max_trials)


_SEARCHES: Final[dict[Method, Callable[[SearchPlan, Trainer, tuple[Cut, ...]], CutSearch]]] = {
    "two-stage": lambda plan, _trainer, cuts: two_stage(cuts, max_trials=plan.max_trials),
    "exhaustive": lambda _plan, _trainer, cuts: exhaustive(cuts),
    "incremental": _incremental,
}
"""Searches that train every cut they look at, from the source's weights."""


def _guided(plan: SearchPlan, trainer: Trainer) -> Explored:
    """Full fine-tuning, probes on its features at every cut, and what they name; see `search.guided`."""
    context, cuts = trainer.context, trainer.context.source.cuts
    sample = probed_sample(context, plan.seed)
    ftl = trainer.run_alone(plan.recipe.spec("ftl", len(cuts), plan.seed), "baseline")
    start = time.perf_counter()
    trainer.listener.say(f"Probing the fine-tuned features at {len(cuts)} cuts.")
    tuned, _ = load_trial_model(ftl, context)
    probed = probe_cuts(tuned, cuts, sample.study, sample.engine, plan.seed, trainer.listener)
    seconds = time.perf_counter() - start
    passed = float((len(sample.study.train) + len(sample.study.val)) * cuts[-1].macs)
    # Full fine-tuning is trained and takes part itself in the end: the probes choose among truncations.
    truncations = {index: predictions for index, predictions in probed.said.items() if index < len(cuts)}
    wanted = cuts_to_try(choose_probe(plan, cuts, truncations), len(cuts)) if truncations else []
    budget = plan.extra * ftl.train_macs - passed
    warm: tuple[int, ...] = ()
    if plan.start == "ftl":
        for index in wanted:
            # The heads of warm starts are these probes: no further pass.
            keep_features(feature_path(context, ftl.spec.key(), index, "pooled", "sample"), probed.train[index])
        choice, warm = _halved(plan, trainer, ftl, wanted, budget)
    else:
        choice = _trained_within(plan, trainer, ftl, wanted, budget)
    return Explored(
        choice=choice,
        warm=warm,
        signals={index: {"probe": auprc(predictions)} for index, predictions in probed.said.items()},
        pass_macs=passed,
        pass_seconds=seconds,
    )


def choose_probe(plan: SearchPlan, cuts: tuple[Cut, ...], probes: Mapping[int, Predictions]) -> Choice:
    """The run's rule among the probes at these cuts, by what each cut keeps of the network.

    Args:
        plan: Tells rule, tolerance and bootstrap.
        cuts: The cuts of the network.
        probes: Cut index to the validation predictions of a probe.
    """
    return choose(
        {index: [predictions] for index, predictions in probes.items()},
        cuts,
        {cut.index: cut.num_params for cut in cuts},
        plan.rule,
        tolerance=plan.tolerance,
        replicates=plan.replicates,
        seed=plan.seed,
    )


def _trained_within(plan: SearchPlan, trainer: Trainer, ftl: Trial, wanted: Sequence[int], budget: float) -> Choice:
    """The wanted cuts from the source's weights, with all epochs, as far as the budget goes.

    Args:
        plan: Recipe, seed and rule.
        trainer: Runs the trainings.
        ftl: Full fine-tuning, trained already.
        wanted: Cut indices, the most wanted first.
        budget: Multiply-accumulates that the trainings may take together.
    """
    cuts = trainer.context.source.cuts
    cost = {cut.index: ftl.train_macs * cut.macs / cuts[-1].macs for cut in cuts[:-1]}
    affordable = within_budget(wanted, cost, budget)
    trials = trainer.run([(plan.recipe.spec("ttl", index, plan.seed), "guided") for index in affordable])
    return _choose(plan, trainer, {len(cuts): [ftl], **{trial.cut.index: [trial] for trial in trials}})


def _halved(
    plan: SearchPlan, trainer: Trainer, ftl: Trial, wanted: Sequence[int], budget: float
) -> tuple[Choice, tuple[int, ...]]:
    """Short trainings from the fine-tuned trunk in two rungs; also the epochs of each that made the chosen model.

    Args:
        plan: Recipe, seed and rule.
        trainer: Runs the trainings.
        ftl: Full fine-tuning, trained already.
        wanted: Cut indices, the most wanted first.
        budget: Multiply-accumulates that the trainings may take together.
    """
    cuts = trainer.context.source.cuts
    per_epoch = ftl.train_macs / len(ftl.history)
    # A training step costs three times its forward pass at every cut alike.
    epoch_cost = {cut.index: per_epoch * cut.macs / cuts[-1].macs for cut in cuts}
    latest = {len(cuts): ftl}

    def judged(asked: Sequence[ShortTraining]) -> Choice:
        specs = [
            plan.recipe.spec("ttl", short.cut, plan.seed, epochs=short.epochs, parent=latest.get(short.cut, ftl))
            for short in asked
        ]
        trials = trainer.run([(spec, f"rung {short.rung}") for spec, short in zip(specs, asked, strict=True)])
        latest.update({trial.cut.index: trial for trial in trials})
        return _choose(plan, trainer, {index: [trial] for index, trial in latest.items()})

    choice, rungs = drive(halving(wanted, epoch_cost, budget), judged)
    return choice, tuple(epochs for tried, epochs in rungs if choice.chosen in tried)


def _svcca(plan: SearchPlan, trainer: Trainer) -> Explored:
    """Two fine-tunings: the whole network, then the cut at which nothing but chance is left of its features."""
    context, cuts = trainer.context, trainer.context.source.cuts
    ftl = trainer.run_alone(plan.recipe.spec("ftl", len(cuts), plan.seed), "baseline")
    start = time.perf_counter()
    trainer.listener.say(f"Comparing features before and after full fine-tuning at {len(cuts)} cuts.")
    sample = context.sample(_COMPARED_IMAGES, plan.seed)
    before, _ = apply_strategy("ftl", context.source, cuts[-1], ftl.spec.head, lr=ftl.spec.lr, seed=plan.seed)
    reuse = reuse_at_cuts(before, load_trial_model(ftl, context)[0], sample)
    seconds = time.perf_counter() - start
    overlaps = {index: overlap_share(part.coefficients, part.reference) for index, part in reuse.items()}
    cut = cuts[overlapping_cut(overlaps) - 1]
    trial = trainer.run_alone(plan.recipe.spec("ttl", cut.index, plan.seed), "overlap")
    choice = _choose(plan, trainer, {len(cuts): [ftl], cut.index: [trial]})
    return Explored(
        choice=dataclasses.replace(choice, rule="overlap", chosen=cut.index),
        signals={
            index: {
                "svcca": float(part.coefficients.mean()),
                "svcca_random": float(part.reference.mean()),
                "overlap": overlaps[index],
            }
            for index, part in reuse.items()
        },
        pass_macs=float(2 * len(sample.study.train) * cuts[-1].macs),
        pass_seconds=seconds,
    )


_EXPLORERS: Final[dict[Method, Callable[[SearchPlan, Trainer], Explored]]] = {
    "given": _by_training,
    **dict.fromkeys(_SEARCHES, _by_training),
    "guided": _guided,
    "svcca": _svcca,
}


def _mean_score(trials: Sequence[Trial]) -> float:
    return float(np.mean([trial.score for trial in trials]))


def _choose(plan: SearchPlan, trainer: Trainer, tried: Mapping[int, Sequence[Trial]]) -> Choice:
    """The choice of the plan's rule among the trained cuts, by their validation predictions.

    Args:
        plan: Tells rule, tolerance and bootstrap.
        trainer: Its context tells the study and the network's cuts.
        tried: Cut index to its trials, one per seed.
    """
    study, cuts = trainer.context.study, trainer.context.source.cuts
    return choose(
        {index: [study.val_judged(trial.val_outputs) for trial in trials] for index, trials in tried.items()},
        (BELOW_STEM, *cuts),
        {index: trials[0].num_params for index, trials in tried.items()},
        plan.rule,
        macs={index: trials[0].macs for index, trials in tried.items()},
        tolerance=plan.tolerance,
        replicates=plan.replicates,
        seed=plan.seed,
    )


def _times(num_seeds: int, epochs: int) -> str:
    return f"{num_seeds} × {epochs} epochs" if num_seeds > 1 else f"{epochs} epochs"
