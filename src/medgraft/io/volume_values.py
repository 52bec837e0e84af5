"""Real values of volumes on their way to integers: turned, resampled, windowed, with what is known of them."""

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.errors import DataError
from medgraft.io.dicom import Windows
from medgraft.io.intensity import ct_windows, ends_of, through_window, to_sixteen_bits
from medgraft.io.nifti import to_ras
from medgraft.io.resample import resampled
from medgraft.types import ImageFacts, Reading

__all__ = ["facts_of", "one_at_a_time", "only_file", "placed", "real_volume", "spacing_of", "windows_of"]

LARGE: Final = 2**24
_large = threading.BoundedSemaphore(1)


def one_at_a_time(num_voxels: int, reading: Reading) -> contextlib.AbstractContextManager[Any]:
    """A context in which large volumes wait for each other: real values take some twenty bytes a voxel on their way."""
    return _large if num_voxels > LARGE or reading.spacing_mm else contextlib.nullcontext()


def only_file(files: Sequence[Path]) -> Path:
    """The one file of a volume.

    Raises:
        DataError: There are several.
    """
    if len(files) != 1:
        raise DataError(f"{files[0].parent}: expected one file for a volume, got {len(files)} ({files[0].name} …).")
    return files[0]


def windows_of(reading: Reading) -> Windows | None:
    """Centres and widths of the named windows; None where none is named."""
    return None if reading.windows in ((), ("file",)) else ct_windows(reading.windows)


def real_volume(
    values: np.ndarray, affine: np.ndarray, reading: Reading, *, mode: str, where: Path, is_placed: bool = True
) -> tuple[np.ndarray, ImageFacts]:
    """Real values without a window of their own as integers (D, H, W[, C]), with what was done.

    Args:
        values: (X, Y, Z).
        affine: (4, 4) of these.
        reading: Windows, scaling, spacing.
        mode: What the facts call the format, e.g. ``NIfTI``.
        where: File, for the error.
        is_placed: Whether the affine means millimetres.

    Raises:
        DataError: It cannot be resampled.
    """
    windows = windows_of(reading)
    steps: tuple[str, ...] = ()
    values, spacing, stored = placed(values, affine, reading, where)
    if windows:
        channels = [through_window(values, *window) for window in windows]
        shares = channels[0] if len(channels) == 1 else np.stack(channels, -1)
        pixels, steps = to_sixteen_bits(shares, 0, 1), ("window",)
    else:
        scaling = "percentile" if reading.scaling == "auto" else reading.scaling
        pixels = to_sixteen_bits(values, *ends_of(values, float(values.min()), float(values.max()), scaling))
    if not is_placed:
        spacing, stored = (), ()
    return pixels, facts_of(pixels, mode=mode, steps=steps, spacing_mm=spacing, stored_mm=stored)


def placed(
    values: np.ndarray, affine: np.ndarray, reading: Reading, where: Path
) -> tuple[np.ndarray, tuple[float, ...], tuple[float, ...]]:
    """Voxels (X, Y, Z, …) turned to (D, H, W, …) and brought to the wished spacing; that spacing, and the stored one.

    Args:
        values: (X, Y, Z, …) in any orientation.
        affine: (4, 4) of these.
        reading: Spacing.
        where: File, for the error.

    Raises:
        DataError: It cannot be resampled.
    """
    values, affine = to_ras(values, affine)
    stored = spacing_of(affine)
    if reading.spacing_mm:
        values, affine = resampled(values, affine, reading.spacing_mm, where)
    order = (2, 1, 0, *range(3, values.ndim))
    return np.ascontiguousarray(values.transpose(order)), spacing_of(affine), stored


def spacing_of(affine: np.ndarray) -> tuple[float, ...]:
    """Millimetres between slices, rows and columns of (X, Y, Z)."""
    return tuple(round(float(step), 6) for step in np.linalg.norm(affine[:3, :3], axis=0)[::-1])


def facts_of(
    pixels: np.ndarray,
    *,
    mode: str,
    modality: str = "",
    steps: tuple[str, ...] = (),
    spacing_mm: tuple[float, ...] = (),
    stored_mm: tuple[float, ...] = (),
) -> ImageFacts:
    """What is known of a decoded volume (D, H, W[, C]).

    Args:
        pixels: uint8 or uint16.
        mode: Where it comes from.
        modality: Modality in the DICOM header, else empty.
        steps: What was done to the stored numbers.
        spacing_mm: Distance of slices, rows and columns; empty where it is unknown.
        stored_mm: Distance of slices, rows and columns in the file, before anything was resampled.
    """
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
