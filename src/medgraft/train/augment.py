"""Batched random augmentation, tensor work on the device that trains; the same code for 2D and 3D."""

import dataclasses
import math
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medgraft.errors import ConfigError

__all__ = ["AUGMENTATIONS", "AugmentSettings", "augment_batch", "augment_pair"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSettings:
    """How strongly images are varied; zero switches a part off.

    Args:
        rotate_deg: Largest rotation to either side, degrees.
        zoom: Largest relative change of scale, e.g. 0.1 for 0.9 to 1.1.
        shift: Largest shift as a share of the side.
        flip: Axes that may be mirrored. Off by default: left and right differ in the body.
        brightness: Largest additive change on the scale 0 to 1.
        contrast: Largest relative change of contrast.
        noise: Largest standard deviation of Gaussian noise on the scale 0 to 1.
    """

    rotate_deg: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    flip: Literal["none", "horizontal", "all"] = "none"
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rotate_deg", "zoom", "shift", "brightness", "contrast", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be zero or positive, got {getattr(self, name)}.")
        if self.zoom >= 1:
            raise ConfigError(f"zoom must be below 1, got {self.zoom}. Typical: 0.1.")


AUGMENTATIONS: Final[dict[str, AugmentSettings]] = {
    "none": AugmentSettings(),
    "paper": AugmentSettings(rotate_deg=10, zoom=0.1, shift=0.05),
    "light": AugmentSettings(rotate_deg=7, zoom=0.08, shift=0.04, brightness=0.05, contrast=0.1),
    "standard": AugmentSettings(rotate_deg=12, zoom=0.15, shift=0.08, brightness=0.1, contrast=0.2),
    "strong": AugmentSettings(rotate_deg=20, zoom=0.25, shift=0.12, brightness=0.15, contrast=0.3, noise=0.03),
}


def augment_batch(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """A randomly varied copy of `images`; every image draws its own parameters.

    Args:
        images: (B, C, *spatial) on the scale 0 to 1, two or three spatial axes.
        settings: How strongly.
        generator: On the CPU: the draws are then the same on every device.

    Examples:
        >>> batch = torch.rand(2, 1, 8, 8)
        >>> torch.equal(augment_batch(batch, AugmentSettings(), torch.Generator()), batch)
        True
    """
    return augment_pair(images, None, settings, generator)[0]


def augment_pair(
    images: Tensor, masks: Tensor | None, settings: AugmentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Randomly varied images with their masks moved in step; what changes brightness leaves masks alone.

    Args:
        images: (B, C, *spatial) on the scale 0 to 1.
        masks: (B, *spatial) class numbers, which stay whole; None for none.
        settings: How strongly.
        generator: On the CPU. Equal draws with and without masks.

    Examples:
        >>> settings = AugmentSettings(rotate_deg=90, flip="all", shift=0.2)
        >>> images = (torch.rand(4, 1, 16, 16) > 0.5).float()
        >>> _, masks = augment_pair(images, images[:, 0].long(), settings, torch.Generator())
        >>> masks.dtype, masks.unique().tolist()
        (torch.int64, [0, 1])
    """
    if settings.rotate_deg or settings.zoom or settings.shift or settings.flip != "none":
        grid = _grid(images, settings, generator)
        images = F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
        if masks is not None:
            numbers = masks[:, None].to(grid.dtype)
            moved = F.grid_sample(numbers, grid, mode="nearest", padding_mode="border", align_corners=False)
            masks = moved[:, 0].to(masks.dtype)
    if settings.brightness or settings.contrast:
        images = _intensity(images, settings, generator)
    if settings.noise:
        level = torch.rand(len(images), generator=generator) * settings.noise
        noise = torch.randn(images.shape, generator=generator).to(images)
        images = images + noise * level.to(images).view(-1, *[1] * (images.ndim - 1))
    return images, masks


def _draw(count: int, limit: float, generator: torch.Generator) -> Tensor:
    """(count,) uniform draws from -limit to limit, on the CPU.

    Args:
        count: How many are drawn.
        limit: Largest absolute value.
        generator: On the CPU.
    """
    return (torch.rand(count, generator=generator) * 2 - 1) * limit


def _grid(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Where each pixel of the moved images comes from, (B, *spatial, axes) from -1 to 1; every image its own.

    Args:
        images: (B, C, *spatial).
        settings: How strongly images are moved.
        generator: On the CPU.
    """
    batch, ndim = len(images), images.ndim - 2
    # The grid counts each axis from -1 to 1: where sides differ, a rotation would shear.
    sides = torch.tensor(images.shape[:1:-1], dtype=torch.float32)
    matrix = torch.eye(ndim).repeat(batch, 1, 1)
    for first in range(ndim):
        for second in range(first + 1, ndim):
            matrix = matrix @ _rotation(ndim, first, second, _draw(batch, settings.rotate_deg, generator))
    matrix = matrix * sides / sides[:, None]
    matrix = matrix * (1 + _draw(batch, settings.zoom, generator)).view(-1, 1, 1)
    shift = torch.stack([_draw(batch, 2 * settings.shift, generator) for _ in range(ndim)], 1)
    if settings.flip != "none":
        for axis in range(ndim if settings.flip == "all" else 1):
            sign = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
            matrix[:, :, axis] *= sign.view(-1, 1)
    theta = torch.cat([matrix, shift.unsqueeze(2)], 2).to(images.device)
    return F.affine_grid(theta, list(images.shape), align_corners=False)


def _rotation(ndim: int, first: int, second: int, degrees: Tensor) -> Tensor:
    """(B, ndim, ndim) rotations in the plane of two axes.

    Args:
        ndim: Number of spatial axes.
        first: One axis of the plane, counted as in the grid: 0 is the last axis of an image.
        second: The other axis of the plane.
        degrees: (B,) angles.
    """
    angle = degrees * math.pi / 180
    matrix = torch.eye(ndim).repeat(len(degrees), 1, 1)
    matrix[:, first, first] = matrix[:, second, second] = torch.cos(angle)
    matrix[:, first, second] = -torch.sin(angle)
    matrix[:, second, first] = torch.sin(angle)
    return matrix


def _intensity(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Images with a random contrast about their own mean, and a random brightness.

    Args:
        images: (B, C, *spatial) on the scale 0 to 1.
        settings: How strongly brightness and contrast change.
        generator: On the CPU.
    """
    shape = (-1, *[1] * (images.ndim - 1))
    gain = (1 + _draw(len(images), settings.contrast, generator)).to(images).view(shape)
    offset = _draw(len(images), settings.brightness, generator).to(images).view(shape)
    mean = images.mean(tuple(range(1, images.ndim)), keepdim=True)
    return (images - mean) * gain + mean + offset
