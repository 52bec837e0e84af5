"""Many strategies against one baseline: intervals over groups and seeds, and p-values for a family of questions."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from medgraft.evaluate.bootstrap import PERFECT, as_seeds, metric_replicates, paired_difference, smallest_class
from medgraft.evaluate.influence import has_influence, influence_variance
from medgraft.evaluate.intervals import Difference, logit_interval
from medgraft.evaluate.summary import interval_of
from medgraft.metrics.measures import measured
from medgraft.types import Judged, Predictions

__all__ = ["difference_over_seeds", "holm", "interval_over_seeds"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given.

    References:
        Holm. A simple sequentially rejective multiple test procedure. Scand J Statist 1979.

    Examples:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors))
    result = np.empty(len(p_values))
    result[order] = adjusted
    return [float(p) for p in result]


def interval_over_seeds(preds: Sequence[Judged], metric: str, weights: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean over seeds: the variance over cases and that over trainings, with Student's t.

    Args:
        preds: One per seed.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.
    """
    seeds = as_seeds(preds)
    if len(seeds) == 1:
        return interval_of(seeds[0], metric, weights)
    values = [measured(judged, metric) for judged in seeds]
    value, of_seeds = float(np.mean(values)), float(np.var(values, ddof=1)) / len(values)
    of_cases, freedom = _over_cases(seeds, metric, weights)
    if not 0 < of_cases < float("inf"):
        return interval_of(seeds[int(np.argmin(values))], metric, weights)
    error, freedom = _together(of_cases, freedom, of_seeds, len(values) - 1)
    if isinstance(seeds[0], Predictions) and metric in PERFECT and 0 < value < 1:
        return logit_interval(value, error, freedom)
    half = float(t.ppf(0.975, freedom)) * error
    return value - half, value + half


def difference_over_seeds(
    first: Sequence[Judged], second: Sequence[Judged], metric: str, weights: np.ndarray
) -> Difference:
    """Mean over seeds of the first method minus that of the second: d ± t √(V_cases + (s₁² + s₂²) / k).

    Cases are paired; trainings are not, because equal seeds make no two methods alike. Of one seed each this is
    `medgraft.evaluate.bootstrap.paired_difference`, which says nothing of another training.

    Args:
        first: One per seed.
        second: As many, on the same cases.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.

    Raises:
        DataError: The two were not tested on the same cases.

    References:
        Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin, 1946.
    """
    as_seeds([*first, *second])
    alone = paired_difference(first, second, metric, weights)
    if len(first) == 1:
        return alone
    of_cases, freedom = _over_cases(first, metric, weights, second)
    spreads = [float(np.var([measured(judged, metric) for judged in side], ddof=1)) for side in (first, second)]
    of_seeds = sum(spreads) / len(first)
    if not 0 < of_cases < float("inf") or of_seeds == 0:
        # One model on both sides, or too few cases to say anything.
        return alone
    error, freedom = _together(of_cases, freedom, of_seeds, 2 * (len(first) - 1))
    half = float(t.ppf(0.975, freedom)) * error
    return Difference(
        value=alone.value,
        ci95=(alone.value - half, alone.value + half),
        p=float(2 * t.sf(abs(alone.value) / error, freedom)),
    )


def _over_cases(
    first: Sequence[Judged], metric: str, weights: np.ndarray, second: Sequence[Judged] = ()
) -> tuple[float, float]:
    """Variance over cases of a mean over seeds, or of the difference of two, and its degrees of freedom.

    Args:
        first: One per seed.
        metric: Name of the metric.
        weights: (R, N) counts from `bootstrap_weights`.
        second: The other side; none for a single mean.
    """
    judged = first[0]
    if has_influence(judged, metric):
        return influence_variance(first, metric, second)
    values = metric_replicates(first, metric, weights)
    values = values - metric_replicates(second, metric, weights) if second else values
    few = min(smallest_class(judged)) if isinstance(judged, Predictions) else len(np.unique(judged.groups))
    return (float(values.var(ddof=1)) if len(values) > 1 else 0.0), float(max(1, few - 1))


def _together(of_cases: float, freedom: float, of_seeds: float, seed_freedom: float) -> tuple[float, float]:
    """Standard error of two independent variances, and its degrees of freedom.

    Args:
        of_cases: Variance over cases.
        freedom: Its degrees of freedom.
        of_seeds: Variance over trainings.
        seed_freedom: Its degrees of freedom.
    """
    total = of_cases + of_seeds
    return float(np.sqrt(total)), total**2 / (of_cases**2 / freedom + of_seeds**2 / seed_freedom)
