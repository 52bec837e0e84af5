"""The scores of a trained model by its task; the first of them chooses: AUPRC of labels, mean Dice of masks."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from medgraft.errors import ConfigError, DataError
from medgraft.metrics.classification import auprc, auroc
from medgraft.metrics.overlap import dice, jaccard
from medgraft.types import Judged, Overlaps

__all__ = ["MASK_METRICS", "SCORE_NAMES", "deciding_metric", "scores_of", "weighted_overlap"]


SCORE_NAMES: Final = {
    "auprc": "AUPRC",
    "auroc": "AUROC",
    "dice": "Dice",
    "pooled_dice": "pooled Dice",
    "surface_dice": "surface Dice",
}


def deciding_metric(found: Judged) -> str:
    """``auprc`` of labels, ``dice`` of masks."""
    return "dice" if isinstance(found, Overlaps) else "auprc"


def scores_of(found: Judged) -> dict[str, float]:
    """Scores by name, the deciding one first: ``auprc`` and ``auroc``, or ``dice`` and ``pooled_dice``.

    Args:
        found: Of one set of cases.

    Examples:
        >>> scores_of(Overlaps(counts=np.array([[[2, 2, 1]], [[4, 4, 4]]]), groups=np.arange(2), classes=("vessel",)))
        {'dice': 0.75, 'pooled_dice': 0.8333333333333334}
    """
    if not isinstance(found, Overlaps):
        return {"auprc": auprc(found), "auroc": auroc(found)}
    ones = np.ones((1, len(found.counts)))
    return {name: float(weighted_overlap(found, name, ones)[0]) for name in ("dice", "pooled_dice")}


def weighted_overlap(found: Overlaps, metric: str, weights: np.ndarray) -> np.ndarray:
    """(R,) values of one metric, one per row of weights: the mean over cases of the mean over classes.

    Args:
        found: Of one model.
        metric: A key of `MASK_METRICS`.
        weights: (R, N) how often each case counts.

    Raises:
        ConfigError: No such metric, or one of surfaces where these were not measured.
        DataError: Weights of other cases, or of none at all.
    """
    if metric not in MASK_METRICS or (metric in _OF_SURFACES and found.surfaces is None):
        raise ConfigError(f"metric must be one of {', '.join(MASK_METRICS)}, measured before, got {metric!r}.")
    if weights.ndim != 2 or weights.shape[1] != len(found.counts) or not (weights.sum(1) > 0).all():
        raise DataError(f"expected weights (R, {len(found.counts)}), each row with a case, got {weights.shape}.")
    return MASK_METRICS[metric](found, weights.astype(np.float64))


def _mean(values: Callable[[Overlaps], np.ndarray]) -> Callable[[Overlaps, np.ndarray], np.ndarray]:
    def weighted(found: Overlaps, weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values(found).mean(1) / weights.sum(1))

    return weighted


def _pooled(found: Overlaps, weights: np.ndarray) -> np.ndarray:
    return np.asarray(dice(np.einsum("rn,nck->rck", weights, found.counts)).mean(1))


def _surface(found: Overlaps, column: int) -> np.ndarray:
    measured: Any = found.surfaces
    return np.asarray(measured[..., column])


_OF_SURFACES: Final = ("hd95", "surface_dice")
MASK_METRICS: Final[dict[str, Callable[[Overlaps, np.ndarray], np.ndarray]]] = {
    "dice": _mean(lambda found: dice(found.counts)),
    "pooled_dice": _pooled,
    "jaccard": _mean(lambda found: jaccard(found.counts)),
    "hd95": _mean(lambda found: _surface(found, 0)),
    "surface_dice": _mean(lambda found: _surface(found, 1)),
}
"""By name: (overlaps, weights) to values. Of a replicate, dice of the pooled counts is that of all its pixels."""
