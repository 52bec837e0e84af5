"""What a training will need, said before it starts: memory, and time once the machine is measured."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Final

import psutil
import torch
from torch import Tensor, nn

from medgraft.errors import ConfigError
from medgraft.listener import Listener
from medgraft.train.batches import evaluation_batch
from medgraft.train.engine import Engine, forward

__all__ = ["MemoryForecast", "forecast_memory", "refuse_memory", "say_time"]

_GIB: Final = 2**30
_SHARE: Final = 0.9
# Weights, gradients and two moments of AdamW.
_COPIES: Final = 4
# What an operation needs beside its result while it runs, in units of the largest tensor.
_WORKSPACE: Final = 6
_NAMED_MINUTES: Final = 2.0
_FEWEST: Final = 2
_STEP: Final = 8
# Shares of the sides that are tried where no batch fits.
_SHARES: Final = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """Bytes of a training step.

    Args:
        fixed: Whatever the batch is: weights, gradients, moments.
        per_case: What is kept of each image or volume between forward and backward pass, with its share of what
            operations need while they run.
        working: What operations need for each image or volume while a batch is looked at, of which nothing is kept.
        sides: Sides of the input.
    """

    fixed: int
    per_case: int
    working: int
    sides: tuple[int, ...]

    def total(self, batch_size: int) -> int:
        """Bytes of a training with that many images or volumes in a batch, and of the validation after each epoch."""
        return self.fixed + max(batch_size * self.per_case, evaluation_batch(self.sides) * self.working)

    def scaled(self, sides: tuple[int, ...]) -> "MemoryForecast":
        """The forecast for inputs of other sides, with which every tensor grows and shrinks alike."""
        share = math.prod(sides) / math.prod(self.sides)
        return dataclasses.replace(
            self, per_case=math.ceil(share * self.per_case), working=math.ceil(share * self.working), sides=sides
        )

    def largest_batch(self, free: float) -> int:
        """How many images or volumes in a batch fit into that many bytes, 0 where not even the validation does."""
        return int((free - self.fixed) // self.per_case) if self.total(0) <= free else 0


def forecast_memory(model: nn.Module, input_shape: tuple[int, ...], engine: Engine) -> MemoryForecast | None:
    """What a training step of `model` will hold, counted without computing anything; None where that is impossible.

    Args:
        model: Takes (B, *input_shape); not changed.
        input_shape: (c, *spatial).
        engine: Precision and layout.
    """
    kept: dict[int, int] = {}
    largest = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal largest
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            largest = max(largest, tensor.untyped_storage().nbytes())
        return tensor

    try:
        shadow = copy.deepcopy(model).to("meta").train()
        own = {tensor.untyped_storage()._cdata for tensor in [*shadow.parameters(), *shadow.buffers()]}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            # Two inputs: batch normalisation refuses one. The names are kept, so that no storage is used twice.
            outputs = forward(
                shadow, torch.empty(2, *input_shape, device="meta"), dataclasses.replace(engine, device="cpu")
            )
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        return None  # a network with constants of its own cannot be run without numbers
    del outputs
    saved = sum(size for key, size in kept.items() if key not in own)
    params = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    working = _WORKSPACE * largest // 2
    return MemoryForecast(
        fixed=_COPIES * params,
        per_case=saved // 2 + working,
        working=working,
        sides=tuple(input_shape[1:]),
    )


def refuse_memory(
    forecast: MemoryForecast | None, batch_size: int, device: str, listener: Listener, *, num_at_once: int = 1
) -> None:
    """Refuse a training that does not fit into memory, with what would; of volumes, say what it needs.

    Args:
        forecast: From `forecast_memory`.
        batch_size: Images or volumes in a batch of the training to come.
        device: As torch spells it.
        listener: Told what a training on volumes needs.
        num_at_once: Trainings that share the memory.

    Raises:
        ConfigError: It does not fit; the message names a batch size or an input that does.
    """
    if forecast is None:
        return
    free = _free_bytes(device) / num_at_once
    need, sides = forecast.total(batch_size), forecast.sides
    if len(sides) == 3:
        listener.say(
            f"Memory: about {need / _GIB:.1f} of {free / _GIB:.1f} GiB free, with {batch_size} volumes in a batch."
        )
    if need <= _SHARE * free:
        return
    advice = _what_fits(forecast, batch_size, _SHARE * free)
    shared = f" for each of {num_at_once} trainings at once" if num_at_once > 1 else ""
    raise ConfigError(
        f"expected a training that fits into memory, but {batch_size} inputs of {'×'.join(map(str, sides))} in a batch "
        f"need about {need / _GIB:.1f} GiB and {free / _GIB:.1f} GiB are free{shared}. {advice}."
    )


def _what_fits(forecast: MemoryForecast, batch_size: int, free: float) -> str:
    """The batch size that would do; else the largest input, with its batch size; else a smaller network.

    Args:
        forecast: Bytes of a training step.
        batch_size: Images or volumes in the batch that does not fit.
        free: Bytes that may be used.
    """
    if (fits := forecast.largest_batch(free)) >= _FEWEST:
        return f"Use --set train.batch_size={fits}"
    for share in _SHARES:
        sides = tuple(max(_STEP, int(share * side) // _STEP * _STEP) for side in forecast.sides)
        if (fits := forecast.scaled(sides).largest_batch(free)) >= _FEWEST:
            asked = ",".join(map(str, sides)) if len(sides) == 3 else str(sides[0])
            return f"Use --size {asked} --set train.batch_size={min(fits, batch_size)}, or a smaller network"
    return "Use a smaller network"


def _free_bytes(device: str) -> int:
    if device.startswith("cuda"):
        cuda = torch.device(device)
        # What torch holds back from earlier trainings is free for this one.
        held = torch.cuda.memory_reserved(cuda) - torch.cuda.memory_allocated(cuda)
        return int(torch.cuda.mem_get_info(cuda)[0]) + held
    return min(int(psutil.virtual_memory().available), _granted())


def _granted(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What the control group still grants; without a limit, no bound."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        stats = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Files that were read are kept until somebody needs the room.
        used -= int(stats.get("inactive_file", 0)) + int(stats.get("active_file", 0))
    except (OSError, ValueError):
        return 2**62
    return 2**62 if limit == "max" else max(0, int(limit) - used)


def say_time(engine: Engine, epochs: int, num_train: int, noun: str, listener: Listener) -> None:
    """Say how long one training takes, where it takes minutes.

    Args:
        engine: With measured speeds; without them nothing is said.
        epochs: Epochs of one training.
        num_train: Images or volumes.
        noun: ``images`` or ``volumes``.
        listener: Told so.
    """
    if not engine.measured:
        return
    speed = max(engine.measured.values())
    minutes = epochs * num_train / speed / 60
    if minutes >= _NAMED_MINUTES:
        listener.say(
            f"One training of the whole network ({epochs} epochs of {num_train} {noun} at {speed:.3g} a second) takes "
            f"about {minutes:.0f} min; the search about as long again. Fewer --epochs or a smaller --size shorten it."
        )
