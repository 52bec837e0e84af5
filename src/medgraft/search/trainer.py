"""Has the trials of a run trained, tells of them, and keeps them in order."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from medgraft.listener import Listener
from medgraft.metrics.measures import METRIC_NAMES
from medgraft.search.executor import Executor, Watch, here
from medgraft.search.trial import Trial, TrialContext, TrialSpec, is_finished
from medgraft.transfer.plan import plan_line, plan_table
from medgraft.transfer.strategies import STRATEGIES
from medgraft.types import TransferPlan

__all__ = ["Progress", "Trainer", "label_of", "say_blocks"]

_WIDTH: Final = 44


class Progress:
    """How many of the trainings of a job are done, and how long those to come will take.

    Args:
        total: Number of all trainings; 0 where nobody knows.
    """

    def __init__(self, total: int = 0) -> None:
        self.total, self.done, self.num_trained = total, 0, 0
        self.start = time.perf_counter()

    def left(self) -> str:
        """Time left in words; empty before the first training, because what is read back says nothing about time."""
        if not self.num_trained:
            return ""
        each = (time.perf_counter() - self.start) / self.num_trained
        return f", about {each * (self.total - self.done) / 60:.0f} min left"


class Trainer:
    """Runs trials of one context through an executor.

    Args:
        context: Where they run.
        listener: Told how far they are and what came of them.
        executor: Where they are computed.
        on_trial: Called with every new trial and its role.
        is_detailed: Whether plans are told block by block instead of in a line.
        progress: Progress of the job, where it knows how many trainings there will be; otherwise a trial that was told
            of once is not told of again.
        label: Words for a specification.
    """

    def __init__(
        self,
        context: TrialContext,
        listener: Listener,
        *,
        executor: Executor = here,
        on_trial: Callable[[Trial, str], None] = lambda _trial, _role: None,
        is_detailed: bool = False,
        progress: Progress | None = None,
        label: "Callable[[TrialSpec, TrialContext], str] | None" = None,
    ) -> None:
        self.context, self.listener, self.executor = context, listener, executor
        self.on_trial, self.is_detailed, self.progress = on_trial, is_detailed, progress
        self.label = label or label_of
        self.trials: list[tuple[Trial, str]] = []
        self.plans: list[TransferPlan] = []

    def run(self, asked: Sequence[tuple[TrialSpec, str]]) -> list[Trial]:
        """The trials of these specifications, each with its role, in their order; equal ones are trained once.

        Args:
            asked: None of them starts from another one of them.

        Raises:
            MedgraftError: A trial failed.
        """
        roles: dict[str, str] = {}
        for spec, role in asked:
            roles.setdefault(spec.key(), role)
        specs = list({spec.key(): spec for spec, _ in asked}.values())
        new = {spec.key() for spec in specs if not is_finished(spec, self.context)}
        trials: dict[str, Trial] = {}
        for trial in self.executor(self.context, specs, Watch(on_plan=self._say_plan, on_epoch=self._step)):
            key = trial.spec.key()
            trials[key] = trial
            self._tell(trial, roles[key], is_new=key in new)
        return [trials[spec.key()] for spec, _ in asked]

    def run_alone(self, spec: TrialSpec, role: str) -> Trial:
        """The trial of one specification; see `run`."""
        return self.run([(spec, role)])[0]

    def _tell(self, trial: Trial, role: str, *, is_new: bool) -> None:
        """Keep a trial and say what came of it; where trainings are not counted only the first time.

        Args:
            trial: Finished.
            role: Its role in the table of trials.
            is_new: Whether it was trained now instead of read back.
        """
        was_told = any(trial.spec == other.spec for other, _ in self.trials)
        if not was_told:
            self.trials.append((trial, role))
            self.on_trial(trial, role)
        if self.progress is not None:
            self.progress.done += 1
            self.progress.num_trained += is_new
        elif was_told:
            return
        counted = f"{self.progress.done:>4}/{self.progress.total} " if self.progress is not None else ""
        scores = "  ".join(f"{METRIC_NAMES.get(name, name)} {value:.4f}" for name, value in trial.scores.items())
        label = self.label(trial.spec, self.context)
        self.listener.say(
            f"  {counted}{label:<{_WIDTH}} val {scores}  {trial.num_params / 1e6:6.2f} M  {trial.seconds:5.0f} s"
        )

    def _step(self, spec: TrialSpec, done: int, total: int) -> None:
        """Tell how far a training is, with its number and the time left where trainings are counted.

        Args:
            spec: What is trained.
            done: Epochs done.
            total: Epochs in all.
        """
        label = self.label(spec, self.context)
        if self.progress is not None:
            label = f"training {self.progress.done + 1} of {self.progress.total}: {label}{self.progress.left()}"
        self.listener.step(label, done, total)

    def _say_plan(self, spec: TrialSpec, plan: TransferPlan) -> None:
        """Tell of a plan once: further seeds have the same."""
        if plan in self.plans:
            return
        self.plans.append(plan)
        if self.is_detailed:
            say_blocks(plan, self.listener)
        else:
            self.listener.say(f"  plan of {plan.strategy} at {plan.cut}: {plan_line(plan)}")


def label_of(spec: TrialSpec, context: TrialContext) -> str:
    """Words for a trial: strategy, depth where it has one, seed, and whether it goes on from another.

    Args:
        spec: The trial's specification.
        context: The trial's context, whose cuts are meant.
    """
    cut = context.source.depth(spec.cut)
    depth = (
        f" at cut {cut.index} {cut.name if cut.index else ''}".rstrip() if STRATEGIES[spec.strategy].has_depth else ""
    )
    return f"{spec.strategy}{depth}, seed {spec.seed}{', goes on' if spec.parent else ''}"


def say_blocks(plan: TransferPlan, listener: Listener) -> None:
    """Tell what happens to each block.

    Args:
        plan: Plan of a model.
        listener: Told so.
    """
    for row in plan_table(plan):
        listener.say("  {:<44} {:<15} {:>8} {:>12}".format(*row))
