"""What each case contributes to a metric, and from it intervals and tests over groups with few-group corrections.

A metric that is smooth in its cases differs from its true value by about the sum of their influences; these are
independent between groups (patients). So the variance is that of the groups' sums within each class, and few groups of
a class are paid for by Student's t with the degrees of freedom that Satterthwaite gives two unequal variances. For one
case per group this is DeLong's variance of AUROC, for several that of Obuchowski; for a mean over cases it is the t
interval over groups.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from scipy.stats import t

from medgraft.evaluate.delong import placements
from medgraft.evaluate.intervals import Difference, Spread, logit_interval, student_difference
from medgraft.metrics.cases import by_rarest, one_vs_rest
from medgraft.metrics.measures import DISTANCES
from medgraft.metrics.overlap import MEANS_OVER_CASES
from medgraft.types import Judged, Kind, Overlaps, Predictions

__all__ = [
    "INFLUENCES",
    "clustered_variance",
    "has_influence",
    "influence_difference",
    "influence_interval",
    "influence_variance",
]

_NOTHING: Final = 1e-15
"""Rounding leaves less than that where two models rank all cases alike."""


def auroc_influence(pred: Predictions) -> np.ndarray:
    """(N,) influence of each case on the AUROC, of several classes or labels on the mean of theirs.

    Args:
        pred: With every class present.

    References:
        DeLong, DeLong and Clarke-Pearson, Biometrics, 1988. Obuchowski, Nonparametric analysis of clustered ROC curve
        data, Biometrics, 1997.
    """
    parts = one_vs_rest(pred)
    influence = np.zeros(len(pred.groups))
    for part in parts:
        blocks = [members for members in part.strata if 0 < part.labels[members].sum() < len(members)]
        pairs = sum(int(part.labels[members].sum()) * int((~part.labels[members]).sum()) for members in blocks)
        for members in blocks:
            labels = part.labels[members]
            both = placements(part.scores[members][None], labels)
            for is_of, (placed,) in zip((labels, ~labels), both, strict=True):
                # Each case beats some of the others of its stratum; the AUROC is a share of the pairs of all strata.
                share = int((~is_of).sum()) / pairs / len(parts)
                influence[part.rows[members[is_of]]] += (placed - placed.mean()) * share
    return influence


def _mean_influence(values_of: Callable[[Overlaps], np.ndarray]) -> Callable[[Overlaps], np.ndarray]:
    """The influence on a mean over cases of the mean over classes."""

    def influence(overlaps: Overlaps) -> np.ndarray:
        values = values_of(overlaps).mean(1)
        return np.asarray((values - values.mean()) / len(values))

    return influence


INFLUENCES: Final[dict[Kind, dict[str, Callable[[Any], np.ndarray]]]] = {
    "labels": {"auroc": auroc_influence},
    "masks": {name: _mean_influence(values) for name, values in MEANS_OVER_CASES.items()},
}
"""By kind of truth and metric; the others are resampled."""


def has_influence(judged: Judged, metric: str) -> bool:
    """Whether the influence of cases on a metric is known."""
    return metric in INFLUENCES.get(judged.kind, {})


def clustered_variance(influence: np.ndarray, groups: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """Variance of the sum of influences and its degrees of freedom; infinity and 0 where a class has one group.

    Each class contributes the variance of its groups' sums; groups that hold several classes the covariance of these.

    Args:
        influence: (N,) of the cases.
        groups: (N,) integers, equal for the cases of one patient.
        classes: (N,) integers, the class of each case: their numbers are taken as given.

    References:
        Obuchowski, Biometrics, 1997. Satterthwaite, An approximate distribution of estimates of variance components,
        Biometrics Bulletin, 1946.

    Examples:
        >>> clustered_variance(np.array([1.0, -1.0, 2.0, -2.0]), np.arange(4), np.array([0, 0, 1, 1]))
        (20.0, 1.4705882352941178)
    """
    group_of = np.unique(groups, return_inverse=True)[1]
    num_groups, names = int(group_of.max()) + 1, np.unique(classes)
    sums, variances, freedoms = np.zeros((len(names), num_groups)), [], []
    for row, name in enumerate(names):
        members = classes == name
        centred = influence[members] - influence[members].mean()
        sums[row] = np.bincount(group_of[members], weights=centred, minlength=num_groups)
        count = len(np.unique(group_of[members]))
        if count < 2:
            return float("inf"), 0.0
        variances.append(count / (count - 1) * float((sums[row] ** 2).sum()))
        freedoms.append(count - 1)
    alone = sum(variances)
    if alone <= 0:
        return 0.0, float(num_groups - 1)
    shared = num_groups / max(1, num_groups - 1) * float((sums.sum(0) ** 2).sum() - (sums**2).sum())
    freedom = alone**2 / sum(variance**2 / df for variance, df in zip(variances, freedoms, strict=True))
    return max(alone + shared, 0.0), float(freedom)


def _classes_of(judged: Judged) -> np.ndarray:
    """(N,) the class of each case, of several labels the rarest that it has; one for all cases with masks.

    Args:
        judged: Cases.
    """
    if not isinstance(judged, Predictions):
        return np.zeros(len(judged.groups), dtype=np.int64)
    if judged.task != "multilabel":
        return judged.targets
    has = judged.targets == 1
    rarest, columns = by_rarest(has)
    for name in range(len(columns)):
        # What one group alone has as its rarest label tells of no variance; it counts with the next label.
        if len(np.unique(judged.groups[rarest == name])) == 1:
            rarest[rarest == name] = name + 1
    return rarest


def influence_interval(judged: Judged, metric: str, value: float) -> tuple[float, float] | None:
    """The 95 % interval of a metric; None where nothing varies, or a class has one group.

    That of AUROC is symmetric on the logit scale and so inside 0 to 1; that of a mean over cases is cut there.

    Args:
        judged: One model's cases.
        metric: One that has influences.
        value: Its value.
    """
    variance, freedom = influence_variance([judged], metric)
    if not 0 < variance < float("inf"):
        return None
    half = float(t.ppf(0.975, freedom)) * float(np.sqrt(variance))
    if metric != "auroc":
        return max(0.0, value - half), value + half if metric in DISTANCES else min(1.0, value + half)
    return logit_interval(value, float(np.sqrt(variance)), freedom)


def influence_difference(
    first: Sequence[Judged], second: Sequence[Judged], metric: str, value: float
) -> Difference | None:
    """A paired difference of means over seeds with t interval and p; None where nothing varies.

    Where a class has one group nothing bounds the difference: the interval is all there is, and p is 1.

    Args:
        first: Cases of one side, once per seed.
        second: The same cases of the other side.
        metric: One that has influences.
        value: The difference.
    """
    variance, freedom = influence_variance(first, metric, second)
    if variance == float("inf"):
        return Difference(value=value, ci95=(-1.0, 1.0), p=1.0)
    if variance == 0:
        return None
    return student_difference(value, Spread(cases=float(np.sqrt(variance)), trainings=0.0, freedom=freedom))


def influence_variance(first: Sequence[Judged], metric: str, second: Sequence[Judged] = ()) -> tuple[float, float]:
    """Variance over groups, and degrees of freedom, of a mean over seeds, or of the difference of two.

    Args:
        first: Cases of one side, once per seed.
        metric: One that has influences.
        second: The same cases of the other side; none for a single mean.
    """
    judged = first[0]
    of_case = INFLUENCES[judged.kind][metric]
    influence = np.mean([of_case(seed) for seed in first], axis=0)
    if second:
        influence = influence - np.mean([of_case(seed) for seed in second], axis=0)
    if np.abs(influence).max() <= _NOTHING:
        return 0.0, float(len(influence) - 1)  # one model on both sides, however few its cases
    variance, freedom = clustered_variance(influence, judged.groups, _classes_of(judged))
    return (variance if variance > _NOTHING else 0.0), freedom
