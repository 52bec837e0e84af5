"""One volume from its files to integers and facts: the one way in for training and for prediction."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgraft.errors import DataError
from medgraft.io.file_format import FileFormat
from medgraft.io.formats import FORMATS, format_of, names_of_formats
from medgraft.types import ImageFacts, Reading

__all__ = ["is_volume_name", "read_volume", "read_volume_facts"]


def is_volume_name(name: str) -> bool:
    """Whether a file is called as those that hold a whole volume are."""
    return any(file_format.is_whole and file_format.is_named(name) for file_format in FORMATS.values())


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
    read = _format_of(files).volume
    if read is None:
        raise _no_volume(files)
    return read(files, reading)


def read_volume_facts(files: Sequence[Path], *, is_spaced: bool = False) -> ImageFacts:
    """What the headers alone declare, turned as `read_volume` turns; no voxel is decoded.

    Args:
        files: Files of one volume, as `read_volume` takes them.
        is_spaced: Whether the distance of slices is wanted, for which every header of a DICOM series is read.

    Raises:
        DataError: As in `read_volume`, as far as the headers show it.
    """
    read = _format_of(files).volume_facts
    if read is None:
        raise _no_volume(files)
    return read(files, is_spaced)


def _format_of(files: Sequence[Path]) -> FileFormat:
    file_format = format_of(files[0])
    # A picture alone is no volume; a folder of them is.
    if file_format is None or (file_format is FORMATS["picture"] and not files[0].is_dir()):
        raise _no_volume(files)
    return file_format


def _no_volume(files: Sequence[Path]) -> DataError:
    return DataError(f"{files[0]}: expected a volume: {names_of_formats(3)}.")
