"""What this machine makes of a plan: the engine that trains fastest on it, measured once and kept with the run."""

import dataclasses
import os
from pathlib import Path
from typing import Final, Literal

import torch

from medgraft.as_json import from_json
from medgraft.files import read_json, write_json
from medgraft.listener import Listener
from medgraft.machine import busy_cores
from medgraft.search.forecast import forecast_memory, refuse_memory, say_time
from medgraft.search.plan import Recipe
from medgraft.study.dataset import Dataset
from medgraft.train.engine import Engine, choose_engine
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import apply_strategy

__all__ = ["EngineWish", "engine_for", "kept_engine"]

_BUSY: Final = 0.5
"""Cores; a core that is half used by others."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineWish:
    """What the user asks of the arithmetic.

    Args:
        device: From `medgraft.train.engine.pick_device`.
        precision: ``auto`` measures; a name forces it.
        is_deterministic: Reproducible to the bit; nothing is measured.
        num_at_once: Trainings that run at the same time and share cores and memory.
    """

    device: str
    precision: Literal["auto", "float32", "bf16"] = "auto"
    is_deterministic: bool = False
    num_at_once: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The engine of a run, and how many trainings at once it was chosen for."""

    engine: Engine
    num_at_once: int = 1


def kept_engine(path: Path) -> Engine:
    """The engine that a run was trained on.

    Args:
        path: File in which `engine_for` kept it.

    Raises:
        RunError: It is missing or damaged.
    """
    kept: _Kept = from_json(_Kept, read_json(path))
    return kept.engine


def engine_for(
    wish: EngineWish, recipe: Recipe, source: Source, dataset: Dataset, path: Path, listener: Listener
) -> Engine:
    """The engine of a run: measured once, stored, and used again when the run continues.

    A run that goes on with another number of trainings at once keeps its arithmetic and shares the cores anew.

    Args:
        wish: Device and arithmetic as far as the user names them.
        recipe: What will be trained.
        source: The network.
        dataset: Its images.
        path: File that keeps the engine.
        listener: Told what was chosen, how long a training takes, and when others use the machine.

    Raises:
        ConfigError: A training does not fit into memory, or bf16 was asked for volumes on a CPU.
        RunError: The file cannot be read or written.
    """
    kept: _Kept | None = from_json(_Kept, read_json(path)) if path.exists() else None
    if kept is not None and kept.num_at_once == wish.num_at_once:
        return kept.engine
    train = recipe.train
    model, _ = apply_strategy("ftl", source, source.cuts[-1], recipe.head, lr=recipe.lr, seed=train.seed)
    shape = (dataset.preprocessing.channels, *source.input_sides)
    forecast = forecast_memory(model, shape, Engine(device=wish.device))
    refuse_memory(forecast, train.batch_size, wish.device, listener, num_at_once=wish.num_at_once)
    if kept is not None:
        engine = _shared_anew(kept, wish.num_at_once)
        write_json(path, _Kept(engine=engine, num_at_once=wish.num_at_once))
        return engine
    if not wish.is_deterministic:
        _say_busy(listener)
    engine = choose_engine(
        model,
        shape,
        batch_size=train.batch_size,
        device=wish.device,
        is_deterministic=wish.is_deterministic,
        precision=wish.precision,
        num_threads=_num_threads(wish.num_at_once),
    )
    write_json(path, _Kept(engine=engine, num_at_once=wish.num_at_once))
    num_train = len(dataset.cohort.rows("train"))
    noun, per_image = (dataset.cohort.noun, 1) if train.patches is None else ("patches", train.patches.per_image)
    _say_engine(engine, noun, listener)
    say_time(engine, train.epochs, num_train * per_image, noun, listener)
    return engine


def _num_threads(num_at_once: int) -> int:
    """Threads of each of so many trainings, which share the cores; 0 leaves them to the user and to torch."""
    return max(1, torch.get_num_threads() // num_at_once) if num_at_once > 1 else 0


def _shared_anew(kept: _Kept, num_at_once: int) -> Engine:
    """The engine of a run that goes on with so many trainings at once: its arithmetic stays."""
    engine, was = kept.engine, _num_threads(kept.num_at_once)
    # One thread out of several was measured to be fastest; bits that are promised hang on the number of threads.
    if engine.is_deterministic or engine.num_threads != was:
        return engine
    return dataclasses.replace(engine, num_threads=_num_threads(num_at_once))


def _say_engine(engine: Engine, noun: str, listener: Listener) -> None:
    """Say which engine was chosen, and the speeds that were measured.

    Args:
        engine: Device and arithmetic; without measured speeds none are said.
        noun: What speeds count: ``images``, ``volumes`` or ``patches``.
        listener: Told so.
    """
    speeds = ", ".join(f"{name} {speed:.3g} {noun}/s" for name, speed in engine.measured.items())
    choices = [engine.precision, *(["channels last"] if engine.is_channels_last else [])]
    choices += ["one thread"] if engine.num_threads == 1 else []
    measured = f" (measured: {speeds})" if speeds else ""
    listener.say(f"Training on {engine.device} in {', '.join(choices)}{measured}.")


def _say_busy(listener: Listener) -> None:
    """Say when others use this machine: what is measured then does not hold for it alone."""
    busy = busy_cores()
    if busy >= _BUSY:
        listener.say(
            f"warn: other programs keep about {busy:.1f} of {os.cpu_count()} cores busy. Trainings take longer beside "
            "them, and what is measured now (precision, layout, threads) may be another choice on an idle machine."
        )
