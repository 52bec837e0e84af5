"""An analysis of features as a value: `analysis.json` on disk."""

import dataclasses
from pathlib import Path
from typing import Any, Final, Literal

from medgraft.analysis.change import LayerChange
from medgraft.analysis.networks import CutDistance, CutSimilarity, CutWorth, Matrix
from medgraft.as_json import from_json, to_json
from medgraft.files import write_json
from medgraft.result.finished import read_finished
from medgraft.result.run import CutFacts

__all__ = [
    "AnalysisResult",
    "CutDecision",
    "DepthGain",
    "OtherRun",
    "RunPoint",
    "SourceDistance",
    "read_analysis",
    "write_analysis_result",
]

ANALYSIS: Final = "analysis.json"
SCHEMA: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CutDecision:
    """Where the probes on fine-tuned features would cut, by the run's rule, and how right that was.

    Args:
        cut: The cut that the probes name.
        rule: The rule of the run.
        is_truncated: Whether the run's depths are cuts, so that its scores say something about this one.
        probe: Score of the probe at that cut.
        best: Index of the cut with the best probe.
        best_probe: Score of the probe at the cut `best`.
        chosen: Index of the cut that the run chose.
        trained: Score of the model that the run trained there; None where it trained none.
        best_trained: Best score of the run.
        num_trained: Cuts that the run trained.
    """

    cut: CutFacts
    rule: Literal["compact", "best", "overlap"]
    is_truncated: bool
    probe: float
    best: int
    best_probe: float
    chosen: int
    trained: float | None
    best_trained: float
    num_trained: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OtherRun:
    """A second run of the same network: its name, similarity cut by cut, and CKA of all pairs of cuts."""

    run: str
    cuts: dict[int, CutSimilarity]
    cka: Matrix


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceDistance:
    """How far the cohort lies from the images of the pretraining, by index of the cut."""

    source: str
    cuts: dict[int, CutDistance]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DepthGain:
    """Validation scores with the pretrained weights up to a depth, and the gain in AUPRC over depth 0."""

    depth: int
    name: str
    val_auprc: float
    val_auroc: float
    gain: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunPoint:
    """A run among several: its distance to the source with interval, and what the pretrained weights brought it."""

    run: str
    fid: float
    ci95: tuple[float, float]
    gain: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisResult:
    """What networks make of a cohort, cut by cut: of a finished run, or of a pretrained network alone.

    Args:
        num_images: Training images that similarities were measured on.
        num_probed: Training images that probes were solved on.
        cuts: The cuts of the network.
        random: Similarity of the pretrained network to one with random weights.
        worth: What frozen features of the pretrained network promise, by index of the cut.
        worth_after: What frozen features of the fine-tuned network promise, by index of the cut.
        worth_random: What frozen features of a network with random weights promise, by index of the cut.
        after: Similarity before and after transfer; empty without a run.
        cka_before_after: CKA of every cut before with every cut after transfer.
        cka_after: CKA of every cut with every other one after transfer.
        cka_before: CKA of every cut with every other one in the pretrained network.
        decision: Where probes on fine-tuned features would cut; None without a run.
        weights: How far each layer moved.
        importance: What validation AUPRC loses when a block is put back, by index of the cut.
        other: A second run, where one was given.
        distance: Distance to the images of the pretraining, where these were given.
        gain: What pretrained weights bring by depth, where it was asked for.
        points: This run among several.
        network: Name of the network; empty for a run.
        data: Name of the cohort; empty for a run.
    """

    num_images: int
    num_probed: int
    cuts: tuple[CutFacts, ...]
    random: dict[int, CutSimilarity]
    worth: dict[int, CutWorth]
    worth_after: dict[int, CutWorth] = dataclasses.field(default_factory=dict)
    worth_random: dict[int, CutWorth] = dataclasses.field(default_factory=dict)
    after: dict[int, CutSimilarity] = dataclasses.field(default_factory=dict)
    cka_before_after: Matrix = ()
    cka_after: Matrix = ()
    cka_before: Matrix = ()
    decision: CutDecision | None = None
    weights: tuple[LayerChange, ...] = ()
    importance: dict[int, float] = dataclasses.field(default_factory=dict)
    other: OtherRun | None = None
    distance: SourceDistance | None = None
    gain: tuple[DepthGain, ...] = ()
    points: tuple[RunPoint, ...] = ()
    network: str = ""
    data: str = ""

    @property
    def names(self) -> dict[int, str]:
        """Names of the cuts by index."""
        return {cut.index: cut.name for cut in self.cuts}


def write_analysis_result(result: AnalysisResult, folder: Path) -> None:
    """Write `analysis.json` into `folder`.

    Raises:
        RunError: It cannot be written.
    """
    facts: dict[str, Any] = to_json(result)
    write_json(folder / ANALYSIS, {"schema": SCHEMA, **facts})


def read_analysis(folder: Path) -> AnalysisResult:
    """The analysis in `folder`.

    Raises:
        RunError: There is none, or another version wrote it.
    """
    return from_json(AnalysisResult, read_finished(folder, ANALYSIS, SCHEMA, made_by="analyze"))
