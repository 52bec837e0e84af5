"""A time budget, turned into epochs and trials before training starts."""

import itertools
import math
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch

from medgraft.config import RunConfig
from medgraft.errors import ConfigError
from medgraft.files import read_json, write_json
from medgraft.listener import Listener
from medgraft.run.exploring import BUDGET_EPOCHS, is_after_ftl, method_of, possible_cuts, search_effort
from medgraft.run.prepare import Prepared
from medgraft.run.trials import is_searched, second_cut, trial_spec
from medgraft.search.two_stage import stage_ends
from medgraft.train.engine import Engine, forward, running
from medgraft.train.teaching import Share, teach
from medgraft.transfer.decoders import segmenter_costs
from medgraft.transfer.strategies import apply_strategy

__all__ = ["costs_at_cuts", "fit_budget"]

_NEIGHBOURS: Final = 4
_SHARE: Final = 0.85
_STEPS: Final = 3
# How far neighbouring patches lie apart in validation, as a share of their side.
_APART: Final = 0.75
# Passes and probes of a search that begins with full fine-tuning took 1.5 to 1.7 epochs on BUSI and the phantom.
_SIGNAL_EPOCHS: Final = 2


def fit_budget(config: RunConfig, folder: Path, found: Prepared, engine: Engine, told: Listener) -> RunConfig:
    """`config` with epochs and trials that fit its budget on this machine; the decision is stored.

    Raises:
        ConfigError: Even the baseline and one more training of three epochs do not fit.
    """
    if config.budget_minutes is None:
        return config
    path = folder / "budget.json"
    if path.exists():
        decided = read_json(path)
    else:
        decided = _decide(config, found, _epoch_seconds(config, found, engine))
        write_json(path, decided)
    most = "" if is_after_ftl(config) else f", at most {decided['max_trials']} cuts besides full fine-tuning"
    told.say(
        f"Budget {config.budget_minutes:g} min: {decided['epochs']} epochs{most} "
        f"(one epoch of full fine-tuning takes about {decided['epoch_seconds']:.1f} s)."
    )
    train = config.train.model_copy(update={"epochs": decided["epochs"]})
    search = config.search.model_copy(update={"max_trials": decided["max_trials"]})
    return config.model_copy(update={"train": train, "search": search})


def _decide(config: RunConfig, found: Prepared, epoch_seconds: float) -> dict[str, float]:
    cuts, cost = possible_cuts(config, found), costs_at_cuts(config, found)
    ends = sorted((cost[cut.index] for cut in stage_ends(cuts)[:-1]), reverse=True) if is_searched(config) else [1.0]
    candidates = ends + [1.0] * (_NEIGHBOURS if is_searched(config) else 0)
    is_exhaustive = is_searched(config) and method_of(config) == "exhaustive"
    if is_exhaustive:
        candidates = [cost[cut.index] for cut in cuts[:-1]]
    # Full fine-tuning of the pretrained part, where the weights lack the tail.
    second = second_cut(config, found)
    beside = cost[second.index] if second else 0.0
    num_val_groups = len(np.unique(found.groups[found.cohort.rows("val")]))
    seconds = (config.budget_minutes or 0) * 60 * _SHARE

    def needed(num: int, epochs: int) -> float:
        if is_after_ftl(config):
            # The baseline, what goes on after it, and with a warm start the baseline trained on as long.
            spent = 1.0 if method_of(config) == "svcca" else config.search.extra
            whole = 1 + spent * (2 if config.search.start == "ftl" else 1) + beside
            return (config.seeds * whole * epochs + _SIGNAL_EPOCHS) * epoch_seconds
        train = config.train.model_copy(update={"epochs": epochs})
        seeds, shared = search_effort(config.model_copy(update={"train": train}), num_val_groups)
        # Chosen and baseline of each seed; what the search has trained already with all epochs is not trained again.
        final = (2 + beside) * (config.seeds - (min(seeds, config.seeds) if shared == epochs else 0))
        return ((1 + sum(candidates[:num])) * seeds * shared + final * epochs) * epoch_seconds

    fewest = len(candidates) if is_exhaustive else 1
    for num in range(len(candidates), fewest - 1, -1):
        for epochs in range(config.train.epochs, min(BUDGET_EPOCHS, config.train.epochs) - 1, -1):
            if needed(num, epochs) <= seconds:
                return {"epochs": epochs, "max_trials": num, "epoch_seconds": epoch_seconds}
    least = needed(fewest, min(BUDGET_EPOCHS, config.train.epochs)) / 60 / _SHARE
    raise ConfigError(
        f"expected a budget of at least {math.ceil(least)} min ({fewest} cuts and full fine-tuning with "
        f"{BUDGET_EPOCHS} epochs, one epoch of full fine-tuning takes {epoch_seconds:.0f} s here), got "
        f"{config.budget_minutes:g}. Use a smaller --size."
    )


def costs_at_cuts(config: RunConfig, found: Prepared) -> dict[int, float]:
    """Cost of a training at each cut by its index, in units of full fine-tuning; decoders count."""
    cuts = found.source.cuts
    macs = {cut.index: cut.macs for cut in cuts}
    if found.masks is not None:
        at_cuts = segmenter_costs(found.source, config.transfer.decoder, found.study.images("train").num_outputs)
        macs |= {index: cost for index, (_, cost) in at_cuts.items()}
    return {index: cost / macs[cuts[-1].index] for index, cost in macs.items()}


def _epoch_seconds(config: RunConfig, found: Prepared, engine: Engine) -> float:
    """Seconds of one epoch of full fine-tuning with its validation, from a few steps."""
    cut = found.source.cuts[-1]
    spec = trial_spec(config, found, "ftl", cut, config.seed)
    model, _ = apply_strategy("ftl", found.source, cut, spec.head, lr=spec.lr, seed=spec.seed)
    model.to(engine.device).train()
    train, val = found.study.images("train"), found.study.images("val")
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
    sides = zip(found.preprocessing.sides, found.input_sides, strict=True)
    passes = math.prod(1 if image == patch else math.ceil(image / patch / _APART) for image, patch in sides)
    return min(times) * (teaching.num_items + passes * len(val) / 3)
