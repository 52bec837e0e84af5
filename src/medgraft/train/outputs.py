"""What a model says: probabilities of images, and of every pixel of images, patch by patch."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from medgraft.errors import RunError
from medgraft.metrics.overlap import overlap_counts
from medgraft.train.batches import ImageSet, MaskSet, evaluation_batch, iterate, whole_input
from medgraft.train.engine import Engine, forward, running
from medgraft.train.objectives import probabilities

__all__ = ["call_masks", "mask_overlaps", "predict_masks", "predict_probs"]

_OVERLAP: Final = 0.5
# Between epochs: a third of the patches, and scores that differ in the third digit.
_QUICK_OVERLAP: Final = 0.25


def predict_probs(
    model: nn.Module, data: ImageSet, engine: Engine, on_case: Callable[[int], None] = lambda _done: None
) -> np.ndarray:
    """(n, C) float64 probabilities of `data`, in its order, in evaluation mode and without gradients.

    Args:
        model: Images on the scale 0 to 1 to logits (B, num_outputs); in evaluation mode afterwards.
        data: Images; targets are not used.
        engine: Device and arithmetic.
        on_case: Called with the number of images done, after each batch.
    """
    model.eval()
    rows = []
    positions, size = np.arange(len(data)), evaluation_batch(data.images.shape[2:])
    with running(engine), torch.inference_mode():
        for images, _, _ in iterate(data, positions, size, torch.device(engine.device)):
            rows.append(probabilities(forward(model, images, engine), data))
            on_case(min(len(data), len(rows) * size))
    return np.concatenate(rows) if rows else np.zeros((0, data.num_classes))


def predict_masks(
    model: nn.Module, image: Tensor, sides: Sequence[int], engine: Engine, *, overlap: float = _OVERLAP
) -> Tensor:
    """Probabilities (K, *spatial) float32 of one image, patch by patch, each partly over its neighbours.

    Where patches lie over each other, the middle of each counts most (a Gaussian); smaller images are padded.

    Args:
        model: Takes (B, C, *sides), returns logits (B, K, *sides); in evaluation mode afterwards.
        image: (C, *spatial) from `medgraft.train.batches.whole_input`.
        sides: Sides of a patch, px or voxels.
        engine: Device and arithmetic.
        overlap: How far neighbours overlap, as a share of the side, 0 to below 1.

    Returns:
        A sigmoid where there is one output, else a softmax over all of them; on the CPU.
    """
    from monai.inferers.utils import sliding_window_inference

    model.eval()

    def probabilities(patches: Tensor) -> Tensor:
        logits: Tensor = forward(model, patches, engine).float()
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)

    with running(engine), torch.inference_mode():
        probs = sliding_window_inference(
            image[None].to(engine.device),
            tuple(sides),
            evaluation_batch(tuple(sides)),
            probabilities,
            overlap=overlap,
            mode="gaussian",
            padding_mode="replicate" if min(image.shape[1:]) > 1 else "constant",
        )
    return torch.as_tensor(probs)[0].cpu()


def call_masks(probs: Tensor) -> np.ndarray:
    """(*spatial) uint8 class numbers of probabilities (K, *spatial): above one half of one output, else the likeliest.

    Args:
        probs: From `predict_masks`.
    """
    called = (probs[0] > 0.5).to(torch.uint8) if len(probs) == 1 else probs.argmax(0).to(torch.uint8)
    return np.asarray(called.numpy())


def mask_overlaps(model: nn.Module, data: MaskSet, sides: Sequence[int], engine: Engine) -> np.ndarray:
    """(n, C, 3) int64 of `overlap_counts` of every image at the resolution of the cache.

    Args:
        model: Takes (B, C, *sides), returns logits (B, K, *sides); in evaluation mode afterwards.
        data: Images and their masks.
        sides: Sides of a patch, px or voxels.
        engine: Device and arithmetic.

    Raises:
        RunError: The training diverged.
    """
    counts = []
    for row in data.rows:
        image = whole_input(data.images[row], data.intensity_max, is_standardised=data.is_standardised)
        probs = predict_masks(model, image, sides, engine, overlap=_QUICK_OVERLAP)
        if not torch.isfinite(probs).all():
            raise RunError("the model's validation outputs became NaN. Lower the learning rate (--set train.lr=…).")
        called = call_masks(probs)
        counts.append(overlap_counts(called, data.masks[row], data.num_classes))
    return np.stack(counts) if counts else np.zeros((0, data.num_classes, 3), dtype=np.int64)
