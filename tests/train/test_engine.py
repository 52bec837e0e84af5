"""The engine: what it measures, what it must not measure, and devices that are not there."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import medgraft.train.engine as engine_room
from medgraft.as_json import from_json, to_json
from medgraft.errors import ConfigError
from medgraft.train import Engine, choose_engine, pick_device
from medgraft.train.batches import ImageSet
from medgraft.train.engine import exact_engine, forward, running, to_channels_last
from medgraft.train.features import extract_features
from medgraft.train.outputs import predict_probs


def choose(net, **options):
    return choose_engine(net, (1, 8, 8), **{"batch_size": 4, "device": "cpu", "is_deterministic": False, **options})


@pytest.mark.parametrize(("precision", "wanted"), [("auto", "float32"), ("float32", "float32"), ("bf16", "bf16")])
def test_deterministic_measures_nothing(make_net, monkeypatch, precision, wanted):
    monkeypatch.setattr(engine_room, "_images_per_second", None)
    found = choose(make_net(), is_deterministic=True, precision=precision)
    assert found == Engine(device="cpu", precision=wanted, is_deterministic=True)
    assert found.measured == {}


def test_a_measurement_leaves_the_model_as_it_was(make_net):
    net = make_net().eval()
    before = copy.deepcopy(net.state_dict())
    found = choose(net, precision="float32")
    assert set(found.measured) == {"float32", "float32-channels-last"}
    assert min(found.measured.values()) > 0
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not net.training
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("has_bf16", "speeds", "wanted"),
    [
        (True, {"float32": 10, "float32-channels-last": 12, "bf16": 30, "bf16-channels-last": 40}, ("bf16", True)),
        (
            True,
            {"float32": 10, "float32-channels-last": 10.9, "bf16": 9, "bf16-channels-last": 10.5},
            ("float32", False),
        ),
        # Other arithmetic is another result: a sixth faster is no reason for one.
        (True, {"float32": 10, "float32-channels-last": 12, "bf16": 12, "bf16-channels-last": 14}, ("float32", True)),
        (False, {"float32": 10, "float32-channels-last": 12}, ("float32", True)),
    ],
)
def test_the_fastest_combination_wins_when_it_is_worth_it(make_net, monkeypatch, has_bf16, speeds, wanted):
    monkeypatch.setattr(engine_room, "_has_bf16", lambda _device: has_bf16)
    monkeypatch.setattr(engine_room, "_images_per_second", lambda _model, _shape, _options: speeds)
    found = choose(make_net())
    assert (found.precision, found.is_channels_last) == wanted
    assert found.measured == speeds


def test_options_are_measured_in_turns_at_the_batch_size_to_come(make_net, monkeypatch):
    seen = []

    def seconds(_model, images, option):
        seen.append((len(images), engine_room._label(option)))
        # The first round is slow for all: it compiles kernels and must not count.
        return 1.0 if len(seen) <= 3 else {"float32": 0.2, "float32-channels-last": 0.1}[engine_room._label(option)]

    monkeypatch.setattr(engine_room, "_step_seconds", seconds)
    found = choose(make_net(), precision="float32", batch_size=12)
    assert found.measured == {"float32": 60.0, "float32-channels-last": 120.0}
    assert found.is_channels_last
    assert {size for size, _ in seen} == {12}
    assert [name for _, name in seen[1:5]] == ["float32", "float32-channels-last"] * 2


def test_a_network_of_long_steps_is_measured_on_fewer_images(make_net, monkeypatch):
    seen = []
    monkeypatch.setattr(engine_room, "_step_seconds", lambda _m, images, _o: seen.append(len(images)) or 9.0)
    choose(make_net(), precision="float32", batch_size=32)
    assert seen[0] == 32
    assert set(seen[1:]) == {8}


def test_a_forced_precision_is_kept(make_net, monkeypatch):
    monkeypatch.setattr(engine_room, "_step_seconds", lambda *_: 1.0)
    assert choose(make_net(), precision="bf16").precision == "bf16"
    assert set(choose(make_net(), precision="bf16").measured) == {"bf16", "bf16-channels-last"}


def test_an_engine_survives_json():
    engine = Engine(device="cpu", precision="bf16", is_channels_last=True, measured={"bf16": 3.5})
    assert from_json(Engine, to_json(engine)) == engine


def test_forward_obeys_precision_and_layout(make_net):
    net = to_channels_last(make_net()).eval()
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        plain = forward(net, images, Engine(device="cpu"))
        low = forward(net, images, Engine(device="cpu", precision="bf16", is_channels_last=True))
    assert plain.dtype == torch.float32
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), plain, atol=0.05, rtol=0.05)
    assert net.blocks[3].weight.is_contiguous(memory_format=torch.channels_last)


def test_layouts_exist_for_volumes():
    volume = torch.nn.Conv3d(2, 4, 3)
    net = to_channels_last(torch.nn.Sequential(volume))
    assert volume.weight.is_contiguous(memory_format=torch.channels_last_3d)
    engine = Engine(device="cpu", is_channels_last=True)
    assert forward(net, torch.rand(1, 2, 5, 5, 5), engine).shape == (1, 4, 3, 3, 3)


@pytest.mark.parametrize("is_deterministic", [True, False])
def test_global_switches_are_set_back(is_deterministic):
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    def use(engine):
        with running(engine):
            assert torch.are_deterministic_algorithms_enabled() == is_deterministic
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use(Engine(device="cpu", is_deterministic=is_deterministic))
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


def test_the_cpu_is_always_there():
    assert pick_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_device(monkeypatch, cuda, mps, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto") == wanted
    if cuda:
        assert pick_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("wanted", ["cuda", "cuda:1", "mps", "tpu", "", "gpu"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"a device of this machine \(cpu\), got '{wanted}'"):
        pick_device(wanted)


def test_an_engine_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Engine(device="cpu").device = "cuda"


@pytest.mark.parametrize("allows", [True, False])
def test_rounding_to_tf32_is_what_the_engine_says_and_is_set_back(allows):
    """torch rounds convolutions by default: numbers called float32 were not."""
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    with running(Engine(device="cpu", allows_tf32=allows)):
        assert [switch.allow_tf32 for switch in switches] == [allows, allows]
    assert [switch.allow_tf32 for switch in switches] == before


def test_what_is_reported_is_computed_exactly_and_deterministically_where_asked():
    seen = []

    class Net(nn.Module):
        def forward(self, images):
            seen.append((torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()))
            return images.flatten(1).mean(1, keepdim=True)

    data = ImageSet(
        images=np.zeros((2, 1, 4, 4), np.uint8),
        rows=np.arange(2),
        targets=np.arange(2),
        intensity_max=255,
        task="binary",
        positive=1,
        num_classes=2,
    )
    for is_deterministic in (True, False):
        predict_probs(Net(), data, exact_engine("cpu", is_deterministic=is_deterministic))
        extract_features(Net(), data, exact_engine("cpu", is_deterministic=is_deterministic))
    assert seen == [(False, True)] * 2 + [(False, False)] * 2


@pytest.mark.parametrize(("of_one", "wanted"), [(200.0, 1), (110.0, 0), (50.0, 0)])
def test_one_thread_is_chosen_where_it_clearly_pays(make_net, monkeypatch, of_one, wanted):
    speeds = {"float32": 100.0, "float32-channels-last": 90.0, "float32-one-thread": of_one}

    def measured(_model, _shape, options):
        return {engine_room._label(option): speeds[engine_room._label(option)] for option in options}

    monkeypatch.setattr(engine_room, "_images_per_second", measured)
    monkeypatch.setattr(engine_room, "_has_bf16", lambda _device: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    found = choose(make_net())
    assert found.num_threads == wanted
    assert found.measured["float32-one-thread"] == of_one


def test_threads_are_those_of_the_engine_and_set_back():
    before = torch.get_num_threads()
    with running(Engine(device="cpu", num_threads=1)):
        assert torch.get_num_threads() == 1
        with running(Engine(device="cpu")):
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
