"""AUROC with DeLong's variance: the interval and the paired test without resampling.

Cases count as independent, so this is for one image per patient; else use the bootstrap over groups.
"""

import numpy as np
from scipy.stats import norm, rankdata

from medgraft.errors import DataError
from medgraft.evaluate.intervals import Z95, Difference, logit_interval, perfect_auroc_interval

__all__ = ["delong_covariance", "delong_interval", "delong_test", "placements"]


def delong_covariance(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) AUROCs of K models on the same cases and their (K, K) covariance.

    By mid-ranks, O(N log N) per model.

    Args:
        scores: (K, N) real numbers, higher is more positive.
        labels: (N,) bool or 0/1, at least two of each.

    Raises:
        DataError: Shapes disagree, a score is NaN, or a class has fewer than two cases.

    References:
        DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver
        operating characteristic curves, Biometrics, 1988. Sun and Xu, Fast implementation of DeLong's
        algorithm, IEEE Signal Processing Letters, 2014.

    Examples:
        >>> areas, cov = delong_covariance(np.array([[0.1, 0.4, 0.35, 0.8]]), np.array([0, 0, 1, 1]))
        >>> areas.tolist(), cov.round(4).tolist()
        ([0.75], [[0.125]])
    """
    if scores.ndim != 2 or scores.shape[1:] != labels.shape:
        raise DataError(
            f"scores and labels must have the shapes (K, N) and (N,), got {scores.shape} and {labels.shape}. "
            "Pass one row of scores per model."
        )
    if np.isnan(scores).any():
        case = int(np.argwhere(np.isnan(scores))[0, 1])
        raise DataError(f"scores must be numbers, got nan for case {case}. Leave failed cases out.")
    positive = np.asarray(labels, dtype=bool)
    num_pos, num_neg = int(positive.sum()), int((~positive).sum())
    if min(num_pos, num_neg) < 2:
        raise DataError(
            f"expected at least two cases of each class, got {num_pos} positive and {num_neg} negative. "
            "A variance needs two; use a larger set."
        )
    of_pos, of_neg = placements(scores, positive)
    covariance = np.atleast_2d(np.cov(of_pos)) / num_pos + np.atleast_2d(np.cov(of_neg)) / num_neg
    return of_pos.mean(axis=1), covariance


def placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, P) share of the negative cases that each positive one beats, (K, Q) of the positive that beat each negative.

    Ties count half; the mean of either is the AUROC.

    Args:
        scores: (K, N) real numbers, higher is more positive.
        positive: (N,) bool, at least one of each.
    """
    pos, neg = scores[:, positive], scores[:, ~positive]
    ranks = rankdata(np.concatenate((pos, neg), axis=1), axis=1)
    of_pos = (ranks[:, : pos.shape[1]] - rankdata(pos, axis=1)) / neg.shape[1]
    of_neg = 1 - (ranks[:, pos.shape[1] :] - rankdata(neg, axis=1)) / pos.shape[1]
    return of_pos, of_neg


def delong_interval(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of one AUROC, symmetric on the logit scale and so inside 0 to 1.

    An AUROC of exactly 0 or 1 has no variance and gets `perfect_auroc_interval`.

    Args:
        scores: (N,) real numbers, higher is more positive.
        labels: (N,) bool or 0/1, at least two of each.

    Raises:
        DataError: As `delong_covariance`.

    References:
        Pepe, The statistical evaluation of medical tests for classification and prediction, Oxford, 2003
        (section 5.2, the logit interval).

    Examples:
        >>> low, high = delong_interval(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        >>> round(low, 3), round(high, 3)
        (0.069, 0.992)
    """
    areas, covariance = delong_covariance(np.asarray(scores)[None], labels)
    area, variance = float(areas[0]), float(covariance[0, 0])
    num_pos = int(np.count_nonzero(labels))
    if area in (0.0, 1.0):
        low = perfect_auroc_interval(num_pos, len(labels) - num_pos)[0]
        return (low, 1.0) if area == 1.0 else (0.0, 1 - low)
    return logit_interval(area, float(np.sqrt(variance)), np.inf)


def delong_test(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> Difference:
    """AUROC of the first minus that of the second model on the same cases, with normal interval and p.

    Args:
        first: (N,) scores of one model.
        second: (N,) scores of the other.
        labels: (N,) bool or 0/1, at least two of each.

    Raises:
        DataError: As `delong_covariance`, or the difference has no variance although it is not 0.

    References:
        DeLong, DeLong and Clarke-Pearson, Biometrics, 1988.

    Examples:
        >>> labels = np.array([0, 0, 0, 1, 1, 1])
        >>> result = delong_test(np.array([1, 2, 4, 3, 5, 6.0]), np.array([5, 2, 4, 3, 1, 6.0]), labels)
        >>> round(result.value, 3), round(result.p, 3)
        (0.444, 0.157)
    """
    areas, covariance = delong_covariance(np.stack((first, second)).astype(np.float64), labels)
    value = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    # Rounding leaves some 1e-18 where the two rank all cases alike.
    if variance <= 1e-15:
        if abs(value) > 1e-12:
            raise DataError(
                f"expected a difference that varies over cases, got {value} without any variance. "
                "Both models separate the classes completely; report their intervals instead."
            )
        return Difference(value=0.0, ci95=(0.0, 0.0), p=1.0)
    error = float(np.sqrt(variance))
    return Difference(
        value=value,
        ci95=(value - Z95 * error, value + Z95 * error),
        p=float(2 * norm.sf(abs(value) / error)),
    )
