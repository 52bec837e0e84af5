"""Which cuts a run tries, and the one its rule picks from validation."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from medgraft.config import RunConfig, SearchConfig
from medgraft.data.labels import rarest_class
from medgraft.errors import ConfigError, DataError
from medgraft.files import write_json, write_table
from medgraft.listener import Listener
from medgraft.metrics.classification import auprc
from medgraft.run.prepare import Prepared
from medgraft.run.trials import Runner, is_searched, second_cut, wanted_depth
from medgraft.search.guided import cuts_to_try, halving, within_budget
from medgraft.search.incremental import incremental
from medgraft.search.overlap import overlap_share, overlapping_cut
from medgraft.search.rule import Choice, choose, is_clearly_behind
from medgraft.search.signals import probe_cuts, reuse_at_cuts
from medgraft.search.trial import (
    PROBED_IMAGES,
    Trial,
    TrialContext,
    feature_path,
    load_trial_model,
    probed_sample,
)
from medgraft.search.two_stage import two_stage
from medgraft.train.features import keep_features
from medgraft.transfer.decoders import decoders_at_cuts
from medgraft.transfer.source import BELOW_STEM
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import Cut, Predictions

__all__ = [
    "AFTER_FTL",
    "BUDGET_EPOCHS",
    "Explored",
    "choose_probe",
    "explore",
    "is_after_ftl",
    "method_of",
    "possible_cuts",
    "search_effort",
    "settled_search",
]

_SMALL_VALIDATION: Final = 200
_SEEDS_WHEN_SMALL: Final = 3
_MIN_EPOCHS: Final = 5
_COMPARED_IMAGES: Final = 1000
_MIN_GROUPS: Final = 2
BUDGET_EPOCHS: Final = 3
"""Fewest epochs of a training that a time budget leaves."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explored:
    """What a search found out, from validation alone.

    Args:
        choice: The rule's.
        warm: Epochs of each warm start, from the trunk of full fine-tuning, that made the chosen model; empty where
            it started from the source's weights.
        pass_macs: Multiply-accumulates of forward passes beside the trainings.
        pass_seconds: Of these, with what was computed from them.
    """

    choice: Choice
    warm: tuple[int, ...] = ()
    pass_macs: float = 0.0
    pass_seconds: float = 0.0


def search_effort(config: RunConfig, num_val_groups: int) -> tuple[int, int]:
    """Seeds per cut and epochs per seed of the search.

    On a hundred validation images the score of one training is luck to a large part: a cut that is no better than
    its neighbours can lead them by four points. There the epochs of a training are shared among three seeds and the
    mean counts; the search costs the same, and the chosen model is trained with all epochs afterwards.

    Args:
        config: Of the run.
        num_val_groups: Groups (patients) in validation.

    Examples:
        >>> from medgraft.config import make_config
        >>> search_effort(make_config("images"), 80), search_effort(make_config("images"), 800)
        ((3, 10), (1, 30))
    """
    if not is_searched(config):
        return 1, config.train.epochs
    if config.data.task == "segmentation":
        # A mask has thousands of pixels: what another seed changes is small beside what another case does.
        return config.search.seeds or 1, config.search.epochs or config.train.epochs
    seeds = config.search.seeds or (_SEEDS_WHEN_SMALL if num_val_groups < _SMALL_VALIDATION else 1)
    shared = max(config.train.epochs // seeds, min(_MIN_EPOCHS, config.train.epochs))
    return seeds, config.search.epochs or shared


def explore(runner: Runner, num_seeds: int, epochs: int) -> Explored:
    """Train at the depths that the search wants to see, and let the rule choose.

    Raises:
        CutError: There is no such cut.
    """
    config = runner.config
    method = method_of(config)
    if not is_searched(config):
        found = _explore_by_training(runner, num_seeds, epochs, "given")
    elif is_after_ftl(config):
        found = AFTER_FTL[method](runner)
    else:
        found = _explore_by_training(runner, num_seeds, epochs, method)
    write_json(runner.folder / "choice.json", found.choice)
    return found


def method_of(config: RunConfig) -> str:
    """The search of this run, where ``auto`` leaves it open.

    Examples:
        >>> from medgraft.config import make_config
        >>> [method_of(make_config("images", preset=name)) for name in ("fast", "balanced", "thorough", "paper")]
        ['guided', 'guided', 'two-stage', 'two-stage']
    """
    search = config.search
    if search.method != "auto":
        return search.method
    # Guided takes one seed, all epochs and no number of trials: who asks for more of these means the other search.
    is_told_more = search.seeds > 1 or search.epochs > 0 or search.max_trials > 0
    is_probed = config.transfer.strategy == "ttl" and config.data.task != "segmentation"
    return "guided" if is_probed and not is_told_more else "two-stage"


def settled_search(config: RunConfig, context: TrialContext, told: Listener) -> RunConfig:
    """`config` with a search that these images allow; decided and said before anything is trained.

    Raises:
        ConfigError: Guided was asked for and is not possible.
        DataError: Guided was asked for, and a class cannot be probed.
    """
    if not is_searched(config):
        return config
    search, method = config.search, method_of(config)
    if method == "guided" and (obstacle := _obstacle(config, context)):
        kind, reason = obstacle
        # Whoever gives guided a start or a budget of its own has asked for it.
        if search.method == "guided" or search.start == "ftl" or search.extra != SearchConfig().extra:
            raise kind(f"{reason} Use --search two-stage.")
        told.say(f"The search is two-stage, because guided is not possible here: {reason}")
        method = "two-stage"
    return config.model_copy(update={"search": search.model_copy(update={"method": method})})


def _least_extra(config: RunConfig, context: TrialContext, epochs: int) -> float:
    """What guided needs beyond full fine-tuning, in units of it: the pass for signals and the cheapest training."""
    cuts, num_train = context.source.cuts, len(context.train)
    passes = (min(num_train, PROBED_IMAGES) + len(context.val)) / (3 * num_train * epochs)
    # The cheapest whole training, or one epoch of the dearest short one.
    least = cuts[0].macs if config.search.start == "source" else cuts[-2 if len(cuts) > 1 else 0].macs / epochs
    return passes + least / cuts[-1].macs


def is_after_ftl(config: RunConfig) -> bool:
    """Whether the search begins with full fine-tuning, with all epochs of the run."""
    return is_searched(config) and method_of(config) in AFTER_FTL


def _explore_by_training(runner: Runner, num_seeds: int, epochs: int, method: str) -> Explored:
    """Train every depth that the method asks for, from the source's weights, and compare."""
    config, found, context = runner.config, runner.found, runner.context
    name, cuts = config.transfer.strategy, possible_cuts(config, found)
    seeds = range(config.seed, config.seed + num_seeds)
    tried: dict[int, list[Trial]] = {}

    def score(cut: Cut, role: str) -> float:
        kind = "baseline" if cut.index == cuts[-1].index and name in ("ttl", "tf", "wtst", "ftl") else role
        trials = [runner.run(name, cut, seeds[0], kind, epochs=epochs)]
        best = max(tried.values(), key=_mean_score, default=trials)
        firsts = [context.val_judged(one.val_outputs) for one in (trials[0], best[0])]
        if num_seeds > 1 and not is_clearly_behind(*firsts):
            trials += [runner.run(name, cut, seed, kind, epochs=epochs) for seed in seeds[1:]]
        tried[cut.index] = trials
        return _mean_score(trials)

    if method == "given":
        score(wanted_depth(found.source, name, config.transfer.cut), "given")
    else:
        each = _times(num_seeds, epochs)
        runner.told.say(f"Searching among {len(cuts)} cuts, {each} each; everything is chosen on validation.")
        _train_all(runner, cuts, score, seeds, epochs)
    second = second_cut(config, found)
    if second is not None and second.index not in tried and name == "ttl" and method != "given":
        score(second, "second baseline")
    return Explored(choice=_choose(config, context, cuts, tried))


def possible_cuts(config: RunConfig, found: Prepared) -> tuple[Cut, ...]:
    """The cuts that may be tried: where a segmentation is truncated, those at which its decoder can begin."""
    cuts = found.source.cuts
    if found.masks is None or config.transfer.strategy not in ("ttl", "frozen"):
        return cuts
    heads = decoders_at_cuts(found.source, config.transfer.decoder)
    return tuple(cut for cut in cuts if cut.index in heads)


def _train_all(
    runner: Runner, cuts: tuple[Cut, ...], score: Callable[[Cut, str], float], seeds: range, epochs: int
) -> None:
    search = runner.config.search
    if search.method == "incremental":
        level = search.level
        if level is None:
            level = _mean_score([runner.run("ftl", cuts[-1], seed, "baseline", epochs=epochs) for seed in seeds])
        incremental((BELOW_STEM, *cuts), score, level, max_trials=search.max_trials)
    elif search.method == "exhaustive":
        for cut in reversed(cuts):
            score(cut, "exhaustive")
    else:
        two_stage(cuts, score, max_trials=search.max_trials)


def _explore_guided(runner: Runner) -> Explored:
    """Full fine-tuning, probes on its features at every cut, and what they name; see `search.guided`."""
    config, found, told = runner.config, runner.found, runner.told
    cuts, sample = found.source.cuts, probed_sample(runner.context, config.seed)
    ftl = runner.run("ftl", cuts[-1], config.seed, "baseline")
    start = time.perf_counter()
    told.say(f"Probing the fine-tuned features at {len(cuts)} cuts.")
    probes, features = probe_cuts(load_trial_model(ftl, runner.context)[0], sample, config.seed)
    _write_signals(runner, {index: {"probe": auprc(predictions)} for index, predictions in probes.items()})
    seconds = time.perf_counter() - start
    passed = float((len(sample.train) + len(sample.val)) * cuts[-1].macs)
    # Full fine-tuning is trained and takes part itself in the end: the probes choose among truncations.
    truncations = {index: predictions for index, predictions in probes.items() if index < len(cuts)}
    wanted = cuts_to_try(choose_probe(config, cuts, truncations), len(cuts)) if truncations else []
    budget = config.search.extra * ftl.train_macs - passed
    warm: tuple[int, ...] = ()
    if config.search.start == "ftl":
        for index in wanted:
            # The heads of warm starts are these probes: no further pass.
            keep_features(feature_path(runner.context, ftl.spec.key(), index, "pooled", "sample"), features[index])
        choice, warm = _halve(runner, ftl, wanted, budget)
    else:
        choice = _train_within(runner, ftl, wanted, budget)
    return Explored(choice=choice, warm=warm, pass_macs=passed, pass_seconds=seconds)


def _obstacle(config: RunConfig, context: TrialContext) -> tuple[type[ConfigError] | type[DataError], str] | None:
    """What stands in the way of a guided search: what could not be probed or paid for after the first training."""
    if config.transfer.head == "flattened":
        return ConfigError, "expected a pooled head to judge cuts by probes on pooled features, got --head flattened."
    sample = probed_sample(context, config.seed)
    train = sample.train
    # Probes are solved on labels that are 0 or 1; a share that is taught for an uncertain one is neither.
    targets = train.targets
    targets = np.where(np.isin(targets, (0, 1)), targets, np.nan) if targets.ndim == 2 else targets
    rare, fewest = rarest_class(train.task, targets, train.num_classes, sample.train_groups)
    if fewest < _MIN_GROUPS:
        return DataError, (
            f"expected at least {_MIN_GROUPS} training groups with and without {context.classes[rare]} to probe "
            f"features, got {fewest}."
        )
    # A time budget may lower the epochs later.
    epochs = config.train.epochs if config.budget_minutes is None else min(BUDGET_EPOCHS, config.train.epochs)
    needed = _least_extra(config, context, epochs)
    if config.search.extra < needed:
        return ConfigError, (
            f"expected search.extra to pay for signals and one training, at least {needed:.2f} in all, "
            f"got {config.search.extra:g}: raise it or --epochs."
        )
    return None


def choose_probe(config: RunConfig, cuts: tuple[Cut, ...], probes: Mapping[int, Predictions]) -> Choice:
    """The run's rule among the probes at these cuts, by what each cut keeps of the network."""
    return choose(
        {index: [predictions] for index, predictions in probes.items()},
        cuts,
        {cut.index: cut.num_params for cut in cuts},
        config.transfer.rule,
        tolerance=config.transfer.tolerance,
        replicates=config.evaluate.replicates,
        seed=config.seed,
    )


def _train_within(runner: Runner, ftl: Trial, wanted: Sequence[int], budget: float) -> Choice:
    """The wanted cuts from the source's weights, with all epochs, as far as the budget goes."""
    cuts, config = runner.found.source.cuts, runner.config
    cost = {cut.index: ftl.train_macs * cut.macs / cuts[-1].macs for cut in cuts[:-1]}
    tried = {len(cuts): [ftl]}
    for index in within_budget(wanted, cost, budget):
        tried[index] = [runner.run("ttl", cuts[index - 1], config.seed, "guided")]
    return _choose(config, runner.context, cuts, tried)


def _halve(runner: Runner, ftl: Trial, wanted: Sequence[int], budget: float) -> tuple[Choice, tuple[int, ...]]:
    """Short trainings from the fine-tuned trunk in two rungs; also the epochs of each that made the chosen model."""
    cuts, config = runner.found.source.cuts, runner.config
    per_epoch = ftl.train_macs / len(ftl.history)
    # A training step costs three times its forward pass at every cut alike.
    epoch_cost = {cut.index: per_epoch * cut.macs / cuts[-1].macs for cut in cuts}
    latest = {len(cuts): ftl}

    def train(index: int, epochs: int, rung: int) -> None:
        parent = latest.get(index, ftl)
        latest[index] = runner.run("ttl", cuts[index - 1], config.seed, f"rung {rung}", epochs=epochs, parent=parent)

    def judge(tried: Sequence[int]) -> Choice:
        return _choose(config, runner.context, cuts, {index: [latest[index]] for index in (*tried, len(cuts))})

    choice, rungs = halving(wanted, epoch_cost, budget, train, judge)
    return choice, tuple(epochs for tried, epochs in rungs if choice.chosen in tried)


def _explore_svcca(runner: Runner) -> Explored:
    """Two fine-tunings: the whole network, then the cut at which nothing but chance is left of its features."""
    config, found, context = runner.config, runner.found, runner.context
    cuts = found.source.cuts
    ftl = runner.run("ftl", cuts[-1], config.seed, "baseline")
    start = time.perf_counter()
    runner.told.say(f"Comparing features before and after full fine-tuning at {len(cuts)} cuts.")
    sample = context.sample(_COMPARED_IMAGES, config.seed)
    before, _ = apply_strategy("ftl", found.source, cuts[-1], ftl.spec.head, lr=ftl.spec.lr, seed=config.seed)
    reuse = reuse_at_cuts(before, load_trial_model(ftl, context)[0], sample)
    seconds = time.perf_counter() - start
    overlaps = {index: overlap_share(one.coefficients, one.reference) for index, one in reuse.items()}
    _write_signals(
        runner,
        {
            index: {"svcca": one.coefficients.mean(), "svcca_random": one.reference.mean(), "overlap": overlaps[index]}
            for index, one in reuse.items()
        },
    )
    cut = cuts[overlapping_cut(overlaps) - 1]
    trial = runner.run("ttl", cut, config.seed, "overlap")
    choice = _choose(config, context, cuts, {len(cuts): [ftl], cut.index: [trial]})
    passed = float(2 * len(sample.train) * cuts[-1].macs)
    return Explored(
        choice=dataclasses.replace(choice, rule="overlap", chosen=cut.index), pass_macs=passed, pass_seconds=seconds
    )


AFTER_FTL: Final[dict[str, Callable[[Runner], Explored]]] = {"guided": _explore_guided, "svcca": _explore_svcca}
"""Searches that begin with full fine-tuning, and judge cuts by its features."""


def _write_signals(runner: Runner, signals: Mapping[int, Mapping[str, float]]) -> None:
    cuts = runner.found.source.cuts
    rows = [
        {
            "cut": index, "name": cuts[index - 1].name, "stage": cuts[index - 1].stage,
            "num_params": cuts[index - 1].num_params, "macs": cuts[index - 1].macs,
            "is_pretrained": cuts[index - 1].is_pretrained, **values,
        }
        for index, values in sorted(signals.items())
    ]  # fmt: skip
    write_table(pd.DataFrame(rows), runner.folder / "signals.csv")


def _mean_score(trials: list[Trial]) -> float:
    return sum(trial.score for trial in trials) / len(trials)


def _choose(config: RunConfig, context: TrialContext, cuts: tuple[Cut, ...], tried: dict[int, list[Trial]]) -> Choice:
    return choose(
        {index: [context.val_judged(t.val_outputs) for t in trials] for index, trials in tried.items()},
        (BELOW_STEM, *cuts),
        {index: trials[0].num_params for index, trials in tried.items()},
        config.transfer.rule,
        macs={index: trials[0].macs for index, trials in tried.items()},
        tolerance=config.transfer.tolerance,
        replicates=config.evaluate.replicates,
        seed=config.seed,
    )


def _times(num_seeds: int, epochs: int) -> str:
    return f"{num_seeds} × {epochs} epochs" if num_seeds > 1 else f"{epochs} epochs"
