"""The adapter to pydicom, last part: the frames of a DICOM file as real values in a known range.

The order is the standard's: decode, modality transform (rescale or LUT), VOI (LUT or window), inversion (of
MONOCHROME1, or where a presentation LUT says so) last.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from medgraft.errors import DataError
from medgraft.io.dicom_header import DicomFile, Frame, header_of, lut_of
from medgraft.io.dicom_open import quiet, read_dataset, refusing
from medgraft.io.dicom_pixels import stored_frames
from medgraft.io.intensity import Scaling, ct_windows, ends_of, through_window, to_sixteen_bits

__all__ = [
    "FrameValues",
    "Rescale",
    "Windows",
    "asked_windows",
    "on_scale",
    "read_dicom",
    "to_integers",
]

Rescale = Literal["auto", "always", "never"]
"""Whether stored numbers become real ones: ``auto`` where the file says how, but not in angiography and fluoroscopy,
where it leads back to linear numbers that are not for showing; ``always`` there, too."""

Windows = Sequence[tuple[float, float]]
BY_PERCENTILE: Final = frozenset({"MR", "PT", "NM"})
HOUNSFIELD: Final = (-1024.0, 3071.0)
"""What 12 bits of a CT scanner cover."""
UNITS_OF_CT: Final = frozenset({"", "HU", "HU_MOD", "US"})
"""Of a CT whose numbers are Hounsfield units; others (electron density …) have their own scale."""
GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameValues:
    """A decoded frame.

    Args:
        values: (H, W) float32, (H, W, 3) of colour, (H, W, C) of C windows; of a volume with (D, …) in front.
        low: Smallest value that the file could hold after these steps; after a window 0.
        high: Largest one; after a window 1.
        steps: What was done, in order: ``modality LUT``, ``rescaled``, ``VOI LUT``, ``window``, ``inverted``,
            ``palette``; ``no window`` where the file's own cannot be one.
        is_padding: (H, W), of a volume (D, H, W), where there is no image; None where there is one everywhere.
        decoder: The codec that read it after another one failed; else empty.
    """

    values: np.ndarray
    low: float
    high: float
    steps: tuple[str, ...]
    is_padding: np.ndarray | None = None
    decoder: str = ""


def read_dicom(
    path: Path, *, rescale: Rescale = "auto", windows: Windows | None = None, index: int | None = None
) -> tuple[DicomFile, list[FrameValues]]:
    """The header and all frames, in the order of the file, or one of them.

    Args:
        path: A DICOM file.
        rescale: Whether the modality transform is applied.
        windows: None for the file's own VOI LUT, else its first window; else centres and widths in rescaled units, each
            of several a channel; empty for none.
        index: Number of the only frame that is wanted, from 0; None for all.

    Raises:
        DataError: It cannot be read, holds no image, declares an absurd size, or needs a codec that is missing.
    """
    dataset = read_dataset(path)
    header = header_of(dataset, path)
    with refusing(path), quiet():
        stored = stored_frames(dataset, header, path, index)
        chosen = header.frames if index is None else header.frames[index : index + 1]
        paddings = stored.is_padding if stored.is_padding is not None else [None] * len(chosen)
        return header, [
            dataclasses.replace(
                _values(dataset, header, frame, pixels, padding, rescale, windows), decoder=stored.decoder
            )
            for frame, pixels, padding in zip(chosen, stored.values, paddings, strict=True)
        ]


def asked_windows(names: Sequence[str], header: DicomFile, path: Path) -> Windows | None:
    """What `names` of a `medgraft.types.Reading` mean for a file: None for its own window, else centres and widths.

    Args:
        names: ``file`` alone, keys of `medgraft.io.intensity.CT_WINDOWS`, or empty for no window.
        header: What the file says of itself.
        path: The file, for the error.

    Raises:
        DataError: Windows for CT, and the file is none.
    """
    if tuple(names) == ("file",):
        return None
    windows = ct_windows(names)
    if windows and header.modality != "CT":
        kind = header.modality or "no modality"
        raise DataError(f"{path}: expected CT for the windows {', '.join(names)}, got {kind}.")
    if windows and header.rescale_type not in UNITS_OF_CT:
        raise DataError(
            f"{path}: expected Hounsfield units for the windows {', '.join(names)}, got {header.rescale_type}. "
            "Read it with --set data.windows=none."
        )
    return windows


def on_scale(header: DicomFile, frame: FrameValues, scaling: Literal["auto"] | Scaling) -> FrameValues:
    """A frame, or a volume of them, with the ends of the scale that suits it: `to_integers` takes it from there.

    What is padding takes no part in finding the ends, and lies at the lower one.

    Args:
        header: What the file of the frame says of itself.
        frame: From `read_dicom`.
        scaling: As in `medgraft.types.Reading`; what a window, a LUT or a palette scaled already stays as it is.
    """
    low, high = frame.low, frame.high
    is_shown = bool({"window", "VOI LUT", "palette"} & set(frame.steps))
    if header.samples == 3 or is_shown:
        scaling = "range"
    elif scaling == "auto":
        scaling = "percentile" if header.modality in BY_PERCENTILE else "range"
        if header.modality == "CT" and "rescaled" in frame.steps and header.rescale_type in UNITS_OF_CT:
            # Inversion mirrored the values at the middle of their range.
            mirrored = (low + high - HOUNSFIELD[1], low + high - HOUNSFIELD[0])
            low, high = mirrored if "inverted" in frame.steps else HOUNSFIELD
    if frame.is_padding is None:
        low, high = ends_of(frame.values, low, high, scaling)
        return dataclasses.replace(frame, low=low, high=high)
    image = frame.values[~frame.is_padding]
    low, high = ends_of(image, low, high, scaling) if image.size else (low, low)
    values = frame.values.copy()
    values[frame.is_padding] = low
    return dataclasses.replace(frame, values=values, low=low, high=high)


def to_integers(frame: FrameValues) -> np.ndarray:
    """Integers 0 to 65535 of values between the ends of their scale (`on_scale`)."""
    return to_sixteen_bits(frame.values, frame.low, frame.high)


def _values(
    dataset: Dataset,
    header: DicomFile,
    frame: Frame,
    stored: np.ndarray,
    is_padding: np.ndarray | None,
    rescale: Rescale,
    windows: Windows | None,
) -> FrameValues:
    """One frame as real values: modality transform, then LUT or window, then the inversion of MONOCHROME1.

    Args:
        dataset: The file as pydicom reads it, for its lookup tables.
        header: What the file says of itself.
        frame: Rescaling and window of the frame.
        stored: (H, W) or (H, W, 3) numbers of the frame as they stand in the file.
        is_padding: (H, W) where there is no image, or None.
        rescale: Whether the modality transform is applied.
        windows: None for the file's own VOI LUT, else its first window; else centres and widths in rescaled units, each
            of several a channel; empty for none.
    """
    if header.photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        # Entries of 8 bits may lie in words of 16.
        high = 2.0 ** int(dataset.RedPaletteColorLookupTableDescriptor[2]) - 1
        high = high if colours.max() <= high else float(np.iinfo(colours.dtype).max)
        return FrameValues(values=colours.astype(np.float32), low=0, high=high, steps=("palette",))
    if is_padding is not None and not is_padding.any():
        is_padding = None
    low, high = _range(header, stored if is_padding is None else stored[~is_padding])
    if header.samples == 3:
        return FrameValues(values=stored.astype(np.float32), low=low, high=high, steps=())
    if header.photometric not in GREY:
        raise DataError(f"expected MONOCHROME1, MONOCHROME2 or a palette of one sample, got {header.photometric!r}.")
    found = FrameValues(values=stored.astype(np.float64), low=low, high=high, steps=(), is_padding=is_padding)
    is_windowed = bool(windows) if windows is not None else header.has_voi_lut or frame.window is not None
    # A window counts in the units after it, so it comes before one whatever is wished.
    if rescale == "always" or ((is_windowed or rescale == "auto") and not header.is_shown_as_stored):
        found = _rescaled(found, dataset, frame)
    if is_windowed or windows is None:
        found = _windowed(found, dataset, frame, windows)
    if header.is_negative:
        found = _after(found, found.low + found.high - found.values, found.low, found.high, "inverted")
    return dataclasses.replace(found, values=found.values.astype(np.float32))


def _after(frame: FrameValues, values: np.ndarray, low: float, high: float, step: str) -> FrameValues:
    """A frame after one more step.

    Args:
        frame: Before it.
        values: After it.
        low: Smallest value there can be.
        high: Largest one.
        step: Its name.
    """
    return dataclasses.replace(frame, values=values, low=low, high=high, steps=(*frame.steps, step))


def _rescaled(frame: FrameValues, dataset: Dataset, header: Frame) -> FrameValues:
    """After the modality LUT, or slope and intercept.

    Args:
        frame: Stored numbers.
        dataset: Holds the table.
        header: Slope and intercept.
    """
    if (table := lut_of(dataset.get("ModalityLUTSequence"))) is not None:
        return _after(frame, *_through_lut(frame.values, table, frame.low, dataset), "modality LUT")
    slope, intercept = header.slope, header.intercept
    if slope is None or intercept is None:
        return frame
    low, high = sorted((frame.low * slope + intercept, frame.high * slope + intercept))
    return _after(frame, frame.values * slope + intercept, low, high, "rescaled")


def _windowed(frame: FrameValues, dataset: Dataset, header: Frame, windows: Windows | None) -> FrameValues:
    """Through the wished windows, or the VOI LUT or window of the file, where it has one.

    Args:
        frame: Rescaled.
        dataset: Holds the table.
        header: The window of the file.
        windows: None for that of the file, else centres and widths.
    """
    if windows:
        channels = [through_window(frame.values, *window) for window in windows]
        return _after(frame, channels[0] if len(channels) == 1 else np.stack(channels, -1), 0.0, 1.0, "window")
    if (table := lut_of(dataset.get("VOILUTSequence"))) is not None:
        return _after(frame, *_through_lut(frame.values, table, frame.low, dataset), "VOI LUT")
    if header.window is not None:
        return _after(frame, through_window(frame.values, *header.window, header.window_function), 0.0, 1.0, "window")
    return _after(frame, frame.values, frame.low, frame.high, "no window") if header.is_window_void else frame


def _through_lut(values: np.ndarray, item: Dataset, low: float, dataset: Dataset) -> tuple[np.ndarray, float, float]:
    """Entries of a lookup table, float64, 0, and the largest its bits allow. pydicom's own counts in the entries' bits.

    Args:
        values: What looks up; fractions are rounded.
        item: Item of a modality or VOI LUT sequence.
        low: Smallest value there can be: below zero the first mapped value is signed, whatever its coding says.
        dataset: Holds the item; tells the order of its bytes.
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    data, count = item.LUTData, count or 2**16
    if isinstance(data, bytes):
        order = ">" if dataset.original_encoding[1] is False else "<"
        data = np.frombuffer(data, "u1" if len(data) < 2 * count else f"{order}u2")
    entries = np.atleast_1d(np.asarray(data, dtype=np.float64))[:count]
    if len(entries) < count:
        raise ValueError(f"lookup table of {len(entries)} entries instead of {count}")
    if low < 0 and first >= 2**15:
        first -= 2**16
    indices = np.rint(values).astype(np.int64) - first
    return entries[indices.clip(0, count - 1)], 0.0, 2.0**bits - 1


def _range(header: DicomFile, stored: np.ndarray) -> tuple[float, float]:
    """Smallest and largest number that the file could hold; of wide ones, that it holds."""
    if not stored.size:
        return 0.0, 0.0
    if stored.dtype.kind == "f" or header.bits_stored > 16:
        # Nobody uses all of 32 bits: what the frame holds is all there is to go by.
        if not np.isfinite(stored).all():
            raise ValueError("pixels that are no number")
        return float(stored.min()), float(stored.max())
    if header.is_signed:
        return -(2.0 ** (header.bits_stored - 1)), 2.0 ** (header.bits_stored - 1) - 1
    return 0.0, 2.0**header.bits_stored - 1
