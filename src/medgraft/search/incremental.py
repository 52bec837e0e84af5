"""Incremental search: one more layer is tuned while the result does not reach the wished level."""

from collections.abc import Callable

from medgraft.types import Cut

__all__ = ["incremental"]


def incremental(
    cuts: tuple[Cut, ...], score: Callable[[Cut, str], float], wished: float, *, max_trials: int = 0
) -> dict[int, float]:
    """Score by depth of every depth that was tried, each time from the original weights.

    Args:
        cuts: All depths, from the one that freezes nothing or the stem upwards; depth c freezes 1…c, so the last
            leaves the head alone to learn.
        score: Trains at a depth and returns its validation score; the second argument is ``incremental``.
        wished: Level at which the search stops.
        max_trials: Upper bound of the depths tried; 0 for none.

    References:
        Tajbakhsh et al. Convolutional neural networks for medical image analysis. IEEE TMI 2016.

    Examples:
        >>> def cut(index):
        ...     return Cut(index=index, name=str(index), stage=0, channels=1, stride=1, num_params=index,
        ...                macs=index, shape=(1,), channel_axis=1, tap="", tap_side="output")
        >>> sorted(incremental(tuple(cut(i) for i in range(1, 8)), lambda c, _: 1 - c.index / 10, 0.55))
        [4, 5, 6, 7]
    """
    tried: dict[int, float] = {}
    for cut in reversed(cuts):
        if max_trials and len(tried) >= max_trials:
            break
        tried[cut.index] = score(cut, "incremental")
        if tried[cut.index] >= wished:
            break
    return tried
