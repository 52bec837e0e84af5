"""The same number of trials for every strategy: first over depth, then over the learning rate."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

from medgraft.result.comparison import TunedTrial
from medgraft.search.proposals import Search
from medgraft.search.two_stage import stage_ends
from medgraft.types import Cut

__all__ = ["FairChoice", "depths_to_try", "fair_search"]

_LR_FACTORS: Final = (1.0, 1 / 3, 3.0, 0.1, 10.0, 1 / 30, 30.0)
_DEPTH_SHARE: Final = 0.75


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FairChoice:
    """The best trial of a strategy: its depth, its learning rate, and all that were tried."""

    depth: Cut
    lr: float
    tried: tuple[TunedTrial, ...]


def depths_to_try(cuts: tuple[Cut, ...], usual: Cut, num: int) -> list[Cut]:
    """The usual depth, then ends of stages from the top down, then the cuts between them.

    Args:
        cuts: Cuts that the strategy may use, stem first.
        usual: Tried first when it is not the last of the network and so among `cuts`.
        num: Depths to return, at most.
    """
    ends = sorted(stage_ends(cuts), key=lambda cut: -cut.index)
    between = [cut for cut in reversed(cuts) if cut not in ends]
    ordered = [usual, *(cut for cut in (*ends, *between) if cut.index != usual.index)]
    return ordered[:num]


def fair_search(
    depths: Sequence[Cut], lr: float, num_trials: int, *, has_lr: bool = True
) -> Search[tuple[Cut, float], Sequence[float], FairChoice]:
    """Propose `num_trials` trainings: three quarters over the depths at `lr`, the rest over learning rates at the best.

    It proposes depths with learning rates, and wants the validation score of each, higher is better. A strategy
    without a depth (one entry in `depths`) spends all on learning rates, one that is solved and has none spends all on
    depths.

    Args:
        depths: In the order in which they are tried.
        lr: The usual learning rate.
        num_trials: At least 1.
        has_lr: Whether the strategy learns by gradient.

    Examples:
        >>> from medgraft.search.proposals import drive
        >>> def cut(index):
        ...     return Cut(index=index, name=str(index), stage=0, channels=1, stride=1, num_params=index,
        ...                macs=index, shape=(1,), channel_axis=1, tap="", tap_side="output")
        >>> search = fair_search([cut(3), cut(2), cut(1)], 1.0, 4)
        >>> choice = drive(search, lambda batch: [-abs(depth.index - 2) - abs(lr - 0.3) for depth, lr in batch])
        >>> choice.depth.index, round(choice.lr, 2), len(choice.tried)
        (2, 0.33, 4)
    """
    for_depths = num_trials if not has_lr else max(1, math.ceil(_DEPTH_SHARE * num_trials))
    batch = [(depth, lr) for depth in depths[:for_depths]]
    tried = _tried(batch, (yield batch))
    by_index = {depth.index: depth for depth in depths}
    if has_lr:
        best_depth = by_index[_best(tried).cut]
        batch = [(best_depth, lr * factor) for factor in _LR_FACTORS[1 : num_trials - len(tried) + 1]]
        tried += _tried(batch, (yield batch))
    best = _best(tried)
    return FairChoice(depth=by_index[best.cut], lr=best.lr, tried=tuple(tried))


def _tried(asked: Sequence[tuple[Cut, float]], scores: Sequence[float]) -> list[TunedTrial]:
    return [
        TunedTrial(cut=depth.index, lr=lr, val_score=score) for (depth, lr), score in zip(asked, scores, strict=True)
    ]


def _best(tried: Sequence[TunedTrial]) -> TunedTrial:
    return max(tried, key=lambda trial: trial.val_score)
