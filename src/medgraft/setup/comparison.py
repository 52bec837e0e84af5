"""From settings and material to the plan of a comparison: strategies, their depths, the data they are compared on."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.config import CompareConfig, RunConfig
from medgraft.data.cohort.labels import rarest_class
from medgraft.data.cohort.unknown import retaught
from medgraft.data.split import train_fractions
from medgraft.errors import BackboneError, ConfigError
from medgraft.judge.comparison import BASELINE
from medgraft.judge.plan import JudgePlan
from medgraft.listener import Listener
from medgraft.prepare.material import Material
from medgraft.search.fair import depths_to_try
from medgraft.search.plan import Recipe
from medgraft.search.two_stage import stage_ends
from medgraft.setup.plan import judge_plan, recipe_of, second_cut
from medgraft.transfer.depths import usual_depth
from medgraft.transfer.heads import CLASSICAL
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import STRATEGIES, apply_strategy
from medgraft.types import Cohort, Cut

__all__ = ["ComparisonPlan", "Part", "parts_of", "plan_comparison", "taught"]

_MIN_GROUPS: Final = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonPlan:
    """What a comparison does: `plan.json` in its folder.

    Args:
        recipe: What all trainings on the whole of the training data have in common.
        depths: Strategies in the order of the tables, each with the indices of the depths to try, the most promising
            first.
        left_out: Strategies that this network cannot do, and why.
        second: Index of the last cut with pretrained weights, where the weights lack the tail, else None.
        num_trials: Trainings of every strategy over depth and learning rate.
        seeds: Seeds of the trainings; the first tunes.
        fractions: Shares of the training groups.
        policies: Policies for uncertain labels; the first is what all are compared with. One empty word where none was
            asked for.
        judge: How the test set is judged.
    """

    recipe: Recipe
    depths: dict[str, tuple[int, ...]]
    left_out: dict[str, str]
    second: int | None
    num_trials: int
    seeds: tuple[int, ...]
    fractions: tuple[float, ...]
    policies: tuple[str, ...]
    judge: JudgePlan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Training data that strategies are compared on.

    Args:
        fraction: Share of the training groups.
        policy: Policy for uncertain labels.
        number: Its number among the policies.
        material: The data.
        recipe: What all trainings on it have in common.
        notes: What was said of the fraction.
    """

    fraction: float
    policy: str
    number: int
    material: Material
    recipe: Recipe
    notes: tuple[str, ...]

    def below(self, folder: Path) -> Path:
        """Where its trials are kept in the folder of a comparison."""
        if self.fraction != 1:
            folder = folder / f"fraction_{self.fraction:g}"
        return folder / f"uncertain_{self.number}" if self.number else folder


def plan_comparison(config: RunConfig, material: Material, listener: Listener) -> ComparisonPlan:
    """The plan of a comparison, with every choice that the settings leave open made.

    Args:
        config: Settings, not refused.
        material: Cohort and network.
        listener: Told what is left out.

    Raises:
        BackboneError: A strategy that was asked for by name is not possible with this network.
        ConfigError: The same, for its head or the labels.
    """
    settings, source, recipe = config.compare or CompareConfig(), material.source, recipe_of(config, material)
    names, left_out = _possible(settings, material, recipe, listener)
    return ComparisonPlan(
        recipe=recipe,
        depths={name: tuple(cut.index for cut in _depths(source, name, settings.trials)) for name in names},
        left_out=left_out,
        second=second_cut(source, recipe),
        num_trials=settings.trials,
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        fractions=settings.fractions,
        policies=settings.uncertain or ("",),
        judge=judge_plan(config),
    )


def parts_of(plan: ComparisonPlan, config: RunConfig, material: Material) -> list[Part]:
    """All training data, by fraction and policy.

    Args:
        plan: The comparison.
        config: Its settings; a smaller part may be trained in smaller batches.
        material: The whole.

    Raises:
        ConfigError: A policy cannot be applied, or a fraction is too small for what is trained on it.
    """
    dataset, seed = material.dataset, plan.seeds[0]
    parts = []
    for fraction, cohort in zip(
        plan.fractions, train_fractions(dataset.cohort, dataset.groups, plan.fractions, seed), strict=True
    ):
        for number, policy in enumerate(plan.policies):
            one = taught(material, cohort, policy, seed)
            notes = cohort.notes_since(dataset.cohort)
            recipe = recipe_of(config, one)
            parts.append(
                Part(fraction=fraction, policy=policy, number=number, material=one, recipe=recipe, notes=notes)
            )
    _check_classes(parts, tuple(plan.depths))
    return parts


def taught(material: Material, cohort: Cohort, policy: str, seed: int) -> Material:
    """`material` with another cohort, whose training is told of uncertain labels what `policy` says.

    Args:
        material: Material of the comparison.
        cohort: The cohort, or a part of it.
        policy: See `medgraft.data.cohort.unknown.parse_policy`; empty for what the cohort was read with.
        seed: Seeds what a policy draws.
    """
    taught = retaught(cohort, policy, seed) if policy else cohort
    return dataclasses.replace(material, dataset=dataclasses.replace(material.dataset, cohort=taught))


def _possible(
    settings: CompareConfig, material: Material, recipe: Recipe, listener: Listener
) -> tuple[list[str], dict[str, str]]:
    """The strategies that this network can do, and why not the others; one asked for by name must be possible.

    Args:
        settings: Names the strategies that are wanted.
        material: Cohort and network.
        recipe: What all trainings have in common.
        listener: Told what is left out.
    """
    is_all = settings.strategies == ("all",)
    # Full fine-tuning is what everything is measured against.
    wanted = list(STRATEGIES) if is_all else list(dict.fromkeys([BASELINE, *settings.strategies]))
    possible, left_out = [], {}
    source, cohort = material.source, material.dataset.cohort
    truth = cohort.training_targets[cohort.rows("train")]
    for name in wanted:
        depth = _depths(source, name, 1)[0]
        spec = recipe.spec(name, depth.index, recipe.train.seed)
        try:
            if spec.head.kind in CLASSICAL and truth.ndim == 2 and np.isnan(truth).any():
                raise ConfigError(f"expected every training label to be known for --head {spec.head.kind}.")
            apply_strategy(name, source, depth, spec.head, lr=spec.lr, seed=spec.seed, settings=spec.settings)
        except (BackboneError, ConfigError) as error:
            if not is_all:
                raise
            left_out[name] = str(error)
            listener.say(f"{name} is left out: {error}")
            continue
        possible.append(name)
    return possible, left_out


def _check_classes(parts: Sequence[Part], names: Sequence[str]) -> None:
    """Solved heads choose their penalty by cross-validation, which needs every class in two groups."""
    solved = [name for name in names if STRATEGIES[name].fitting == "features"]
    for part in parts if solved else ():
        dataset, cohort = part.material.dataset, part.material.dataset.cohort
        rows = cohort.rows("train")
        rare, fewest = rarest_class(cohort.task, cohort.targets[rows], len(cohort.classes), dataset.groups[rows])
        if fewest < _MIN_GROUPS:
            raise ConfigError(
                f"expected at least {_MIN_GROUPS} training groups of {cohort.classes[rare]} at fraction "
                f"{part.fraction:g} for {' and '.join(solved)}, got {fewest}. Use a larger fraction, or leave them out."
            )


def _depths(source: Source, name: str, num: int) -> list[Cut]:
    """At most `num` depths to try for a strategy, the most promising first; one where it has none.

    Args:
        source: The network with its cuts.
        name: A key of `medgraft.transfer.strategies.STRATEGIES`.
        num: Depths to return, at most.
    """
    usual = usual_depth(source, name)
    if not STRATEGIES[name].has_depth:
        return [usual]
    if STRATEGIES[name].fitting == "features":
        return depths_to_try(source.cuts, usual, num)
    # At the last cut ttl, tf and wtst are full fine-tuning, which is compared anyway, and lwft is a probe.
    below = source.cuts[:-1] or source.cuts
    start = usual if STRATEGIES[name].usual == "zero" else max(stage_ends(below), key=lambda cut: cut.index)
    return depths_to_try(below, start, num)
