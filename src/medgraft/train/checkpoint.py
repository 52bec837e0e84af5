"""The checkpoint of a running training: written whole or not at all, read without running code."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from medgraft.errors import RunError
from medgraft.files import replacing

__all__ = ["Keeper", "load_best", "load_checkpoint", "remove_checkpoint", "save_best", "save_checkpoint"]

_NAME: Final = "checkpoint.safetensors"
_BEST: Final = "best.safetensors"
_OUTPUTS: Final = "__val_outputs__"
_STATE: Final = "state"
_TENSOR: Final = "__tensor__"
_PAIRS: Final = "__pairs__"
_WRITING_SHARE: Final = 0.02


class Keeper:
    """Holds the best weights of a training, and writes them with a checkpoint for at most 2 % of the time.

    An epoch of a small network on a hundred images takes half a second, and writing its state after each would
    cost a tenth of the search. An interrupted training loses what came after the last checkpoint, at most fifty
    times the seconds that writing one takes, and trains it again.

    Args:
        folder: Folder of the training.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._best: tuple[dict[str, Tensor], np.ndarray] | None = None
        self._next_write = -float("inf")

    def hold(self, weights: dict[str, Tensor], outputs: np.ndarray) -> None:
        """Take a copy of the best weights so far and their validation outputs."""
        self._best = {name: value.detach().clone() for name, value in weights.items()}, outputs

    def write_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the best weights and the checkpoint `state()`, unless that was done a moment ago.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        start = time.perf_counter()
        if start < self._next_write:
            return
        self.write_best()
        save_checkpoint(self.folder, state())
        end = time.perf_counter()
        self._next_write = end + (end - start) / _WRITING_SHARE

    def write_best(self) -> None:
        """Write the best weights if they are newer than those in the folder.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        if self._best is not None:
            save_best(self.folder, *self._best)
            self._best = None


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) to `folder`, replacing the one before in one step.

    Tensors go into one safetensors file with the rest as JSON in its header: three times as fast as torch's own
    format for a small network, which matters where an epoch takes half a second, and nothing in it can run.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_pack(state, tensors))
    with replacing(folder / _NAME) as temporary:
        temporary.write_bytes(save(tensors, metadata={_STATE: plain}))


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state that `save_checkpoint` wrote, or None when there is none. Tuples come back as lists.

    Raises:
        RunError: The file is damaged.
    """
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            state: dict[str, Any] = _unpack(json.loads(file.metadata()[_STATE]), tensors)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        kind = type(error).__name__
        raise RunError(
            f"expected a checkpoint at {path}, got a damaged one ({kind}). Delete it; then run again."
        ) from error
    return state


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON types; tensors move into `tensors` and leave their number behind."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # Cloned: the format refuses tensors that share memory, as tied layers do.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {_PAIRS: [[key, _pack(item, tensors)] for key, item in value.items()]}  # keys may be integers
    if isinstance(value, (list, tuple)):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict) and _TENSOR in value:
        return tensors[value[_TENSOR]]
    if isinstance(value, dict):
        return {key: _unpack(item, tensors) for key, item in value[_PAIRS]}
    return value


def remove_checkpoint(folder: Path) -> None:
    """Delete the checkpoint of a finished training."""
    (folder / _NAME).unlink(missing_ok=True)


def save_best(folder: Path, weights: dict[str, Tensor], outputs: np.ndarray) -> None:
    """Write the best weights so far and their validation outputs to `folder`, in one file.

    One file, so that weights and their validation outputs can never come from different epochs.

    Args:
        folder: Folder of the training.
        weights: State of the model, by name.
        outputs: What the model says of the validation set.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    # Cloned: the format refuses tensors that share memory, as tied layers do.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    tensors[_OUTPUTS] = torch.from_numpy(outputs)
    with replacing(folder / _BEST) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            # A full disk is told so, too.
            raise RunError(f"could not write to {folder}: {error}. Free some space; then run again.") from error


def load_best(folder: Path) -> tuple[dict[str, Tensor], np.ndarray]:
    """The weights and the validation outputs that `save_best` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    path = folder / _BEST
    try:
        weights = load_file(path)
        outputs: np.ndarray = weights.pop(_OUTPUTS).numpy()
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"could not read the weights {path}: {error}. Delete {folder} to train them anew.") from error
    return weights, outputs
