"""One image from its file to integers and facts: the one way in for training and for prediction."""

from pathlib import Path

import numpy as np

from medgraft.errors import DataError
from medgraft.io.formats import format_of, named_format
from medgraft.io.image import read_facts, read_image
from medgraft.types import ImageFacts, Reading

__all__ = ["is_case", "read_case", "read_case_facts"]


def is_case(path: Path) -> bool:
    """Whether a file is an image by its ending; DICOM exports often have none, so these are opened.

    Args:
        path: An existing file.
    """
    if (named := named_format(path.name)) is not None:
        return named.image is not None
    suffix = path.suffix
    # UIDs as names end in a dot and a number.
    if (suffix and not suffix[1:].isdigit()) or not path.is_file():
        return False
    try:
        return format_of(path) is not None
    except DataError:
        return False  # not to be opened; counted among what was skipped


def read_case(path: Path, reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    """Integers of one image, and what decoding found and did.

    Pictures keep their stored integers (`medgraft.io.image.read_image`); DICOM becomes 16 bits on the scale that
    `reading` says.

    Args:
        path: A picture or a DICOM file of one frame.
        reading: How stored numbers become intensities.

    Returns:
        (H, W) or (H, W, 3), uint8 or uint16.

    Raises:
        DataError: The file cannot be read, holds several frames, or is no CT while a window for CT was asked for.
    """
    file_format = format_of(path)
    # What is none of ours is read as a picture, which says what it is instead.
    return read_image(path) if file_format is None or file_format.image is None else file_format.image(path, reading)


def read_case_facts(path: Path) -> ImageFacts:
    """What the header alone declares; no pixel is decoded.

    Args:
        path: As in `read_case`.

    Raises:
        DataError: As in `read_case`, as far as the header shows it.
    """
    file_format = format_of(path)
    return read_facts(path) if file_format is None or file_format.image_facts is None else file_format.image_facts(path)
