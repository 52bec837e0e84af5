"""Two-stage search for a cut: the ends of the stages first, then the neighbours of the best."""

import itertools
from collections.abc import Sequence

from medgraft.search.proposals import Search
from medgraft.types import Cut

__all__ = ["exhaustive", "neighbours", "stage_ends", "two_stage"]


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


def two_stage(
    cuts: tuple[Cut, ...], *, max_trials: int = 0
) -> Search[tuple[Cut, str], Sequence[float], dict[int, float]]:
    """Propose the ends of the stages, then the neighbours of the best; returns the score by cut index.

    It proposes cuts with ``stage`` or ``neighbour``, and wants the validation score of each, higher is better.

    Args:
        cuts: All cuts that may be tried, stem first.
        max_trials: Upper bound of the cuts tried besides the last one; 0 for none. Stage ends come first,
            from the top down, because truncation rarely pays near the stem.

    References:
        Peng, Liang, Luo, Li, Sun. Rethinking transfer learning for medical image classification. BMVC 2023.

    Examples:
        >>> def cut(index, stage):
        ...     return Cut(index=index, name=str(index), stage=stage, channels=1, stride=1, num_params=index,
        ...                macs=index, shape=(1,), channel_axis=1, tap="", tap_side="output")
        >>> cuts = tuple(cut(index + 1, index // 4) for index in range(12))
        >>> from medgraft.search.proposals import drive
        >>> drive(two_stage(cuts), lambda batch: [-abs(cut.index - 7) for cut, _ in batch])
        {12: -5, 8: -1, 4: -3, 6: -1, 7: 0, 9: -2, 10: -3}
    """
    scores: dict[int, float] = {}
    budget = max_trials + 1 if max_trials else len(cuts)

    def tried(candidates: list[Cut], role: str) -> Search[tuple[Cut, str], Sequence[float], None]:
        batch = [cut for cut in candidates if cut.index not in scores][: budget - len(scores)]
        answers = yield [(cut, role) for cut in batch]
        scores.update({cut.index: score for cut, score in zip(batch, answers, strict=True)})

    yield from tried(stage_ends(cuts)[::-1], "stage")
    best = max(scores, key=lambda index: (scores[index], -index))
    yield from tried(neighbours(cuts, next(cut for cut in cuts if cut.index == best)), "neighbour")
    return scores


def exhaustive(cuts: tuple[Cut, ...]) -> Search[tuple[Cut, str], Sequence[float], dict[int, float]]:
    """Propose every cut at once, the last first; otherwise as `two_stage`."""
    scores = yield [(cut, "exhaustive") for cut in reversed(cuts)]
    return {cut.index: score for cut, score in zip(reversed(cuts), scores, strict=True)}
