"""Incremental search: one more layer is tuned while the result does not reach the wished level."""

from collections.abc import Sequence

from medgraft.search.proposals import Search
from medgraft.types import Cut

__all__ = ["incremental"]


def incremental(
    cuts: tuple[Cut, ...], wished: float, *, max_trials: int = 0
) -> Search[tuple[Cut, str], Sequence[float], dict[int, float]]:
    """Propose one depth after the other, each time from the original weights; returns the score by depth.

    Args:
        cuts: All depths, from the one that freezes nothing or the stem upwards; depth c freezes 1…c, so the last
            leaves the head alone to learn.
        wished: Validation score at which the search stops.
        max_trials: Upper bound of the depths tried; 0 for none.

    References:
        Tajbakhsh et al. Convolutional neural networks for medical image analysis. IEEE TMI 2016.

    Examples:
        >>> from medgraft.search.proposals import drive
        >>> def cut(index):
        ...     return Cut(index=index, name=str(index), stage=0, channels=1, stride=1, num_params=index,
        ...                macs=index, shape=(1,), channel_axis=1, tap="", tap_side="output")
        >>> search = incremental(tuple(cut(i) for i in range(1, 8)), 0.55)
        >>> sorted(drive(search, lambda batch: [1 - cut.index / 10 for cut, _ in batch]))
        [4, 5, 6, 7]
    """
    tried: dict[int, float] = {}
    for cut in reversed(cuts):
        if max_trials and len(tried) >= max_trials:
            break
        (tried[cut.index],) = yield [(cut, "incremental")]
        if tried[cut.index] >= wished:
            break
    return tried
