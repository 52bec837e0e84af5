"""A time budget, turned into epochs and trials before training starts."""

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import torch

from medgraft.as_json import from_json
from medgraft.errors import ConfigError
from medgraft.files import read_json, write_json
from medgraft.listener import Listener
from medgraft.search.plan import Method, SearchPlan
from medgraft.search.two_stage import stage_ends
from medgraft.study.dataset import Dataset
from medgraft.train.engine import Engine, forward, running
from medgraft.train.teaching import Share, teach
from medgraft.transfer.decoders import segmenter_costs
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import apply_strategy

__all__ = ["FEWEST_EPOCHS", "Budget", "costs_at_cuts", "within_minutes"]

FEWEST_EPOCHS: Final = 3
"""Fewest epochs of a training that a time budget leaves."""
# A two-stage search tries up to two cuts on either side of the best end.
_NEIGHBOURS: Final = 4
# Reading, judging and the report come out of the budget, too, and an epoch is measured from a few steps.
_SHARE: Final = 0.85
# The first step builds what later ones use again; the least of three is free of it.
_STEPS: Final = 3
# How far neighbouring patches lie apart in validation, as a share of their side.
_APART: Final = 0.75
# Passes and probes of a search that begins with full fine-tuning took 1.5 to 1.7 epochs on BUSI and the phantom.
_SIGNAL_EPOCHS: Final = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The time that a job may take, and how its trainings share it.

    Args:
        minutes: For everything, all folds together.
        num_at_once: Trainings that run at the same time where a search names several, each of which takes as long as it
            was measured to.
        num_folds: Folds that share the time.
    """

    minutes: float
    num_at_once: int = 1
    num_folds: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a budget pays for.

    Args:
        epochs: Epochs of a whole training.
        max_trials: Cuts besides full fine-tuning.
        epoch_seconds: Seconds of an epoch of full fine-tuning, as measured.
        method: The search that it pays for; empty in files of older versions.
    """

    epochs: int
    max_trials: int
    epoch_seconds: float
    method: Method | Literal[""] = ""


def within_minutes(
    plan: SearchPlan,
    budget: Budget,
    engine: Engine,
    source: Source,
    dataset: Dataset,
    path: Path,
    listener: Listener,
) -> SearchPlan:
    """The plan with epochs and trials that fit a budget on this machine.

    Args:
        plan: What is wished for.
        budget: The time.
        engine: Device and arithmetic of the trainings.
        source: The network.
        dataset: Its images.
        path: File that keeps the decision, so that a run continues as it began.
        listener: Told what was decided.

    Raises:
        ConfigError: Even the baseline and one more training of three epochs do not fit.
        RunError: The file cannot be read or written.
    """
    decided: Decision | None = from_json(Decision, read_json(path)) if path.exists() else None
    # A class that is rare in one fold may forbid it the search of the others, and the other search spends otherwise.
    if decided is None or decided.method not in ("", plan.method):
        seconds = _epoch_seconds(plan, engine, source, dataset) if decided is None else decided.epoch_seconds
        decided = _decide(plan, budget, seconds, source)
        write_json(path, decided)
    folds = f" for {budget.num_folds} folds" if budget.num_folds > 1 else ""
    most = "" if plan.is_after_ftl else f", at most {decided.max_trials} cuts besides full fine-tuning"
    listener.say(
        f"Budget {budget.minutes:g} min{folds}: {decided.epochs} epochs{most} "
        f"(one epoch of full fine-tuning takes about {decided.epoch_seconds:.1f} s)."
    )
    return plan.with_epochs(decided.epochs, decided.max_trials)


def _decide(plan: SearchPlan, budget: Budget, epoch_seconds: float, source: Source) -> Decision:
    """The most cuts that the budget pays for, with as many epochs as it then allows.

    Args:
        plan: What is wished for.
        budget: The time.
        epoch_seconds: Seconds of one epoch of full fine-tuning on this machine.
        source: The network with its cuts.
    """
    cost = costs_at_cuts(plan, source)
    cuts = tuple(source.depth(index) for index in plan.depths)
    is_exhaustive = plan.method == "exhaustive"
    first = sorted((cost[cut.index] for cut in stage_ends(cuts)[:-1]), reverse=True) if plan.is_searched else [1.0]
    candidates = first + [1.0] * (_NEIGHBOURS if plan.is_searched else 0)
    if is_exhaustive:
        candidates = first = [cost[cut.index] for cut in cuts[:-1]]
    # Other searches look at what came of a cut before they name the next one.
    num_parallel = budget.num_at_once if plan.method in ("two-stage", "exhaustive") else 1
    # Full fine-tuning of the pretrained part, where the weights lack the tail.
    beside = cost[plan.second] if plan.second is not None else 0.0
    seconds = budget.minutes * 60 * _SHARE / budget.num_folds
    num_final, whole = len(plan.seeds), plan.recipe.train.epochs

    def needed(num: int, epochs: int) -> float:
        if plan.is_after_ftl:
            # The baseline, what goes on after it, and with a warm start the baseline trained on as long.
            spent = 1.0 if plan.method == "svcca" else plan.extra
            trained = 1 + spent * (2 if plan.start == "ftl" else 1) + beside
            return (num_final * trained * epochs + _SIGNAL_EPOCHS) * epoch_seconds
        shared = plan.with_epochs(epochs).search_epochs
        # Chosen and baseline of each seed; what the search has trained already with all epochs is not trained again.
        final = (2 + beside) * (num_final - (min(plan.num_seeds, num_final) if shared == epochs else 0))
        steps = [1.0, *candidates[: min(num, len(first))]], candidates[len(first) : num]
        searched = sum(_in_parallel(step * plan.num_seeds, num_parallel) for step in steps)
        return (searched * shared + final * epochs) * epoch_seconds

    fewest = len(candidates) if is_exhaustive else 1
    for num in range(len(candidates), fewest - 1, -1):
        for epochs in range(whole, min(FEWEST_EPOCHS, whole) - 1, -1):
            if needed(num, epochs) <= seconds:
                return Decision(epochs=epochs, max_trials=num, epoch_seconds=epoch_seconds, method=plan.method)
    least = needed(fewest, min(FEWEST_EPOCHS, whole)) / 60 / _SHARE * budget.num_folds
    raise ConfigError(
        f"expected a budget of at least {math.ceil(least)} min ({fewest} cuts and full fine-tuning with "
        f"{FEWEST_EPOCHS} epochs, one epoch of full fine-tuning takes {epoch_seconds:.0f} s here), got "
        f"{budget.minutes:g}. Use a smaller --size."
    )


def _in_parallel(costs: Sequence[float], num: int) -> float:
    """The longest that trainings of these costs take when so many run at once, whatever their order.

    References:
        Graham. Bounds on multiprocessing timing anomalies. SIAM J. Appl. Math. 17(2), 1969, theorem 1.

    Examples:
        >>> _in_parallel([1.0, 1.0, 0.5], 1), _in_parallel([1.0, 1.0, 0.5], 2), _in_parallel([], 2)
        (2.5, 1.75, 0.0)
    """
    return sum(costs) / num + (1 - 1 / num) * max(costs, default=0.0)


def costs_at_cuts(plan: SearchPlan, source: Source) -> dict[int, float]:
    """Cost of a training at each cut by its index, in units of full fine-tuning; decoders count.

    Args:
        plan: Tells strategy and head.
        source: The network with its cuts.
    """
    if plan.strategy != "ttl":
        # Whatever else is searched (lwft, tf, wtst) runs the whole network at every depth: at most this.
        return {cut.index: 1.0 for cut in source.cuts}
    macs = {cut.index: cut.macs for cut in source.cuts}
    if plan.recipe.train.patches is not None:
        at_cuts = segmenter_costs(source, plan.recipe.head.kind, plan.recipe.head.num_outputs)
        macs |= {index: cost.macs for index, cost in at_cuts.items()}
    return {index: cost / macs[source.cuts[-1].index] for index, cost in macs.items()}


def _epoch_seconds(plan: SearchPlan, engine: Engine, source: Source, dataset: Dataset) -> float:
    """Seconds of one epoch of full fine-tuning with its validation, from a few steps.

    Args:
        plan: Tells head, learning rate and training settings.
        engine: Device and arithmetic of the steps.
        source: The network with its cuts.
        dataset: Training and validation images.
    """
    cut = source.cuts[-1]
    spec = plan.recipe.spec("ftl", cut.index, plan.seed)
    model, _ = apply_strategy("ftl", source, cut, spec.head, lr=spec.lr, seed=spec.seed)
    model.to(engine.device).train()
    train, val = dataset.images("train"), dataset.images("val")
    teaching = teach(train, val, spec.train, engine)
    times = []
    with running(engine):
        for images, _ in itertools.islice(itertools.cycle(teaching.batches(0, Share())), _STEPS):
            start = time.perf_counter()
            forward(model, images, engine).float().square().mean().backward()
            if engine.device.startswith("cuda"):
                torch.cuda.synchronize()
            times.append((time.perf_counter() - start) / len(images))
    # A validation image costs one forward pass, a third of a training step; one with a mask that of all its patches.
    sides = zip(dataset.preprocessing.sides, source.input_sides, strict=True)
    passes = math.prod(1 if image == patch else math.ceil(image / patch / _APART) for image, patch in sides)
    return min(times) * (teaching.num_items + passes * len(val) / 3)
