"""AUROC and average precision for many case weightings at once, and the two curves behind them.

Equal scores are one step of the curve: AUROC counts a tie as half, average precision uses the precision
after the whole tie.
"""

from collections.abc import Iterator

import numpy as np

from medgraft.errors import DataError

__all__ = ["pr_curve_points", "replicate_chunks", "roc_curve_points", "weighted_auprc", "weighted_auroc"]

# Elements of one float64 block: small enough for the cache, and memory stays flat in the number of cases.
_BLOCK = 2**18


def weighted_auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R,) area under the ROC curve, one per row of weights.

    Args:
        scores: (N,) any real numbers, higher is more positive.
        labels: (N,) bool or 0/1.
        weights: (R, N) how often each case counts, 0 or more.

    Raises:
        DataError: Shapes disagree, a score is NaN, or a row has no weight on one of the two classes.

    References:
        Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC)
        curve, Radiology, 1982.

    Examples:
        >>> weighted_auroc(np.array([0.1, 0.4, 0.8]), np.array([0, 1, 1]), np.ones((1, 3))).tolist()
        [1.0]
    """
    order, starts = _tie_groups(scores, labels, weights)
    positive = np.asarray(labels, dtype=bool)[order]
    out = np.empty(len(weights))
    for rows in replicate_chunks(*weights.shape):
        block = weights[rows][:, order].astype(np.float64)
        positives = _by_tie(block * positive, starts)
        negatives = _by_tie(block * ~positive, starts)
        total = positives.sum(axis=1), negatives.sum(axis=1)
        _check_present(total[0], total[1], rows)
        above = total[1][:, None] - np.cumsum(negatives, axis=1) + negatives / 2
        out[rows] = (positives * above).sum(axis=1) / (total[0] * total[1])
    return out


def weighted_auprc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R,) step-wise average precision (no interpolation), one per row of weights.

    Args:
        scores: (N,) any real numbers, higher is more positive.
        labels: (N,) bool or 0/1.
        weights: (R, N) how often each case counts, 0 or more.

    Raises:
        DataError: Shapes disagree, a score is NaN, or a row has no weight on one of the two classes.

    References:
        Davis and Goadrich, The relationship between Precision-Recall and ROC curves, ICML, 2006 (why the
        points must not be joined by straight lines).

    Examples:
        >>> weighted_auprc(np.array([0.1, 0.4, 0.8]), np.array([1, 0, 1]), np.ones((1, 3))).round(4).tolist()
        [0.8333]
    """
    order, starts = _tie_groups(scores, labels, weights)
    positive = np.asarray(labels, dtype=bool)[order]
    out = np.empty(len(weights))
    for rows in replicate_chunks(*weights.shape):
        block = weights[rows][:, order].astype(np.float64)
        positives = _by_tie(block * positive, starts)
        called = np.cumsum(_by_tie(block, starts), axis=1)
        hits = np.cumsum(positives, axis=1)
        _check_present(hits[:, -1], called[:, -1] - hits[:, -1], rows)
        # Before the first weighted case nothing is called; positives are 0 there, so any divisor does.
        precision = hits / np.where(called > 0, called, 1.0)
        out[rows] = (positives * precision).sum(axis=1) / hits[:, -1]
    return out


def roc_curve_points(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positive rate, true positive rate and threshold, from (0, 0) at infinity to (1, 1).

    Args:
        scores: (N,) any real numbers, higher is more positive.
        labels: (N,) bool or 0/1.

    Raises:
        DataError: As `weighted_auroc`.

    Examples:
        >>> fpr, tpr, thresholds = roc_curve_points(np.array([0.1, 0.4, 0.8]), np.array([0, 0, 1]))
        >>> fpr.tolist(), tpr.tolist(), thresholds.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 1.0, 1.0, 1.0], [inf, 0.8, 0.4, 0.1])
    """
    hits, alarms, thresholds = _cumulative_counts(scores, labels)
    fpr = np.concatenate(([0.0], alarms / alarms[-1]))
    tpr = np.concatenate(([0.0], hits / hits[-1]))
    return fpr, tpr, np.concatenate(([np.inf], thresholds))


def pr_curve_points(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and threshold, from the highest score down; draw it as steps.

    Args:
        scores: (N,) any real numbers, higher is more positive.
        labels: (N,) bool or 0/1.

    Raises:
        DataError: As `weighted_auprc`.

    Examples:
        >>> recall, precision, _ = pr_curve_points(np.array([0.1, 0.4, 0.8]), np.array([0, 0, 1]))
        >>> recall.tolist(), precision.round(2).tolist()
        ([1.0, 1.0, 1.0], [1.0, 0.5, 0.33])
    """
    hits, alarms, thresholds = _cumulative_counts(scores, labels)
    return hits / hits[-1], hits / (hits + alarms), thresholds


def replicate_chunks(num_replicates: int, num_cases: int) -> Iterator[slice]:
    """Slices of replicates that keep one (rows, cases) float64 block at some two megabytes.

    Args:
        num_replicates: Rows of the weights.
        num_cases: Columns of the weights.

    Examples:
        >>> [rows.stop for rows in replicate_chunks(5, 2**17)]
        [2, 4, 5]
    """
    step = max(1, _BLOCK // max(1, num_cases))
    for start in range(0, num_replicates, step):
        yield slice(start, min(start + step, num_replicates))


def _cumulative_counts(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, false alarms and threshold after each distinct score, highest first."""
    order, starts = _tie_groups(scores, labels, np.ones((1, len(scores))))
    positive = np.asarray(labels, dtype=bool)[order]
    ends = np.append(starts[1:], len(order)) - 1
    hits = np.cumsum(positive, dtype=np.float64)[ends]
    alarms = np.cumsum(~positive, dtype=np.float64)[ends]
    _check_present(hits[-1:], alarms[-1:], slice(0, 1))
    return hits, alarms, np.asarray(scores, dtype=np.float64)[order][starts]


def _tie_groups(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order by falling score, and where in it each run of equal scores starts.

    Args:
        scores: (N,) any real numbers, higher is more positive.
        labels: (N,); its shape is checked.
        weights: (R, N); its shape is checked.
    """
    if scores.ndim != 1 or scores.shape != labels.shape or weights.shape[1:] != scores.shape:
        raise DataError(
            f"scores, labels and weights must have the shapes (N,), (N,) and (R, N), got {scores.shape}, "
            f"{labels.shape} and {weights.shape}. Pass one class at a time."
        )
    if np.isnan(scores).any():
        case = int(np.flatnonzero(np.isnan(scores))[0])
        raise DataError(f"scores must be numbers, got nan for case {case}. Leave failed cases out.")
    scores = scores.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return order, starts


def _by_tie(block: np.ndarray, starts: np.ndarray) -> np.ndarray:
    if len(starts) == block.shape[1]:
        return block
    return np.asarray(np.add.reduceat(block, starts, axis=1))


def _check_present(positives: np.ndarray, negatives: np.ndarray, rows: slice) -> None:
    """Nothing, when every row of the weights has positive and negative cases; else `DataError` names the row.

    Args:
        positives: (r,) weight of the positive cases in each row.
        negatives: (r,) weight of the negative cases in each row.
        rows: Which rows of the weights these are, for the message.
    """
    for name, totals in (("positive", positives), ("negative", negatives)):
        if (totals <= 0).any():
            row = rows.start + int(np.flatnonzero(totals <= 0)[0])
            raise DataError(
                f"expected {name} cases with weight above 0, got none in row {row} of the weights. "
                "Use a set with both classes, and replicates stratified by class."
            )
