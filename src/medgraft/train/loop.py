"""One training loop: best epoch by the task's validation score, checkpoints between epochs, resume to the bit."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from medgraft.errors import ConfigError, RunError
from medgraft.train.average import WeightAverage
from medgraft.train.batches import ImageSet, seed_for
from medgraft.train.checkpoint import Keeper, load_best, load_checkpoint
from medgraft.train.course import Course, SourcePull, enter_phase, phase_at
from medgraft.train.engine import Engine, forward, running, to_channels_last
from medgraft.train.memory import freed_memory_kept
from medgraft.train.schedule import Schedule
from medgraft.train.settings import OPTIMIZERS, TrainSettings
from medgraft.train.teaching import Share, Teaching, teach
from medgraft.transfer.plan import ParameterGroup

__all__ = ["EpochRow", "TrainResult", "late_gain", "train_model"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One line of the training history; `seconds` of training and validation, `val_seconds` of validation alone.

    The first of `scores` (on the validation set, by name) chooses the epoch that is kept.
    """

    epoch: int
    lr: float
    train_loss: float
    scores: dict[str, float]
    seconds: float
    val_seconds: float

    def columns(self) -> dict[str, float]:
        """The row by column, as in ``history.csv``; the scores as ``val_…``."""
        rest = {"seconds": self.seconds, "val_seconds": self.val_seconds}
        scores = {f"val_{name}": value for name, value in self.scores.items()}
        return {"epoch": self.epoch, "lr": self.lr, "train_loss": self.train_loss, **scores, **rest}


def late_gain(history: Sequence[EpochRow]) -> float | None:
    """How much the best deciding validation score rose in the last quarter of the epochs; None below two epochs.

    A training that was stopped early gained nothing in its last epochs.

    Args:
        history: Rows of one training, in order.

    Examples:
        >>> rows = [EpochRow(epoch=n, lr=1e-3, train_loss=1.0, scores={"dice": n / 4}, seconds=1.0, val_seconds=0.1)
        ...         for n in range(1, 5)]
        >>> late_gain(rows), late_gain(rows[:1])
        (0.25, None)
    """
    if len(history) < 2:
        return None
    best = np.maximum.accumulate([next(iter(row.scores.values())) for row in history])
    return float(best[-1] - best[-1 - math.ceil(len(best) / 4)])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainResult:
    """What training found; the model itself holds the weights of the best epoch afterwards.

    Args:
        best_epoch: From 1.
        history: One row per epoch.
        val_outputs: Outputs of the best epoch, in the order of the validation set: probabilities (n, C), of masks their
            overlap with the truth (n, C, 3).
        seconds: Seconds of all epochs, including those before an interruption.
        images_seen: Training images, or patches of them, that went forward and backward.
    """

    best_epoch: int
    history: tuple[EpochRow, ...]
    val_outputs: np.ndarray
    seconds: float
    images_seen: int


@dataclasses.dataclass(slots=True)
class _Progress:
    """What changes from epoch to epoch and is stored in the checkpoint."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[EpochRow] = dataclasses.field(default_factory=list)
    images_seen: int = 0
    average: WeightAverage | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Session:
    """What one training runs with: the model and what accelerate made of it, optimiser, schedule, progress."""

    accelerator: Accelerator
    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    stepper: Any
    schedule: Schedule
    progress: _Progress
    pull: SourcePull | None
    teaching: Teaching


def train_model(
    model: nn.Module,
    groups: Sequence[ParameterGroup],
    data: tuple[ImageSet, ImageSet],
    settings: TrainSettings,
    engine: Engine,
    folder: Path,
    on_epoch: Callable[[int, int], None] | None = None,
    course: Course | None = None,
) -> TrainResult:
    """Train `model` in place; continue from `folder` when it holds a checkpoint.

    Args:
        model: Takes what `medgraft.train.teaching.Teaching.batches` yields.
        groups: Parameter groups with their learning rates, built before any wrapper.
        data: Training and validation set, both with masks or both without.
        settings: How.
        engine: Where.
        folder: For the checkpoint and the best weights.
        on_epoch: Called with (epoch, epochs) after each epoch.
        course: Phases and a pull towards the source weights; None for neither.

    Raises:
        RunError: The loss became infinite or NaN, or `folder` cannot be written or read.
    """
    course = course or Course()
    teaching = teach(data[0], data[1], settings, engine)
    session = _open(model, groups, teaching, settings, engine, folder, course)
    progress, accelerator = session.progress, session.accelerator
    judged = model if progress.average is None else progress.average.model
    keeper = Keeper(folder)
    with running(engine), freed_memory_kept(engine.device):
        while progress.epoch < settings.epochs and not session.schedule.is_finished:
            start = time.perf_counter()
            if course.phases:
                phase = phase_at(course.phases, progress.epoch, settings.epochs)
                enter_phase(phase, model, session.schedule)
            loss = _run_epoch(session, settings, engine)
            trained = time.perf_counter()
            # Each process has seen other images: all follow the first one's model.
            outputs = broadcast_object_list([teaching.outputs(judged)])[0]
            end = time.perf_counter()
            _close_epoch(session, loss, outputs, (end - start, end - trained))
            if accelerator.is_main_process:
                if progress.best_epoch == progress.epoch:
                    keeper.hold(judged.state_dict(), outputs)
                keeper.write_if_due(lambda: _state(session))
            if on_epoch is not None:
                on_epoch(progress.epoch, settings.epochs)
    keeper.write_best()
    accelerator.wait_for_everyone()
    weights, val_outputs = load_best(folder)
    model.load_state_dict(weights)
    return TrainResult(
        best_epoch=progress.best_epoch,
        history=tuple(progress.history),
        val_outputs=val_outputs,
        seconds=sum(row.seconds for row in progress.history),
        images_seen=progress.images_seen,
    )


def _open(
    model: nn.Module,
    groups: Sequence[ParameterGroup],
    teaching: Teaching,
    settings: TrainSettings,
    engine: Engine,
    folder: Path,
    course: Course,
) -> _Session:
    """Everything a training runs with, where the checkpoint in `folder` left it.

    Args:
        model: Moved to the engine's device and layout.
        groups: Parameter groups with their learning rates.
        teaching: What the task makes of the training.
        settings: How the model is trained.
        engine: Device and arithmetic.
        folder: Made when missing; may hold a checkpoint.
        course: Phases and a pull towards the source weights.
    """
    # Placement is ours: accelerate would ignore a device such as cuda:1. Its own device is fixed by the first
    # training of a process and matters between processes only.
    is_cpu = engine.device == "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1
    accelerator = Accelerator(cpu=is_cpu, device_placement=False)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(engine.device)
    if engine.is_channels_last:
        to_channels_last(model)
    optimizer = OPTIMIZERS[settings.optimizer]([group.for_torch() for group in groups])
    steps = settings.epochs * max(1, teaching.num_steps(accelerator.num_processes))
    schedule = Schedule(settings.schedule, optimizer, steps, settings.patience)
    # At the source weights still: a checkpoint comes later.
    pull = SourcePull(model, optimizer, course.l2sp) if any(course.l2sp) else None
    progress = _Progress(average=WeightAverage(model, settings.average * steps) if settings.average else None)
    if (state := load_checkpoint(folder)) is not None:
        _restore(folder, state, model, optimizer, schedule, progress)
    if accelerator.num_processes > 1 and len(course.phases) > 1:
        raise ConfigError(
            "expected one process for a strategy in phases (gradual, lp-ft), got several: what is frozen at first "
            "would not be kept equal between them. Use one device, or another strategy."
        )
    wrapped, stepper = accelerator.prepare(model, optimizer)
    return _Session(
        accelerator=accelerator,
        model=model,
        wrapped=wrapped,
        optimizer=optimizer,
        stepper=stepper,
        schedule=schedule,
        progress=progress,
        pull=pull,
        teaching=teaching,
    )


def _run_epoch(session: _Session, settings: TrainSettings, engine: Engine) -> float:
    """The mean loss of one epoch of training, over all processes.

    Args:
        session: What the training runs with; model and progress move on.
        settings: How the model is trained.
        engine: Device and arithmetic.
    """
    accelerator, progress, model = session.accelerator, session.progress, session.wrapped
    epoch, teaching = progress.epoch, session.teaching
    torch.manual_seed(seed_for(settings.seed, "dropout", epoch))
    model.train()
    total, count = torch.zeros((), device=engine.device), 0
    share = Share(process=accelerator.process_index, num_processes=accelerator.num_processes)
    for images, targets in teaching.batches(epoch, share):
        loss = teaching.objective(forward(model, images, engine), targets)
        session.stepper.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        if settings.clip_norm:
            accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
        session.stepper.step()
        if session.pull is not None:
            session.pull.apply()
        session.schedule.step()
        if progress.average is not None:
            progress.average.update(accelerator.unwrap_model(model))
        total += loss.detach() * len(images)
        count += len(images)
    progress.images_seen += count * accelerator.num_processes
    mean = float(np.mean(gather_object([float(total) / max(count, 1)])))
    if not math.isfinite(mean):
        raise RunError(
            f"the training loss became {mean} in epoch {epoch + 1}. Lower the learning rate (--set train.lr=…) "
            "or force --set train.precision=float32."
        )
    return mean


def _close_epoch(session: _Session, loss: float, outputs: np.ndarray, seconds: tuple[float, float]) -> None:
    """Score an epoch on validation, and add its row to the history.

    Args:
        session: What the training runs with; its progress and schedule move on.
        loss: Mean training loss of the epoch.
        outputs: What the model says of the validation set.
        seconds: Seconds of training and validation together, and of validation alone.
    """
    progress, schedule = session.progress, session.schedule
    if not np.isfinite(outputs).all():
        raise RunError("the model's validation outputs became NaN. Lower the learning rate (--set train.lr=…).")
    scores = session.teaching.scores(outputs)
    score = next(iter(scores.values()))
    row = EpochRow(
        epoch=progress.epoch + 1,
        lr=schedule.lr,
        train_loss=loss,
        scores=scores,
        seconds=seconds[0],
        val_seconds=seconds[1],
    )
    progress.history.append(row)
    progress.epoch += 1
    if score > progress.best_score:
        progress.best_score, progress.best_epoch = score, progress.epoch
    schedule.end_epoch(score)


def _state(session: _Session) -> dict[str, Any]:
    progress = session.progress
    return {
        "model": session.model.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        "schedule": session.schedule.state(),
        "epoch": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_score": progress.best_score,
        "images_seen": progress.images_seen,
        "average": None if progress.average is None else progress.average.state(),
        "history": [dataclasses.asdict(row) for row in progress.history],
    }


def _restore(
    folder: Path,
    state: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    progress: _Progress,
) -> None:
    """Put a training back to where its checkpoint left it, in place.

    Args:
        folder: Where the checkpoint lies, for the message.
        state: Content of the checkpoint.
        model: Gets its weights.
        optimizer: Gets its moments.
        schedule: Continues where it was.
        progress: Continues where it was.
    """
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.restore(state["schedule"])
        progress.epoch, progress.best_epoch = state["epoch"], state["best_epoch"]
        progress.best_score, progress.images_seen = state["best_score"], state["images_seen"]
        progress.history = [EpochRow(**row) for row in state["history"]]
        if progress.average is not None:
            progress.average.restore(state["average"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise RunError(f"expected a checkpoint of this model in {folder}, got another ({kind}). Delete it.") from error
