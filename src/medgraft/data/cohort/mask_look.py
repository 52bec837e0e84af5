"""A look at all masks of a cohort: which numbers, labels and colours they hold, and which classes these are."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.config import MAX_MASK_CLASSES
from medgraft.data.cohort.mask_colours import PictureClaim, claim_of, colours_decide
from medgraft.errors import DataError, reason_of
from medgraft.io.dicom_seg import segment_labels
from medgraft.io.image import IMAGE_SUFFIXES
from medgraft.io.mask import is_seg_file, read_mask
from medgraft.types import MaskReading

__all__ = ["Seen", "classes_of", "look_at_masks", "read_alike"]

_SHOWN: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look at the masks of one image found: numbers, what DICOM objects call them, colours; or why not."""

    values: frozenset[int] = frozenset()
    segments: frozenset[tuple[int, str]] = frozenset()
    pictures: tuple[PictureClaim, ...] = ()
    reason: str = ""


def look_at_masks(root: Path, ignored: int | None, case: tuple[Sequence[Path], Sequence[Sequence[str]]]) -> Seen:
    """What the masks of one image hold.

    Args:
        root: Folder that names start from.
        ignored: Number that is neither a class nor background, or None.
        case: Files of the image, and for each observer the files of its mask.
    """
    images, voters = case
    try:
        seen = [{name: _numbers(read_mask(root / name, images), ignored) for name in files} for files in voters]
        by_voter = [frozenset().union(*parts.values()) - {0} for parts in seen]
        files = {root / name: numbers for parts in seen for name, numbers in parts.items()}
        named = [segment_labels(file) for file in files if is_seg_file(file)]
        claims = [claim_of(file, numbers) for file, numbers in files.items() if file.suffix.lower() in IMAGE_SUFFIXES]
    except DataError as error:
        return Seen(reason=reason_of(error, [*(root / name for files in voters for name in files), *images]))
    pictures = tuple(claim for claim in claims if claim is not None)
    marking = [values for values in by_voter if values]
    if len(marking) > 1 and not frozenset.intersection(*marking) and not any(claim.is_palette for claim in pictures):
        numbers = " and ".join(", ".join(map(str, sorted(values))) for values in marking)
        return Seen(reason=f"observers use different numbers ({numbers}). Store all alike.")
    values = frozenset().union(*by_voter)
    # Without a label the number is all there is.
    pairs = {(number, label) for labels in named for number, label in labels.items() if number in values and label}
    return Seen(values=values, segments=frozenset(pairs), pictures=pictures)


def _numbers(mask: np.ndarray, ignored: int | None) -> list[int]:
    """The numbers in a mask but the ignored one."""
    return [number for number in np.unique(mask).tolist() if number != ignored]


def read_alike(
    seen: Sequence[Seen], labels: Mapping[str, int], root: Path
) -> tuple[MaskReading, list[Seen], tuple[str, ...]]:
    """How all masks are to be read, what was seen when they are read so, and notes.

    Args:
        seen: What a look at the masks of each image found.
        labels: Names and numbers that the user gave or the folder tells; empty for none.
        root: For errors.
    """
    segments, seen = _by_label(seen, labels, root)
    if not colours_decide([claim for look in seen for claim in look.pictures], labels.values(), root):
        return MaskReading(segments=segments), seen, ()
    note = "Palettes of masks number their greys differently: the greys decide, black is the background."
    return MaskReading(segments=segments, is_by_colour=True), [_in_greys(look) for look in seen], (note,)


def _in_greys(look: Seen) -> Seen:
    """What was seen, with the greys of pictures instead of their numbers."""
    if not look.pictures:
        return look
    return dataclasses.replace(look, values=frozenset().union(*(claim.greys for claim in look.pictures)) - {0})


def _by_label(seen: Sequence[Seen], classes: Mapping[str, int], root: Path) -> tuple[dict[str, int], list[Seen]]:
    """Number by label where objects number the segments of one label differently; what was seen, in these numbers.

    Args:
        seen: What a look at the masks of each image found.
        classes: Names and numbers that the user gave; empty for none.
        root: For errors.
    """
    pairs = frozenset().union(*(look.segments for look in seen))
    labels = sorted({label for _, label in pairs})
    is_declared = bool(labels) and set(labels) <= set(classes)
    has_numbers_alone = any(len(look.values) > len(look.segments) for look in seen)
    if len(labels) == len(pairs) and (has_numbers_alone or not is_declared):
        return {}, list(seen)
    if has_numbers_alone:
        raise DataError(
            f"{root}: DICOM segmentations number their segments differently ({', '.join(labels[:_SHOWN])}), and other "
            "masks hold numbers alone. Store all alike."
        )
    if classes and not is_declared:
        raise DataError(
            f"{root}: DICOM segmentations number their segments differently, so their labels decide: expected these "
            f"among data.mask_classes, got {', '.join(labels[:_SHOWN])}."
        )
    segments = dict(classes) if is_declared else {label: number for number, label in enumerate(labels, 1)}
    named = [
        dataclasses.replace(
            look,
            values=frozenset(segments[label] for _, label in look.segments),
            segments=frozenset((segments[label], label) for _, label in look.segments),
        )
        for look in seen
    ]
    return segments, named


def classes_of(
    labels: Mapping[str, int], seen: Sequence[Seen], root: Path
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Names and numbers of the classes beside the background, and notes.

    Args:
        labels: Names and numbers that the user gave or the folder tells; empty for every number in the masks.
        seen: What a look at the masks of each image found.
        root: For errors.
    """
    numbers = sorted(set().union(*(look.values for look in seen)) - {0})
    if all(look.reason for look in seen):
        raise DataError(f"{root}: no mask can be read. First: {seen[0].reason}")
    if len(labels) > MAX_MASK_CLASSES:
        raise DataError(f"{root}: expected at most {MAX_MASK_CLASSES} labels, got {len(labels)}.")
    if labels:
        named = {name: value for name, value in labels.items() if value != 0}
        ordered = sorted(named, key=lambda name: named[name])
        return tuple(ordered), tuple(named[name] for name in ordered), (f"Classes: {', '.join(ordered)}.",)
    if not numbers:
        raise DataError(f"{root}: every mask is empty (0 everywhere). Is it the right folder?")
    if numbers == [1, 255] and not any({1, 255} <= look.values for look in seen):
        counts = [sum(number in look.values for look in seen) for number in numbers]
        raise DataError(
            f"{root}: {counts[0]} masks mark with 1 and {counts[1]} with 255, none with both: one class, or two? Store "
            "all alike, or name them: --set data.mask_classes=NAME=1,OTHER=255."
        )
    if len(numbers) > MAX_MASK_CLASSES:
        raise DataError(
            f"{root}: the masks hold {len(numbers)} different numbers ({', '.join(map(str, numbers[:_SHOWN]))} …), "
            "expected one for each class. Were they smoothed or resized? Export them without interpolation."
        )
    names = ("foreground",) if len(numbers) == 1 else tuple(f"label {value}" for value in numbers)
    notes = [f"Numbers in the masks: 0 (background), {', '.join(map(str, numbers))}."]
    label_of = dict(sorted(frozenset().union(*(look.segments for look in seen))))
    called = sorted({label for look in seen for _, label in look.segments})
    if set(numbers) <= set(label_of) and len(called) == len(numbers):
        names = tuple(label_of[value] for value in numbers)
        notes = [f"Segments of DICOM objects: {', '.join(names)}."]
    elif len(called) > len(numbers):
        some = ", ".join(called[:_SHOWN]) + (" …" if len(called) > _SHOWN else "")
        notes.append(f"Segments are called differently from file to file ({some}): their numbers decide.")
    return names, tuple(numbers), tuple(notes)
