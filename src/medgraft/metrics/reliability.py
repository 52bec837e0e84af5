"""Do probabilities mean what they say: confidence against how often it was right."""

import dataclasses

import numpy as np

from medgraft.errors import ConfigError, DataError
from medgraft.metrics.cases import predicted_targets
from medgraft.types import Predictions

__all__ = ["ReliabilityCurve", "bin_numbers", "reliability_curve", "top_label"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReliabilityCurve:
    """The occupied bins of a reliability diagram, lowest first.

    Args:
        lower: (K,) lower edge of each bin (not in the bin, except 0).
        upper: (K,) upper edge of each bin (in the bin).
        confidence: (K,) mean probability in the bin.
        frequency: (K,) share of cases where the event happened.
        count: (K,) cases in the bin.
    """

    lower: np.ndarray
    upper: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray
    count: np.ndarray


def bin_numbers(probs: np.ndarray, num_bins: int) -> np.ndarray:
    """The equal-width bin of each probability, counted from 0; bins are open below and closed above.

    Args:
        probs: Any shape, 0 to 1.
        num_bins: At least 1.

    Examples:
        >>> bin_numbers(np.array([0.0, 0.1, 0.5, 0.51, 1.0]), 2).tolist()
        [0, 0, 0, 1, 1]
    """
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    return np.asarray(np.clip(np.searchsorted(edges, probs, side="left") - 1, 0, num_bins - 1))


def reliability_curve(probs: np.ndarray, events: np.ndarray, num_bins: int = 15) -> ReliabilityCurve:
    """The reliability diagram of `probs`: in each occupied bin the mean probability and the true share.

    For a binary task pass the positive class's probability and label; for the curve behind `ece` pass the
    two arrays of `top_label`.

    Args:
        probs: (N,) probability of the event, 0 to 1.
        events: (N,) bool or 0/1, whether it happened.
        num_bins: Equal-width bins over 0 to 1.

    Raises:
        ConfigError: `num_bins` below 1.
        DataError: Shapes disagree, or a probability is not in 0 to 1.

    References:
        Guo et al., On calibration of modern neural networks, ICML, 2017.

    Examples:
        >>> curve = reliability_curve(np.array([0.2, 0.3, 0.9]), np.array([0, 1, 1]), num_bins=2)
        >>> curve.confidence.tolist(), curve.frequency.tolist(), curve.count.tolist()
        ([0.25, 0.9], [0.5, 1.0], [2, 1])
    """
    if num_bins < 1:
        raise ConfigError(f"num_bins must be at least 1, got {num_bins}. 15 is usual.")
    if probs.ndim != 1 or probs.shape != events.shape:
        raise DataError(
            f"probs and events must both have the shape (N,), got {probs.shape} and {events.shape}. "
            "Pass one class at a time."
        )
    if not ((probs >= 0) & (probs <= 1)).all():
        raise DataError("probabilities must lie between 0 and 1, got NaN or a value outside. Pass softmax.")
    numbers = bin_numbers(probs, num_bins)
    count = np.bincount(numbers, minlength=num_bins)
    used = np.flatnonzero(count)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    return ReliabilityCurve(
        lower=edges[used],
        upper=edges[used + 1],
        confidence=np.bincount(numbers, weights=probs, minlength=num_bins)[used] / count[used],
        frequency=np.bincount(numbers, weights=events, minlength=num_bins)[used] / count[used],
        count=count[used],
    )


def top_label(pred: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Confidence in what was called and whether it was right, both (N, 1), or (N, C) for multilabel.

    Binary: max(p, 1 - p) of the positive class. Multilabel: the same for each label on its own.

    Args:
        pred: Not checked here.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.7, 0.3], [0.2, 0.8]]), targets=np.array([1, 1]),
        ...                    groups=np.array([0, 1]), classes=("normal", "sick"), task="binary", positive=1)
        >>> confidence, correct = top_label(pred)
        >>> confidence[:, 0].tolist(), correct[:, 0].tolist()
        ([0.7, 0.8], [False, True])
    """
    called = predicted_targets(pred)
    if pred.task == "multilabel":
        return np.maximum(pred.probs, 1 - pred.probs), called == pred.targets
    if pred.positive is not None:
        positive = pred.probs[:, pred.positive]
        confidence = np.maximum(positive, 1 - positive)
    else:
        confidence = pred.probs.max(axis=1)
    return confidence[:, None], (called == pred.targets)[:, None]
