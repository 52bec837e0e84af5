"""What a file format is to this program: how its files are known, read and written."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.io.series import Stack
from medgraft.types import ImageFacts, MaskReading, Reading

__all__ = ["NOWHERE", "FileFormat", "MaskWriter", "Pixels", "Place"]

Pixels = tuple[np.ndarray, ImageFacts]
"""Integers as they are read, and what decoding found and did."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the voxels of a case lie: the affine of (column, row, slice), and its slices, as far as it has any."""

    affine: np.ndarray | None = None
    stack: Stack | None = None


NOWHERE: Final = Place()
"""The place of files that do not tell where they lie."""


def _nowhere(_files: Sequence[Path], _dims: int) -> Place:
    return NOWHERE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MaskWriter:
    """How masks are written in a format.

    Args:
        name: As ``--format`` names it.
        suffix: Ending of the files, with its dot.
        write: Writes class numbers (H, W) or (D, H, W) as they stand in files beside the files of their image: called
            with these numbers, the same as indices from 0, the image's files, its place, the path, the names of the
            classes and the program's version.
        demand: Refuses where a library is missing.
    """

    name: str
    suffix: str
    write: Callable[[np.ndarray, np.ndarray, Sequence[Path], Place, Path, Sequence[str], str], None]
    demand: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """One file format: everything that this program knows of it.

    Args:
        name: As people say it.
        suffixes: Endings that tell it, in lower case with their dot.
        is_whole: Whether a file with such an ending holds a whole volume.
        is_placed: Whether its volumes say how they are turned.
        begins: Whether an existing file is one by its beginning, whatever its name; None: names alone tell.
        image: (H, W) or (H, W, 3) of one file; None where files hold volumes alone.
        image_facts: What its header declares.
        volume: (D, H, W[, C]) of the files of one volume; None where files hold images alone.
        volume_facts: What their headers declare; the second argument: whether the distance of slices is wanted.
        mask: Numbers of a mask's file, beside the files of its image and how it is read.
        mask_suffixes: Endings of files that are masks.
        place: Where the voxels of a case with so many axes lie.
        writes: Formats in which a mask of such a case may be written, by number of axes, the usual one first.
    """

    name: str
    suffixes: frozenset[str]
    is_whole: bool = False
    is_placed: bool = False
    begins: Callable[[Path], bool] | None = None
    image: Callable[[Path, Reading], Pixels] | None = None
    image_facts: Callable[[Path], ImageFacts] | None = None
    volume: Callable[[Sequence[Path], Reading], Pixels] | None = None
    volume_facts: Callable[[Sequence[Path], bool], ImageFacts] | None = None
    mask: Callable[[Path, Sequence[Path], MaskReading], np.ndarray] | None = None
    mask_suffixes: frozenset[str] = frozenset()
    place: Callable[[Sequence[Path], int], Place] = _nowhere
    writes: Mapping[int, tuple[MaskWriter, ...]] = dataclasses.field(default_factory=dict)

    def is_named(self, name: str, suffixes: frozenset[str] | None = None) -> bool:
        """Whether a file is called as those of this format are; by default after `suffixes` of the format."""
        lower = Path(name).name.lower()
        return any(
            lower.endswith(suffix) and lower != suffix for suffix in (self.suffixes if suffixes is None else suffixes)
        )
