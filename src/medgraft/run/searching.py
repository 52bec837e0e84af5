"""From a prepared split to the models of a run: the search for the cut, the further seeds, the baseline."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from medgraft.config import RunConfig
from medgraft.listener import Listener
from medgraft.result import SearchCost
from medgraft.run.exploring import Explored, explore, is_after_ftl, method_of, search_effort
from medgraft.run.prepare import Prepared
from medgraft.run.trials import Runner, is_searched, say_blocks, second_cut
from medgraft.search.trial import Trial, TrialContext
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
        plan: Of the chosen model.
        rule: That chose.
        cost: What it took.
        engine: Device and arithmetic.
    """

    chosen: Trial
    chosen_seeds: tuple[Trial, ...]
    baseline_seeds: tuple[Trial, ...]
    second_seeds: tuple[Trial, ...]
    continued_seeds: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    plan: TransferPlan
    rule: Literal["compact", "best", "overlap"]
    cost: SearchCost
    engine: Engine

    @property
    def by_role(self) -> dict[str, tuple[Trial, ...]]:
        """What is tested, by `medgraft.judge.test.ROLES`; one trial per seed, the first seed's first."""
        return {
            "chosen": self.chosen_seeds,
            "baseline": self.baseline_seeds,
            "second": self.second_seeds,
            "continued": self.continued_seeds,
        }


def search_cut(config: RunConfig, folder: Path, found: Prepared, context: TrialContext, told: Listener) -> Searched:
    """Train the baseline, find the cut the rule picks on validation, then train the further seeds.

    Raises:
        ConfigError: The search's budget pays for nothing.
        CutError: There is no such cut.
    """
    runner = Runner(config, folder, found, context, told)
    num_seeds, epochs = search_effort(config, len(np.unique(context.val_groups)))
    explored = explore(runner, num_seeds, epochs)
    if is_after_ftl(config):
        num_seeds, epochs = 1, config.train.epochs
    return _finish(runner, explored, num_seeds, epochs)


def best_trial(config: RunConfig, folder: Path, found: Prepared, context: TrialContext, told: Listener) -> Trial:
    """The same search without further seeds: the model at the chosen depth as `fit` makes it.

    Raises:
        ConfigError: The search's budget pays for nothing.
        CutError: There is no such cut.
    """
    runner = Runner(config, folder, found, context, told)
    explored = explore(runner, *search_effort(config, len(np.unique(context.val_groups))))
    return _chosen(runner, explored, config.seed, "chosen")


def _chosen(runner: Runner, explored: Explored, seed: int, role: str) -> Trial:
    """The model of the chosen depth with another seed, made as the search made its own."""
    cut = runner.found.source.depth(explored.choice.chosen)
    if not explored.warm:
        return runner.run(runner.config.transfer.strategy, cut, seed, role)
    trial = runner.run("ftl", runner.found.source.cuts[-1], seed, "baseline")
    for epochs in explored.warm:
        trial = runner.run("ttl", cut, seed, role, epochs=epochs, parent=trial)
    return trial


def _continued(runner: Runner, explored: Explored, ftl: Trial, extra: float) -> Trial | None:
    """Full fine-tuning trained on for what the search cost beyond it, so that time is not mistaken for truncation."""
    if not explored.warm:
        return None
    epochs = max(1, math.ceil(extra * len(ftl.history)))
    return runner.run("ftl", ftl.cut, ftl.spec.seed, "continued", epochs=epochs, parent=ftl)


def _finish(runner: Runner, explored: Explored, num_seeds: int, epochs: int) -> Searched:
    config, found, told, choice = runner.config, runner.found, runner.told, explored.choice
    cuts = found.source.cuts
    cut = found.source.depth(choice.chosen)
    if len(choice.candidates) > 1:
        told.say(f"Chosen by the rule '{choice.rule}': cut {cut.index} {cut.name}.")
    seeds = range(config.seed, config.seed + config.seeds)
    # "final": trained longer than the search's trials, so not to be compared with their scores.
    is_longer = epochs != config.train.epochs
    final = "final " if is_longer else ""
    first = _chosen(runner, explored, seeds[0], f"{final}chosen")
    search = [trial for trial, _ in runner.rows]
    chosen = (first, *(_chosen(runner, explored, seed, f"{final}chosen") for seed in seeds[1:]))
    plan = _plan_of(runner, first)
    if is_searched(config):
        say_blocks(plan, told)
    baseline = tuple(runner.run("ftl", cuts[-1], seed, f"{final}baseline") for seed in seeds)
    second = second_cut(config, found)
    others = tuple(runner.run("ttl", second, seed, f"{final}second baseline") for seed in seeds) if second else ()
    cost = dataclasses.replace(
        _cost(search, baseline[0], explored, method_of(config) if is_searched(config) else "given"),
        seeds=num_seeds,
        epochs=epochs,
        start=config.search.start,
    )
    continued = tuple(_continued(runner, explored, one, cost.beyond_ftl) for one in baseline)
    return Searched(
        chosen=first,
        chosen_seeds=chosen,
        baseline_seeds=baseline,
        second_seeds=others,
        continued_seeds=tuple(one for one in continued if one is not None),
        trials=tuple(trial for trial, _ in runner.rows),
        plan=plan,
        rule=choice.rule,
        cost=cost,
        engine=runner.context.engine,
    )


def _plan_of(runner: Runner, chosen: Trial) -> TransferPlan:
    spec = chosen.spec
    return apply_strategy(
        spec.strategy, runner.found.source, chosen.cut, spec.head, lr=spec.lr, seed=spec.seed, settings=spec.settings
    )[1]


def _cost(search: Sequence[Trial], baseline: Trial, explored: Explored, method: str) -> SearchCost:
    """Everything up to the chosen model of the first seed, in seconds and in units of the baseline."""
    macs = sum(trial.train_macs for trial in search) + explored.pass_macs
    own = baseline.train_macs if any(trial.spec == baseline.spec for trial in search) else 0.0
    return SearchCost(
        method=method,
        num_trials=len(search),
        seconds=sum(trial.seconds for trial in search) + explored.pass_seconds,
        baseline_seconds=baseline.seconds,
        cost_in_ftl=macs / baseline.train_macs,
        beyond_ftl=(macs - own) / baseline.train_macs,
    )
