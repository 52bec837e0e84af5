"""The checkpoint of a running training: written whole or not at all, read without running code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from medgraft.errors import RunError

__all__ = ["load_checkpoint", "remove_checkpoint", "save_checkpoint"]

_NAME = "checkpoint.pt"


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
        raise RunError(f"could not write a checkpoint to {folder}: {error}. Free some space; then run again.") from error


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
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(f"could not read the checkpoint {path}: {error}. Delete it to train this part anew.") from error
    return state


def remove_checkpoint(folder: Path) -> None:
    """Delete the checkpoint of a finished training."""
    (folder / _NAME).unlink(missing_ok=True)
