"""Intervals and paired differences of any metric over bootstrap replicates."""

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np

from medgraft.errors import DataError
from medgraft.evaluate.influence import has_influence, influence_difference
from medgraft.evaluate.intervals import Difference, perfect_auprc_interval, perfect_auroc_interval
from medgraft.metrics.cases import one_vs_rest
from medgraft.metrics.measures import measure_of, measured
from medgraft.metrics.weighted import calibrated_ece
from medgraft.types import Judged, Predictions

__all__ = [
    "PERFECT",
    "as_seeds",
    "bootstrap_interval",
    "difference_of",
    "metric_replicates",
    "paired_difference",
    "smallest_class",
]

K = TypeVar("K", bound=Judged)
PERFECT: Final = {"auroc": perfect_auroc_interval, "auprc": perfect_auprc_interval}
"""Intervals of metrics that were measured as exactly 1, from groups with and without a class."""


def metric_replicates(preds: Judged | Sequence[Judged], metric: str, weights: np.ndarray) -> np.ndarray:
    """(R,) value of a metric in each replicate, averaged over seeds.

    Args:
        preds: One model's predictions, or those of the same model trained with several seeds.
        metric: A name in `medgraft.metrics.measures.METRIC_NAMES`, of those that the measure has.
        weights: (R, N) counts from `bootstrap_weights`.

    Raises:
        ConfigError: No such metric.
        DataError: No predictions, or the seeds were not tested on the same cases.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.arange(2), classes=("no", "yes"), task="binary", positive=1)
        >>> metric_replicates([pred, pred], "auroc", np.ones((1, 2))).tolist()
        [1.0]
    """
    seeds = as_seeds(preds)
    weighted = measure_of(seeds[0]).weighted
    return np.asarray(np.mean([weighted(judged, metric, weights) for judged in seeds], axis=0))


def bootstrap_interval(preds: Judged | Sequence[Judged], metric: str, weights: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of a metric; of the mean over seeds when several are given.

    An AUROC or AUPRC of exactly 1 has no spread over replicates; it gets the interval of `PERFECT` of the smallest
    class, counted in groups. ECE is biased upward, in a replicate once more; its interval is the basic one
    (the percentiles mirrored at the value), which takes that bias off, as far as the value, and down to 0 where
    probabilities that are right would often give as much (`medgraft.metrics.weighted.calibrated_ece`).

    Args:
        preds: One model's predictions, or those of the same model trained with several seeds.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.

    Raises:
        ConfigError: No such metric.
        DataError: No predictions, or the seeds were not tested on the same cases.

    References:
        Efron and Tibshirani, An introduction to the bootstrap, Chapman and Hall, 1993.

    Examples:
        >>> pred = Predictions(probs=np.tile([[0.9, 0.1], [0.2, 0.8]], (30, 1)), targets=np.tile([0, 1], 30),
        ...                    groups=np.arange(60), classes=("no", "yes"), task="binary", positive=1)
        >>> [round(end, 3) for end in bootstrap_interval(pred, "auroc", np.ones((100, 60)))]
        [0.933, 1.0]
    """
    values = metric_replicates(preds, metric, weights)
    first = as_seeds(preds)[0]
    if metric in PERFECT and values.min() == 1.0 and isinstance(first, Predictions):
        return PERFECT[metric](*smallest_class(first))
    low, high = np.quantile(values, (0.025, 0.975))
    if metric == "ece":
        value = float(metric_replicates(preds, metric, np.ones((1, weights.shape[1])))[0])
        low, high = max(0.0, 2 * value - high), max(value, 2 * value - low)
        if isinstance(first, Predictions) and value <= np.quantile(calibrated_ece(first), 0.95):
            low = 0.0
    return float(low), float(high)


def paired_difference(
    first: Judged | Sequence[Judged],
    second: Judged | Sequence[Judged],
    metric: str,
    weights: np.ndarray,
) -> Difference:
    """Metric of the first model minus that of the second, on the same replicates.

    Several seeds are averaged inside each replicate. With k_low (k_high) replicates at or below (above) 0,
    p = min(1, 2 (min(k_low, k_high) + 1) / (R + 1)), which is never 0. Two different models that both reach
    an AUROC of exactly 1 show no spread; their interval reaches as far as `perfect_auroc_interval` of
    either does. Where the influence of cases is known (`medgraft.evaluate.influence`: AUROC, means over masks) interval
    and p are those of t over groups, because replicates of few groups prove too much.

    Args:
        first: One model's predictions, or those of several seeds.
        second: The other model's predictions, on the same cases in the same order.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.

    Raises:
        ConfigError: No such metric.
        DataError: The two were not tested on the same cases.

    References:
        Davison and Hinkley, Bootstrap methods and their application, Cambridge, 1997 (section 4.2, the
        + 1 in a resampled p).

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.arange(2), classes=("no", "yes"), task="binary", positive=1)
        >>> found = paired_difference(pred, pred, "auroc", np.ones((9, 2)))
        >>> found.value, found.ci95, found.p
        (0.0, (0.0, 0.0), 1.0)
    """
    left, right = as_seeds(first), as_seeds(second)
    as_seeds([*left, *right])
    if has_influence(left[0], metric):
        gap = float(np.mean([measured(judged, metric) for judged in left]))
        gap -= float(np.mean([measured(judged, metric) for judged in right]))
        found = influence_difference(left, right, metric, gap)
        if found is not None:
            return found
    values = metric_replicates(left, metric, weights), metric_replicates(right, metric, weights)
    return difference_of(left, right, metric, values)


def difference_of(
    first: Sequence[Judged],
    second: Sequence[Judged],
    metric: str,
    values: tuple[np.ndarray, np.ndarray],
) -> Difference:
    """The observed difference with interval and p from `values`; two perfect models get the interval of theirs.

    Args:
        first: Predictions of the first side, one per seed.
        second: Predictions of the second side, on the same cases.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        values: (R,) replicates of each side, in the same order.
    """
    observed = np.ones((1, len(first[0].groups)))
    value = float((metric_replicates(first, metric, observed) - metric_replicates(second, metric, observed))[0])
    # Equal values may differ by rounding (means of other terms), which must not decide a sign.
    gaps = np.round(values[0] - values[1], 12)
    extreme = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    is_perfect = metric in PERFECT and min(values[0].min(), values[1].min()) == 1.0
    predictions = [judged for judged in (*first, *second) if isinstance(judged, Predictions)]
    if is_perfect and not all(np.array_equal(predictions[0].probs, other.probs) for other in predictions):
        low = PERFECT[metric](*smallest_class(predictions[0]))[0] - 1
        high = -low
    else:
        low, high = np.quantile(gaps, (0.025, 0.975))
    p = 2 * (extreme + 1) / (len(gaps) + 1)
    if measure_of(first[0]).fewest_groups:
        # No test of so few patients has a smaller one, whatever the replicates say.
        p = max(p, 2.0 ** (1 - len(np.unique(first[0].groups))))
    return Difference(value=value, ci95=(float(low), float(high)), p=min(1.0, p))


def smallest_class(pred: Predictions) -> tuple[int, int]:
    """Groups with and without the class (or label) that splits the groups most unevenly.

    Args:
        pred: With every class present.

    Raises:
        DataError: A class is absent.

    Examples:
        >>> pred = Predictions(probs=np.full((4, 2), 0.5), targets=np.array([0, 0, 0, 1]),
        ...                    groups=np.array([0, 1, 1, 2]),
        ...                    classes=("no", "yes"), task="binary", positive=1)
        >>> smallest_class(pred)
        (1, 2)
    """
    sizes = [
        (len(np.unique(groups[part.labels])), len(np.unique(groups[~part.labels])))
        for part in one_vs_rest(pred)
        for groups in [pred.groups[part.rows]]
    ]
    return min(sizes, key=min)


def as_seeds(preds: K | Sequence[K]) -> tuple[K, ...]:
    """`preds` as a tuple, when all are about the same cases in the same order.

    Args:
        preds: One set of predictions or several.

    Raises:
        DataError: None given, or targets, groups or classes differ.

    Examples:
        >>> pred = Predictions(probs=np.full((1, 2), 0.5), targets=np.array([0]), groups=np.array([0]),
        ...                    classes=("no", "yes"), task="binary", positive=1)
        >>> len(as_seeds([pred, pred]))
        2
    """
    seeds: tuple[K, ...] = tuple(preds) if isinstance(preds, Sequence) else (preds,)
    if not seeds:
        raise DataError("expected at least one set of predictions, got none. Pass one per seed.")
    for number, other in enumerate(seeds[1:], start=2):
        if not _are_alike(seeds[0], other):
            raise DataError(
                f"expected the same cases, groups and classes everywhere, got others in predictions 1 and "
                f"{number}. Compare models on one test set, in one order."
            )
    return seeds


def _are_alike(left: Judged, right: Judged) -> bool:
    """Whether both are about the same cases in the same order."""
    if left.kind != right.kind or left.classes != right.classes or not np.array_equal(left.groups, right.groups):
        return False
    first, second = (measure_of(judged).truth(judged) for judged in (left, right))
    tasks = {(judged.task, judged.positive) for judged in (left, right) if isinstance(judged, Predictions)}
    # Labels that nobody knows are no numbers, and alike.
    return len(tasks) < 2 and np.array_equal(first, second, equal_nan=first.dtype.kind == second.dtype.kind == "f")
