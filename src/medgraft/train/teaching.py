"""What a task makes of a training: batches, loss, what is kept of the validation, and the score that chooses."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from medgraft.errors import ConfigError
from medgraft.metrics.measures import scores_of
from medgraft.train.augment import augment_batch, augment_pair
from medgraft.train.batches import ImageSet, MaskSet, epoch_order, iterate, moments, seed_for, split_batches
from medgraft.train.engine import Engine
from medgraft.train.mask_losses import make_mask_loss
from medgraft.train.objectives import make_objective
from medgraft.train.outputs import mask_overlaps, predict_probs
from medgraft.train.patches import PatchSettings, draw_patches
from medgraft.train.settings import TrainSettings
from medgraft.types import Kind, Overlaps, Predictions

__all__ = ["TEACHINGS", "Share", "Teaching", "steps_of_an_epoch", "teach"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which of several processes takes part, from 0, and how many they are."""

    process: int = 0
    num_processes: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Teaching:
    """What the loop needs to know of a task.

    Args:
        num_items: Images, or patches of them, in an epoch.
        num_steps: Optimiser steps of an epoch in one of so many processes: the batches that `batches` yields.
        batches: Batches of an epoch (from 0) in one process, augmented: images (B, C, *spatial) on the scale 0 to 1,
            or patches on that of `medgraft.train.batches.whole_input`, and targets, on the training device.
        objective: Loss of logits and targets.
        outputs: What a model says of the validation set, as the trial keeps it.
        scores: Scores of such outputs, by name; the first chooses.
    """

    num_items: int
    num_steps: Callable[[int], int]
    batches: Callable[[int, Share], Iterator[tuple[Tensor, Tensor]]]
    objective: Callable[[Tensor, Tensor], Tensor]
    outputs: Callable[[nn.Module], np.ndarray]
    scores: Callable[[np.ndarray], dict[str, float]]


def teach(train: ImageSet, val: ImageSet, settings: TrainSettings, engine: Engine) -> Teaching:
    """What the truth of these images makes of a training.

    Args:
        train: Training set.
        val: Validation set, of the same kind.
        settings: How the model is trained.
        engine: Device and arithmetic.

    Raises:
        ConfigError: Masks without settings for patches.
    """
    return TEACHINGS[train.kind](train, val, settings, engine)


def _labels(train: ImageSet, val: ImageSet, settings: TrainSettings, engine: Engine) -> Teaching:
    """A training on labels: whole images, and probabilities on validation.

    Args:
        train: Training set.
        val: Validation set.
        settings: How the model is trained.
        engine: Device and arithmetic.
    """
    return Teaching(
        num_items=len(train),
        num_steps=functools.partial(steps_of_an_epoch, len(train), settings),
        batches=functools.partial(_image_batches, train, settings, engine),
        objective=make_objective(train, settings.imbalance, settings.label_smoothing),
        outputs=lambda model: predict_probs(model, val, engine),
        scores=lambda probs: scores_of(_predictions(probs, val)),
    )


def _masks(train: MaskSet, val: MaskSet, settings: TrainSettings, engine: Engine) -> Teaching:
    """A training on masks: patches of images, and overlaps on validation.

    Args:
        train: Training set.
        val: Validation set.
        settings: How the model is trained.
        engine: Device and arithmetic.
    """
    patches = settings.patches
    if patches is None:
        raise ConfigError("expected the size of patches for a training on masks, got none. Set TrainSettings.patches.")
    classes = tuple(str(index) for index in range(val.num_classes))

    @functools.cache
    def scale_of(row: int) -> tuple[float, float]:
        return moments(train.images[row], train.intensity_max, is_standardised=train.is_standardised)

    num_items = len(train) * patches.per_image
    return Teaching(
        num_items=num_items,
        num_steps=functools.partial(steps_of_an_epoch, num_items, settings),
        batches=functools.partial(_patch_batches, train, scale_of, patches, settings, engine),
        objective=make_mask_loss(settings.loss, train.num_outputs),
        outputs=lambda model: mask_overlaps(model, val, patches.sides, engine),
        scores=lambda counts: scores_of(Overlaps(counts=counts, groups=np.arange(len(val)), classes=classes)),
    )


def _predictions(probs: np.ndarray, data: ImageSet) -> Predictions:
    return Predictions(
        probs=probs,
        targets=data.targets,
        groups=np.arange(len(data)),
        classes=tuple(str(index) for index in range(data.num_classes)),
        task=data.task,
        positive=data.positive,
    )


def _draws(settings: TrainSettings, epoch: int, share: Share) -> torch.Generator:
    """The random numbers with which one process augments one epoch.

    Args:
        settings: Their seed is taken.
        epoch: From 0.
        share: Each process draws on its own.
    """
    return torch.Generator().manual_seed(seed_for(settings.seed, "augment", epoch) + share.process)


def _in_share(order: np.ndarray, settings: TrainSettings, share: Share) -> tuple[np.ndarray, int]:
    """Which of an epoch's items one process sees, equally many in each, and how many at a time.

    Args:
        order: (n,) positions of the items, in the order of the epoch.
        settings: Their batch size is that of all processes together.
        share: Which process, and how many there are.
    """
    if share.num_processes > 1:
        order = order[: len(order) // share.num_processes * share.num_processes]
        order = order[share.process :: share.num_processes]
    return order, max(1, settings.batch_size // share.num_processes)


def steps_of_an_epoch(num_items: int, settings: TrainSettings, num_processes: int) -> int:
    """Batches of an epoch in one of so many processes.

    Args:
        num_items: Images or patches of an epoch.
        settings: How the model is trained.
        num_processes: How many processes share them.
    """
    order, batch_size = _in_share(np.arange(num_items), settings, Share(num_processes=num_processes))
    return len(split_batches(order, batch_size, drop_single=True))


def _image_batches(
    data: ImageSet, settings: TrainSettings, engine: Engine, epoch: int, share: Share
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented images and targets of one epoch in one process, on the training device.

    Args:
        data: Training set.
        settings: How the model is trained.
        engine: Device and arithmetic.
        epoch: From 0.
        share: Which process, and how many there are.
    """
    draws = _draws(settings, epoch, share)
    order = epoch_order(data, settings.seed, epoch, is_balanced=settings.imbalance == "sampler")
    order, batch_size = _in_share(order, settings, share)
    for images, targets, _ in iterate(data, order, batch_size, torch.device(engine.device), drop_single=True):
        yield augment_batch(images, settings.augment, draws), targets


def _patch_batches(
    data: MaskSet,
    scale_of: Callable[[int], tuple[float, float]],
    patches: PatchSettings,
    settings: TrainSettings,
    engine: Engine,
    epoch: int,
    share: Share,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented, standardised patches and their masks of one epoch, on the training device.

    Args:
        data: Training set with masks.
        scale_of: Row of the cache to mean and deviation of its image.
        patches: Size, number and share around what is marked.
        settings: How the model is trained.
        engine: Device and arithmetic.
        epoch: From 0.
        share: One process alone.
    """
    if share.num_processes > 1:
        raise ConfigError("expected one process for a training on masks, got several. Use one device.")
    draws = _draws(settings, epoch, share)
    for images, masks, rows in draw_patches(data, patches, settings.batch_size, settings.seed, epoch):
        moved, truth = augment_pair(images.to(engine.device), masks.to(engine.device), settings.augment, draws)
        shape = (-1,) + (1,) * (images.ndim - 1)
        scales = torch.tensor([scale_of(int(row)) for row in rows], device=engine.device)
        shift, scale = (part.view(shape) for part in scales.unbind(1))
        yield (moved - shift) / scale, masks if truth is None else truth


TEACHINGS: Final[dict[Kind, Callable[[Any, Any, TrainSettings, Engine], Teaching]]] = {
    "labels": _labels,
    "masks": _masks,
}
"""By kind of truth, see `medgraft.types.kind_of`."""
