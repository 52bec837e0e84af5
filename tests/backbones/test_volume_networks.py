"""Networks for volumes: MONAI's, torchvision's, ResNeXt3D-101, and their published weights."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets import BasicUNet
from monai.networks.nets.resnet import get_medicalnet_pretrained_resnet_args
from torch import nn

from medgraft.backbones import monai_models, torchvision_models
from medgraft.backbones.build import VOLUME_NAMES
from medgraft.backbones.spec import BackboneSpec
from medgraft.errors import BackboneError, ConfigError, WeightsError
from medgraft.sources import open_backbone
from medgraft.transfer.source import cuts_of, prepare_source


@pytest.mark.parametrize("depth", [10, 18, 34, 50, 101, 152, 200])
def test_medicalnets_flags_fit_their_depth(depth: int) -> None:
    bias, shortcut = get_medicalnet_pretrained_resnet_args(depth)
    assert monai_models.medicalnet_flags(depth) == {"bias_downsample": bool(bias), "shortcut_type": shortcut}


@pytest.mark.parametrize("depth", [10, 18, 50])
def test_a_medicalnet_reads_one_channel(depth: int) -> None:
    backbone = open_backbone(BackboneSpec(name=f"monai/resnet{depth}", weights="none", size=32))
    assert (backbone.dims, backbone.in_channels, backbone.normalisation) == (3, 1, "image")
    # Shortcut A pads with zeros and has no weights.
    has_projection = any("downsample" in key for key in backbone.network.state_dict())
    assert has_projection == (depth != 18)


@pytest.mark.parametrize(
    ("name", "sides", "last"),
    [
        ("monai/resnet10", (32, 32, 32), "layer4.0"),
        ("monai/densenet121", (32, 32, 32), "denseblock4.denselayer16"),
        ("monai/swin_unetr", (32, 32, 32), "swinViT.layers4.0.downsample"),
        ("monai/unet", (32, 32, 32), "down_4.convs"),
        ("monai/vit", (32, 32, 32), "vit.blocks.11"),
        ("torchvision/r3d_18", (16, 32, 32), "layer4.1"),
        ("torchvision/mc3_18", (16, 32, 32), "layer4.1"),
        ("torchvision/r2plus1d_18", (16, 32, 32), "layer4.1"),
        ("torchvision/swin3d_t", (16, 32, 32), "features.6.1"),
        ("torchvision/mvit_v2_s", (16, 224, 224), "blocks.15"),
        ("resnext3d_101", (16, 32, 32), "layer4.2"),
    ],
)
def test_every_family_has_cuts(name: str, sides: tuple[int, ...], last: str) -> None:
    cuts = cuts_of(name, {}, sides)
    assert cuts[-1].name == last
    assert len(cuts) >= 5
    params, macs = [cut.num_params for cut in cuts], [cut.macs for cut in cuts]
    assert params == sorted(params)
    assert macs == sorted(macs)
    assert macs[0] < macs[-1]


def test_the_size_of_resnext3d_101_and_of_its_published_cut() -> None:
    cuts = {cut.name: cut for cut in cuts_of("resnext3d_101", {}, (24, 112, 112))}
    assert cuts["layer4.2"].num_params == pytest.approx(47.5e6, rel=0.001)
    assert cuts["layer3.18"].num_params == pytest.approx(26.11e6, rel=0.001)
    assert cuts["layer3.22"].num_params == pytest.approx(31.21e6, rel=0.001)


def test_published_weights_are_found_whatever_wraps_them(tmp_path: Path) -> None:
    backbone = open_backbone(BackboneSpec(name="medicalnet/resnet10", weights="none", size=32))
    state = {f"module.{key}": torch.full_like(value, 0.5) for key, value in backbone.network.state_dict().items()}
    state["module.conv_seg.0.weight"] = torch.zeros(1)
    torch.save({"state_dict": state}, tmp_path / "resnet_10_23dataset.pth")
    loaded = open_backbone(BackboneSpec(name="medicalnet/resnet10", weights=str(tmp_path / "resnet_10_23dataset.pth")))
    assert loaded.report.matched_fraction == 1.0
    assert loaded.report.dropped == ("conv_seg.0.weight",)
    assert float(loaded.network.state_dict()["conv1.weight"].mean()) == 0.5


def test_a_self_supervised_swin_is_found_inside_its_unetr(tmp_path: Path) -> None:
    args = {"embed_dim": 12}
    backbone = open_backbone(BackboneSpec(name="monai/swin_unetr", args=args, weights="none", size=32))
    state = {key: torch.ones_like(value) for key, value in backbone.network.state_dict().items()}
    assert next(iter(state)).startswith("swinViT.")
    state["encoder1.layer.conv1.conv.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "swin.pt")
    loaded = open_backbone(BackboneSpec(name="monai/swin_unetr", args=args, weights=str(tmp_path / "swin.pt"), size=32))
    assert loaded.report.matched_fraction == 1.0


def test_a_unet_is_the_way_down_of_the_whole_one(tmp_path: Path) -> None:
    whole = BasicUNet(spatial_dims=3, in_channels=1, out_channels=4).eval()
    torch.save({"model": whole.state_dict()}, tmp_path / "unet.pt")
    loaded = open_backbone(BackboneSpec(name="monai/unet", weights=str(tmp_path / "unet.pt"), size=32))
    assert loaded.report.matched_fraction == 1.0
    assert {key.partition(".")[0] for key in loaded.report.unexpected} == {
        "upcat_1", "upcat_2", "upcat_3", "upcat_4", "final_conv"
    }  # fmt: skip
    image, seen = torch.rand(1, 1, 32, 32, 32), []
    whole.down_4.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        whole(image)
        assert torch.equal(loaded.network.eval()(image), seen[0])


def test_medicalnet_comes_from_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = open_backbone(BackboneSpec(name="monai/resnet10", weights="none")).network
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    asked: list[tuple[str, str, bool]] = []

    def download(hub: str, file: str, *, local_files_only: bool) -> str:
        asked.append((hub, file, local_files_only))
        return str(tmp_path / "w.pth")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    backbone = open_backbone(BackboneSpec(name="medicalnet/resnet10", weights="hub", is_offline=True))
    assert asked == [("TencentMedicalNet/MedicalNet-Resnet10", "resnet_10_23dataset.pth", True)]
    assert (backbone.report.source, backbone.report.matched_fraction) == (
        "hub:TencentMedicalNet/MedicalNet-Resnet10",
        1.0,
    )


def test_weights_that_cannot_be_had_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for name, words in (
        ("medicalnet/resnet10", "resnet_10_23dataset.pth"),
        ("monai/densenet121", "no hub is known"),
        ("torchvision/r3d_18", "r3d_18.*because --offline is set"),
        ("resnext3d_101", "no hub knows its weights"),
    ):
        with pytest.raises(WeightsError, match=words):
            open_backbone(BackboneSpec(name=name, weights="hub", is_offline=True))
    with pytest.raises(WeightsError, match="got 'packaged'"):
        open_backbone(BackboneSpec(name="medicalnet/resnet10", weights="packaged"))


def test_kinetics_comes_from_torchvisions_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = torchvision_models.build_video("torchvision/r3d_18", {})
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / "r3d_18-b3b3357e.pth")
    backbone = open_backbone(BackboneSpec(name="torchvision/r3d_18", weights="hub", is_offline=True))
    assert backbone.report.source == "hub:torchvision/r3d_18-b3b3357e.pth"
    assert (backbone.in_channels, backbone.normalisation) == (3, "weights")
    assert backbone.mean == pytest.approx((0.43216, 0.394666, 0.37645))


def test_names_and_arguments_are_checked() -> None:
    with pytest.raises(BackboneError, match=r"Nearest: .*monai/resnet18"):
        open_backbone(BackboneSpec(name="monai/resnet19", weights="none"))
    with pytest.raises(BackboneError, match="See --backbone-arg"):
        open_backbone(BackboneSpec(name="monai/resnet10", args={"nonsense": 1}, weights="none"))
    with pytest.raises(BackboneError, match="See --backbone-arg"):
        open_backbone(BackboneSpec(name="torchvision/r3d_18", args={"nonsense": 1}, weights="none"))
    with pytest.raises(BackboneError, match="made for inputs of"):
        open_backbone(BackboneSpec(name="torchvision/mvit_v1_b", weights="none", size=64))
    with pytest.raises(ConfigError, match="one side or depth, height and width"):
        open_backbone(BackboneSpec(name="monai/resnet10", weights="none", size=(8, 8)))
    with pytest.raises(ConfigError, match="one side in px"):
        cuts_of("shapes_resnet18", {}, (8, 8, 8))
    assert cuts_of("shapes_resnet18", {}, (8, 32, 32), "acs")[-1].shape[2:] == (1, 1)
    assert len(set(VOLUME_NAMES)) == len(VOLUME_NAMES)
    assert set(monai_models.MONAI_NAMES) < set(VOLUME_NAMES)


def test_an_own_network_for_volumes_is_known_by_its_first_convolution(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv3d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv3d(4, 8, 3, 2, 1), nn.ReLU())\n"
    )
    backbone = open_backbone(BackboneSpec(name=f"{tmp_path / 'mine.py'}:net", weights="none", size=16))
    assert (backbone.dims, backbone.sides) == (3, (16, 16, 16))
    assert isinstance(backbone.network[0], nn.Conv3d)
    assert [cut.shape for cut in prepare_source(backbone, (16, 16, 16)).cuts] == [(4, 8, 8, 8), (8, 4, 4, 4)]


def test_a_vit_says_the_sides_it_is_made_for() -> None:
    assert open_backbone(BackboneSpec(name="monai/vit", weights="none")).sides == (96, 96, 96)
    assert open_backbone(BackboneSpec(name="monai/vit", weights="none", size=32)).sides == (32, 32, 32)
