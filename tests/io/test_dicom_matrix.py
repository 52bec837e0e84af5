"""Every combination of how DICOM stores pixels, how files lie and how they are compressed, against arithmetic by hand."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_files import compressed, dicom, enhanced, save, slice_at
from medgraft.data.cohort.cases import volumes_in
from medgraft.errors import DataError
from medgraft.io.case import read_case
from medgraft.io.volume import read_volume
from medgraft.types import Reading

NUM_SLICES: Final = 4
SHUFFLED: Final = (2, 0, 3, 1)
READING: Final = Reading(scaling="range")
STORED: Final = tuple(
    itertools.product(
        ("MONOCHROME1", "MONOCHROME2"),
        (8, 12, 16),
        ("u", "i"),
        (None, (1.0, -1024.0), (0.37, 5.5), (-2.0, 100.0)),
        (None, (40.0, 400.0), ([100.0, 40.0], [700.0, 400.0])),
    )
)
PACKED: Final = (RLELossless, JPEG2000Lossless, JPEGLSLossless)


def numbers(bits: int, sign: str) -> np.ndarray:
    """(NUM_SLICES, 36, 32) over all that `bits` hold, every slice another."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if sign == "i" else (0, 2**bits)
    found = np.random.default_rng(bits).integers(low, high, (NUM_SLICES, 36, 32))
    found[:, 0, 0], found[:, 0, 1] = low, high - 1
    return found.astype(np.dtype(f"{sign}{1 if bits <= 8 else 2}"))


def expected(stored: np.ndarray, photometric: str, bits: int, rescale: Any, window: Any) -> np.ndarray:
    """What DICOM PS3.3 C.7.6.3, C.11.1 and C.11.2 make of it, as shares of 65535, real-valued."""
    ends = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0.0, 2.0**bits - 1)
    slope, intercept = rescale or (1.0, 0.0)
    values = stored.astype(float) * slope + intercept
    low, high = sorted(end * slope + intercept for end in ends)
    if window:
        centre, width = (np.atleast_1d(part)[0] for part in window)
        shares = np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    else:
        shares = (values - low) / (high - low)
    return 65535 * (1 - shares if photometric == "MONOCHROME1" else shares)


def write(folder: Path, syntax: str, made: Dataset, name: str) -> Path:
    return save(compressed(made, syntax) if syntax in PACKED else made, folder / name)


def single(stored: np.ndarray, write: Callable[[Dataset, str], Path], options: dict[str, Any]) -> None:
    wanted = expected(stored[0], options["photometric"], options["bits"], options["rescale"], options["window"])
    found, _ = read_case(write(dicom(stored[0], modality="CT", **options), "x.dcm"), READING)
    assert np.abs(found - wanted).max() <= 0.51


def two_series(stored: np.ndarray, write: Callable[[Dataset, str], Path], options: dict[str, Any]) -> None:
    series = {"1.2.3": stored, "1.2.4": stored[::-1]}
    files = [
        write(slice_at(volume[n], 2.0 * n, series=uid, **options), f"{place}{uid}.dcm")
        for place, n in enumerate(SHUFFLED)
        for uid, volume in series.items()
    ]
    found = volumes_in(sorted(files))
    assert len(found) == 2
    for files_of_one, volume in zip(found, series.values(), strict=True):
        compare(read_volume(files_of_one, READING)[0], volume, options)


def shuffled_enhanced(stored: np.ndarray, write: Callable[[Dataset, str], Path], options: dict[str, Any]) -> None:
    made = enhanced(stored[list(SHUFFLED)], [2.0 * n for n in SHUFFLED])
    made.PhotometricInterpretation = options["photometric"]
    made.BitsStored, made.HighBit = options["bits"], options["bits"] - 1
    for group in made.PerFrameFunctionalGroupsSequence:
        if options["rescale"] is None:
            del group.PixelValueTransformationSequence
        else:
            transform = group.PixelValueTransformationSequence[0]
            transform.RescaleSlope, transform.RescaleIntercept = options["rescale"]
    if options["window"] is not None:
        shown = Dataset()
        shown.WindowCenter, shown.WindowWidth = options["window"]
        made.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence = Items([shown])
    compare(read_volume([write(made, "x.dcm")], READING)[0], stored, options)


def compare(found: np.ndarray, stored: np.ndarray, options: dict[str, Any]) -> None:
    wanted = expected(stored, options["photometric"], options["bits"], options["rescale"], options["window"])
    # Rows run from front to back and columns from right to left in the files; RAS turns both.
    assert np.abs(found[:, ::-1, ::-1] - wanted).max() <= 0.51


@pytest.mark.parametrize("arrange", [single, two_series, shuffled_enhanced])
@pytest.mark.parametrize(("photometric", "bits", "sign", "rescale", "window"), STORED)
def test_every_combination_is_read_as_the_standard_says(
    tmp_path: Path, arrange: Any, photometric: str, bits: int, sign: str, rescale: Any, window: Any
) -> None:
    options = {"photometric": photometric, "bits": bits, "rescale": rescale, "window": window}
    for syntax in (ExplicitVRLittleEndian, *PACKED):
        if syntax == JPEGLSLossless and sign == "i":
            continue  # it has no sign, and pydicom does not write it
        arrange(numbers(bits, sign), functools.partial(write, tmp_path / syntax, syntax), options)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, *PACKED])
def test_a_series_with_a_gap_is_refused_before_a_pixel_is_read(tmp_path: Path, syntax: str) -> None:
    files = [
        write(tmp_path, syntax, slice_at(image, z, series="1.2.3"), f"{n}.dcm")
        for n, (image, z) in enumerate(zip(numbers(12, "u"), (0.0, 2.0, 6.0, 8.0), strict=True))
    ]
    with pytest.raises(DataError, match=r"4\.00 mm between 1\.dcm, 2\.dcm where 2\.00 mm is usual"):
        read_volume(files, READING)
