"""What a user asks for, and the network that results."""

import dataclasses
from typing import Any, Literal

from torch import nn

from medgraft.types import LoadReport

__all__ = ["Backbone", "BackboneSpec"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """A network by name, with its weights.

    Args:
        name: A timm architecture, ``shapes_resnet18`` (packaged), ``package.module:callable`` or
            ``file.py:callable``.
        args: Keyword arguments of the constructor, e.g. ``{"pad_type": "same"}``.
        weights: ``hub``, ``none``, ``packaged`` or the path of a weights file.
        size: Side of the square input in px, or None for the network's own.
        mean: Per input channel on the scale 0 to 1; empty for what belongs to the weights.
        std: Per input channel on the scale 0 to 1; empty for what belongs to the weights.
        is_offline: Forbid any attempt to reach a network.
    """

    name: str
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = "hub"
    size: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    is_offline: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backbone:
    """A network that is ready to be cut.

    Args:
        spec: What was asked for.
        network: With its weights; its head, where it has one, is cut off later.
        size: Side of the square input, px; None when neither the user nor the network names one.
        in_channels: Of the network's input.
        normalisation: ``weights`` (mean and std below) or ``image`` (z-score of each image).
        mean: Per input channel.
        std: Per input channel.
        report: What loading the weights did.
    """

    spec: BackboneSpec
    network: nn.Module
    size: int | None
    in_channels: int
    normalisation: Literal["weights", "image"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    report: LoadReport
