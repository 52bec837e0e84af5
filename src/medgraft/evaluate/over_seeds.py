"""Many strategies against one baseline: intervals over groups and seeds, and p-values for a family of questions."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.stats import t

from medgraft.evaluate.bootstrap import PERFECT, as_seeds, metric_replicates, paired_difference, smallest_class
from medgraft.evaluate.influence import has_influence, influence_variance
from medgraft.evaluate.intervals import FEWEST_TRAININGS, Difference, Spread, logit_interval, student_difference
from medgraft.evaluate.summary import interval_of
from medgraft.metrics.measures import DISTANCES, measured
from medgraft.types import Judged, Predictions

__all__ = ["USUAL_SD", "difference_over_seeds", "holm", "interval_over_seeds"]

USUAL_SD: Final = 0.01
"""Standard deviation of a metric between trainings of one network that is assumed below that."""


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
    first: Sequence[Judged], second: Sequence[Judged], metric: str, weights: np.ndarray, num_folds: int = 1
) -> Difference:
    """Mean over seeds of the first method minus that of the second: d ± t √(V_cases + (s₁² + s₂²) / k).

    Cases are paired; trainings are not, because equal seeds make no two methods alike. Below `FEWEST_TRAININGS` seeds
    s₁² + s₂² is at least twice that of `USUAL_SD`; of distances, where nothing is usual, it is left out then. A method
    on both sides, two without an error and a class of a single group are left to
    `medgraft.evaluate.bootstrap.paired_difference`.

    Args:
        first: One per seed.
        second: As many, on the same cases.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.
        num_folds: Trainings that each seed stands for: of folds every one has its own.

    Raises:
        DataError: The two were not tested on the same cases.

    References:
        Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin, 1946.
    """
    as_seeds([*first, *second])
    of_cases, freedom = _over_cases(first, metric, weights, second)
    values = [[measured(judged, metric) for judged in side] for side in (first, second)]
    of_seeds = sum(float(np.var(side, ddof=1)) for side in values) if len(first) > 1 else 0.0
    seed_freedom = 2.0 * (len(first) - 1)
    is_assumed = len(first) < FEWEST_TRAININGS and metric not in DISTANCES and of_seeds < 2 * USUAL_SD**2
    if is_assumed:
        of_seeds, seed_freedom = 2 * USUAL_SD**2, float("inf")
    of_seeds /= len(first) * num_folds
    if not 0 < of_cases < float("inf") or of_seeds == 0:
        return paired_difference(first, second, metric, weights)
    _, freedom = _together(of_cases, freedom, of_seeds, seed_freedom)
    spread = Spread(
        cases=float(np.sqrt(of_cases)), trainings=float(np.sqrt(of_seeds)), freedom=freedom, is_measured=not is_assumed
    )
    return student_difference(float(np.mean(values[0]) - np.mean(values[1])), spread)


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
