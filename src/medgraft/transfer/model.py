"""The trainable model: normalisation, kept trunk, new head; and what frozen means."""

from collections.abc import Sequence, Set
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medgraft.cuts.truncate import Trunk
from medgraft.errors import ConfigError
from medgraft.transfer.decoders import MaskHead
from medgraft.transfer.heads import AttentionHead, ClassicalHead, FlattenedHead, PooledHead

__all__ = ["Head", "Normalise", "TransferModel"]

Head = PooledHead | FlattenedHead | AttentionHead | ClassicalHead


class Normalise(nn.Module):
    """Images on the scale 0 to 1, (B, c, *spatial), to the network's input (B, C, *spatial).

    One channel into a network of three is replicated before the per-channel mean and std, which is exact;
    summing the filters of the first layer is not.

    Args:
        in_channels: C of the network.
        kind: ``weights`` (mean and std below), ``image`` (z-score of each image) or ``before`` (likewise, but done to
            whole images before patches were cut from them).
        mean: C values.
        std: C positive values.
    """

    def __init__(
        self,
        in_channels: int,
        kind: Literal["weights", "image", "before"],
        mean: Sequence[float],
        std: Sequence[float],
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
        if self.kind == "before":
            return images
        if self.kind == "image":
            axes = tuple(range(1, images.ndim))
            mean = images.mean(axes, keepdim=True)
            std = (images - mean).square().mean(axes, keepdim=True).sqrt()
            return (images - mean) / std.clamp_min(1e-6)
        shape = (1, -1) + (1,) * (images.ndim - 2)
        return (images - self.mean.view(shape)) / self.std.view(shape)


class TransferModel(nn.Module):
    """Images on the scale 0 to 1, (B, c, *spatial), to logits (B, num_outputs), or of every pixel with a decoder.

    With a decoder and z-scores of images it takes patches of images that have these already.

    Args:
        normalise: First step, without parameters.
        trunk: The kept part of the pretrained network.
        head: New.
        frozen: Paths of frozen modules inside `trunk` ("" for all of it). Frozen means no gradient *and*
            evaluation mode, whatever mode the model is in.
        never_trained: Names of parameters that stay as they are although their block learns (adapters stand
            beside them).
    """

    def __init__(
        self,
        normalise: Normalise,
        trunk: Trunk,
        head: Head | MaskHead,
        frozen: tuple[str, ...] = (),
        never_trained: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.trunk: Trunk = trunk
        self.head: Head | MaskHead = head
        self.frozen = frozen
        self.never_trained = never_trained
        inside = {id(p) for module in self.frozen_modules() for p in module.parameters()}
        self.freeze(frozen, {name for name, p in self.named_parameters() if id(p) in inside})

    def freeze(self, modules: Sequence[str], parameters: Set[str]) -> None:
        """From now on exactly these neither learn nor move.

        Args:
            modules: Paths inside the trunk, kept in evaluation mode ("" for all of it).
            parameters: Names of the model's parameters, without gradient.
        """
        self.frozen = tuple(modules)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in parameters and name not in self.never_trained)
        self.train(self.training)

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that neither learn nor move."""
        return [self.trunk.get_submodule(path) for path in self.frozen]

    def train(self, mode: bool = True) -> "TransferModel":
        """Training mode for all but the frozen modules, whose statistics must not move."""
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self

    def features(self, images: Tensor) -> Any:
        """The tensor at the cut; for a decoder the images and the features of every level."""
        if "" in self.frozen:
            with torch.no_grad():
                return self.trunk(self.normalise(images))
        return self.trunk(self.normalise(images))

    @property
    def label_head(self) -> Head:
        """The head of a model that classifies, which also pools features.

        Raises:
            ConfigError: The head is a decoder.
        """
        if isinstance(self.head, MaskHead):
            raise ConfigError("expected a model that classifies, got one with a decoder, which pools no features.")
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.features(images))
        return logits
