"""Pixels to the network's square input: the one function used by the cache and by prediction."""

from typing import Final

import numpy as np
from PIL import Image

from medgraft.errors import ConfigError, DataError
from medgraft.types import Preprocessing

__all__ = ["intensity_scale", "prepare"]

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


def prepare(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """(C, S, S) integers: grey ↔ RGB, then antialiased bilinear resize, in the depth of the input.

    Colour becomes grey by ITU-R BT.601 luminance, grey becomes colour by repetition. Results are rounded
    and lie within the range of the input, so values above `intensity_max` stay visible to the caller.

    Args:
        pixels: (H, W) or (H, W, 3), uint8 or uint16, as `read_image` returns them.
        preprocessing: `size`, `channels` and `resize` are used.

    Raises:
        DataError: The array is no such image.
        ConfigError: `size` or `channels` is out of range.

    Examples:
        >>> setting = Preprocessing(size=2, channels=3, intensity_max=255, resize="pad")
        >>> prepare(np.full((4, 8), 7, np.uint8), setting).shape
        (3, 2, 2)
    """
    _check(pixels, preprocessing)
    channels, size = preprocessing.channels, preprocessing.size
    if pixels.ndim == 3 and channels == 1:
        pixels = _luminance(pixels)
    height, width = pixels.shape[:2]
    if preprocessing.resize == "squash":
        resized = _resize(pixels, size, size)
    else:
        scale = size / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        inner = _resize(pixels, rows, columns)
        resized = np.full((size, size, *inner.shape[2:]), inner.min(), dtype=inner.dtype)
        top, left = (size - rows) // 2, (size - columns) // 2
        resized[top : top + rows, left : left + columns] = inner
    stacked = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(stacked, (channels, size, size)))


def _check(pixels: np.ndarray, preprocessing: Preprocessing) -> None:
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.size == 0:
        raise DataError(f"expected uint8 or uint16 pixels, got {pixels.dtype} of shape {pixels.shape}.")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DataError(f"expected pixels of shape (H, W) or (H, W, 3), got {pixels.shape}.")
    if preprocessing.size < 1:
        raise ConfigError(f"size must be at least 1 px, got {preprocessing.size}. Typical: 28 to 512.")
    if preprocessing.channels not in (1, 3):
        raise ConfigError(f"channels must be 1 (grey) or 3 (RGB), got {preprocessing.channels}.")
    if preprocessing.resize not in ("squash", "pad"):
        raise ConfigError(f"resize must be squash or pad, got {preprocessing.resize!r}.")


def _luminance(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).convert("L"))
    return np.asarray(np.rint(pixels @ LUMINANCE), dtype=pixels.dtype)


def _resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    if pixels.ndim == 3:
        return np.stack([_resize(pixels[..., c], height, width) for c in range(3)], axis=2)
    # Through float: a float32 carries 16-bit integers exactly, which Pillow's 8-bit path does not.
    image = Image.fromarray(pixels.astype(np.float32))
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return np.asarray(np.rint(np.clip(resized, 0, 65535)), dtype=np.uint16)
