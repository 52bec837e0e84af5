"""One trial: a pure function of a small specification and the cached cohort, remembered on disk."""

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.errors import CutError, RunError
from medgraft.metrics.classification import auprc, auroc
from medgraft.train.batches import ImageSet
from medgraft.train.checkpoint import load_best, remove_checkpoint
from medgraft.train.engine import Engine
from medgraft.train.loop import EpochRow, TrainResult, TrainSettings, train_model
from medgraft.transfer.model import TransferModel
from medgraft.transfer.plan import parameter_groups
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import HeadSettings, apply_strategy
from medgraft.types import Cut, Predictions, TransferPlan, to_json

__all__ = [
    "Trial",
    "TrialContext",
    "TrialSpec",
    "forget_weights",
    "head_macs",
    "load_trial_model",
    "run_trial",
    "step_macs",
]

_RESULTS: Final = ("val_auprc", "val_auroc", "best_epoch", "seconds", "train_macs", "num_params")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """What decides a trial's result, besides the cohort of its run; `source` names network and weights."""

    strategy: str
    cut: int
    seed: int
    lr: float
    weight_decay: float
    head: HeadSettings
    train: TrainSettings
    source: str = ""

    def key(self) -> str:
        """A short name: equal specifications are one trial."""
        return hashlib.sha256(json.dumps(to_json(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialContext:
    """What all trials of a run share.

    Args:
        source: Pretrained network with its cuts.
        train: Training set.
        val: Validation set.
        val_groups: (n,) group of each validation case.
        classes: Class names.
        engine: Device and arithmetic.
        folder: Trials are kept below it, one folder each.
    """

    source: Source
    train: ImageSet
    val: ImageSet
    val_groups: np.ndarray
    classes: tuple[str, ...]
    engine: Engine
    folder: Path

    def val_predictions(self, probs: np.ndarray) -> Predictions:
        """`probs` of the validation set with its truth."""
        return Predictions(
            probs=probs,
            targets=self.val.targets,
            groups=self.val_groups,
            classes=self.classes,
            task=self.val.task,
            positive=self.val.positive,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """A finished trial.

    Args:
        spec: What was asked.
        cut: Where it was cut.
        val_probs: (n, C) on the validation set, best epoch.
        val_auprc: Macro.
        val_auroc: Macro.
        best_epoch: From 1.
        history: One row per epoch.
        seconds: Of training and validation.
        train_macs: Multiply-accumulates of all training steps, forward and backward.
        num_params: Of the deployed model, head included.
        folder: Its weights lie here.
    """

    spec: TrialSpec
    cut: Cut
    val_probs: np.ndarray
    val_auprc: float
    val_auroc: float
    best_epoch: int
    history: tuple[EpochRow, ...]
    seconds: float
    train_macs: float
    num_params: int
    folder: Path


def run_trial(spec: TrialSpec, context: TrialContext, on_epoch: Callable[[int, int], None] | None = None) -> Trial:
    """Train what `spec` says, or read it back when it is done already.

    Raises:
        CutError: No such cut.
        RunError: Training diverged, or the trial's folder cannot be written or read.
    """
    folder = context.folder / spec.key()
    if (folder / "result.json").is_file():
        return _read(spec, context, folder)
    model, plan = _build(spec, context)
    groups = parameter_groups(model, plan, context.source, spec.weight_decay)
    found = train_model(model, groups, (context.train, context.val), spec.train, context.engine, folder, on_epoch)
    predictions = context.val_predictions(found.val_probs)
    cut = context.source.cuts[spec.cut - 1]
    result = {
        "spec": to_json(spec),
        "val_auprc": auprc(predictions),
        "val_auroc": auroc(predictions),
        "best_epoch": found.best_epoch,
        "seconds": found.seconds,
        "train_macs": found.images_seen * step_macs(plan, cut, model),
        "num_params": sum(p.numel() for p in model.parameters()),
    }
    _write(folder, result, found)
    remove_checkpoint(folder)
    return _read(spec, context, folder)


def head_macs(model: TransferModel) -> int:
    """Multiply-accumulates of the head for one image: its linear layer."""
    return sum(parameter.numel() for parameter in model.head.parameters() if parameter.ndim > 1)


def step_macs(plan: TransferPlan, cut: Cut, model: TransferModel) -> float:
    """Multiply-accumulates of one image's training step: forward, plus twice that where gradients flow.

    Args:
        plan: Of the model; frozen blocks cost their forward pass only.
        cut: Where the model ends.
        model: Its head is counted too.
    """
    head = head_macs(model)
    kept = [block for block in plan.blocks if block.treatment not in ("removed", "new")]
    is_all_frozen = all(block.lr == 0 for block in kept)
    return float((cut.macs if is_all_frozen else 3 * cut.macs) + 3 * head)


def load_trial_model(trial: Trial, context: TrialContext) -> tuple[TransferModel, TransferPlan]:
    """The trained model of a finished trial, on the CPU, in evaluation mode, and its plan.

    Raises:
        RunError: Its weights were deleted.
    """
    path = trial.folder / "best.safetensors"
    if not path.is_file():
        raise RunError(f"expected the weights of a finished trial at {path}, got nothing. Delete {path.parent}.")
    model, plan = _build(trial.spec, context)
    model.load_state_dict(load_best(trial.folder)[0])
    return model.eval(), plan


def forget_weights(trial: Trial) -> None:
    """Delete the weights of a trial that is not needed any more; its result stays."""
    (trial.folder / "best.safetensors").unlink(missing_ok=True)


def _build(spec: TrialSpec, context: TrialContext) -> tuple[TransferModel, TransferPlan]:
    cuts = context.source.cuts
    if not 1 <= spec.cut <= len(cuts):
        raise CutError(f"expected a cut from 1 to {len(cuts)}, got {spec.cut}.")
    cut = cuts[spec.cut - 1]
    return apply_strategy(spec.strategy, context.source, cut, spec.head, lr=spec.lr, seed=spec.seed)


def _read(spec: TrialSpec, context: TrialContext, folder: Path) -> Trial:
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        probs = np.load(folder / "val_probs.npy", allow_pickle=False)
        with (folder / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        history = tuple(_epoch_row(row) for row in rows)
        found = {name: result[name] for name in _RESULTS}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"could not read the finished trial in {folder}: {error}. Delete that folder.") from error
    return Trial(
        spec=spec, cut=context.source.cuts[spec.cut - 1], val_probs=probs, history=history, folder=folder, **found
    )


def _epoch_row(row: dict[str, str]) -> EpochRow:
    return EpochRow(**{k: int(v) if k == "epoch" else float(v) for k, v in row.items()})  # type: ignore[arg-type]


def _write(folder: Path, result: dict[str, Any], found: TrainResult) -> None:
    # result.json comes last: a trial with one is finished.
    try:
        with _replacing(folder / "history.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(EpochRow)])
            writer.writeheader()
            writer.writerows(dataclasses.asdict(row) for row in found.history)
        with _replacing(folder / "val_probs.npy") as temporary, temporary.open("wb") as binary:
            np.save(binary, found.val_probs)
        with _replacing(folder / "result.json") as temporary:
            temporary.write_text(json.dumps(result, indent=1))
    except OSError as error:
        raise RunError(f"could not write to {folder}: {error}. Free some space; then run again.") from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f"{path.name}.tmp")
    yield temporary
    temporary.replace(path)
