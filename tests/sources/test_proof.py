"""Weights prove their preprocessing, and that they are whole: normalisation layers remember what they saw."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medgraft.backbones import Backbone, BackboneSpec, build_backbone
from medgraft.errors import WeightsError
from medgraft.sources import open_backbone
from medgraft.sources.catalogue import IMAGENET_LITE0
from medgraft.sources.leaves import dead_leaves
from medgraft.sources.proof import HYPOTHESES, Hypothesis, prove, scores_of

SHARED = Path(__file__).parents[3] / "shared" / "weights"
EXAMPLE = Path(__file__).parents[2] / "examples" / "cifar_resnet.py"
TINY = "test_resnet"
SCALES = [hypothesis for hypothesis in HYPOTHESES if not hypothesis.is_bgr]
REAL = {
    "MobileNet v1": (
        {"name": "mobilenetv1_100", "args": {"pad_type": "same", "bn_eps": 1e-3}},
        "mobilenetv1_100_imagenet_trunk.safetensors",
    ),
    "ResNet-20": ({"name": f"{EXAMPLE}:resnet20"}, "cifar10_resnet20.th"),
    "ResNet-56": ({"name": f"{EXAMPLE}:resnet56"}, "cifar10_resnet56.th"),
}


def remembering(network: nn.Module) -> nn.Module:
    """The network after its layers saw the drawn images as ImageNet's networks see them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    with torch.inference_mode():
        network.train()(normalised(SCALES[0]))
    return network.eval()


def normalised(hypothesis: Hypothesis) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (hypothesis.mean, hypothesis.std))
    return (dead_leaves(8, 128) - mean) / std


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = build_backbone(BackboneSpec(name=TINY, weights="none")).network
    return {name: value.clone() for name, value in remembering(network).state_dict().items()}


def folded(network: nn.Module, was: Hypothesis, now: Hypothesis) -> nn.Module:
    """The same function of the same image for another preprocessing, folded into the first convolution."""
    network = copy.deepcopy(network)
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d))

    # Exact at the border, too, where the padding of the folded network would have another colour.
    def as_it_was(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        own_mean, own_std, mean, std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (now.mean, now.std, was.mean, was.std)
        )
        x = inputs[0].flip(1) if now.is_bgr else inputs[0]
        return ((x * own_std + own_mean - mean) / std,)

    stem.register_forward_pre_hook(as_it_was)
    return network


def declared(backbone: Backbone, network: nn.Module, hypothesis: Hypothesis) -> Backbone:
    return dataclasses.replace(backbone, network=network, mean=hypothesis.mean, std=hypothesis.std)


def test_drawn_images_are_like_photographs_and_always_the_same() -> None:
    images = dead_leaves(8, 128)
    assert images.shape == (8, 3, 128, 128)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.mean((0, 2, 3)) == pytest.approx(torch.tensor([0.485, 0.456, 0.406]), abs=0.06)
    assert images.std((0, 2, 3)) == pytest.approx(torch.full((3,), 0.25), abs=0.03)
    # Neighbours are alike: the spectrum of photographs falls with the square of the frequency.
    power = (torch.fft.rfft(images - images.mean((2, 3), keepdim=True), dim=3).abs() ** 2).mean((0, 1, 2))
    slope = np.polyfit(np.log(np.arange(2, 33)), np.log(power[2:33].numpy()), 1)[0]
    assert -2.6 < slope < -1.4


def test_what_was_seen_agrees_and_the_rest_contradicts(state: dict[str, Tensor]) -> None:
    backbone = build_backbone(BackboneSpec(name=TINY, weights="none"))
    backbone.network.load_state_dict(state)
    for now in SCALES:
        network = folded(backbone.network, SCALES[0], now)
        for guess in SCALES:
            proof = prove(declared(backbone, network, guess))
            assert proof.verdict == ("agrees" if guess == now else "contradicts"), (now.words, guess.words, proof.words)
            assert guess == now or proof.best == now.words


def test_a_declared_preprocessing_that_contradicts_stops_with_both_figures(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(state, tmp_path / "x.safetensors")
    spec = BackboneSpec(name=TINY, weights=str(tmp_path / "x.safetensors"))
    good = open_backbone(dataclasses.replace(spec, mean=SCALES[0].mean, std=SCALES[0].std))
    assert "those its normalising layers remember (0.0" in good.report.proof
    with pytest.raises(
        WeightsError, match=r"got one that says otherwise\. .* nats apart as declared, 0\.0\d with ImageN"
    ):
        open_backbone(dataclasses.replace(spec, mean=SCALES[3].mean, std=SCALES[3].std))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_a_network_without_such_memory_says_so(name: str) -> None:
    proof = prove(build_backbone(BackboneSpec(name=name, weights="none")))
    assert (proof.verdict, proof.declared) == ("unchecked", None)
    assert "cannot be checked: no layer remembers" in proof.words


def test_random_weights_are_not_judged() -> None:
    assert prove(build_backbone(BackboneSpec(name="resnet18", weights="none"))).verdict == "unchecked"


def real_networks() -> Iterator[tuple[str, Backbone]]:
    for name, (fields, file) in REAL.items():
        if (SHARED / file).is_file():
            yield name, open_backbone(BackboneSpec(**fields, weights=str(SHARED / file)))


@pytest.mark.real
@pytest.mark.slow
def test_nine_of_ten_real_networks_are_identified_among_the_hypotheses() -> None:
    networks = list(real_networks())
    if not networks:
        pytest.skip("the weights are not beside the project")
    results = {
        (name, now.words): identified(backbone, now) == (now.mean, now.std)
        for name, backbone in networks
        for now in SCALES
    }
    assert np.mean(list(results.values())) >= 0.9, [case for case, is_right in results.items() if not is_right]


@pytest.mark.imagenet
def test_lite0_is_identified_whatever_it_was_shown() -> None:
    try:
        backbone = open_backbone(BackboneSpec(name="tf_efficientnet_lite0", weights=IMAGENET_LITE0))
    except WeightsError:
        pytest.skip("the extra imagenet is not installed")
    for now in SCALES:
        assert identified(backbone, now) == (now.mean, now.std), now.words


def identified(backbone: Backbone, now: Hypothesis) -> tuple[tuple[float, ...], tuple[float, ...]]:
    was = Hypothesis(words="", mean=backbone.mean, std=backbone.std)  # type: ignore[arg-type]
    scores = scores_of(folded(backbone.network, was, now))
    best = min(scores, key=scores.__getitem__)
    return best.mean, best.std


# --- Damage -----------------------------------------------------------------------------------------------------------

Damage = Callable[[dict[str, Tensor], np.random.Generator], dict[str, Tensor]]


def kernels(state: dict[str, Tensor]) -> list[str]:
    return [name for name, value in state.items() if value.ndim == 4]


def some_tensor(state: dict[str, Tensor], rng: np.random.Generator) -> str:
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    return str(rng.choice(names))


def renamed(state: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    gone = some_tensor(state, rng)
    new = {0: f"{gone}_", 1: gone.replace("weight", "w").replace("running", "r").replace("bias", "b"), 2: f"x.{gone}"}
    return {new[int(rng.integers(3))] if name == gone else name: value for name, value in state.items()}


def swapped(state: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    """Two kernels of one shape change places; where there is no other, a kernel and its mirror image."""
    first = str(rng.choice(kernels(state)))
    others = [name for name in kernels(state) if name != first and state[name].shape == state[first].shape]
    if not others:
        return {**state, first: state[first].flip(0)}
    second = str(rng.choice(others))
    return {**state, first: state[second], second: state[first]}


def half_dropped(state: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    names = list(state)
    kept = set(rng.choice(names, len(names) // 2, replace=False))
    return {name: value for name, value in state.items() if name in kept}


def permuted(state: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    name = str(rng.choice(kernels(state)))
    return {**state, name: state[name][torch.from_numpy(rng.permutation(len(state[name])))]}


def rescaled(state: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    name = str(rng.choice(kernels(state)))
    return {**state, name: state[name] * float(rng.choice([1 / 255, 0.1, 10, 255]))}


def not_numbers(state: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    name = some_tensor(state, rng)
    value = state[name].clone()
    value.view(-1)[int(rng.integers(value.numel()))] = float(rng.choice([np.nan, np.inf, -np.inf]))
    return {**state, name: value}


DAMAGES: dict[str, Damage] = {
    "renamed": renamed,
    "swapped": swapped,
    "half dropped": half_dropped,
    "permuted": permuted,
    "rescaled": rescaled,
    "not numbers": not_numbers,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGES)
def test_of_a_thousand_damaged_files_none_is_called_loaded(kind: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    backbone = build_backbone(BackboneSpec(name=TINY, weights="none"))
    backbone.network.load_state_dict(state)
    x = normalised(SCALES[0])[:1]
    with torch.inference_mode():
        expected = backbone.network.eval()(x)
    escaped = []
    for number in range(167):
        damaged = DAMAGES[kind](state, np.random.default_rng(number))
        file = tmp_path / "x.safetensors"
        save_file({name: value.contiguous() for name, value in damaged.items()}, file)
        spec = BackboneSpec(name=TINY, weights=str(file), mean=SCALES[0].mean, std=SCALES[0].std)
        try:
            loaded = open_backbone(spec)
        except WeightsError:
            continue
        if loaded.report.missing or loaded.report.wrong_shape:
            continue
        with torch.inference_mode():
            features = loaded.network.eval()(x)
        if not torch.allclose(features, expected, rtol=1e-4, atol=1e-4):
            escaped.append(number)
    assert escaped == []
