"""Weight distances and block importance, on CNNs and transformers alike."""

import copy
import math

import pytest
import torch
from torch import nn

from families import EVERY_FAMILY, source_of
from medgraft.analysis import block_importance, weight_changes
from medgraft.errors import DataError
from medgraft.transfer import HeadSettings, apply_strategy


@EVERY_FAMILY
def test_only_what_was_moved_has_moved(name, size):
    source = source_of(name, size)
    before = source.backbone.network
    after = copy.deepcopy(before)
    block = len(source.cuts) // 2
    names = [n for n, _ in before.named_parameters() if source.block_of.get(n) == block]
    with torch.no_grad():
        for n in names:
            after.get_parameter(n).add_(0.1)
    changes = weight_changes(before, after, source)
    moved = {change.layer for change in changes if change.l2 > 0}
    assert moved == {n.rpartition(".")[0] for n in names}
    for change in changes:
        if change.l2 > 0:
            size_of = sum(before.get_parameter(n).numel() for n in names if n.rpartition(".")[0] == change.layer)
            assert change.l2 == pytest.approx(0.1 * math.sqrt(size_of), rel=1e-4)
            assert change.block == block
        else:
            assert change.cosine is None or change.cosine == pytest.approx(1)


@EVERY_FAMILY
def test_putting_back_the_only_trained_block_costs_and_the_others_do_not(name, size):
    source = source_of(name, size)
    model, _ = apply_strategy("ftl", source, source.cuts[-1], HeadSettings(num_outputs=2), lr=0.1, seed=0)
    network = model.trunk.network
    initial = {n: value.clone() for n, value in network.state_dict().items()}
    block = len(source.cuts) // 2
    with torch.no_grad():
        for n, parameter in network.named_parameters():
            if source.block_of.get(n) == block:
                parameter.add_(0.01)
    trained = {n: value.clone() for n, value in network.state_dict().items()}

    now = network.state_dict()

    def score():
        return -sum(float((now[n] - trained[n]).abs().sum()) for n in trained)

    lost = block_importance(network, initial, source, score)
    assert lost[block] > 0
    assert all(value == 0 for index, value in lost.items() if index != block)
    assert all(torch.equal(network.state_dict()[n], trained[n]) for n in trained)


def test_statistics_go_back_with_their_block_and_an_error_leaves_the_network_whole():
    source = source_of("resnet18", 64)
    network = source.backbone.network
    initial = {n: value.clone() for n, value in network.state_dict().items()}
    mean = network.get_buffer("layer1.0.bn1.running_mean")
    mean.fill_(3.0)
    seen = {}

    def score():
        seen[len(seen)] = float(mean.mean())
        return 0.0

    block_importance(network, initial, source, score)
    assert sorted(set(seen.values())) == [0.0, 3.0]
    assert list(seen.values()).count(0.0) == 1

    def fails():
        if float(mean.mean()) == 0:
            raise ZeroDivisionError
        return 0.0

    with pytest.raises(ZeroDivisionError):
        block_importance(network, initial, source, fails)
    assert float(mean.mean()) == 3.0


def test_blocks_ten_and_one_are_two_blocks():
    source = source_of("densenet121", 64)
    names = [change.layer for change in weight_changes(source.backbone.network, source.backbone.network, source)]
    assert len(names) == len(set(names))
    assert "features.denseblock2.denselayer1.conv1" in names
    assert "features.denseblock2.denselayer10.conv1" in names


def test_two_architectures_are_refused():
    source = source_of("resnet18", 64)
    with pytest.raises(DataError, match="one architecture"):
        weight_changes(source.backbone.network, nn.Sequential(nn.Linear(2, 2)), source)
    with pytest.raises(DataError, match="one architecture"):
        weight_changes(source.backbone.network, source_of("resnet50", 64).backbone.network, source)
