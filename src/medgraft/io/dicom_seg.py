"""The adapter to highdicom: masks of DICOM images as DICOM segmentation objects (SEG)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage, generate_uid

from medgraft.errors import ConfigError, DataError
from medgraft.io.dicom_open import quiet, read_dataset

__all__ = ["demand_highdicom", "is_seg", "read_seg", "segment_labels", "write_seg"]

_SERIES: Final = 9000
# Attributes of type 2 have to be there, and may be empty.
_MAY_BE_EMPTY: Final = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def is_seg(path: Path) -> bool:
    """Whether a DICOM file is a segmentation object.

    Raises:
        DataError: It cannot be read.
    """
    return bool(str(read_dataset(path, stop_before_pixels=True).get("SOPClassUID", "")) == SegmentationStorage)


def segment_labels(path: Path) -> dict[int, str]:
    """What the segments of a segmentation object are called, by their numbers.

    Raises:
        DataError: It cannot be read.
    """
    segments = read_dataset(path, stop_before_pixels=True).get("SegmentSequence", [])
    return {int(item.SegmentNumber): " ".join(str(item.get("SegmentLabel", "")).split()) for item in segments}


def read_seg(path: Path, files: Sequence[Path], num_frames: int = 1) -> np.ndarray:
    """(F, H, W) segment numbers of a segmentation object, for each frame of its images; 0 where no segment lies.

    Args:
        path: The segmentation object.
        files: Single-frame images in the wished order, or one multi-frame file.
        num_frames: Frames of the multi-frame file; 1 for single-frame images.

    Raises:
        ConfigError: highdicom is not installed.
        DataError: It cannot be read, is of other images, or its segments lie over each other.
    """
    hd = demand_highdicom()
    uids = [str(read_dataset(file, stop_before_pixels=True).SOPInstanceUID) for file in files]
    common: dict[str, Any] = {
        "combine_segments": True, "assert_missing_frames_are_empty": True, "ignore_spatial_locations": True
    }  # fmt: skip
    try:
        with quiet():
            segmentation = hd.seg.segread(path)
            if not {sop for _, _, sop in segmentation.get_source_image_uids()} & set(uids):
                raise ValueError("it points at other images")
            if len(uids) > 1 or num_frames == 1:
                pixels = segmentation.get_pixels_by_source_instance(uids, **common)
            else:
                pixels = segmentation.get_pixels_by_source_frame(uids[0], list(range(1, num_frames + 1)), **common)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: no segmentation of its images that can be read ({reason}).") from error
    return np.asarray(pixels)


def write_seg(
    mask: np.ndarray, files: Sequence[Path], classes: Sequence[str], path: Path, *, version: str, slice_mm: float | None
) -> None:
    """Write a mask as a segmentation object that points at its images; viewers lay it over them.

    Args:
        mask: (F, H, W) uint8 class numbers of the frames of `files`, 0 the background.
        files: Single-frame images in the order of the frames, or one multi-frame file.
        classes: Names of the numbers from 1.
        path: To be written.
        version: Version of the program.
        slice_mm: Distance of the slices of a volume; None of images.

    Raises:
        ConfigError: highdicom is not installed.
        DataError: The images lack what a segmentation object has to repeat.
        OSError: The file cannot be written.
    """
    hd = demand_highdicom()
    digest = hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()
    try:
        with quiet():
            images = [_complete(read_dataset(file), slice_mm) for file in files]
            content = ["medgraft", version, str(images[0].SOPInstanceUID), *classes, digest]
            made = hd.seg.Segmentation(
                source_images=images,
                pixel_array=mask,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_segment(hd, number, name, version) for number, name in enumerate(classes, 1)],
                # The same mask of the same image is the same object, and another one another.
                series_instance_uid=generate_uid(entropy_srcs=[*content, "series"]),
                sop_instance_uid=generate_uid(entropy_srcs=[*content, "mask"]),
                series_number=_SERIES,
                instance_number=1,
                manufacturer="medgraft",
                manufacturer_model_name="medgraft",
                software_versions=version,
                device_serial_number="0",
                omit_empty_frames=bool(mask.any()),
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"{files[0]}: cannot carry a DICOM segmentation ({reason}). Give --format png or nifti."
        ) from error
    made.save_as(path)


def demand_highdicom() -> Any:
    """The highdicom library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise ConfigError("DICOM-SEG needs highdicom. Run pip install 'medgraft[dicom]', or give --format.") from error
    return highdicom


def _segment(hd: Any, number: int, name: str, version: str) -> Any:
    """The description of one class; what it means in the body is known to the user alone.

    Args:
        hd: The highdicom library.
        number: Number of the segment, from 1.
        name: Name of the class.
        version: Version of the program.
    """
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.cid7150.AnatomicalStructure,
        segmented_property_type=hd.sr.CodedConcept(f"class{number}", "99MEDGRAFT", name),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="medgraft", version=version, family=codes.cid7162.ArtificialIntelligence
        ),
    )


def _complete(image: Dataset, slice_mm: float | None) -> Dataset:
    """The image with what a segmentation has to repeat; anonymisation takes much of it away."""
    for keyword in _MAY_BE_EMPTY:
        if keyword not in image:
            setattr(image, keyword, "")
    if "ImagePositionPatient" in image and "FrameOfReferenceUID" not in image:
        image.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(image.SeriesInstanceUID), "frame of reference"])
    for measures in _measures(image) if slice_mm is not None else ():
        if measures.get("SliceThickness") is None:
            measures.SliceThickness = slice_mm
    return image


def _measures(image: Dataset) -> list[Dataset]:
    """Where the thickness of slices stands: in the image, or in the shared or own groups of its frames."""
    groups = [*image.get("SharedFunctionalGroupsSequence", []), *image.get("PerFrameFunctionalGroupsSequence", [])]
    measures = [item for group in groups for item in group.get("PixelMeasuresSequence", [])]
    return measures or [image]
