"""DICOM as a file format: images of one frame, volumes of a series or of many frames, segmentation objects."""

import contextlib
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.errors import DataError
from medgraft.io.array_files import ARRAY_MASKS
from medgraft.io.dicom import FrameValues, Rescale, Windows, asked_windows, on_scale, read_dicom, to_integers
from medgraft.io.dicom_header import MAX_VALUES, DicomFile, read_header
from medgraft.io.dicom_open import is_dicom
from medgraft.io.dicom_pixels import stored_numbers
from medgraft.io.dicom_seg import demand_highdicom, is_seg, read_seg, segment_labels, write_seg
from medgraft.io.file_format import NOWHERE, FileFormat, MaskWriter, Pixels, Place
from medgraft.io.image import MAX_PIXELS, grey_if_equal
from medgraft.io.mask_values import whole_numbers
from medgraft.io.nifti import from_ras, ras_order, to_ras
from medgraft.io.nifti_files import NIFTI_MASKS
from medgraft.io.picture_files import PICTURE_MASKS
from medgraft.io.series import Stack, stacks_of
from medgraft.io.volume_values import facts_of, one_at_a_time, placed, spacing_of
from medgraft.types import ImageFacts, MaskReading, Reading

__all__ = ["DICOM"]

LARGE: Final = 2**23
_large = threading.BoundedSemaphore(2)
_VOLUME: Final = "It is a volume: use a network for volumes."
_FILM: Final = "It is a film: read its frames with --set data.frames=first, middle or all (judged together)."


def _image(path: Path, reading: Reading) -> Pixels:
    header = read_header(path)
    frame_number = _frame_number(header, reading, path)
    windows = asked_windows(reading.windows, header, path)
    if header.rows * header.columns * header.samples > MAX_PIXELS:
        sizes = f"{header.columns}×{header.rows}"
        raise DataError(f"{path}: declares {sizes} pixels, over the limit of {MAX_PIXELS:,}.")
    # Real values take some thirty bytes a pixel on their way.
    with _large if header.rows * header.columns > LARGE else contextlib.nullcontext():
        header, frames = read_dicom(path, rescale=reading.rescale, windows=windows, index=frame_number)
        frame = on_scale(header, frames[0], reading.scaling)
        pixels = grey_if_equal(to_integers(frame))
    return np.ascontiguousarray(pixels), _image_facts_of(header, 1 if pixels.ndim == 2 else 3, frame)


def _frame_number(header: DicomFile, reading: Reading, path: Path) -> int:
    """Which frame is the image.

    Args:
        header: What the file says of itself.
        reading: The frame that is wished.
        path: The file, for the error.
    """
    count = len(header.frames)
    if count == 1:
        return 0
    if isinstance(reading.frames, int):
        return reading.frames
    if reading.frames in ("first", "middle"):
        return 0 if reading.frames == "first" else count // 2
    advice = _VOLUME if all(frame.position for frame in header.frames) else _FILM
    raise DataError(f"{path}: holds {count} frames, expected one. {advice}")


def _image_facts(path: Path) -> ImageFacts:
    header = read_header(path)
    return _image_facts_of(header, 3 if header.samples == 3 or header.photometric == "PALETTE COLOR" else 1, None)


def _image_facts_of(header: DicomFile, channels: int, frame: FrameValues | None) -> ImageFacts:
    """Facts of an image of one frame.

    Args:
        header: What the file says of itself; its first frame tells the spacing.
        channels: 1 (grey) or 3 (RGB).
        frame: Its decoded frame; None where the header alone was read.
    """
    return ImageFacts(
        height=header.rows,
        width=header.columns,
        channels=channels,
        bits=16,
        mode="DICOM",
        modality=header.modality,
        **_told(header, frame),
        spacing_mm=header.frames[0].spacing_mm,
        stored_mm=header.frames[0].spacing_mm,
        is_at_detector=header.frames[0].spacing_of == "ImagerPixelSpacing",
    )


def _told(header: DicomFile, frame: FrameValues | None) -> dict[str, Any]:
    """What facts tell of a device, and of what was done to stored numbers.

    Args:
        header: What the file says of itself.
        frame: What was decoded; None where the header alone was read.
    """
    facts: dict[str, Any] = {"device": header.device, "stored_bits": header.bits_stored}
    if frame is not None:
        is_padded = frame.is_padding is not None
        facts |= {"steps": (*frame.steps, *(["padding"] if is_padded else [])), "decoder": frame.decoder}
    return facts


def _volume(files: Sequence[Path], reading: Reading) -> Pixels:
    headers = {path: read_header(path) for path in files}
    num_values = sum(header.num_values for header in headers.values())
    if num_values > MAX_VALUES:
        raise DataError(f"{files[0].parent}: {len(files)} files of more than {MAX_VALUES:,} values together.")
    num_series = len({header.series_uid for header in headers.values() if header.series_uid})
    if num_series > 1:
        raise DataError(f"{files[0].parent}: expected the slices of one series, got {num_series} series. Name one.")
    stacks = stacks_of(headers)
    if len(stacks) > 1:
        names = ", ".join(stack.name for stack in stacks)
        raise DataError(f"{files[0]}: holds {len(stacks)} volumes ({names}), expected one. Export one of them.")
    (stack,) = stacks
    header = headers[stack.slices[0][0]]
    windows = asked_windows(reading.windows, header, files[0])
    with one_at_a_time(num_values, reading):
        volume = _stacked(stack, headers, reading.rescale, windows)
        # (D, H, W, …) in the order of the stack to (X, Y, Z, …) as its affine counts.
        order = (2, 1, 0, *range(3, volume.values.ndim))
        is_settled = volume.is_padding is not None
        if is_settled:
            # Before neighbours are mixed: what is no image must not shine into it.
            volume = on_scale(header, volume, reading.scaling)
        values, spacing, stored = placed(volume.values.transpose(order), stack.affine, reading, files[0])
        volume = dataclasses.replace(volume, values=values)
        pixels = to_integers(volume if is_settled else on_scale(header, volume, reading.scaling))
    facts = facts_of(pixels, mode="DICOM", spacing_mm=spacing, stored_mm=stored)
    return pixels, dataclasses.replace(facts, modality=header.modality, **_told(header, volume))


def _stacked(stack: Stack, headers: dict[Path, DicomFile], rescale: Rescale, windows: Windows | None) -> FrameValues:
    """The slices of a stack in its order, all read alike: one window and one decision on rescaling for all.

    Args:
        stack: The slices of one volume.
        headers: What each file of the stack says of itself.
        rescale: Whether the modality transform is applied where no window asks for it; slices with different transforms
            always get theirs.
        windows: None for the window of the slices, that of the middle one where they differ; else centres and widths in
            rescaled units; empty for none.
    """
    frames = [headers[path].frames[number] for path, number in stack.slices]
    if len({(frame.slope, frame.intercept) for frame in frames}) > 1:
        rescale = "always"
    where = stack.slices[0][0].parent
    if windows is None and len(headers) > 1 and any(header.has_voi_lut for header in headers.values()):
        raise DataError(f"{where}: every slice has a lookup table of its own (VOI). Read them with data.windows=none.")
    if windows is None and len({(frame.window, frame.window_function) for frame in frames}) > 1:
        middle = frames[len(frames) // 2]
        if {frame.window_function for frame in frames} != {"LINEAR"}:
            raise DataError(f"{where}: windows that differ and are not linear. Read them with data.windows=none.")
        windows = (middle.window,) if middle.window is not None else None
    decoded: dict[Path, list[FrameValues]] = {}
    for path in dict.fromkeys(path for path, _ in stack.slices):
        decoded[path] = read_dicom(path, rescale=rescale, windows=windows)[1]
    slices = [decoded[path][number] for path, number in stack.slices]
    if len({plane.steps for plane in slices}) > 1 or any(plane.values.shape[2:] for plane in slices if not windows):
        kinds = sorted({", ".join(plane.steps) or "nothing" for plane in slices})
        raise DataError(
            f"{where}: slices stored unlike each other (steps: {'; '.join(kinds)}) or coloured. "
            "Read them with --set data.windows=none."
        )
    paddings = [
        np.zeros(plane.values.shape[:2], bool) if plane.is_padding is None else plane.is_padding for plane in slices
    ]
    return FrameValues(
        values=np.stack([plane.values for plane in slices]),
        low=min(plane.low for plane in slices),
        high=max(plane.high for plane in slices),
        steps=slices[0].steps,
        is_padding=np.stack(paddings) if any(padding.any() for padding in paddings) else None,
        decoder=next((plane.decoder for plane in slices if plane.decoder), ""),
    )


def _volume_facts(files: Sequence[Path], is_spaced: bool) -> ImageFacts:
    header = read_header(files[0])
    depth = len(header.frames) if len(files) == 1 else len(files)
    # Columns, rows and slices run along these.
    sides, affine = (header.columns, header.rows, depth), np.eye(4)
    if orientation := header.frames[0].orientation:
        row, column = np.array(orientation).reshape(2, 3)
        affine[:3, :3] = np.stack([row, column, np.cross(row, column)], 1)
    steps: tuple[float, ...] = ()
    if is_spaced or len(header.frames) > 1:
        with contextlib.suppress(DataError):  # told where it is read
            (stack, *_) = stacks_of({path: read_header(path) for path in files})
            affine, sides = stack.affine, (header.columns, header.rows, len(stack.slices))
            steps = spacing_of(to_ras(np.zeros((1, 1, 1)), affine)[1])
    depth, height, width = (sides[axis] for axis in ras_order(affine)[::-1])
    return ImageFacts(
        depth=depth, height=height, width=width, channels=1, bits=16, mode="DICOM", modality=header.modality,
        spacing_mm=steps, stored_mm=steps,
    )  # fmt: skip


def _mask(path: Path, images: Sequence[Path], reading: MaskReading) -> np.ndarray:
    """Labels of a mask: those of a segmentation object, or the numbers in a grey file.

    Args:
        path: The DICOM file of the mask.
        images: Files of the image, which a segmentation object points at.
        reading: Number by label of the object's segments.
    """
    segments = reading.segments
    if not is_seg(path):
        return whole_numbers(stored_numbers(path), path)
    if not images or not all(is_dicom(file) for file in images):
        raise DataError(f"{path}: a DICOM segmentation belongs to DICOM images, got others. Export it as NIfTI or PNG.")
    headers = {file: read_header(file) for file in images}
    if len(images) == 1 and len(headers[images[0]].frames) == 1:
        return whole_numbers(_by_label(read_seg(path, images)[0], path, segments), path)
    (stack, *_) = stacks_of(headers)
    sources = [file for file, _ in stack.slices]
    if len(set(sources)) > 1:
        frames = read_seg(path, sources)
    else:
        # One file of many frames: in the order of the volume, not of the file.
        frames = read_seg(path, sources[:1], len(stack.slices))[[number for _, number in stack.slices]]
    frames = _by_label(frames, path, segments)
    turned, _ = to_ras(frames.transpose(2, 1, 0), stack.affine)
    return whole_numbers(np.ascontiguousarray(turned.transpose(2, 1, 0)), path)


def _by_label(numbers: np.ndarray, path: Path, segments: Mapping[str, int]) -> np.ndarray:
    """The numbers that stand for the labels of an object's segments, in the place of its own.

    Args:
        numbers: Segment numbers of any shape, 0 where no segment lies.
        path: The segmentation object.
        segments: Number by label; empty leaves `numbers` as they are.
    """
    if not segments:
        return numbers
    lookup, labels = np.zeros(int(numbers.max()) + 1, dtype=np.uint16), segment_labels(path)
    for number in np.unique(numbers[numbers > 0]).tolist():
        label = labels.get(int(number), "")
        if label not in segments:
            raise DataError(f"{path}: holds the segment {label!r}, expected one of {', '.join(segments)}.")
        lookup[int(number)] = segments[label]
    return np.asarray(lookup[numbers])


def _place(files: Sequence[Path], dims: int) -> Place:
    if dims != 3:
        return NOWHERE
    (stack, *_) = stacks_of({path: read_header(path) for path in files})
    return Place(affine=stack.affine, stack=stack)


def _write(
    _numbers: np.ndarray,
    mask: np.ndarray,
    files: Sequence[Path],
    geometry: Place,
    path: Path,
    classes: Sequence[str],
    version: str,
) -> None:
    """Write a mask as a segmentation object.

    Args:
        _numbers: Not used, because DICOM-SEG counts classes from 1.
        mask: (H, W) or (D, H, W) class numbers, 0 the background, as the image is read.
        files: Files of the image.
        geometry: Affine and slices of a volume; a mask without them is that of an image.
        path: The file to write.
        classes: Names of the class numbers from 1.
        version: Version of the program.
    """
    if geometry.stack is None or geometry.affine is None:
        write_seg(mask[None], files, classes, path, version=version, slice_mm=None)
        return
    frames = from_ras(mask.transpose(2, 1, 0), geometry.affine).transpose(2, 1, 0)
    sources = [file for file, _ in geometry.stack.slices]
    if len(set(sources)) == 1:
        # One file of many frames: in their order there.
        frames, sources = frames[np.argsort([number for _, number in geometry.stack.slices])], sources[:1]
    slice_mm = float(np.linalg.norm(geometry.affine[:3, 2]))
    write_seg(np.ascontiguousarray(frames), sources, classes, path, version=version, slice_mm=slice_mm)


DICOM_MASKS = MaskWriter(name="dicom-seg", suffix=".dcm", write=_write, demand=demand_highdicom)
DICOM = FileFormat(
    name="DICOM",
    suffixes=frozenset({".dcm", ".dicom", ".ima"}),
    is_placed=True,
    begins=is_dicom,
    image=_image,
    image_facts=_image_facts,
    volume=_volume,
    volume_facts=_volume_facts,
    mask=_mask,
    place=_place,
    writes={2: (DICOM_MASKS, PICTURE_MASKS, ARRAY_MASKS), 3: (DICOM_MASKS, NIFTI_MASKS)},
)
