"""What this machine makes of a plan: the engine that trains fastest on it, measured once and kept with the run."""

import dataclasses
import os
from pathlib import Path
from typing import Final, Literal

import torch

from medgraft.files import read_json, write_json
from medgraft.listener import Listener
from medgraft.machine import busy_cores
from medgraft.search.forecast import forecast_memory, refuse_memory, say_time
from medgraft.search.plan import Recipe
from medgraft.study.dataset import Dataset
from medgraft.train.engine import Engine, choose_engine
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import from_json

__all__ = ["EngineWish", "engine_for"]

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


def engine_for(
    wish: EngineWish, recipe: Recipe, source: Source, dataset: Dataset, path: Path, listener: Listener
) -> Engine:
    """The engine of a run: measured once, stored, and used again when the run continues.

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
    if path.exists():
        stored: Engine = from_json(Engine, read_json(path))
        return stored
    seed = recipe.train.seed
    model, _ = apply_strategy("ftl", source, source.cuts[-1], recipe.head, lr=recipe.lr, seed=seed)
    batch_size, patches = recipe.train.batch_size, recipe.train.patches
    shape = (dataset.preprocessing.channels, *source.input_sides)
    forecast = forecast_memory(model, shape, Engine(device=wish.device))
    refuse_memory(forecast, batch_size, wish.device, listener, num_at_once=wish.num_at_once)
    if not wish.is_deterministic:
        _say_busy(listener)
    engine = choose_engine(
        model,
        shape,
        batch_size=batch_size,
        device=wish.device,
        is_deterministic=wish.is_deterministic,
        precision=wish.precision,
        # Trainings that run at once share the cores.
        num_threads=max(1, torch.get_num_threads() // wish.num_at_once) if wish.num_at_once > 1 else 0,
    )
    write_json(path, engine)
    num_train, noun = len(dataset.cohort.rows("train")), dataset.cohort.noun
    _say_engine(engine, noun if patches is None else "patches", listener)
    num_items = num_train if patches is None else num_train * patches.per_image
    say_time(engine, recipe.train.epochs, num_items, noun if patches is None else "patches", listener)
    return engine


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
