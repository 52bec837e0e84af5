"""A comparison of strategies as a value: `comparison.json` on disk."""

import dataclasses
from pathlib import Path
from typing import Any, Final

from medgraft.as_json import from_json, to_json
from medgraft.backbones.load_report import LoadReport
from medgraft.evaluate.intervals import Difference
from medgraft.evaluate.verdict import Verdict
from medgraft.files import write_json
from medgraft.result.advice import Advice, NamedCut
from medgraft.result.finished import read_finished
from medgraft.result.run import Ledger
from medgraft.types import Task

__all__ = [
    "AdviceOutcome",
    "ComparisonResult",
    "Gap",
    "MetricOverSeeds",
    "StrategyResult",
    "TunedTrial",
    "read_comparison",
    "write_comparison_result",
]

COMPARISON: Final = "comparison.json"
SCHEMA: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MetricOverSeeds:
    """A test metric of one strategy.

    Args:
        mean: Mean over seeds.
        sd: Standard deviation over seeds; None with a single one.
        ci95: Interval over groups and seeds, for the metrics that are compared.
    """

    mean: float
    sd: float | None = None
    ci95: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Difference):
    """A strategy less the baseline, paired.

    Args:
        p_holm: p-value adjusted by Holm's method for all strategies of a fraction; None outside that family.
        p_loss_holm: One-sided p of a loss of the margin or more, adjusted likewise; None outside that family.
    """

    p_holm: float | None = None
    p_loss_holm: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TunedTrial:
    """A training of the tuning: index of its depth, its learning rate and its score: on validation, or cross-fitted."""

    cut: int
    lr: float
    val_score: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StrategyResult:
    """One strategy on one fraction of the training groups.

    Args:
        strategy: As tables call it: with the policy for uncertain labels, where it is not the first of several.
        key: A key of `medgraft.transfer.strategies.STRATEGIES`, or ``ftl-pretrained``.
        fraction: Share of the training groups.
        uncertain: Policy for uncertain labels, empty where none was asked for.
        num_train: Training images.
        cut: Its depth, as validation chose it; None where it has none.
        head: Kind of the head on the trunk.
        lr: Learning rate that validation chose; None where the head was solved.
        tried: Every training of the tuning.
        val_score: Validation score, mean over seeds.
        test: Test metrics by name.
        num_params: Parameters of the deployed model, head included.
        macs: Multiply-accumulates of one image.
        cpu_ms: Milliseconds for one image on the CPU.
        gpu_ms: Milliseconds for one image on the GPU, where there is one.
        train_seconds: Seconds of one training, mean over seeds.
        train_macs: Multiply-accumulates of one training, mean over seeds.
        tuning_macs: Multiply-accumulates of all trainings of the tuning.
        cost_in_ftl: Multiply-accumulates of a training in units of full fine-tuning.
        seconds_in_ftl: Seconds of a training in units of full fine-tuning.
        difference: Difference to full fine-tuning, by name of the metric; empty for the baseline itself.
        verdict: Verdict from the difference in AUROC; None for the baseline.
        second_difference: Difference in AUROC to full fine-tuning of the pretrained part, where the weights lack the
            tail.
    """

    strategy: str
    key: str
    fraction: float
    uncertain: str
    num_train: int
    cut: NamedCut | None
    head: str
    lr: float | None
    tried: tuple[TunedTrial, ...]
    val_score: float
    test: dict[str, MetricOverSeeds]
    num_params: int
    macs: int
    cpu_ms: float
    train_seconds: float
    train_macs: float
    tuning_macs: float
    gpu_ms: float | None = None
    cost_in_ftl: float = 1.0
    seconds_in_ftl: float = 1.0
    difference: dict[str, Gap] = dataclasses.field(default_factory=dict)
    verdict: Verdict | None = None
    second_difference: Gap | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AdviceOutcome:
    """Where the strategy that was advised first ended among all, by test AUROC at the largest fraction."""

    strategy: str
    rank: int
    num_strategies: int
    behind_best: float
    advised_cut: int | None = None
    chosen_cut: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonResult:
    """All that a comparison found.

    Args:
        task: What is predicted.
        classes: Names of the classes.
        positive: The positive class of a binary task.
        backbone: Name of the network.
        weights: What loading the pretrained weights did.
        sides: Sides of the input, px or voxels.
        seeds: Seeds of the trainings.
        num_trials: Trainings of every strategy over depth and learning rate.
        epochs: Epochs of every training.
        margin: Non-inferiority margin, in AUROC.
        rows: Every strategy at every fraction.
        ledger: How often the test cases were opened.
        num_test: Test cases.
        num_test_groups: Groups (patients) among them.
        noun: ``images`` or ``volumes``.
        case_noun: What is judged.
        advice: Advice of probes before anything was trained.
        outcome: How right the first word of the advice was; None where that strategy was not compared.
        left_out: Strategies that this network cannot do, and why.
        notes: What was inferred while reading.
        versions: Versions of the programs.
        command: As the user typed it.
    """

    task: Task
    classes: tuple[str, ...]
    positive: str | None
    backbone: str
    weights: LoadReport
    sides: tuple[int, ...]
    seeds: tuple[int, ...]
    num_trials: int
    epochs: int
    margin: float
    rows: tuple[StrategyResult, ...]
    ledger: Ledger
    num_test: int
    num_test_groups: int
    noun: str
    case_noun: str
    advice: Advice
    outcome: AdviceOutcome | None = None
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    command: str = ""

    def at(self, fraction: float) -> tuple[StrategyResult, ...]:
        """The strategies at one fraction of the training groups."""
        return tuple(row for row in self.rows if row.fraction == fraction)

    @property
    def fractions(self) -> tuple[float, ...]:
        """Fractions of the training groups, the largest first."""
        return tuple(sorted({row.fraction for row in self.rows}, reverse=True))


def write_comparison_result(result: ComparisonResult, folder: Path) -> None:
    """Write `comparison.json` into `folder`.

    Raises:
        RunError: It cannot be written.
    """
    facts: dict[str, Any] = to_json(result)
    write_json(folder / COMPARISON, {"schema": SCHEMA, **facts})


def read_comparison(folder: Path) -> ComparisonResult:
    """The finished comparison in `folder`.

    Raises:
        RunError: There is none, or another version wrote it.
    """
    return from_json(ComparisonResult, read_finished(folder, COMPARISON, SCHEMA, made_by="compare"))
