"""Masks written as the files of their images are: their size, orientation, place in the patient and format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

import numpy as np

from medgraft.config import MaskFormat
from medgraft.errors import ConfigError
from medgraft.files import replacing
from medgraft.io.dicom_header import read_header
from medgraft.io.file_format import FileFormat, MaskWriter
from medgraft.io.formats import FORMATS, format_of
from medgraft.io.nifti import is_nifti_name, nifti_facts, ras_order

__all__ = ["MASK_WRITERS", "cell_mm", "mask_format", "mask_path", "native_sides", "write_mask"]

MASK_WRITERS: Final[dict[str, MaskWriter]] = {
    writer.name: writer
    for file_format in FORMATS.values()
    for writers in file_format.writes.values()
    for writer in writers
}
"""Writers by name, as ``--format`` takes it."""


def mask_format(files: Sequence[Path], dims: int, wanted: MaskFormat) -> str:
    """The format in which a mask of these files is written.

    ``auto``: DICOM-SEG of DICOM, NIfTI of NIfTI, PNG of other images, ``.npy`` of arrays and of folders of slices.

    Args:
        files: Files of a case.
        dims: 2 or 3.
        wanted: ``auto`` or a key of `MASK_WRITERS`.

    Raises:
        ConfigError: No such format, the files have no place for it, or a library is missing.
    """
    if wanted not in get_args(MaskFormat):
        raise ConfigError(f"expected --format among {', '.join(get_args(MaskFormat))}, got {wanted!r}.")
    # A model of images will not read NIfTI: that is told of the file, not of the call.
    writers = _format(files).writes.get(dims) or FORMATS["picture"].writes[dims]
    names = [writer.name for writer in writers]
    name = names[0] if wanted == "auto" else wanted
    if name not in names:
        raise ConfigError(f"{files[0]}: a mask of it cannot be written as {name}. Leave --format out.")
    MASK_WRITERS[name].demand()
    return name


def _format(files: Sequence[Path]) -> FileFormat:
    return format_of(files[0]) or FORMATS["picture"]


def native_sides(files: Sequence[Path], pixels: np.ndarray, dims: int, *, is_resampled: bool) -> tuple[int, ...]:
    """(H, W) or (D, H, W) of a case in its files, turned as it is read.

    Args:
        files: Files of the case.
        pixels: Its pixels or voxels as they were read.
        dims: 2 or 3.
        is_resampled: Whether volumes were brought to a common spacing.
    """
    if not is_resampled:
        return tuple(pixels.shape[:dims])
    if is_nifti_name(files[0].name):
        return nifti_facts(files[0])[0]
    stack = _format(files).place(files, dims).stack
    if stack is None:
        return tuple(pixels.shape[:dims])
    header = read_header(stack.slices[0][0])
    sides = (header.columns, header.rows, len(stack.slices))
    return tuple(sides[axis] for axis in ras_order(stack.affine)[::-1])


def cell_mm(files: Sequence[Path], spacing_mm: Sequence[float], dims: int) -> float | None:
    """Area of a pixel in mm² or volume of a voxel in mm³ of a case in its files; None where it is unknown.

    A voxel of a tilted gantry is smaller than the product of its sides.

    Args:
        files: Files of the case.
        spacing_mm: Distance of its pixels or voxels along each axis; empty where it is unknown.
        dims: 2 or 3.
    """
    if len(spacing_mm) != dims:
        return None
    affine = _format(files).place(files, dims).affine if dims == 3 else None
    return float(np.prod(spacing_mm) if affine is None else abs(np.linalg.det(affine[:3, :3])))


def mask_path(stem: Path, kind: str) -> Path:
    """Where `write_mask` writes."""
    return stem.with_name(stem.name + MASK_WRITERS[kind].suffix)


def write_mask(
    mask: np.ndarray,
    files: Sequence[Path],
    path: Path,
    *,
    kind: str,
    values: Sequence[int],
    classes: Sequence[str],
    version: str,
) -> Path:
    """Write a mask to `path`, which is returned; the file appears whole or not at all.

    Args:
        mask: (H, W) or (D, H, W) uint8 class numbers, as its image is read.
        files: Files of the image.
        path: From `mask_path`.
        kind: From `mask_format`.
        values: Numbers that stand for the classes in the file; DICOM-SEG counts them from 1.
        classes: Their names.
        version: Version of the program.

    Raises:
        ConfigError: A library is missing.
        DataError: The files cannot carry a mask.
        RunError: The place cannot be written.
    """
    numbers = np.array([0, *values], dtype=np.uint8 if max(values) < 256 else np.uint16)[mask]
    geometry = _format(files).place(files, mask.ndim)
    with replacing(path) as temporary:
        MASK_WRITERS[kind].write(numbers, mask, files, geometry, temporary, classes, version)
    return path
