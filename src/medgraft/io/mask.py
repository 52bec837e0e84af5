"""One mask from its file to the numbers that stand in it; nothing is scaled, smoothed or guessed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from medgraft.config import MAX_MASK_NUMBER
from medgraft.errors import DataError
from medgraft.io.array import read_array
from medgraft.io.dicom import stored_numbers
from medgraft.io.dicom_header import is_dicom, read_header
from medgraft.io.dicom_seg import is_seg, read_seg, segment_labels
from medgraft.io.image import IMAGE_SUFFIXES, read_image
from medgraft.io.nifti import MAX_VOXELS, is_nifti_name, read_nifti, to_ras
from medgraft.io.series import stacks_of

__all__ = ["NO_NAMES", "is_mask_name", "is_seg_file", "read_mask"]

NO_NAMES: Final[Mapping[str, int]] = MappingProxyType({})
"""Number by name where no number is named."""
_LOSSY: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_WHOLE: Final = 1e-3


def is_mask_name(name: str) -> bool:
    """Whether a file is called as those that hold masks are; a JPEG is, too, and refused when it is read."""
    return is_nifti_name(name) or Path(name).suffix.lower() in (IMAGE_SUFFIXES | {".npy"})


def read_mask(path: Path, images: Sequence[Path] = (), segments: Mapping[str, int] = NO_NAMES) -> np.ndarray:
    """The numbers of a mask: (H, W) of a picture, or (D, H, W) of a volume, turned as images are.

    Of a picture with a palette these are the numbers of its entries; 1-bit pictures hold 0 and 255. Voxels of NIfTI
    that are no number are background.

    Args:
        path: PNG, TIFF, BMP, NIfTI, ``.npy`` or DICOM (a segmentation object, or one grey frame of labels).
        images: Files of the image, which a segmentation object points at.
        segments: Number by label of the segments of such objects; empty: their own numbers.

    Returns:
        uint8 or uint16.

    Raises:
        DataError: It cannot be read, is coloured or lossy (JPEG), tells how it is turned where its image does not or
            the other way round, or holds other than whole numbers from 0.
    """
    if path.suffix.lower() in _LOSSY:
        raise DataError(f"{path}: a JPEG changes the numbers of a mask. Export it as PNG.")
    if is_nifti_name(path.name):
        if images and not (is_nifti_name(images[0].name) or is_dicom(images[0])):
            raise DataError(
                f"{path}: says how it is turned, which its image ({images[0].suffix or images[0].name}) does not. "
                "Export both as NIfTI, or both as arrays."
            )
        values, _ = to_ras(*read_nifti(path, outside=0))
        return _whole(np.ascontiguousarray(values.transpose(2, 1, 0)), path)
    if path.suffix.lower() == ".npy":
        values = read_array(path)
        if values.ndim == 3 and any(is_nifti_name(image.name) or is_dicom(image) for image in images[:1]):
            raise DataError(
                f"{path}: an array does not tell how it is turned, which its image does. Export it as NIfTI."
            )
        return _whole(values, path)
    if path.suffix.lower() not in IMAGE_SUFFIXES and is_dicom(path):
        return _dicom_mask(path, images, segments)
    pixels, _ = read_image(path, keeps_numbers=True)
    if pixels.ndim == 3:
        raise DataError(f"{path}: a coloured mask, expected one number per pixel. Export it grey, or with a palette.")
    return pixels


def _dicom_mask(path: Path, images: Sequence[Path], segments: Mapping[str, int]) -> np.ndarray:
    if not is_seg(path):
        return _whole(stored_numbers(path), path)
    if not images or not all(is_dicom(file) for file in images):
        raise DataError(f"{path}: a DICOM segmentation belongs to DICOM images, got others. Export it as NIfTI or PNG.")
    headers = {file: read_header(file) for file in images}
    if len(images) == 1 and len(headers[images[0]].frames) == 1:
        return _whole(_by_label(read_seg(path, images)[0], path, segments), path)
    (stack, *_) = stacks_of(headers)
    sources = [file for file, _ in stack.slices]
    if len(set(sources)) > 1:
        frames = read_seg(path, sources)
    else:
        # One file of many frames: in the order of the volume, not of the file.
        frames = read_seg(path, sources[:1], len(stack.slices))[[number for _, number in stack.slices]]
    frames = _by_label(frames, path, segments)
    turned, _ = to_ras(frames.transpose(2, 1, 0), stack.affine)
    return _whole(np.ascontiguousarray(turned.transpose(2, 1, 0)), path)


def is_seg_file(path: Path) -> bool:
    """Whether a mask is a DICOM segmentation object.

    Raises:
        DataError: It is DICOM and cannot be read.
    """
    return not is_mask_name(path.name) and is_dicom(path) and is_seg(path)


def _by_label(numbers: np.ndarray, path: Path, segments: Mapping[str, int]) -> np.ndarray:
    """The numbers that stand for the labels of an object's segments, in the place of its own."""
    if not segments:
        return numbers
    found, labels = np.zeros(int(numbers.max()) + 1, dtype=np.uint16), segment_labels(path)
    for number in np.unique(numbers[numbers > 0]).tolist():
        label = labels.get(int(number), "")
        if label not in segments:
            raise DataError(f"{path}: holds the segment {label!r}, expected one of {', '.join(segments)}.")
        found[int(number)] = segments[label]
    return np.asarray(found[numbers])


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim not in (2, 3) or values.dtype.kind not in "uifb" or not 0 < values.size <= MAX_VOXELS:
        raise DataError(f"{path}: expected numbers (H, W) or (D, H, W), got {values.dtype} {values.shape}.")
    rounded = np.rint(values.astype(np.float64))
    if not (np.abs(rounded - values) <= _WHOLE).all():
        raise DataError(f"{path}: expected whole numbers, a label per voxel. Was it resampled? Export it again.")
    if rounded.min() < 0 or rounded.max() > MAX_MASK_NUMBER:
        raise DataError(
            f"{path}: expected labels from 0 to {MAX_MASK_NUMBER}, got {rounded.min():g} to {rounded.max():g}."
        )
    return np.asarray(rounded, dtype=np.uint8 if rounded.max() < 256 else np.uint16)
