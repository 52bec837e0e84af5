"""Arrays as a file format: ``.npy``, and ``.npz`` of one volume; they do not tell how they are turned."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgraft.errors import DataError
from medgraft.io.archive import read_archive
from medgraft.io.array import read_array
from medgraft.io.dicom_open import is_dicom
from medgraft.io.file_format import FileFormat, MaskWriter, Pixels, Place
from medgraft.io.mask_values import whole_numbers
from medgraft.io.nifti import MAX_VOXELS, is_nifti_name
from medgraft.io.volume_values import facts_of, one_at_a_time, only_file, real_volume, windows_of
from medgraft.types import USUAL_READING, ImageFacts, MaskReading, Reading

__all__ = ["ARRAY", "ARRAY_MASKS"]


def _array(path: Path, reading: Reading = USUAL_READING) -> np.ndarray:
    if path.suffix.lower() == ".npz":
        arrays = list(read_archive(path).values())
        if len(arrays) != 1:
            raise DataError(f"{path}: expected one array (D, H, W), got {len(arrays)}. Save each volume by itself.")
        array = arrays[0]
    else:
        array = read_array(path)
    if array.dtype.kind == "c":
        if reading.complex != "magnitude":
            raise DataError(f"{path}: holds complex numbers. Read their magnitude with --set data.complex=magnitude.")
        array = np.abs(array)
    if array.ndim != 3 or min(array.shape) < 2 or array.dtype.kind not in "uifb" or array.size > MAX_VOXELS:
        raise DataError(
            f"{path}: expected numbers of shape (D, H, W), at most {MAX_VOXELS:,}, got {array.dtype} {array.shape}."
        )
    return array


def _volume(files: Sequence[Path], reading: Reading) -> Pixels:
    path = only_file(files)
    array = _array(path, reading)
    if reading.spacing_mm:
        raise DataError(f"{path}: an array knows no millimetres, expected volumes that do (DICOM, NIfTI). No spacing.")
    if array.dtype == np.uint8 and windows_of(reading) is not None:
        raise DataError(f"{path}: windows are for Hounsfield units, got bytes. Leave the windows out.")
    if array.dtype in (np.uint8, np.uint16) and windows_of(reading) is None:
        pixels = np.ascontiguousarray(array)
        return pixels, facts_of(pixels, mode="array")
    with one_at_a_time(array.size, reading):
        with np.errstate(over="ignore"):
            values = np.asarray(array, dtype=np.float32)
        if np.isfinite(array).all() and not np.isfinite(values).all():
            raise DataError(f"{path}: holds numbers beyond float32. Rescale it.")
        if not np.isfinite(values).all():
            raise DataError(f"{path}: holds voxels that are no number. Replace them.")
        turned = values.transpose(2, 1, 0)
        return real_volume(turned, np.eye(4), reading, mode="array", where=path, is_placed=False)


def _volume_facts(files: Sequence[Path], _is_spaced: bool) -> ImageFacts:
    array = _array(only_file(files), Reading(complex="magnitude"))
    (depth, height, width), bits = array.shape, 8 if array.dtype == np.uint8 else 16
    return ImageFacts(depth=depth, height=height, width=width, channels=1, bits=bits, mode="array")


def _mask(path: Path, images: Sequence[Path], _reading: MaskReading) -> np.ndarray:
    """Labels of a mask that is stored as an array.

    Args:
        path: A ``.npy`` file, (H, W) or (D, H, W).
        images: Files of its image; a volume is refused where its image says how it is turned (DICOM, NIfTI).
        _reading: Not used, because arrays have neither segments nor colours.
    """
    values = read_array(path)
    if values.ndim == 3 and any(is_nifti_name(image.name) or is_dicom(image) for image in images[:1]):
        raise DataError(f"{path}: an array does not tell how it is turned, which its image does. Export it as NIfTI.")
    return whole_numbers(values, path)


def _write(
    numbers: np.ndarray,
    _mask: np.ndarray,
    _files: Sequence[Path],
    _geometry: Place,
    path: Path,
    _classes: Sequence[str],
    _version: str,
) -> None:
    """Write the numbers of a mask as an array.

    Args:
        numbers: (H, W) or (D, H, W) as they stand in the file.
        _mask: Not used; the same as class numbers.
        _files: Not used; files of the image.
        _geometry: Not used, because an array keeps no geometry.
        path: The file to write.
        _classes: Not used; names of the classes.
        _version: Not used; version of the program.
    """
    with path.open("wb") as stream:
        np.save(stream, numbers)


ARRAY_MASKS = MaskWriter(name="npy", suffix=".npy", write=_write)
ARRAY = FileFormat(
    name="npy",
    suffixes=frozenset({".npy", ".npz"}),
    is_whole=True,
    volume=_volume,
    volume_facts=_volume_facts,
    mask=_mask,
    mask_suffixes=frozenset({".npy"}),
    writes={3: (ARRAY_MASKS,)},
)
