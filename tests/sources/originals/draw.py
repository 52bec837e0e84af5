"""Seeded tensors that keep the activations of a network near one."""

from typing import Any

import torch
from torch import Tensor

from sources.originals.value import Weights


class Draw:
    """One stream of random numbers: what is drawn later differs from what was drawn before."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        """Normal numbers around zero."""
        return torch.randn(shape, generator=self._generator) * std

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        """Even numbers between two bounds."""
        return low + (high - low) * torch.rand(shape, generator=self._generator)

    def conv(self, out: int, into: int, *kernel: int, bias: bool = False, gain: float = 1.0) -> Weights:
        """A convolution; `into` counts the channels that one filter sees."""
        weight = self.normal(out, into, *kernel)
        weights = {"weight": weight * gain / weight[0].numel() ** 0.5}
        return {**weights, "bias": self.normal(out, std=0.2)} if bias else weights

    def linear(self, out: int, into: int, *, bias: bool = True, gain: float = 1.0) -> Weights:
        """A linear map."""
        return self.conv(out, into, bias=bias, gain=gain)

    def norm(self, channels: int) -> Weights:
        """Scale and shift of a layer norm or group norm."""
        return {"weight": self.between(0.5, 1.5, channels), "bias": self.normal(channels, std=0.2)}

    def batch_norm(self, channels: int, *, affine: bool = True, counted: bool = True) -> Weights:
        """A batch norm with statistics of its own; files from before 2018 count no batches."""
        statistics = {
            "running_mean": self.normal(channels, std=0.3),
            "running_var": self.between(0.5, 1.5, channels),
        }
        count = {"num_batches_tracked": torch.tensor(1000)} if counted else {}
        return {**(self.norm(channels) if affine else {}), **statistics, **count}

    def optimizer(self) -> dict[str, Any]:
        """The state of an optimizer, cut short."""
        moments = {index: {"momentum_buffer": self.normal(4, 3)} for index in range(2)}
        return {"state": moments, "param_groups": [{"lr": 0.03, "momentum": 0.9, "params": [0, 1]}]}
