"""What a user asks for, and the network that results."""

import dataclasses
from typing import Any, Final, Literal

from torch import nn

from medgraft.backbones.load_report import LoadReport

__all__ = ["LIFTS", "Backbone", "BackboneSpec", "Lift"]

Lift = Literal["none", "i3d", "acs", "slices"]
LIFTS: Final[dict[Lift, str]] = {
    "none": "as it is",
    "i3d": "every kernel repeated along the slices (I3D)",
    "acs": "every kernel shared out over the three planes (ACS)",
    "slices": "every slice by itself (2.5D)",
}
"""How a network for images may read volumes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """A network by name, with its weights.

    Args:
        name: A timm architecture, ``shapes_resnet18`` (packaged), ``torchvision/…``, ``monai/…``, one of ours
            (``lenet5``, ``alexnet``, ``caffenet``, ``cbr_…``, ``resnext3d_101``), ``package.module:callable`` or
            ``file.py:callable``.
        args: Keyword arguments of the constructor, e.g. ``{"pad_type": "same"}``.
        weights: ``hub``, ``none``, ``packaged`` or the path of a weights file.
        size: Side of a square or cubic input in px, (D, H, W), or None for the network's own.
        mean: Per input channel on the scale 0 to 1; empty for what belongs to the weights.
        std: Per input channel on the scale 0 to 1; empty for what belongs to the weights.
        lift: A key of `LIFTS`; how a network for images is made to read volumes.
        input: How a grey image enters a network for colours: ``replicate`` or ``fold``, see `medgraft.backbones.grey`.
        proof: Whether a job stops (``stop``) where layers contradict the preprocessing, or only says so (``say``).
        is_offline: Forbid any attempt to reach a network.
        seed: Seeds weights that are random.
    """

    name: str
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = "hub"
    size: int | tuple[int, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    lift: Lift = "none"
    input: Literal["replicate", "fold"] = "replicate"
    proof: Literal["stop", "say"] = "stop"
    is_offline: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backbone:
    """A network that is ready to be cut.

    Args:
        spec: What was asked for.
        network: With its weights; its head, where it has one, is cut off later.
        sides: Sides of the input: (H, W) in px or (D, H, W) in voxels; None when neither the user nor the network
            names them.
        dims: 2 for images, 3 for volumes.
        in_channels: Channels of the network's input.
        normalisation: ``weights`` (mean and std below) or ``image`` (z-score of each image).
        mean: Per input channel.
        std: Per input channel.
        report: What loading the weights did.
        is_fixed: Whether it refuses an input of other sides.
    """

    spec: BackboneSpec
    network: nn.Module
    sides: tuple[int, ...] | None
    dims: Literal[2, 3]
    in_channels: int
    normalisation: Literal["weights", "image"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    report: LoadReport
    is_fixed: bool = False
