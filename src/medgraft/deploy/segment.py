"""One prepared image to a mask at the size of its file: the same for the test set and for new files."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from medgraft.io.preprocess import restore
from medgraft.train.engine import Engine, running
from medgraft.train.memory import freed_memory_kept
from medgraft.train.outputs import call_masks, predict_masks
from medgraft.types import Preprocessing

__all__ = ["segment_image"]


def segment_image(
    network: nn.Module,
    image: np.ndarray,
    sides: Sequence[int],
    preprocessing: Preprocessing,
    patch: Sequence[int],
    engine: Engine,
    spacing_mm: Sequence[float] = (),
) -> np.ndarray:
    """(*sides) uint8 class numbers, 0 the background: probabilities patch by patch, brought to the size of the file.

    Args:
        network: Of a segmentation; takes patches on the scale 0 to 1.
        image: (C, *preprocessing.sides) integers, as `medgraft.io.prepare` makes them.
        sides: Of the image in its file.
        preprocessing: Of the image.
        patch: Sides of what the network sees at once.
        engine: Device and arithmetic.
        spacing_mm: Distance of the pixels in the file along each axis; empty where it is unknown.
    """
    scaled = torch.from_numpy(image.astype(np.float32) / preprocessing.intensity_max)
    with running(engine), freed_memory_kept(engine.device):
        probs = predict_masks(network, scaled, patch, engine).numpy()
    return call_masks(torch.from_numpy(restore(probs, sides, preprocessing, spacing_mm)))
