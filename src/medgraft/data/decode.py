"""One image to everything the cache keeps of it; files are read by a pool, in order, a few at a time."""

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import numpy as np

from medgraft.data.fingerprint import perceptual_hash, pixel_digest, thumbnail
from medgraft.errors import DataError
from medgraft.io.case import read_case, read_case_facts
from medgraft.io.image import grey_if_equal
from medgraft.io.preprocess import prepare
from medgraft.types import USUAL_READING, Cohort, ImageFacts, Preprocessing, Reading

__all__ = ["FACTS", "STEPS", "Decoded", "decode_row", "header_row", "in_order", "read_row"]

FACTS: Final = np.dtype(
    [
        ("height", "<u4"),
        ("width", "<u4"),
        ("channels", "u1"),
        ("bits", "u1"),
        ("low", "<u2"),
        ("high", "<u2"),
        ("hash", "<u8"),
        ("sha256", "V32"),
        ("mode", "S8"),
        ("modality", "S4"),
        ("steps", "u1"),
    ]
)
"""One record per image: size in px, channels (1 or 3), bits (8 or 16), smallest and largest pixel, hashes, DICOM's
modality, and one bit for each of `STEPS`."""
STEPS: Final = ("modality LUT", "rescaled", "VOI LUT", "window", "inverted", "palette")

In = TypeVar("In")
Out = TypeVar("Out")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """What one decoding of an image leaves.

    Args:
        image: (C, S, S) uint8 or uint16, the network's input.
        facts: One `FACTS` record.
        thumb: (64, 64) uint8.
    """

    image: np.ndarray
    facts: np.ndarray
    thumb: np.ndarray


def read_row(cohort: Cohort, row: int, reading: Reading = USUAL_READING) -> tuple[np.ndarray, ImageFacts]:
    """Native pixels and facts of one row, from its file or its array.

    Args:
        cohort: Of any layout.
        row: Row number.
        reading: How stored numbers of medical files become intensities.

    Raises:
        DataError: The file cannot be read.
    """
    name = str(cohort.table["path"].iat[row])
    if cohort.arrays is None:
        return read_case(cohort.files_of(row)[0], reading)
    split, index = name.rsplit("/", 1)
    pixels = grey_if_equal(np.ascontiguousarray(cohort.arrays[split][int(index)]))
    return pixels, _array_facts(pixels)


def header_row(cohort: Cohort, row: int) -> ImageFacts | None:
    """What one row declares without decoding, or None where the header is broken.

    Args:
        cohort: Of any layout.
        row: Row number.
    """
    name = str(cohort.table["path"].iat[row])
    if cohort.arrays is not None:
        split, index = name.rsplit("/", 1)
        return _array_facts(cohort.arrays[split][int(index)])
    try:
        return read_case_facts(cohort.files_of(row)[0])
    except DataError:
        return None  # decode_row meets the same file and tells its reason


def _array_facts(pixels: np.ndarray) -> ImageFacts:
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    return ImageFacts(height=height, width=width, channels=channels, bits=8 * pixels.itemsize, mode="array")


def decode_row(cohort: Cohort, row: int, preprocessing: Preprocessing, bits: int) -> Decoded | str:
    """Everything kept of one image, or the reason why it cannot be read.

    Args:
        cohort: Of any layout.
        row: Row number.
        preprocessing: Reading, size, channels and way of resizing.
        bits: Of the cache, 8 or 16; an 8-bit image keeps its values in a 16-bit cache.
    """
    try:
        pixels, facts = read_row(cohort, row, preprocessing.reading)
    except DataError as error:
        return _unnamed(str(error), cohort, row)
    except MemoryError:
        return f"{cohort.table['path'].iat[row]}: not enough memory."
    thumb = thumbnail(pixels)
    record = np.zeros((), dtype=FACTS)
    record["height"], record["width"] = facts.height, facts.width
    record["channels"], record["bits"], record["mode"] = facts.channels, facts.bits, facts.mode.encode()
    record["modality"] = facts.modality.encode()
    record["steps"] = sum(1 << bit for bit, step in enumerate(STEPS) if step in facts.steps)
    record["low"], record["high"] = pixels.min(), pixels.max()
    record["hash"] = perceptual_hash(thumb)
    record["sha256"] = np.void(pixel_digest(pixels))
    image = prepare(pixels, preprocessing)
    return Decoded(image=image.astype(np.uint8 if bits == 8 else np.uint16), facts=record, thumb=thumb)


def _unnamed(reason: str, cohort: Cohort, row: int) -> str:
    """The reason without the paths that the cohort calls by a pseudonym."""
    name = str(cohort.table["path"].iat[row])
    if name in cohort.files:
        for file in cohort.files_of(row):
            reason = reason.replace(str(file), name)
    return reason


def in_order(
    function: Callable[[In], Out], items: Iterable[In], workers: int | None = None
) -> Generator[Out, None, None]:
    """`function` of each item, computed by threads, handed out in order; only a few results wait at a time.

    Args:
        function: Called from several threads.
        items: Its arguments.
        workers: Number of threads; by default one per core, at most 16.

    Examples:
        >>> list(in_order(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    count = workers or min(16, os.cpu_count() or 1)
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="medgraft-decode") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
