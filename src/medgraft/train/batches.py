"""Batches: rows of the memory-mapped cache, on the training device, on the scale 0 to 1."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from medgraft.types import Kind, Task

__all__ = [
    "ImageSet",
    "MaskSet",
    "epoch_order",
    "evaluation_batch",
    "iterate",
    "seed_for",
    "split_batches",
    "moments",
    "whole_input",
]

_LEAST_DEVIATION: Final = 1e-6
_LOOKED_AT: Final = 64
# Pixels, or voxels, which cost more: their networks keep many channels at full resolution.
_AT_A_TIME: Final = {2: _LOOKED_AT * 256**2, 3: _LOOKED_AT * 128**2}
_SALTS: Final = {"order": 1, "augment": 2, "dropout": 3}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """Some rows of the decoded cohort.

    Args:
        images: (N, C, *spatial) integers, usually memory-mapped.
        rows: (n,) which of the N belong to this set.
        targets: (n,) class indices, or (n, C) from 0 to 1, NaN where a label is not known.
        intensity_max: Integers are divided by this.
        task: What is predicted.
        positive: Index of the positive class of a binary task, else None.
        num_classes: Number of classes.
    """

    images: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    intensity_max: int
    task: Task
    positive: int | None
    num_classes: int
    kind: ClassVar[Kind] = "labels"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_outputs(self) -> int:
        """Logits a head needs: one for a binary task, else one per class."""
        return 1 if self.task == "binary" else self.num_classes

    def known_shares(self) -> np.ndarray:
        """(C,) share of the images with each label among those of which it is known; multilabel only."""
        is_known = ~np.isnan(self.targets)
        return np.asarray(np.nansum(self.targets, 0) / is_known.sum(0).clip(1))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskSet(ImageSet):
    """Some rows of the decoded cohort with a mask for every image; `num_classes` are beside the background.

    Args:
        masks: (N, *spatial) uint8 class numbers, 0 the background, usually memory-mapped.
        targets: (n, C) which classes a mask shows.
        is_standardised: Whether the network takes the z-score of each image: of the whole one, whatever a patch shows.
    """

    masks: np.ndarray
    is_standardised: bool = False
    targets: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    task: Task = "segmentation"
    positive: int | None = None
    kind: ClassVar[Kind] = "masks"

    @property
    def num_outputs(self) -> int:
        """Logits of a pixel: one for one class, else one for each and the background."""
        return 1 if self.num_classes == 1 else self.num_classes + 1


def moments(image: np.ndarray, intensity_max: int, *, is_standardised: bool) -> tuple[float, float]:
    """Mean and deviation of an image on the scale 0 to 1, by which the network's input is shifted and scaled.

    Args:
        image: (C, *spatial) integers.
        intensity_max: What becomes 1.
        is_standardised: False leaves the image as it is: 0 and 1.
    """
    if not is_standardised:
        return 0.0, 1.0
    return float(image.mean()) / intensity_max, max(float(image.std()) / intensity_max, _LEAST_DEVIATION)


def whole_input(image: np.ndarray, intensity_max: int, *, is_standardised: bool) -> Tensor:
    """(C, *spatial) float32 of a whole image, from which patches are cut for a network that marks pixels.

    Args:
        image: (C, *spatial) integers.
        intensity_max: What becomes 1.
        is_standardised: Whether the image is shifted and scaled by its `moments`.
    """
    mean, deviation = moments(image, intensity_max, is_standardised=is_standardised)
    return (torch.from_numpy(image.astype(np.float32) / intensity_max) - mean) / deviation


def seed_for(seed: int, purpose: str, epoch: int) -> int:
    """A seed of its own for each purpose and epoch, so that a resumed epoch draws what it would have drawn.

    Args:
        seed: Seed of the training run.
        purpose: ``order``, ``augment`` or ``dropout``.
        epoch: From 0.
    """
    return int(np.random.SeedSequence([seed, _SALTS[purpose], epoch]).generate_state(1)[0])


def evaluation_batch(spatial: Sequence[int]) -> int:
    """How many cases are looked at at a time where nothing is learned: 64, and fewer the larger they are.

    Args:
        spatial: Sides of an image in px, or of a volume in voxels.

    Examples:
        >>> evaluation_batch((512, 512)), evaluation_batch((32, 32, 32)), evaluation_batch((64, 128, 128))
        (16, 32, 1)
    """
    return max(1, min(_LOOKED_AT, _AT_A_TIME[len(spatial)] // math.prod(spatial)))


def epoch_order(data: ImageSet, seed: int, epoch: int, *, is_balanced: bool) -> np.ndarray:
    """The order of one epoch: positions in `data` (not rows of the cache).

    Args:
        data: The training set.
        seed: Seed of the training run.
        epoch: From 0.
        is_balanced: Draw with replacement so that all classes are equally frequent.
    """
    rng = np.random.default_rng(seed_for(seed, "order", epoch))
    if not is_balanced:
        return rng.permutation(len(data))
    if data.targets.ndim == 2:
        weight = (np.nan_to_num(data.targets) / data.known_shares().clip(1e-6, 1)).max(1).clip(1.0)
    else:
        weight = 1 / np.bincount(data.targets, minlength=data.num_classes)[data.targets]
    return rng.choice(len(data), len(data), p=weight / weight.sum())


def split_batches(positions: np.ndarray, batch_size: int, *, drop_single: bool = False) -> list[np.ndarray]:
    """`positions` batch by batch, as a training or an evaluation sees them.

    Args:
        positions: (n,) in the wished order.
        batch_size: Positions at a time; the last batch may be smaller.
        drop_single: Leave out a last batch of one, which batch normalisation cannot train on, unless it is all there
            is or single ones were asked for.

    Examples:
        >>> [len(part) for part in split_batches(np.arange(7), 3)]
        [3, 3, 1]
        >>> [len(part) for part in split_batches(np.arange(7), 3, drop_single=True)]
        [3, 3]
    """
    batches = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    is_single = len(batches) > 1 and len(batches[-1]) == 1 < batch_size
    return batches[:-1] if drop_single and is_single else batches


def iterate(
    data: ImageSet, positions: np.ndarray, batch_size: int, device: torch.device, *, drop_single: bool = False
) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """Images (B, C, *spatial) float32 on the scale 0 to 1, targets, and positions, batch by batch.

    Args:
        data: Where the images come from.
        positions: (n,) positions of the images in `data`, in the wished order.
        batch_size: Images per batch; the last batch may be smaller.
        device: Where the tensors go.
        drop_single: Leave out a last batch of one, see `split_batches`.
    """
    for batch in split_batches(positions, batch_size, drop_single=drop_single):
        pixels = torch.from_numpy(data.images[data.rows[batch]].astype(_torch_type(data), copy=False))
        images = pixels.to(device, non_blocking=True).float().div_(data.intensity_max)
        targets = torch.as_tensor(data.targets[batch]).to(device)
        yield images, targets, batch


def _torch_type(data: ImageSet) -> type:
    # torch has few operations for uint16; int32 holds the same numbers.
    return np.uint8 if data.images.dtype == np.uint8 else np.int32
