"""DICOM files that the tests write themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}


def dicom(
    stored: np.ndarray,
    *,
    modality: str = "DX",
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    rescale: tuple[float, float] | None = None,
    window: tuple[Any, Any] | None = None,
    function: str | None = None,
    **others: Any,
) -> Dataset:
    """A data set of one frame (H, W), of colour (H, W, 3), or of several (F, H, W).

    Args:
        stored: Integers; a signed type makes a signed file.
        modality: Of the file.
        bits: Stored.
        photometric: Interpretation.
        rescale: Slope and intercept.
        window: Centre and width, or lists of them.
        function: VOILUTFunction.
        others: Further elements by keyword.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CLASSES.get(modality, DigitalXRayImageStorageForPresentation)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientID, made.AccessionNumber, made.Modality = "P1", "A1", modality
    is_colour = stored.ndim == 3 and photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    if stored.ndim == 3 and not is_colour:
        made.NumberOfFrames = len(stored)
    made.Rows, made.Columns = stored.shape[:2] if is_colour else stored.shape[-2:]
    made.SamplesPerPixel = 3 if is_colour else 1
    if is_colour:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric
    made.BitsAllocated = 8 * stored.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    if rescale is not None:
        made.RescaleSlope, made.RescaleIntercept = rescale
    if window is not None:
        made.WindowCenter, made.WindowWidth = (list(v) if isinstance(v, Sequence) else v for v in window)
    if function is not None:
        made.VOILUTFunction = function
    made.PixelData = np.ascontiguousarray(stored).tobytes()
    made["PixelData"].VR = "OB" if stored.itemsize == 1 else "OW"
    for name, value in others.items():
        setattr(made, name, value)
    return made


def lut(entries: Sequence[int], first: int, bits: int) -> Items:
    """A modality or VOI LUT sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = list(entries)
    item["LUTDescriptor"].VR, item["LUTData"].VR = ("US" if first >= 0 else "SS"), "US"
    return Items([item])


def save(made: Dataset, path: Path) -> Path:
    """Write it, and the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def slice_at(stored: np.ndarray, z: float, *, series: str, **options: Any) -> Dataset:
    """An axial slice at `z` mm, 0.5 × 0.7 mm."""
    return dicom(
        stored,
        **{"modality": "CT", **options},
        SeriesInstanceUID=series,
        ImagePositionPatient=[10.0, 20.0, z],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[0.5, 0.7],
    )


def enhanced(frames: np.ndarray, places: Sequence[float], *, slopes: Sequence[float] | None = None) -> Dataset:
    """An enhanced multi-frame CT whose frames lie at `places` mm, in any order."""
    made = dicom(frames, modality="CT", bits=12)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = [0.5, 0.7], [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Items([measures]), Items([plane])
    made.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for number, place in enumerate(places):
        own, position, transform = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [10.0, 20.0, float(place)]
        transform.RescaleSlope = float(slopes[number]) if slopes else 1.0
        transform.RescaleIntercept = -1024.0
        own.PlanePositionSequence, own.PixelValueTransformationSequence = Items([position]), Items([transform])
        groups.append(own)
    made.PerFrameFunctionalGroupsSequence = Items(groups)
    return made


def compressed(made: Dataset, syntax: str) -> Dataset:
    """The same with its pixels in another transfer syntax that pydicom can write."""
    made.compress(pydicom.uid.UID(syntax), generate_instance_uid=False)
    return made
