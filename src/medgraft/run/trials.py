"""Trials of a run: their specification, what they share, and the runner that tells of them and lists them."""

import dataclasses
import os
from pathlib import Path
from typing import Final

import pandas as pd

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import RunConfig
from medgraft.cuts.truncate import resolve_cut
from medgraft.data.augment import AUGMENTATIONS
from medgraft.files import read_json, write_json, write_table
from medgraft.listener import Listener
from medgraft.machine import busy_cores
from medgraft.metrics.measures import METRIC_NAMES
from medgraft.run.folder import log_event
from medgraft.run.forecast import forecast_memory, refuse_memory, say_time
from medgraft.run.prepare import Prepared
from medgraft.run.sides import patches_per_image
from medgraft.search.trial import Trial, TrialContext, TrialSpec, run_trial
from medgraft.train.engine import Engine, choose_engine, pick_device
from medgraft.train.patches import PatchSettings
from medgraft.train.settings import TrainSettings
from medgraft.transfer.decoders import decoders_at_cuts
from medgraft.transfer.heads import CLASSICAL, HeadKind, HeadSettings
from medgraft.transfer.plan import plan_line, plan_table
from medgraft.transfer.source import BELOW_STEM, Source
from medgraft.transfer.strategies import STRATEGIES, ZERO_DEPTH, StrategySettings, apply_strategy
from medgraft.types import Cut, TransferPlan, from_json

__all__ = [
    "Runner",
    "engine_for",
    "is_searched",
    "is_whole",
    "say_blocks",
    "second_cut",
    "source_name",
    "trial_context",
    "trial_spec",
    "usual_depth",
    "usual_head",
    "wanted_depth",
]

_BUSY: Final = 0.5
"""Cores; a core that is half used by others."""


def engine_for(config: RunConfig, folder: Path, found: Prepared, told: Listener) -> Engine:
    """The engine of this run: measured once, stored, and used again when the run continues."""
    path = folder / "engine.json"
    if path.exists():
        stored: Engine = from_json(Engine, read_json(path))
        return stored
    model, _ = apply_strategy(
        "ftl", found.source, found.source.cuts[-1], _head(config, found, "ftl"), lr=_lr(config), seed=config.seed
    )
    num_train = len(found.cohort.rows("train"))
    patches = _patches(config, found)
    batch_size, device = _batch_size(config, found), pick_device(config.device)
    shape = (found.preprocessing.channels, *found.input_sides)
    refuse_memory(forecast_memory(model, shape, Engine(device=device)), batch_size, device, told)
    if not config.deterministic:
        _say_busy(told)
    engine = choose_engine(
        model,
        shape,
        batch_size=batch_size,
        device=device,
        is_deterministic=config.deterministic,
        precision=config.train.precision,
    )
    write_json(path, engine)
    noun = found.cohort.noun if patches is None else "patches"
    speeds = ", ".join(f"{name} {speed:.3g} {noun}/s" for name, speed in engine.measured.items())
    choices = [engine.precision, *(["channels last"] if engine.is_channels_last else [])]
    choices += ["one thread"] if engine.num_threads == 1 else []
    measured = f" (measured: {speeds})" if speeds else ""
    told.say(f"Training on {engine.device} in {', '.join(choices)}{measured}.")
    num_items = num_train if patches is None else num_train * patches.per_image
    say_time(engine, config.train.epochs, num_items, noun, told)
    return engine


def _say_busy(told: Listener) -> None:
    """Say when others use this machine: what is measured then does not hold for it alone."""
    busy = busy_cores()
    if busy >= _BUSY:
        told.say(
            f"warn: other programs keep about {busy:.1f} of {os.cpu_count()} cores busy. Trainings take longer beside "
            "them, and what is measured now (precision, layout, threads) may be another choice on an idle machine."
        )


def trial_context(folder: Path, found: Prepared, engine: Engine) -> TrialContext:
    """What all trials of a run share."""
    return TrialContext(
        source=found.source,
        train=found.study.images("train"),
        val=found.study.images("val"),
        train_groups=found.groups[found.cohort.rows("train")],
        val_groups=found.groups[found.cohort.rows("val")],
        val_units=found.cohort.units(found.cohort.rows("val")),
        classes=found.cohort.classes,
        engine=engine,
        folder=folder / "checkpoints",
    )


def _head(config: RunConfig, found: Prepared, strategy: str) -> HeadSettings:
    if found.masks is not None:
        return HeadSettings(num_outputs=found.study.images("train").num_outputs, kind=config.transfer.decoder)
    num = 1 if found.cohort.task == "binary" else len(found.cohort.classes)
    usual = usual_head(found.source.backbone.spec.lift)
    kind = config.transfer.head or ("svm" if strategy == "hybrid" else usual)
    is_beside = config.transfer.strategy == "hybrid" or config.compare is not None
    if kind in CLASSICAL and strategy != "hybrid" and is_beside:
        kind = usual  # what stands beside a hybrid is trained as ever
    return HeadSettings(num_outputs=num, kind=kind, dropout=config.transfer.dropout)


def usual_head(lift: str) -> HeadKind:
    """The head where none is asked for: a network that reads slices one by one has to look across them."""
    return "attention" if lift == "slices" else "pooled"


def _settings(config: RunConfig) -> StrategySettings:
    names = [field.name for field in dataclasses.fields(StrategySettings)]
    return StrategySettings(**{name: getattr(config.transfer, name) for name in names})


def _lr(config: RunConfig) -> float:
    """The learning rate: as given, else what suits the network's size."""
    return config.train.lr or (3e-3 if config.backbone.name == PACKAGED_NAME else 1e-3)


def _patches(config: RunConfig, found: Prepared) -> PatchSettings | None:
    """What a training sees of images with masks; None where there are none."""
    if found.masks is None:
        return None
    return PatchSettings(
        sides=found.input_sides,
        per_image=patches_per_image(config, found.preprocessing.sides, found.input_sides),
        foreground=config.train.foreground,
    )


def _batch_size(config: RunConfig, found: Prepared) -> int:
    if config.train.batch_size:
        return config.train.batch_size
    if found.masks is not None:
        return 8 if found.cohort.dims == 2 else 2
    num_train = len(found.cohort.rows("train"))
    # A few hundred images in large batches are too few steps for a deep network, and truncation would look better
    # than it is.
    return 16 if num_train < 400 else 32 if num_train < 2000 else 64


def trial_spec(
    config: RunConfig, found: Prepared, strategy: str, cut: Cut, seed: int, *, epochs: int | None = None
) -> TrialSpec:
    """The specification of one training under `config`; `epochs` only when the search spends fewer."""
    train = config.train
    augment = dataclasses.replace(AUGMENTATIONS[train.augment], flip=train.flip)
    return TrialSpec(
        source=source_name(found.source),
        strategy=strategy,
        cut=cut.index,
        seed=seed,
        lr=_lr(config),
        weight_decay=train.weight_decay,
        head=_head(config, found, strategy),
        settings=_settings(config),
        solver=config.transfer.solver,
        train=TrainSettings(
            epochs=epochs or train.epochs,
            batch_size=_batch_size(config, found),
            optimizer=train.optimizer,
            schedule=train.schedule,
            patience=train.patience,
            clip_norm=train.clip_norm,
            imbalance=train.imbalance,
            label_smoothing=train.label_smoothing,
            augment=augment,
            average=train.average,
            patches=_patches(config, found),
            loss=train.loss if found.masks is not None else "dice-ce",
            seed=seed,
        ),
    )


def source_name(source: Source) -> str:
    """What decides a source's features: its network, arguments, input size and weights."""
    backbone = source.backbone
    weights = backbone.report.sha256 or backbone.report.source
    return f"{backbone.spec.name} {backbone.spec.args} {backbone.spec.lift} {backbone.sides} px {weights}"


def is_searched(config: RunConfig) -> bool:
    """Whether the run looks for its depth."""
    return STRATEGIES[config.transfer.strategy].is_searched and config.transfer.cut == "auto"


def wanted_depth(source: Source, strategy: str, wanted: str) -> Cut:
    """The cut that ``--cut`` names for `strategy`; where nothing is named, its usual depth.

    Raises:
        CutError: There is no such cut, or depth 0 means nothing for the strategy.
    """
    if wanted == "auto":
        return usual_depth(source, strategy)
    if wanted.strip() == "0" and strategy in ZERO_DEPTH:
        return BELOW_STEM
    return resolve_cut(source.cuts, wanted)


def usual_depth(source: Source, strategy: str) -> Cut:
    """The depth of a strategy when none is given: all that is kept, and everything unfrozen in the end."""
    return BELOW_STEM if strategy == "gradual" else source.cuts[-1]


def second_cut(config: RunConfig, found: Prepared) -> Cut | None:
    """The last fully pretrained cut, when the weights lack the tail of the network."""
    decoder = config.transfer.decoder if found.masks is not None else ""
    report = found.source.backbone.report
    if not report.missing_tail or report.last_pretrained_cut is None:
        return None
    if decoder and report.last_pretrained_cut not in decoders_at_cuts(found.source, decoder):
        return None  # its network could have no such decoder
    return found.source.cuts[report.last_pretrained_cut - 1]


class Runner:
    """Runs trials of one run, tells of them, and keeps what was trained in order."""

    def __init__(self, config: RunConfig, folder: Path, found: Prepared, context: TrialContext, told: Listener):
        self.config, self.folder, self.found, self.context, self.told = config, folder, found, context, told
        self.rows: list[tuple[Trial, str]] = []
        self.plans: list[TransferPlan] = []

    def run(
        self,
        strategy: str,
        cut: Cut,
        seed: int,
        role: str,
        *,
        epochs: int | None = None,
        parent: Trial | None = None,
    ) -> Trial:
        """Train, or read back, and tell; with a `parent` it starts from that trial's trunk."""
        name = "ftl" if is_whole(strategy, cut, self.found.source.cuts) else strategy
        spec = trial_spec(self.config, self.found, name, cut, seed, epochs=epochs)
        if parent is not None:
            spec = dataclasses.replace(spec, parent=parent.spec.key())
        place = f" at cut {cut.index} {cut.name if cut.index else ''}".rstrip() if STRATEGIES[name].has_depth else ""
        label = f"{name}{place}, seed {seed}{', goes on' if parent is not None else ''}"
        trial = run_trial(spec, self.context, lambda done, total: self.told.step(label, done, total), self._say_plan)
        if all(trial.spec != other.spec for other, _ in self.rows):
            self.rows.append((trial, role))
            said = "  ".join(f"{METRIC_NAMES.get(name, name)} {value:.4f}" for name, value in trial.scores.items())
            self.told.say(f"  {label:<44} val {said}  {trial.num_params / 1e6:6.2f} M  {trial.seconds:5.0f} s")
            log_event(self.folder, "trial", role=role, cut=cut.index, seed=seed, **_scores(trial))
            write_table(_trial_table(self.rows), self.folder / "search.csv")
        return trial

    def _say_plan(self, plan: TransferPlan) -> None:
        """One line for each trial of a search, every block where there is none; further seeds have the same plan."""
        if plan not in self.plans:
            self.plans.append(plan)
            if is_searched(self.config):
                self.told.say(f"  plan of {plan.strategy} at {plan.cut}: {plan_line(plan)}")
            else:
                say_blocks(plan, self.told)


def is_whole(strategy: str, cut: Cut, cuts: tuple[Cut, ...]) -> bool:
    """At the last cut these are full fine-tuning: one trial serves both."""
    return strategy in ("ttl", "tf", "wtst") and cut.index == len(cuts)


def say_blocks(plan: TransferPlan, told: Listener) -> None:
    """Tell what happens to each block."""
    for row in plan_table(plan):
        told.say("  {:<44} {:<15} {:>8} {:>12}".format(*row))


def _scores(trial: Trial) -> dict[str, float]:
    return {f"val_{name}": value for name, value in trial.scores.items()}


def _trial_table(rows: list[tuple[Trial, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cut": trial.cut.index,
                "name": trial.cut.name,
                "stage": trial.cut.stage,
                "seed": trial.spec.seed,
                "strategy": trial.spec.strategy,
                **_scores(trial),
                "seconds": round(trial.seconds, 3),
                "train_macs": trial.train_macs,
                "num_params": trial.num_params,
                "macs": trial.macs,
                "is_pretrained": trial.cut.is_pretrained,
                "role": role,
                "epochs": trial.spec.train.epochs,
                "best_epoch": trial.best_epoch,
            }
            for trial, role in rows
        ]
    )
