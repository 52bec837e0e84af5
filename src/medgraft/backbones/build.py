"""From a specification to a network with its weights, its normalisation and a report."""

import dataclasses
import math
from pathlib import Path
from typing import Final, Literal

import torch

from medgraft.backbones.own import build_own, first_channels, is_own_name
from medgraft.backbones.packaged import (
    PACKAGED_NAME,
    build_packaged,
    packaged_manifest,
    packaged_state,
    packaged_weights,
)
from medgraft.backbones.spec import Backbone, BackboneSpec
from medgraft.backbones.timm_models import (
    build_timm,
    build_timm_from_hub,
    converter_of,
    facts_of,
    is_timm_name,
    nearest_names,
)
from medgraft.backbones.weights import load_weights, sha256_of
from medgraft.errors import BackboneError, ConfigError, WeightsError
from medgraft.types import LoadReport

__all__ = ["build_backbone"]

_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_PACKAGED_SIZE: Final = 64


def build_backbone(spec: BackboneSpec, *, seed: int = 0) -> Backbone:
    """The network of `spec` with its weights; nothing ever falls back to random weights silently.

    Args:
        spec: What the user asked for.
        seed: Of the random initialisation of whatever is not pretrained.

    Raises:
        BackboneError: Unknown name (the message lists the nearest) or arguments.
        WeightsError: The weights cannot be read or do not fit.
    """
    # Building a network must not move anybody's random numbers: `torch.manual_seed` would also reseed the
    # generators of all accelerators, which the fork does not give back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if spec.name == PACKAGED_NAME:
            return _packaged(spec)
        if is_own_name(spec.name):
            return _own(spec)
        if is_timm_name(spec.name):
            return _timm(spec)
    names = ", ".join([*nearest_names(spec.name), PACKAGED_NAME])
    raise BackboneError(
        f"expected a timm architecture, {PACKAGED_NAME}, or MODULE:CALLABLE, got {spec.name!r}. Nearest: {names}."
    )


def _packaged(spec: BackboneSpec) -> Backbone:
    if spec.args:
        raise BackboneError(
            f"expected no arguments for {PACKAGED_NAME}, which is fixed, got {spec.args}. Leave --backbone-arg out."
        )
    network = build_packaged()
    if spec.weights in ("packaged", "hub"):
        state = packaged_state()
        network.load_state_dict(state)
        report = LoadReport(
            source="packaged",
            licence=str(packaged_manifest()["licence"]),
            sha256=sha256_of(packaged_weights()),
            matched=sum(not name.endswith("num_batches_tracked") for name in state),
            matched_fraction=1.0,
        )
    elif spec.weights == "none":
        report = LoadReport(source="none")
    else:
        report = load_weights(network, Path(spec.weights))
    return _backbone(spec, network, spec.size or _PACKAGED_SIZE, "image", ((0.0,), (1.0,)), report)


def _own(spec: BackboneSpec) -> Backbone:
    network = build_own(spec.name, spec.args)
    if spec.weights in ("hub", "packaged"):
        raise WeightsError(
            f"expected --weights PATH or none for your own network {spec.name}, got {spec.weights!r}: "
            "no hub knows its weights."
        )
    is_random = spec.weights == "none"
    report = LoadReport(source="none") if is_random else load_weights(network, Path(spec.weights))
    size = spec.size or getattr(network, "input_size", None)
    channels = first_channels(network)
    statistics = (_IMAGENET_MEAN, _IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    return _backbone(spec, network, size, "weights", statistics, report)


def _timm(spec: BackboneSpec) -> Backbone:
    if spec.weights == "hub":
        if spec.args.get("in_chans", 3) != 3:
            raise BackboneError(
                f"expected published weights to keep their three channels, got in_chans={spec.args['in_chans']}: timm "
                "would sum their filters. Leave in_chans out; a grey channel is replicated, which is exact."
            )
        network, report = build_timm_from_hub(spec.name, spec.args, spec.size, is_offline=spec.is_offline)
    else:
        network = build_timm(spec.name, spec.args, spec.size)
        if spec.weights == "none":
            report = LoadReport(source="none")
        elif spec.weights == "packaged":
            raise WeightsError(f"expected --weights hub, none or PATH for {spec.name}, got 'packaged'.")
        else:
            report = load_weights(network, Path(spec.weights), convert=converter_of(network))
    facts = facts_of(network)
    statistics = (facts["mean"], facts["std"])
    if first_channels(network) == 1 and len(facts["mean"]) != 1:
        statistics = ((sum(facts["mean"]) / 3,), (sum(facts["std"]) / 3,))
    return _backbone(spec, network, spec.size or facts["size"], "weights", statistics, report)


def _backbone(
    spec: BackboneSpec,
    network: torch.nn.Module,
    size: int | None,
    normalisation: Literal["weights", "image"],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    report: LoadReport,
) -> Backbone:
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
        spec=dataclasses.replace(spec, size=size),
        network=network,
        size=size,
        in_channels=channels,
        normalisation=normalisation,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        report=report,
    )
