"""One trial: a pure function of a small specification and the cached cohort, remembered on disk."""

import csv
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from medgraft.as_json import to_json
from medgraft.errors import RunError
from medgraft.files import read_json, replacing, write_json, write_rows
from medgraft.metrics.measures import scores_of
from medgraft.study.study import Study
from medgraft.train.checkpoint import load_best, remove_checkpoint, save_best
from medgraft.train.classical import Labelled, solve_head
from medgraft.train.course import Course, TrainPhase, phase_at
from medgraft.train.engine import Engine, running
from medgraft.train.features import FeatureReader, cached_features
from medgraft.train.loop import EpochRow, TrainResult, train_model
from medgraft.train.objectives import probabilities
from medgraft.train.settings import TrainSettings
from medgraft.transfer.adapters import merge_lora
from medgraft.transfer.blocks import frozen_under
from medgraft.transfer.decoders import DECODERS
from medgraft.transfer.heads import CLASSICAL, ClassicalHead, HeadSettings, empty_classical, head_macs
from medgraft.transfer.model import TransferModel
from medgraft.transfer.plan import ParameterGroup, parameter_groups, phases_of
from medgraft.transfer.slim import Slim
from medgraft.transfer.source import Source, SourceSpec
from medgraft.transfer.strategies import STRATEGIES, StrategySettings, apply_strategy
from medgraft.types import Cut, TransferPlan

__all__ = [
    "PROBED_IMAGES",
    "Trial",
    "TrialContext",
    "TrialSpec",
    "build_model",
    "course_of",
    "feature_path",
    "forget_weights",
    "frozen_features",
    "is_finished",
    "load_trial_model",
    "num_stored",
    "probed_sample",
    "run_trial",
    "slim_of",
    "solved_probs",
    "step_macs",
]

PROBED_IMAGES: Final = 2000
"""Training images, about, on which probes and the heads of warm starts are solved."""
_RESULTS: Final = ("scores", "best_epoch", "seconds", "train_macs", "num_params", "macs")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """What decides a trial's result, besides the study of its run.

    Args:
        source: Network and weights.
        strategy: A key of `medgraft.transfer.strategies.STRATEGIES`.
        cut: Index of its depth, 0 for none; what that means is the strategy's own.
        seed: Seeds head, order, augmentation and dropout.
        lr: Base learning rate.
        weight_decay: Weight decay of AdamW.
        head: What is put on the trunk.
        train: How it is trained.
        settings: Settings of the strategies that have any.
        solver: ``exact`` solves heads on frozen features, ``gradient`` trains them with augmentation.
        parent: Key of a finished trial of the same run whose trunk is the start (a warm start) instead of the source's
            weights; empty for none.
    """

    source: SourceSpec
    strategy: str
    cut: int
    seed: int
    lr: float
    weight_decay: float
    head: HeadSettings
    train: TrainSettings
    settings: StrategySettings = dataclasses.field(default_factory=StrategySettings)
    solver: Literal["exact", "gradient"] = "exact"
    parent: str = ""

    @property
    def is_solved(self) -> bool:
        """Whether the head is solved on cached features instead of trained by gradient."""
        from_features = STRATEGIES[self.strategy].fitting == "features"
        is_exact = self.solver == "exact" and self.head.kind not in ("attention", *DECODERS)
        return from_features and (is_exact or self.head.kind in CLASSICAL)

    def key(self) -> str:
        """A short name: equal specifications are one trial, also after a trip through JSON."""
        return hashlib.sha256(json.dumps(_canonical(to_json(self)), sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialContext:
    """Where a trial runs: what it starts from, what it learns from, and where it is kept.

    Args:
        source: Pretrained network with its cuts.
        study: Training and validation images.
        engine: Device and arithmetic.
        folder: Trials are kept below it, one folder each.
    """

    source: Source
    study: Study
    engine: Engine
    folder: Path

    def sample(self, num_images: int, seed: int) -> "TrialContext":
        """The context with a sample of the training images, see `medgraft.study.Study.sample`."""
        return dataclasses.replace(self, study=self.study.sample(num_images, seed))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """A finished trial.

    Args:
        spec: What was asked.
        cut: Its depth; what that means is the strategy's own.
        val_outputs: Outputs of the best epoch on the validation set: probabilities (n, C), of masks overlaps (n, C, 3).
        scores: Scores of these outputs by name; the first decides (of labels macro AUPRC, of masks mean Dice).
        best_epoch: From 1; 0 where the head was solved.
        history: One row per epoch; empty where the head was solved.
        seconds: Seconds of training and validation.
        train_macs: Multiply-accumulates of all training steps, forward and backward.
        num_params: Parameters of the deployed model, head included.
        macs: Multiply-accumulates of the deployed model for one image, head included.
        folder: Its weights lie here.
    """

    spec: TrialSpec
    cut: Cut
    val_outputs: np.ndarray
    scores: dict[str, float]
    best_epoch: int
    history: tuple[EpochRow, ...]
    seconds: float
    train_macs: float
    num_params: int
    macs: int
    folder: Path

    @property
    def score(self) -> float:
        """The deciding score."""
        return next(iter(self.scores.values()))


def _canonical(value: Any) -> Any:
    """Plain JSON types with every number a float: a 0 that was meant as 0.0 is the same 0."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def is_finished(spec: TrialSpec, context: TrialContext) -> bool:
    """Whether the trial has been trained already."""
    return (context.folder / spec.key() / "result.json").is_file()


def run_trial(
    spec: TrialSpec,
    context: TrialContext,
    on_epoch: Callable[[int, int], None] | None = None,
    on_plan: Callable[[TransferPlan], None] | None = None,
) -> Trial:
    """Train what `spec` says, or read it back when it is done already.

    Args:
        spec: What to train.
        context: What all trials share.
        on_epoch: Called with (epochs done, epochs in all).
        on_plan: Called with the plan before training; it is stored as ``plan.json`` in the trial's folder, too.

    Raises:
        CutError: No such cut.
        RunError: Training diverged, or the trial's folder cannot be written or read.
    """
    if spec.source != context.source.spec:
        raise RunError(f"expected a trial that starts from {context.source.spec}, got one from {spec.source}.")
    folder = context.folder / spec.key()
    if is_finished(spec, context):
        return _read(spec, context, folder)
    model, plan = build_model(spec, context)
    write_json(folder / "plan.json", plan)
    if on_plan is not None:
        on_plan(plan)
    passed, seconds = _start_from_parent(spec, context, model) if spec.parent else (0.0, 0.0)
    if spec.is_solved:
        outcome, train_macs = _solve(spec, context, folder, model)
    else:
        outcome, train_macs = _train(spec, context, folder, model, plan, on_epoch)
    result = {
        "spec": to_json(spec),
        "scores": scores_of(context.study.val_judged(outcome.val_outputs)),
        "best_epoch": outcome.best_epoch,
        "seconds": seconds + outcome.seconds,
        "train_macs": passed + train_macs,
        "num_params": num_stored(model),
        "macs": model.trunk.cut.macs + head_macs(model.head),
    }
    _write(folder, result, outcome)
    remove_checkpoint(folder)
    return _read(spec, context, folder)


def _train(
    spec: TrialSpec,
    context: TrialContext,
    folder: Path,
    model: TransferModel,
    plan: TransferPlan,
    on_epoch: Callable[[int, int], None] | None,
) -> tuple[TrainResult, float]:
    """What a training by gradient came to, and its multiply-accumulates.

    Args:
        spec: What to train.
        context: What all trials share.
        folder: The trial's own folder.
        model: Trained in place.
        plan: What happens to each block.
        on_epoch: Called with (epochs done, epochs in all).
    """
    groups = parameter_groups(model, plan, context.source, spec.weight_decay)
    course = course_of(model, plan, context.source, groups)
    data = context.study.train, context.study.val
    outcome = train_model(model, groups, data, spec.train, context.engine, folder, on_epoch, course)
    train_macs = outcome.images_seen * step_macs(plan, context.source, model, spec.train.epochs, len(outcome.history))
    merge_lora(model.trunk.network)
    return outcome, train_macs


def _start_from_parent(spec: TrialSpec, context: TrialContext, model: TransferModel) -> tuple[float, float]:
    """Give `model` the parent's trunk, and its head where that ends at the same cut; elsewhere a probe of its features.

    Returns the multiply-accumulates of the forward pass, 0 where the features were kept, and the seconds it took.

    Args:
        spec: Names the parent, a finished trial of the same run.
        context: What all trials share.
        model: Changed in place.
    """
    start = time.perf_counter()
    folder = context.folder / spec.parent
    if not (folder / "best.safetensors").is_file():
        raise RunError(f"expected the weights of the trial to start from in {folder}, got none. Delete the trials.")
    weights = load_best(folder)[0]
    # Not strict: blocks of the parent above the cut have no place in the model.
    model.trunk.load_state_dict(_below("trunk.", weights), strict=False)
    if read_json(folder / "result.json")["spec"]["cut"] == spec.cut:
        model.head.load_state_dict(_below("head.", weights))
        return 0.0, time.perf_counter() - start
    sample = probed_sample(context, spec.seed)
    path = feature_path(context, spec.parent, spec.cut, spec.head.kind, "sample")
    passed = 0.0 if path.is_file() else float(len(sample.study.train) * model.trunk.cut.macs)
    with running(context.engine):
        features = cached_features(path, FeatureReader(model), sample.study.train, context.engine)
    model.head = solve_head(model.cpu(), spec.head, sample.study.labelled(features), spec.seed)
    return passed, time.perf_counter() - start


def probed_sample(context: TrialContext, seed: int) -> TrialContext:
    """The training images on which probes, and the heads of warm starts, are solved."""
    return context.sample(PROBED_IMAGES, seed)


def _below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def feature_path(context: TrialContext, origin: str, cut: int, head: str, split: str) -> Path:
    """Where features are kept that several trials need; `origin` names the weights they come from.

    Args:
        context: Trials are kept in its folder.
        origin: Name of the weights.
        cut: Index of the cut.
        head: Kind of the head, which decides how features are pooled.
        split: ``train``, ``val``, or ``sample`` for the sample that probes are solved on.
    """
    kind = head if head in ("flattened", "attention") else "pooled"
    digest = hashlib.sha256(f"{origin} {cut} {kind}".encode()).hexdigest()[:16]
    return context.folder / "features" / f"{digest}-{split}.npy"


def _solve(spec: TrialSpec, context: TrialContext, folder: Path, model: TransferModel) -> tuple[TrainResult, float]:
    """Features once, then the head to convergence; the best weights are written as a training writes them.

    Args:
        spec: What to train.
        context: What all trials share.
        folder: The trial's own folder.
        model: Its head is replaced.
    """
    start = time.perf_counter()
    features, train = frozen_features(spec, context, model), context.study.train
    probs = solved_probs(spec, context, model, context.study.labelled(features["train"]), features["val"])
    folder.mkdir(parents=True, exist_ok=True)
    save_best(folder, model.cpu().state_dict(), probs)
    seconds = time.perf_counter() - start
    outcome = TrainResult(best_epoch=0, history=(), val_outputs=probs, seconds=seconds, images_seen=len(train))
    return outcome, float(len(train) * model.trunk.cut.macs)


def frozen_features(spec: TrialSpec, context: TrialContext, model: TransferModel) -> dict[str, np.ndarray]:
    """Features of the training (``train``) and validation (``val``) images as the head pools them, (n, d) each; kept.

    Args:
        spec: One that is solved.
        context: What all trials share.
        model: What `spec` builds.
    """
    origin = json.dumps(_canonical(to_json(spec.source)))
    reader, found = FeatureReader(model), {}
    with running(context.engine):
        for name, data in (("train", context.study.train), ("val", context.study.val)):
            path = feature_path(context, origin, spec.cut, spec.head.kind, name)
            found[name] = cached_features(path, reader, data, context.engine)
    return found


def solved_probs(
    spec: TrialSpec, context: TrialContext, model: TransferModel, data: Labelled, asked: np.ndarray
) -> np.ndarray:
    """(n, C) probabilities of the features `asked` from a head that is solved on others and put into the model.

    Args:
        spec: One that is solved.
        context: What all trials share.
        model: What `spec` builds, with whatever head.
        data: Features to solve on, with their truth.
        asked: (n, d).
    """
    model.head = solve_head(model.cpu(), spec.head, data, spec.seed)
    with torch.inference_mode():
        return probabilities(model.head.eval().from_pooled(torch.from_numpy(asked)), context.study.val)


def course_of(model: TransferModel, plan: TransferPlan, source: Source, groups: Sequence[ParameterGroup]) -> Course:
    """What the plan wants changed while the model trains.

    Args:
        model: What trains.
        plan: Its plan.
        source: Network that it was made from.
        groups: Groups of the optimiser.
    """
    phases = []
    for number, phase in enumerate(plan.phases):
        frozen = frozen_under(model, source, phase.lrs)
        lrs = tuple(group.lrs[number] for group in groups)
        phases.append(TrainPhase(start=phase.start, lrs=lrs, modules=frozen.modules, parameters=frozen.parameters))
    return Course(phases=tuple(phases), l2sp=plan.l2sp)


def num_stored(model: TransferModel) -> int:
    """Numbers that the deployed model needs: its parameters, and what a classical head remembers."""
    remembered = sum(b.numel() for b in model.head.buffers()) if isinstance(model.head, ClassicalHead) else 0
    return sum(parameter.numel() for parameter in model.parameters()) + remembered


def slim_of(spec: TrialSpec) -> Slim | None:
    """Where the trial's network is slim; None for other strategies."""
    return Slim(depth=spec.cut, width=spec.settings.width) if spec.strategy == "tf" else None


def step_macs(
    plan: TransferPlan, source: Source, model: TransferModel, epochs: int = 1, num_run: int | None = None
) -> float:
    """Multiply-accumulates of one image's training step, mean over the epochs that were run.

    Forward once; the gradient of the weights once more where a block learns; the gradient of the activations once
    more in every block down to the lowest that learns.

    Args:
        plan: The model's plan.
        source: Network that the model was made from.
        model: Its head is counted too.
        epochs: Planned epochs; phases begin with whole ones.
        num_run: Epochs that were run, when the training ended early; None for all.
    """
    ends = [0, *(cut.macs for cut in source.cuts)]
    blocks = np.diff(ends).astype(np.float64)[: model.trunk.cut.index]
    # Slimmed blocks cost less than the source's.
    blocks *= model.trunk.cut.macs / max(blocks.sum(), 1.0)
    total = 0.0
    num_run = num_run or epochs
    for phase in (phase_at(phases_of(plan), epoch, epochs) for epoch in range(num_run)):
        learns = np.array(phase.lrs[: len(blocks)]) > 0
        reached = np.arange(len(blocks)) >= np.argmax(learns) if learns.any() else np.zeros(len(blocks), bool)
        weights = np.zeros(len(blocks)) if model.never_trained else learns
        total += float((blocks * (1 + weights + reached)).sum())
    return total / num_run + 3 * head_macs(model.head)


def load_trial_model(trial: Trial, context: TrialContext) -> tuple[TransferModel, TransferPlan]:
    """The trained model of a finished trial, on the CPU, in evaluation mode, and its plan.

    Raises:
        RunError: Its weights were deleted.
    """
    path = trial.folder / "best.safetensors"
    if not path.is_file():
        raise RunError(f"expected the weights of a finished trial at {path}, got nothing. Delete {path.parent}.")
    model, plan = build_model(trial.spec, context)
    weights = load_best(trial.folder)[0]
    if trial.spec.head.kind in CLASSICAL:
        model.head = empty_classical(trial.spec.head, context.study.train.task, model.trunk.cut, weights)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"expected the weights of this trial in {path}, got others. Delete {path.parent}.") from error
    merge_lora(model.trunk.network)
    return model.eval(), plan


def forget_weights(trial: Trial) -> None:
    """Delete the weights of a trial that is not needed any more; its result stays."""
    (trial.folder / "best.safetensors").unlink(missing_ok=True)


def build_model(spec: TrialSpec, context: TrialContext) -> tuple[TransferModel, TransferPlan]:
    """What a trial trains, before it is trained, and its plan."""
    cut = context.source.depth(spec.cut)
    return apply_strategy(
        spec.strategy, context.source, cut, spec.head, lr=spec.lr, seed=spec.seed, settings=spec.settings
    )


def _read(spec: TrialSpec, context: TrialContext, folder: Path) -> Trial:
    """The finished trial in `folder`.

    Args:
        spec: What was asked.
        context: Its cuts are meant.
        folder: The trial's own folder.
    """
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        outputs = np.load(folder / "val_outputs.npy", allow_pickle=False)
        with (folder / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        history = tuple(_epoch_row(row) for row in rows)
        stored = {name: result[name] for name in _RESULTS}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"could not read the finished trial in {folder}: {error}. Delete that folder.") from error
    return Trial(
        spec=spec, cut=context.source.depth(spec.cut), val_outputs=outputs, history=history, folder=folder, **stored
    )


def _epoch_row(row: dict[str, str]) -> EpochRow:
    numbers = {name: float(value) for name, value in row.items()}
    plain = ("epoch", "lr", "train_loss", "seconds", "val_seconds")
    return EpochRow(
        epoch=int(numbers["epoch"]),
        lr=numbers["lr"],
        train_loss=numbers["train_loss"],
        scores={name.removeprefix("val_"): value for name, value in numbers.items() if name not in plain},
        seconds=numbers["seconds"],
        val_seconds=numbers["val_seconds"],
    )


def _write(folder: Path, result: dict[str, Any], outcome: TrainResult) -> None:
    """Write the files of a finished trial.

    Args:
        folder: The trial's own folder.
        result: Content of ``result.json``.
        outcome: History and validation outputs.
    """
    rows = [row.columns() for row in outcome.history]
    write_rows(folder / "history.csv", list(rows[0]) if rows else ["epoch"], rows)
    with replacing(folder / "val_outputs.npy") as temporary, temporary.open("wb") as binary:
        np.save(binary, outcome.val_outputs)
    # Last: a trial with it is finished.
    write_json(folder / "result.json", result)
