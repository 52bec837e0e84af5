"""From a specification to a network with random weights, and what it reads."""

import dataclasses
import difflib
import math
from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Tensor

from medgraft.backbones.classic import CLASSIC_NAMES, build_classic
from medgraft.backbones.grey import folded
from medgraft.backbones.lift import lift_network
from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.monai_models import MONAI_NAMES, build_monai, monai_sides
from medgraft.backbones.own import build_own, dims_of, first_channels, is_own_name
from medgraft.backbones.packaged import PACKAGED_NAME, build_packaged
from medgraft.backbones.resnext3d import resnext3d_101
from medgraft.backbones.spec import Backbone, BackboneSpec, Lift
from medgraft.backbones.timm_models import build_timm, converter_of, facts_of, is_timm_name, nearest_names
from medgraft.backbones.torchvision_models import (
    IMAGE_NAMES,
    VIDEO_NAMES,
    build_image,
    build_video,
    image_converter,
    image_facts,
    video_facts,
)
from medgraft.backbones.variants import VARIANTS, build_variant
from medgraft.errors import BackboneError, ConfigError, WeightsError

__all__ = ["VOLUME_NAMES", "build_backbone", "check_size", "family_converter", "finished", "lifted"]

_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_PACKAGED_SIZE: Final = 64
_RESNEXT: Final = "resnext3d_101"
VOLUME_NAMES: Final = (*MONAI_NAMES, *VIDEO_NAMES, _RESNEXT)
"""Networks for volumes, by name."""


def build_backbone(spec: BackboneSpec) -> Backbone:
    """The network of `spec` with the random weights of its author; `medgraft.sources.open_backbone` fills them.

    Args:
        spec: What the user asked for; its weights are ``none``.

    Raises:
        BackboneError: Unknown name (the message lists the nearest) or arguments.
        WeightsError: Weights are asked for, which nothing here can give.
    """
    if spec.weights != "none":
        raise WeightsError(f"expected weights 'none' of a network that is only built, got {spec.weights!r}.")
    # Building a network must not move anybody's random numbers: `torch.manual_seed` would also reseed the
    # generators of all accelerators, which the fork does not give back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        built = _built(dataclasses.replace(spec, lift="none", input="replicate"))
    return finished(built, spec)


def finished(backbone: Backbone, spec: BackboneSpec) -> Backbone:
    """A built network, filled or not, as it reads what it is asked to read: grey images, volumes.

    Args:
        backbone: As it is published; its network is changed.
        spec: How grey images enter, and how it is lifted to volumes.

    Raises:
        BackboneError: It cannot.
    """
    if spec.input == "fold":
        grey = folded(backbone)
        backbone = dataclasses.replace(grey, spec=dataclasses.replace(grey.spec, input="fold"))
    return lifted(backbone, spec.lift)


def lifted(backbone: Backbone, kind: Lift) -> Backbone:
    """`backbone` as a network for volumes (its network is changed); as it is where `kind` is ``none``.

    Raises:
        BackboneError: It is one already, or cannot become one.
    """
    if kind == "none":
        return backbone
    name = backbone.spec.name
    if backbone.dims == 3:
        raise BackboneError(f"expected a network for images to lift, got {name}, which reads volumes. Use --lift none.")
    size = backbone.spec.size
    return dataclasses.replace(
        backbone,
        spec=dataclasses.replace(backbone.spec, lift=kind),
        network=lift_network(backbone.network, kind, name=name),
        sides=_sides(size, 3) if size is not None else None,
        dims=3,
    )


def _built(spec: BackboneSpec) -> Backbone:
    if spec.name == PACKAGED_NAME:
        return _packaged(spec)
    if is_own_name(spec.name):
        return _own(spec, build_own(spec.name, spec.args))
    if spec.name in CLASSIC_NAMES:
        return _own(spec, build_classic(spec.name, spec.args))
    if spec.name in VOLUME_NAMES:
        return _for_volumes(spec)
    if spec.name in IMAGE_NAMES:
        return _torchvision(spec)
    if spec.name in VARIANTS or is_timm_name(spec.name):
        return _timm(spec)
    others = (*VOLUME_NAMES, *CLASSIC_NAMES, *IMAGE_NAMES, *VARIANTS)
    near = difflib.get_close_matches(spec.name, others, n=3, cutoff=0.4)
    names = ", ".join([*nearest_names(spec.name), *near, PACKAGED_NAME])
    raise BackboneError(
        f"expected a timm architecture, {PACKAGED_NAME}, a network of torchvision, MONAI or medgraft, or "
        f"MODULE:CALLABLE, got {spec.name!r}. Nearest: {names}."
    )


def _for_volumes(spec: BackboneSpec) -> Backbone:
    is_monai, is_video = spec.name in MONAI_NAMES, spec.name in VIDEO_NAMES
    sides = _sides(spec.size, 3) if spec.size is not None else None
    facts = video_facts(spec.name) if is_video else (None, (0.0,) * 3, (1.0,) * 3)
    sides = monai_sides(spec.name, sides) or facts[0]
    if is_monai:
        network = build_monai(spec.name, spec.args, sides)
    elif is_video:
        network = build_video(spec.name, spec.args, sides)
    else:
        network = resnext3d_101()
    if is_video:
        return _backbone(spec, network, sides, "weights", facts[1:])
    # MedicalNet, SwinUNETR and most of medicine see every volume by its own mean and deviation.
    channels = first_channels(network)
    return _backbone(spec, network, sides, "image", ((0.0,) * channels, (1.0,) * channels))


def _side(spec: BackboneSpec) -> int | None:
    """The side of an image; the size of volumes means something once the network is lifted."""
    return spec.size if isinstance(spec.size, int) else None


def family_converter(backbone: Backbone) -> Callable[[dict[str, Tensor]], dict[str, Tensor]] | None:
    """What renames and reshapes the tensors of other releases of a network; None where its family has no such thing."""
    if backbone.spec.name in IMAGE_NAMES and backbone.sides is not None:
        return image_converter(backbone.spec.name, backbone.sides[0])
    return converter_of(backbone.network)


def check_size(backbone: Backbone) -> None:
    """Refuse a depth where the network reads images.

    Raises:
        ConfigError: The size asked for has other axes than the network reads.
    """
    if backbone.spec.size is not None:
        _sides(backbone.spec.size, backbone.dims)


def _sides(size: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    """The sides that a size means.

    Raises:
        ConfigError: It has another number of axes.
    """
    sides = (size,) * dims if isinstance(size, int) else tuple(size)
    if len(sides) != dims:
        axes = "one side in px" if dims == 2 else "one side or depth, height and width in voxels"
        raise ConfigError(f"expected --size as {axes} for this network, got {size}.")
    return sides


def _packaged(spec: BackboneSpec) -> Backbone:
    if spec.args:
        raise BackboneError(
            f"expected no arguments for {PACKAGED_NAME}, which is fixed, got {spec.args}. Leave --backbone-arg out."
        )
    return _backbone(spec, build_packaged(), _sides(_side(spec) or _PACKAGED_SIZE, 2), "image", ((0.0,), (1.0,)))


def _own(spec: BackboneSpec, network: torch.nn.Module) -> Backbone:
    asked = spec.size if dims_of(network) == 3 else _side(spec)
    size = asked or getattr(network, "input_size", None)
    sides = _sides(size, dims_of(network)) if size is not None else None
    channels = first_channels(network)
    statistics = (_IMAGENET_MEAN, _IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    return _backbone(spec, network, sides, "weights", statistics)


def _torchvision(spec: BackboneSpec) -> Backbone:
    facts = image_facts(spec.name)
    side = _side(spec) or facts.side
    network = build_image(spec.name, spec.args, side)
    backbone = _backbone(spec, network, _sides(side, 2), "weights", (facts.mean, facts.std))
    return dataclasses.replace(backbone, is_fixed=facts.is_fixed)


def _timm(spec: BackboneSpec) -> Backbone:
    side = _side(spec)
    build = build_variant if spec.name in VARIANTS else build_timm
    network = build(spec.name, spec.args, side)
    facts = facts_of(network)
    statistics = (facts["mean"], facts["std"])
    if first_channels(network) == 1 and len(facts["mean"]) != 1:
        statistics = ((sum(facts["mean"]) / 3,), (sum(facts["std"]) / 3,))
    backbone = _backbone(spec, network, _sides(side or facts["size"], 2), "weights", statistics)
    return dataclasses.replace(backbone, is_fixed=facts["is_fixed"])


def _backbone(
    spec: BackboneSpec,
    network: torch.nn.Module,
    sides: tuple[int, ...] | None,
    normalisation: Literal["weights", "image"],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
) -> Backbone:
    """The backbone of a built network, its mean and std checked.

    Args:
        spec: What the user asked for.
        network: With random weights.
        sides: Sides of its input, px or voxels; None when neither the user nor the network names them.
        normalisation: ``weights`` or ``image``; ``weights`` wherever the user gave mean or std.
        statistics: Mean and std per input channel, where the user gave none.
    """
    channels = first_channels(network)
    mean, std = spec.mean or statistics[0], spec.std or statistics[1]
    if spec.mean or spec.std:
        normalisation = "weights"
    are_usable = all(math.isfinite(value) for value in (*mean, *std)) and min(std, default=0.0) > 0
    if len(mean) != channels or len(std) != channels or not are_usable:
        raise ConfigError(
            f"expected {channels} finite values of mean and of positive std (one per input channel), "
            f"got mean {mean} and std {std}. Give mean and std of the network's own training images."
        )
    return Backbone(
        spec=spec,
        network=network,
        sides=sides,
        dims=dims_of(network),
        in_channels=channels,
        normalisation=normalisation,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        report=LoadReport(source="none"),
    )
