"""Volumes that the tests write themselves, in every form that is read."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from dicom_files import save, slice_at


def blob(seed: int, *, is_large: bool, sides: tuple[int, int, int] = (10, 12, 14)) -> np.ndarray:
    """(D, H, W) uint16: a bright ball, large or small, in noise, at a random place."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(side) for side in sides), indexing="ij")
    centre = [rng.uniform(0.35, 0.65) * side for side in sides]
    distance = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True)))
    ball = 1 / (1 + np.exp(distance - (4.2 if is_large else 2.2)))
    return np.rint(400 + 500 * ball + rng.normal(0, 30, sides)).clip(0, 4095).astype(np.uint16)


def write_nifti(volume: np.ndarray, path: Path, affine: np.ndarray | None = None) -> Path:
    """(D, H, W) as a NIfTI file whose axes run right, anterior, superior unless `affine` says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = volume.transpose(2, 1, 0)
    voxels = voxels.astype(np.int16) if voxels.dtype == np.uint16 else voxels
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([0.7, 0.5, 2.0, 1.0]) if affine is None else affine), path)
    return path


def write_series(
    volume: np.ndarray, folder: Path, *, series: str, order: Any = None, step: float = 2.0, **options: Any
) -> list[Path]:
    """(D, H, W) as one DICOM file a slice, from the feet to the head; names in the order that `order` shuffles."""
    numbers = list(range(len(volume))) if order is None else list(order)
    return [
        save(slice_at(volume[number], number * step, series=series, **options), folder / f"{place:03d}.dcm")
        for place, number in enumerate(numbers)
    ]


def write_slices(volume: np.ndarray, folder: Path) -> Path:
    """(D, H, W) as PNG slices whose names sort wrongly as text."""
    folder.mkdir(parents=True)
    for number, image in enumerate(volume):
        Image.fromarray(image).save(folder / f"slice{number}.png")
    return folder
