"""Masks against masks: overlap and distance of surfaces, case by case and class by class.

A class that neither mask shows counts as right: Dice, Jaccard and surface Dice 1, distance 0. Where one of the two
shows it and the other does not, the overlaps are 0 and the distance is the diagonal of the image, the largest there is.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from medgraft.errors import ConfigError, DataError
from medgraft.types import VOID, Overlaps

__all__ = [
    "MASK_METRICS",
    "MEANS_OVER_CASES",
    "dice",
    "jaccard",
    "overlap_counts",
    "pooled_dice",
    "surface_scores",
    "weighted_overlap",
    "without_void",
]


def overlap_counts(called: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """(C, 3) int64 for the classes 1 … C: pixels called so, pixels that are so, and both.

    Args:
        called: Class numbers of any shape, 0 for the background.
        truth: True class numbers, of the same shape; what is `medgraft.types.VOID` in either counts for nothing.
        num_classes: C.

    Examples:
        >>> overlap_counts(np.array([0, 1, 1]), np.array([1, 1, 0]), 1).tolist()
        [[2, 2, 1]]
    """
    called, truth = without_void(called, truth)
    sizes = [np.bincount(mask.ravel(), minlength=num_classes + 1)[1 : num_classes + 1] for mask in (called, truth)]
    both = np.bincount(truth[called == truth].ravel(), minlength=num_classes + 1)[1 : num_classes + 1]
    return np.stack([*sizes, both], 1).astype(np.int64)


def without_void(called: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks with background where one of them is to be ignored.

    Args:
        called: Class numbers of any shape.
        truth: True class numbers, of the same shape.
    """
    is_void = (truth == VOID) | (called == VOID)
    return (np.where(is_void, 0, called), np.where(is_void, 0, truth)) if is_void.any() else (called, truth)


def dice(counts: np.ndarray) -> np.ndarray:
    """Twice what both mark over the sum of what each marks, 0 to 1; 1 where neither marks anything.

    Args:
        counts: (…, 3) from `overlap_counts`.

    References:
        Dice. Measures of the amount of ecologic association between species. Ecology 1945.
    """
    called, truth, both = np.moveaxis(counts, -1, 0)
    total = called + truth
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)


def jaccard(counts: np.ndarray) -> np.ndarray:
    """What both mark over what at least one marks, 0 to 1; 1 where neither marks anything.

    Args:
        counts: (…, 3) from `overlap_counts`.
    """
    called, truth, both = np.moveaxis(counts, -1, 0)
    either = called + truth - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def pooled_dice(counts: np.ndarray) -> np.ndarray:
    """(C,) Dice of all cases' pixels together, in which large lesions count more.

    Args:
        counts: (N, C, 3).
    """
    return dice(counts.sum(0))


def surface_scores(
    called: np.ndarray, truth: np.ndarray, spacing: Sequence[float], tolerance: float
) -> tuple[float, float]:
    """The 95th percentile of the distance between two surfaces, and the share of both that lies within a tolerance.

    Args:
        called: (H, W) or (D, H, W) bool.
        truth: (H, W) or (D, H, W) bool, of the same shape.
        spacing: Distance of the pixels along each axis, in millimetres, or 1 where it is unknown.
        tolerance: In the unit of `spacing`, 0 or more.

    Returns:
        Distance (in the unit of `spacing`) and share (0 to 1).

    References:
        Surface Dice: Nikolov et al. Clinically applicable segmentation of head and neck anatomy. JMIR 2021.
    """
    if not called.any() or not truth.any():
        is_right = called.any() == truth.any()
        diagonal = float(np.linalg.norm(np.array(called.shape) * np.asarray(spacing)))
        return (0.0, 1.0) if is_right else (diagonal, 0.0)
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    pair = [torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None] for mask in (called, truth)]
    steps = [float(step) for step in spacing]
    with warnings.catch_warnings():
        # MONAI calls itself in a way that it warns of.
        warnings.simplefilter("ignore", FutureWarning)
        distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=steps)
        # Nikolov weighs every piece of surface by its area; without it pixels of the border are counted instead.
        share = compute_surface_dice(
            *pair, class_thresholds=[tolerance], include_background=True, spacing=steps, use_subvoxels=True
        )
    return float(distance), float(share)


def weighted_overlap(overlaps: Overlaps, metric: str, weights: np.ndarray) -> np.ndarray:
    """(R,) values of one metric, one per row of weights: the mean over cases of the mean over classes.

    Args:
        overlaps: Overlaps of one model.
        metric: A key of `MASK_METRICS`.
        weights: (R, N) how often each case counts.

    Raises:
        ConfigError: No such metric, or one of surfaces where these were not measured.
        DataError: Weights of other cases, or of none at all.
    """
    if metric not in MASK_METRICS or (metric in _OF_SURFACES and overlaps.surfaces is None):
        raise ConfigError(f"metric must be one of {', '.join(MASK_METRICS)}, measured before, got {metric!r}.")
    if weights.ndim != 2 or weights.shape[1] != len(overlaps.counts) or not (weights.sum(1) > 0).all():
        raise DataError(f"expected weights (R, {len(overlaps.counts)}), each row with a case, got {weights.shape}.")
    return MASK_METRICS[metric](overlaps, weights.astype(np.float64))


def _mean(values: Callable[[Overlaps], np.ndarray]) -> Callable[[Overlaps, np.ndarray], np.ndarray]:
    def weighted(overlaps: Overlaps, weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values(overlaps).mean(1) / weights.sum(1))

    return weighted


def _pooled(overlaps: Overlaps, weights: np.ndarray) -> np.ndarray:
    return np.asarray(dice(np.einsum("rn,nck->rck", weights, overlaps.counts)).mean(1))


def _surface(overlaps: Overlaps, column: int) -> np.ndarray:
    measured: Any = overlaps.surfaces
    return np.asarray(measured[..., column])


_OF_SURFACES: Final = ("hd95", "surface_dice")
MEANS_OVER_CASES: Final[dict[str, Callable[[Overlaps], np.ndarray]]] = {
    "dice": lambda overlaps: dice(overlaps.counts),
    "jaccard": lambda overlaps: jaccard(overlaps.counts),
    "hd95": lambda overlaps: _surface(overlaps, 0),
    "surface_dice": lambda overlaps: _surface(overlaps, 1),
}
"""Metrics that are means over cases of means over classes, as (N, C) values of these."""
MASK_METRICS: Final[dict[str, Callable[[Overlaps, np.ndarray], np.ndarray]]] = {
    "dice": _mean(MEANS_OVER_CASES["dice"]),
    "pooled_dice": _pooled,
    **{name: _mean(values) for name, values in MEANS_OVER_CASES.items() if name != "dice"},
}
"""By name: (overlaps, weights) to values. In a replicate, the pooled Dice is that of all its pixels together."""
