"""NIfTI as a file format: volumes with their place in the patient, and masks of these."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgraft.errors import DataError
from medgraft.io.dicom_open import is_dicom
from medgraft.io.file_format import FileFormat, MaskWriter, Pixels, Place
from medgraft.io.mask_values import whole_numbers
from medgraft.io.nifti import (
    NIFTI_SUFFIXES,
    from_ras,
    is_nifti_name,
    nifti_affine,
    nifti_facts,
    nifti_shape,
    read_nifti,
    to_ras,
    write_like,
    write_nifti,
)
from medgraft.io.volume_values import one_at_a_time, only_file, real_volume
from medgraft.types import ImageFacts, MaskReading, Reading

__all__ = ["NIFTI", "NIFTI_MASKS"]


def _volume(files: Sequence[Path], reading: Reading) -> Pixels:
    path = only_file(files)
    with one_at_a_time(math.prod(nifti_shape(path)), reading):
        values, affine = read_nifti(path, is_magnitude=reading.complex == "magnitude")
        return real_volume(values, affine, reading, mode="NIfTI", where=path)


def _volume_facts(files: Sequence[Path], _is_spaced: bool) -> ImageFacts:
    (depth, height, width), steps = nifti_facts(only_file(files))
    return ImageFacts(
        depth=depth, height=height, width=width, channels=1, bits=16, mode="NIfTI", spacing_mm=steps, stored_mm=steps
    )


def _mask(path: Path, images: Sequence[Path], _reading: MaskReading) -> np.ndarray:
    """Labels of a NIfTI mask, turned as volumes are read.

    Args:
        path: The NIfTI file of the mask.
        images: Files of its image, which has to say how it is turned (NIfTI, DICOM).
        _reading: Not used, because NIfTI has neither segments nor colours.
    """
    if images and not (is_nifti_name(images[0].name) or is_dicom(images[0])):
        raise DataError(
            f"{path}: says how it is turned, which its image ({images[0].suffix or images[0].name}) does not. "
            "Export both as NIfTI, or both as arrays."
        )
    values, _ = to_ras(*read_nifti(path, outside=0))
    return whole_numbers(np.ascontiguousarray(values.transpose(2, 1, 0)), path)


def _write(
    numbers: np.ndarray,
    _mask: np.ndarray,
    files: Sequence[Path],
    geometry: Place,
    path: Path,
    _classes: Sequence[str],
    _version: str,
) -> None:
    """Write the numbers of a mask as NIfTI, on the voxels of its image.

    Args:
        numbers: (D, H, W) as they stand in the file, turned as the image is read.
        _mask: Not used; the same as class numbers.
        files: Files of the image; the header of a NIfTI file is taken over.
        geometry: Affine of the image; one without is refused.
        path: The file to write.
        _classes: Not used; names of the classes.
        _version: Not used; version of the program.
    """
    if geometry.affine is None:
        raise DataError(f"{files[0]}: has no place in the patient, which NIfTI needs. Leave --format out.")
    values = from_ras(numbers.transpose(2, 1, 0), geometry.affine)
    if is_nifti_name(files[0].name):
        write_like(values, files[0], path)
    else:
        write_nifti(values, geometry.affine, path)


NIFTI_MASKS = MaskWriter(name="nifti", suffix=".nii.gz", write=_write)
NIFTI = FileFormat(
    name="NIfTI",
    suffixes=frozenset(NIFTI_SUFFIXES),
    is_whole=True,
    is_placed=True,
    volume=_volume,
    volume_facts=_volume_facts,
    mask=_mask,
    mask_suffixes=frozenset(NIFTI_SUFFIXES),
    place=lambda files, _dims: Place(affine=nifti_affine(files[0])),
    writes={3: (NIFTI_MASKS,)},
)
