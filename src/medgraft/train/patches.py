"""Patches of images with masks, drawn for training: some around what is marked, the others anywhere."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from medgraft.errors import ConfigError
from medgraft.train.batches import MaskSet, seed_for, split_batches

__all__ = ["PatchSettings", "draw_patches"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PatchSettings:
    """What a training sees of large images.

    Args:
        sides: Sides of a patch, px or voxels; where an image is smaller, all of that axis.
        per_image: Patches of one image in an epoch.
        foreground: Share of the patches drawn around a marked pixel, 0 to 1, of each class in the image as often; the
            others lie anywhere.

    Raises:
        ConfigError: A value makes no sense.
    """

    sides: tuple[int, ...]
    per_image: int = 4
    foreground: float = 0.5

    def __post_init__(self) -> None:
        if min(self.sides) < 1 or self.per_image < 1 or not 0 <= self.foreground <= 1:
            raise ConfigError(
                f"expected patches of at least 1 px, one or more per image, a foreground share of 0 to 1, got {self}."
            )


def draw_patches(
    data: MaskSet, settings: PatchSettings, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """Patches of one epoch in random order, on the CPU; a resumed epoch draws what it would have drawn.

    Args:
        data: Training set.
        settings: Size, number and share around what is marked.
        batch_size: Patches at a time; as `medgraft.train.batches.split_batches` divides them for a training.
        seed: Seed of the training.
        epoch: From 0.

    Yields:
        Images (B, C, *sides) float32 on the scale 0 to 1, masks (B, *sides) int64, and (B,) the rows of `data.images`
        they are patches of.
    """
    rng = np.random.default_rng(seed_for(seed, "order", epoch))
    order = rng.permutation(np.repeat(np.arange(len(data)), settings.per_image))
    sides = tuple(min(side, full) for side, full in zip(settings.sides, data.masks.shape[1:], strict=True))
    for batch in split_batches(order, batch_size, drop_single=True):
        images, masks, rows = [], [], data.rows[batch]
        for row in rows:
            corner = _corner(data.masks[row], sides, settings.foreground, data.num_classes, rng)
            window = tuple(slice(low, low + side) for low, side in zip(corner, sides, strict=True))
            images.append(data.images[row][(slice(None), *window)].astype(np.float32) / data.intensity_max)
            masks.append(data.masks[row][window].astype(np.int64))
        yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)), rows


def _corner(
    mask: np.ndarray, sides: Sequence[int], foreground: float, num_classes: int, rng: np.random.Generator
) -> list[int]:
    """Where a patch begins: around a marked pixel of a random class, or anywhere.

    Args:
        mask: (*spatial) class numbers.
        sides: Sides of the patch, none longer than that of the mask.
        foreground: Share of the patches drawn around a marked pixel, 0 to 1.
        num_classes: Classes beside the background.
        rng: What is drawn with.
    """
    free = [full - side for full, side in zip(mask.shape, sides, strict=True)]
    corner = [int(rng.integers(room + 1)) for room in free]
    if rng.random() >= foreground:
        return corner
    there = [name for name in range(1, num_classes + 1) if (mask == name).any()]
    if not there:
        return corner
    marked = np.flatnonzero(mask == rng.choice(there))
    middle = np.unravel_index(int(rng.choice(marked)), mask.shape)
    return [int(np.clip(at - side // 2, 0, room)) for at, side, room in zip(middle, sides, free, strict=True)]
