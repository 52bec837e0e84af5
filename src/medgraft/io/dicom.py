"""The adapter to pydicom: what one DICOM file says of itself, and its frames as real values in a known range.

The order is the standard's: decode, modality transform (rescale or LUT), VOI (LUT or window), inversion of
MONOCHROME1 last.
"""

import contextlib
import dataclasses
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder, pixel_array
from pydicom.pixels.processing import apply_voi
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from medgraft.errors import DataError
from medgraft.io.codec_process import decode_apart
from medgraft.io.intensity import through_window

__all__ = [
    "MAX_VALUES",
    "DicomFile",
    "Frame",
    "FrameValues",
    "Rescale",
    "Windows",
    "is_dicom",
    "read_dicom",
    "read_header",
    "decoders",
    "stored_pixels",
]

Rescale = Literal["auto", "always", "never"]
"""Whether stored numbers become real ones: ``auto`` for CT and PET, and wherever a window or LUT follows."""

Windows = Sequence[tuple[float, float]]

MAX_VALUES: Final = 2**28
"""Most numbers (frames × rows × columns × samples) a header may declare: 1 GiB as float32."""
RESCALED: Final = frozenset({"CT", "PT"})
SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
STACKS: Final = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "DiffusionBValue",
    "EchoTime",
    "EffectiveEchoTime",
    "TriggerTime",
    "AcquisitionNumber",
    "ContentTime",
)
GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
COMPRESSED: Final = (
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"),
    *("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90"),
    *("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),
)
# The first of these that is installed for a syntax decodes it.
PLUGINS: Final = ("pydicom", "pyjpegls", "pylibjpeg", "pillow", "gdcm")
CRASHING: Final = frozenset({"gdcm"})
PREAMBLE: Final = 128
INFLATED: Final = 2**30
BLOCK: Final = 2**20
# What pydicom and its codecs let through on damaged bytes; UserWarning is for callers that turn warnings into errors.
BROKEN: Final = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    RecursionError,
    NotImplementedError,
    UserWarning,
    struct.error,
    zlib.error,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where one frame lies and what turns its stored numbers into what is shown.

    Args:
        position: Of the centre of the first voxel, patient's left, posterior, superior, mm; empty when unknown.
        orientation: Direction of a row, then of a column; 6 numbers, or empty.
        spacing_mm: Between rows, between columns; empty when unknown.
        spacing_of: Where the spacing comes from: ``PixelSpacing`` (patient), ``ImagerPixelSpacing`` (detector) …
        stack: What tells frames at one place apart (time point, b-value, echo …), as text.
        slope: Of the rescaling, or None.
        intercept: Of the rescaling, or None.
        window: Centre and width of the first window, or None.
        window_function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    spacing_of: str = ""
    stack: tuple[str, ...] = ()
    slope: float | None = None
    intercept: float | None = None
    window: tuple[float, float] | None = None
    window_function: str = "LINEAR"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """What a DICOM file says of itself; the first five name a person or lead to one and stay on this machine.

    Args:
        patient_id: PatientID, or empty.
        accession: AccessionNumber, or empty.
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        sop_uid: SOPInstanceUID.
        modality: E.g. ``CT``.
        syntax: Name of the transfer syntax.
        rows: Of a frame.
        columns: Of a frame.
        samples: 1 (grey, palette) or 3 (colour).
        bits_stored: Bits that count.
        is_signed: Whether stored numbers may be negative.
        photometric: PhotometricInterpretation.
        has_voi_lut: Whether a VOI LUT lies in the file; it comes before any window.
        is_localizer: Whether it is a scout.
        frames: At least one.
    """

    patient_id: str
    accession: str
    study_uid: str
    series_uid: str
    sop_uid: str
    modality: str
    syntax: str
    rows: int
    columns: int
    samples: int
    bits_stored: int
    is_signed: bool
    photometric: str
    has_voi_lut: bool
    is_localizer: bool
    frames: tuple[Frame, ...]

    @property
    def num_values(self) -> int:
        """Numbers that decoding makes."""
        return len(self.frames) * self.rows * self.columns * self.samples


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameValues:
    """A decoded frame.

    Args:
        values: (H, W) float32, (H, W, 3) of colour, (H, W, C) of C windows.
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


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do.

    Raises:
        DataError: It cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}). Check the path and its rights.") from error


def read_header(path: Path) -> DicomFile:
    """What the file says of itself; no pixel is decoded.

    Raises:
        DataError: It cannot be read, holds no image, or declares an absurd size.
    """
    return _header(_dataset(path, stop_before_pixels=True), path)


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
    dataset = _dataset(path)
    header = _header(dataset, path)
    with _refusing(path), _quiet():
        raw = _pixels(dataset, path, header.syntax)
        stored = raw.reshape(
            len(header.frames), header.rows, header.columns, *raw.shape[raw.ndim - (header.samples == 3) :]
        )
        return header, [
            _values(dataset, header, frame, pixels, rescale, windows)
            for frame, pixels in zip(header.frames, stored, strict=True)
        ]


def stored_pixels(path: Path, plugin: str) -> np.ndarray:
    """All frames as stored, by one of pydicom's plugins; its errors are pydicom's (`BROKEN`)."""
    with _quiet():
        return np.asarray(pixel_array(path, decoding_plugin=plugin, allow_excess_frames=False))


def _pixels(dataset: Dataset, path: Path, syntax: str) -> np.ndarray:
    """By the plugin that is safe for the syntax; where only a crashing one is left, in a process of its own."""
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


def _dataset(path: Path, *, stop_before_pixels: bool = False) -> Dataset:
    with _refusing(path), _quiet():
        _refuse_inflation(path)
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)


def _refuse_inflation(path: Path) -> None:
    """A deflated file may unpack to anything, and pydicom unpacks it whole."""
    if not is_dicom(path):
        return
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as stream:
        stream.seek(PREAMBLE + 4 + 12 + int(meta.FileMetaInformationGroupLength))
        while block := unpacker.unconsumed_tail or stream.read(BLOCK):
            size += len(unpacker.decompress(block, BLOCK))
            if size > INFLATED:
                raise DataError(f"{path}: unpacks to more than {INFLATED // 2**20} MiB. Store it uncompressed.")


def _header(dataset: Dataset, path: Path) -> DicomFile:
    with _refusing(path), _quiet():
        if "Rows" not in dataset or "Columns" not in dataset:
            kind = dataset.get("Modality") or "no modality"
            raise DataError(f"{path}: holds no image ({kind}, no rows and columns). Leave it out.")
        samples = int(dataset.get("SamplesPerPixel", 1))
        num_frames = max(1, int(dataset.get("NumberOfFrames") or 1))
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        if not 0 < num_frames * rows * columns * samples <= MAX_VALUES:
            sizes = f"{num_frames} frames of {rows}×{columns}×{samples}"
            raise DataError(f"{path}: declares {sizes}, over the limit of {MAX_VALUES:,} values or none at all.")
        return DicomFile(
            patient_id=_text(dataset, "PatientID"),
            accession=_text(dataset, "AccessionNumber"),
            study_uid=_text(dataset, "StudyInstanceUID"),
            series_uid=_text(dataset, "SeriesInstanceUID"),
            sop_uid=_text(dataset, "SOPInstanceUID"),
            modality=_text(dataset, "Modality"),
            syntax=_syntax(dataset),
            rows=rows,
            columns=columns,
            samples=samples,
            bits_stored=int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 8),
            is_signed=bool(dataset.get("PixelRepresentation", 0)),
            photometric=_text(dataset, "PhotometricInterpretation"),
            has_voi_lut=bool(dataset.get("VOILUTSequence")),
            is_localizer="LOCALIZER" in [str(word).upper() for word in _many(dataset.get("ImageType"))],
            frames=_frames(dataset, num_frames),
        )


def _frames(dataset: Dataset, count: int) -> tuple[Frame, ...]:
    """Of an enhanced file each by its functional groups, else all alike."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return (_frame(dataset, dataset, dataset, dataset, dataset),) * count
    if len(per_frame) != count:
        raise ValueError(f"{count} frames, but functional groups for {len(per_frame)}")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    empty = Dataset()

    def group(own: Dataset, name: str) -> Dataset:
        found = own.get(name) or shared.get(name)
        return found[0] if found else empty

    return tuple(
        _frame(
            group(own, "PlanePositionSequence"),
            group(own, "PlaneOrientationSequence"),
            group(own, "PixelMeasuresSequence"),
            group(own, "PixelValueTransformationSequence"),
            group(own, "FrameVOILUTSequence"),
            (group(own, "FrameContentSequence"), group(own, "MRDiffusionSequence"), group(own, "MREchoSequence")),
        )
        for own in per_frame
    )


def _frame(
    place: Dataset,
    plane: Dataset,
    measures: Dataset,
    transform: Dataset,
    voi: Dataset,
    others: tuple[Dataset, ...] = (),
) -> Frame:
    spacings = {name: _numbers(measures.get(name), 2) for name in SPACINGS}
    source = next((name for name, found in spacings.items() if found), "")
    slope, intercept = (_number(transform.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    centre, width = (_number(next(iter(_many(voi.get(name))), None)) for name in ("WindowCenter", "WindowWidth"))
    return Frame(
        position=_numbers(place.get("ImagePositionPatient"), 3),
        orientation=_numbers(plane.get("ImageOrientationPatient"), 6),
        spacing_mm=spacings.get(source, ()),
        spacing_of=source,
        stack=tuple(_stack(*(others or (place,)))),
        slope=slope if slope is not None and intercept is not None else None,
        intercept=intercept if slope is not None else None,
        window=(centre, width) if centre is not None and width is not None else None,
        window_function=str(voi.get("VOILUTFunction") or "LINEAR").upper(),
    )


def _stack(*sources: Dataset) -> Iterator[str]:
    """What may tell frames at one place apart, the strongest first."""
    for name in STACKS:
        found = next((source.get(name) for source in sources if source.get(name) is not None), None)
        yield f"{name} {found}" if found is not None else ""


def _values(
    dataset: Dataset, header: DicomFile, frame: Frame, stored: np.ndarray, rescale: Rescale, windows: Windows | None
) -> FrameValues:
    if header.photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)
        return FrameValues(
            values=colours.astype(np.float32), low=0, high=float(np.iinfo(colours.dtype).max), steps=("palette",)
        )
    low, high = _range(header)
    if header.samples == 3 or header.photometric not in GREY:
        return FrameValues(values=stored.astype(np.float32), low=low, high=high, steps=())
    steps = []
    values = stored.astype(np.float64)
    is_windowed = bool(windows) if windows is not None else header.has_voi_lut or frame.window is not None
    is_wanted = is_windowed or rescale == "always" or (rescale == "auto" and header.modality in RESCALED)
    if is_wanted and dataset.get("ModalityLUTSequence"):
        values = apply_modality_lut(stored, dataset).astype(np.float64)
        low, high = 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
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
        values = apply_voi(np.rint(values).astype(np.int64), dataset).astype(np.float64)
        low, high = 0.0, 2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        steps.append("VOI LUT")
    elif is_windowed and frame.window is not None:
        values = through_window(values, *frame.window, frame.window_function)
        low, high = 0.0, 1.0
        steps.append("window")
    if header.photometric == "MONOCHROME1":
        values = low + high - values
        steps.append("inverted")
    return FrameValues(values=values.astype(np.float32), low=low, high=high, steps=tuple(steps))


def _range(header: DicomFile) -> tuple[float, float]:
    if header.is_signed:
        return -(2.0 ** (header.bits_stored - 1)), 2.0 ** (header.bits_stored - 1) - 1
    return 0.0, 2.0**header.bits_stored - 1


def _syntax(dataset: Dataset) -> str:
    uid = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    return str(uid.name) if uid is not None else ""


def _text(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip()


def _many(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, (str, float, int)) else list(value)


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{number} where a number is expected")
    return number


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    numbers = tuple(number for one in _many(value) if (number := _number(one)) is not None)
    return numbers if len(numbers) == count else ()


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory for its pixels.") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        # The one gap: what decodes it is under the GPL, so it is the user's to install.
        advice = "Run pip install pylibjpeg-libjpeg" if "12-bit precision" in reason else "Export it again"
        message = f"{path}: damaged or not readable as DICOM ({reason}). {advice}, or leave it out."
        raise DataError(message) from error


_lock = threading.Lock()
_readers: "list[warnings.catch_warnings[Any]]" = []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Pydicom warns of every oddity of real files; what matters is refused here by name.

    The filters belong to the process and several threads read: the first to enter sets them, the last restores them.
    """
    with _lock:
        catcher = warnings.catch_warnings()
        if not _readers:
            catcher.__enter__()
            warnings.simplefilter("ignore")
        _readers.append(_readers[0] if _readers else catcher)
    try:
        yield
    finally:
        with _lock:
            first = _readers.pop()
            if not _readers:
                first.__exit__(None, None, None)
