"""One trial: a pure function of a small specification and the cached cohort, remembered on disk."""

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from medgraft.errors import RunError
from medgraft.metrics.classification import auprc, auroc
from medgraft.train.batches import ImageSet
from medgraft.train.checkpoint import remove_checkpoint
from medgraft.train.engine import Engine
from medgraft.train.loop import EpochRow, TrainSettings, train_model
from medgraft.transfer.model import TransferModel
from medgraft.transfer.plan import parameter_groups
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import HeadSettings, apply_strategy
from medgraft.types import Cut, Predictions, TransferPlan, to_json

__all__ = ["Trial", "TrialContext", "TrialSpec", "forget_weights", "load_trial_model", "run_trial", "step_macs"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """What decides a trial's result, besides the cohort and the pretrained network of its run."""

    strategy: str
    cut: int
    seed: int
    lr: float
    weight_decay: float
    head: HeadSettings
    train: TrainSettings

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


def run_trial(
    spec: TrialSpec, context: TrialContext, on_epoch: Callable[[int, int], None] | None = None
) -> Trial:
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
    found = train_model(
        model, groups, (context.train, context.val), spec.train, context.engine, folder, on_epoch
    )
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
    _write_history(folder / "history.csv", found.history)
    temporary = folder / "val_probs.tmp.npy"
    np.save(temporary, found.val_probs)
    temporary.replace(folder / "val_probs.npy")
    temporary = folder / "result.tmp"
    temporary.write_text(json.dumps(result, indent=1))
    temporary.replace(folder / "result.json")
    remove_checkpoint(folder)
    return _read(spec, context, folder)


def step_macs(plan: TransferPlan, cut: Cut, model: TransferModel) -> float:
    """Multiply-accumulates of one image's training step: forward, plus twice that where gradients flow.

    Args:
        plan: Of the model; frozen blocks cost their forward pass only.
        cut: Where the model ends.
        model: Its head is counted too.
    """
    head = sum(p.numel() for p in model.head.parameters() if p.ndim > 1)
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
    weights = load_file(path)
    weights.pop("__val_probs__")
    model.load_state_dict(weights)
    return model.eval(), plan


def forget_weights(trial: Trial) -> None:
    """Delete the weights of a trial that is not needed any more; its result stays."""
    (trial.folder / "best.safetensors").unlink(missing_ok=True)


def _build(spec: TrialSpec, context: TrialContext) -> tuple[TransferModel, TransferPlan]:
    cut = context.source.cuts[spec.cut - 1]
    return apply_strategy(spec.strategy, context.source, cut, spec.head, lr=spec.lr, seed=spec.seed)


def _read(spec: TrialSpec, context: TrialContext, folder: Path) -> Trial:
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        probs = np.load(folder / "val_probs.npy", allow_pickle=False)
        with (folder / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise RunError(f"could not read the finished trial in {folder}: {error}. Delete that folder.") from error
    history = tuple(
        EpochRow(**{k: int(v) if k == "epoch" else float(v) for k, v in row.items()})  # type: ignore[arg-type]
        for row in rows
    )
    return Trial(
        spec=spec,
        cut=context.source.cuts[spec.cut - 1],
        val_probs=probs,
        val_auprc=result["val_auprc"],
        val_auroc=result["val_auroc"],
        best_epoch=result["best_epoch"],
        history=history,
        seconds=result["seconds"],
        train_macs=result["train_macs"],
        num_params=result["num_params"],
        folder=folder,
    )


def _write_history(path: Path, history: tuple[EpochRow, ...]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(EpochRow)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in history)
    temporary.replace(path)
