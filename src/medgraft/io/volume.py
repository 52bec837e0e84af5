"""One volume from its files to integers and facts: the one way in for training and for prediction."""

import contextlib
import dataclasses
import math
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.errors import DataError
from medgraft.io.archive import read_archive
from medgraft.io.array import read_array
from medgraft.io.dicom import FrameValues, Rescale, Windows, asked_windows, read_dicom, to_integers
from medgraft.io.dicom_header import MAX_VALUES, DicomFile, is_dicom, read_header
from medgraft.io.image import IMAGE_SUFFIXES, read_facts, read_image
from medgraft.io.intensity import ct_windows, through_window, to_sixteen_bits
from medgraft.io.nifti import MAX_VOXELS, is_nifti_name, nifti_facts, nifti_shape, ras_order, read_nifti, to_ras
from medgraft.io.resample import resampled
from medgraft.io.series import Stack, stacks_of
from medgraft.types import ImageFacts, Reading

__all__ = ["is_volume_name", "natural", "read_volume", "read_volume_facts"]

ARRAY_SUFFIXES: Final = frozenset({".npy", ".npz"})
LARGE: Final = 2**24
_large = threading.BoundedSemaphore(1)


def is_volume_name(name: str) -> bool:
    """Whether a file is called as those that hold a whole volume are: ``.nii``, ``.nii.gz``, ``.npy``, ``.npz``."""
    return is_nifti_name(name) or Path(name).suffix.lower() in ARRAY_SUFFIXES


def natural(path: Path) -> tuple[Any, ...]:
    """What sorts ``slice_2`` before ``slice_10``."""
    parts = re.split(r"(\d+)", path.as_posix())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def read_volume(files: Sequence[Path], reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    """Integers of one volume, and what decoding found and did.

    DICOM and NIfTI become 16 bits on the scale that `reading` says, turned to slices from the feet to the head, rows
    from back to front and columns from left to right (RAS), and resampled where `reading` names a spacing. Arrays and
    slices that are pictures keep their order, and their numbers where these are integers of 8 or 16 bits.

    Args:
        files: One NIfTI file, one ``.npy`` or ``.npz`` with one array (D, H, W), one multi-frame DICOM file, the files
            of one DICOM series, or one folder of pictures, a slice each.
        reading: How stored numbers become intensities.

    Returns:
        (D, H, W), or (D, H, W, C) of C windows; uint8 or uint16.

    Raises:
        DataError: A file cannot be read, or together they are no volume; the message names the files.
    """
    first = files[0]
    if first.is_dir():
        return _picture_volume(_only(files), reading)
    if is_nifti_name(first.name):
        with _one_at_a_time(math.prod(nifti_shape(_only(files))), reading):
            values, affine = read_nifti(first)
            return _real(values, affine, reading, mode="NIfTI", modality="", where=first)
    if first.suffix.lower() in ARRAY_SUFFIXES:
        return _array_volume(_only(files), reading)
    _demand_dicom(first)
    return _dicom_volume(files, reading)


def _one_at_a_time(num_voxels: int, reading: Reading) -> contextlib.AbstractContextManager[Any]:
    """Large volumes wait for each other: real values take some twenty bytes a voxel on their way."""
    return _large if num_voxels > LARGE or reading.spacing_mm else contextlib.nullcontext()


def _demand_dicom(path: Path) -> None:
    if not is_dicom(path):
        raise DataError(f"{path}: expected a volume: NIfTI, DICOM, .npy, .npz, or a folder of slices.")


def read_volume_facts(files: Sequence[Path], *, is_spaced: bool = False) -> ImageFacts:
    """What the headers alone declare, turned as `read_volume` turns; no voxel is decoded.

    Args:
        files: Of one volume.
        is_spaced: Whether the distance of slices is wanted, for which every header of a DICOM series is read.

    Raises:
        DataError: As in `read_volume`, as far as the headers show it.
    """
    first = files[0]
    if first.is_dir():
        slices = _slices(first)
        return dataclasses.replace(read_facts(slices[0]), depth=len(slices), channels=1)
    if is_nifti_name(first.name):
        (depth, height, width), steps = nifti_facts(_only(files))
        return ImageFacts(
            depth=depth,
            height=height,
            width=width,
            channels=1,
            bits=16,
            mode="NIfTI",
            spacing_mm=steps,
            stored_mm=steps,
        )
    if first.suffix.lower() in ARRAY_SUFFIXES:
        array = _array(_only(files))
        (depth, height, width), bits = array.shape, 8 if array.dtype == np.uint8 else 16
        return ImageFacts(depth=depth, height=height, width=width, channels=1, bits=bits, mode="array")
    _demand_dicom(first)
    return _dicom_facts(files, is_spaced=is_spaced)


def _dicom_facts(files: Sequence[Path], *, is_spaced: bool) -> ImageFacts:
    header = read_header(files[0])
    depth = len(header.frames) if len(files) == 1 else len(files)
    # Columns, rows and slices run along these.
    sides, affine = (header.columns, header.rows, depth), np.eye(4)
    if orientation := header.frames[0].orientation:
        row, column = np.array(orientation).reshape(2, 3)
        affine[:3, :3] = np.stack([row, column, np.cross(row, column)], 1)
    steps: tuple[float, ...] = ()
    if is_spaced or len(header.frames) > 1:
        with contextlib.suppress(DataError):  # told where it is read
            (stack, *_) = stacks_of({path: read_header(path) for path in files})
            affine, sides = stack.affine, (header.columns, header.rows, len(stack.slices))
            steps = _spacing(to_ras(np.zeros((1, 1, 1)), affine)[1])
    depth, height, width = (sides[axis] for axis in ras_order(affine)[::-1])
    return ImageFacts(
        depth=depth, height=height, width=width, channels=1, bits=16, mode="DICOM", modality=header.modality,
        spacing_mm=steps, stored_mm=steps,
    )  # fmt: skip


def _only(files: Sequence[Path]) -> Path:
    if len(files) != 1:
        raise DataError(f"{files[0].parent}: expected one file for a volume, got {len(files)} ({files[0].name} …).")
    return files[0]


def _windows(reading: Reading) -> Windows | None:
    """Centres and widths of the named windows; None where none is named."""
    return None if reading.windows in ((), ("file",)) else ct_windows(reading.windows)


def _real(
    values: np.ndarray, affine: np.ndarray, reading: Reading, *, mode: str, modality: str, where: Path
) -> tuple[np.ndarray, ImageFacts]:
    """Real values (X, Y, Z) without a window of their own to integers."""
    windows = _windows(reading)
    steps: tuple[str, ...] = ()
    values, spacing, stored = _placed(values, affine, reading, where)
    if windows:
        channels = [through_window(values, *window) for window in windows]
        shares = channels[0] if len(channels) == 1 else np.stack(channels, -1)
        pixels, steps = to_sixteen_bits(shares, 0, 1), ("window",)
    else:
        scaling = "percentile" if reading.scaling == "auto" else reading.scaling
        pixels = to_sixteen_bits(values, float(values.min()), float(values.max()), scaling)
    if mode == "array":
        spacing, stored = (), ()
    return pixels, _facts(pixels, mode=mode, modality=modality, steps=steps, spacing_mm=spacing, stored_mm=stored)


def _placed(
    values: np.ndarray, affine: np.ndarray, reading: Reading, where: Path
) -> tuple[np.ndarray, tuple[float, ...], tuple[float, ...]]:
    """(X, Y, Z, …) in any orientation to (D, H, W, …) of the usual one and the wished spacing; that, and the stored."""
    values, affine = to_ras(values, affine)
    stored = _spacing(affine)
    if reading.spacing_mm:
        values, affine = resampled(values, affine, reading.spacing_mm, where)
    order = (2, 1, 0, *range(3, values.ndim))
    return np.ascontiguousarray(values.transpose(order)), _spacing(affine), stored


def _spacing(affine: np.ndarray) -> tuple[float, ...]:
    """Millimetres between slices, rows and columns of (X, Y, Z)."""
    return tuple(round(float(step), 6) for step in np.linalg.norm(affine[:3, :3], axis=0)[::-1])


def _facts(
    pixels: np.ndarray,
    *,
    mode: str,
    modality: str = "",
    steps: tuple[str, ...] = (),
    spacing_mm: tuple[float, ...] = (),
    stored_mm: tuple[float, ...] = (),
) -> ImageFacts:
    depth, height, width = pixels.shape[:3]
    return ImageFacts(
        depth=depth,
        height=height,
        width=width,
        channels=1 if pixels.ndim == 3 else 3,
        bits=8 * pixels.itemsize,
        mode=mode,
        modality=modality,
        steps=steps,
        spacing_mm=spacing_mm,
        stored_mm=stored_mm,
    )


def _array(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npz":
        arrays = list(read_archive(path).values())
        if len(arrays) != 1:
            raise DataError(f"{path}: expected one array (D, H, W), got {len(arrays)}. Save each volume by itself.")
        array = arrays[0]
    else:
        array = read_array(path)
    if array.ndim != 3 or min(array.shape) < 2 or array.dtype.kind not in "uifb" or array.size > MAX_VOXELS:
        raise DataError(
            f"{path}: expected numbers of shape (D, H, W), at most {MAX_VOXELS:,}, got {array.dtype} {array.shape}."
        )
    return array


def _array_volume(path: Path, reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    array = _array(path)
    if reading.spacing_mm:
        raise DataError(f"{path}: an array knows no millimetres, expected volumes that do (DICOM, NIfTI). No spacing.")
    if array.dtype == np.uint8 and _windows(reading) is not None:
        raise DataError(f"{path}: windows are for Hounsfield units, got bytes. Leave the windows out.")
    if array.dtype in (np.uint8, np.uint16) and _windows(reading) is None:
        pixels = np.ascontiguousarray(array)
        return pixels, _facts(pixels, mode="array")
    with _one_at_a_time(array.size, reading):
        values = np.asarray(array, dtype=np.float32)
        if not np.isfinite(values).all():
            raise DataError(f"{path}: holds voxels that are no number. Replace them.")
        return _real(values.transpose(2, 1, 0), np.eye(4), reading, mode="array", modality="", where=path)


def _slices(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror or error}). Check its rights.") from error
    if len(found) < 2:
        raise DataError(
            f"{folder}: expected the slices of one volume, pictures side by side or one DICOM series, "
            f"got {len(found)} pictures. Name the file or folder of one volume."
        )
    return sorted(found, key=natural)


def _picture_volume(folder: Path, reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    if _windows(reading) is not None or reading.spacing_mm:
        raise DataError(f"{folder}: pictures know neither Hounsfield units nor millimetres. No windows, no spacing.")
    total = 0
    slices: list[np.ndarray] = []
    for path in _slices(folder):
        pixels, facts = read_image(path)
        total += facts.height * facts.width
        if facts.channels == 3:
            raise DataError(f"{path}: a coloured slice, expected grey ones. Volumes of colours are not read.")
        if slices and pixels.dtype != slices[0].dtype:
            raise DataError(f"{path}: a slice of {facts.bits} bits among others of another depth. Store all alike.")
        if total > MAX_VOXELS or (slices and pixels.shape != slices[0].shape):
            sizes = f"{facts.width}×{facts.height}"
            raise DataError(f"{path}: a slice of {sizes} px, expected all of one size and at most {MAX_VOXELS:,} px.")
        slices.append(pixels)
    volume = np.stack(slices)
    return volume, _facts(volume, mode="slices")


def _dicom_volume(files: Sequence[Path], reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    headers = {path: read_header(path) for path in files}
    num_values = sum(header.num_values for header in headers.values())
    if num_values > MAX_VALUES:
        raise DataError(f"{files[0].parent}: {len(files)} files of more than {MAX_VALUES:,} values together.")
    num_series = len({header.series_uid for header in headers.values() if header.series_uid})
    if num_series > 1:
        raise DataError(f"{files[0].parent}: expected the slices of one series, got {num_series} series. Name one.")
    stacks = stacks_of(headers)
    if len(stacks) > 1:
        names = ", ".join(stack.name for stack in stacks)
        raise DataError(f"{files[0]}: holds {len(stacks)} volumes ({names}), expected one. Export one of them.")
    (stack,) = stacks
    header = headers[stack.slices[0][0]]
    windows = asked_windows(reading.windows, header, files[0])
    with _one_at_a_time(num_values, reading):
        volume = _stacked(stack, headers, reading.rescale, windows)
        # (D, H, W, …) in the order of the stack to (X, Y, Z, …) as its affine counts.
        order = (2, 1, 0, *range(3, volume.values.ndim))
        values, spacing, stored = _placed(volume.values.transpose(order), stack.affine, reading, files[0])
        pixels = to_integers(header, dataclasses.replace(volume, values=values), reading.scaling)
    facts = _facts(
        pixels, mode="DICOM", modality=header.modality, steps=volume.steps, spacing_mm=spacing, stored_mm=stored
    )
    return pixels, facts


def _stacked(stack: Stack, headers: dict[Path, DicomFile], rescale: Rescale, windows: Windows | None) -> FrameValues:
    """The slices of a stack in its order, all read alike: one window and one decision on rescaling for all."""
    frames = [headers[path].frames[number] for path, number in stack.slices]
    if len({(frame.slope, frame.intercept) for frame in frames}) > 1:
        rescale = "always"
    where = stack.slices[0][0].parent
    if windows is None and len(headers) > 1 and any(header.has_voi_lut for header in headers.values()):
        raise DataError(f"{where}: every slice has a lookup table of its own (VOI). Read them with data.windows=none.")
    if windows is None and len({(frame.window, frame.window_function) for frame in frames}) > 1:
        middle = frames[len(frames) // 2]
        if {frame.window_function for frame in frames} != {"LINEAR"}:
            raise DataError(f"{where}: windows that differ and are not linear. Read them with data.windows=none.")
        windows = (middle.window,) if middle.window is not None else None
    decoded: dict[Path, list[FrameValues]] = {}
    for path in dict.fromkeys(path for path, _ in stack.slices):
        decoded[path] = read_dicom(path, rescale=rescale, windows=windows)[1]
    slices = [decoded[path][number] for path, number in stack.slices]
    if len({found.steps for found in slices}) > 1 or any(found.values.shape[2:] for found in slices if not windows):
        kinds = sorted({", ".join(found.steps) or "nothing" for found in slices})
        raise DataError(
            f"{where}: slices stored unlike each other (steps: {'; '.join(kinds)}) or coloured. "
            "Read them with --set data.windows=none."
        )
    return FrameValues(
        values=np.stack([found.values for found in slices]),
        low=min(found.low for found in slices),
        high=max(found.high for found in slices),
        steps=slices[0].steps,
    )
