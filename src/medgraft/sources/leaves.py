"""Drawn images with the statistics of photographs, for looking at a network without anybody's data."""

import functools
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["dead_leaves"]

_MEAN: Final = (0.485, 0.456, 0.406)
# Photographs vary most in light, less between blue and yellow, least between red and green.
_BLUE_YELLOW: Final = np.array([1.0, 1.0, -2.0]) / np.sqrt(6.0)
_RED_GREEN: Final = np.array([1.0, -1.0, 0.0]) / np.sqrt(2.0)
_LIGHT, _LIGHT_OF_ALL, _BY, _RG, _SHADE, _GRAIN = 0.24, 0.12, 0.12, 0.05, 0.15, 0.05
_SMALLEST: Final = 1.5
_COVERED: Final = 0.999


@functools.lru_cache(maxsize=4)
def dead_leaves(num_images: int, side: int) -> Tensor:
    """Discs that cover each other, their sizes by a power law: (N, 3, side, side) on the scale 0 to 1.

    Edges, contrast and colours vary as in photographs (mean of ImageNet, deviation near .25), which is what the first
    layers of a network look at. Every call draws the same.

    Args:
        num_images: N.
        side: px.

    References:
        Lee, Mumford, Huang. Occlusion models for natural images. IJCV 2001.
        Baradad et al. Learning to see by looking at noise. NeurIPS 2021.
    """
    rng = np.random.default_rng(0)
    images = torch.from_numpy(np.stack([_leaves(rng, side) for _ in range(num_images)]).astype(np.float32))
    images = images.permute(0, 3, 1, 2).clamp(0, 1)
    # A lens is not as sharp as a drawn edge.
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)


def _leaves(rng: np.random.Generator, side: int) -> np.ndarray:
    """One image (side, side, 3), drawn from the nearest disc to the farthest."""
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    image, is_free = np.zeros((side, side, 3)), np.ones((side, side), bool)
    light = rng.normal(0, _LIGHT_OF_ALL)
    while is_free.mean() > 1 - _COVERED:
        # Sizes by r^-3, as objects in photographs have them.
        near, far = _SMALLEST**-2, (side / 2) ** -2
        radius = (near - rng.random() * (near - far)) ** -0.5
        row, column = rng.random(2) * side
        disc = ((columns - column) ** 2 + (rows - row) ** 2 < radius**2) & is_free
        colour = np.array(_MEAN) + light + rng.normal(0, _LIGHT)
        colour = colour + rng.normal(0, _BY) * _BLUE_YELLOW + rng.normal(0, _RG) * _RED_GREEN
        slope = rng.normal(0, _SHADE, 2)
        shade = (slope[0] * (columns[disc] - column) + slope[1] * (rows[disc] - row)) / radius / 2
        image[disc] = colour + (shade + rng.normal(0, _GRAIN, shade.shape))[:, None]
        is_free &= ~disc
    return image
