"""Frozen features: what a trunk that does not learn says of every image, computed once."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medgraft.errors import RunError
from medgraft.files import replacing
from medgraft.train.batches import ImageSet, evaluation_batch, iterate
from medgraft.train.engine import Engine, forward, running
from medgraft.transfer.model import TransferModel

__all__ = ["FeatureReader", "cached_features", "extract_features", "keep_features"]


class FeatureReader(nn.Module):
    """Images on the scale 0 to 1 to what the model's head makes its decision from, (B, d)."""

    def __init__(self, model: TransferModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Pooled (or flattened) features."""
        pooled: Tensor = self.model.label_head.pool(self.model.features(images))
        return pooled


def extract_features(model: nn.Module, data: ImageSet, engine: Engine) -> np.ndarray:
    """(n, d) float32 outputs of `model` in evaluation mode, in the order of `data`.

    Args:
        model: Images on the scale 0 to 1 to (B, d).
        data: Images; targets are not used.
        engine: Device and arithmetic.
    """
    model.eval().to(engine.device)
    with running(engine), torch.inference_mode():
        batches = iterate(
            data, np.arange(len(data)), evaluation_batch(data.images.shape[2:]), torch.device(engine.device)
        )
        return np.concatenate([forward(model, images, engine).float().cpu().numpy() for images, _, _ in batches])


def keep_features(path: Path, features: np.ndarray) -> None:
    """Write features where `cached_features` will find them.

    Raises:
        RunError: `path` cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, features)


def cached_features(path: Path, model: nn.Module, data: ImageSet, engine: Engine) -> np.ndarray:
    """Outputs of `extract_features`, read from `path` when it is there and written to it otherwise.

    Args:
        path: An ``.npy`` file.
        model: Images on the scale 0 to 1 to (B, d).
        data: Images; targets are not used.
        engine: Device and arithmetic.

    Raises:
        RunError: `path` cannot be written or read.
    """
    if not path.is_file():
        keep_features(path, extract_features(model, data, engine))
    try:
        features: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise RunError(f"could not read features at {path}: {error}. Delete that file.") from error
    return features
