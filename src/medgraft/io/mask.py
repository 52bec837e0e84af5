"""One mask from its file to the numbers that stand in it; nothing is scaled, smoothed or guessed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from medgraft.errors import DataError
from medgraft.io.dicom_open import is_dicom
from medgraft.io.dicom_seg import is_seg
from medgraft.io.formats import FORMATS, begun_format
from medgraft.types import USUAL_MASKS, MaskReading

__all__ = ["NO_NAMES", "is_mask_name", "is_seg_file", "read_mask"]

NO_NAMES: Final[Mapping[str, int]] = MappingProxyType({})
"""Number by name where no number is named."""


def is_mask_name(name: str) -> bool:
    """Whether a file is called as those that hold masks are; a JPEG is, too, and refused when it is read."""
    return any(file_format.is_named(name, file_format.mask_suffixes) for file_format in FORMATS.values())


def read_mask(path: Path, images: Sequence[Path] = (), reading: MaskReading = USUAL_MASKS) -> np.ndarray:
    """The numbers of a mask: (H, W) of a picture, or (D, H, W) of a volume, turned as images are.

    A picture with a palette gives the numbers of its entries; 1-bit pictures hold 0 and 255. Voxels of NIfTI
    that are no number are background.

    Args:
        path: PNG, TIFF, BMP, NIfTI, ``.npy`` or DICOM (a segmentation object, or one grey frame of labels).
        images: Files of the image, which a segmentation object points at.
        reading: Whether labels of segments, or colours of a palette, decide instead of numbers.

    Returns:
        uint8 or uint16.

    Raises:
        DataError: It cannot be read, is coloured or lossy (JPEG), tells how it is turned where its image does not or
            the other way round, or holds other than whole numbers from 0.
    """
    named = next(
        (file_format for file_format in FORMATS.values() if file_format.is_named(path.name, file_format.mask_suffixes)),
        None,
    )
    # What is none of ours is read as a picture, which says what it is instead.
    file_format = named or begun_format(path) or FORMATS["picture"]
    if file_format.mask is None:
        raise DataError(f"{path}: {file_format.name} is not read as a mask. Export it as PNG or NIfTI.")
    return file_format.mask(path, images, reading)


def is_seg_file(path: Path) -> bool:
    """Whether a mask is a DICOM segmentation object.

    Args:
        path: An existing file.

    Raises:
        DataError: It is DICOM and cannot be read.
    """
    return not is_mask_name(path.name) and is_dicom(path) and is_seg(path)
