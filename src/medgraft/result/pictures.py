"""Pictures of a run as a value: `report_images/index.json` on disk."""

import dataclasses
from pathlib import Path
from typing import Final

from medgraft.as_json import from_json
from medgraft.files import read_json, write_json

__all__ = [
    "DuplicatePicture",
    "ExamplePicture",
    "OverlayPicture",
    "Pictures",
    "ScalePicture",
    "read_pictures",
    "write_picture_index",
]

INDEX: Final = "index.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatePicture:
    """Two images that are, or look, the same: their pictures, their names, how and how much they are alike."""

    a: str
    b: str
    a_path: str
    b_path: str
    kind: str
    similarity: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExamplePicture:
    """A test case with its picture, what it is, what the model calls it and how sure the model is."""

    image: str
    path: str
    label: str
    pred: str
    prob: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OverlayPicture:
    """A test case with a mask: its picture, the same with what was marked, and its Dice."""

    kind: str
    path: str
    dice: float
    image: str
    overlay: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScalePicture:
    """An image of one of two groups on different intensity scales: its picture on a common one, its name, its group."""

    image: str
    path: str
    is_apart: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """What a report shows of the images.

    Args:
        duplicates: Pairs that the audit found, those across splits first.
        hits: Labelled test cases that are called rightly, the surest first.
        misses: Labelled test cases that are called wrongly, the surest first.
        scales: Images of two groups on different intensity scales, those of the group that lies apart first.
        overlays: Best, median and worst test case with a mask.
    """

    duplicates: tuple[DuplicatePicture, ...] = ()
    hits: tuple[ExamplePicture, ...] = ()
    misses: tuple[ExamplePicture, ...] = ()
    overlays: tuple[OverlayPicture, ...] = ()
    scales: tuple[ScalePicture, ...] = ()


def write_picture_index(pictures: Pictures, folder: Path) -> None:
    """Write the index beside the pictures.

    Raises:
        RunError: It cannot be written.
    """
    write_json(folder / INDEX, pictures)


def read_pictures(folder: Path) -> Pictures | None:
    """The pictures in `folder`; None where there are none.

    Raises:
        RunError: The index is broken, or another version wrote it.
    """
    return from_json(Pictures, read_json(folder / INDEX)) if (folder / INDEX).is_file() else None
