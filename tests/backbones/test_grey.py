"""Three kernels folded into one: the same features of a grey image, with a third of the first layer's work."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medgraft.backbones import Backbone, BackboneSpec, build_backbone
from medgraft.errors import BackboneError
from medgraft.sources import open_backbone

NETWORKS = ("resnet18", "tf_efficientnet_lite0", "densenet121", "convnext_atto", "vit_tiny_patch16_224", "vgg11_bn")


def spec_of(name: str) -> BackboneSpec:
    return BackboneSpec(name=name, weights="none", seed=3)


def first_output(backbone: Backbone, image: torch.Tensor) -> torch.Tensor:
    stem = next(module for module in backbone.network.modules() if isinstance(module, nn.Conv2d))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (backbone.mean, backbone.std))
    with torch.inference_mode():
        return stem((image.expand(-1, backbone.in_channels, -1, -1) - mean) / std)


@pytest.mark.parametrize("name", NETWORKS)
def test_inside_the_folded_layer_gives_what_replication_gives(name: str) -> None:
    replicated, grey = (
        build_backbone(dataclasses.replace(spec_of(name), input=kind)) for kind in ("replicate", "fold")
    )
    assert (grey.in_channels, grey.mean, grey.std, grey.spec.input) == (1, (0.0,), (1.0,), "fold")
    image = torch.rand((2, 1, 64, 64), generator=torch.Generator().manual_seed(1))
    before, after = first_output(replicated, image), first_output(grey, image)
    inside = (..., *(slice(4, side - 4) if side > 12 else slice(None) for side in before.shape[2:]))
    torch.testing.assert_close(after[inside], before[inside], rtol=0, atol=2e-6 * float(before.abs().max()))
    kernels = [
        sum(m.weight.numel() for m in b.network.modules() if isinstance(m, nn.Conv2d)) for b in (replicated, grey)
    ]
    stem = next(module for module in grey.network.modules() if isinstance(module, nn.Conv2d))
    assert kernels[0] - kernels[1] == 2 * stem.weight.numel()


def test_padding_makes_the_border_black_instead_of_the_mean_colour() -> None:
    replicated, grey = (
        build_backbone(dataclasses.replace(spec_of("resnet18"), input=kind)) for kind in ("replicate", "fold")
    )
    image = torch.full((1, 1, 64, 64), 0.5)
    difference = (first_output(replicated, image) - first_output(grey, image)).abs().amax((0, 1))
    assert difference[2:-2, 2:-2].max() < 1e-5
    assert difference[0].max() > 0.01


def test_a_network_without_padding_is_the_same_to_the_border() -> None:
    replicated, grey = (
        build_backbone(dataclasses.replace(spec_of("vit_tiny_patch16_224"), input=kind)).network.eval()
        for kind in ("replicate", "fold")
    )
    image = torch.rand((1, 1, 224, 224), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = replicated.forward_features((image.expand(-1, 3, -1, -1) - 0.5) / 0.5)
        torch.testing.assert_close(grey.forward_features(image), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_folded_after_they_were_loaded(tmp_path: Path) -> None:
    save_file(build_backbone(spec_of("resnet18")).network.state_dict(), tmp_path / "x.safetensors")
    spec = BackboneSpec(name="resnet18", weights=str(tmp_path / "x.safetensors"), input="fold")
    loaded, built = open_backbone(spec), build_backbone(dataclasses.replace(spec_of("resnet18"), input="fold"))
    assert loaded.report.missing == ()
    for name, value in built.network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value)


@pytest.mark.parametrize("name", ["torchvision/googlenet", "monai/resnet10", "resnet18d_of_mine"])
def test_what_cannot_be_folded_is_refused(name: str, tmp_path: Path) -> None:
    spec = dataclasses.replace(spec_of(name), input="fold")
    if name.endswith("mine"):
        (tmp_path / "net.py").write_text(
            "from torch import nn\n"
            "def net(): return nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 8, 3))\n"
        )
        spec = dataclasses.replace(spec, name=f"{tmp_path / 'net.py'}:net")
    if name == "monai/resnet10":
        assert build_backbone(spec).in_channels == 1
        return
    with pytest.raises(
        BackboneError, match=r"--input fold, got .*Leave --input out: a grey channel is then replicated"
    ):
        build_backbone(spec)
