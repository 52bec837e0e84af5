"""From a prepared split to the models of a run: the search for the cut, the further seeds, the baseline."""

import dataclasses
import math
from collections.abc import Sequence

from medgraft.result.run import Role, SearchCost
from medgraft.search.explore import Explored, explore
from medgraft.search.plan import SearchPlan
from medgraft.search.trainer import Trainer, say_blocks
from medgraft.search.trial import Trial
from medgraft.train.engine import Engine
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import TransferPlan

__all__ = ["Searched", "best_trial", "search_cut"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Searched:
    """What the search settled, from validation alone.

    Args:
        chosen: Trial of the chosen cut, first seed.
        chosen_seeds: Trials of the chosen cut, one per seed.
        baseline_seeds: Full fine-tuning, one per seed.
        second_seeds: Full fine-tuning at the last fully pretrained cut, one per seed; empty when all is
            pretrained.
        continued_seeds: Full fine-tuning trained on for what the search cost beyond it, one per seed; empty unless
            the chosen model started from it.
        trials: Everything that was trained.
        plan: Plan of the chosen model.
        explored: What the search found out.
        cost: What the search took.
        engine: Device and arithmetic.
    """

    chosen: Trial
    chosen_seeds: tuple[Trial, ...]
    baseline_seeds: tuple[Trial, ...]
    second_seeds: tuple[Trial, ...]
    continued_seeds: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    plan: TransferPlan
    explored: Explored
    cost: SearchCost
    engine: Engine

    @property
    def by_role(self) -> dict[Role, tuple[Trial, ...]]:
        """What is tested, by `medgraft.result.run.Role`; one trial per seed, the first seed's first."""
        return {
            "chosen": self.chosen_seeds,
            "baseline": self.baseline_seeds,
            "second": self.second_seeds,
            "continued": self.continued_seeds,
        }


def search_cut(plan: SearchPlan, trainer: Trainer) -> Searched:
    """Find the cut that the rule picks on validation, and train every model that will be tested.

    Args:
        plan: What may be trained, and the rule.
        trainer: Trains it.

    Raises:
        ConfigError: The search's budget pays for nothing.
        MedgraftError: A training failed.
    """
    explored = explore(plan, trainer)
    choice, listener = explored.choice, trainer.listener
    cut = trainer.context.source.depth(choice.chosen)
    if len(choice.candidates) > 1:
        listener.say(f"Chosen by the rule '{choice.rule}': cut {cut.index} {cut.name}.")
    # Trained longer than the search's trials, a model is not to be compared with their scores.
    is_longer = not plan.is_after_ftl and plan.search_epochs != plan.recipe.train.epochs
    final = "final " if is_longer else ""
    (first,) = _chosen(plan, trainer, explored, plan.seeds[:1], f"{final}chosen")
    search = [trial for trial, _ in trainer.trials]
    chosen = (first, *_chosen(plan, trainer, explored, plan.seeds[1:], f"{final}chosen"))
    transfer = _plan_of(trainer, first)
    if plan.is_searched:
        say_blocks(transfer, listener)
    baseline, second = _baselines(plan, trainer, final)
    cost = _cost(plan, search, baseline[0], explored)
    return Searched(
        chosen=first,
        chosen_seeds=chosen,
        baseline_seeds=baseline,
        second_seeds=second,
        continued_seeds=_continued(plan, trainer, baseline, cost.beyond_ftl) if explored.warm else (),
        trials=tuple(trial for trial, _ in trainer.trials),
        plan=transfer,
        explored=explored,
        cost=cost,
        engine=trainer.context.engine,
    )


def best_trial(plan: SearchPlan, trainer: Trainer) -> Trial:
    """The model at the chosen depth, found and made as `search_cut` does, without further seeds or baselines.

    Args:
        plan: What may be trained, and the rule.
        trainer: Trains it.

    Raises:
        ConfigError: The search's budget pays for nothing.
        MedgraftError: A training failed.
    """
    return _chosen(plan, trainer, explore(plan, trainer), plan.seeds[:1], "chosen")[0]


def _chosen(
    plan: SearchPlan, trainer: Trainer, explored: Explored, seeds: Sequence[int], role: str
) -> tuple[Trial, ...]:
    """The models of the chosen depth with these seeds, made as the search made its own.

    Args:
        plan: What may be trained, and the rule.
        trainer: Runs the trainings.
        explored: What the search found out.
        seeds: Seeds of the models.
        role: Role of the trainings in the table of trials.
    """
    cut, whole = explored.choice.chosen, plan.recipe.num_cuts
    if not explored.warm:
        return tuple(trainer.run([(plan.recipe.spec(plan.strategy, cut, seed), role) for seed in seeds]))
    trials = trainer.run([(plan.recipe.spec("ftl", whole, seed), "baseline") for seed in seeds])
    for epochs in explored.warm:
        specs = [
            plan.recipe.spec("ttl", cut, seed, epochs=epochs, parent=parent)
            for seed, parent in zip(seeds, trials, strict=True)
        ]
        trials = trainer.run([(spec, role) for spec in specs])
    return tuple(trials)


def _baselines(plan: SearchPlan, trainer: Trainer, final: str) -> tuple[tuple[Trial, ...], tuple[Trial, ...]]:
    """Full fine-tuning, and that of the pretrained part where the weights lack the tail, one per seed.

    Args:
        plan: What may be trained, and the rule.
        trainer: Runs the trainings.
        final: Put before the role: ``final`` and a space where models train longer than in the search, else empty.
    """
    recipe = plan.recipe
    whole = [(recipe.spec("ftl", recipe.num_cuts, seed), f"{final}baseline") for seed in plan.seeds]
    part = [
        (recipe.spec("ttl", plan.second, seed), f"{final}second baseline")
        for seed in plan.seeds
        if plan.second is not None
    ]
    trials = trainer.run([*whole, *part])
    return tuple(trials[: len(whole)]), tuple(trials[len(whole) :])


def _continued(plan: SearchPlan, trainer: Trainer, baseline: Sequence[Trial], extra: float) -> tuple[Trial, ...]:
    """Full fine-tuning trained on for what the search cost beyond it, so that time is not mistaken for truncation.

    Args:
        plan: What may be trained, and the rule.
        trainer: Runs the trainings.
        baseline: Full fine-tuning, one trial per seed.
        extra: What the search cost beyond the baseline, in units of full fine-tuning.
    """
    specs = [
        plan.recipe.spec(
            "ftl", ftl.cut.index, ftl.spec.seed, epochs=max(1, math.ceil(extra * len(ftl.history))), parent=ftl
        )
        for ftl in baseline
    ]
    return tuple(trainer.run([(spec, "continued") for spec in specs]))


def _plan_of(trainer: Trainer, chosen: Trial) -> TransferPlan:
    spec, source = chosen.spec, trainer.context.source
    return apply_strategy(
        spec.strategy, source, chosen.cut, spec.head, lr=spec.lr, seed=spec.seed, settings=spec.settings
    )[1]


def _cost(plan: SearchPlan, search: Sequence[Trial], baseline: Trial, explored: Explored) -> SearchCost:
    """Everything up to the chosen model of the first seed, in seconds and in units of the baseline.

    Args:
        plan: How was searched.
        search: Trials up to the chosen model of the first seed.
        baseline: Full fine-tuning with the first seed.
        explored: Tells what forward passes beside the trainings took.
    """
    macs = sum(trial.train_macs for trial in search) + explored.pass_macs
    own = baseline.train_macs if any(trial.spec == baseline.spec for trial in search) else 0.0
    return SearchCost(
        method=plan.method,
        num_trials=len(search),
        seconds=sum(trial.seconds for trial in search) + explored.pass_seconds,
        baseline_seconds=baseline.seconds,
        cost_in_ftl=macs / baseline.train_macs,
        beyond_ftl=(macs - own) / baseline.train_macs,
        seeds=1 if plan.is_after_ftl else plan.num_seeds,
        epochs=plan.recipe.train.epochs if plan.is_after_ftl else plan.search_epochs,
        start=plan.start,
    )
