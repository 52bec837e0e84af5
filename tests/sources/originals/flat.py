"""ResNets whose authors did not use torch: flat names, arrays with the channels last.

References:
    Grill et al. Bootstrap your own latent. NeurIPS 2020.
    Chen, Kornblith, Norouzi, Hinton. A simple framework for contrastive learning of visual representations. ICML 2020.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any, Final

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from sources.originals.draw import Draw
from sources.originals.layers import in_double, max_pool, same
from sources.originals.value import Original, Weights, turned, within

Arrays = dict[str, npt.NDArray[Any]]
_BLOCKS: Final = (3, 4, 6, 3)


def arrays(weights: Mapping[str, Tensor]) -> Arrays:
    """The same as arrays."""
    return {key: value.numpy() for key, value in weights.items()}


def kernel(draw: Draw, out: int, into: int, side: int, gain: float = 1.4) -> Tensor:
    """A convolution's weights: height, width, channels in, channels out."""
    return draw.conv(out, into, side, side, gain=gain)["weight"].permute(2, 3, 1, 0).contiguous()


def hwio_conv(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolution of images with their channels first by such weights."""
    return F.conv2d(x, weight.permute(3, 2, 0, 1), None, stride, padding)


def over_channels(value: Tensor) -> Tensor:
    """One number per channel, to be applied to images."""
    return value.reshape(1, -1, 1, 1)


def bottlenecks() -> list[tuple[int, int, int]]:
    """Stage, number in the stage and inner channels of each block of a ResNet-50."""
    return [(stage, block, 64 * 2**stage) for stage, count in enumerate(_BLOCKS) for block in range(count)]


def _byol_network(draw: Draw) -> tuple[Weights, Weights]:
    """Parameters and state of haiku modules, each by module and leaf."""
    params: Weights = {}
    state: Weights = {}

    def norm(name: str, channels: int, axes: int = 4) -> None:
        shape = (*[1] * (axes - 1), channels)
        drawn = draw.batch_norm(channels)
        params[f"{name}/scale"], params[f"{name}/offset"] = drawn["weight"].view(shape), drawn["bias"].view(shape)
        for statistic, value in (("mean_ema", drawn["running_mean"]), ("var_ema", drawn["running_var"])):
            # The hidden sum is what the average is made of, before its bias is taken out.
            leaves = {"average": value.view(shape), "hidden": value.view(shape) * 0.9, "counter": torch.tensor(9)}
            state.update({f"{name}/~/{statistic}/{leaf}": number for leaf, number in leaves.items()})

    net = "res_net50/~"
    params[f"{net}/initial_conv/w"] = kernel(draw, 64, 3, 7)
    norm(f"{net}/initial_batchnorm", 64)
    into = 64
    for stage, block, inner in bottlenecks():
        name = f"{net}/block_group_{stage}/~/block_{block}/~"
        if block == 0:
            params[f"{name}/shortcut_conv/w"] = kernel(draw, 4 * inner, into, 1, 1.0)
            norm(f"{name}/shortcut_batchnorm", 4 * inner)
        shapes = ((inner, into, 1, 1.4), (inner, inner, 3, 1.4), (4 * inner, inner, 1, 0.2))
        for number, (out, seen, side, gain) in enumerate(shapes):
            params[f"{name}/conv_{number}/w"] = kernel(draw, out, seen, side, gain)
            norm(f"{name}/batchnorm_{number}", out)
        into = 4 * inner
    for head, seen in (("projector", into), ("predictor", 16)):
        params[f"{head}/linear/w"], params[f"{head}/linear/b"] = draw.normal(seen, 32, std=0.1), draw.normal(32)
        norm(f"{head}/batch_norm", 32, axes=2)
        params[f"{head}/linear_1/w"] = draw.normal(32, 16, std=0.1)
    params["classifier/w"], params["classifier/b"] = draw.normal(into, 10, std=0.1), draw.normal(10)
    return params, state


def _byol(seed: int) -> Arrays:
    params, state = _byol_network(Draw(seed))
    return arrays({**params, **state})


def _byol_experiment(seed: int, *, target_first: bool = False) -> Arrays:
    """The whole state of a training: its online network and the target that averages it."""
    draw, parts = Draw(seed), {}
    for network in ("online", "target"):
        parts[f"{network}_params"], parts[f"{network}_state"] = _byol_network(draw)
    parts = turned(parts) if target_first else parts
    return arrays({f"{part}/{key}": value for part, weights in parts.items() for key, value in weights.items()})


@in_double
def _byol_features(w: Weights, x: Tensor) -> Tensor:
    """The last feature map (B, C, H, W): all convolutions and the pool are padded SAME."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = w[f"{name}/w"]
        return hwio_conv(same(x, weight.shape[0], stride), weight, stride)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = (over_channels(w[f"{name}/~/{part}/average"]) for part in ("mean_ema", "var_ema"))
        scale, offset = over_channels(w[f"{name}/scale"]), over_channels(w[f"{name}/offset"])
        return (x - mean) / (variance + 1e-5).sqrt() * scale + offset

    net = "res_net50/~"
    x = norm(conv(x, f"{net}/initial_conv", 2), f"{net}/initial_batchnorm").relu()
    x = max_pool(same(x, 3, 2, -torch.inf), 3, 2, 0)
    for stage, block, _ in bottlenecks():
        name, stride = f"{net}/block_group_{stage}/~/block_{block}/~", 2 if stage and block == 0 else 1
        out = norm(conv(x, f"{name}/conv_0"), f"{name}/batchnorm_0").relu()
        out = norm(conv(out, f"{name}/conv_1", stride), f"{name}/batchnorm_1").relu()
        out = norm(conv(out, f"{name}/conv_2"), f"{name}/batchnorm_2")
        if block == 0:
            x = norm(conv(x, f"{name}/shortcut_conv", stride), f"{name}/shortcut_batchnorm")
        x = (out + x).relu()
    return x


def _online(content: Any, x: Tensor) -> Tensor:
    return _byol_features({**within("online_params/", content), **within("online_state/", content)}, x)


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _simclr_network(draw: Draw) -> Weights:
    """Layers numbered as they were made: a shortcut before what it passes by."""
    weights: Weights = {}
    numbers = itertools.count()

    def layer(out: int, into: int, side: int, gain: float = 1.4) -> None:
        number = next(numbers)
        weights[f"{_numbered('conv2d', number)}/kernel"] = kernel(draw, out, into, side, gain)
        weights.update(_simclr_norm(draw, _numbered("batch_normalization", number), out))

    layer(64, 3, 7)
    into = 64
    for _, block, inner in bottlenecks():
        if block == 0:
            layer(4 * inner, into, 1, 1.0)
        for out, seen, side, gain in ((inner, into, 1, 1.4), (inner, inner, 3, 1.4), (4 * inner, inner, 1, 0.2)):
            layer(out, seen, side, gain)
        into = 4 * inner
    return weights


def _simclr_norm(draw: Draw, name: str, channels: int) -> Weights:
    drawn = draw.batch_norm(channels)
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    return {f"{name}/{names[key]}": drawn[key] for key in names}


def _simclr(seed: int, *, version: int = 1) -> Arrays:
    """A checkpoint's variables; the second version keeps momenta, and an average of the weights."""
    draw = Draw(seed)
    networks = {"base_model": _simclr_network(draw)}
    if version == 2:
        networks["ema_model/base_model"] = _simclr_network(draw)
    weights = {f"{name}/{key}": value for name, part in networks.items() for key, value in part.items()}
    weights["head_contrastive/nl_0/dense/kernel"] = draw.normal(2048, 32, std=0.02)
    weights |= {
        f"head_contrastive/nl_0/{key}": value for key, value in _simclr_norm(draw, "batch_normalization", 32).items()
    }
    weights["head_supervised/linear_layer/dense/kernel"] = draw.normal(2048, 10, std=0.02)
    weights["head_supervised/linear_layer/dense/bias"] = draw.normal(10)
    if version == 2:
        weights["base_model/conv2d/kernel/Momentum"] = draw.normal(7, 7, 3, 64)
    # A checkpoint lists its variables by name, so that conv2d_10 comes before conv2d_2.
    return arrays(dict(sorted({**weights, "global_step": torch.tensor(225206)}.items())))


@in_double
def _simclr_features(w: Weights, x: Tensor) -> Tensor:
    """The last feature map (B, C, H, W): fixed padding of what strides, SAME in the pool."""
    numbers = itertools.count()

    def layer(x: Tensor, stride: int = 1) -> Tensor:
        number = next(numbers)
        weight, norm = w[f"{_numbered('conv2d', number)}/kernel"], _numbered("batch_normalization", number)
        x = hwio_conv(x, weight, stride, weight.shape[0] // 2)
        mean, variance, scale, shift = (
            over_channels(w[f"{norm}/{key}"]) for key in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = max_pool(same(layer(x, 2).relu(), 3, 2, -torch.inf), 3, 2, 0)
    for stage, block, _ in bottlenecks():
        stride = 2 if stage and block == 0 else 1
        shortcut = layer(x, stride) if block == 0 else x
        x = layer(layer(layer(x).relu(), stride).relu())
        x = (x + shortcut).relu()
    return x


def _base(content: Any, x: Tensor) -> Tensor:
    return _simclr_features(within("base_model/", content), x)


def _fifty(*, name: str, network: str, layout: str, content: Any, features: Any) -> Original:
    # 72 px halve to 9 and then 5: there SAME pads both ends, elsewhere one.
    return Original(
        name=name,
        network=network,
        layout=layout,
        suffix=".npz",
        content=content,
        features=features,
        shape=(3, 72, 72),
    )


_BYOL: Final[dict[str, Any]] = {"network": "resnet50_same", "layout": "byol-haiku"}
_SIMCLR: Final[dict[str, Any]] = {"network": "resnet50_same_pool", "layout": "simclr-tf", "features": _base}

FLAT: Final = (
    _fifty(name="BYOL, parameters and state by module", content=_byol, features=_byol_features, **_BYOL),
    _fifty(name="BYOL, the whole state of a training", content=_byol_experiment, features=_online, **_BYOL),
    _fifty(
        name="BYOL, the whole state of a training with the target first",
        content=functools.partial(_byol_experiment, target_first=True),
        features=_online,
        **_BYOL,
    ),
    _fifty(name="SimCLR v1", content=_simclr, **_SIMCLR),
    _fifty(
        name="SimCLR v2 without selective kernels, with momenta and an average",
        content=functools.partial(_simclr, version=2),
        **_SIMCLR,
    ),
)
