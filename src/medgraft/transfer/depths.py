"""What a depth means for a strategy: the usual one, one that is named, and where a strategy is full fine-tuning."""

from typing import Final

from medgraft.cuts.truncate import resolve_cut
from medgraft.transfer.source import BELOW_STEM, Source
from medgraft.transfer.strategies import ZERO_DEPTH
from medgraft.types import Cut

__all__ = ["WHOLE_IS_FTL", "named_depth", "renamed", "usual_depth"]

WHOLE_IS_FTL: Final = ("ttl", "tf", "wtst")
"""Strategies that are full fine-tuning at the last cut."""


def named_depth(source: Source, strategy: str, wanted: str) -> Cut:
    """The cut that ``--cut`` names for a strategy; where nothing is named, its usual depth.

    Args:
        source: Whose cuts are meant.
        strategy: A key of `medgraft.transfer.strategies.STRATEGIES`.
        wanted: ``auto``, an index or a name.

    Raises:
        CutError: There is no such cut, or depth 0 means nothing for the strategy.
    """
    if wanted == "auto":
        return usual_depth(source, strategy)
    if wanted.strip() == "0" and strategy in ZERO_DEPTH:
        return BELOW_STEM
    return resolve_cut(source.cuts, wanted)


def usual_depth(source: Source, strategy: str) -> Cut:
    """The depth of a strategy when none is given: all that is kept, and everything unfrozen in the end."""
    return BELOW_STEM if strategy == "gradual" else source.cuts[-1]


def renamed(strategy: str, cut: int, num_cuts: int) -> str:
    """The strategy, or ``ftl`` where at the last cut it is full fine-tuning: one trial serves both.

    Args:
        strategy: A key of `medgraft.transfer.strategies.STRATEGIES`.
        cut: Index of its depth.
        num_cuts: How many cuts the network has.

    Examples:
        >>> renamed("ttl", 8, 9), renamed("ttl", 9, 9), renamed("frozen", 9, 9)
        ('ttl', 'ftl', 'frozen')
    """
    return "ftl" if strategy in WHOLE_IS_FTL and cut == num_cuts else strategy
