"""Many strategies against one baseline: intervals over groups and seeds, and p-values for a family of questions."""

from collections.abc import Sequence

import numpy as np

from medgraft.evaluate.bootstrap import as_seeds, difference_of, metric_replicates, smallest_class
from medgraft.evaluate.intervals import Difference, perfect_auroc_interval
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


def interval_over_seeds(
    preds: Sequence[Judged], metric: str, weights: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean over seeds, when groups and seeds are both resampled.

    Args:
        preds: One per seed.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.
        seed: Seeds the resampling of the training seeds.
    """
    values = _means(preds, metric, weights, seed)
    if isinstance(preds[0], Predictions) and metric == "auroc" and values.min() == 1.0:
        return perfect_auroc_interval(*smallest_class(preds[0]))
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def difference_over_seeds(
    first: Sequence[Judged], second: Sequence[Judged], metric: str, weights: np.ndarray, seed: int = 0
) -> Difference:
    """Mean over seeds of the first strategy minus that of the second; groups and seeds are resampled.

    Groups are paired, and so are seeds of equal number (equal seeds shuffle and augment alike). p, and the interval
    of two models that are both perfect, as in `medgraft.evaluate.bootstrap.paired_difference`.

    Args:
        first: One per seed.
        second: As many, on the same cases.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.
        seed: Seeds the resampling of the training seeds.

    Raises:
        DataError: The two were not tested on the same cases.
    """
    as_seeds([*first, *second])
    values = _means(first, metric, weights, seed), _means(second, metric, weights, seed)
    return difference_of(first, second, metric, values)


def _means(preds: Sequence[Judged], metric: str, weights: np.ndarray, seed: int) -> np.ndarray:
    """(R,) mean over seeds drawn with replacement, for each replicate of the groups.

    Args:
        preds: Predictions of one strategy, one per training seed.
        metric: A name in `medgraft.metrics.METRICS`, of masks in `medgraft.metrics.overlap.MASK_METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.
        seed: Seeds the resampling of the training seeds.
    """
    values = np.stack([metric_replicates(pred, metric, weights) for pred in preds])
    drawn = np.random.default_rng(seed).integers(0, len(preds), (weights.shape[0], len(preds)))
    means: np.ndarray = values[drawn, np.arange(weights.shape[0])[:, None]].mean(1)
    return means
