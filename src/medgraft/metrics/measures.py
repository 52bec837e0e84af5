"""By which numbers models are chosen and judged, for each kind of truth: one entry each, and nobody asks elsewhere."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from medgraft.metrics.cases import one_vs_rest
from medgraft.metrics.overlap import MASK_METRICS, weighted_overlap
from medgraft.metrics.weighted import WEIGHTED, weighted_metric
from medgraft.types import Judged, Overlaps, Predictions, Task, kind_of

__all__ = [
    "DISTANCES",
    "MEASURES",
    "METRIC_NAMES",
    "ClassPart",
    "Measure",
    "cases_of",
    "measure_of",
    "measured",
    "scores_of",
]

METRIC_NAMES: Final = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "accuracy": "accuracy",
    "majority": "majority rate",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "weighted kappa",
    "brier": "Brier score",
    "ece": "ECE",
    "dice": "mean Dice",
    "pooled_dice": "pooled Dice",
    "jaccard": "mean Jaccard",
    "hd95": "HD95",
    "surface_dice": "surface Dice",
}
"""Every metric as people say it inside a sentence."""

DISTANCES: Final = ("hd95",)
"""Metrics that are no share of anything: lower is better, and there is no highest value."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassPart:
    """What a set of cases says of one class.

    Args:
        name: Name of the class.
        judged: The cases of which the class is known, against this class alone.
        rows: (K,) int64 which of the cases these are.
        num_cases: How many of them show the class.
    """

    name: str
    judged: Judged
    rows: np.ndarray
    num_cases: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measure:
    """How one kind of truth is measured.

    Args:
        chooses: Metric that chooses on validation.
        judges: Metric that the verdict on the test set is about.
        kept: Metrics of every epoch and trial, the one that chooses first.
        compared: Metrics of which paired differences are told, the one that judges first.
        metrics: Names of all that is told of a set of cases, the one that judges first.
        weighted: (R,) values of a metric, one for each row of (R, N) weights of the cases.
        classes: What the cases say of each class alone; nothing where there is only one to speak of.
        truth: (N, …) of the cases, the same for every model.
        fewest_of_a_class: Groups with, and without, each class that a verdict needs at least.
        fewest_groups: Groups that a verdict needs at least: with fewer no p is small, whatever replicates say.
        tolerance_alone: Whether the rule ``compact`` goes by its tolerance alone, without the bootstrap's SD.
    """

    chooses: str
    judges: str
    kept: tuple[str, ...]
    compared: tuple[str, ...]
    metrics: Callable[[Any], tuple[str, ...]]
    weighted: Callable[[Any, str, np.ndarray], np.ndarray]
    classes: Callable[[Any], Iterator[ClassPart]]
    truth: Callable[[Any], np.ndarray]
    fewest_of_a_class: int = 0
    fewest_groups: int = 0
    tolerance_alone: bool = False

    @property
    def column(self) -> str:
        """Column of the metric that chooses, in tables of trials and epochs."""
        return f"val_{self.chooses}"

    @property
    def chooses_name(self) -> str:
        """The metric that chooses, in words."""
        return METRIC_NAMES.get(self.chooses, self.chooses)

    @property
    def judges_name(self) -> str:
        """The metric that judges, in words."""
        return METRIC_NAMES.get(self.judges, self.judges)


def measure_of(judged: Judged | Task) -> Measure:
    """The measure of what a model said, or of a task.

    Examples:
        >>> measure_of("multiclass").judges, measure_of("segmentation").column
        ('auroc', 'val_dice')
    """
    return MEASURES[kind_of(judged) if isinstance(judged, str) else judged.kind]


def measured(judged: Judged, metric: str) -> float:
    """One metric of a set of cases, each counted once.

    Raises:
        ConfigError: No such metric.
        DataError: Unsound cases, or a class is absent.
    """
    return float(measure_of(judged).weighted(judged, metric, np.ones((1, len(judged.groups))))[0])


def scores_of(judged: Judged) -> dict[str, float]:
    """Scores by name, the one that chooses first: ``auprc`` and ``auroc``, or ``dice`` and ``pooled_dice``.

    Args:
        judged: One set of cases.

    Examples:
        >>> scores_of(Overlaps(counts=np.array([[[2, 2, 1]], [[4, 4, 4]]]), groups=np.arange(2), classes=("vessel",)))
        {'dice': 0.75, 'pooled_dice': 0.8333333333333334}
    """
    return {name: measured(judged, name) for name in measure_of(judged).kept}


def cases_of(judged: Judged, keep: np.ndarray) -> Judged:
    """What a model said of some of the cases alone.

    Args:
        judged: N cases.
        keep: Numbers of cases, or an (N,) mask of them.
    """
    arrays: Mapping[str, Any] = {
        name: value[keep]
        for name, value in ((field.name, getattr(judged, field.name)) for field in dataclasses.fields(judged))
        if isinstance(value, np.ndarray)
    }
    return dataclasses.replace(judged, **arrays)


def _label_metrics(judged: Predictions) -> tuple[str, ...]:
    return tuple(name for name in WEIGHTED if name != "kappa" or judged.is_ordinal)


def _labels_apart(judged: Predictions) -> Iterator[ClassPart]:
    """Each class or label against the rest; of two classes the whole says it already."""
    if judged.task == "binary":
        return
    for part in one_vs_rest(judged):
        alone = Predictions(
            probs=np.stack([1 - part.scores, part.scores], axis=1),
            targets=part.labels.astype(np.int64),
            groups=judged.groups[part.rows],
            strata=None if judged.strata is None else judged.strata[part.rows],
            classes=(f"not {part.name}", part.name),
            task="binary",
            positive=1,
        )
        yield ClassPart(name=part.name, judged=alone, rows=part.rows, num_cases=int(part.labels.sum()))


def _mask_metrics(judged: Overlaps) -> tuple[str, ...]:
    of_areas = ("dice", "pooled_dice", "jaccard")
    return tuple(name for name in MASK_METRICS if name in of_areas or judged.surfaces is not None)


def _masks_apart(judged: Overlaps) -> Iterator[ClassPart]:
    for index, name in enumerate(judged.classes):
        part = slice(index, index + 1)
        surfaces = None if judged.surfaces is None else judged.surfaces[:, part]
        counts = judged.counts[:, part]
        alone = dataclasses.replace(judged, counts=counts, surfaces=surfaces, classes=(name,))
        shown = int((counts[:, 0, 1] > 0).sum())
        yield ClassPart(name=name, judged=alone, rows=np.arange(len(judged.groups)), num_cases=shown)


MEASURES: Final[dict[str, Measure]] = {
    "labels": Measure(
        chooses="auprc",
        judges="auroc",
        kept=("auprc", "auroc"),
        compared=("auroc", "auprc"),
        metrics=_label_metrics,
        weighted=weighted_metric,
        classes=_labels_apart,
        truth=lambda judged: judged.targets,
        # Below, an interval says more of the few cases than of others like them.
        fewest_of_a_class=10,
    ),
    "masks": Measure(
        chooses="dice",
        judges="dice",
        kept=("dice", "pooled_dice"),
        compared=tuple(MASK_METRICS),
        metrics=_mask_metrics,
        weighted=weighted_overlap,
        classes=_masks_apart,
        # How much of each case is truly marked.
        truth=lambda judged: judged.counts[..., 1],
        # With fewer, even differences of one sign throughout have a p above .05 (a sign test).
        fewest_groups=6,
        # On thousands of pixels the SD can be a fraction of what another seed changes, and would call the luckiest
        # training the only good one.
        tolerance_alone=True,
    ),
}
"""By kind of truth, see `medgraft.types.kind_of`."""
