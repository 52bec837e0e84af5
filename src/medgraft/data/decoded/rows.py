"""One image to everything the cache keeps of it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.data.decoded.fingerprint import pixel_digest, thumbnail
from medgraft.errors import DataError
from medgraft.io.case import read_case, read_case_facts
from medgraft.io.image import grey_if_equal
from medgraft.io.preprocess import prepare
from medgraft.io.volume import read_volume, read_volume_facts
from medgraft.types import USUAL_READING, Cohort, ImageFacts, Preprocessing, Reading

__all__ = ["FACTS", "QUANTILES", "STEPS", "Decoded", "decode_row", "header_row", "read_files", "read_row"]

FACTS: Final = np.dtype(
    [
        ("depth", "<u4"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("channels", "u1"),
        ("bits", "u1"),
        ("low", "<u2"),
        ("high", "<u2"),
        ("sha256", "V32"),
        ("mode", "S8"),
        ("modality", "S4"),
        ("steps", "<u2"),
        ("spacing_mm", "<f4", (3,)),
        ("is_at_detector", "?"),
        ("device", "S40"),
        ("stored_bits", "u1"),
        ("decoder", "S12"),
        ("quantiles", "<u2", (3,)),
    ]
)
"""One record per image: size in px (depth 0, except of volumes), channels (1 or 3), bits (8 or 16), smallest and
largest pixel, hashes, DICOM's modality, one bit for each of `STEPS`, the distance of slices, rows and columns in
the file (0 where it is unknown, of slices in images, too), device, bits that its numbers may use, the codec that read
it after another one failed, and the `QUANTILES` of its pixels."""
STEPS: Final = ("modality LUT", "rescaled", "VOI LUT", "window", "inverted", "palette", "no window", "padding")
QUANTILES: Final = (0.01, 0.5, 0.99)
_SOME: Final = 2**16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """What one decoding of an image leaves.

    Args:
        image: (C, *sides) uint8 or uint16, the network's input.
        facts: One `FACTS` record.
        thumb: (64, 64) uint8.
    """

    image: np.ndarray
    facts: np.ndarray
    thumb: np.ndarray


def read_row(cohort: Cohort, row: int, reading: Reading = USUAL_READING) -> tuple[np.ndarray, ImageFacts]:
    """Native pixels and facts of one row, from its file or its array.

    Args:
        cohort: A cohort of any layout.
        row: Row number.
        reading: How stored numbers of medical files become intensities.

    Raises:
        DataError: The file cannot be read.
    """
    if cohort.arrays is None:
        return read_files(cohort.files_of(row), cohort.dims, cohort.reading_of(row, reading))
    pixels = np.ascontiguousarray(_array(cohort, row))
    pixels = grey_if_equal(pixels) if cohort.dims == 2 else pixels
    return pixels, _array_facts(pixels, cohort.dims)


def read_files(files: Sequence[Path], dims: int, reading: Reading) -> tuple[np.ndarray, ImageFacts]:
    """Native pixels and facts of one image (`medgraft.io.read_case`) or volume (`medgraft.io.read_volume`).

    Args:
        files: Files of one case.
        dims: 2 or 3.
        reading: How stored numbers of medical files become intensities.

    Raises:
        DataError: It cannot be read.
    """
    return read_case(files[0], reading) if dims == 2 else read_volume(files, reading)


def header_row(cohort: Cohort, row: int, *, is_spaced: bool = False) -> ImageFacts | None:
    """What one row declares without decoding, or None where the header is broken.

    Args:
        cohort: A cohort of any layout.
        row: Row number.
        is_spaced: Whether the distance of slices is wanted.
    """
    if cohort.arrays is not None:
        return _array_facts(_array(cohort, row), cohort.dims)
    files = cohort.files_of(row)
    try:
        return read_case_facts(files[0]) if cohort.dims == 2 else read_volume_facts(files, is_spaced=is_spaced)
    except DataError:
        return None  # decode_row meets the same file and tells its reason


def _array(cohort: Cohort, row: int) -> np.ndarray:
    split, index = str(cohort.table["path"].iat[row]).rsplit("/", 1)
    return np.asarray((cohort.arrays or {})[split][int(index)])


def _array_facts(pixels: np.ndarray, dims: int) -> ImageFacts:
    height, width = pixels.shape[dims - 2 : dims]
    return ImageFacts(
        height=height,
        width=width,
        depth=pixels.shape[0] if dims == 3 else 0,
        channels=1 if pixels.ndim == dims else 3,
        bits=8 * pixels.itemsize,
        mode="array",
    )


def decode_row(cohort: Cohort, row: int, preprocessing: Preprocessing, bits: int) -> Decoded | str:
    """Everything kept of one image, or the reason why it cannot be read.

    Args:
        cohort: A cohort of any layout.
        row: Row number.
        preprocessing: Reading, sides, channels and way of resizing.
        bits: Bits of the cache, 8 or 16; an 8-bit image keeps its values in a 16-bit cache.
    """
    try:
        pixels, facts = read_row(cohort, row, preprocessing.reading)
    except DataError as error:
        return _unnamed(str(error), cohort, row)
    except MemoryError:
        return f"{cohort.table['path'].iat[row]}: not enough memory."
    if facts.bits > bits:
        return f"{cohort.table['path'].iat[row]}: holds {facts.bits} bits, its header said {bits}. Store all alike."
    thumb = thumbnail(pixels, cohort.dims)
    record = np.zeros((), dtype=FACTS)
    record["depth"], record["height"], record["width"] = facts.depth, facts.height, facts.width
    record["channels"], record["bits"], record["mode"] = facts.channels, facts.bits, facts.mode.encode()
    record["modality"] = facts.modality.encode()
    record["steps"] = sum(1 << bit for bit, step in enumerate(STEPS) if step in facts.steps)
    if facts.stored_mm:
        record["spacing_mm"][-len(facts.stored_mm) :] = facts.stored_mm
    record["is_at_detector"] = facts.is_at_detector
    record["device"], record["decoder"] = facts.device.encode()[:40], facts.decoder.encode()
    record["stored_bits"] = facts.stored_bits or facts.bits
    record["quantiles"] = np.quantile(pixels.reshape(-1)[:: max(1, pixels.size // _SOME)], QUANTILES)
    record["low"], record["high"] = pixels.min(), pixels.max()
    record["sha256"] = np.void(pixel_digest(pixels))
    image = prepare(pixels, preprocessing, facts.spacing_mm)
    return Decoded(image=image.astype(np.uint8 if bits == 8 else np.uint16), facts=record, thumb=thumb)


def _unnamed(reason: str, cohort: Cohort, row: int) -> str:
    """The reason without the paths that the cohort calls by a pseudonym.

    Args:
        reason: Message of an error about the row.
        cohort: A cohort of any layout.
        row: Row number.
    """
    name = str(cohort.table["path"].iat[row])
    if name in cohort.files:
        files = cohort.files_of(row)
        # Names of folders and files are as full of people as whole paths.
        for file in files:
            reason = reason.replace(str(file), name)
        for folder in sorted({file.parent for file in files}, key=lambda path: -len(str(path))):
            reason = reason.replace(str(folder), name)
        for number, file in sorted(enumerate(files, 1), key=lambda pair: -len(pair[1].name)):
            reason = reason.replace(file.name, f"file {number}")
    return reason
