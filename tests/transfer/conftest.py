import dataclasses
import functools

import pytest
import torch
from torch import nn

from families import ARGS, FAMILIES
from medgraft.backbones.build import build_backbone
from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.spec import Backbone, BackboneSpec
from medgraft.transfer.source import Source, prepare_source
from medgraft.types import Cut


# Cached: tracing is the slow part, and a source is never changed.
@functools.cache
def named(name: str, size: int) -> Source:
    args = ARGS.get(name, {}) if FAMILIES.get(name) == size else {}
    backbone = build_backbone(BackboneSpec(name=name, args=args, weights="none", size=size))
    # As if trained: statistics that were not copied would be zeros and ones.
    draws = torch.Generator().manual_seed(0)
    for path, buffer in backbone.network.named_buffers():
        if path.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=draws) + 0.5)
    return prepare_source(dataclasses.replace(backbone, report=LoadReport(source="a file")), (size, size))


@pytest.fixture
def source_of():
    """A source by timm name and side, as if its weights came from a file."""
    return named


@pytest.fixture
def own_source():
    """A source around a network of one's own: (network, missing) → Source."""

    def make(network: nn.Module, *, missing: tuple[str, ...] = (), origin: str = "a file") -> Source:
        backbone = Backbone(
            spec=BackboneSpec(name="own.py:net", weights="none"),
            network=network.eval(),
            sides=(16, 16),
            dims=2,
            in_channels=3,
            normalisation="weights",
            mean=(0.5, 0.4, 0.3),
            std=(0.2, 0.3, 0.4),
            report=LoadReport(source=origin, missing=missing),
        )
        return prepare_source(backbone, (16, 16))

    return make


@pytest.fixture
def cut_with():
    """A cut of a given tensor, for heads."""

    def make(channels: int, shape: tuple[int, ...], channel_axis: int) -> Cut:
        return Cut(
            index=1,
            name="block",
            stage=0,
            channels=channels,
            stride=4,
            num_params=1,
            macs=1,
            shape=shape,
            channel_axis=channel_axis,
            tap="block",
            tap_side="output",
        )

    return make


@pytest.fixture
def seeded():
    """Random images on the scale 0 to 1."""

    def make(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed))

    return make
