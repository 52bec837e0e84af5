"""EfficientNet-B0 and -Lite0 as their ports to torch save them, and as TensorFlow does.

References:
    Tan, Le. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor

from sources.originals.draw import Draw
from sources.originals.layers import batch_norm, conv, in_double, same, silu
from sources.originals.value import Original, Weights, under

_EPS: Final = 1e-3
_HEAD: Final = 1280
# Repeats, kernel, stride, expansion, channels in and out of each stage.
_STAGES: Final = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One inverted bottleneck: its kernel, stride, expansion, and channels in and out."""

    kernel: int
    stride: int
    expansion: int
    into: int
    out: int


def _blocks() -> Iterator[Block]:
    for repeats, kernel, stride, expansion, into, out in _STAGES:
        for number in range(repeats):
            first = number == 0
            yield Block(
                kernel=kernel,
                stride=stride if first else 1,
                expansion=expansion,
                into=into if first else out,
                out=out,
            )


def _weights(draw: Draw, *, is_lite: bool) -> Weights:
    """Under the names of the port to torch: each block numbers its batch norms from 0, or from 1 without expansion."""
    gain = 1.12 if is_lite else 1.32  # gates halve what they let through
    weights = under("_conv_stem", draw.conv(32, 3, 3, 3, gain=gain)) | under("_bn0", draw.batch_norm(32))
    for number, block in enumerate(_blocks()):
        inner, squeezed = block.into * block.expansion, max(1, block.into // 4)
        part: Weights = {}
        if block.expansion > 1:
            part |= under("_expand_conv", draw.conv(inner, block.into, 1, 1, gain=gain))
            part |= under("_bn0", draw.batch_norm(inner))
        part |= under("_depthwise_conv", draw.conv(inner, 1, block.kernel, block.kernel, gain=gain))
        part |= under("_bn1", draw.batch_norm(inner))
        if not is_lite:
            part |= under("_se_reduce", draw.conv(squeezed, inner, 1, 1, bias=True))
            part |= under("_se_expand", draw.conv(inner, squeezed, 1, 1, bias=True))
        part |= under("_project_conv", draw.conv(block.out, inner, 1, 1, gain=gain))
        part |= under("_bn2", draw.batch_norm(block.out))
        weights |= under(f"_blocks.{number}", part)
    weights |= under("_conv_head", draw.conv(_HEAD, 320, 1, 1, gain=gain)) | under("_bn1", draw.batch_norm(_HEAD))
    return weights | under("_fc", draw.linear(10, _HEAD))


@in_double
def _features(w: Weights, x: Tensor, *, is_lite: bool) -> Tensor:
    """The last feature map (B, 1280, H, W); what strides pads SAME."""
    activate: Callable[[Tensor], Tensor] = (lambda value: value.clamp(0, 6)) if is_lite else silu
    x = activate(batch_norm(conv(same(x, 3, 2), w, "_conv_stem", 2), w, "_bn0", _EPS))
    for number, block in enumerate(_blocks()):
        name, out = f"_blocks.{number}", x
        if block.expansion > 1:
            out = activate(batch_norm(conv(out, w, f"{name}._expand_conv"), w, f"{name}._bn0", _EPS))
        padded = same(out, block.kernel, block.stride)
        out = conv(padded, w, f"{name}._depthwise_conv", block.stride, groups=out.shape[1])
        out = activate(batch_norm(out, w, f"{name}._bn1", _EPS))
        if not is_lite:
            gate = silu(conv(out.mean((2, 3), keepdim=True), w, f"{name}._se_reduce"))
            out = out * torch.sigmoid(conv(gate, w, f"{name}._se_expand"))
        out = batch_norm(conv(out, w, f"{name}._project_conv"), w, f"{name}._bn2", _EPS)
        x = out + x if block.stride == 1 and block.into == block.out else out
    return activate(batch_norm(conv(x, w, "_conv_head"), w, "_bn1", _EPS))


_TENSORFLOW: Final = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_ROOT: Final = "efficientnet-b0"
_AVERAGE: Final = "ExponentialMovingAverage"


def _tensorflow_names() -> dict[str, str]:
    """The variable in TensorFlow's checkpoint of every convolution and batch norm, by its name in the port to torch.

    A scope numbers its layers of one kind as they are made: expansion, projection; three batch norms.
    """
    names = {"_conv_stem": "stem/conv2d", "_bn0": "stem/tpu_batch_normalization"}
    names |= {"_conv_head": "head/conv2d", "_bn1": "head/tpu_batch_normalization", "_fc": "head/dense"}
    for number, block in enumerate(_blocks()):
        convs = ["_expand_conv"] * (block.expansion > 1) + ["_project_conv"]
        norms = ["_bn0"] * (block.expansion > 1) + ["_bn1", "_bn2"]
        scope = f"blocks_{number}"
        kinds = ((convs, f"{scope}/conv2d"), (norms, f"{scope}/tpu_batch_normalization"))
        for parts, kind in (*kinds, (["_se_reduce", "_se_expand"], f"{scope}/se/conv2d")):
            for place, part in enumerate(parts):
                names[f"_blocks.{number}.{part}"] = f"{kind}_{place}" if place else kind
        names[f"_blocks.{number}._depthwise_conv"] = f"{scope}/depthwise_conv2d"
    return names


def _tensorflow(weights: Weights) -> dict[str, Any]:
    names, content = _tensorflow_names(), {}
    for key, value in weights.items():
        layer, _, leaf = key.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        variable = f"{_ROOT}/{names[layer]}"
        if "_bn" in layer:
            content[f"{variable}/{_TENSORFLOW[leaf]}"] = value
        elif leaf == "bias":
            content[f"{variable}/bias"] = value
        elif layer == "_fc":
            content[f"{variable}/kernel"] = value.T
        elif layer.endswith("_depthwise_conv"):
            content[f"{variable}/depthwise_kernel"] = value.permute(2, 3, 0, 1)
        else:
            content[f"{variable}/kernel"] = value.permute(2, 3, 1, 0)
    return {key: value.contiguous().numpy() for key, value in content.items()}


def _of_tensorflow(content: Any, x: Tensor, *, suffix: str = "") -> Tensor:
    """Features of the variables whose names end in `suffix`."""
    weights: Weights = {}
    for layer, scope in _tensorflow_names().items():
        for leaf in (*_TENSORFLOW, "kernel", "depthwise_kernel", "bias"):
            variable = f"{_ROOT}/{scope}/{_TENSORFLOW.get(leaf, leaf) if '_bn' in layer else leaf}{suffix}"
            if variable not in content:
                continue
            value = torch.as_tensor(content[variable])
            if leaf == "depthwise_kernel":
                weights[f"{layer}.weight"] = value.permute(2, 3, 0, 1)
            elif leaf == "kernel":
                weights[f"{layer}.weight"] = value.T if value.ndim == 2 else value.permute(3, 2, 0, 1)
            else:
                weights[f"{layer}.{leaf}"] = value
    return _features(weights, x, is_lite=False)


def _averaged(seed: int) -> dict[str, Any]:
    """What Google published: every variable beside its average, which its authors evaluate."""
    draw = Draw(seed)
    content = _tensorflow(_weights(draw, is_lite=False))
    for key, value in _tensorflow(_weights(draw, is_lite=False)).items():
        content[f"{key}/{_AVERAGE}"] = value
    return {**content, "global_step": torch.tensor(109375).numpy()}


def _small(*, name: str, layout: str, content: Any, features: Any, **others: Any) -> Original:
    return Original(
        **{"network": "tf_efficientnet_b0", "suffix": ".pth", **others},
        name=name,
        layout=layout,
        content=content,
        features=features,
        shape=(3, 64, 64),
    )


EFFICIENTNETS: Final = (
    _small(
        name="EfficientNet-PyTorch B0",
        layout="efficientnet-pytorch",
        content=lambda seed: _weights(Draw(seed), is_lite=False),
        features=functools.partial(_features, is_lite=False),
    ),
    _small(
        name="EfficientNet-PyTorch Lite0",
        network="tf_efficientnet_lite0",
        layout="efficientnet-pytorch",
        content=lambda seed: _weights(Draw(seed), is_lite=True),
        features=functools.partial(_features, is_lite=True),
    ),
    _small(
        name="TensorFlow EfficientNet B0",
        layout="efficientnet-tf",
        suffix=".npz",
        content=lambda seed: _tensorflow(_weights(Draw(seed), is_lite=False)),
        features=_of_tensorflow,
    ),
    _small(
        name="TensorFlow EfficientNet B0 with averages, as published",
        layout="efficientnet-tf",
        suffix=".npz",
        content=_averaged,
        features=functools.partial(_of_tensorflow, suffix=f"/{_AVERAGE}"),
    ),
)
