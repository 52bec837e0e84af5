"""DICOM files to volumes: which files belong together, in which order, and whether none is missing."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.errors import DataError
from medgraft.io.dicom_header import DicomFile, Frame

__all__ = ["Stack", "stacks_of"]

_GAP: Final = 0.05
_SAME_PLACE: Final = 0.05
_PARALLEL: Final = 1e-3
_SHOWN: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The slices of one volume, from the patient's point of view in one direction, without gap or duplicate.

    Args:
        name: What tells it from other stacks of its series (time point, b-value …), empty where it is the only one.
        slices: File and frame of each slice, in the order of the slice normal.
        affine: (4, 4), from (column, row, slice) to millimetres, right, anterior, superior.
    """

    name: str
    slices: tuple[tuple[Path, int], ...]
    affine: np.ndarray


def stacks_of(series: Mapping[Path, DicomFile]) -> tuple[Stack, ...]:
    """The volumes of one series: scouts aside, time points, echoes and b-values apart, sorted along the normal.

    Args:
        series: The files of one SeriesInstanceUID, or one multi-frame file.

    Raises:
        DataError: Slices of different sizes or directions, two at one place, a gap, or none with a position; the
            message names the files.
    """
    slices = [
        (path, number, frame)
        for path, file in sorted(series.items())
        if not file.is_localizer
        for number, frame in enumerate(file.frames)
    ]
    where = _common_folder(series)
    if not slices:
        raise DataError(f"{where}: holds nothing but scouts (localizers). Leave the series out.")
    lost = [path for path, _, frame in slices if not (frame.position and frame.orientation and frame.spacing_mm)]
    if lost:
        raise DataError(
            f"{where}: {len(lost)} of {len(slices)} slices lack position, orientation or spacing ({_named(lost)}). "
            "They are no volume. Of a film, use a network for images and --set data.frames=first, middle or all."
        )
    _check_alike(series, slices, where)
    row, column = np.array(slices[0][2].orientation).reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([np.dot(frame.position, normal) for _, _, frame in slices])
    stacks = []
    for name, members in _apart(slices, positions).items():
        order = members[np.argsort(positions[members], kind="stable")]
        _check_spacing([slices[i] for i in order], positions[order], where, name)
        stacks.append(_stack(name, [slices[i] for i in order]))
    return tuple(stacks)


_Slice = tuple[Path, int, Frame]


def _check_alike(series: Mapping[Path, DicomFile], slices: Sequence[_Slice], where: Path) -> None:
    """Refuse slices that differ in size, direction or spacing of pixels.

    Args:
        series: What each file says of itself.
        slices: File, number of frame and frame of each slice.
        where: File or folder, for the error.
    """
    sizes = {(series[path].rows, series[path].columns) for path, _, _ in slices}
    if len(sizes) > 1:
        raise DataError(f"{where}: slices of different sizes {sorted(sizes)} in one series. Split it.")
    first = np.array(slices[0][2].orientation)
    turned = [path for path, _, frame in slices if np.abs(np.array(frame.orientation) - first).max() > _PARALLEL]
    if turned:
        raise DataError(f"{where}: slices of different directions in one series ({_named(turned)}). Split it.")
    wide = [path for path, _, frame in slices if not np.allclose(frame.spacing_mm, slices[0][2].spacing_mm, rtol=1e-3)]
    if wide:
        raise DataError(f"{where}: slices of different pixel spacing in one series ({_named(wide)}). Split it.")


def _apart(slices: Sequence[_Slice], positions: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each stack by its name. Slices at one place are told apart by what differs between them."""
    everyone = np.arange(len(slices))
    if not _has_repeats(positions):
        return {"": everyone}
    keys = [frame.stack for _, _, frame in slices]
    columns = [column for column in zip(*keys, strict=True) if 1 < len(set(column)) <= len(slices) // 2]
    # One reason by itself first, then two together (every echo at every time).
    for parts in itertools.chain(itertools.combinations(columns, 1), itertools.combinations(columns, 2)):
        groups: dict[str, list[int]] = {}
        for i, key in enumerate(zip(*parts, strict=True)):
            groups.setdefault(", ".join(filter(None, key)), []).append(i)
        # A time that differs from slice to slice tells no volumes apart.
        is_split = min(len(rows) for rows in groups.values()) > 1
        if is_split and not any(_has_repeats(positions[rows]) for rows in groups.values()):
            return {name: np.array(groups[name]) for name in sorted(groups)}
    return {"": everyone}


def _has_repeats(positions: np.ndarray) -> bool:
    steps = np.diff(np.sort(positions))
    positive = steps[steps > 0]
    return bool(len(steps)) and (not len(positive) or bool((steps <= _SAME_PLACE * np.median(positive)).any()))


def _check_spacing(slices: Sequence[_Slice], positions: np.ndarray, where: Path, name: str) -> None:
    """Refuse a single slice, two slices at one place, and a gap.

    Args:
        slices: File, number of frame and frame of each slice, in the order of the normal.
        positions: (N,) mm along the normal, ascending.
        where: File or folder, for the error.
        name: Name of the stack, for the error; empty where it is the only one.
    """
    title = f"{where}{f' ({name})' if name else ''}"
    if len(slices) < 2:
        raise DataError(f"{title}: holds one slice, expected a volume. Name the folder of its series.")
    steps = np.diff(positions)
    usual = float(np.median(steps))
    for number, step in enumerate(steps):
        if step <= _SAME_PLACE * usual or usual == 0:
            raise DataError(f"{title}: two slices lie at one place ({_pair(slices, number)}). Remove one.")
        if abs(step - usual) > _GAP * usual:
            raise DataError(
                f"{title}: {step:.2f} mm between {_pair(slices, number)} where {usual:.2f} mm is usual; "
                "a slice is missing or the spacing varies. Export the series again."
            )


def _pair(slices: Sequence[_Slice], number: int) -> str:
    """Two neighbours by file and, of several frames in one file, by frame."""
    (file, first, _), (next_file, second, _) = slices[number : number + 2]
    return (
        f"{file.name} frame {first + 1}, {next_file.name} frame {second + 1}"
        if file == next_file
        else f"{file.name}, {next_file.name}"
    )


def _stack(name: str, slices: Sequence[_Slice]) -> Stack:
    """A stack of sorted slices, with its affine.

    Args:
        name: What tells it from other stacks of its series, empty where it is the only one.
        slices: File, number of frame and frame of each slice, in the order of the normal.
    """
    first, last = slices[0][2], slices[-1][2]
    row, column = np.array(first.orientation).reshape(2, 3)
    step = (np.array(last.position) - np.array(first.position)) / (len(slices) - 1)
    affine = np.eye(4)
    # Column index moves along a row by the spacing between columns.
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * first.spacing_mm[1], column * first.spacing_mm[0], step
    affine[:3, 3] = first.position
    # DICOM counts to the left and to the back, the affine to the right and to the front.
    affine[:2] *= -1
    return Stack(name=name, slices=tuple((path, number) for path, number, _ in slices), affine=affine)


def _common_folder(series: Mapping[Path, DicomFile]) -> Path:
    paths = list(series)
    return paths[0] if len(paths) == 1 else paths[0].parent


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:_SHOWN]) + (", …" if len(paths) > _SHOWN else "")
