"""Networks for images that read volumes."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from medgraft.backbones.build import build_backbone
from medgraft.backbones.lift import lift_network
from medgraft.backbones.spec import BackboneSpec
from medgraft.cuts.truncate import cut_points, truncate
from medgraft.errors import BackboneError, ConfigError
from medgraft.sources import open_backbone

NAMES = ["resnet18", "resnext50_32x4d", "densenet121", "efficientnet_lite0", "seresnet18", "mobilenetv3_small_100"]
KINDS = ["i3d", "acs", "slices"]


def make(name: str, **args: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return timm.create_model(name, num_classes=0, **args).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_cuts_and_names_stay(name: str, kind: str) -> None:
    images, volumes = make(name), lift_network(make(name), kind)
    before, after = cut_points(images, (3, 64, 64)), cut_points(volumes, (3, 32, 64, 64))
    assert [cut.name for cut in after] == [cut.name for cut in before]
    shapes = {key: value.numel() for key, value in images.state_dict().items()}
    lifted = {key.replace(".layer.", "."): value.numel() for key, value in volumes.state_dict().items()}
    assert lifted.keys() == shapes.keys()
    if kind == "i3d":
        assert after[-1].num_params > before[-1].num_params
    else:
        assert [cut.num_params for cut in after] == [cut.num_params for cut in before]
    if kind == "slices":
        assert [cut.macs for cut in after] == [32 * cut.macs for cut in before]
        assert all(cut.shape[1] == 32 for cut in after)
    else:
        assert after[-1].shape[1:] == (1, 2, 2)


@pytest.mark.parametrize("name", [*NAMES, "vgg11_bn", "tf_efficientnet_b0", "mobilenetv1_100"])
def test_slices_are_read_as_images_are(name: str) -> None:
    images = make(name)
    volume = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torch.stack([images.forward_features(volume[:, :, number]) for number in range(3)], 2)
        found = lift_network(images, "slices").forward_features(volume)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_an_inflated_network_sees_a_still_film_as_its_picture(name: str) -> None:
    images = make(name)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    volumes = lift_network(make(name), "i3d")
    # Behind the stem: further up, the padding along the slices has reached the middle.
    stem = cut_points(images, (3, 64, 64))[0]
    flat = truncate(images, stem.name, (3, 64, 64))
    deep = truncate(volumes, stem.name, (3, 32, 64, 64))
    with torch.no_grad():
        expected = flat(picture)
        found = deep(picture.unsqueeze(2).expand(-1, -1, 32, -1, -1))
    middle = found.shape[2] // 2
    torch.testing.assert_close(found[:, :, middle], expected, rtol=1e-3, atol=1e-3)


def test_a_kernel_is_shared_out_over_the_three_planes() -> None:
    conv = nn.Conv2d(4, 9, 3, stride=2, padding=1)
    volume = torch.rand(1, 4, 6, 8, 10)
    found = lift_network(nn.Sequential(conv), "acs")(volume)
    w, b = conv.weight, conv.bias
    assert b is not None
    expected = torch.cat(
        [
            F.conv3d(volume, w[:3].unsqueeze(2), b[:3], 2, (0, 1, 1)),
            F.conv3d(volume, w[3:6].unsqueeze(3), b[3:6], 2, (1, 0, 1)),
            F.conv3d(volume, w[6:].unsqueeze(4), b[6:], 2, (1, 1, 0)),
        ],
        1,
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_groups_are_shared_out_whole(groups: int) -> None:
    conv = nn.Conv2d(8, 16, 3, padding=1, groups=groups)
    found = lift_network(nn.Sequential(conv), "acs")(torch.rand(1, 8, 5, 5, 5))
    assert found.shape == (1, 16, 5, 5, 5)
    whole = torch.zeros(8, 8 // groups, 3, 3)
    volume = torch.rand(1, 8, 5, 5, 5)
    with torch.no_grad():
        conv.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
        del whole
        # Kernels of one voxel mean the same in every plane.
        point = F.conv3d(volume, conv.weight[:, :, 1:2, 1:2].unsqueeze(4), conv.bias, groups=groups)
        torch.testing.assert_close(lift_network(nn.Sequential(conv), "acs")(volume), point)


def test_lifted_networks_learn() -> None:
    for kind in KINDS:
        network = lift_network(make("resnet18", zero_init_last=False), kind).train()
        network.forward_features(torch.rand(3, 3, 32, 64, 64)).square().mean().backward()
        lost = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not lost


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_networks_that_count_on_images_are_refused(name: str) -> None:
    with pytest.raises(BackboneError, match=f"{name} cannot read volumes"):
        build_backbone(BackboneSpec(name=name, weights="none", lift="acs"))


class Sneaky(nn.Module):
    """Averages the last two of four axes, by number: on volumes it would average others and go on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def test_a_network_that_would_be_fooled_without_an_error_is_refused() -> None:
    with pytest.raises(BackboneError, match="a layer counts on images"):
        lift_network(Sneaky(), "i3d")


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a lift among"):
        lift_network(make("resnet18"), "4d")  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match="reads volumes"):
        build_backbone(BackboneSpec(name="resnext3d_101", weights="none", lift="acs"))


def test_pretrained_weights_are_lifted() -> None:
    images = open_backbone(BackboneSpec(name="shapes_resnet18"))
    for kind in KINDS:
        volumes = open_backbone(BackboneSpec(name="shapes_resnet18", lift=kind))  # type: ignore[arg-type]
        assert (volumes.dims, volumes.sides, volumes.report) == (3, None, images.report)
        kernel = volumes.network.state_dict()["layer1.0.conv1.weight"]
        flat = images.network.state_dict()["layer1.0.conv1.weight"]
        torch.testing.assert_close(kernel.sum(2) if kind == "i3d" else kernel, flat)


def test_the_example_of_an_own_network_can_be_lifted() -> None:
    example = Path(__file__).parents[2] / "examples" / "cifar_resnet.py"
    for kind in KINDS:
        spec = BackboneSpec(name=f"{example}:resnet20", weights="none", size=16, lift=kind)  # type: ignore[arg-type]
        backbone = build_backbone(spec)
        assert backbone.sides == (16, 16, 16)
        assert backbone.network(torch.rand(1, 3, 16, 16, 16)).shape == (1, 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet26d", "vgg11_bn", "densenet121"])
def test_few_slices_are_enough(name: str, kind: str) -> None:
    network = make(name)
    # Not part of the features: of VGG a convolution over 7 × 7 positions, 3 GB once it is over 7 × 7 × 7.
    network.pre_logits = nn.Identity()
    volumes = lift_network(network, kind)
    with torch.no_grad():
        found = volumes.forward_features(torch.rand(1, 3, 5, 64, 64))
    assert found.shape[2] == (5 if kind == "slices" else 1)
    assert torch.isfinite(found).all()
