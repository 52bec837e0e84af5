"""From a specification to a network: names, arguments, sizes, normalisation, seeds, and no network attempt."""

import dataclasses
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from medgraft.backbones import PACKAGED_NAME, Backbone, BackboneSpec, timm_models
from medgraft.backbones.own import first_channels, source_file
from medgraft.backbones.packaged import packaged_state
from medgraft.errors import BackboneError, ConfigError, WeightsError
from medgraft.sources import open_backbone

EXAMPLE = Path(__file__).parents[2] / "examples" / "cifar_resnet.py"
TINY = "test_resnet"  # timm's own test architecture, half a million parameters

OWN_FILE = '''
"""A user's networks."""
from torch import nn

NUMBER = 3


class Named(nn.Module):
    input_size = 48

    def __init__(self, width=4, in_channels=3):
        super().__init__()
        if width > 100:
            raise ValueError("width must be at most 100")
        self.conv = nn.Conv2d(in_channels, width, 3)

    def forward(self, x):
        return self.conv(x)


def build(width=4, in_channels=3):
    return Named(width, in_channels)


def no_module():
    return {"not": "a module"}
'''


def make(name: str, weights: str = "none", **options: Any) -> Backbone:
    return open_backbone(BackboneSpec(name=name, weights=weights, **options))


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    file = tmp_path / "my_networks.py"
    file.write_text(OWN_FILE)
    return file


@pytest.fixture
def closed_sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to open a connection fails and is noted."""
    attempts: list[str] = []

    class Closed(socket.socket):
        def __init__(self, *_args: Any, **_kwargs: Any) -> None:
            attempts.append("socket")
            raise AssertionError("a socket was opened")

    def resolve(*args: Any, **_kwargs: Any) -> NoReturn:
        attempts.append(str(args[0]))
        raise AssertionError("a name was resolved")

    monkeypatch.setattr(socket, "socket", Closed)
    monkeypatch.setattr(socket, "create_connection", resolve)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return attempts


# --- timm


def test_a_timm_name_gives_its_network_size_and_normalisation() -> None:
    backbone = make("mobilenetv1_100", args={"pad_type": "same", "bn_eps": 1e-3})
    assert type(backbone.network).__name__ == "EfficientNet"
    assert backbone.network.bn1.eps == 1e-3
    assert isinstance(backbone.network.get_classifier(), nn.Identity)
    assert (backbone.sides, backbone.in_channels, backbone.normalisation) == ((224, 224), 3, "weights")
    config = timm.get_pretrained_cfg("mobilenetv1_100")
    assert (backbone.mean, backbone.std) == (config.mean, config.std)
    assert backbone.report.source == "none"
    assert backbone.report.matched_fraction == 0.0


def test_the_asked_size_reaches_networks_that_are_built_for_one() -> None:
    backbone = make("vit_tiny_patch16_224", size=96)
    assert backbone.sides == (96, 96)
    assert backbone.spec.size == 96
    assert backbone.network(torch.zeros(1, 3, 96, 96)).shape == (1, 192)
    assert make("resnet18", size=96).network(torch.zeros(1, 3, 96, 96)).shape == (1, 512)
    assert make("vit_tiny_patch16_224").sides == (224, 224)


def test_an_img_size_among_the_arguments_wins() -> None:
    backbone = make("vit_tiny_patch16_224", size=96, args={"img_size": 64})
    assert backbone.network(torch.zeros(1, 3, 64, 64)).shape == (1, 192)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(BackboneError, match=r"got 'resnt50'\. Nearest: resnet50,.*shapes_resnet18"):
        make("resnt50")
    with pytest.raises(BackboneError, match=r"got 'qqqqzzzz'\. Nearest: shapes_resnet18"):
        make("qqqqzzzz")


def test_an_unknown_tag_lists_the_published_ones() -> None:
    for weights in ("none", "hub"):
        with pytest.raises(BackboneError, match=r"tag of timm's resnet18, got 'resnet18\.nope'.*resnet18\.a1_in1k"):
            make("resnet18.nope", weights)


@pytest.mark.parametrize(
    "args",
    [{"nonsense": 1}, {"in_chans": -1}, {"in_chans": "three"}, {"base_width": 0}, {"output_stride": 7}],
)
def test_arguments_that_timm_refuses_are_named(args: dict[str, Any]) -> None:
    with pytest.raises(BackboneError, match=rf"arguments that timm's resnet18 takes, got .*{next(iter(args))}.*: \S"):
        make("resnet18", args=args)


def test_one_channel_networks_take_the_mean_of_the_three_statistics() -> None:
    backbone = make("resnet18", args={"in_chans": 1})
    config = timm.get_pretrained_cfg("resnet18")
    assert backbone.in_channels == 1
    assert backbone.mean == pytest.approx((np.mean(config.mean),))
    assert backbone.std == pytest.approx((np.mean(config.std),))


def test_weights_of_a_path_are_loaded_and_reported(tmp_path: Path) -> None:
    source = make(TINY)
    file = tmp_path / "weights.safetensors"
    save_file({f"module.{name}": value + 1 for name, value in source.network.state_dict().items()}, file)
    backbone = make(TINY, str(file))
    assert backbone.report.source == "weights.safetensors"
    assert backbone.report.matched_fraction == 1.0
    assert torch.equal(backbone.network.conv1[0].weight, source.network.conv1[0].weight + 1)
    with pytest.raises(WeightsError, match="expected weights for this network"):
        make("vit_tiny_patch16_224", str(file))
    with pytest.raises(WeightsError, match=r"expected a weights file at .*nowhere\.pth, got nothing"):
        make(TINY, str(tmp_path / "nowhere.pth"))


def test_packaged_weights_belong_to_the_packaged_network_alone() -> None:
    with pytest.raises(WeightsError, match="expected --weights hub, none, NAME or PATH for resnet18"):
        make("resnet18", "packaged")


# --- the packaged network


def test_the_packaged_network_comes_with_its_weights() -> None:
    backbone = make(PACKAGED_NAME, "hub")
    assert backbone.report.source == "packaged"
    assert backbone.report.licence == "Apache-2.0"
    assert backbone.report.matched_fraction == 1.0
    assert len(backbone.report.sha256) == 64
    assert (backbone.sides, backbone.in_channels, backbone.normalisation) == ((64, 64), 1, "image")
    expected = packaged_state()
    assert all(torch.equal(value, expected[name]) for name, value in backbone.network.state_dict().items())
    scratch = make(PACKAGED_NAME)
    assert scratch.report.source == "none"
    assert not torch.equal(scratch.network.conv1[0].weight, backbone.network.conv1[0].weight)


def test_the_packaged_network_takes_no_arguments() -> None:
    with pytest.raises(BackboneError, match=r"expected no arguments for shapes_resnet18.*got \{'width': 3\}"):
        make(PACKAGED_NAME, "packaged", args={"width": 3})


# --- one's own network


def test_an_own_network_is_built_from_a_file(own_file: Path) -> None:
    backbone = make(f"{own_file}:build", args={"width": 7})
    assert type(backbone.network).__name__ == "Named"
    assert backbone.network.conv.out_channels == 7
    assert backbone.sides == (48, 48)
    assert source_file(f"{own_file}:build") == own_file
    assert make(f"{own_file}:Named", size=32).sides == (32, 32)


def test_an_own_network_is_built_from_a_module(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(own_file.parent)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    backbone = make("my_networks:build", args={"in_channels": 1})
    assert backbone.in_channels == 1
    assert (backbone.mean, backbone.std) == ((0.5,), (0.5,))
    assert source_file("my_networks:build") is None
    assert make("torchvision.models:resnet18").sides is None


def test_the_example_network_has_its_published_size() -> None:
    network = make(f"{EXAMPLE}:resnet20").network
    assert sum(p.numel() for p in network.parameters()) == 269_722  # 0.27 M, table 6 of He et al. 2016
    assert sum(p.numel() for p in make(f"{EXAMPLE}:resnet56").network.parameters()) == 853_018
    assert network.eval()(torch.zeros(2, 3, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("attribute", "args", "message"),
    [
        ("bild", {}, r"expected a callable 'bild' in .*my_networks\.py, got none.*build"),
        ("NUMBER", {}, "expected a callable 'NUMBER'"),
        ("no_module", {}, r"to return a torch\.nn\.Module, got dict"),
        ("build", {"depth": 3}, r"to take \{'depth': 3\}, got TypeError: .*unexpected keyword.*--backbone-arg"),
        ("build", {"width": 101}, "got ValueError: width must be at most 100"),
        ("build", {"width": -1}, "got RuntimeError"),
        ("", {}, "expected a callable ''"),
    ],
)
def test_own_callables_that_do_not_work_are_named(
    own_file: Path, attribute: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(BackboneError, match=message):
        make(f"{own_file}:{attribute}", args=args)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/net.py:build", r"expected a Python file at nowhere/net\.py, got nothing"),
        ("no_such_package.networks:build", "expected an importable module, got 'no_such_package"),
        (".relative:build", "expected an importable module, got '.relative'"),
        (":build", "expected an importable module, got ''"),
    ],
)
def test_places_that_do_not_exist_are_named(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        make(name)


def test_a_file_that_is_no_python_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("def build(:\n")
    with pytest.raises(BackboneError, match=r"expected importable Python in .*broken\.py, got SyntaxError"):
        make(f"{file}:build")
    file.write_text("import no_such_package\n")
    with pytest.raises(BackboneError, match="got ModuleNotFoundError: No module named 'no_such_package'"):
        make(f"{file}:build")


def test_no_hub_knows_the_weights_of_an_own_network(own_file: Path) -> None:
    with pytest.raises(WeightsError, match="no hub knows its weights"):
        make(f"{own_file}:build", "hub")


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (nn.Sequential(nn.ReLU(), nn.Conv2d(1, 4, 3)), 1),
        (nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv3d(4, 4, 3)), 2),
        (nn.Linear(5, 5), 3),
    ],
)
def test_input_channels_are_those_of_the_first_convolution(network: nn.Module, channels: int) -> None:
    assert first_channels(network) == channels


# --- normalisation


def test_given_statistics_replace_those_of_the_weights() -> None:
    backbone = make("resnet18", mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert backbone.mean == (0.1, 0.2, 0.3)
    assert backbone.std == (1.0, 2.0, 3.0)
    packaged = make(PACKAGED_NAME, mean=(0.5,), std=(0.25,))
    assert (packaged.normalisation, packaged.mean, packaged.std) == ("weights", (0.5,), (0.25,))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5,), (0.5,)),
        ((0.5,) * 4, (0.5,) * 4),
        ((0.5,) * 3, (0.5, 0.5)),
        ((0.5,) * 3, (0.5, 0.0, 0.5)),
        ((0.5,) * 3, (0.5, -1.0, 0.5)),
        ((float("nan"), 0.5, 0.5), (0.5,) * 3),
        ((0.5,) * 3, (0.5, 0.5, float("nan"))),
        ((0.5,) * 3, (float("inf"), 0.5, 0.5)),
    ],
)
def test_statistics_of_another_length_or_without_sense_are_refused(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with pytest.raises(ConfigError, match="expected 3 finite values of mean and of positive std"):
        make(TINY, mean=mean, std=std)


def test_a_network_with_other_channels_asks_for_its_statistics() -> None:
    with pytest.raises(ConfigError, match=r"expected 4 finite values.*Give mean and std"):
        make("resnet18", args={"in_chans": 4})
    assert make("resnet18", args={"in_chans": 4}, mean=(0.5,) * 4, std=(0.5,) * 4).in_channels == 4


# --- seeds


@pytest.mark.parametrize("name", [TINY, PACKAGED_NAME, f"{EXAMPLE}:resnet20"])
def test_a_seed_fixes_the_random_weights_and_leaves_the_callers_numbers_alone(name: str) -> None:
    spec = BackboneSpec(name=name, weights="none")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = open_backbone(dataclasses.replace(spec, seed=1)).network.state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = open_backbone(dataclasses.replace(spec, seed=1)).network.state_dict()
    third = open_backbone(dataclasses.replace(spec, seed=2)).network.state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert any(not torch.equal(value, third[key]) for key, value in first.items())


def test_building_reseeds_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    make(TINY)
    assert seeded == []


# --- offline


def test_offline_weights_of_the_hub_are_refused_without_a_network_attempt(
    closed_sockets: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"in the local hub cache because --offline is set.*--weights PATH"):
        make("resnet18", "hub", is_offline=True)
    assert closed_sockets == []
    assert list(tmp_path.iterdir()) == []


def test_offline_weights_in_the_hub_cache_are_loaded_without_a_network_attempt(
    closed_sockets: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub_id = timm.get_pretrained_cfg(TINY).hf_hub_id.removesuffix("/")
    folder = tmp_path / f"models--{hub_id.replace('/', '--')}"
    revision = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    state = timm.create_model(TINY).state_dict()  # the hub's file has the source head too
    save_file({name: value + 1 for name, value in state.items()}, snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    backbone = make(TINY, "hub", is_offline=True)
    assert closed_sockets == []
    assert backbone.report.source.startswith("hub:timm/")
    assert backbone.report.matched_fraction == 1.0
    loaded = backbone.network.state_dict()
    torch.testing.assert_close(loaded["bn1.running_var"], torch.full_like(loaded["bn1.running_var"], 2.0))
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_weights_from_elsewhere_make_no_network_attempt(closed_sockets: list[str], tmp_path: Path) -> None:
    make(TINY)
    make(PACKAGED_NAME, "packaged")
    make(f"{EXAMPLE}:resnet20")
    assert closed_sockets == []


def test_an_unreachable_hub_is_a_weights_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def refuse(*args: Any, pretrained: bool, **kwargs: Any) -> nn.Module:
        if pretrained:
            raise ConnectionError("no route to the hub\nand a long story")
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", refuse)
    monkeypatch.setattr(timm_models, "demand_reachable", lambda _: None)
    with pytest.raises(
        WeightsError, match=r"published weights of resnet18, got ConnectionError: no route to the hub\. "
    ):
        make("resnet18", "hub")


def test_an_architecture_without_published_weights_says_so() -> None:
    with pytest.raises(WeightsError, match=r"got resnet50_mlp, which has none.*--weights none"):
        make("resnet50_mlp", "hub")


def test_published_weights_keep_their_three_channels():
    with pytest.raises(BackboneError, match="would sum their filters"):
        open_backbone(BackboneSpec(name="resnet18", args={"in_chans": 1}, weights="hub", is_offline=True))
