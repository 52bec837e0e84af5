"""Weights are read without running code, matched by key, and never silently replaced by random ones."""

import contextlib
import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.timm_models import converter_of
from medgraft.errors import WeightsError
from medgraft.sources import load_weights, read_state_dicts, sha256_of


class Net(nn.Module):
    """Small, with a nested part, statistics and a head."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer1(self.stem(x).relu()).relu().mean((2, 3)))


class Wrapped(nn.Module):
    """The same network under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Net()


def net(seed: int = 0, num_classes: int = 3) -> Net:
    torch.manual_seed(seed)
    return Net(num_classes)


def source_state() -> dict[str, Tensor]:
    return net(seed=1).state_dict()


def num_counted(state: dict[str, Tensor]) -> int:
    return sum(not name.endswith("num_batches_tracked") for name in state)


def as_safetensors(content: Any, path: Path) -> Path:
    save_file(content, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_zip(content: Any, path: Path) -> Path:
    torch.save(content, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_legacy(content: Any, path: Path) -> Path:
    torch.save(content, path.with_suffix(".th"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".th")


FORMATS: dict[str, Callable[[Any, Path], Path]] = {
    "safetensors": as_safetensors,
    "torch zip": as_zip,
    "torch legacy": as_legacy,
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_is_read_and_reported(write: Callable[[Any, Path], Path], tmp_path: Path) -> None:
    state = source_state()
    file = write(state, tmp_path / "weights")
    network = net()
    report = load_weights(network, file)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert report.source == file.name
    assert report.sha256 == hashlib.sha256(file.read_bytes()).hexdigest() == sha256_of(file)
    assert report.matched == num_counted(state) == 14
    assert report.matched_fraction == 1.0
    assert report.missing == report.unexpected == report.wrong_shape == ()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "epoch": 7, "best": 0.5},
        lambda state: {"epoch": 7, "args": {"lr": 0.1}, "checkpoint": {"model_state": {"net": state}}},
        lambda state: {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}, "state_dict": state},
        lambda state: {"extra": torch.zeros(1), "model": state},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
    ids=["state_dict", "model", "nested", "beside an optimizer", "beside a tensor", "wrapped and prefixed"],
)
def test_wrappers_are_found_by_their_keys(wrap: Callable[[dict[str, Tensor]], Any], tmp_path: Path) -> None:
    network = net()
    report = load_weights(network, as_zip(wrap(source_state()), tmp_path / "any name"))
    assert report.matched_fraction == 1.0
    assert torch.equal(network.fc.weight, source_state()["fc.weight"])


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "encoder.", "module.encoder_q.", "model.0."])
def test_prefixes_are_stripped(prefix: str, tmp_path: Path) -> None:
    state = {prefix + name: value for name, value in source_state().items()}
    network = net()
    report = load_weights(network, as_safetensors(state, tmp_path / "weights"))
    # MoCo's head is its projector, which is known to be none of the network's.
    assert set(report.missing) == set(report.dropped) == ({"fc.weight", "fc.bias"} if "encoder_q" in prefix else set())
    assert report.unexpected == ()
    assert torch.equal(network.layer1[0].weight, source_state()["layer1.0.weight"])


def test_a_prefix_that_the_file_lacks_is_added(tmp_path: Path) -> None:
    network = Wrapped()
    report = load_weights(network, as_safetensors(source_state(), tmp_path / "weights"))
    assert report.matched_fraction == 1.0
    assert torch.equal(network.encoder.fc.weight, source_state()["fc.weight"])


def two_networks(kind: str) -> tuple[dict[str, Any], dict[str, Net]]:
    """A checkpoint of two networks as it is published, and the networks by their keys."""
    first, second = net(seed=1), net(seed=2)
    flat = {"moco": ("module.encoder_k", "module.encoder_q"), "bare": ("", "ema")}
    if kind in flat:
        keys = flat[kind]
        state: dict[str, Any] = {}
        for key, network in zip(keys, (first, second), strict=True):
            state |= {f"{key}.{name}".removeprefix("."): value for name, value in network.state_dict().items()}
        return state | {"module.queue": torch.zeros(4, 2)}, dict(zip(keys, (first, second), strict=True))
    keys = {"timm": ("state_dict", "state_dict_ema"), "dino": ("student", "teacher")}[kind]
    prefix = {"timm": "", "dino": "module.backbone."}[kind]
    content = {
        key: {prefix + name: value for name, value in network.state_dict().items()}
        for key, network in zip(keys, (first, second), strict=True)
    }
    return {"epoch": 3, **content}, dict(zip(keys, (first, second), strict=True))


def filled(source: str, tmp_path: Path) -> tuple[LoadReport, dict[str, Tensor]]:
    network = net()
    report = load_weights(network, source)
    return report, {name: value for name, value in network.state_dict().items() if name not in report.dropped}


def test_of_two_networks_in_a_file_the_user_says_which(tmp_path: Path) -> None:
    content, networks = two_networks("bare")
    file = as_zip(content, tmp_path / "weights")
    with pytest.raises(WeightsError, match=r"expected one network in .* got 2 that fit alike") as refusal:
        load_weights(net(), file)
    for key, source in networks.items():
        assert f"{file}#{key}" in str(refusal.value)
        report, state = filled(f"{file}#{key}", tmp_path)
        assert (report.key, report.matched_fraction) == (key, 1.0)
        for name, value in state.items():
            assert torch.equal(value, source.state_dict()[name]), name


@pytest.mark.parametrize(
    ("kind", "meant"), [("timm", "state_dict_ema"), ("dino", "teacher"), ("moco", "module.encoder_q")]
)
def test_of_two_networks_in_a_published_layout_the_authors_one_is_loaded(kind: str, meant: str, tmp_path: Path) -> None:
    content, networks = two_networks(kind)
    file = as_zip(content, tmp_path / "weights")
    for key, source in [(None, networks[meant]), *networks.items()]:
        report, state = filled(f"{file}#{key}" if key else str(file), tmp_path)
        assert report.key.startswith(key or meant)
        assert len(report.other_networks) == 1
        assert not set(report.missing) - set(report.dropped)
        for name, value in state.items():
            assert torch.equal(value, source.state_dict()[name]), name


def test_networks_with_the_same_numbers_are_one(tmp_path: Path) -> None:
    state = source_state()
    content = {"state_dict": state, "model": {f"module.{name}": value.clone() for name, value in state.items()}}
    report = load_weights(net(), as_zip(content, tmp_path / "weights"))
    assert (report.key, report.matched_fraction) == ("state_dict", 1.0)


def test_a_second_head_is_no_second_network(tmp_path: Path) -> None:
    state = source_state()
    state |= {"auxiliary.fc.weight": torch.zeros(3, 4), "auxiliary.fc.bias": torch.zeros(3)}
    network = net()
    report = load_weights(network, as_zip(state, tmp_path / "weights"))
    assert report.key == ""
    assert torch.equal(network.fc.weight, state["fc.weight"])


def test_a_key_that_the_file_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    content, _ = two_networks("dino")
    file = as_zip(content, tmp_path / "weights")
    with pytest.raises(WeightsError, match=r"expected a network 'taecher' in .* got none of that name") as refusal:
        load_weights(net(), f"{file}#taecher")
    assert re.search(r"#teacher.module.backbone or .*#student.module.backbone\.", str(refusal.value))


def test_a_file_with_a_number_sign_in_its_name_is_a_file(tmp_path: Path) -> None:
    assert load_weights(net(), as_zip(source_state(), tmp_path / "run#3")).matched_fraction == 1.0


def test_a_source_head_of_another_size_is_reported_and_left_out(tmp_path: Path) -> None:
    state = net(seed=1, num_classes=1000).state_dict() | {"queue": torch.zeros(4, 2)}
    network = net()
    head = network.fc.weight.clone()
    report = load_weights(network, as_safetensors(state, tmp_path / "weights"))
    assert set(report.wrong_shape) == {"fc.weight", "fc.bias"}
    assert set(report.missing) == {"fc.weight", "fc.bias"}
    assert report.unexpected == ("queue",)
    assert report.matched == 12
    total = sum(value.numel() for name, value in network.state_dict().items() if "num_batches" not in name)
    assert report.matched_fraction == pytest.approx(1 - (4 * 3 + 3) / total)
    assert torch.equal(network.fc.weight, head)


def test_half_precision_is_loaded_into_the_networks_own_precision(tmp_path: Path) -> None:
    state = {n: v.half() if v.is_floating_point() else v for n, v in source_state().items()}
    network = net()
    load_weights(network, as_safetensors(state, tmp_path / "weights"))
    assert network.fc.weight.dtype == torch.float32
    torch.testing.assert_close(network.fc.weight, source_state()["fc.weight"], rtol=1e-3, atol=1e-3)


def test_a_licence_beside_the_file_is_reported(tmp_path: Path) -> None:
    file = as_safetensors(source_state(), tmp_path / "weights")
    assert load_weights(net(), file).licence == ""
    file.with_suffix(".json").write_text(json.dumps({"licence": "CC-BY-4.0"}))
    assert load_weights(net(), file).licence == "CC-BY-4.0"
    file.with_suffix(".json").write_text("[1, 2]")
    with pytest.raises(WeightsError, match="expected a JSON object in"):
        load_weights(net(), file)


def test_all_dictionaries_of_a_file_are_found_outermost_first(tmp_path: Path) -> None:
    content = {"a": torch.zeros(1), "inner": {"b": torch.ones(1), "deep": {"c": torch.ones(2)}}, "n": 3}
    found = list(read_state_dicts(as_zip(content, tmp_path / "weights")))
    assert [(part.key, list(part.tensors)) for part in found] == [("", ["a"]), ("inner", ["b"]), ("inner.deep", ["c"])]


# --- timm's converters


def test_a_position_table_of_another_size_is_resampled_by_timm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "deit_tiny_patch16_224"
    source = timm.create_model(name, num_classes=0, img_size=64)
    file = as_zip({"model": source.state_dict()}, tmp_path / "deit")
    network = timm.create_model(name, num_classes=0, img_size=96)
    report = load_weights(network, file, convert=converter_of(network))
    assert report.matched_fraction == 1.0
    assert report.missing == report.wrong_shape == ()
    assert network.pos_embed.shape != source.pos_embed.shape
    torch.testing.assert_close(network.pos_embed[:, :1], source.pos_embed[:, :1])
    assert torch.equal(network.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    plain = load_weights(timm.create_model(name, num_classes=0, img_size=96), file)
    assert plain.wrong_shape == ("pos_embed",)


@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_tiny_patch16_224", 64), ("deit_tiny_patch16_224", 320)],
)
def test_tables_of_positions_at_another_size_are_as_timm_interpolates_them(
    name: str, size: int, tmp_path: Path
) -> None:
    source = timm.create_model(name, num_classes=0)
    ours, theirs = (timm.create_model(name, num_classes=0, img_size=size).eval() for _ in range(2))
    assert load_weights(ours, as_zip(source.state_dict(), tmp_path / "x"), convert=converter_of(ours)).missing == ()
    convert = converter_of(theirs)
    assert convert is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.load_state_dict(convert(source.state_dict()))
    x = torch.randn((1, 3, size, size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(x))


def test_foreign_key_names_are_converted_by_timm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("convnext_atto", num_classes=0)
    # The names of the original repository of ConvNeXt.
    foreign = {}
    for name, value in network.state_dict().items():
        name = name.replace("stem.", "downsample_layers.0.").replace("conv_dw", "dwconv")
        for stage in range(1, 4):
            name = name.replace(f"stages.{stage}.downsample.", f"downsample_layers.{stage}.")
        name = name.replace(".blocks.", ".").replace("mlp.fc", "pwconv").replace("head.norm", "norm")
        foreign[name] = value + 1
    assert set(foreign) != set(network.state_dict())
    report = load_weights(network, as_zip({"model": foreign}, tmp_path / "c"), convert=converter_of(network))
    assert report.matched_fraction == 1.0


def test_a_converter_that_fails_on_a_file_does_not_hide_a_plain_match(tmp_path: Path) -> None:
    def convert(_state: dict[str, Tensor]) -> dict[str, Tensor]:
        raise KeyError("pos_embed")

    state = source_state()
    del state["fc.bias"]
    report = load_weights(net(), as_safetensors(state, tmp_path / "weights"), convert=convert)
    assert report.missing == ("fc.bias",)


# --- refusals


def test_another_architecture_is_refused_with_the_first_keys_of_either_side(tmp_path: Path) -> None:
    file = as_safetensors({"features.0.kernel": torch.zeros(3), "top.w": torch.zeros(2)}, tmp_path / "weights")
    network = net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"first keys: stem\.0\.weight.*first keys: features\.0\.kernel, top\.w"):
        load_weights(network, file)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_keys_that_fit_with_shapes_that_do_not_are_refused(tmp_path: Path) -> None:
    state = {name: torch.zeros(1, 9, *value.shape) for name, value in source_state().items()}
    with pytest.raises(WeightsError, match="expected weights for this network, got none"):
        load_weights(net(), as_safetensors(state, tmp_path / "weights"))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights"])
def test_a_web_page_is_refused_whatever_its_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(b"\n <!DOCTYPE html><html><body>Sign in to continue</body></html>")
    with pytest.raises(WeightsError, match=r"got a web page.*fetch the file again"):
        load_weights(net(), file)


class Malicious:
    """Leaves a mark when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", ["pickle", "torch zip", "torch legacy"])
def test_code_in_a_pickle_never_runs(protocol: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "weights.pth"
    content = {"state_dict": source_state(), "extra": Malicious(mark)}
    if protocol == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=protocol == "torch zip")
    network = net()
    with pytest.raises(WeightsError, match=r"never runs code|expected a torch weights file"):
        load_weights(network, file)
    assert not mark.exists()
    torch.load(file, weights_only=False) if protocol != "pickle" else pickle.loads(file.read_bytes())
    assert mark.exists(), "the file would have run code"


def test_a_whole_pickled_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"never runs code.*save model\.state_dict\(\) as safetensors"):
        load_weights(net(), as_zip(net(), tmp_path / "model"))


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused(write: Callable[[Any, Path], Path], share: float, tmp_path: Path) -> None:
    file = write(source_state(), tmp_path / "weights")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"Fetch it again|refuses to read safely"):
        load_weights(net(), file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(deadline=None, max_examples=60)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("random") / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="expected"):
        load_weights(net(), file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(deadline=None, max_examples=60)
@given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_bytes_never_surface_as_another_error(
    places: list[tuple[float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = as_legacy(source_state(), tmp_path_factory.mktemp("damaged") / "weights")
    content = bytearray(file.read_bytes())
    for share, value in places:
        content[int(share * (len(content) - 1))] = value
    file.write_bytes(bytes(content))
    with contextlib.suppress(WeightsError):  # damage to the numbers alone cannot be seen
        load_weights(net(), file)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_an_empty_file_a_folder_and_nothing_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    with pytest.raises(WeightsError, match=r"got nothing\. Give the path of the file itself"):
        load_weights(net(), file)
    file.touch()
    with pytest.raises(WeightsError, match="got an empty file"):
        load_weights(net(), file)
    with pytest.raises(WeightsError, match="got a folder"):
        load_weights(net(), tmp_path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"list": [{"a": 1}]}])
def test_a_file_without_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected tensors in .*, got a \w+ without any"):
        load_weights(net(), as_zip(content, tmp_path / "weights"))


def test_an_image_named_as_weights_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        load_weights(net(), file)


def test_plain_numbers_of_numpy_are_no_code(tmp_path: Path) -> None:
    state = source_state()
    extra = {"epoch": np.float64(3), "best": np.float32(0.9), "step": np.int64(7), "done": np.bool_(True)}
    report = load_weights(net(), as_zip({**extra, "network_weights": state}, tmp_path / "x"))
    assert report.matched == num_counted(state)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(400), "a Keras or HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b'{"layers": 3}', "a JSON file"),
        (b"<html>", "a web page"),
    ],
)
@pytest.mark.parametrize("name", ["x.pth", "x.h5", "x.safetensors", "x.bin"])
def test_files_that_are_no_weights_are_called_what_they_are(
    content: bytes, told: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=told):
        load_weights(net(), tmp_path / name)


@pytest.mark.parametrize("name", ["x.pth", "x.bin", "x", "x.safetensors"])
def test_safetensors_are_known_by_their_content(name: str, tmp_path: Path) -> None:
    save_file(source_state(), tmp_path / name)
    assert load_weights(net(), tmp_path / name).matched == num_counted(source_state())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_weights_that_are_no_numbers_are_refused(
    write: Callable[[Any, Path], Path], value: float, tmp_path: Path
) -> None:
    state = source_state()
    state["layer1.0.weight"][0] = value
    with pytest.raises(WeightsError, match=r"got NaN or infinity in layer1\.0\.weight"):
        load_weights(net(), write(state, tmp_path / "x"))


def test_no_message_quotes_torchs_advice_or_its_colours(tmp_path: Path) -> None:
    file = as_zip({"model": source_state(), "extra": Malicious(tmp_path / "mark")}, tmp_path / "x")
    with pytest.raises(WeightsError) as caught:
        load_weights(net(), file)
    assert "weights_only" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_children_in_a_sequential_are_matched_by_order_and_shape(name: str, prefix: str, tmp_path: Path) -> None:
    source = timm.create_model(name, num_classes=0)
    children = nn.Sequential(*list(source.children())[:-2])
    state = {prefix + key: value for key, value in children.state_dict().items()}
    target = timm.create_model(name, num_classes=0)
    report = load_weights(target, as_zip(state, tmp_path / "x"))
    assert report.missing == ()
    for key, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[key], value)


def test_another_order_is_no_match(tmp_path: Path) -> None:
    source = timm.create_model("vgg11_bn", num_classes=0)
    children = nn.Sequential(*list(source.features.children()))
    state = {f"0.{name}": value for name, value in reversed(list(children.state_dict().items()))}
    network = timm.create_model("vgg11_bn", num_classes=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with contextlib.suppress(WeightsError):
        assert load_weights(network, as_zip(state, tmp_path / "x")).matched_fraction < 0.01
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) <= 2
