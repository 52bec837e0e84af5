"""One case from its file to integers and facts: the one way in for training and for prediction."""

import contextlib
import threading
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.errors import DataError
from medgraft.io.dicom import asked_windows, read_dicom, to_integers
from medgraft.io.dicom_header import DicomFile, is_dicom, read_header
from medgraft.io.image import IMAGE_SUFFIXES, MAX_PIXELS, grey_if_equal, read_facts, read_image
from medgraft.types import ImageFacts, Reading

__all__ = ["is_case", "read_case", "read_case_facts"]

DICOM_SUFFIXES: Final = frozenset({".dcm", ".dicom", ".ima"})
LARGE: Final = 2**23
_large = threading.BoundedSemaphore(2)
_FRAME: Final = "It is a volume or a film: use a network for volumes, or export the frame you mean."


def is_case(path: Path) -> bool:
    """Whether a file is an image by its ending; DICOM exports often have none, so these are opened.

    Args:
        path: An existing file.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix in DICOM_SUFFIXES:
        return True
    # UIDs as names end in a dot and a number.
    if (suffix and not suffix[1:].isdigit()) or not path.is_file():
        return False
    try:
        return is_dicom(path)
    except DataError:
        return False  # not to be opened; counted among what was skipped


def read_case(path: Path, reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    """Integers of one image, and what decoding found and did.

    Pictures keep their stored integers (`read_image`); DICOM becomes 16 bits on the scale that `reading` says.

    Args:
        path: PNG, JPEG, TIFF, BMP or a DICOM file of one frame.
        reading: How stored numbers become intensities.

    Returns:
        (H, W) or (H, W, 3), uint8 or uint16.

    Raises:
        DataError: The file cannot be read, holds several frames, or is no CT while a window for CT was asked for.
    """
    if not _is_dicom(path):
        return read_image(path)
    header = read_header(path)
    if len(header.frames) != 1:
        raise DataError(f"{path}: holds {len(header.frames)} frames, expected one. {_FRAME}")
    windows = asked_windows(reading.windows, header, path)
    if header.num_values > MAX_PIXELS:
        sizes = f"{header.columns}×{header.rows}"
        raise DataError(f"{path}: declares {sizes} pixels, over the limit of {MAX_PIXELS:,}.")
    # Real values take some thirty bytes a pixel on their way.
    with _large if header.num_values > LARGE else contextlib.nullcontext():
        header, frames = read_dicom(path, rescale=reading.rescale, windows=windows)
        pixels = grey_if_equal(to_integers(header, frames[0], reading.scaling))
    channels = 1 if pixels.ndim == 2 else 3
    return np.ascontiguousarray(pixels), _facts(header, channels, frames[0].steps)


def read_case_facts(path: Path) -> ImageFacts:
    """What the header alone declares; no pixel is decoded.

    Raises:
        DataError: As in `read_case`, as far as the header shows it.
    """
    if not _is_dicom(path):
        return read_facts(path)
    header = read_header(path)
    return _facts(header, 3 if header.samples == 3 or header.photometric == "PALETTE COLOR" else 1, ())


def _is_dicom(path: Path) -> bool:
    return path.is_file() and is_dicom(path)


def _facts(header: DicomFile, channels: int, steps: tuple[str, ...]) -> ImageFacts:
    return ImageFacts(
        height=header.rows,
        width=header.columns,
        channels=channels,
        bits=16,
        mode="DICOM",
        modality=header.modality,
        steps=steps,
        spacing_mm=header.frames[0].spacing_mm,
        stored_mm=header.frames[0].spacing_mm,
        is_at_detector=header.frames[0].spacing_of == "ImagerPixelSpacing",
    )
