"""The file formats that are read: one record each, and how a file is told to be of one."""

from pathlib import Path
from typing import Final

from medgraft.io.array_files import ARRAY
from medgraft.io.dicom_files import DICOM
from medgraft.io.file_format import FileFormat
from medgraft.io.nifti_files import NIFTI
from medgraft.io.picture_files import PICTURE

__all__ = ["FORMATS", "format_of", "named_format", "names_of_formats"]

FORMATS: Final[dict[str, FileFormat]] = {"nifti": NIFTI, "array": ARRAY, "dicom": DICOM, "picture": PICTURE}
"""Formats in the order in which they are asked: endings that say everything first, then beginnings, then pictures."""


def named_format(name: str) -> FileFormat | None:
    """The format of files that are called so; None where an ending says nothing."""
    return next((file_format for file_format in FORMATS.values() if file_format.is_named(name)), None)


def format_of(path: Path) -> FileFormat | None:
    """The format of an existing file, by its ending where that tells a whole volume, else by its beginning.

    A folder is one of pictures. DICOM is known by its beginning whatever it is called, and everything else by its name.

    Args:
        path: A file or folder.

    Raises:
        DataError: It cannot be opened.
    """
    if path.is_dir():
        return FORMATS["picture"]
    for file_format in FORMATS.values():
        if file_format.is_named(path.name) if file_format.begins is None else file_format.begins(path):
            return file_format
    return None


def names_of_formats(dims: int) -> str:
    """What images (2) or volumes (3) may come as, as people say it.

    Examples:
        >>> names_of_formats(2), names_of_formats(3)
        ('DICOM, PNG, JPEG, TIFF, BMP', 'NIfTI, npy, DICOM, or a folder of slices')
    """
    if dims == 2:
        return ", ".join(file_format.name for file_format in FORMATS.values() if file_format.image)
    # A picture alone is no volume.
    names = [file_format.name for file_format in FORMATS.values() if file_format.volume and file_format is not PICTURE]
    return ", ".join([*names, "or a folder of slices"])
