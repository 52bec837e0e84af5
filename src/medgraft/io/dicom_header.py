"""The adapter to pydicom, second part: what one DICOM file says of itself."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medgraft.errors import DataError
from medgraft.io.dicom_open import is_dicom, quiet, read_dataset, refusing, uid_of

__all__ = ["MAX_VALUES", "DicomFile", "Frame", "header_if_dicom", "header_of", "lut_of", "read_header"]

MAX_VALUES: Final = 2**28
"""Most numbers (frames × rows × columns × samples) a header may declare: 1 GiB as float32."""
SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
CODESTREAM: Final = "1.2.840.10008.1.2.4."
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
# Angiography and fluoroscopy: their modality transform leads back to linear numbers and is not for showing.
SHOWN_AS_STORED: Final = frozenset(f"1.2.840.10008.5.1.4.1.1.12.{kind}" for kind in (1, 2, 3))


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
        window: Centre and width of the first window that is one, or None.
        window_function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
        is_window_void: Whether windows are given and none is one: a width of 0 or below says nothing.
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
    is_window_void: bool = False


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
        bits_allocated: Bits of a number in the file.
        bits_stored: Bits of it that count.
        high_bit: Place of the highest of these.
        is_signed: Whether stored numbers may be negative.
        is_codestream: Whether a codec of the JPEG family made the numbers, in which bits have no place.
        photometric: PhotometricInterpretation.
        is_negative: Whether the smallest number is the brightest, once all else is done.
        padding: Smallest and largest stored number that stands for no image, or None.
        has_voi_lut: Whether a VOI LUT lies in the file; it comes before any window.
        is_shown_as_stored: Whether the modality transform is not for showing (angiography, fluoroscopy).
        rescale_type: Unit after rescaling; ``HU``, ``US`` (unspecified) or empty of a usual CT.
        device: Manufacturer and model, or empty.
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
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_codestream: bool
    photometric: str
    is_negative: bool
    padding: tuple[float, float] | None
    has_voi_lut: bool
    is_shown_as_stored: bool
    rescale_type: str
    device: str
    is_localizer: bool
    frames: tuple[Frame, ...]

    @property
    def num_values(self) -> int:
        """Numbers that decoding makes."""
        return len(self.frames) * self.rows * self.columns * self.samples


def read_header(path: Path) -> DicomFile:
    """What the file says of itself; no pixel is decoded.

    Raises:
        DataError: It cannot be read, holds no image, or declares an absurd size.
    """
    return header_of(read_dataset(path, stop_before_pixels=True), path)


def header_if_dicom(path: Path) -> DicomFile | None:
    """What a file says of itself; None where it is no DICOM file, or cannot be read, which decoding tells by name."""
    try:
        return read_header(path) if path.is_file() and is_dicom(path) else None
    except DataError:
        return None


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
        allocated = int(dataset.get("BitsAllocated") or 8)
        stored = int(dataset.get("BitsStored") or allocated)
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
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=int(stored - 1 if dataset.get("HighBit") is None else dataset.HighBit),
            is_signed=bool(dataset.get("PixelRepresentation", 0)),
            is_codestream=uid_of(dataset).startswith(CODESTREAM),
            photometric=_text(dataset, "PhotometricInterpretation"),
            padding=_padding(dataset, allocated) if samples == 1 else None,
            has_voi_lut=lut_of(dataset.get("VOILUTSequence")) is not None,
            is_shown_as_stored=_text(dataset, "SOPClassUID") in SHOWN_AS_STORED,
            is_negative=_is_negative(dataset),
            rescale_type=_text(dataset, "RescaleType").upper(),
            device=" ".join(filter(None, (_text(dataset, "Manufacturer"), _text(dataset, "ManufacturerModelName")))),
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
    window, is_window_void = _window(voi)
    # A slope of 0 would leave nothing of the image; it is no transform.
    slope = slope or None
    return Frame(
        position=_numbers(position.get("ImagePositionPatient"), 3),
        orientation=_numbers(plane.get("ImageOrientationPatient"), 6),
        spacing_mm=spacings.get(source, ()),
        spacing_of=source,
        stack=tuple(_stack(*(groups or (position,)))),
        slope=slope if slope is not None and intercept is not None else None,
        intercept=intercept if slope is not None else None,
        window=window,
        window_function=str(voi.get("VOILUTFunction") or "LINEAR").upper(),
        is_window_void=is_window_void,
    )


def _window(voi: Dataset) -> tuple[tuple[float, float] | None, bool]:
    """The first window of a positive width, and whether there are windows and none has one."""
    centres, widths = (_many(voi.get(name)) for name in ("WindowCenter", "WindowWidth"))
    given = [
        (centre, width)
        for pair in zip(centres, widths, strict=False)
        for centre, width in [tuple(map(_number, pair))]
        if centre is not None and width is not None
    ]
    usable = [window for window in given if window[1] > 0]
    return (usable[0] if usable else None), bool(given) and not usable


def _is_negative(dataset: Dataset) -> bool:
    """Whether grey numbers are shown inverted: a shape of the presentation LUT says it, else the photometric one."""
    shape = _text(dataset, "PresentationLUTShape").upper()
    photometric = _text(dataset, "PhotometricInterpretation")
    if photometric in ("MONOCHROME1", "MONOCHROME2") and shape in ("INVERSE", "IDENTITY"):
        return shape == "INVERSE"
    return photometric == "MONOCHROME1"


def lut_of(sequence: Any) -> Dataset | None:
    """The first item of a modality or VOI LUT sequence that holds a table; an empty one says nothing."""
    items = sequence or ()
    return next((item for item in items if item.get("LUTDescriptor") and item.get("LUTData")), None)


def _padding(dataset: Dataset, allocated: int) -> tuple[float, float] | None:
    """Smallest and largest stored number that stands for no image (PS3.3 C.7.5.1.1.2).

    Args:
        dataset: The file.
        allocated: Bits of a number; a value whose sign its coding lost is brought into their range.
    """
    for kind in ("", "Float", "DoubleFloat"):
        value, limit = (
            _number(next(iter(_many(dataset.get(name))), None))
            for name in (f"{kind}PixelPaddingValue", f"{kind}PixelPaddingRangeLimit")
        )
        if value is not None:
            ends = [value, value if limit is None else limit]
            if not kind:
                ends = [_in_range(int(end), allocated, bool(dataset.get("PixelRepresentation", 0))) for end in ends]
            return min(ends), max(ends)
    return None


def _in_range(value: int, bits: int, is_signed: bool) -> int:
    """A number of so many bits, whose sign its coding may have lost or made up."""
    span = 2**bits
    value %= span
    return value - span if is_signed and value >= span // 2 else value


def _stack(*sources: Dataset) -> Iterator[str]:
    """What may tell frames at one place apart, the strongest first."""
    for name in STACKS:
        value = next((source.get(name) for source in sources if source.get(name) is not None), None)
        yield f"{name} {value}" if value is not None else ""


def _syntax(dataset: Dataset) -> str:
    uid = UID(uid_of(dataset))
    return str(uid.name) if uid else ""


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
