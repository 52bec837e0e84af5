"""The result of a run as a value: what its report, its terminal and other jobs need; `results.json` on disk."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from medgraft.as_json import from_json, to_json
from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.spec import Lift
from medgraft.config import TrainConfig
from medgraft.data.audit.findings import Finding
from medgraft.errors import RunError
from medgraft.evaluate.results import (
    Comparison,
    Estimate,
    ModelResult,
    TestResult,
    comparison_from_json,
    comparison_to_json,
    judged_from_json,
    judged_to_json,
    model_from_json,
    model_to_json,
)
from medgraft.evaluate.verdict import Verdict
from medgraft.files import write_json
from medgraft.metrics.measures import Measure, measure_of
from medgraft.result.finished import read_finished
from medgraft.train.engine import Engine
from medgraft.transfer.strategies import StrategySettings
from medgraft.types import Cut, Preprocessing, Task, TransferPlan

__all__ = [
    "AuditCounts",
    "AuditResult",
    "BackboneFacts",
    "Chosen",
    "Cost",
    "CutFacts",
    "Efficiency",
    "FoldResult",
    "FurtherModel",
    "Ledger",
    "ROLES",
    "Role",
    "RunResult",
    "SearchCost",
    "SplitFacts",
    "cut_facts",
    "mean_of_those_there",
    "read_result",
    "result_from_json",
    "result_to_json",
    "write_result",
]

RESULTS: Final = "results.json"
SCHEMA: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CutFacts:
    """A cut in short: where it is, and what everything up to it costs."""

    index: int
    name: str
    num_params: int
    macs: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What was chosen, and how.

    Args:
        strategy: Name of the strategy.
        head: Kind of the head.
        solver: How a head on frozen features was found: solved (``exact``) or trained (``gradient``).
        settings: Settings of the strategy.
        rule: Rule that chose among cuts: ``compact``, ``best`` or ``overlap``.
        init: Where the weights came from: ``pretrained``, ``ftl`` (it went on from full fine-tuning) or ``none``.
        cut: Depth of the strategy.
        is_solved: Whether its head was solved on features instead of trained by gradient.
    """

    strategy: str
    cut: CutFacts
    is_solved: bool = False
    head: str = "pooled"
    solver: Literal["exact", "gradient"] = "exact"
    settings: StrategySettings = dataclasses.field(default_factory=StrategySettings)
    rule: Literal["compact", "best", "overlap"] = "compact"
    init: Literal["pretrained", "ftl", "none"] = "pretrained"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a deployed model costs: numbers stored, multiply-accumulates of one input, milliseconds, bytes."""

    num_params: int
    macs: int
    cpu_ms: float | None = None
    file_bytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Costs of the saved model and of full fine-tuning, measured in turns with so many threads."""

    chosen: Cost
    baseline: Cost
    cpu_threads: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FurtherModel:
    """A further baseline on the same cases, and the chosen model against it.

    Args:
        cut: Where the baseline ends.
        epochs: Epochs that it was trained for; 0 where folds differ.
        result: What the test cases say of it.
        comparison: The chosen model less this baseline.
    """

    cut: CutFacts
    result: ModelResult
    comparison: Comparison
    num_params: int
    macs: int
    epochs: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchCost:
    """How the depth was searched and what that took.

    Args:
        method: Name of the search; ``given`` where nothing was searched.
        num_trials: Trainings up to the chosen model of the first seed.
        seeds: Seeds per cut.
        epochs: Epochs per seed.
        seconds: Seconds of these trainings and of what is beside them.
        baseline_seconds: Seconds of one full fine-tuning.
        cost_in_ftl: Training-step multiply-accumulates in units of full fine-tuning.
        beyond_ftl: Training-step multiply-accumulates without the baseline itself, in units of full fine-tuning.
        start: Where a guided search began: ``source`` or ``ftl``.
        fold: Number of the fold, from 1, whose choice is shown where there are several.
    """

    method: str
    num_trials: int
    seconds: float
    baseline_seconds: float
    cost_in_ftl: float
    beyond_ftl: float
    seeds: int = 1
    epochs: int = 0
    start: Literal["source", "ftl"] = "source"
    fold: int | None = None


Role = Literal["chosen", "baseline", "second", "continued"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""Models that are tested: the chosen one, full fine-tuning, and further baselines where there are any."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """How the cohort was divided.

    Args:
        sha256: Digest of ``splits.csv``.
        groups: Independent groups by split.
        group_kind: What a group is: ``patient`` where patients are known, else the noun of a case.
        without_patient: Images whose patient is not known while that of others is.
        counts: Split to class to number of images with it.
        images: Split to number of images.
        tested: Class to number of test cases with it; of units each counts once.
        are_leaks_dropped: Whether a given split leaked and was cleaned.
    """

    sha256: str
    groups: dict[str, int]
    group_kind: str
    counts: dict[str, dict[str, int]]
    images: dict[str, int]
    tested: dict[str, int] = dataclasses.field(default_factory=dict)
    without_patient: int = 0
    are_leaks_dropped: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditCounts:
    """What the audit counted.

    Args:
        images: Images that can be read.
        unreadable: Files that cannot.
        exact_duplicate_sets: Sets of images with equal pixels.
        near_duplicate_pairs: Pairs that are nearly the same picture.
    """

    images: int = 0
    unreadable: int = 0
    exact_duplicate_sets: int = 0
    near_duplicate_pairs: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """What the audit counted and found."""

    counts: AuditCounts = AuditCounts()
    findings: tuple[Finding, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """How often these test cases were opened on this machine, this run included."""

    openings: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackboneFacts:
    """The network, how it reads volumes, and what loading its weights did."""

    name: str
    load_report: LoadReport
    lift: Lift = "none"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One outer fold in short: what it chose, and what its own test cases say of the metric that judges."""

    fold: int
    cut: CutFacts
    num_params: int
    num_cases: int
    chosen: Estimate
    baseline: Estimate
    verdict: Verdict


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The content of `results.json`.

    Args:
        task: What is predicted.
        classes: In the order of the model's outputs.
        positive: Positive class of a binary task.
        chosen: The saved model.
        test: What the test cases say.
        efficiency: What the saved model and full fine-tuning cost.
        search: How the depth was found.
        splits: How the cohort was divided; of folds what was tested.
        audit: What was found in the cohort.
        ledger: Openings of the test cases.
        versions: Versions of this program and of what decides its numbers.
        command: As the user typed it.
        backbone: Network and weights.
        preprocessing: From a file to the network's input.
        plan: What happened to every block.
        seeds: Seeds of the trainings.
        seed: Seed of the split and of the first training.
        train: How every model was trained, with what was left open filled in.
        engine: Device and arithmetic.
        late_gain: By role how much the best validation score rose in the last quarter of the epochs.
        notes: What was inferred, one sentence each.
        noun: ``images`` or ``volumes``.
        case_noun: What is judged.
        patch: Sides of what a network for masks sees at once; else empty.
        is_phantom: Whether the images were drawn by this program.
        second_baseline: Full fine-tuning at the last fully pretrained cut, where the weights lack the tail.
        continued: Full fine-tuning trained on for the cost of the search, where the chosen model started from it.
        folds: One for each outer fold; empty without.
    """

    task: Task
    classes: tuple[str, ...]
    positive: str | None
    chosen: Chosen
    test: TestResult
    efficiency: Efficiency
    search: SearchCost
    splits: SplitFacts
    audit: AuditResult
    ledger: Ledger
    versions: dict[str, str]
    command: str
    backbone: BackboneFacts
    preprocessing: Preprocessing
    plan: TransferPlan
    seeds: tuple[int, ...]
    seed: int
    train: TrainConfig
    engine: Engine
    late_gain: dict[str, float | None] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    noun: Literal["images", "volumes"] = "images"
    case_noun: str = "images"
    patch: tuple[int, ...] = ()
    is_phantom: bool = False
    second_baseline: FurtherModel | None = None
    continued: FurtherModel | None = None
    folds: tuple[FoldResult, ...] = ()

    @property
    def measure(self) -> Measure:
        """By which numbers the run chose and judged."""
        return measure_of(self.task)


def cut_facts(cut: Cut) -> CutFacts:
    """A cut in short."""
    return CutFacts(index=cut.index, name=cut.name, num_params=cut.num_params, macs=cut.macs)


def mean_of_those_there(values: Sequence[float | None]) -> float | None:
    """Mean of those that are not None; None where there is none.

    Examples:
        >>> mean_of_those_there([1.0, None, 3.0]), mean_of_those_there([None])
        (2.0, None)
    """
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def result_to_json(result: RunResult) -> dict[str, Any]:
    """Plain JSON types with the keys of docs/contract.md, ``schema`` first."""
    facts: dict[str, Any] = {"schema": SCHEMA, **to_json(dataclasses.replace(result, train=TrainConfig()))}
    facts["train"] = result.train.model_dump(mode="json")
    facts["test"] = judged_to_json(result.test)
    for name in ("second_baseline", "continued"):
        model: FurtherModel | None = getattr(result, name)
        facts[name] = None if model is None else _further_to_json(model)
    return facts


def result_from_json(stored: Mapping[str, Any]) -> RunResult:
    """The value that `result_to_json` wrote, without its ``schema``.

    Raises:
        RunError: It was written by hand.
    """
    try:
        nested = dict(stored) | {"test": judged_from_json(stored["test"])}
        for name in ("second_baseline", "continued"):
            nested[name] = None if stored.get(name) is None else _further_from_json(stored[name])
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"expected results of this version, got some without {error}. Fit again.") from error
    return from_json(RunResult, nested)


def write_result(result: RunResult, folder: Path) -> None:
    """Write `results.json` into `folder`.

    Raises:
        RunError: It cannot be written.
    """
    write_json(folder / RESULTS, result_to_json(result))


def read_result(folder: Path) -> RunResult:
    """The result of the finished run in `folder`.

    Raises:
        RunError: There is none, or another version wrote it.
    """
    return result_from_json(read_finished(folder, RESULTS, SCHEMA, made_by="fit"))


def _further_to_json(model: FurtherModel) -> dict[str, Any]:
    facts = {name: to_json(getattr(model, name)) for name in ("cut", "num_params", "macs", "epochs")}
    return {**facts, **model_to_json(model.result), **comparison_to_json(model.comparison)}


def _further_from_json(stored: Mapping[str, Any]) -> FurtherModel:
    return FurtherModel(
        cut=from_json(CutFacts, stored["cut"]),
        result=model_from_json(stored),
        comparison=comparison_from_json(stored),
        num_params=stored["num_params"],
        macs=stored["macs"],
        epochs=stored["epochs"],
    )
