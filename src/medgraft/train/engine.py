"""How a model is run on this machine: device, precision, memory layout; measured once and recorded."""

import copy
import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from medgraft.errors import ConfigError
from medgraft.train.memory import freed_memory_kept

__all__ = [
    "Engine",
    "choose_engine",
    "exact_engine",
    "pick_device",
    "running",
    "forward",
    "to_channels_last",
]

_MIN_GAIN: Final = 1.1
# Another precision, or another number of threads, makes another model of the same training: it has to pay, by more than
# two measurements of the same speed differ.
_MIN_GAIN_OF_OTHERS: Final = 1.25
_ROUNDS: Final = 5
_MEASURED_SECONDS: Final = 10.0
_LONG_STEP: Final = 1.5
# Found by benchmarks/volume_convolutions.py: gradients that are garbage where a side is 1 or 2, and memory overwritten.
_NO_BF16: Final = (
    "expected float32 for volumes on the CPU, got bf16: torch's 3D convolutions are not right in bf16 there. Leave "
    "train.precision out, or train on a GPU."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Device and arithmetic of a run.

    Args:
        device: As torch spells it.
        precision: ``float32`` or ``bf16`` (autocast; weights stay float32).
        is_channels_last: Memory layout of images and convolutions.
        is_deterministic: Only deterministic algorithms.
        num_threads: Threads of the CPU; 0 leaves their number to the user and to torch.
        allows_tf32: Whether a GPU may round float32 products to 10 bits, which is several times as fast.
        measured: Images per second of each combination that was tried; empty when nothing was measured.
    """

    device: str
    precision: Literal["float32", "bf16"] = "float32"
    is_channels_last: bool = False
    is_deterministic: bool = False
    allows_tf32: bool = False
    num_threads: int = 0
    measured: dict[str, float] = dataclasses.field(default_factory=dict)


def pick_device(wanted: str) -> str:
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` means here.

    Raises:
        ConfigError: The machine has no such device.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = wanted.partition(":")[0]
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not has.get(kind, False):
        names = ", ".join(name for name, there in has.items() if there)
        raise ConfigError(f"expected a device of this machine ({names}), got {wanted!r}.")
    return wanted


def exact_engine(device: str, *, is_deterministic: bool = False) -> Engine:
    """What reported numbers come from: float32 as it is written, in the default layout, whatever arithmetic trained.

    The artefact computes in it, so that a prediction for a file is that of the test set.

    Args:
        device: From `pick_device`.
        is_deterministic: Only deterministic algorithms.
    """
    return Engine(device=device, is_deterministic=is_deterministic)


def choose_engine(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    batch_size: int,
    device: str,
    is_deterministic: bool,
    precision: Literal["auto", "float32", "bf16"] = "auto",
    num_threads: int = 0,
) -> Engine:
    """The fastest of the allowed combinations for training steps of `model`, by a measurement of seconds.

    With `is_deterministic` nothing is measured: float32 in the default layout, unless bf16 is forced.

    Args:
        model: Takes (B, *input_shape) on the scale 0 to 1; not changed.
        input_shape: (c, *spatial).
        batch_size: Images per step of the training to come: which combination is fastest depends on it.
        device: From `pick_device`.
        is_deterministic: Reproducible to the bit on one machine.
        precision: ``auto`` measures; a name forces it.
        num_threads: Most threads of the CPU; 0 leaves their number to the user and to torch.

    Raises:
        ConfigError: bf16 was asked for volumes on a CPU.
    """
    if device == "cpu" and len(input_shape) == 4:
        if precision == "bf16":
            raise ConfigError(_NO_BF16)
        precision = "float32"
    if is_deterministic:
        fixed: Literal["float32", "bf16"] = "bf16" if precision == "bf16" else "float32"
        return Engine(device=device, precision=fixed, is_deterministic=True)
    precisions: tuple[Literal["float32", "bf16"], ...] = ("float32", "bf16")
    if precision == "float32" or (precision == "auto" and not _has_bf16(device)):
        precisions = ("float32",)
    elif precision == "bf16":
        precisions = ("bf16",)
    options = [
        Engine(device=device, precision=p, is_channels_last=c, allows_tf32=True, num_threads=num_threads)
        for p in precisions
        for c in (False, True)
    ]
    shape = (max(2, batch_size), *input_shape)
    with freed_memory_kept(device):
        speeds = _images_per_second(model, shape, options)
        layouts = [[option for option in options if option.precision == precision] for precision in precisions]
        best = _fastest([_fastest(pair, speeds, _MIN_GAIN) for pair in layouts], speeds, _MIN_GAIN_OF_OTHERS)
        if device == "cpu" and (num_threads or torch.get_num_threads()) > 1:
            # Threads that wait for one another can be slower than one: of a small network, or on a busy machine.
            pair = [best, dataclasses.replace(best, num_threads=1)]
            speeds |= _images_per_second(model, shape, pair)
            best = _fastest(pair, speeds, _MIN_GAIN_OF_OTHERS)
    return dataclasses.replace(best, measured={name: float(f"{speed:.3g}") for name, speed in speeds.items()})


def _fastest(options: list[Engine], speeds: dict[str, float], gain: float) -> Engine:
    """The first of the options, or a later one that is `gain` times as fast as those before it.

    Args:
        options: In the order of preference.
        speeds: Images per second by the label of an option.
        gain: How many times as fast a later option must be, above 1.
    """
    best = options[0]
    for option in options[1:]:
        if speeds[_label(option)] > gain * speeds[_label(best)]:
            best = option
    return best


def _label(engine: Engine) -> str:
    layout = "-channels-last" if engine.is_channels_last else ""
    return f"{engine.precision}{layout}{'-one-thread' if engine.num_threads == 1 else ''}"


def _has_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    # Without these units the CPU emulates bf16, slower than float32.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _images_per_second(model: nn.Module, shape: tuple[int, ...], options: list[Engine]) -> dict[str, float]:
    """By label of the option: images per second in the fastest of a few training steps, taken in turns.

    Args:
        model: Not changed; copies are trained.
        shape: (B, c, *spatial) of a batch.
        options: On one device.
    """
    device = options[0].device
    images = torch.rand(*shape, device=device)
    trials = []
    for option in options:
        trial = copy.deepcopy(model).to(device).train()
        trials.append(to_channels_last(trial) if option.is_channels_last else trial)
    if _step_seconds(trials[0], images, options[0]) > _LONG_STEP:
        images = images[: max(2, len(images) // 4)]
    seconds = dict.fromkeys(map(_label, options), float("inf"))
    start = time.perf_counter()
    for round_ in range(1 + _ROUNDS):
        for trial, option in zip(trials, options, strict=True):
            duration = _step_seconds(trial, images, option)
            if round_:  # the first one warms up
                seconds[_label(option)] = min(seconds[_label(option)], duration)
        if round_ and time.perf_counter() - start > _MEASURED_SECONDS:
            break
    return {name: len(images) / best for name, best in seconds.items()}


def _step_seconds(model: nn.Module, images: Tensor, engine: Engine) -> float:
    """Seconds of one forward and backward pass.

    Args:
        model: In training mode, on the engine's device.
        images: (B, c, *spatial) on the same device.
        engine: Device and arithmetic.
    """
    with running(engine):
        start = time.perf_counter()
        loss = forward(model, images, engine).float().square().mean()
        torch.autograd.backward(loss)
        model.zero_grad(set_to_none=True)
        if engine.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start


def forward(model: nn.Module, images: Tensor, engine: Engine) -> Any:
    """`model(images)` in the engine's precision and layout.

    Args:
        model: On the engine's device.
        images: (B, c, *spatial) on the same device.
        engine: Device and arithmetic.
    """
    if engine.is_channels_last:
        images = images.contiguous(memory_format=_layout(images.ndim))
    is_low = engine.precision == "bf16"
    with torch.autocast(engine.device.partition(":")[0], torch.bfloat16, enabled=is_low):
        return model(images)


def to_channels_last(model: nn.Module) -> nn.Module:
    """`model` with its convolution weights in the channels-last layout (in place)."""
    for parameter in model.parameters():
        if parameter.ndim in (4, 5):
            parameter.data = parameter.data.contiguous(memory_format=_layout(parameter.ndim))
    return model


def _layout(ndim: int) -> torch.memory_format:
    return torch.channels_last_3d if ndim == 5 else torch.channels_last if ndim == 4 else torch.contiguous_format


@contextmanager
def running(engine: Engine) -> Iterator[None]:
    """Torch's global switches set for `engine`, and set back afterwards."""
    was = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    # By default torch lets convolutions, but not products of matrices, round to TF32.
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    if engine.is_deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    if engine.num_threads:
        torch.set_num_threads(engine.num_threads)
    torch.use_deterministic_algorithms(engine.is_deterministic)
    torch.backends.cudnn.benchmark = not engine.is_deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = engine.allows_tf32
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was)
        torch.backends.cudnn.benchmark = benchmark
        if engine.num_threads:
            torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
