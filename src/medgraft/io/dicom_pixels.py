"""The adapter to pydicom, second half: the stored numbers of a DICOM file, whatever codec they lie in.

What several attributes say about one number (bits stored and high bit, planes or pixels, the colours of a codestream)
is settled here; what a number means is `medgraft.io.dicom`'s.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import convert_color_space, get_decoder, pixel_array
from pydicom.uid import UID, RLELossless

from medgraft.errors import DataError
from medgraft.io.codec_process import decode_apart
from medgraft.io.dicom_header import DicomFile, header_of
from medgraft.io.dicom_open import BROKEN, quiet, read_dataset, refusing

__all__ = ["Stored", "decoders", "stored_frames", "stored_numbers", "stored_pixels"]

JPEG: Final = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
COMPRESSED: Final = (
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"),
    *("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90"),
    *("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),
)
# The first of these that is installed for a syntax decodes it; the others where that one fails.
PLUGINS: Final = ("pydicom", "pyjpegls", "pylibjpeg", "pillow", "gdcm")
CRASHING: Final = frozenset({"gdcm"})
COLOURS: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
"""What the three samples of a pixel may be; the last two are undone by the codec of JPEG 2000."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """The numbers of a file as they stand there.

    Args:
        values: (F, H, W), or (F, H, W, 3) RGB.
        is_padding: (F, H, W) where there is no image (PixelPaddingValue), or None where that is nowhere.
        decoder: The codec that read them after another one failed; else empty.
    """

    values: np.ndarray
    is_padding: np.ndarray | None
    decoder: str = ""


def decoders() -> dict[str, tuple[str, ...]]:
    """Compressed transfer syntaxes and the installed plugins that decode each, the first one first; empty for none.

    Examples:
        >>> "pydicom" in decoders()["RLE Lossless"]
        True
    """
    return {UID(uid).name: tuple(get_decoder(UID(uid)).available_plugins) for uid in COMPRESSED}


def stored_frames(dataset: Dataset, header: DicomFile, path: Path, index: int | None = None) -> Stored:
    """All frames, in the order of the file, or one of them.

    Args:
        dataset: The file as pydicom reads it, with its pixels.
        header: What it says of itself.
        path: The file.
        index: Number of the only frame that is wanted, from 0; None for all.

    Raises:
        DataError: A codec is missing, or the way they are stored has no reading.
    """
    if header.samples != 1 and header.photometric not in COLOURS:
        kind = header.photometric or "no photometric interpretation"
        raise DataError(f"{path}: expected colours as RGB or YBR_FULL, got {kind}. Convert it to RGB.")
    if index is not None and not 0 <= index < len(header.frames):
        raise DataError(f"{path}: has {len(header.frames)} frames, got none of number {index + 1}.")
    found, decoder = _decoded(dataset, header, path, index)
    shape = (len(header.frames) if index is None else 1, header.rows, header.columns)
    raw = found.reshape(*shape, *found.shape[found.ndim - (header.samples == 3) :])
    values = _meant_bits(raw, header, path)
    if header.samples != 1:
        return Stored(values=_as_rgb(values, dataset, header, path), is_padding=None, decoder=decoder)
    return Stored(values=values, is_padding=_padding(raw, values, header), decoder=decoder)


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
        return np.asarray(stored_frames(dataset, header, path).values[0])


def stored_pixels(path: Path, plugin: str, index: int | None = None) -> np.ndarray:
    """All frames, or one, as they were allocated, by one of pydicom's plugins; its errors are pydicom's (`BROKEN`)."""
    dataset = read_dataset(path)
    return _by_plugin(dataset, header_of(dataset, path), plugin, index)


def _by_plugin(dataset: Dataset, header: DicomFile, plugin: str, index: int | None) -> np.ndarray:
    with quiet():
        options = {**dict(_options(dataset, header)), "index": index}
        return np.asarray(pixel_array(dataset, decoding_plugin=plugin, allow_excess_frames=False, raw=True, **options))


def _options(dataset: Dataset, header: DicomFile) -> Iterator[tuple[str, Any]]:
    """What pydicom is told instead of what the file says."""
    uid = dataset.file_meta.get("TransferSyntaxUID")
    if uid not in COMPRESSED or uid == RLELossless:
        # Which bits count is looked at afterwards: pydicom takes the lowest, whatever HighBit says.
        yield "bits_stored", header.bits_allocated
    elif header.samples == 3:
        # PS3.5 8.2.1: of what a JPEG codec makes, the attribute says nothing; each gives pixel by pixel, or says so.
        yield "planar_configuration", 0


def _decoded(dataset: Dataset, header: DicomFile, path: Path, index: int | None) -> tuple[np.ndarray, str]:
    """Numbers of all frames, and the codec that read them where the first one failed.

    Where a codec may crash it decodes in a process of its own.

    Args:
        dataset: The file as pydicom reads it, with its pixels.
        header: What it says of itself.
        path: The file.
        index: Number of the only frame that is wanted; None for all.
    """
    uid = dataset.file_meta.get("TransferSyntaxUID")
    if uid not in COMPRESSED:
        return _by_plugin(dataset, header, "", index), ""
    there = [name for name in PLUGINS if name in get_decoder(UID(uid)).available_plugins]
    if uid in JPEG and header.samples == 3 and "pillow" in there:
        there = ["pillow"]  # the one that says what it does to colours
    if not there:
        raise DataError(
            f"{path}: {header.syntax} needs a codec that is not installed. Run pip install 'medgraft[dicom]'."
        )
    failures: list[Exception] = []
    for plugin in there:
        try:
            is_apart = plugin in CRASHING
            found = decode_apart(path, plugin, index) if is_apart else _by_plugin(dataset, header, plugin, index)
        except (DataError, *BROKEN) as error:
            failures.append(error)
        else:
            return found, plugin if failures else ""
    raise failures[0]


def _meant_bits(values: np.ndarray, header: DicomFile, path: Path) -> np.ndarray:
    """The bits of each number that count: BitsStored of them, the highest at HighBit (PS3.5 8.1.1).

    Args:
        values: As allocated.
        header: What the file says of itself.
        path: The file, for the error.
    """
    shift = header.high_bit + 1 - header.bits_stored
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f" or header.bits_allocated == 1:
        return values
    if shift < 0 or header.high_bit >= header.bits_allocated:
        raise DataError(
            f"{path}: bits 0 to {header.high_bit} cannot hold {header.bits_stored} (HighBit, BitsStored). "
            "Correct its header."
        )
    if shift == 0 and header.bits_stored >= 8 * values.itemsize:
        return values
    if shift and header.is_codestream:
        raise DataError(
            f"{path}: HighBit {header.high_bit} with {header.bits_stored} bits stored in {header.syntax}, "
            "where bits have no place. Decompress it, or correct its header."
        )
    bits = values.view(f"u{values.itemsize}") >> shift & ((1 << header.bits_stored) - 1)
    if not header.is_signed:
        return np.asarray(bits)
    # Two's complement of so many bits.
    sign = 1 << (header.bits_stored - 1)
    return np.asarray((bits.astype(np.int64) ^ sign) - sign, dtype=f"i{values.itemsize}")


def _padding(raw: np.ndarray, values: np.ndarray, header: DicomFile) -> np.ndarray | None:
    """Where numbers say that there is no image; None where none does.

    Args:
        raw: Numbers as allocated: a value beyond the bits stored is looked for there.
        values: The same, the bits that count.
        header: What the file says of itself.
    """
    if header.padding is None:
        return None
    low, high = header.padding
    is_padding = (values >= low) & (values <= high)
    if low == high and raw.dtype.kind != "f" and not is_padding.any() and header.high_bit + 1 == header.bits_stored:
        is_padding = raw == low
    return is_padding if is_padding.any() else None


def _as_rgb(values: np.ndarray, dataset: Dataset, header: DicomFile, path: Path) -> np.ndarray:
    """Colours as RGB.

    Args:
        values: (F, H, W, 3) as the codec gives them.
        dataset: The file, for its codestream.
        header: What the file says of itself.
        path: The file, for the error.
    """
    is_ybr = header.photometric in ("YBR_FULL", "YBR_FULL_422")
    if dataset.file_meta.get("TransferSyntaxUID") in JPEG:
        is_ybr = _is_ybr_after_decoding(next(generate_frames(dataset.PixelData, number_of_frames=1)), is_ybr)
    if not is_ybr:
        return values
    if values.dtype != np.uint8:
        raise DataError(f"{path}: expected YBR_FULL of 8 bits, got {values.dtype}. Convert it to RGB.")
    return np.asarray(convert_color_space(values, "YBR_FULL", "RGB"))


def _is_ybr_after_decoding(frame: bytes, is_said: bool) -> bool:
    """Whether a JPEG of three components still is YBR when Pillow has decoded it.

    The codestream knows better than the header what its encoder did: Adobe's marker says it, and Pillow has undone it;
    JFIF means YBR, and so does colour at half the sides.

    Args:
        frame: The codestream.
        is_said: Whether the header says YBR.
    """
    start = 2
    while start + 4 <= len(frame) and frame[start] == 0xFF:
        marker, size = frame[start + 1], int.from_bytes(frame[start + 2 : start + 4], "big")
        content = frame[start + 4 : start + 2 + size]
        if marker == 0xEE and content.startswith(b"Adobe"):
            return False
        if marker == 0xE0 and content.startswith(b"JFIF"):
            return True
        if marker in (0xC0, 0xC1, 0xC2) and len(content) >= 15:
            ids, samplings = content[6:15:3], content[7:15:3]
            return ids != b"RGB" and (is_said or samplings[0] != samplings[1])
        start += 2 + size
    return is_said
