"""What a model costs to use: latency of one image and bytes on disk."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

from medgraft.errors import ConfigError, RunError

__all__ = ["file_bytes", "latency_ms"]

# A volume takes seconds on a small machine: thirty passes of every model would be minutes for a median.
_SECONDS: Final = 3.0
_FEWEST: Final = 5


def latency_ms(
    models: Mapping[str, nn.Module],
    example: torch.Tensor,
    repeats: int = 30,
    warmup: int = 3,
    device: str = "cpu",
) -> dict[str, float]:
    """Name to median milliseconds of one forward pass, in eval mode, on the CPU unless another device is given.

    The models take turns, so that a machine that slows down or speeds up meanwhile does so for all. Modes
    (train or eval) are as before afterwards.

    Args:
        models: On the CPU.
        example: (1, C, *spatial), on the CPU.
        repeats: Timed passes per model, at most: of slow models as many as fit into three seconds each, five at least.
        warmup: Passes before, not timed.
        device: Where they are timed; models are back on the CPU afterwards.

    Raises:
        ConfigError: A model or the example is elsewhere, the batch is not 1, or `repeats` is below 1.

    Examples:
        >>> times = latency_ms({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, torch.zeros(1, 2), repeats=3)
        >>> sorted(times), all(value > 0 for value in times.values())
        (['a', 'b'], True)
    """
    if repeats < 1 or warmup < 0:
        raise ConfigError(
            f"repeats must be at least 1 and warmup at least 0, got {repeats} and {warmup}. Typical: 30 and 3."
        )
    if example.shape[:1] != (1,):
        raise ConfigError(
            f"example must be a batch of one, (1, C, *spatial), got {tuple(example.shape)}. Pass a single image."
        )
    tensors = {"example": [example]} | {name: [*model.parameters(), *model.buffers()] for name, model in models.items()}
    for name, parts in tensors.items():
        away = {part.device.type for part in parts} - {"cpu"}
        if away:
            raise ConfigError(f"{name} must be on the CPU, got it on {away.pop()}. Move a copy there first.")
    modes = [(module, module.training) for model in models.values() for module in model.modules()]
    seconds: dict[str, list[float]] = {name: [] for name in models}
    try:
        for model in models.values():
            model.eval().to(device)
        example = example.to(device)
        with torch.inference_mode():
            for turn in range(warmup + repeats):
                if turn >= warmup + _FEWEST and sum(map(sum, seconds.values())) > _SECONDS * len(models):
                    break
                for name, model in models.items():
                    start = time.perf_counter()
                    model(example)
                    if device.startswith("cuda"):
                        torch.cuda.synchronize()
                    stop = time.perf_counter()
                    if turn >= warmup:
                        seconds[name].append(stop - start)
    finally:
        for module, mode in modes:
            module.training = mode
        for model in models.values():
            model.cpu()
    return {name: 1000 * float(np.median(times)) for name, times in seconds.items()}


def file_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder.

    Args:
        path: The saved model.

    Raises:
        RunError: Nothing is there.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "model.json").write_text("{}")
        ...     file_bytes(Path(folder))
        2
    """
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        raise RunError(f"expected a file or folder, got nothing at {path}. Save the model first.")
    return sum((Path(folder) / name).stat().st_size for folder, _, names in os.walk(path) for name in names)
