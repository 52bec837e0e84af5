"""The adapter to pydicom, second half: the frames of a DICOM file as real values in a known range.

The order is the standard's: decode, modality transform (rescale or LUT), VOI (LUT or window), inversion of
MONOCHROME1 last.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.uid import UID

from medgraft.errors import DataError
from medgraft.io.codec_process import decode_apart
from medgraft.io.dicom_header import DicomFile, Frame, header_of, quiet, read_dataset, refusing
from medgraft.io.intensity import Scaling, ct_windows, through_window, to_sixteen_bits

__all__ = [
    "FrameValues",
    "Rescale",
    "Windows",
    "asked_windows",
    "decoders",
    "read_dicom",
    "stored_numbers",
    "stored_pixels",
    "to_integers",
]

Rescale = Literal["auto", "always", "never"]
"""Whether stored numbers become real ones: ``auto`` for CT and PET, and wherever a window or LUT follows."""

Windows = Sequence[tuple[float, float]]
RESCALED: Final = frozenset({"CT", "PT"})
BY_PERCENTILE: Final = frozenset({"MR", "PT", "NM"})
HOUNSFIELD: Final = (-1024.0, 3071.0)
"""What 12 bits of a CT scanner cover."""
GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
COMPRESSED: Final = (
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"),
    *("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90"),
    *("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),
)
# The first of these that is installed for a syntax decodes it.
PLUGINS: Final = ("pydicom", "pyjpegls", "pylibjpeg", "pillow", "gdcm")
CRASHING: Final = frozenset({"gdcm"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameValues:
    """A decoded frame.

    Args:
        values: (H, W) float32, (H, W, 3) of colour, (H, W, C) of C windows; of a volume with (D, …) in front.
        low: Smallest value that the file could hold after these steps; after a window 0.
        high: Largest one; after a window 1.
        steps: What was done, in order: ``modality LUT``, ``rescaled``, ``VOI LUT``, ``window``, ``inverted``,
            ``palette``.
    """

    values: np.ndarray
    low: float
    high: float
    steps: tuple[str, ...]


def decoders() -> dict[str, tuple[str, ...]]:
    """Compressed transfer syntaxes and the installed plugins that decode each, the first one first; empty for none.

    Examples:
        >>> "pydicom" in decoders()["RLE Lossless"]
        True
    """
    return {UID(uid).name: tuple(get_decoder(UID(uid)).available_plugins) for uid in COMPRESSED}


def read_dicom(
    path: Path, *, rescale: Rescale = "auto", windows: Windows | None = None
) -> tuple[DicomFile, list[FrameValues]]:
    """The header and all frames, in the order of the file.

    Args:
        path: A DICOM file.
        rescale: Whether the modality transform is applied where no window or LUT asks for it.
        windows: None for the file's own VOI LUT, else its first window; else centres and widths in rescaled units, each
            of several a channel; empty for none.

    Raises:
        DataError: It cannot be read, holds no image, declares an absurd size, or needs a codec that is missing.
    """
    dataset = read_dataset(path)
    header = header_of(dataset, path)
    with refusing(path), quiet():
        raw = _pixels(dataset, path, header.syntax)
        stored = raw.reshape(
            len(header.frames), header.rows, header.columns, *raw.shape[raw.ndim - (header.samples == 3) :]
        )
        return header, [
            _values(dataset, header, frame, pixels, rescale, windows)
            for frame, pixels in zip(header.frames, stored, strict=True)
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
    return windows


def to_integers(header: DicomFile, frame: FrameValues, scaling: Literal["auto"] | Scaling) -> np.ndarray:
    """Integers 0 to 65535 of decoded values on the scale that suits the modality, or on the wished one.

    Args:
        header: What the file of the frame says of itself.
        frame: A frame, or a volume of them.
        scaling: As in `medgraft.types.Reading`; what a window, a LUT or a palette scaled already stays as it is.
    """
    low, high = frame.low, frame.high
    is_colour = header.samples == 3
    is_shown = bool({"window", "VOI LUT", "palette"} & set(frame.steps))
    if is_colour or is_shown:
        scaling = "range"
    elif scaling == "auto":
        scaling = "percentile" if header.modality in BY_PERCENTILE else "range"
        if header.modality == "CT" and "rescaled" in frame.steps:
            # Inversion mirrored the values at the middle of their range.
            mirrored = (low + high - HOUNSFIELD[1], low + high - HOUNSFIELD[0])
            low, high = mirrored if "inverted" in frame.steps else HOUNSFIELD
    return to_sixteen_bits(frame.values, low, high, scaling)


def stored_numbers(path: Path) -> np.ndarray:
    """What stands in a grey file of one frame, (H, W) integers: neither rescaled nor windowed nor inverted.

    Raises:
        DataError: It cannot be read, is coloured or has several frames.
    """
    with refusing(path), quiet():
        dataset = read_dataset(path)
        header = header_of(dataset, path)
        if header.samples != 1 or len(header.frames) != 1:
            raise DataError(f"{path}: expected one grey frame of labels, got {len(header.frames)} of {header.samples}.")
        return _pixels(dataset, path, header.syntax)


def stored_pixels(path: Path, plugin: str) -> np.ndarray:
    """All frames as stored, by one of pydicom's plugins; its errors are pydicom's (`BROKEN`)."""
    with quiet():
        return np.asarray(pixel_array(path, decoding_plugin=plugin, allow_excess_frames=False))


def _pixels(dataset: Dataset, path: Path, syntax: str) -> np.ndarray:
    """Stored numbers of all frames, decoded by the plugin that is safe for the syntax.

    Where only a plugin is left that may crash, it decodes in a process of its own.

    Args:
        dataset: The file as pydicom reads it, with its pixels.
        path: The file.
        syntax: Name of its transfer syntax, for the error.
    """
    uid = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if uid not in COMPRESSED:
        return np.asarray(pixel_array(dataset, allow_excess_frames=False))
    there = get_decoder(UID(uid)).available_plugins
    plugin = next((name for name in PLUGINS if name in there), None)
    if plugin is None:
        raise DataError(f"{path}: {syntax} needs a codec that is not installed. Run pip install 'medgraft[dicom]'.")
    if plugin in CRASHING:
        return decode_apart(path, plugin)
    return np.asarray(pixel_array(dataset, decoding_plugin=plugin, allow_excess_frames=False))


def _values(
    dataset: Dataset, header: DicomFile, frame: Frame, stored: np.ndarray, rescale: Rescale, windows: Windows | None
) -> FrameValues:
    """One frame as real values: modality transform, then LUT or window, then the inversion of MONOCHROME1.

    Args:
        dataset: The file as pydicom reads it, for its lookup tables.
        header: What the file says of itself.
        frame: Rescaling and window of the frame.
        stored: (H, W) or (H, W, 3) numbers of the frame as they stand in the file.
        rescale: Whether the modality transform is applied where no window or LUT asks for it.
        windows: None for the file's own VOI LUT, else its first window; else centres and widths in rescaled units, each
            of several a channel; empty for none.
    """
    if header.photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        # Entries of 8 bits may lie in words of 16.
        high = 2.0 ** int(dataset.RedPaletteColorLookupTableDescriptor[2]) - 1
        high = high if colours.max() <= high else float(np.iinfo(colours.dtype).max)
        return FrameValues(values=colours.astype(np.float32), low=0, high=high, steps=("palette",))
    low, high = _range(header, stored)
    if header.samples == 3 or header.photometric not in GREY:
        return FrameValues(values=stored.astype(np.float32), low=low, high=high, steps=())
    steps = []
    values = stored.astype(np.float64)
    is_windowed = bool(windows) if windows is not None else header.has_voi_lut or frame.window is not None
    is_wanted = is_windowed or rescale == "always" or (rescale == "auto" and header.modality in RESCALED)
    if is_wanted and dataset.get("ModalityLUTSequence"):
        values, high = _through_lut(stored, dataset.ModalityLUTSequence[0], low, dataset)
        low = 0.0
        steps.append("modality LUT")
    elif is_wanted and frame.slope is not None and frame.intercept is not None:
        values = values * frame.slope + frame.intercept
        low, high = sorted((low * frame.slope + frame.intercept, high * frame.slope + frame.intercept))
        steps.append("rescaled")
    if windows:
        channels = [through_window(values, *window) for window in windows]
        values = channels[0] if len(channels) == 1 else np.stack(channels, -1)
        low, high = 0.0, 1.0
        steps.append("window")
    elif is_windowed and header.has_voi_lut:
        values, high = _through_lut(values, dataset.VOILUTSequence[0], low, dataset)
        low = 0.0
        steps.append("VOI LUT")
    elif is_windowed and frame.window is not None:
        values = through_window(values, *frame.window, frame.window_function)
        low, high = 0.0, 1.0
        steps.append("window")
    if header.photometric == "MONOCHROME1":
        values = low + high - values
        steps.append("inverted")
    return FrameValues(values=values.astype(np.float32), low=low, high=high, steps=tuple(steps))


def _through_lut(values: np.ndarray, item: Dataset, low: float, dataset: Dataset) -> tuple[np.ndarray, float]:
    """Entries of a lookup table, float64, and the largest its bits allow. pydicom's own counts in the entries' bits.

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
    return entries[indices.clip(0, count - 1)], 2.0**bits - 1


def _range(header: DicomFile, stored: np.ndarray) -> tuple[float, float]:
    if stored.dtype.kind == "f" or header.bits_stored > 16:
        # Nobody uses all of 32 bits: what the frame holds is all there is to go by.
        if not np.isfinite(stored).all():
            raise ValueError("pixels that are no number")
        return float(stored.min()), float(stored.max())
    if header.is_signed:
        return -(2.0 ** (header.bits_stored - 1)), 2.0 ** (header.bits_stored - 1) - 1
    return 0.0, 2.0**header.bits_stored - 1
