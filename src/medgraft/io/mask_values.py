"""Numbers of masks: whole ones from 0, nothing scaled, smoothed or guessed."""

from pathlib import Path
from typing import Final

import numpy as np

from medgraft.config import MAX_MASK_NUMBER
from medgraft.errors import DataError
from medgraft.io.nifti import MAX_VOXELS

__all__ = ["whole_numbers"]

_WHOLE: Final = 1e-3


def whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    """The values as uint8 or uint16 labels.

    Args:
        values: (H, W) or (D, H, W).
        path: File, for the error.

    Raises:
        DataError: They are no whole numbers from 0, or too many.
    """
    if values.ndim not in (2, 3) or values.dtype.kind not in "uifb" or not 0 < values.size <= MAX_VOXELS:
        raise DataError(f"{path}: expected numbers (H, W) or (D, H, W), got {values.dtype} {values.shape}.")
    rounded = np.rint(values.astype(np.float64))
    if not (np.abs(rounded - values) <= _WHOLE).all():
        raise DataError(f"{path}: expected whole numbers, a label per voxel. Was it resampled? Export it again.")
    if rounded.min() < 0 or rounded.max() > MAX_MASK_NUMBER:
        raise DataError(
            f"{path}: expected labels from 0 to {MAX_MASK_NUMBER}, got {rounded.min():g} to {rounded.max():g}."
        )
    return np.asarray(rounded, dtype=np.uint8 if rounded.max() < 256 else np.uint16)
