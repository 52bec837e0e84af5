"""The trainable model: normalisation, kept trunk, new head; and what frozen means."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medgraft.types import Cut

__all__ = ["FlattenedHead", "Normalise", "PooledHead", "TransferModel"]


class Normalise(nn.Module):
    """Images on the scale 0 to 1, (B, c, *spatial), to the network's input (B, C, *spatial).

    One channel into a network of three is replicated before the per-channel mean and std, which is exact;
    summing the filters of the first layer is not.

    Args:
        in_channels: C of the network.
        kind: ``weights`` (mean and std below) or ``image`` (z-score of each image).
        mean: C values.
        std: C positive values.
    """

    def __init__(
        self, in_channels: int, kind: Literal["weights", "image"], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.kind = kind
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The network's input."""
        if images.shape[1] == 1 and self.in_channels > 1:
            images = images.expand(-1, self.in_channels, *images.shape[2:])
        if self.kind == "image":
            axes = tuple(range(1, images.ndim))
            mean = images.mean(axes, keepdim=True)
            std = (images - mean).square().mean(axes, keepdim=True).sqrt()
            return (images - mean) / std.clamp_min(1e-6)
        shape = (1, -1) + (1,) * (images.ndim - 2)
        return (images - self.mean.view(shape)) / self.std.view(shape)


class PooledHead(nn.Module):
    """Mean over all positions, then a linear layer: features at a cut to logits (B, num_outputs).

    Features with the channels last (transformers) pass a LayerNorm first: inside a pre-norm network they
    carry none.
    """

    def __init__(self, cut: Cut, num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.channel_axis = cut.channel_axis
        self.norm = nn.LayerNorm(cut.channels) if cut.channel_axis == -1 else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(cut.channels, num_outputs)

    def pool(self, features: Tensor) -> Tensor:
        """(B, channels), the mean over positions in float32."""
        if self.channel_axis == -1:
            return features.float().flatten(1, -2).mean(1)
        return features.float().flatten(2).mean(2)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, num_outputs)."""
        logits: Tensor = self.linear(self.dropout(self.norm(self.pool(features))))
        return logits


class FlattenedHead(nn.Module):
    """All positions and channels into one linear layer: features at a cut to logits (B, num_outputs)."""

    def __init__(self, cut: Cut, num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(math.prod(cut.shape), num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, num_outputs)."""
        logits: Tensor = self.linear(self.dropout(features.flatten(1)))
        return logits


class TransferModel(nn.Module):
    """Images on the scale 0 to 1, (B, c, *spatial), to logits (B, num_outputs).

    Args:
        normalise: First step, without parameters.
        trunk: The kept part of the pretrained network.
        head: New.
        frozen: Paths of frozen modules inside `trunk` ("" for all of it). Frozen means no gradient *and*
            evaluation mode, whatever mode the model is in.
    """

    def __init__(self, normalise: Normalise, trunk: nn.Module, head: nn.Module, frozen: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.normalise = normalise
        self.trunk = trunk
        self.head = head
        self.frozen = frozen
        for module in self.frozen_modules():
            module.requires_grad_(False)
        self.train()

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that neither learn nor move."""
        return [self.trunk.get_submodule(path) for path in self.frozen]

    def train(self, mode: bool = True) -> "TransferModel":
        """Training mode for all but the frozen modules, whose statistics must not move."""
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """The tensor at the cut."""
        if "" in self.frozen:
            with torch.no_grad():
                frozen: Tensor = self.trunk(self.normalise(images))
            return frozen
        features: Tensor = self.trunk(self.normalise(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_outputs)."""
        logits: Tensor = self.head(self.features(images))
        return logits
