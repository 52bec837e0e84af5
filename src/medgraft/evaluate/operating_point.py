"""Thresholds chosen on validation, applied unchanged to the test set."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from medgraft.errors import ConfigError, DataError
from medgraft.evaluate.intervals import clustered_proportion
from medgraft.evaluate.results import ClassPoint, Estimate
from medgraft.metrics.cases import one_vs_rest
from medgraft.metrics.ranking import roc_curve_points
from medgraft.types import Predictions

__all__ = ["OperatingPoint", "apply_thresholds", "choose_thresholds", "parse_operating_point"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """How a threshold is chosen.

    Args:
        rule: ``youden`` (largest sensitivity + specificity) or ``sensitivity`` (at least `target`).
        target: Sensitivity to reach, above 0 up to 1; None for ``youden``.
    """

    rule: Literal["youden", "sensitivity"]
    target: float | None = None


def parse_operating_point(text: str) -> OperatingPoint:
    """The rule that a user wrote, ``youden`` or ``sensitivity=S``.

    Args:
        text: As on the command line.

    Raises:
        ConfigError: Anything else, or S not above 0 and up to 1.

    Examples:
        >>> parse_operating_point("sensitivity=0.95")
        OperatingPoint(rule='sensitivity', target=0.95)
    """
    words = text.strip().lower()
    if words == "youden":
        return OperatingPoint(rule="youden")
    match = re.fullmatch(r"sensitivity\s*=\s*(\d*\.?\d+)", words)
    target = float(match.group(1)) if match else 0.0
    if not 0 < target <= 1:
        raise ConfigError(
            f"operating point must be 'youden' or 'sensitivity=S' with 0 < S <= 1, got {text!r}. "
            "For example: sensitivity=0.95."
        )
    return OperatingPoint(rule="sensitivity", target=target)


def choose_thresholds(val: Predictions, point: OperatingPoint) -> dict[str, float]:
    """Class name to threshold, one-vs-rest on validation; binary: the positive class alone.

    A case is called positive at or above the threshold. It lies half-way between two observed scores, so
    that another machine's rounding flips no validation case. Among equally good ones the more sensitive
    (``youden``) or the more specific (``sensitivity``) is taken.

    Args:
        val: Validation predictions with every class present.
        point: From `parse_operating_point`.

    Raises:
        DataError: Unsound predictions or an absent class.

    References:
        Youden, Index for rating diagnostic tests, Cancer, 1950.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]),
        ...                    targets=np.array([0, 1, 1]), groups=np.arange(3),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> choose_thresholds(pred, OperatingPoint(rule="youden"))
        {'sick': 0.25}
    """
    return {part.name: _threshold(part.scores, part.labels, point) for part in one_vs_rest(val)}


def apply_thresholds(test: Predictions, thresholds: Mapping[str, float]) -> dict[str, ClassPoint]:
    """What each class's threshold gives on the test cases, by class.

    The intervals are Wilson's, widened for cases that share a group (`clustered_proportion`). Where nothing
    is called (or nothing is not), ppv (or npv) does not exist: value and interval are None. So it is with the
    sensitivity of a class that no case shows.

    Args:
        test: Predictions.
        thresholds: From `choose_thresholds`, on validation.

    Raises:
        DataError: Unsound predictions, an absent class, or a class without a threshold.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]),
        ...                    targets=np.array([0, 1, 1]), groups=np.arange(3),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> apply_thresholds(pred, {"sick": 0.5})["sick"].sensitivity.value
        0.5
    """
    parts = one_vs_rest(test, is_partial=True)
    missing = [part.name for part in parts if part.name not in thresholds]
    if missing:
        raise DataError(
            f"expected a threshold for every class, got none for {missing[0]!r}. Choose them on validation "
            "predictions with the same classes."
        )
    out: dict[str, ClassPoint] = {}
    for part in parts:
        called, groups = part.scores >= thresholds[part.name], test.groups[part.rows]
        out[part.name] = ClassPoint(
            threshold=float(thresholds[part.name]),
            sensitivity=_share(called, part.labels, groups),
            specificity=_share(~called, ~part.labels, groups),
            ppv=_share(part.labels, called, groups),
            npv=_share(~part.labels, ~called, groups),
        )
    return out


def _threshold(scores: np.ndarray, labels: np.ndarray, point: OperatingPoint) -> float:
    """The threshold of one class, half-way between two observed scores.

    Args:
        scores: (N,) probability of the class, 0 to 1.
        labels: (N,) bool, True where the case has the class.
        point: How the threshold is chosen.
    """
    fpr, tpr, candidates = (points[1:] for points in roc_curve_points(scores, labels))
    if point.target is not None:
        chosen = int(np.argmax(tpr >= point.target - 1e-12))
    else:
        # Rounded, so that equal sums compare equal; the last of them is the most sensitive.
        index = np.round(tpr - fpr, 12)
        chosen = len(index) - 1 - int(np.argmax(index[::-1]))
    below = candidates[chosen + 1] if chosen + 1 < len(candidates) else 0.0
    middle = float((candidates[chosen] + below) / 2)
    # Between two neighbouring floats there is nothing, and the mean may round down.
    return middle if middle > below else float(candidates[chosen])


def _share(events: np.ndarray, among: np.ndarray, groups: np.ndarray) -> Estimate:
    """The share of `events` among some of the cases, with its interval.

    Args:
        events: (N,) bool, what is counted.
        among: (N,) bool, the cases that it is a share of.
        groups: (N,) integers, equal for the cases of one patient.
    """
    value, ci95 = clustered_proportion(events[among], groups[among])
    return Estimate(value=value, ci95=ci95)
