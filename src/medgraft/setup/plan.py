"""From settings and material to the plan of a run: below this nobody sees the settings as a whole."""

import dataclasses
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import RunConfig, SearchConfig
from medgraft.files import write_json
from medgraft.judge.plan import JudgePlan
from medgraft.listener import Listener
from medgraft.prepare.material import Material, prepare_material
from medgraft.prepare.sides import patches_per_image
from medgraft.search.budget import FEWEST_EPOCHS, Budget, within_minutes
from medgraft.search.executor import num_processes
from medgraft.search.plan import Method, Recipe, SearchPlan
from medgraft.search.run_engine import EngineWish, engine_for
from medgraft.search.settle import settled
from medgraft.search.trial import TrialContext
from medgraft.study.dataset import Dataset
from medgraft.train.augment import AUGMENTATIONS
from medgraft.train.engine import Engine, pick_device
from medgraft.train.patches import PatchSettings
from medgraft.train.settings import TrainSettings
from medgraft.transfer.decoders import decoders_at_cuts
from medgraft.transfer.depths import named_depth
from medgraft.transfer.heads import CLASSICAL, HeadKind, HeadSettings
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import STRATEGIES, StrategySettings

__all__ = [
    "RunPlan",
    "context_of",
    "judge_plan",
    "material_of",
    "method_of",
    "on_this_machine",
    "plan_run",
    "recipe_of",
    "search_seeds",
    "second_cut",
    "usual_head",
    "wish_of",
]

# Below so many groups one seed's validation score says more of the seed than of the cut; three seeds with a third of
# the epochs each cost the same.
_SMALL_VALIDATION: Final = 200
_SEEDS_WHEN_SMALL: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run does: `plan.json` in its folder.

    Args:
        search: What is trained, and how the depth is found.
        judge: How the test set is judged.
    """

    search: SearchPlan
    judge: JudgePlan


def material_of(config: RunConfig, listener: Listener) -> Material:
    """What a job with these settings works with; see `medgraft.prepare.material.prepare_material`."""
    return prepare_material(config.data, config.backbone, listener, seed=config.seed, is_offline=config.offline)


def plan_run(config: RunConfig, material: Material, listener: Listener) -> RunPlan:
    """The plan of a run, with every choice that the settings leave open made.

    Args:
        config: Settings of the run, not refused.
        material: Divided, of one fold where there are several.
        listener: Told where another search takes the place of guided.

    Raises:
        CutError: There is no such cut.
        ConfigError: Guided was asked for and is not possible.
        DataError: Guided was asked for, and a class cannot be probed.
    """
    source, dataset = material.source, material.dataset
    transfer, search = config.transfer, config.search
    recipe, method = recipe_of(config, material), method_of(config)
    study = dataset.study
    num_seeds, num_shares = search_seeds(config, len(np.unique(study.val_groups)))
    plan = SearchPlan(
        recipe=recipe,
        strategy=transfer.strategy,
        method=method,
        depths=_possible_depths(source, recipe, transfer.strategy),
        given=named_depth(source, transfer.strategy, transfer.cut).index if method == "given" else 0,
        second=second_cut(source, recipe),
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        num_seeds=num_seeds,
        epochs=search.epochs,
        num_shares=num_shares,
        start=search.start,
        extra=search.extra,
        level=search.level,
        max_trials=search.max_trials,
        rule=transfer.rule,
        tolerance=transfer.tolerance,
        replicates=config.evaluate.replicates,
    )
    # Whoever gives guided a start or a budget of its own has asked for it.
    is_asked = search.method == "guided" or search.start == "ftl" or search.extra != SearchConfig().extra
    epochs = config.train.epochs
    plan = settled(
        plan,
        source,
        study,
        listener,
        is_guided_asked=is_asked,
        fewest_epochs=epochs if config.budget_minutes is None else min(FEWEST_EPOCHS, epochs),
    )
    return RunPlan(search=plan, judge=judge_plan(config))


def context_of(material: Material, engine: Engine, folder: Path) -> TrialContext:
    """Where the trials of a job run.

    Args:
        material: Material of the job, divided.
        engine: Device and arithmetic.
        folder: The job's folder; trials are kept in ``checkpoints`` below it.
    """
    return TrialContext(
        source=material.source, study=material.dataset.study, engine=engine, folder=folder / "checkpoints"
    )


def on_this_machine(
    config: RunConfig, plan: RunPlan, material: Material, folder: Path, listener: Listener
) -> tuple[RunPlan, Engine]:
    """The plan as this machine can carry it out in the time given, and the engine it runs on; both are kept.

    Args:
        config: Device, arithmetic and budget.
        plan: Plan of the run.
        material: Material of the run.
        folder: The run's folder: `engine.json`, `budget.json` and `plan.json` are kept there.
        listener: Told what was measured and decided.

    Raises:
        ConfigError: A training does not fit into memory or the budget.
        RunError: A file cannot be read or written.
    """
    source, dataset = material.source, material.dataset
    wish = wish_of(config)
    engine = engine_for(wish, plan.search.recipe, source, dataset, folder / "engine.json", listener)
    if config.budget_minutes is not None:
        search = within_minutes(
            plan.search,
            Budget(minutes=config.budget_minutes, num_at_once=wish.num_at_once, num_folds=config.data.folds),
            engine,
            source,
            dataset,
            folder / "budget.json",
            listener,
        )
        plan = dataclasses.replace(plan, search=search)
    write_json(folder / "plan.json", plan)
    return plan, engine


def wish_of(config: RunConfig) -> EngineWish:
    """What these settings ask of the arithmetic.

    Raises:
        ConfigError: The machine has no such device, or there is no such executor.
    """
    return EngineWish(
        device=pick_device(config.device),
        precision=config.train.precision,
        is_deterministic=config.deterministic,
        num_at_once=num_processes(config.executor),
    )


def judge_plan(config: RunConfig) -> JudgePlan:
    """How the test set is judged under these settings."""
    settings = config.evaluate
    return JudgePlan(
        margin=settings.margin,
        replicates=settings.replicates,
        seed=config.seed,
        operating_point=settings.operating_point,
        tolerance=settings.tolerance_mm,
    )


def recipe_of(config: RunConfig, material: Material) -> Recipe:
    """What all trainings with these settings have in common.

    Args:
        config: Settings of the job.
        material: Material of the job; tells how many images train, and what their truth is.
    """
    train, dataset, source = config.train, material.dataset, material.source
    has_masks = dataset.masks is not None
    return Recipe(
        source=source.spec,
        num_cuts=len(source.cuts),
        # What suits the network's size.
        lr=train.lr or (3e-3 if source.backbone.spec.name == PACKAGED_NAME else 1e-3),
        weight_decay=train.weight_decay,
        head=_head(config, material, "ttl"),
        hybrid_head=_head(config, material, "hybrid"),
        settings=StrategySettings(
            **{field.name: getattr(config.transfer, field.name) for field in dataclasses.fields(StrategySettings)}
        ),
        solver=config.transfer.solver,
        train=TrainSettings(
            epochs=train.epochs,
            batch_size=_batch_size(train.batch_size, dataset),
            optimizer=train.optimizer,
            schedule=train.schedule,
            patience=train.patience,
            clip_norm=train.clip_norm,
            imbalance=train.imbalance,
            label_smoothing=train.label_smoothing,
            augment=dataclasses.replace(AUGMENTATIONS[train.augment], flip=train.flip),
            average=train.average,
            patches=_patches(config, material) if has_masks else None,
            loss=train.loss if has_masks else "dice-ce",
            seed=config.seed,
        ),
    )


def _head(config: RunConfig, material: Material, strategy: str) -> HeadSettings:
    """A strategy's head: a decoder where the truth are masks.

    Args:
        config: Settings of the job.
        material: Material of the job; tells the outputs, and how volumes are read.
        strategy: A key of `medgraft.transfer.strategies.STRATEGIES`.
    """
    dataset = material.dataset
    num_outputs = dataset.images("train").num_outputs
    if dataset.masks is not None:
        return HeadSettings(num_outputs=num_outputs, kind=config.transfer.decoder)
    usual = usual_head(material.source.backbone.spec.lift)
    kind = config.transfer.head or ("svm" if strategy == "hybrid" else usual)
    is_beside = config.transfer.strategy == "hybrid" or config.compare is not None
    if kind in CLASSICAL and strategy != "hybrid" and is_beside:
        kind = usual  # what stands beside a hybrid is trained as ever
    return HeadSettings(num_outputs=num_outputs, kind=kind, dropout=config.transfer.dropout)


def usual_head(lift: str) -> HeadKind:
    """The head where none is asked for: a network that reads slices one by one has to look across them."""
    return "attention" if lift == "slices" else "pooled"


def _patches(config: RunConfig, material: Material) -> PatchSettings:
    """What a training sees of images with masks."""
    sides = material.source.input_sides
    usual = patches_per_image(material.dataset.preprocessing.sides, sides)
    return PatchSettings(sides=sides, per_image=config.train.patches or usual, foreground=config.train.foreground)


def _batch_size(asked: int, dataset: Dataset) -> int:
    if asked:
        return asked
    if dataset.masks is not None:
        # Patches in a step: two of volumes fill a small machine, and are what nnU-Net usually takes.
        return 8 if dataset.cohort.dims == 2 else 2
    num_train = len(dataset.cohort.rows("train"))
    # A few hundred images in large batches are too few steps for a deep network, and truncation would look better
    # than it is.
    return 16 if num_train < 400 else 32 if num_train < 2000 else 64


def method_of(config: RunConfig) -> Method:
    """The search of a run, where ``auto`` leaves it open.

    Examples:
        >>> from medgraft.config import make_config
        >>> [method_of(make_config("images", preset=name)) for name in ("fast", "balanced", "thorough", "paper")]
        ['guided', 'guided', 'two-stage', 'two-stage']
    """
    transfer, search = config.transfer, config.search
    if not STRATEGIES[transfer.strategy].is_searched or transfer.cut != "auto":
        return "given"
    if search.method != "auto":
        return search.method
    # Guided takes one seed, all epochs and no number of trials: who asks for more of these means the other search.
    is_told_more = search.seeds > 1 or search.epochs > 0 or search.max_trials > 0
    is_probed = transfer.strategy == "ttl" and config.data.task != "segmentation"
    return "guided" if is_probed and not is_told_more else "two-stage"


def search_seeds(config: RunConfig, num_val_groups: int) -> tuple[int, int]:
    """Seeds of every cut that is searched, and how many of them share the epochs of a training.

    Args:
        config: Settings of the run.
        num_val_groups: Groups (patients) in validation.

    Examples:
        >>> from medgraft.config import make_config
        >>> search_seeds(make_config("images"), 80), search_seeds(make_config("images"), 800)
        ((3, 3), (1, 1))
    """
    if method_of(config) == "given":
        return 1, 1
    if config.data.task == "segmentation":
        # A mask has thousands of pixels: what another seed changes is small beside what another case does.
        return config.search.seeds or 1, 1
    seeds = config.search.seeds or (_SEEDS_WHEN_SMALL if num_val_groups < _SMALL_VALIDATION else 1)
    return seeds, seeds


def _possible_depths(source: Source, recipe: Recipe, strategy: str) -> tuple[int, ...]:
    """The cuts that may be tried: where a segmentation is truncated, those at which its decoder can begin.

    Args:
        source: The network with its cuts.
        recipe: Tells the head, and whether masks are learned.
        strategy: A key of `medgraft.transfer.strategies.STRATEGIES`.
    """
    # Only what is cut off takes skip connections with it; other strategies keep the whole encoder.
    if recipe.train.patches is None or strategy not in ("ttl", "frozen"):
        return tuple(cut.index for cut in source.cuts)
    heads = decoders_at_cuts(source, recipe.head.kind)
    return tuple(cut.index for cut in source.cuts if cut.index in heads)


def second_cut(source: Source, recipe: Recipe) -> int | None:
    """The last fully pretrained cut, when the weights lack the tail of the network.

    Args:
        source: The network with its load report.
        recipe: Tells the head.
    """
    report = source.backbone.report
    if not report.missing_tail or report.last_pretrained_cut is None:
        return None
    if recipe.train.patches is not None and report.last_pretrained_cut not in decoders_at_cuts(
        source, recipe.head.kind
    ):
        return None  # its network could have no such decoder
    return report.last_pretrained_cut
