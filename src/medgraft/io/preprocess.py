"""Pixels to the network's input, masks beside them, and back: what the cache, prediction and evaluation share."""

import dataclasses
from collections.abc import Sequence
from typing import Final, get_args

import numpy as np
from PIL import Image

from medgraft.errors import ConfigError, DataError
from medgraft.io.resample import resampled_sides
from medgraft.types import USUAL_READING, Preprocessing, Resize

__all__ = ["intensity_scale", "prepare", "prepare_mask", "restore"]

SCALES: Final = tuple(2**n - 1 for n in (8, 10, 12, 14, 16))
# ITU-R BT.601 luma, as in Pillow's own conversion of RGB to L.
LUMINANCE: Final = np.array([0.299, 0.587, 0.114])


def intensity_scale(maximum: int) -> int:
    """The smallest 2^n - 1 (n = 8, 10, 12, 14, 16) that covers the largest integer of the training images.

    Args:
        maximum: Largest stored value, 0 to 65535.

    Raises:
        DataError: The value is outside 0 to 65535.

    Examples:
        >>> intensity_scale(255), intensity_scale(256), intensity_scale(3000)
        (255, 1023, 4095)
    """
    if not 0 <= maximum <= SCALES[-1]:
        raise DataError(f"the largest pixel value must be 0 to 65535, got {maximum}. Store images as 8 or 16 bit.")
    return next(scale for scale in SCALES if scale >= maximum)


def prepare(pixels: np.ndarray, preprocessing: Preprocessing, spacing_mm: Sequence[float] = ()) -> np.ndarray:
    """(C, *sides) integers: grey ↔ RGB, then antialiased linear resize, in the depth of the input.

    Colour becomes grey by ITU-R BT.601 luminance, grey becomes colour by repetition. Results are rounded
    and lie within the range of the input, so values above `intensity_max` stay visible to the caller.

    Args:
        pixels: (H, W) or (H, W, 3), uint8 or uint16, as `read_image` returns them; of volumes (D, H, W) or
            (D, H, W, 3).
        preprocessing: `sides`, `channels` and `resize` are used.
        spacing_mm: Distance of the pixels along each axis, so that ``pad`` keeps the aspect of the body; empty where
            it is unknown or the same everywhere.

    Raises:
        DataError: The array is no such image.
        ConfigError: `sides` or `channels` is out of range.

    Examples:
        >>> setting = Preprocessing(sides=(2, 2), channels=3, intensity_max=255, resize="pad")
        >>> prepare(np.full((4, 8), 7, np.uint8), setting).shape
        (3, 2, 2)
    """
    _check(pixels, preprocessing)
    channels, sides = preprocessing.channels, preprocessing.sides
    dims = len(sides)
    if pixels.ndim > dims and channels == 1:
        pixels = _luminance(pixels)
    scaled = _resize(pixels, _scaled(pixels.shape[:dims], preprocessing, spacing_mm))
    resized = _centred(scaled, sides)
    stacked = resized[None] if resized.ndim == dims else np.moveaxis(resized, -1, 0)
    return np.ascontiguousarray(np.broadcast_to(stacked, (channels, *sides)))


def prepare_mask(mask: np.ndarray, preprocessing: Preprocessing, spacing_mm: Sequence[float] = ()) -> np.ndarray:
    """(*sides) class numbers: `prepare` for masks, to the nearest number; what is added around it is background.

    Args:
        mask: (H, W) or (D, H, W) class numbers of any size that covers what its image covers.
        preprocessing: Preprocessing of the image.
        spacing_mm: Distance of the pixels in the file along each axis; empty where it is unknown.

    Examples:
        >>> setting = Preprocessing(sides=(2, 4), channels=1, intensity_max=255, resize="pad")
        >>> prepare_mask(np.array([[1, 1], [2, 2]], np.uint8), setting).tolist()
        [[0, 1, 1, 0], [0, 2, 2, 0]]
    """
    read, ratios = mask.shape, np.ones(mask.ndim)
    if _is_resampled(mask.shape, preprocessing, spacing_mm):
        common = preprocessing.reading.spacing_mm
        read = resampled_sides(mask.shape, spacing_mm, common)
        ratios, spacing_mm = np.array(common) / spacing_mm, common
    for axis, side in enumerate(_scaled(read, preprocessing, spacing_mm)):
        # Both steps at once: a number is taken from the nearest voxel of the file.
        positions = ((np.arange(side) + 0.5) * (read[axis] / side) - 0.5) * ratios[axis]
        nearest = np.clip(np.floor(positions + 0.5), 0, mask.shape[axis] - 1).astype(np.int64)
        mask = mask.take(nearest, axis=axis)
    return np.ascontiguousarray(_centred(mask, preprocessing.sides, fill=0))


def restore(
    values: np.ndarray,
    sides: Sequence[int],
    preprocessing: Preprocessing,
    spacing_mm: Sequence[float] = (),
    *,
    fill: float = 0.0,
) -> np.ndarray:
    """(*sides) float32: a map of the input at an image's own size, `prepare` backwards, linearly interpolated.

    Args:
        values: (*preprocessing.sides), e.g. probabilities of one class.
        sides: Sides of the image before it was resampled, px or voxels.
        preprocessing: The one that `values` were made under.
        spacing_mm: As in `prepare_mask`.
        fill: Where `prepare` had cut something off and nothing was seen.

    Examples:
        >>> setting = Preprocessing(sides=(4, 2), channels=1, intensity_max=255, resize="pad")
        >>> restore(np.full((4, 2), 0.75, np.float32), (6, 6), setting).shape
        (6, 6)
    """
    from torch import from_numpy
    from torch.nn import functional as F

    wished = tuple(int(side) for side in sides)
    if _is_resampled(wished, preprocessing, spacing_mm):
        common = preprocessing.reading.spacing_mm
        unread = dataclasses.replace(preprocessing, reading=USUAL_READING)
        resampled = restore(values, resampled_sides(wished, spacing_mm, common), unread, common, fill=fill)
        steps = zip(wished, spacing_mm, common, strict=True)
        return _at_places(resampled, [np.arange(side) * (old / new) for side, old, new in steps])
    scaled = _scaled(wished, preprocessing, spacing_mm)
    centred = np.ascontiguousarray(_centred(values, scaled, fill=fill), dtype=np.float32)
    if scaled == wished:
        return centred
    mode = "bilinear" if len(scaled) == 2 else "trilinear"
    interpolated = F.interpolate(from_numpy(centred)[None, None], wished, mode=mode, align_corners=False)
    return np.asarray(interpolated[0, 0].numpy())


def _is_resampled(sides: Sequence[int], preprocessing: Preprocessing, stored_mm: Sequence[float]) -> bool:
    """Whether reading brings such a volume to a common spacing before it is prepared.

    Args:
        sides: Sides of the image or mask in its file, px or voxels.
        preprocessing: Its reading names the common spacing.
        stored_mm: Distance of the pixels in the file along each axis; empty where it is unknown.
    """
    return len(sides) == len(stored_mm) == len(preprocessing.reading.spacing_mm) == 3


def _at_places(values: np.ndarray, positions: Sequence[np.ndarray]) -> np.ndarray:
    """`values` at places along each axis, linearly interpolated; outside the value at the edge."""
    for axis, wished in enumerate(positions):
        inside = np.clip(wished, 0, values.shape[axis] - 1)
        low = np.floor(inside).astype(np.int64)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = (inside - low).astype(np.float32).reshape([-1 if dim == axis else 1 for dim in range(values.ndim)])
        values = values.take(low, axis=axis) * (1 - share) + values.take(high, axis=axis) * share
    return values


def _scaled(sides: Sequence[int], preprocessing: Preprocessing, spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """The size to which an image is brought before it is cut or padded to the input.

    Args:
        sides: Sides of the image, px or voxels.
        preprocessing: `sides` and `resize` are used.
        spacing_mm: Distance of the pixels along each axis, so that ``pad`` keeps the aspect; empty where it is unknown.
    """
    wished = preprocessing.sides
    if preprocessing.resize == "squash":
        return tuple(wished)
    if preprocessing.resize == "crop":
        return tuple(sides)
    lengths = np.array(sides, dtype=np.float64)
    if len(spacing_mm) == len(sides):
        # As caches store it: a rounding apart, image and mask would differ by a row.
        lengths *= np.asarray(spacing_mm, dtype=np.float32)
    scaled = np.clip(np.rint(lengths * (np.array(wished) / lengths).min()), 1, wished)
    return tuple(int(side) for side in scaled)


def _check(pixels: np.ndarray, preprocessing: Preprocessing) -> None:
    sides = preprocessing.sides
    dims, axes = len(sides), "(H, W)" if len(sides) == 2 else "(D, H, W)"
    if dims not in (2, 3) or min(sides) < 1:
        raise ConfigError(f"expected two or three sides of at least 1 px, got {sides}. Typical: 28 to 512.")
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.size == 0:
        raise DataError(f"expected uint8 or uint16 pixels, got {pixels.dtype} of shape {pixels.shape}.")
    if pixels.ndim not in (dims, dims + 1) or (pixels.ndim == dims + 1 and pixels.shape[-1] != 3):
        raise DataError(f"expected pixels of shape {axes} or {axes[:-1]}, 3), got {pixels.shape}.")
    if preprocessing.channels not in (1, 3):
        raise ConfigError(f"channels must be 1 (grey) or 3 (RGB), got {preprocessing.channels}.")
    if preprocessing.resize not in get_args(Resize):
        raise ConfigError(f"resize must be among {', '.join(get_args(Resize))}, got {preprocessing.resize!r}.")


def _luminance(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8 and pixels.ndim == 3:
        return np.asarray(Image.fromarray(pixels).convert("L"))
    return np.asarray(np.rint(pixels @ LUMINANCE), dtype=pixels.dtype)


def _centred(pixels: np.ndarray, sides: Sequence[int], *, fill: float | None = None) -> np.ndarray:
    """`pixels` cut or padded with `fill` (their minimum) to `sides`, around the centre.

    Args:
        pixels: (H, W) or (D, H, W), with or without channels behind.
        sides: The wished sides, px or voxels.
        fill: What lies around; None for the minimum of `pixels`.
    """
    for axis, side in enumerate(sides):
        extra = side - pixels.shape[axis]
        if extra < 0:
            pixels = pixels.take(range(-extra // 2, -extra // 2 + side), axis=axis)
        elif extra:
            around = [(0, 0)] * pixels.ndim
            around[axis] = (extra // 2, extra - extra // 2)
            pixels = np.pad(pixels, around, constant_values=pixels.min() if fill is None else fill)
    return pixels


def _resize(pixels: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    """`pixels` resized axis by axis, as Pillow does it; a volume in its slices first, then across them."""
    if pixels.shape[: len(sides)] == sides:
        return pixels
    if len(sides) == 2:
        return _resize_image(pixels, *sides)
    slices = np.stack([_resize(image, sides[1:]) for image in pixels])
    return _resize_image(slices.reshape(len(slices), -1), sides[0], slices[0].size).reshape(sides[0], *slices.shape[1:])


def _resize_image(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture at another size by antialiased linear interpolation, in its own depth.

    Args:
        pixels: (H, W) or (H, W, 3), uint8 or uint16.
        height: The wished rows, px.
        width: The wished columns, px.
    """
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    if pixels.ndim == 3:
        return np.stack([_resize_image(pixels[..., c], height, width) for c in range(3)], axis=2)
    # Through float: a float32 carries 16-bit integers exactly, which Pillow's 8-bit path does not.
    image = Image.fromarray(pixels.astype(np.float32))
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return np.asarray(np.rint(np.clip(resized, 0, 65535)), dtype=np.uint16)
