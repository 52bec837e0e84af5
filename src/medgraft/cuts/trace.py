"""Record what a network does with one input: every operation, who called it and which parameters it read.

The forward pass runs once on the meta device (no memory, no arithmetic) under a dispatch mode, which sees the
operations below all Python control flow. It therefore works for any network that runs, where symbolic
tracing stops at the first data-dependent `if`.
"""

import copy
from typing import Any

import torch
from torch import nn

from medgraft.cuts.events import ModuleCall, Op, Trace
from medgraft.cuts.recorder import Recorder
from medgraft.errors import BackboneError

__all__ = ["ModuleCall", "Op", "Trace", "trace_network"]


def trace_network(network: nn.Module, input_shape: tuple[int, ...], *, entry: str = "forward") -> Trace:
    """The trace of one evaluation-mode pass of `network`.

    Args:
        network: On any device; it is not changed (a copy runs on the meta device).
        input_shape: (C, *spatial) of one input.
        entry: Name of the method to run, e.g. ``forward_features``.

    Raises:
        BackboneError: When the network cannot process an input of that shape.
    """
    try:
        return _record(_on_meta(network), torch.empty(1, *input_shape, device="meta"), entry)
    except (NotImplementedError, RuntimeError, ValueError, AssertionError, TypeError, IndexError) as meta_error:
        # Some networks build constants on the CPU or read values in forward; those run for real, on zeros.
        try:
            real = copy.deepcopy(network)
            if any(tensor.is_meta for tensor in [*real.parameters(), *real.buffers()]):
                real = real.to_empty(device="cpu")
                for tensor in [*real.parameters(), *real.buffers()]:
                    tensor.data.zero_()
            return _record(real.to("cpu"), torch.zeros(1, *input_shape), entry)
        except (NotImplementedError, RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
            raise BackboneError(
                f"expected a network that takes one input of shape {tuple(input_shape)}, got "
                f"{type(error).__name__}: {_first_line(error)} (on the meta device: {_first_line(meta_error)}). "
                "Set the input size the network was made for."
            ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def _on_meta(network: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {}
    for tensor in [*network.parameters(), *network.buffers()]:
        if not tensor.is_meta:
            empty = torch.empty_like(tensor, device="meta")
            memo[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(network, memo)


def _record(network: nn.Module, example: torch.Tensor, entry: str) -> Trace:
    """The trace of one pass of `network` over `example`.

    Args:
        network: Left in evaluation mode.
        example: (1, C, *spatial), on the device of the network.
        entry: Name of the method to run.
    """
    network = network.eval()
    recorder = Recorder(network, example)
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # The fused encoder layer of torch hides its matrix products from the recorder.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), recorder.hooks(), recorder:
            outputs = getattr(network, entry)(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return recorder.trace(outputs)
