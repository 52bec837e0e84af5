"""The adapter to MONAI's resampling: volumes to a common distance of voxels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgraft.errors import DataError
from medgraft.io.nifti import MAX_VOXELS

__all__ = ["resampled", "resampled_sides"]


def resampled_sides(sides: Sequence[int], stored_mm: Sequence[float], spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """How many voxels `resampled` makes along each axis: from the centre of the first to that of the last.

    Args:
        sides: Voxels before.
        stored_mm: Their distance.
        spacing_mm: The wished one.

    Examples:
        >>> resampled_sides((20, 64), (5.0, 0.7), (1.0, 1.0))
        (96, 45)
    """
    reach = (np.array(sides) - 1) * np.asarray(stored_mm, dtype=np.float64) / np.asarray(spacing_mm)
    return tuple(int(side) for side in np.round(reach + 1))


def resampled(
    values: np.ndarray, affine: np.ndarray, spacing_mm: Sequence[float], where: Path
) -> tuple[np.ndarray, np.ndarray]:
    """`values` and `affine` at another distance of voxels, linearly interpolated; nothing is cut off or turned.

    The first voxel stays where it is; there are `resampled_sides` of them.

    Args:
        values: (X, Y, Z) or (X, Y, Z, C) real values.
        affine: (4, 4) from voxel to millimetres.
        spacing_mm: Between slices, rows and columns: along Z, Y and X.
        where: For errors.

    Raises:
        DataError: The result would be absurdly large.
    """
    extent = np.array(values.shape[:3]) * np.linalg.norm(affine[:3, :3], axis=0)
    wished = np.maximum(np.ceil(extent / spacing_mm[::-1]), 1)
    if wished.prod() * (values.shape[3] if values.ndim == 4 else 1) > MAX_VOXELS:
        sizes = "×".join(f"{side:.0f}" for side in wished)
        raise DataError(f"{where}: would be {sizes} voxels, over the limit of {MAX_VOXELS:,}. Use a wider spacing.")
    # MONAI takes seconds to import, and most cohorts need none of it.
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    channels = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    image = MetaTensor(torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32)), affine=torch.tensor(affine))
    volume = Spacing(pixdim=tuple(spacing_mm[::-1]), mode="bilinear", padding_mode="border")(image)
    turned = np.moveaxis(np.asarray(volume.numpy()), 0, -1)
    return turned[..., 0] if values.ndim == 3 else turned, np.asarray(volume.affine, dtype=np.float64)
