"""Truncation is exact, real and trainable on every family of networks."""

import copy

import pytest
import timm
import torch
from torch import nn

from medgraft.cuts import cut_points, resolve_cut, truncate
from medgraft.errors import CutError

# Name, input side: small members of each family, at sizes that keep the suite fast.
FAMILIES = {
    "resnet18": 64,
    "resnetv2_50": 64,
    "resnext50_32x4d": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "mobilenetv1_100": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_100": 64,
    "inception_v3": 128,
    "xception41": 64,
    "vgg11_bn": 64,
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "swin_tiny_patch4_window7_224": 224,
    "swinv2_cr_tiny_224": 224,
    "vit_tiny_patch16_224": 224,
    "deit_tiny_patch16_224": 224,
    "regnetx_002": 64,
    "repvgg_a0": 64,
    "res2net50_26w_4s": 64,
    "ese_vovnet19b_slim": 64,
    "cspresnet50": 64,
    "dla34": 64,
    "mixer_s32_224": 224,
    "poolformer_s12": 64,
    "levit_128s": 224,
    "mobilevit_xxs": 64,
    "coatnet_nano_rw_224": 224,
    "edgenext_xx_small": 64,
    "nf_resnet50": 64,
    "hardcorenas_a": 64,
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0).eval()


def features_at(network: nn.Module, tap: str, side: str, images: torch.Tensor) -> torch.Tensor:
    """The original network's intermediate tensor, cloned before a later layer can overwrite it."""
    kept: list[torch.Tensor] = []
    module = network.get_submodule(tap)
    if side == "output":
        handle = module.register_forward_hook(lambda _m, _a, out: kept.append(out.clone()) and None)
    else:
        handle = module.register_forward_pre_hook(lambda _m, args: kept.append(args[0].clone()) and None)
    with torch.no_grad():
        network.forward_features(images)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_truncated_network_equals_the_original_up_to_its_cut(name: str) -> None:
    network = build(name)
    images = torch.randn(2, 3, FAMILIES[name], FAMILIES[name], generator=torch.Generator().manual_seed(1))
    cuts = cut_points(network, tuple(images.shape[1:]))
    assert len(cuts) >= 3
    assert [cut.index for cut in cuts] == list(range(1, len(cuts) + 1))
    for cut in {cuts[0], cuts[len(cuts) // 2], cuts[-1]}:
        trunk = truncate(network, cut, tuple(images.shape[1:])).eval()
        with torch.no_grad():
            features = trunk(images)
        assert torch.equal(features, features_at(network, cut.tap, cut.tap_side, images))
        assert tuple(features.shape[1:]) == cut.shape
        assert features.shape[cut.channel_axis] == cut.channels
        assert sum(p.numel() for p in trunk.parameters()) == cut.num_params


@pytest.mark.parametrize("name", FAMILIES)
def test_a_truncated_network_trains_and_its_removed_modules_are_gone(name: str) -> None:
    network = build(name)
    shape = (3, FAMILIES[name], FAMILIES[name])
    cuts = cut_points(network, shape)
    cut = cuts[len(cuts) // 2]
    trunk = truncate(network, cut, shape).train()
    state = trunk.network.state_dict()
    assert set(state) < set(network.state_dict())
    assert sum(p.numel() for p in network.parameters()) > cut.num_params
    trunk(torch.randn(2, *shape)).square().mean().backward()
    assert all(p.grad is not None for p in trunk.parameters() if p.requires_grad)
    rebuilt = truncate(build(name), cut, shape)
    rebuilt.network.load_state_dict(copy.deepcopy(state))
    trunk.eval(), rebuilt.eval()
    images = torch.randn(1, *shape)
    with torch.no_grad():
        assert torch.equal(trunk(images), rebuilt(images))


def test_an_unknown_cut_is_refused_with_the_list_of_cuts() -> None:
    network = build("resnet18")
    with pytest.raises(CutError, match=r"1 maxpool, 2 layer1\.0"):
        truncate(network, 99, (3, 64, 64))
    with pytest.raises(CutError, match="layer7"):
        resolve_cut(cut_points(network, (3, 64, 64)), "layer7")


def test_digits_are_an_index_and_other_text_is_a_name() -> None:
    cuts = cut_points(build("resnet18"), (3, 64, 64))
    assert resolve_cut(cuts, "3").name == "layer1.1"
    assert resolve_cut(cuts, "layer2.0").index == 4
    assert resolve_cut(cuts, "layer3").name == "layer3.1"
