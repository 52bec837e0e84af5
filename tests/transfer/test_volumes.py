"""Strategies on three-dimensional networks: what holds for images holds for volumes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from medgraft.backbones.build import build_backbone
from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.spec import BackboneSpec
from medgraft.transfer import BELOW_STEM, STRATEGIES, HeadSettings, apply_strategy, prepare_source

NETWORKS = """
from monai.networks import nets
from torchvision.models import video

def resnet():
    return nets.ResNet("basic", [1, 1, 1, 1], [16, 32, 64, 128], n_input_channels=1, num_classes=2)

def densenet():
    return nets.DenseNet(spatial_dims=3, in_channels=1, out_channels=2, block_config=(2, 2, 2, 2))

def efficientnet():
    return nets.EfficientNetBN("efficientnet-b0", spatial_dims=3, in_channels=1, num_classes=2, pretrained=False)

def r2plus1d():
    return video.r2plus1d_18(weights=None)
"""
SIDES = {
    "resnet": (32, 32, 32),
    "densenet": (32, 32, 32),
    "efficientnet": (32, 32, 32),
    "r2plus1d": (8, 32, 32),
}
HEAD = HeadSettings(num_outputs=2)


@pytest.fixture(scope="module", params=SIDES)
def volumes(request, tmp_path_factory):
    """A source of volumes and a batch of two for it."""
    file: Path = tmp_path_factory.mktemp("networks") / "networks.py"
    file.write_text(NETWORKS)
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSpec(name=f"{file}:{request.param}", weights="none", size=32))
    source = prepare_source(
        dataclasses.replace(backbone, report=LoadReport(source="a file")), sides := SIDES[request.param]
    )
    return source, torch.rand(2, source.backbone.in_channels, *sides)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("hybrid", "lora")])
def test_every_strategy_learns_on_volumes_and_keeps_frozen_blocks(volumes, strategy):
    source, batch = volumes
    cut = source.cuts[len(source.cuts) // 2] if STRATEGIES[strategy].has_depth else source.cuts[-1]
    model, _ = apply_strategy(strategy, source, cut, HEAD, lr=0.01, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    nn.functional.cross_entropy(model.train()(batch), torch.tensor([0, 1])).backward()
    optimizer.step()
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("head.") for name in moved)
    for name, _ in model.named_parameters():
        block = source.block_of.get(name.removeprefix("trunk.network."), 0)
        if strategy in ("lwft", "gradual", "frozen") and 0 < block <= cut.index:
            assert name not in moved
    assert model.eval()(batch).shape == (2, 2)


def test_slimmed_volumes_keep_the_bottom_and_nothing_else(volumes):
    source, _ = volumes
    cut = source.cuts[len(source.cuts) // 2]
    model, _ = apply_strategy("tf", source, cut, HEAD, lr=0.01, seed=0)
    pretrained = source.backbone.network.state_dict()
    for name, value in model.trunk.network.state_dict().items():
        block = source.block_of.get(name)
        if block is not None and block <= cut.index:
            assert torch.equal(value, pretrained[name]), name
        elif block is not None and value.ndim > 1:
            assert torch.isin(value.flatten()[:50], pretrained[name].flatten()).sum() < 5, name
    slim = sum(p.numel() for p in model.trunk.parameters())
    assert cut.num_params < slim < 0.75 * source.cuts[-1].num_params
    assert model.trunk.cut.macs < source.cuts[-1].macs


@pytest.mark.parametrize("strategy", ["tf", "wtst"])
def test_depth_zero_keeps_no_value_of_a_volume_network(volumes, strategy):
    source, batch = volumes
    model, _ = apply_strategy(strategy, source, BELOW_STEM, HEAD, lr=0.01, seed=0)
    pretrained = source.backbone.network.state_dict()
    for name, value in model.trunk.network.named_parameters():
        if value.ndim > 1:
            assert value.shape != pretrained[name].shape or not torch.equal(value, pretrained[name]), name
    assert model.eval()(batch).shape == (2, 2)
