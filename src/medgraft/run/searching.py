"""Trials of a run: the baseline, the search for the cut, the further seeds, and the table of all of them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import RunConfig
from medgraft.cuts.truncate import resolve_cut
from medgraft.data.augment import AUGMENTATIONS
from medgraft.deploy.predict import write_table
from medgraft.run.folder import log_event, read_json, write_json
from medgraft.run.prepare import Listener, Prepared, image_set
from medgraft.search.incremental import incremental
from medgraft.search.rule import Choice, choose, is_clearly_behind
from medgraft.search.trial import Trial, TrialContext, TrialSpec, run_trial
from medgraft.search.two_stage import two_stage
from medgraft.train.engine import Engine, choose_engine, pick_device
from medgraft.train.loop import TrainSettings
from medgraft.transfer.heads import CLASSICAL, HeadSettings
from medgraft.transfer.plan import plan_line, plan_table
from medgraft.transfer.source import BELOW_STEM, Source
from medgraft.transfer.strategies import STRATEGIES, ZERO_DEPTH, StrategySettings, apply_strategy
from medgraft.types import Cut, TransferPlan, from_json

__all__ = [
    "Searched",
    "best_trial",
    "engine_for",
    "search_cut",
    "search_effort",
    "second_cut",
    "trial_context",
    "trial_spec",
    "usual_depth",
    "wanted_depth",
]

_SMALL_VALIDATION: Final = 200
_SEEDS_WHEN_SMALL: Final = 3
_MIN_EPOCHS: Final = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Searched:
    """What the search settled, from validation alone.

    Args:
        chosen: Trial of the chosen cut, first seed.
        chosen_seeds: Trials of the chosen cut, one per seed.
        baseline_seeds: Full fine-tuning, one per seed.
        second_seeds: Full fine-tuning at the last fully pretrained cut, one per seed; empty when all is
            pretrained.
        trials: Everything that was trained.
        plan: Of the chosen model.
        cost: The `search` part of results.json.
        engine: Device and arithmetic.
    """

    chosen: Trial
    chosen_seeds: tuple[Trial, ...]
    baseline_seeds: tuple[Trial, ...]
    second_seeds: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    plan: TransferPlan
    cost: dict[str, Any]
    engine: Engine


def engine_for(config: RunConfig, folder: Path, found: Prepared, told: Listener) -> Engine:
    """The engine of this run: measured once, stored, and used again when the run continues."""
    path = folder / "engine.json"
    if path.exists():
        stored: Engine = from_json(Engine, read_json(path))
        return stored
    model, _ = apply_strategy(
        "ftl", found.source, found.source.cuts[-1], _head(config, found, "ftl"), lr=_lr(config), seed=config.seed
    )
    engine = choose_engine(
        model,
        (found.preprocessing.channels, found.preprocessing.size, found.preprocessing.size),
        batch_size=config.train.batch_size or _batch_size(len(found.cohort.rows("train"))),
        device=pick_device(config.device),
        is_deterministic=config.deterministic,
        precision=config.train.precision,
    )
    write_json(path, engine)
    speeds = ", ".join(f"{name} {speed:.0f} images/s" for name, speed in engine.measured.items())
    layout = ", channels last" if engine.is_channels_last else ""
    told.say(
        f"Training on {engine.device} in {engine.precision}{layout}" + (f" (measured: {speeds})." if speeds else ".")
    )
    return engine


def trial_context(folder: Path, found: Prepared, engine: Engine) -> TrialContext:
    """What all trials of a run share."""
    return TrialContext(
        source=found.source,
        train=image_set(found, "train"),
        val=image_set(found, "val"),
        train_groups=found.groups[found.cohort.rows("train")],
        val_groups=found.groups[found.cohort.rows("val")],
        classes=found.cohort.classes,
        engine=engine,
        folder=folder / "checkpoints",
    )


def _head(config: RunConfig, found: Prepared, strategy: str) -> HeadSettings:
    num = 1 if found.cohort.task == "binary" else len(found.cohort.classes)
    kind = config.transfer.head or ("svm" if strategy == "hybrid" else "pooled")
    is_beside = config.transfer.strategy == "hybrid" or config.compare is not None
    if kind in CLASSICAL and strategy != "hybrid" and is_beside:
        kind = "pooled"  # what stands beside a hybrid is trained as ever
    return HeadSettings(num_outputs=num, kind=kind, dropout=config.transfer.dropout)


def _settings(config: RunConfig) -> StrategySettings:
    names = [field.name for field in dataclasses.fields(StrategySettings)]
    return StrategySettings(**{name: getattr(config.transfer, name) for name in names})


def _lr(config: RunConfig) -> float:
    """The learning rate: as given, else what suits the network's size."""
    return config.train.lr or (3e-3 if config.backbone.name == PACKAGED_NAME else 1e-3)


def _batch_size(num_train: int) -> int:
    # A few hundred images in large batches are too few steps for a deep network, and truncation would look better
    # than it is.
    return 16 if num_train < 400 else 32 if num_train < 2000 else 64


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
    if not _is_searched(config):
        return 1, config.train.epochs
    seeds = config.search.seeds or (_SEEDS_WHEN_SMALL if num_val_groups < _SMALL_VALIDATION else 1)
    shared = max(config.train.epochs // seeds, min(_MIN_EPOCHS, config.train.epochs))
    return seeds, config.search.epochs or shared


def trial_spec(
    config: RunConfig, found: Prepared, strategy: str, cut: Cut, seed: int, *, epochs: int | None = None
) -> TrialSpec:
    """The specification of one training under `config`; `epochs` only when the search spends fewer."""
    train = config.train
    num_train = len(found.cohort.rows("train"))
    augment = dataclasses.replace(AUGMENTATIONS[train.augment], flip=train.flip)
    backbone = found.source.backbone
    weights = backbone.report.sha256 or backbone.report.source
    return TrialSpec(
        source=f"{backbone.spec.name} {backbone.spec.args} {backbone.size} px {weights}",
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
            batch_size=train.batch_size or _batch_size(num_train),
            optimizer=train.optimizer,
            schedule=train.schedule,
            patience=train.patience,
            clip_norm=train.clip_norm,
            imbalance=train.imbalance,
            label_smoothing=train.label_smoothing,
            augment=augment,
            average=train.average,
            seed=seed,
        ),
    )


class _Runner:
    """Runs trials of one run, tells of them, and keeps what was trained in order."""

    def __init__(self, config: RunConfig, folder: Path, found: Prepared, context: TrialContext, told: Listener):
        self.config, self.folder, self.found, self.context, self.told = config, folder, found, context, told
        self.rows: list[tuple[Trial, str]] = []
        self.plans: list[TransferPlan] = []

    def run(self, strategy: str, cut: Cut, seed: int, role: str, *, epochs: int | None = None) -> Trial:
        name = "ftl" if _is_whole(strategy, cut, self.found.source.cuts) else strategy
        spec = trial_spec(self.config, self.found, name, cut, seed, epochs=epochs)
        place = f" at cut {cut.index} {cut.name if cut.index else ''}".rstrip() if STRATEGIES[name].has_depth else ""
        label = f"{name}{place}, seed {seed}"
        trial = run_trial(spec, self.context, lambda done, total: self.told.step(label, done, total), self._say_plan)
        if all(trial.spec != other.spec for other, _ in self.rows):
            self.rows.append((trial, role))
            self.told.say(
                f"  {label:<44} val AUPRC {trial.val_auprc:.4f}  AUROC {trial.val_auroc:.4f}  "
                f"{trial.num_params / 1e6:6.2f} M  {trial.seconds:5.0f} s"
            )
            log_event(self.folder, "trial", role=role, cut=cut.index, seed=seed, val_auprc=trial.val_auprc)
            write_table(_trial_table(self.rows), self.folder / "search.csv")
        return trial

    def _say_plan(self, plan: TransferPlan) -> None:
        """One line for each trial of a search, every block where there is none; further seeds have the same plan."""
        if plan not in self.plans:
            self.plans.append(plan)
            if _is_searched(self.config):
                self.told.say(f"  plan of {plan.strategy} at {plan.cut}: {plan_line(plan)}")
            else:
                _say_blocks(plan, self.told)


def _is_whole(strategy: str, cut: Cut, cuts: tuple[Cut, ...]) -> bool:
    """At the last cut these are full fine-tuning: one trial serves both."""
    return strategy in ("ttl", "tf", "wtst") and cut.index == len(cuts)


def _say_blocks(plan: TransferPlan, told: Listener) -> None:
    for row in plan_table(plan):
        told.say("  {:<44} {:<15} {:>8} {:>12}".format(*row))


def search_cut(config: RunConfig, folder: Path, found: Prepared, context: TrialContext, told: Listener) -> Searched:
    """Train the baseline, find the cut the rule picks on validation, then train the further seeds.

    Raises:
        CutError: There is no such cut.
    """
    runner = _Runner(config, folder, found, context, told)
    num_seeds, epochs = search_effort(config, len(np.unique(context.val_groups)))
    choice = _explore(runner, num_seeds, epochs)
    searched = _finish(config, found, runner, choice, second_cut(found), told)
    facts = {"method": config.search.method, "seeds": num_seeds, "epochs": epochs}
    return dataclasses.replace(searched, cost={**searched.cost, **facts})


def best_trial(config: RunConfig, folder: Path, found: Prepared, context: TrialContext, told: Listener) -> Trial:
    """The same search without a baseline: the chosen depth, trained with all epochs of the run.

    Raises:
        CutError: There is no such cut.
    """
    runner = _Runner(config, folder, found, context, told)
    choice = _explore(runner, *search_effort(config, len(np.unique(context.val_groups))))
    return runner.run(config.transfer.strategy, found.source.depth(choice.chosen), config.seed, "chosen")


def _explore(runner: "_Runner", num_seeds: int, epochs: int) -> Choice:
    """Train at the depths that the search wants to see, and let the rule choose."""
    config, found, context = runner.config, runner.found, runner.context
    name, cuts = config.transfer.strategy, found.source.cuts
    seeds = range(config.seed, config.seed + num_seeds)
    tried: dict[int, list[Trial]] = {}

    def score(cut: Cut, role: str) -> float:
        kind = "baseline" if cut.index == len(cuts) and name in ("ttl", "tf", "wtst", "ftl") else role
        trials = [runner.run(name, cut, seeds[0], kind, epochs=epochs)]
        best = max(tried.values(), key=_mean_score, default=trials)
        firsts = [context.val_predictions(one.val_probs) for one in (trials[0], best[0])]
        if num_seeds > 1 and not is_clearly_behind(*firsts):
            trials += [runner.run(name, cut, seed, kind, epochs=epochs) for seed in seeds[1:]]
        tried[cut.index] = trials
        return _mean_score(trials)

    if not _is_searched(config):
        score(wanted_depth(found.source, name, config.transfer.cut), "given")
    else:
        each = _times(num_seeds, epochs)
        runner.told.say(f"Searching among {len(cuts)} cuts, {each} each; everything is chosen on validation.")
        _search(runner, score, seeds, epochs)
    second = second_cut(found)
    if second is not None and second.index not in tried and name == "ttl" and _is_searched(config):
        score(second, "second baseline")
    choice = _choose(config, context, cuts, tried)
    write_json(runner.folder / "choice.json", choice)
    return choice


def _search(runner: "_Runner", score: Callable[[Cut, str], float], seeds: range, epochs: int) -> None:
    search, cuts = runner.config.search, runner.found.source.cuts
    if search.method == "incremental":
        level = search.level
        if level is None:
            level = _mean_score([runner.run("ftl", cuts[-1], seed, "baseline", epochs=epochs) for seed in seeds])
        incremental((BELOW_STEM, *cuts), score, level, max_trials=search.max_trials)
    else:
        two_stage(cuts, score, max_trials=search.max_trials)


def _is_searched(config: RunConfig) -> bool:
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


def _mean_score(trials: list[Trial]) -> float:
    return sum(trial.val_auprc for trial in trials) / len(trials)


def _choose(config: RunConfig, context: TrialContext, cuts: tuple[Cut, ...], tried: dict[int, list[Trial]]) -> Choice:
    return choose(
        {index: [context.val_predictions(t.val_probs) for t in trials] for index, trials in tried.items()},
        (BELOW_STEM, *cuts),
        {index: trials[0].num_params for index, trials in tried.items()},
        config.transfer.rule,
        macs={index: trials[0].macs for index, trials in tried.items()},
        tolerance=config.transfer.tolerance,
        replicates=config.evaluate.replicates,
        seed=config.seed,
    )


def _finish(
    config: RunConfig, found: Prepared, runner: _Runner, choice: Choice, second: Cut | None, told: Listener
) -> Searched:
    cuts = found.source.cuts
    chosen_cut = found.source.depth(choice.chosen)
    if len(choice.candidates) > 1:
        told.say(f"Chosen by the rule '{choice.rule}': cut {chosen_cut.index} {chosen_cut.name}.")
    seeds = range(config.seed, config.seed + config.seeds)
    name = config.transfer.strategy
    spec = trial_spec(config, found, "ftl" if _is_whole(name, chosen_cut, cuts) else name, chosen_cut, config.seed)
    _, plan = apply_strategy(
        spec.strategy, found.source, chosen_cut, spec.head, lr=spec.lr, seed=spec.seed, settings=spec.settings
    )
    if _is_searched(config):
        _say_blocks(plan, told)
    # "final": trained longer than the search's trials, so not to be compared with their scores.
    final = "final " if any(trial.spec.train.epochs != config.train.epochs for trial, _ in runner.rows) else ""
    chosen = tuple(runner.run(name, chosen_cut, seed, f"{final}chosen") for seed in seeds)
    num_search = len(runner.rows)
    baseline = tuple(runner.run("ftl", cuts[-1], seed, f"{final}baseline") for seed in seeds)
    others = tuple(runner.run("ttl", second, seed, f"{final}second baseline") for seed in seeds) if second else ()
    trials = tuple(trial for trial, _ in runner.rows)
    one = baseline[0]
    return Searched(
        chosen=chosen[0],
        chosen_seeds=chosen,
        baseline_seeds=baseline,
        second_seeds=others,
        trials=trials,
        plan=plan,
        cost={
            "num_trials": num_search,
            "seconds": sum(trial.seconds for trial in trials[:num_search]),
            "baseline_seconds": one.seconds,
            "cost_in_ftl": sum(trial.train_macs for trial in trials[:num_search]) / one.train_macs,
        },
        engine=runner.context.engine,
    )


def _times(num_seeds: int, epochs: int) -> str:
    return f"{num_seeds} × {epochs} epochs" if num_seeds > 1 else f"{epochs} epochs"


def second_cut(found: Prepared) -> Cut | None:
    """The last fully pretrained cut, when the weights lack the tail of the network."""
    report = found.source.backbone.report
    if report.missing_tail and report.last_pretrained_cut is not None:
        return found.source.cuts[report.last_pretrained_cut - 1]
    return None


def _trial_table(rows: list[tuple[Trial, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cut": trial.cut.index,
                "name": trial.cut.name,
                "stage": trial.cut.stage,
                "seed": trial.spec.seed,
                "strategy": trial.spec.strategy,
                "val_auprc": trial.val_auprc,
                "val_auroc": trial.val_auroc,
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
