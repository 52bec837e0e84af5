"""The adapter to pydicom, first half: what one DICOM file says of itself, and its refusal where it is damaged."""

import contextlib
import dataclasses
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medgraft.errors import DataError

__all__ = [
    "BROKEN",
    "MAX_VALUES",
    "DicomFile",
    "Frame",
    "header_of",
    "is_dicom",
    "quiet",
    "read_dataset",
    "read_header",
    "refusing",
]

MAX_VALUES: Final = 2**28
"""Most numbers (frames × rows × columns × samples) a header may declare: 1 GiB as float32."""
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
        position: Centre of the first voxel: patient's left, posterior, superior, mm; empty when unknown.
        orientation: Direction of a row, then of a column; 6 numbers, or empty.
        spacing_mm: Between rows, between columns; empty when unknown.
        spacing_of: Where the spacing comes from: ``PixelSpacing`` (patient), ``ImagerPixelSpacing`` (detector) …
        stack: What tells frames at one place apart (time point, b-value, echo …), as text.
        slope: Slope of the rescaling, or None.
        intercept: Intercept of the rescaling, or None.
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
        rows: Rows of a frame.
        columns: Columns of a frame.
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
    return header_of(read_dataset(path, stop_before_pixels=True), path)


def read_dataset(path: Path, *, stop_before_pixels: bool = False) -> Dataset:
    """The file as pydicom reads it.

    Raises:
        DataError: It cannot be read.
    """
    with refusing(path), quiet():
        _refuse_inflation(path)
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)


def _refuse_inflation(path: Path) -> None:
    """Refuse a deflated file that unpacks to too much, because pydicom unpacks it whole."""
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


def header_of(dataset: Dataset, path: Path) -> DicomFile:
    """What a data set says of itself.

    Raises:
        DataError: It holds no image, or declares an absurd size.
    """
    with refusing(path), quiet():
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
    """Frames of a data set: each by its functional groups in an enhanced file, else all alike."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    shared_groups = dataset.get("SharedFunctionalGroupsSequence")
    if not per_frame and not shared_groups:
        return (_frame(dataset, dataset, dataset, dataset, dataset),) * count
    empty = Dataset()
    per_frame = per_frame or [empty] * count
    if len(per_frame) != count:
        raise ValueError(f"{count} frames, but functional groups for {len(per_frame)}")
    shared = (shared_groups or [empty])[0]

    def group(own: Dataset, name: str) -> Dataset:
        sequence = own.get(name) or shared.get(name)
        return sequence[0] if sequence else empty

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
    position: Dataset,
    plane: Dataset,
    measures: Dataset,
    transform: Dataset,
    voi: Dataset,
    groups: tuple[Dataset, ...] = (),
) -> Frame:
    """One frame, from the data sets that hold its attributes; a file without functional groups holds all itself.

    Args:
        position: Holds ImagePositionPatient.
        plane: Holds ImageOrientationPatient.
        measures: Holds the spacing of rows and columns, mm.
        transform: Holds slope and intercept of the rescaling.
        voi: Holds the window and its function.
        groups: Hold what tells frames at one position apart (time point, b-value, echo); empty where `position` does.
    """
    spacings = {name: _numbers(measures.get(name), 2) for name in SPACINGS}
    source = next((name for name, spacing in spacings.items() if spacing), "")
    slope, intercept = (_number(transform.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    centre, width = (_number(next(iter(_many(voi.get(name))), None)) for name in ("WindowCenter", "WindowWidth"))
    return Frame(
        position=_numbers(position.get("ImagePositionPatient"), 3),
        orientation=_numbers(plane.get("ImageOrientationPatient"), 6),
        spacing_mm=spacings.get(source, ()),
        spacing_of=source,
        stack=tuple(_stack(*(groups or (position,)))),
        slope=slope if slope is not None and intercept is not None else None,
        intercept=intercept if slope is not None else None,
        window=(centre, width) if centre is not None and width is not None else None,
        window_function=str(voi.get("VOILUTFunction") or "LINEAR").upper(),
    )


def _stack(*sources: Dataset) -> Iterator[str]:
    """What may tell frames at one place apart, the strongest first."""
    for name in STACKS:
        value = next((source.get(name) for source in sources if source.get(name) is not None), None)
        yield f"{name} {value}" if value is not None else ""


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
    numbers = tuple(number for item in _many(value) if (number := _number(item)) is not None)
    return numbers if len(numbers) == count else ()


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns what damaged bytes raise inside into one refusal that names the file."""
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
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings of every oddity of real files; what matters is refused here by name.

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
