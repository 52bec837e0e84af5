"""Masks that are pictures: whether their numbers or their colours say what is marked.

A palette may number the same colour differently from file to file, and begin with the foreground. Where number and
colour name the same everywhere, numbers are labels; where they do not and all colours are grey, the grey is the label;
else nobody can know.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from medgraft.errors import DataError
from medgraft.io.image import Colour, read_palette

__all__ = ["PictureClaim", "claim_of", "colours_decide"]

_DARK: Final = 32
"""A grey picture below it shows nothing: its numbers are labels and say nothing of colours."""
_BLACK: Final = (0, 0, 0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PictureClaim:
    """What one picture says of numbers and colours.

    Args:
        file: The picture.
        colours: Colour by number, of those that occur; empty of a dark grey picture.
        greys: Labels if colours decide; empty where a colour is not grey.
        is_palette: Whether a palette holds the colours.
        steps: Between the greys of neighbouring numbers: 1, or more in a picture of few bits.
    """

    file: Path
    colours: Mapping[int, Colour]
    greys: frozenset[int]
    is_palette: bool
    steps: int = 1


def claim_of(file: Path, numbers: Iterable[int]) -> PictureClaim | None:
    """What a picture claims; None where it has more than 8 bits, and so no colours but numbers.

    Args:
        file: The picture.
        numbers: Those that occur in it, as they are read: entries of a palette, or greys.

    Raises:
        DataError: It cannot be read.
    """
    palette, bits = read_palette(file)
    if bits > 8:
        return None
    colours = {number: (number, number, number) if palette is None else palette[number] for number in numbers}
    is_grey = all(len(set(colour)) == 1 for colour in colours.values())
    greys = frozenset(colour[0] for colour in colours.values()) if is_grey else frozenset[int]()
    is_silent = palette is None and max(colours, default=0) < _DARK
    return PictureClaim(
        file=file,
        colours={} if is_silent else colours,
        greys=greys,
        is_palette=palette is not None,
        steps=255 // (2**bits - 1),
    )


def colours_decide(claims: Sequence[PictureClaim], labels: Iterable[int], root: Path) -> bool:
    """Whether the greys of pictures are their labels, not their numbers.

    Args:
        claims: Of every picture.
        labels: Numbers that somebody gave to the classes; empty for none.
        root: For errors.

    Raises:
        DataError: Numbers and colours contradict each other, and colours are not grey.
    """
    _refuse_depths(claims)
    if not any(claim.is_palette for claim in claims):
        return False
    wanted = set(labels)
    if _agree(claims) and (not wanted or _fits(claims, wanted, lambda claim: claim.colours)):
        return False
    if all(claim.greys or not claim.colours for claim in claims):
        return True
    if _agree(claims):
        return False  # the numbers that were given do not fit; that is told of each file
    first, second, why = _contradiction(claims)
    raise DataError(
        f"{root}: palettes of masks do not agree: {why} ({first.file.name}, {second.file.name}). Save all masks with "
        "one palette whose entry 0 is the background, or as grey PNG."
    )


def _fits(
    claims: Sequence[PictureClaim], labels: set[int], numbers_of: Callable[[PictureClaim], Iterable[int]]
) -> bool:
    return all(set(numbers_of(claim)) <= labels | {0} for claim in claims)


def _agree(claims: Sequence[PictureClaim]) -> bool:
    """Whether every number has one colour, every colour one number, and the background is number 0."""
    return _contradiction(claims)[2] == ""


def _contradiction(claims: Sequence[PictureClaim]) -> tuple[PictureClaim, PictureClaim, str]:
    """Two pictures that contradict each other, or one that contradicts itself, and how; no words where none do."""
    colours: dict[int, dict[Colour, PictureClaim]] = defaultdict(dict)
    numbers: dict[Colour, dict[int, PictureClaim]] = defaultdict(dict)
    for claim in claims:
        for number, colour in claim.colours.items():
            colours[number].setdefault(colour, claim)
            numbers[colour].setdefault(number, claim)
    for number, named in colours.items():
        if len(named) > 1:
            (one, first), (other, second) = list(named.items())[:2]
            return first, second, f"{number} is {_words(one)} in one and {_words(other)} in another"
    for colour, called in numbers.items():
        if len(called) > 1:
            (low, first), (high, second) = list(called.items())[:2]
            return first, second, f"{_words(colour)} is {low} in one and {high} in another"
    for number, called_black in numbers.get(_BLACK, {}).items():
        if number != 0:
            return called_black, called_black, f"black is {number}, and 0 is the background"
    greys = {colour[0]: number for number, named in colours.items() for colour in named if len(set(colour)) == 1}
    if greys and len(greys) == len(numbers) and 0 in colours and greys[min(greys)] != 0:
        claim = next(iter(colours[0].values()))
        return claim, claim, "0 is not the darkest"
    return claims[0], claims[0], ""


def _words(colour: Colour) -> str:
    return {_BLACK: "black", (255, 255, 255): "white"}.get(colour, f"RGB {', '.join(map(str, colour))}")


def _refuse_depths(claims: Sequence[PictureClaim]) -> None:
    """Refuse grey pictures of few bits whose stored numbers are the labels of others, and their greys are not."""
    greys = [claim for claim in claims if not claim.is_palette and claim.greys - {0}]
    plain = set().union(*(claim.greys for claim in greys if claim.steps == 1)) - {0}
    for claim in greys:
        shown = claim.greys - {0}
        if claim.steps > 1 and plain and not shown <= plain and {grey // claim.steps for grey in shown} <= plain:
            other = next(other for other in greys if other.steps == 1)
            raise DataError(
                f"{claim.file}: a grey picture of few bits, which shows {min(shown)} where it stores "
                f"{min(shown) // claim.steps}; {other.file.name} and others hold {min(plain)}. Save all with 8 bits."
            )
