"""Two networks of the same shapes may compute different things; weights mean one of them."""

from typing import Final

import torch
from torch import Tensor, nn

from medgraft.backbones.build import build_backbone
from medgraft.backbones.evaluating import evaluating
from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.spec import Backbone, BackboneSpec
from medgraft.errors import BackboneError, WeightsError
from medgraft.sources.known import KnownSource
from medgraft.sources.layouts.published import LAYOUTS

__all__ = ["demand_agreement"]

_SIDE: Final = 128
_TOLERANCE: Final = 1e-3
"""Largest difference of features, as a share of their deviation, that rounding makes."""


def demand_agreement(backbone: Backbone, report: LoadReport, sources: tuple[KnownSource, ...]) -> None:
    """Refuse a network that computes other features than the one its weights were trained with.

    Padding, stride, number of attention heads, activation and epsilon leave no trace in names and shapes. Both networks
    see the same image with the same weights.

    Args:
        backbone: Filled.
        report: What loading said.
        sources: What the weights may be.

    Raises:
        WeightsError: No network that the weights may have been trained with computes the same.
    """
    layout = LAYOUTS.get(report.layout)
    meant = [(source.network, source.args) for source in sources]
    if not meant and layout is not None and layout.network:
        meant = [(layout.network, {})]
    name, given = backbone.spec.name.partition(".")[0], backbone.spec.args
    if not meant or any(name == other and {**given, **args} == given for other, args in meant):
        return
    smallest = min(_difference(backbone, name, args) for name, args in meant)
    if smallest > _TOLERANCE:
        names = " or ".join(_as_typed(name, args) for name, args in meant[:1])
        words = layout.words if layout is not None else "these"
        raise WeightsError(
            f"expected the network that the weights were trained with ({words}), got {backbone.spec.name}: its tensors "
            f"have the same shapes and its features {_apart(smallest)}. "
            f"Say --backbone {names}."
        )


def _apart(difference: float) -> str:
    return f"differ by {difference:.0%} of their deviation" if difference < float("inf") else "have other shapes"


def _as_typed(name: str, args: dict[str, object]) -> str:
    return " ".join([name, *(f"--backbone-arg {key}={value}" for key, value in args.items())])


def _difference(backbone: Backbone, name: str, args: dict[str, object]) -> float:
    """How far two networks' features of one drawn image lie apart, as a share of their deviation.

    Infinite where the weights do not fit the other network.

    Args:
        backbone: One network, filled.
        name: The other.
        args: Arguments of the other's constructor.
    """
    try:
        other = build_backbone(
            BackboneSpec(name=name, args={**backbone.spec.args, **args}, weights="none", size=backbone.spec.size)
        ).network
        other.load_state_dict(backbone.network.state_dict())
    except (BackboneError, RuntimeError):
        return float("inf")
    sides = backbone.sides or (_SIDE,) * backbone.dims
    x = torch.randn((1, backbone.in_channels, *sides), generator=torch.Generator().manual_seed(0))
    ours, theirs = _features(backbone.network, x), _features(other, x)
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / ours.std().clamp_min(1e-12))


def _features(network: nn.Module, x: Tensor) -> Tensor:
    with evaluating(network):
        features: Tensor = getattr(network, "forward_features", network)(x)
        return features.clone()
