"""LeNet-5, AlexNet, CaffeNet and the CBR family: sizes as published, layers as their papers define them."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medgraft.backbones import Backbone, BackboneSpec
from medgraft.backbones.classic import CBR, CLASSIC_NAMES, build_classic
from medgraft.cuts import Trunk, truncate_traced
from medgraft.errors import BackboneError, WeightsError
from medgraft.sources import open_backbone
from medgraft.transfer.source import Source, cuts_of, random_source

# Table I of LeCun 1998: a row per map of S2, a column per map of C3.
TABLE = [
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
]
SMALL = {
    "lenet5": 32,
    "alexnet": 99,
    "caffenet": 99,
    "cbr_large_t": 32,
    "cbr_large_w": 32,
    "cbr_small": 32,
    "cbr_tiny": 32,
}


def make(name: str, weights: str = "none", **options: Any) -> Backbone:
    return open_backbone(BackboneSpec(name=name, weights=weights, **options))


def num_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def images(channels: int, side: int) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


# --- sizes


def test_lenet_has_the_sizes_of_its_paper_and_of_the_survey() -> None:
    """60 000 in all (LeCun 1998), 1 716 in the feature extractor (Kim 2022, table 1)."""
    network = build_classic("lenet5", {})
    assert num_params(network) == 60_000
    sizes = {name: num_params(module) for name, module in network.named_children()}
    assert sizes == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    cuts = {cut.name: cut.num_params for cut in cuts_of("lenet5", {}, None)}
    assert cuts == {"c1": 156, "s2": 168, "c3": 1_684, "s4": 1_716, "c5": 49_836}


@pytest.mark.parametrize(
    ("name", "args", "features", "whole"),
    [
        # Kim 2022, table 1: 3.7 M and 62.3 M.
        ("alexnet", {}, 3_747_200, 62_378_344),
        # Krizhevsky 2012: "60 million parameters".
        ("alexnet", {"groups": 2}, 2_334_080, 60_965_224),
        ("caffenet", {}, 2_334_080, 60_965_224),
    ],
)
def test_alexnets_have_their_published_sizes(name: str, args: dict[str, Any], features: int, whole: int) -> None:
    assert cuts_of(name, args, None)[-1].num_params == features
    with torch.device("meta"):
        assert num_params(build_classic(name, {**args, "num_classes": 1000})) == whole


@pytest.mark.parametrize(
    ("name", "kernel", "channels"),
    [
        ("cbr_large_t", 7, (3, 32, 64, 128, 256, 512)),
        ("cbr_large_w", 7, (3, 64, 128, 256, 512)),
        ("cbr_small", 7, (3, 32, 64, 128, 256)),
        ("cbr_tiny", 5, (3, 64, 128, 256, 512)),
    ],
)
def test_a_cbr_is_what_its_paper_says(name: str, kernel: int, channels: tuple[int, ...]) -> None:
    network = build_classic(name, {})
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == list(itertools.pairwise(channels))
    assert {(conv.kernel_size, conv.stride) for conv in convs} == {((kernel, kernel), (1, 1))}
    pools = [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(3, 2)] * 4
    cuts = cuts_of(name, {}, None)
    assert [cut.num_params for cut in cuts] == list(
        np.cumsum([kernel**2 * a * b + 2 * b for a, b in itertools.pairwise(channels)])
    )
    assert [cut.stride for cut in cuts] == [2, 4, 8, 16, 16][: len(cuts)]
    assert cuts[-1].shape == (channels[-1], 14, 14)


# --- layers


def test_c3_reads_the_maps_of_its_table() -> None:
    network = build_classic("lenet5", {})
    kernels = torch.zeros(16, 6, 5, 5)
    biases = torch.cat([conv.bias for conv in network.c3.convs])
    rows = iter([kernel for conv in network.c3.convs for kernel in conv.weight.unflatten(0, (conv.out_channels, 1))])
    for number in range(16):
        read = [index for index, row in enumerate(TABLE) if row[number] == "X"]
        kernels[number, read] = next(rows)[0]
    maps = images(6, 14)
    expected = 1.7159 * torch.tanh(2 / 3 * F.conv2d(maps, kernels, biases))
    assert torch.allclose(network.c3(maps), expected, atol=1e-5)


def test_subsampling_scales_the_sum_of_four_neighbours() -> None:
    layer = build_classic("lenet5", {}).s2
    maps = images(6, 8)
    total = maps.unflatten(3, (4, 2)).unflatten(2, (4, 2)).sum((3, 5))
    scaled = total * layer.scale.weight.reshape(1, 6, 1, 1) + layer.scale.bias.reshape(1, 6, 1, 1)
    assert torch.allclose(layer(maps), 1.7159 * torch.tanh(2 / 3 * scaled), atol=1e-5)


@pytest.mark.parametrize(("name", "offset", "slope"), [("alexnet", 2.0, 1e-4), ("caffenet", 1.0, 1e-4 / 5)])
def test_local_responses_are_normalised_as_defined(name: str, offset: float, slope: float) -> None:
    """The paper: (2 + 1e-4 Σ)^.75 over 5 neighbouring maps; Caffe: (1 + 1e-4 / 5 Σ)^.75."""
    maps = 100 * images(96, 2)
    squares = np.pad(maps.double().numpy() ** 2, ((0, 0), (2, 2), (0, 0), (0, 0)))
    sums = sum(squares[:, shift : shift + 96] for shift in range(5))
    found = build_classic(name, {}).features.norm1(maps)
    assert np.allclose(found.numpy(), maps.double().numpy() / (offset + slope * sums) ** 0.75, rtol=1e-4)


def test_caffenet_pools_before_it_normalises() -> None:
    layers = {
        name: [key for key, _ in build_classic(name, {}).features.named_children()] for name in ("alexnet", "caffenet")
    }
    assert layers["alexnet"][:4] == ["conv1", "relu1", "norm1", "pool1"]
    assert layers["caffenet"][:4] == ["conv1", "relu1", "pool1", "norm1"]
    assert {len(keys) for keys in layers.values()} == {15}
    groups = [conv.groups for conv in build_classic("caffenet", {}).features if isinstance(conv, nn.Conv2d)]
    assert groups == [1, 2, 1, 2, 2]


@pytest.mark.parametrize(("side", "expected"), [(227, (256, 6, 6)), (99, (256, 2, 2))])
def test_an_alexnet_takes_other_sizes_with_its_head(side: int, expected: tuple[int, ...]) -> None:
    network = build_classic("caffenet", {"num_classes": 3}).eval()
    with torch.no_grad():
        assert network.forward_features(images(3, side)).shape[1:] == expected
        assert network(images(3, side)).shape == (2, 3)


def test_networks_without_a_head_give_features() -> None:
    assert build_classic("lenet5", {})(images(1, 32)).shape == (2, 84)
    assert build_classic("lenet5", {})(images(1, 64)).shape == (2, 84)
    assert build_classic("cbr_small", {})(images(3, 32)).shape == (2, 256)
    assert build_classic("cbr_small", {"num_classes": 5})(images(3, 32)).shape == (2, 5)
    assert isinstance(build_classic("cbr_tiny", {"channels": [8, 16]}), CBR)


# --- as backbones


@pytest.mark.parametrize(
    ("name", "side", "channels"),
    [
        ("lenet5", 32, 1),
        ("alexnet", 227, 3),
        ("caffenet", 227, 3),
        *((n, 224, 3) for n in CLASSIC_NAMES if n[0:3] == "cbr"),
    ],
)
def test_a_backbone_knows_its_input(name: str, side: int, channels: int) -> None:
    backbone = make(name)
    assert (backbone.sides, backbone.dims, backbone.in_channels) == ((side, side), 2, channels)
    assert (backbone.normalisation, len(backbone.mean), backbone.is_fixed) == ("weights", channels, False)
    assert make(name, args={"in_chans": 4 - channels}).in_channels == 4 - channels
    assert make(name, size=SMALL[name] * 2).sides == (SMALL[name] * 2,) * 2


@pytest.fixture(scope="module", params=SMALL)
def source(request: pytest.FixtureRequest) -> Source:
    return random_source(request.param, {}, SMALL[request.param])


def trunks(source: Source) -> list[Trunk]:
    return [truncate_traced(source.backbone.network, source.trace, cut) for cut in source.cuts]


def test_every_trunk_equals_the_network_up_to_its_cut_and_learns(source: Source) -> None:
    network, batch = source.backbone.network.eval(), images(source.backbone.in_channels, source.input_sides[0])
    assert len(source.cuts) >= 4
    for trunk in trunks(source):
        kept: list[torch.Tensor] = []
        handle = network.get_submodule(trunk.cut.tap).register_forward_hook(
            lambda _module, _args, out, kept=kept: kept.append(out.clone())
        )
        with torch.no_grad():
            network(batch)
            handle.remove()
            assert torch.equal(trunk.eval()(batch), kept[0])
        assert num_params(trunk) == trunk.cut.num_params
        trunk.train()(batch).square().mean().backward()
        assert all(parameter.grad is not None for parameter in trunk.parameters())


def test_a_file_of_the_whole_network_fills_it(tmp_path: Any) -> None:
    network = build_classic("cbr_small", {"num_classes": 5})
    torch.save({"state_dict": network.state_dict()}, tmp_path / "cbr.pt")
    backbone = make("cbr_small", str(tmp_path / "cbr.pt"))
    assert (backbone.report.matched_fraction, backbone.report.missing) == (1.0, ())
    assert backbone.report.unexpected == ("fc.weight", "fc.bias")
    assert torch.equal(backbone.network.features.cbr1.conv.weight, network.features.cbr1.conv.weight)


def test_what_cannot_be_is_refused() -> None:
    for weights in ("hub", "packaged"):
        with pytest.raises(WeightsError, match=f"(PATH or none|none, NAME or PATH) for caffenet, got '{weights}'"):
            make("caffenet", weights)
    with pytest.raises(BackboneError, match=r"caffenet takes, got \{'groups': 7\}: in_channels must be divisible"):
        make("caffenet", args={"groups": 7})
    with pytest.raises(BackboneError, match=r"lenet5 takes, got \{'num_classes': 3\}.*See --backbone-arg"):
        make("lenet5", args={"num_classes": 3})
    with pytest.raises(BackboneError, match="expected a network among lenet5, alexnet"):
        build_classic("lenet", {})
    for typo, name in (
        ("lenet", "lenet5"),
        ("alexnt", "alexnet"),
        ("cafenet", "caffenet"),
        ("cbr_large", "cbr_large_t"),
    ):
        with pytest.raises(BackboneError, match=f"Nearest: .*{name}"):
            make(typo)
    with pytest.raises(BackboneError, match=r"shape \(1, 16, 16\).*Set the input size"):
        cuts_of("lenet5", {}, 16)
