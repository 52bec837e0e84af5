"""Encoders truncated with their skip connections, and decoders truncated with them: U-Net, UNet++, FPN, UPerNet, volumes."""

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from medgraft.cli import app
from medgraft.cuts.levels import Pyramid, levels_of
from medgraft.cuts.truncate import truncate_traced
from medgraft.errors import ConfigError, CutError
from medgraft.transfer.decoders import MaskHead, decoders_at_cuts, segmenter_costs
from medgraft.transfer.heads import HeadSettings, head_macs
from medgraft.transfer.plan import parameter_groups
from medgraft.transfer.source import Source, random_source
from medgraft.transfer.strategies import WITH_DECODER, apply_strategy


def source_of(name: str, size: Any = 224, lift: Any = "none") -> Source:
    return random_source(name, {}, size, lift)


def segmenter(source: Source, cut: int, kind: str = "unet", num_outputs: int = 1) -> nn.Sequential:
    levels = levels_of(source.trace, source.cuts, source.cuts[cut - 1])
    trunk = truncate_traced(source.backbone.network, source.trace, source.cuts[cut - 1])
    shape = source.trace.shapes[source.trace.input][1:]
    return nn.Sequential(Pyramid(trunk, levels), MaskHead(kind, levels, shape, num_outputs)).eval()


@pytest.fixture(scope="module")
def resnet34() -> Source:
    return source_of("resnet34")


# Peng 2022, IV-E: multiply-accumulates in G. Their parameters (21.3, 21.5, 22.1, 24.4 M) count stages that never run.
@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [("layer1.2", 1.68, 0.3), ("layer2.3", 3.02, 1.6), ("layer3.5", 4.82, 9.0), ("layer4.2", 5.93, 24.4)],
)
def test_a_truncated_unet_costs_what_was_published_and_stores_only_what_runs(
    resnet34: Source, name: str, macs: float, params: float
) -> None:
    cut = next(cut for cut in resnet34.cuts if cut.name == name)
    cost = segmenter_costs(resnet34, "unet")[cut.index]
    assert cost.macs / 1e9 == pytest.approx(macs, rel=0.05)
    assert cost.num_params / 1e6 == pytest.approx(params, abs=0.06)
    model = segmenter(resnet34, cut.index)
    assert sum(p.numel() for p in model.parameters()) == cost.num_params
    kept = {key.split(".")[2] for key in model.state_dict() if key.startswith("0.network.")}
    assert [f"layer{n}" for n in range(1, 5) if f"layer{n}" in kept] == [
        f"layer{n}" for n in range(1, int(name[5]) + 1)
    ]


# Networks without features at half the resolution, with gaps between, and with tokens on the way from map to map.
@pytest.mark.parametrize("kind", ["unet", "unet++", "fpn", "upernet"])
@pytest.mark.parametrize("name", ["convnext_atto", "hrnet_w18_small", "pvt_v2_b0"])
def test_what_a_decoder_is_offered_at_a_cut_it_can_use(name: str, kind: str) -> None:
    source = source_of(name, 64)
    if name == "hrnet_w18_small" and kind != "unet":
        with pytest.raises(ConfigError, match="at strides 8, 16, where this network has none"):
            decoders_at_cuts(source, kind)
        return
    heads = decoders_at_cuts(source, kind)
    assert source.cuts[-1].index in heads
    for index in heads:
        levels = levels_of(source.trace, source.cuts, source.cuts[index - 1])
        trunk = truncate_traced(copy.deepcopy(source.backbone.network), source.trace, source.cuts[index - 1])
        head = MaskHead(kind, levels, (3, 64, 64), 2)
        with torch.no_grad():
            logits = nn.Sequential(Pyramid(trunk, levels), head).eval()(torch.zeros(1, 3, 64, 64))
        assert logits.shape == (1, 2, 64, 64)


def test_every_parameter_that_is_kept_has_a_gradient(resnet34: Source) -> None:
    for cut in (4, 6, 9, 17):
        model = segmenter(resnet34, cut).train()
        model(torch.rand(2, 3, 64, 64)).square().mean().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_levels_are_the_last_tensors_of_their_resolution(resnet34: Source) -> None:
    model = segmenter(resnet34, 17)
    network, images = resnet34.backbone.network.eval(), torch.rand(1, 3, 64, 96)
    expected: list[Tensor] = []
    hooks = [
        getattr(network, name).register_forward_hook(lambda _m, _a, out: expected.append(out))
        for name in ("act1", "layer1", "layer2", "layer3", "layer4")
    ]
    with torch.no_grad():
        network(images)
        found = model[0](images)
    for hook in hooks:
        hook.remove()
    assert torch.equal(found[0], images)
    assert all(torch.equal(a, b) for a, b in zip(found[1:], expected, strict=True))
    # A copy looks at its own layers.
    twin = copy.deepcopy(model)
    nn.init.zeros_(twin[0].network.conv1.weight)
    with torch.no_grad():
        assert not torch.equal(twin(images), model(images))
        assert all(torch.equal(a, b) for a, b in zip(model[0](images)[1:], expected, strict=True))


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("mobilenetv1_100", [64, 128, 256, 512, 1024]),
        ("efficientnet_b0", [16, 24, 40, 112, 1280]),
        ("densenet121", [64, 256, 512, 1024, 1024]),
        ("convnext_atto", [0, 40, 80, 160, 320]),
        ("swin_tiny_patch4_window7_224", [0, 96, 192, 384, 768]),
        ("vgg11_bn", [128, 256, 512, 512, 512]),
        ("shapes_resnet18", [32, 16, 32, 64, 128]),
    ],
)
def test_levels_of_families(name: str, channels: list[int]) -> None:
    source = source_of(name)
    levels = levels_of(source.trace, source.cuts, source.cuts[-1])
    assert [level.channels for level in levels] == channels
    planes = source.backbone.in_channels
    with torch.no_grad():
        assert segmenter(source, len(source.cuts), "unet", 3)(torch.rand(1, planes, 224, 224)).shape == (
            1,
            3,
            224,
            224,
        )


@pytest.mark.parametrize("kind", ["unet++", "fpn", "upernet"])
def test_other_decoders_run_where_the_encoder_is_deep_enough(resnet34: Source, kind: str) -> None:
    costs = segmenter_costs(resnet34, kind)
    assert max(costs) == 17
    assert (1 in costs) == (kind == "unet++")
    with torch.no_grad():
        assert segmenter(resnet34, 17, kind, 2)(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64)
    shallow = levels_of(resnet34.trace, resnet34.cuts, resnet34.cuts[0])
    with pytest.raises(ConfigError, match=r"needs an encoder of \d halvings .*, got 2"):
        MaskHead("fpn", shallow, (3, 224, 224), 1)


@pytest.mark.parametrize(
    ("name", "lift"),
    [
        ("monai/resnet10", "none"),
        ("resnet18", "acs"),
        ("monai/swin_unetr", "none"),
        ("monai/unet", "none"),
        ("monai/densenet121", "none"),
    ],
)
def test_volumes_have_a_unet_of_their_own(name: str, lift: str) -> None:
    source = source_of(name, 32, lift)
    for cut in (len(source.cuts) // 2, len(source.cuts)):
        model = segmenter(source, cut, "unet", 2)
        with torch.no_grad():
            assert model(torch.rand(1, source.backbone.in_channels, 32, 32, 32)).shape == (1, 2, 32, 32, 32)
    with pytest.raises(ConfigError, match="expected a decoder among unet, got 'fpn'"):
        segmenter_costs(source, "fpn")


def test_networks_without_resolutions_are_refused() -> None:
    with pytest.raises(CutError, match="got tokens"):
        segmenter_costs(source_of("vit_tiny_patch16_224"), "unet")
    with pytest.raises(CutError, match="shrinks all axes alike"):
        segmenter_costs(source_of("resnet18", 32, "slices"), "unet")
    with pytest.raises(CutError, match=r"halved as often as layer4\.1 needs, got \(100, 100\)\. Use --size"):
        segmenter_costs(source_of("resnet18", 100), "unet")
    with pytest.raises(ConfigError, match="expected a decoder among unet, unet"):
        segmenter_costs(source_of("resnet18", 64), "segnet")


def test_the_table_of_cuts_tells_what_a_decoder_costs() -> None:
    done = CliRunner().invoke(app, ["cuts", "resnet34", "--size", "224", "--decoder", "fpn"])
    assert done.exit_code == 0
    assert "with fpn" in done.output
    assert "too shallow" in done.output
    done = CliRunner().invoke(app, ["cuts", "resnet34", "--size", "224", "--decoder", "unet", "--json"])
    told = {cut["name"]: cut for cut in json.loads(done.output)}
    assert told["layer1.2"]["with_decoder"]["num_params"] == 284_817


@pytest.fixture(scope="module")
def resnet18() -> Source:
    return source_of("resnet18", 64)


def made(source: Source, strategy: str, cut: int, kind: Any = "unet") -> tuple[Any, Any]:
    head = HeadSettings(num_outputs=1, kind=kind)
    return apply_strategy(strategy, source, source.depth(cut), head, lr=1e-3, seed=0)


@pytest.mark.parametrize("strategy", WITH_DECODER)
def test_strategies_make_segmenters(resnet18: Source, strategy: str) -> None:
    has_depth = strategy in ("ttl", "frozen", "lwft", "wtst")
    model, plan = made(resnet18, strategy, 5 if has_depth else 9)
    # Peng 2022 keeps less of the encoder, and less of the decoder with it.
    assert len(model.head.levels) == (3 if strategy in ("ttl", "frozen") else 5)
    assert plan.blocks[-1].name == "head"
    assert plan.blocks[-1].num_params == sum(p.numel() for p in model.head.parameters())
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 1, 64, 64)
    assert head_macs(model.head) == MaskHead("unet", model.head.levels, (3, 64, 64), 1).macs() > 10**7
    source = resnet18.backbone.network.state_dict()
    kept = {name.removeprefix("trunk.network."): value for name, value in model.state_dict().items()}
    is_same = torch.equal(kept["layer1.0.conv1.weight"], source["layer1.0.conv1.weight"])
    assert is_same == (strategy != "scratch")


@pytest.mark.parametrize(
    ("strategy", "moving"), [("frozen", ()), ("lwft", ("layer3", "layer4")), ("ttl", ("conv1", "layer2"))]
)
def test_what_is_frozen_under_a_decoder_neither_learns_nor_moves(
    resnet18: Source, strategy: str, moving: tuple[str, ...]
) -> None:
    model, plan = made(resnet18, strategy, 5)
    before = copy.deepcopy(model.trunk.state_dict())
    groups = parameter_groups(model, plan, resnet18, 0.0)
    optimizer = torch.optim.SGD([group.for_torch() for group in groups])
    model.train()
    for _ in range(2):
        model(torch.rand(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
    changed = {
        name.split(".")[1] for name, value in model.trunk.state_dict().items() if not torch.equal(value, before[name])
    }
    assert set(moving) <= changed
    assert bool(changed) == bool(moving)
    if strategy == "lwft":
        assert not changed & {"conv1", "bn1", "layer1", "layer2"}
    assert all(p.grad is not None for p in model.head.parameters())


# Batch and layer normalisation, dropout paths, windows with attention: frozen means that nothing of it varies or moves.
@pytest.mark.parametrize("name", ["mobilenetv1_100", "convnext_atto", "swin_tiny_patch4_window7_224", "pvt_v2_b0"])
def test_a_frozen_encoder_of_any_family_is_in_evaluation_mode(name: str) -> None:
    source = source_of(name, 224 if "224" in name else 64)
    for block in source.backbone.network.modules():
        if hasattr(block, "drop_prob"):
            block.drop_prob = 0.5
    model, _ = made(source, "frozen", source.cuts[-1].index)
    model.train()
    before = copy.deepcopy(model.trunk.state_dict())
    images = torch.rand(2, 3, *source.trace.shapes[source.trace.input][2:])
    first, second = model.features(images), model.features(images)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in model.trunk.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.trunk.parameters())
    assert all(parameter.requires_grad for parameter in model.head.parameters())


def test_other_strategies_take_no_decoder(resnet18: Source) -> None:
    with pytest.raises(
        ConfigError, match="expected a strategy among scratch, frozen, ftl, lwft, ttl, wtst for a decoder"
    ):
        made(resnet18, "l2sp", 9)
    with pytest.raises(ConfigError, match="needs an encoder of 4 halvings"):
        made(resnet18, "ttl", 5, "fpn")
