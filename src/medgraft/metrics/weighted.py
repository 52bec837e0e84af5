"""Every metric for many case weightings at once: what the bootstrap calls.

This is the one place where the metrics are written; the plain functions are the case of a single row of
ones.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from medgraft.errors import ConfigError, DataError
from medgraft.metrics.cases import OneVsRest, check_predictions, known_labels, one_vs_rest, predicted_targets
from medgraft.metrics.ranking import replicate_chunks, weighted_auprc, weighted_auroc
from medgraft.metrics.reliability import bin_numbers, top_label
from medgraft.types import Predictions

__all__ = ["WEIGHTED", "calibrated_ece", "part_auprc", "part_auroc", "weighted_metric"]

_ECE_BINS = 15


def weighted_metric(pred: Predictions, metric: str, weights: np.ndarray) -> np.ndarray:
    """(R,) values of one metric, one per row of weights.

    Args:
        pred: The predictions of one model.
        metric: A name in `WEIGHTED`.
        weights: (R, N) how often each case counts, 0 or more, any integer or float kind.

    Raises:
        ConfigError: No such metric.
        DataError: The predictions are unsound, a class is absent (also: from one of the rows), or the
            weights do not fit them.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.7, 0.3], [0.2, 0.8]]), targets=np.array([1, 1]),
        ...                    groups=np.array([0, 1]), classes=("normal", "sick"), task="binary", positive=1)
        >>> weighted_metric(pred, "accuracy", np.array([[1, 1], [0, 2]])).tolist()
        [0.5, 1.0]
    """
    if metric not in WEIGHTED:
        raise ConfigError(f"metric must be one of {', '.join(WEIGHTED)}, got {metric!r}.")
    check_predictions(pred)
    if weights.ndim != 2 or weights.shape[1] != len(pred.probs):
        raise DataError(
            f"weights must have the shape (R, {len(pred.probs)}), got {weights.shape}. Draw them for these very cases."
        )
    return WEIGHTED[metric](pred, weights)


def _auroc(pred: Predictions, weights: np.ndarray) -> np.ndarray:
    parts = [part_auroc(part, _of(part, weights)) for part in one_vs_rest(pred)]
    return np.asarray(np.mean(parts, axis=0))


def _auprc(pred: Predictions, weights: np.ndarray) -> np.ndarray:
    parts = [part_auprc(part, _of(part, weights)) for part in one_vs_rest(pred)]
    return np.asarray(np.mean(parts, axis=0))


def part_auroc(part: OneVsRest, weights: np.ndarray) -> np.ndarray:
    """(R,) AUROC of one class: the share of all pairs within strata that are ranked rightly.

    Args:
        part: The class.
        weights: (R, K) of its cases.
    """
    return _within_strata(part, weights, weighted_auroc, lambda positives, negatives: positives * negatives)


def part_auprc(part: OneVsRest, weights: np.ndarray) -> np.ndarray:
    """(R,) average precision of one class: that of the strata, by their positive cases.

    Args:
        part: The class.
        weights: (R, K) of its cases.
    """
    return _within_strata(part, weights, weighted_auprc, lambda positives, _: positives)


def _within_strata(
    part: OneVsRest,
    weights: np.ndarray,
    curve: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    counted: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """(R,) mean of a curve's area over strata.

    Args:
        part: The class.
        weights: (R, K) of its cases.
        curve: `weighted_auroc` or `weighted_auprc`.
        counted: What a stratum counts, from the weight of its positive and that of its negative cases.
    """
    if len(part.strata) == 1:
        return curve(part.scores, part.labels, weights)
    total, of = np.zeros(len(weights)), np.zeros(len(weights))
    for members in part.strata:
        labels, block = part.labels[members], weights[:, members]
        sizes = block[:, labels].sum(axis=1, dtype=float), block[:, ~labels].sum(axis=1, dtype=float)
        # A stratum without one of the two classes ranks nothing.
        there = (sizes[0] > 0) & (sizes[1] > 0)
        if there.any():
            share = counted(sizes[0][there], sizes[1][there])
            total[there] += share * curve(part.scores[members], labels, block[there])
            of[there] += share
    lone = np.flatnonzero(of == 0)
    if len(lone) == len(weights):
        raise DataError(
            f"expected cases with and without {part.name!r} that one model judged, got none. "
            "Use fewer folds, or more cases of the class."
        )
    if len(lone):
        # A rare replicate of few cases has no such pair: it is ranked as a whole.
        total[lone], of[lone] = curve(part.scores, part.labels, weights[lone]), 1.0
    return np.asarray(total / of)


def _of(part: OneVsRest, weights: np.ndarray) -> np.ndarray:
    """The weights of the cases of which the class is known; no copy where these are all."""
    return weights if len(part.rows) == weights.shape[1] else weights[:, part.rows]


def _accuracy(pred: Predictions, weights: np.ndarray) -> np.ndarray:
    _, correct = top_label(pred)
    return np.asarray(_means(correct, weights, known_labels(pred)).mean(axis=1))


def _balanced_accuracy(pred: Predictions, weights: np.ndarray) -> np.ndarray:
    one_vs_rest(pred)  # names an absent class
    _, correct = top_label(pred)
    if pred.task == "multilabel":
        has = np.concatenate((pred.targets == 1, pred.targets == 0), axis=1)
        correct = np.concatenate((correct, correct), axis=1)
    else:
        has = pred.targets[:, None] == np.arange(len(pred.classes))
    counts = _sums(has, weights)
    if (counts <= 0).any():
        row = int(np.argwhere(counts <= 0)[0, 0])
        raise DataError(
            f"expected cases of every class with weight above 0, got a class without in row {row} of the "
            "weights. Use replicates stratified by class."
        )
    return np.asarray((_sums(has & correct, weights) / counts).mean(axis=1))


def _majority(pred: Predictions, weights: np.ndarray) -> np.ndarray:
    if pred.task == "multilabel":
        share = _means(pred.targets == 1, weights, known_labels(pred))
        return np.asarray(np.maximum(share, 1 - share).mean(axis=1))
    has = pred.targets[:, None] == np.arange(len(pred.classes))
    return np.asarray(_means(has, weights).max(axis=1))


def _brier(pred: Predictions, weights: np.ndarray) -> np.ndarray:
    if pred.task == "multilabel":
        truth = (pred.targets == 1).astype(np.float64)
    else:
        truth = (pred.targets[:, None] == np.arange(len(pred.classes))).astype(np.float64)
    squares = (pred.probs - truth) ** 2
    if pred.positive is not None:
        squares = squares[:, [pred.positive]]
    return np.asarray(_means(squares, weights, known_labels(pred)).sum(axis=1))


def _kappa(pred: Predictions, weights: np.ndarray) -> np.ndarray:
    if pred.task != "multiclass":
        raise ConfigError(f"kappa is for grades (multiclass), got a {pred.task} task. Leave it out.")
    truth, called = pred.targets.astype(np.float64)[:, None], predicted_targets(pred).astype(np.float64)[:, None]
    apart, of_truth, of_called = (_means(values, weights)[:, 0] for values in ((truth - called) ** 2, truth, called))
    # What two raters with these habits would be apart by chance.
    squares = _means(truth**2, weights)[:, 0] + _means(called**2, weights)[:, 0]
    chance = squares - 2 * of_truth * of_called
    # Where both know one class alone there is nothing to agree about.
    return np.asarray(np.where(chance > 0, 1 - apart / np.where(chance > 0, chance, 1), np.nan))


def _ece(pred: Predictions, weights: np.ndarray) -> np.ndarray:
    confidence, correct = top_label(pred)
    is_known, parts = known_labels(pred), []
    for column in range(confidence.shape[1]):
        in_bin = bin_numbers(confidence[:, column], _ECE_BINS)[:, None] == np.arange(_ECE_BINS)
        gap = (confidence[:, column] - correct[:, column])[:, None]
        parts.append(np.abs(_means(in_bin * gap, weights, is_known[:, [column]])).sum(axis=1))
    return np.asarray(np.mean(parts, axis=0))


def calibrated_ece(pred: Predictions, num: int = 200, seed: int = 0) -> np.ndarray:
    """(R,) what ECE would be of the same probabilities if they were right: above 0, the more so the fewer cases.

    Args:
        pred: The predictions of one model; their truth plays no part.
        num: Draws of a truth that follows the probabilities, of each case by itself.
        seed: Seeds them.

    References:
        Bröcker and Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting, 2007.

    Examples:
        >>> pred = Predictions(probs=np.tile([[0.25, 0.75]], (100, 1)), targets=np.zeros(100, dtype=int),
        ...                    groups=np.arange(100), classes=("normal", "sick"), task="binary", positive=1)
        >>> round(float(calibrated_ece(pred, 2000).mean()), 2)
        0.03
    """
    confidence, _ = top_label(pred)
    rng, is_known, parts = np.random.default_rng(seed), known_labels(pred), []
    for column, known in enumerate(np.broadcast_to(is_known, confidence.shape).T):
        sure = confidence[known, column]
        gaps = sure - (rng.random((num, len(sure))) < sure)
        in_bin = bin_numbers(sure, _ECE_BINS)[:, None] == np.arange(_ECE_BINS)
        parts.append(np.abs(gaps @ in_bin).sum(axis=1) / len(sure))
    return np.asarray(np.mean(parts, axis=0))


def _sums(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, K) weighted sums of (N, K) values."""
    out = np.empty((len(weights), values.shape[1]))
    numbers = values.astype(np.float64)
    for rows in replicate_chunks(*weights.shape):
        out[rows] = weights[rows].astype(np.float64) @ numbers
    return out


def _means(values: np.ndarray, weights: np.ndarray, is_known: np.ndarray | None = None) -> np.ndarray:
    """(R, K) weighted means of values over the cases where they are known.

    Args:
        values: (N, K).
        weights: (R, N) how often each case counts.
        is_known: (N, K) or (N, 1) bool; None where all are known.

    Raises:
        DataError: A row has no weight on any known value.
    """
    is_known = np.ones((len(values), 1), dtype=bool) if is_known is None else is_known
    total = _sums(is_known, weights)
    if (total <= 0).any():
        raise DataError(
            f"weights must be above 0 somewhere in every row, got row {int(np.argwhere(total <= 0)[0, 0])} without. "
            "Draw at least one case per replicate."
        )
    return np.asarray(_sums(values * is_known, weights) / total)


WEIGHTED: Final[dict[str, Callable[[Predictions, np.ndarray], np.ndarray]]] = {
    "auroc": _auroc,
    "auprc": _auprc,
    "accuracy": _accuracy,
    "majority": _majority,
    "balanced_accuracy": _balanced_accuracy,
    "brier": _brier,
    "ece": _ece,
    "kappa": _kappa,
}
