"""What makes two images or volumes comparable: digest and thumbnail."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

from medgraft.io.preprocess import prepare
from medgraft.types import Preprocessing

__all__ = ["THUMBNAIL", "pixel_digest", "quarters", "thumbnail", "views"]

THUMBNAIL: Final = 64
"""Side of a thumbnail, px."""
GREY: Final = Preprocessing(sides=(THUMBNAIL, THUMBNAIL), channels=1, intensity_max=65535)
QUARTER: Final = dataclasses.replace(GREY, sides=(THUMBNAIL // 2, THUMBNAIL // 2))


def pixel_digest(pixels: np.ndarray) -> bytes:
    """sha256 (32 bytes) of decoded pixels: shape, type and values; the file's name and coding play no part.

    Args:
        pixels: (H, W) or (H, W, 3) integers; of volumes (D, H, W) or (D, H, W, 3).

    Examples:
        >>> pixel_digest(np.zeros((2, 3), np.uint8)) == pixel_digest(np.zeros((3, 2), np.uint8))
        False
    """
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.newbyteorder('<').str}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def views(volume: np.ndarray) -> tuple[np.ndarray, ...]:
    """Images of a volume: its middle slice along each axis, and its mean along the first.

    Args:
        volume: (D, H, W) or (D, H, W, 3) integers.
    """
    middle = [np.take(volume, volume.shape[axis] // 2, axis=axis) for axis in range(3)]
    return (*middle, np.rint(volume.mean(0)).astype(volume.dtype))


def thumbnail(pixels: np.ndarray, dims: int = 2) -> np.ndarray:
    """(64, 64) uint8 grey, stretched from the image's minimum and maximum to 0 and 255.

    The thumbnail of a volume shows its four `views`, a quarter each.

    Args:
        pixels: (H, W) or (H, W, 3), uint8 or uint16; of volumes (D, H, W) or (D, H, W, 3).
        dims: 2 for images, 3 for volumes.

    Examples:
        >>> thumbnail(np.arange(100, 164, dtype=np.uint8).reshape(8, 8)).max()
        np.uint8(255)
    """
    if dims == 2:
        small = prepare(pixels, GREY)[0].astype(np.float32)
    else:
        slice_d, slice_h, slice_w, mean = (prepare(view, QUARTER)[0].astype(np.float32) for view in views(pixels))
        small = np.block([[slice_d, slice_h], [slice_w, mean]])
    low, high = small.min(), small.max()
    return np.asarray(np.rint((small - low) * (255 / max(high - low, 1))), dtype=np.uint8)


def quarters(thumbs: np.ndarray) -> Iterator[np.ndarray]:
    """The four views in thumbnails of volumes, each as large as the whole.

    Args:
        thumbs: (…, 64, 64) from `thumbnail`.
    """
    half = THUMBNAIL // 2
    for row, column in itertools.product((0, half), repeat=2):
        yield thumbs[..., row : row + half, column : column + half].repeat(2, axis=-2).repeat(2, axis=-1)
