"""Truncation is exact, real and trainable on every family of networks."""

import copy
import dataclasses

import pytest
import timm
import torch
from torch import nn

from medgraft.cuts import Trace, Trunk, cut_points, find_cuts, resolve_cut, trace_network, truncate, truncate_traced
from medgraft.errors import CutError
from medgraft.types import Cut

# Name, input side: small members of each family, at sizes that keep the suite fast.
FAMILIES = {
    "resnet18": 64,
    "resnetv2_50": 64,
    "resnetv2_50x1_bit": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "mobilenetv1_100": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "ghostnet_100": 64,
    "inception_v3": 128,
    "xception41": 64,
    "vgg11_bn": 64,
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "swin_tiny_patch4_window7_224": 112,
    "vit_tiny_patch16_224": 112,
    "twins_pcpvt_small": 64,
    "regnetx_002": 64,
    "repvgg_a0": 64,
    "res2net50_26w_4s": 64,
    "hrnet_w18_small": 64,
    "ese_vovnet19b_slim": 64,
    "cspresnet50": 64,
    "dla34": 64,
    "mixer_s32_224": 224,
    "poolformer_s12": 64,
    "levit_128s": 224,
    "mobilevit_xxs": 64,
    "edgenext_xx_small": 64,
    "hardcorenas_a": 64,
}
ONE_SIZE = ("swin_tiny", "vit_tiny", "twins")
SHAPE = (3, 64, 64)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """One architecture with its trace and its cuts."""

    name: str
    network: nn.Module
    shape: tuple[int, ...]
    trace: Trace
    cuts: tuple[Cut, ...]

    def trunk(self, cut: Cut) -> Trunk:
        return truncate_traced(self.network, self.trace, cut)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    args = {"img_size": FAMILIES[name]} if name.startswith(ONE_SIZE) else {}
    network = timm.create_model(name, num_classes=0, **args).eval()
    if name.startswith("vgg"):
        network.pre_logits = nn.Identity()  # nine tenths of its weights, behind every cut
    return network


def images_of(shape: tuple[int, ...], count: int = 2) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    network = build(request.param)
    shape = (3, FAMILIES[request.param], FAMILIES[request.param])
    trace = trace_network(network, shape, entry="forward_features")
    return Family(name=request.param, network=network, shape=shape, trace=trace, cuts=find_cuts(trace, has_head=False))


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return build("resnet18")


def features_at(network: nn.Module, cuts: list[Cut], images: torch.Tensor) -> list[torch.Tensor]:
    """The original network's intermediate tensors, cloned before a later layer can overwrite them."""
    kept: dict[int, torch.Tensor] = {}
    handles = []
    for number, cut in enumerate(cuts):
        module = network.get_submodule(cut.tap)

        def keep(value: torch.Tensor, number: int = number) -> None:
            kept[number] = value.clone()

        if cut.tap_side == "output":
            handles.append(module.register_forward_hook(lambda _m, _a, out, keep=keep: keep(out)))
        else:
            handles.append(module.register_forward_pre_hook(lambda _m, args, keep=keep: keep(args[0])))
    with torch.no_grad():
        network.forward_features(images)
    for handle in handles:
        handle.remove()
    return [kept[number] for number in range(len(cuts))]


def test_a_truncated_network_equals_the_original_up_to_its_cut(family: Family) -> None:
    assert len(family.cuts) >= 3
    assert [cut.index for cut in family.cuts] == list(range(1, len(family.cuts) + 1))
    chosen = [family.cuts[0], family.cuts[len(family.cuts) // 2], family.cuts[-1]]
    images = images_of(family.shape)
    for cut, expected in zip(chosen, features_at(family.network, chosen, images), strict=True):
        with torch.no_grad():
            features = family.trunk(cut).eval()(images)
        assert torch.equal(features, expected)
        assert tuple(features.shape[1:]) == cut.shape
        assert features.shape[cut.channel_axis] == cut.channels


def test_the_parameters_of_a_cut_are_those_of_the_truncated_network(family: Family) -> None:
    for cut in {family.cuts[0], family.cuts[len(family.cuts) // 3], family.cuts[-1]}:
        assert sum(p.numel() for p in family.trunk(cut).parameters()) == cut.num_params


def test_costs_only_grow_along_the_cuts(family: Family) -> None:
    params, macs = [cut.num_params for cut in family.cuts], [cut.macs for cut in family.cuts]
    assert params == sorted(params)
    assert macs == sorted(set(macs)), "two cuts with the same work between them"
    assert [cut.stage for cut in family.cuts] == sorted(cut.stage for cut in family.cuts)
    assert len({cut.name for cut in family.cuts}) == len(family.cuts)


def test_a_truncated_network_trains_in_train_mode_and_its_removed_tensors_are_gone(family: Family) -> None:
    cut = family.cuts[len(family.cuts) // 2]
    trunk = family.trunk(cut).train()
    whole, kept = set(family.network.state_dict()), set(trunk.network.state_dict())
    assert kept < whole
    assert sum(p.numel() for p in family.network.parameters()) > cut.num_params
    trunk(images_of(family.shape)).square().mean().backward()
    assert all(p.grad is not None for p in trunk.parameters() if p.requires_grad)


def test_weights_survive_saving_and_loading_into_another_truncation(
    family: Family, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cut = family.cuts[len(family.cuts) // 3]
    trunk = family.trunk(cut).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    file = tmp_path_factory.mktemp("trunk") / "trunk.pt"
    torch.save(trunk.state_dict(), file)
    other = family.trunk(cut).eval()
    before = other.state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())
    other.load_state_dict(torch.load(file, weights_only=True))
    images = images_of(family.shape, 1)
    with torch.no_grad():
        assert torch.equal(other(images), trunk(images))


def test_the_original_is_left_as_it_was(resnet: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    trunk = truncate(resnet, 2, SHAPE).train()
    trunk(images_of(SHAPE)).sum().backward()
    after = resnet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in resnet.parameters())
    assert resnet.layer4 is not None
    assert not resnet.training


def test_a_deep_copy_of_a_trunk_works_and_is_independent(resnet: nn.Module) -> None:
    for wanted in ("maxpool", "layer2.0", "layer3"):
        trunk = truncate(resnet, wanted, SHAPE).eval()
        twin = copy.deepcopy(trunk)
        images = images_of(SHAPE)
        with torch.no_grad():
            expected = trunk(images)
            assert torch.equal(twin(images), expected)
            for parameter in twin.parameters():
                parameter.mul_(2)
            assert not torch.equal(twin(images), expected)
            assert torch.equal(trunk(images), expected)


def test_a_deep_copy_of_a_trunk_cut_at_a_modules_input_works() -> None:
    network = build("densenet121")
    trunk = truncate(network, 3, SHAPE).eval()
    assert trunk.cut.tap_side == "input"
    images = images_of(SHAPE)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(trunk)(images), trunk(images))


def test_two_evaluation_passes_are_equal_and_move_no_buffer(resnet: nn.Module) -> None:
    trunk = truncate(resnet, "layer3", SHAPE).eval()
    before = {name: buffer.clone() for name, buffer in trunk.named_buffers()}
    images = images_of(SHAPE)
    with torch.no_grad():
        assert torch.equal(trunk(images), trunk(images))
    assert all(torch.equal(buffer, before[name]) for name, buffer in trunk.named_buffers())


def test_a_trunk_exports_with_strict_torch_export(resnet: nn.Module) -> None:
    # Not with strict=False: its bookkeeping of entered modules does not survive the early exit.
    trunk = truncate(resnet, 3, SHAPE).eval()
    images = images_of(SHAPE)
    program = torch.export.export(trunk, (images,), strict=True)
    assert set(program.state_dict) <= set(trunk.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), trunk(images))


def test_an_unknown_cut_is_refused_with_the_list_of_cuts(resnet: nn.Module) -> None:
    with pytest.raises(CutError, match=r"1 maxpool, 2 layer1\.0"):
        truncate(resnet, 99, SHAPE)
    with pytest.raises(CutError, match=r"expected a cut of this network, got '0'"):
        truncate(resnet, 0, SHAPE)
    with pytest.raises(CutError, match="layer7"):
        resolve_cut(cut_points(resnet, SHAPE), "layer7")
    with pytest.raises(CutError, match="'-1'"):
        resolve_cut(cut_points(resnet, SHAPE), -1)
    with pytest.raises(CutError, match="got ''"):
        resolve_cut(cut_points(resnet, SHAPE), " ")


def test_digits_are_an_index_and_other_text_is_a_name(resnet: nn.Module) -> None:
    cuts = cut_points(resnet, SHAPE)
    assert resolve_cut(cuts, "3").name == "layer1.1"
    assert resolve_cut(cuts, 3).name == "layer1.1"
    assert resolve_cut(cuts, "layer2.0").index == 4
    assert resolve_cut(cuts, "layer3").name == "layer3.1"
    assert resolve_cut(cuts, cuts[4]) is cuts[4]


def test_a_trunk_says_so_when_another_input_takes_another_path() -> None:
    class Switch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)
            self.small = nn.Conv2d(4, 4, 3)
            self.large = nn.Conv2d(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.large(x) if x.shape[-1] > 20 else self.small(x)

    trunk = truncate(Switch(), "small", (3, 16, 16)).eval()
    assert trunk(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 12, 12)
    with pytest.raises((CutError, TypeError), match=r"expected the forward pass to reach|not callable"):
        trunk(torch.zeros(1, 3, 32, 32))
