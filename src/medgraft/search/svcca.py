"""The cut where features after fine-tuning are related to the pretrained ones no more than chance (Peng 2022, IV-G)."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from medgraft.analysis.layers import features_at_cuts
from medgraft.analysis.reuse import Reuse, add_cuts, reuse_of
from medgraft.analysis.similarity import Moments
from medgraft.errors import DataError
from medgraft.search.trial import TrialContext
from medgraft.transfer.model import TransferModel

__all__ = ["overlap_share", "overlapping_cut", "reuse_at_cuts"]

_HALF: Final = 0.5


def reuse_at_cuts(before: TransferModel, after: TransferModel, context: TrialContext) -> dict[int, Reuse]:
    """How much of the features at every cut is kept from before to after transfer, on the training images.

    Features are pooled to one row per image. Both sides keep the principal components of 99 % of their variance, at
    most one per ten images.

    Args:
        before: Untruncated network before transfer.
        after: The network after transfer.
        context: Tells the cuts, the training images and the engine.

    Raises:
        DataError: Too few images for a stable CCA, constant features, or activations that are not finite.

    References:
        Raghu et al. SVCCA. NeurIPS 2017; Peng et al. Rethinking transfer learning for medical image classification.
        BMVC 2023.
    """
    cuts, moments = context.source.cuts, dict[int, Moments]()
    old, new = (features_at_cuts(model, cuts, context.study.train, context.engine) for model in (before, after))
    add_cuts(moments, old, new, {cut.index: cut.name for cut in cuts})
    return {index: reuse_of(pair) for index, pair in moments.items()}


def overlap_share(coefficients: np.ndarray, reference: np.ndarray) -> float:
    """How much two distributions of SVCCA coefficients overlap: 0 where they are apart, 1 where they are equal.

    One minus the largest difference between their distribution functions (the Kolmogorov–Smirnov statistic): of
    a threshold between the two, it is the share of both that lies on the wrong side.

    Args:
        coefficients: (k,) between features before and after transfer.
        reference: (m,) between random features of the same size.

    Raises:
        DataError: One of them is empty.

    Examples:
        >>> overlap_share(np.array([0.8, 0.9]), np.array([0.1, 0.2])), overlap_share(np.ones(3), np.ones(3))
        (0.0, 1.0)
    """
    observed, by_chance = np.sort(coefficients), np.sort(reference)
    if not len(observed) or not len(by_chance):
        raise DataError(f"expected coefficients to compare, got {len(observed)} and {len(by_chance)}.")
    places = np.concatenate([observed, by_chance])
    shares = [np.searchsorted(values, places, side="right") / len(values) for values in (observed, by_chance)]
    return float(1 - np.abs(shares[0] - shares[1]).max())


def overlapping_cut(overlaps: Mapping[int, float], *, least: float = _HALF) -> int:
    """The first cut from the stem up at which the distributions overlap by `least`; the last cut where none does.

    The paper cuts "where the two distributions overlap" and states no number. Half is ours: from there on a
    coefficient says less about reuse than about chance.

    Args:
        overlaps: Cut index to `overlap_share`.
        least: Above 0, at most 1.

    References:
        Peng, Liang, Luo, Li, Sun. Rethinking transfer learning for medical image classification. BMVC 2023.

    Examples:
        >>> overlapping_cut({1: 0.0, 2: 0.1, 3: 0.6, 4: 0.9}), overlapping_cut({1: 0.0, 2: 0.1})
        (3, 2)
    """
    return next((index for index in sorted(overlaps) if overlaps[index] >= least), max(overlaps))
