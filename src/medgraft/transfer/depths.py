"""What a depth means for a strategy: the usual one, one that is named, and where a strategy is full fine-tuning."""

from medgraft.cuts.truncate import resolve_cut
from medgraft.transfer.source import BELOW_STEM, Source
from medgraft.transfer.strategies import STRATEGIES
from medgraft.types import Cut

__all__ = ["named_depth", "renamed", "usual_depth"]


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
    if wanted.strip() == "0" and STRATEGIES[strategy].has_zero:
        return BELOW_STEM
    return resolve_cut(source.cuts, wanted)


def usual_depth(source: Source, strategy: str) -> Cut:
    """The depth of a strategy when none is given: all that is kept, and everything unfrozen in the end."""
    return BELOW_STEM if STRATEGIES[strategy].usual == "zero" else source.cuts[-1]


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
    return "ftl" if STRATEGIES[strategy].is_ftl_whole and cut == num_cuts else strategy
