"""The file formats that are read: one record each, and how a file is told to be of one."""

from pathlib import Path
from typing import Final

from medgraft.io.array_files import ARRAY
from medgraft.io.dicom_files import DICOM
from medgraft.io.file_format import FileFormat
from medgraft.io.nifti_files import NIFTI
from medgraft.io.picture_files import PICTURE

__all__ = ["FORMATS", "begun_format", "format_of", "named_format", "names_of_formats"]

FORMATS: Final[dict[str, FileFormat]] = {"nifti": NIFTI, "array": ARRAY, "dicom": DICOM, "picture": PICTURE}
"""Formats in the order in which people are told of them."""


def named_format(name: str) -> FileFormat | None:
    """The format of files that are called so; None where an ending says nothing."""
    return next((file_format for file_format in FORMATS.values() if file_format.is_named(name)), None)


def begun_format(path: Path) -> FileFormat | None:
    """The format that a file's beginning tells, whatever it is called (DICOM); None where a name has to.

    Args:
        path: A file.

    Raises:
        DataError: It cannot be opened.
    """
    tell = ((file_format, file_format.begins) for file_format in FORMATS.values())
    return next((file_format for file_format, begins in tell if begins is not None and begins(path)), None)


def format_of(path: Path) -> FileFormat | None:
    """The format of a file by its beginning where that tells, else by its name.

    A folder is one of pictures. DICOM is known by its beginning whatever it is called, and by nothing else.

    Args:
        path: A file or folder.

    Raises:
        DataError: It cannot be opened.
    """
    if path.is_dir():
        return FORMATS["picture"]
    named = named_format(path.name)
    return begun_format(path) or (named if named is not None and named.begins is None else None)


def names_of_formats(dims: int) -> str:
    """What images (2) or volumes (3) may come as, as people say it.

    Examples:
        >>> names_of_formats(2), names_of_formats(3)
        ('DICOM, PNG, JPEG, TIFF, BMP, GIF, PPM', 'NIfTI, npy, DICOM, or a folder of slices')
    """
    if dims == 2:
        return ", ".join(file_format.name for file_format in FORMATS.values() if file_format.image)
    # A picture alone is no volume.
    names = [file_format.name for file_format in FORMATS.values() if file_format.volume and file_format is not PICTURE]
    return ", ".join([*names, "or a folder of slices"])
