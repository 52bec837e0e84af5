"""Pictures as a file format: PNG, JPEG, TIFF, BMP, GIF and PPM; a folder of them is a volume, a slice each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from medgraft.errors import DataError
from medgraft.io.array_files import ARRAY_MASKS
from medgraft.io.file_format import FileFormat, MaskWriter, Pixels, Place
from medgraft.io.image import IMAGE_SUFFIXES, read_facts, read_image
from medgraft.io.natural import natural
from medgraft.io.nifti import MAX_VOXELS
from medgraft.io.volume_values import facts_of, only_file, windows_of
from medgraft.types import ImageFacts, MaskReading, Reading

__all__ = ["PICTURE", "PICTURE_MASKS"]

_LOSSY: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})


def _image(path: Path, _reading: Reading) -> Pixels:
    return read_image(path)


def _slices(folder: Path) -> list[Path]:
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror or error}). Check its rights.") from error
    if len(files) < 2:
        raise DataError(
            f"{folder}: expected the slices of one volume, pictures side by side or one DICOM series, "
            f"got {len(files)} pictures. Name the file or folder of one volume."
        )
    return sorted(files, key=natural)


def _volume(files: Sequence[Path], reading: Reading) -> Pixels:
    folder = only_file(files)
    if windows_of(reading) is not None or reading.spacing_mm:
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
    return volume, facts_of(volume, mode="slices")


def _volume_facts(files: Sequence[Path], _is_spaced: bool) -> ImageFacts:
    slices = _slices(files[0])
    return dataclasses.replace(read_facts(slices[0]), depth=len(slices), channels=1)


def _mask(path: Path, _images: Sequence[Path], reading: MaskReading) -> np.ndarray:
    """Labels of a mask that is stored as a picture; with a palette, the numbers of its entries.

    Args:
        path: A PNG, TIFF or BMP file.
        _images: Not used; files of its image.
        reading: Whether its colours decide.
    """
    if path.suffix.lower() in _LOSSY:
        raise DataError(f"{path}: a JPEG changes the numbers of a mask. Export it as PNG.")
    pixels, _ = read_image(path, keeps_numbers=not reading.is_by_colour)
    if pixels.ndim == 3:
        raise DataError(f"{path}: a coloured mask, expected one number per pixel. Export it grey, or with a palette.")
    return pixels


def _write(
    numbers: np.ndarray,
    _mask: np.ndarray,
    _files: Sequence[Path],
    _geometry: Place,
    path: Path,
    _classes: Sequence[str],
    _version: str,
) -> None:
    """Write the numbers of a mask as a picture.

    Args:
        numbers: (H, W) as they stand in the file.
        _mask: Not used; the same as class numbers.
        _files: Not used; files of the image.
        _geometry: Not used, because a picture keeps no geometry.
        path: The file to write.
        _classes: Not used; names of the classes.
        _version: Not used; version of the program.
    """
    Image.fromarray(numbers).save(path)


PICTURE_MASKS = MaskWriter(name="png", suffix=".png", write=_write)
PICTURE = FileFormat(
    name="PNG, JPEG, TIFF, BMP, GIF, PPM",
    suffixes=IMAGE_SUFFIXES,
    image=_image,
    image_facts=read_facts,
    volume=_volume,
    volume_facts=_volume_facts,
    mask=_mask,
    mask_suffixes=IMAGE_SUFFIXES,
    writes={2: (PICTURE_MASKS, ARRAY_MASKS), 3: (ARRAY_MASKS,)},
)
