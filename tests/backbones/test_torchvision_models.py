"""torchvision's networks for images: as torchvision runs them, with its own weights, cut as any other."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights

from medgraft.backbones import Backbone, BackboneSpec, torchvision_models
from medgraft.backbones.build import VOLUME_NAMES
from medgraft.backbones.torchvision_models import (
    IMAGE_NAMES,
    VIDEO_NAMES,
    build_image,
    image_converter,
    image_facts,
    licence_of,
    published_file,
)
from medgraft.cuts import truncate_traced
from medgraft.errors import BackboneError, WeightsError
from medgraft.sources import open_backbone
from medgraft.transfer.source import cuts_of, prepare_source, random_source

INCEPTIONS = {"googlenet": 64, "inception_v3": 80}


def make(name: str, weights: str = "none", **options: Any) -> Backbone:
    return open_backbone(BackboneSpec(name=f"torchvision/{name}", weights=weights, **options))


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def published(name: str, **args: Any) -> nn.Module:
    """torchvision's own network as it is with published weights, which are random here."""
    torch.manual_seed(0)
    if name in INCEPTIONS:
        args = {"transform_input": True, "aux_logits": True, "init_weights": False, **args}
    network = get_model(name, weights=None, **args)
    for path, buffer in network.named_buffers():
        if path.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return network.eval()


def num_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder in which torch keeps published weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


# --- names, facts, sizes


def test_the_networks_of_the_survey_are_there() -> None:
    survey = ["alexnet", "vgg16", "vgg19", "googlenet", "inception_v3", "resnet50", "densenet201", "mobilenet_v2"]
    assert {f"torchvision/{name}" for name in [*survey, "squeezenet1_0", "squeezenet1_1"]} <= set(IMAGE_NAMES)
    assert not set(IMAGE_NAMES) & set(VOLUME_NAMES)
    assert set(VIDEO_NAMES) < set(VOLUME_NAMES)
    assert {f"torchvision/{name}" for name in torchvision.models.list_models(torchvision.models)} == set(IMAGE_NAMES)


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_facts_are_those_of_the_published_weights(name: str) -> None:
    facts, weights = image_facts(name), get_model_weights(name.partition("/")[2]).DEFAULT
    assert (facts.side,) == tuple(weights.transforms().crop_size)
    assert len(facts.mean) == len(facts.std) == 3
    assert min(weights.meta.get("min_size", (1,))) <= facts.side
    is_swag = "swag" in weights.url
    assert licence_of(name).startswith("CC-BY-NC-4.0" if is_swag else "BSD-3-Clause (code)")


@pytest.mark.parametrize(
    ("name", "features", "whole"),
    [
        # Kim 2022, table 1: VGG16 14.7 M, ResNet50 23.5 M and 25.6 M; its GoogLeNet of 5.3 M is no definition we found.
        ("vgg16", 14_714_688, 138_357_544),
        ("resnet50", 23_508_032, 25_557_032),
        ("googlenet", 5_599_904, 6_624_904),
        ("alexnet", 2_469_696, 61_100_840),
        ("mobilenet_v2", 2_223_872, 3_504_872),
        ("squeezenet1_1", 722_496, 722_496),
    ],
)
def test_sizes(name: str, features: int, whole: int) -> None:
    source = random_source(f"torchvision/{name}", {}, None)
    assert source.cuts[-1].num_params == features
    assert num_params(source.backbone.network) == whole


@pytest.mark.parametrize("num_classes", [1, 2, 9])
def test_vgg16_has_its_published_size_with_a_few_classes(num_classes: int) -> None:
    """Kim 2022, table 1: 134.2 M, which 1 000 classes do not give (138.4 M)."""
    with torch.device("meta"):
        whole = num_params(build_image("torchvision/vgg16", {"num_classes": num_classes}, 224))
    assert whole // 10**5 == 1342


# --- as torchvision runs them


@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 64), ("mobilenet_v2", 64), ("shufflenet_v2_x0_5", 64), *INCEPTIONS.items()]
)
def test_a_network_from_torchvisions_own_file_computes_what_torchvision_does(
    tmp_path: Path, name: str, side: int
) -> None:
    own = published(name)
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    backbone = make(name, str(tmp_path / "weights.pth"), size=side)
    report = backbone.report
    assert (report.matched_fraction, report.missing, report.unexpected, report.wrong_shape) == (1.0, (), (), ())
    batch = images(side)
    with torch.no_grad():
        assert torch.equal(backbone.network.eval()(batch), own(batch))


@pytest.mark.parametrize(("name", "side"), INCEPTIONS.items())
def test_an_inception_ends_exactly_where_torchvisions_own_would(tmp_path: Path, name: str, side: int) -> None:
    own = published(name)
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    source = prepare_source(make(name, str(tmp_path / "weights.pth"), size=side), (side, side))
    assert source.backbone.report.last_pretrained_cut == len(source.cuts)
    kept: dict[str, torch.Tensor] = {}
    for cut in source.cuts:
        own.get_submodule(cut.tap).register_forward_hook(
            lambda _module, _args, out, tap=cut.tap: kept.__setitem__(tap, out.clone())
        )
    batch = images(side)
    with torch.no_grad():
        own(batch)
        for cut in source.cuts:
            trunk = truncate_traced(source.backbone.network, source.trace, cut).eval()
            assert torch.equal(trunk(batch), kept[cut.tap])
            assert num_params(trunk) == cut.num_params
    trunk.train()
    features = trunk(batch)
    assert isinstance(features, torch.Tensor)
    features.mean().backward()
    assert all(parameter.grad is not None for parameter in trunk.parameters())


@pytest.mark.parametrize(("name", "side"), INCEPTIONS.items())
def test_an_inception_turns_its_input_into_minus_one_to_one(name: str, side: int) -> None:
    backbone = make(name, size=side)
    network, pixels = backbone.network.eval(), images(side).sigmoid()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    assert backbone.mean == (0.485, 0.456, 0.406)
    with torch.no_grad():
        found = network((pixels - mean) / std)
        network.transform_input = False
        assert torch.allclose(network((pixels - 0.5) / 0.5), found, rtol=0, atol=1e-5 * float(found.abs().max()))


@pytest.mark.parametrize("name", INCEPTIONS)
def test_an_inception_gives_one_tensor_in_training_too(name: str) -> None:
    network = make(name).network.train()
    assert isinstance(network(images(INCEPTIONS[name])), torch.Tensor)
    assert not any("aux" in path.lower() for path, _ in network.named_parameters())


@pytest.mark.parametrize(
    ("name", "side", "count", "first", "last"),
    [
        ("alexnet", 99, 5, "features.0", "features.10"),
        ("googlenet", 224, 11, "maxpool1", "inception5b"),
        ("squeezenet1_0", 64, 9, "features.2", "features.12"),
        ("mnasnet0_5", 64, 18, "layers.7", "layers.14"),
        ("mobilenet_v3_small", 64, 13, "features.0", "features.12"),
        ("shufflenet_v2_x0_5", 64, 18, "maxpool", "conv5"),
        ("regnet_y_400mf", 64, 17, "stem", "trunk_output.block4.block4-5"),
        ("swin_t", 64, 16, "features.0", "features.7.1"),
        ("maxvit_t", 224, 34, "stem", "blocks.3.layers.1.layers.grid_attention"),
    ],
)
def test_every_family_has_cuts(name: str, side: int, count: int, first: str, last: str) -> None:
    cuts = cuts_of(f"torchvision/{name}", {}, side)
    assert (len(cuts), cuts[0].name, cuts[-1].name) == (count, first, last)
    assert all(len(cut.shape) == 3 and min(cut.shape) > 1 for cut in cuts)  # no class score is a feature
    for costs in ([cut.num_params for cut in cuts], [cut.macs for cut in cuts], [cut.stride for cut in cuts]):
        assert costs == sorted(costs)


def test_a_vit_is_built_for_the_size_asked_for() -> None:
    assert make("vit_b_32", size=64).is_fixed
    assert not make("resnet18").is_fixed
    cuts = cuts_of("torchvision/vit_b_32", {}, 64)
    assert (len(cuts), cuts[-1].shape) == (13, (5, 768))
    state = {"encoder.pos_embedding": torch.randn(1, 50, 8), "other": torch.zeros(1)}
    convert = image_converter("torchvision/vit_b_32", 96)
    assert convert is not None
    found = convert(dict(state))
    assert found["encoder.pos_embedding"].shape == (1, 10, 8)
    assert torch.equal(found["encoder.pos_embedding"][:, 0], state["encoder.pos_embedding"][:, 0])
    assert image_converter("torchvision/resnet18", 96) is None


# --- published weights


@pytest.mark.parametrize("name", ["densenet121", "squeezenet1_1", "mnasnet0_5", "googlenet"])
def test_published_weights_come_from_torchvisions_cache(cache: Path, name: str) -> None:
    state = published(name).state_dict()
    if name == "densenet121":  # its published file has the names of torchvision before 0.2
        state = {
            key.replace(".norm1.", ".norm.1.").replace(".norm2.", ".norm.2.")
            .replace(".conv1.", ".conv.1.").replace(".conv2.", ".conv.2."): value
            for key, value in state.items()
        }  # fmt: skip
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    url = get_model_weights(name).DEFAULT.url
    torch.save(state, cache / Path(url).name)
    backbone = make(name, "hub", size=64, is_offline=True)
    report = backbone.report
    assert report.source == f"hub:torchvision/{Path(url).name}"
    assert report.licence == "BSD-3-Clause (code); weights: terms of their data, see torchvision"
    assert (report.matched_fraction, report.missing, report.unexpected, report.wrong_shape) == (1.0, (), (), ())
    cuts = prepare_source(backbone, (64, 64)).cuts
    assert all(cut.is_pretrained for cut in cuts)


def test_another_head_than_the_auxiliary_one_is_still_reported(tmp_path: Path) -> None:
    state = {**published("googlenet").state_dict(), "aux3.weight": torch.zeros(2), "projection.weight": torch.zeros(2)}
    torch.save(state, tmp_path / "weights.pth")
    assert make("googlenet", str(tmp_path / "weights.pth")).report.unexpected == ("aux3.weight", "projection.weight")


def test_weights_that_cannot_be_had_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"googlenet-1378be20\.pth in .* because --offline is set"):
        make("googlenet", "hub", is_offline=True)
    with pytest.raises(WeightsError, match="hub, none, NAME or PATH for torchvision/resnet18, got 'packaged'"):
        make("resnet18", "packaged")

    def unreachable(*_args: Any, **_kwargs: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torchvision_models, "demand_reachable", lambda _: None)
    with pytest.raises(WeightsError, match=r"alexnet-owt-7be5be79\.pth, got OSError: no route.*--weights PATH"):
        published_file("torchvision/alexnet", is_offline=False)


def test_names_and_arguments_are_checked() -> None:
    with pytest.raises(BackboneError, match=r"resnet18 takes, got \{'nonsense': 1\}.*See --backbone-arg"):
        make("resnet18", args={"nonsense": 1})
    with pytest.raises(BackboneError, match=r"maxvit_t takes.*not divisible by partition size 7.*See --backbone-arg"):
        make("maxvit_t", size=96)
    with pytest.raises(BackboneError, match="expected a network among torchvision/alexnet"):
        build_image("torchvision/resnet19", {}, 224)
    for typo, name in (
        ("torchvision/googlnet", "googlenet"),
        ("squeezenet1_1", "squeezenet1_1"),
        ("mobilenet_v2", "mobilenet_v2"),
    ):
        with pytest.raises(BackboneError, match=f"Nearest: .*torchvision/{name}"):
            open_backbone(BackboneSpec(name=typo, weights="none"))
