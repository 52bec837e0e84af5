"""The checkpoint of a running training: written whole or not at all, read without running code."""

import pickle
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medgraft.errors import RunError

__all__ = ["load_best", "load_checkpoint", "remove_checkpoint", "save_best", "save_checkpoint"]

_NAME: Final = "checkpoint.pt"
_BEST: Final = "best.safetensors"
_PROBS: Final = "__val_probs__"
# What a damaged file makes torch's reader raise, before and inside its unpickler.
_UNREADABLE: Final = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError, AttributeError)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) to `folder`, replacing the one before in one step.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    temporary = folder / f"{_NAME}.tmp"
    try:
        torch.save(state, temporary)
        temporary.replace(folder / _NAME)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise RunError(_full(folder, error)) from error


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state that `save_checkpoint` wrote, or None when there is none.

    Raises:
        RunError: The file is damaged.
    """
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # Torch's own words advise to load the file unsafely.
        kind = type(error).__name__
        raise RunError(
            f"expected a checkpoint at {path}, got a damaged one ({kind}). Delete it; then run again."
        ) from error
    return state


def remove_checkpoint(folder: Path) -> None:
    """Delete the checkpoint of a finished training."""
    (folder / _NAME).unlink(missing_ok=True)


def save_best(folder: Path, weights: dict[str, Tensor], probs: np.ndarray) -> None:
    """Write the best weights so far and their validation probabilities to `folder`, in one file.

    One file, so that weights and their validation outputs can never come from different epochs.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    # Cloned: the format refuses tensors that share memory, as tied layers do.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    tensors[_PROBS] = torch.from_numpy(probs)
    temporary = folder / f"{_BEST}.tmp"
    try:
        save_file(tensors, temporary)
        temporary.replace(folder / _BEST)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise RunError(_full(folder, error)) from error


def load_best(folder: Path) -> tuple[dict[str, Tensor], np.ndarray]:
    """The weights and the validation probabilities that `save_best` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    path = folder / _BEST
    try:
        weights = load_file(path)
        probs: np.ndarray = weights.pop(_PROBS).numpy()
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"could not read the weights {path}: {error}. Delete {folder} to train them anew.") from error
    return weights, probs


def _full(folder: Path, error: Exception) -> str:
    return f"could not write to {folder}: {error}. Free some space; then run again."
