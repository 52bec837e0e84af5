"""How the authors of published weights name their tensors, as a value."""

import dataclasses
from collections.abc import Callable, Mapping

from torch import Tensor

__all__ = ["Converter", "Layout"]

Converter = Callable[[dict[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]
"""From the tensors of a file, by the names they have there, and those of the network to the former by the names of the
latter; raises `medgraft.errors.WeightsError` where that is impossible."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a file of published weights is built.

    Args:
        words: What it is, for people.
        marks: Regular expressions, each of which has to occur in a line ``path.of.tensor (3, 64, 7, 7)`` of the file.
            They name what no other layout has; a file's name says nothing.
        lacks: Regular expressions that occur in no such line.
        joins: Pairs of a regular expression and its replacement, applied to every path first: they join what the file
            keeps apart, such as parameters and moving statistics of one network.
        networks: Regular expressions of the paths below which networks lie, from the beginning of the line; the first
            that occurs is the one its authors mean, the others are for ``FILE#path``.
        drops: Regular expressions of names below that path which are known to belong to no trunk: heads, queues,
            tokens of the objective.
        renames: Pairs of a regular expression and its replacement, applied to every name one after the other.
        convert: Reshapes and renames what no pattern can; after `renames`.
        is_family: Whether timm's converter of the network's family reads the rest.
        network: Network that the file needs where timm's of the same shapes computes something else; empty where the
            user's is right.
        caution: What the file does not tell and a user should know; empty where there is nothing.
        refusal: Why no network here computes what the file means; empty where one does.
    """

    words: str
    marks: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    joins: tuple[tuple[str, str], ...] = ()
    networks: tuple[str, ...] = ("",)
    drops: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    convert: Converter | None = None
    is_family: bool = False
    network: str = ""
    caution: str = ""
    refusal: str = ""
