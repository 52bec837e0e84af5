"""Two-stage search for a cut: the ends of the stages first, then the neighbours of the best."""

import itertools
from collections.abc import Callable

from medgraft.types import Cut

__all__ = ["neighbours", "stage_ends", "two_stage"]


def stage_ends(cuts: tuple[Cut, ...]) -> list[Cut]:
    """The last cut of every stage."""
    inner = [cut for cut, after in itertools.pairwise(cuts) if after.stage != cut.stage]
    return [*inner, *cuts[-1:]]


def neighbours(cuts: tuple[Cut, ...], best: Cut) -> list[Cut]:
    """The cuts next to `best` on either side, and the middles of the two intervals to the next stage ends.

    The middles are there because stages are long in deep networks: the best cut of Peng 2022 lies two blocks
    below a stage end.
    """
    ends = [0, *(cut.index for cut in stage_ends(cuts))]
    below = max((end for end in ends if end < best.index), default=0)
    above = min((end for end in ends if end > best.index), default=best.index)
    wanted = {best.index - 1, best.index + 1, (below + best.index) // 2, (best.index + above + 1) // 2}
    inside = set(range(below + 1, max(above, best.index + 1))) - {best.index}
    return [cut for cut in cuts if cut.index in wanted & inside]


def two_stage(cuts: tuple[Cut, ...], score: Callable[[Cut, str], float], *, max_trials: int = 0) -> dict[int, float]:
    """Score by cut index of every cut that was tried.

    Args:
        cuts: All cuts that may be tried, stem first.
        score: Trains at a cut and returns its validation score, higher is better; the second argument is
            ``stage`` or ``neighbour``.
        max_trials: Upper bound of the cuts tried besides the last one; 0 for none. Stage ends come first,
            from the top down, because truncation rarely pays near the stem.

    References:
        Peng, Liang, Luo, Li, Sun. Rethinking transfer learning for medical image classification. BMVC 2023.

    Examples:
        >>> def cut(index, stage):
        ...     return Cut(index=index, name=str(index), stage=stage, channels=1, stride=1, num_params=index,
        ...                macs=index, shape=(1,), channel_axis=1, tap="", tap_side="output")
        >>> cuts = tuple(cut(index + 1, index // 4) for index in range(12))
        >>> two_stage(cuts, lambda cut, _: -abs(cut.index - 7))
        {12: -5, 8: -1, 4: -3, 6: -1, 7: 0, 9: -2, 10: -3}
    """
    scores: dict[int, float] = {}
    budget = max_trials + 1 if max_trials else len(cuts)

    def try_all(candidates: list[Cut], stage: str) -> None:
        for cut in candidates:
            if cut.index not in scores and len(scores) < budget:
                scores[cut.index] = score(cut, stage)

    try_all(stage_ends(cuts)[::-1], "stage")
    best = max(scores, key=lambda index: (scores[index], -index))
    try_all(neighbours(cuts, next(cut for cut in cuts if cut.index == best)), "neighbour")
    return scores
