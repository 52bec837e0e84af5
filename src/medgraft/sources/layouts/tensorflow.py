"""Tensors of TensorFlow and JAX under the names and axes of PyTorch.

Their originals are read from `.npz` exports: names as there, slashes between the parts. No code of a checkpoint runs.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from torch import Tensor

from medgraft.errors import WeightsError

__all__ = ["blocks_in_order", "from_bit", "from_efficientnet", "from_haiku_resnet", "from_tf_resnet"]

_TF_NORM: Final = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_AVERAGE: Final = "/ExponentialMovingAverage"
_HAIKU_PARTS: Final = {"initial_conv": "conv1", "initial_batchnorm": "bn1"}
_SHORTCUT: Final = {"shortcut_conv": "downsample.0", "shortcut_batchnorm": "downsample.1"}


def _kernel(value: Tensor) -> Tensor:
    """A kernel (height, width, in, out) as (out, in, height, width); of a dense layer (in, out) as (out, in)."""
    return value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value.t().contiguous()


def from_haiku_resnet(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet of Haiku, as BYOL published it, by timm's names.

    Args:
        state: Names such as ``block_group_0/~/block_0/~/conv_0/w``; moving statistics are called ``average``.
        own: Unused: the names say all.

    References:
        Grill et al. Bootstrap your own latent. NeurIPS 2020.
    """
    del own
    converted = {}
    for name, value in state.items():
        parts = [part for part in name.split("/") if part != "~"]
        block = re.fullmatch(r"block_group_(\d+)", parts[0])
        where = f"layer{int(block[1]) + 1}.{parts[1].removeprefix('block_')}." if block else ""
        layer, *rest = parts[2:] if block else parts
        named = _SHORTCUT.get(layer) or _HAIKU_PARTS.get(layer)
        if named is None and (number := re.fullmatch(r"(conv|batchnorm)_(\d+)", layer)):
            named = f"{'conv' if number[1] == 'conv' else 'bn'}{int(number[2]) + 1}"
        leaf = _haiku_leaf(rest)
        if named is not None and leaf is not None:
            flat = value.reshape(-1) if leaf != "weight" or value.ndim != 4 or rest == ["scale"] else _kernel(value)
            converted[f"{where}{named}.{leaf}"] = flat
    return converted


def _haiku_leaf(rest: list[str]) -> str | None:
    """What Haiku's last parts of a name are called in PyTorch; None for what keeps count."""
    names = {
        ("w",): "weight",
        ("scale",): "weight",
        ("offset",): "bias",
        ("mean_ema", "average"): "running_mean",
        ("var_ema", "average"): "running_var",
    }
    return names.get(tuple(rest))


def from_tf_resnet(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet of TensorFlow's layers, numbered as they were made, as SimCLR published it, by timm's names.

    Args:
        state: Names such as ``conv2d_7/kernel`` and ``batch_normalization_7/gamma``.
        own: Tensors of the network, in whose order its layers are made.

    Raises:
        WeightsError: There are more layers or fewer.

    References:
        Chen et al. A simple framework for contrastive learning of visual representations. ICML 2020.
    """
    convs, norms = list(_in_tf_order(own, ".weight", 4)), list(_in_tf_order(own, ".running_mean", 1))
    kernels = _numbered(state, "conv2d", "kernel")
    scales = _numbered(state, "batch_normalization", "gamma")
    if len(kernels) != len(convs) or len(scales) != len(norms):
        raise WeightsError(
            f"expected {len(convs)} convolutions and {len(norms)} normalisations for this network, got {len(kernels)} "
            f"and {len(scales)} in the file: it is another ResNet."
        )
    converted = {f"{conv}.weight": _kernel(state[f"{name}/kernel"]) for conv, name in zip(convs, kernels, strict=True)}
    for norm, name in zip(norms, scales, strict=True):
        for theirs, ours in _TF_NORM.items():
            converted[f"{norm}.{ours}"] = state[f"{name}/{theirs}"]
    return converted


def _in_tf_order(own: Mapping[str, Tensor], ending: str, ndim: int) -> Iterator[str]:
    """Layers of a ResNet as TensorFlow's code makes them: the shortcut of a block before its convolutions."""
    layers = [name.removesuffix(ending) for name, value in own.items() if name.endswith(ending) and value.ndim == ndim]

    def rank(layer: str) -> tuple[int, ...]:
        block = re.match(r"layer(\d+)\.(\d+)\.", layer)
        return (int(block[1]), int(block[2]), "downsample" not in layer) if block else (0, 0, 0)

    # Sorting keeps the order of what ranks alike.
    return iter(sorted(layers, key=rank))


def _numbered(state: Mapping[str, Tensor], kind: str, leaf: str) -> list[str]:
    """Layers of a kind by their number; the first has none."""
    matches = {name: re.fullmatch(rf"{kind}(?:_(\d+))?/{leaf}", name) for name in state}
    numbers = {name.rpartition("/")[0]: int(match[1] or 0) for name, match in matches.items() if match}
    return sorted(numbers, key=numbers.__getitem__)


def from_bit(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet of Big Transfer by timm's names.

    Args:
        state: Names such as ``block1/unit01/a/standardized_conv2d/kernel``.
        own: Unused: the names say all.

    References:
        Kolesnikov et al. Big Transfer (BiT): general visual representation learning. ECCV 2020.
    """
    del own
    numbers = {"a": "1", "b": "2", "c": "3"}
    converted = {}
    for name, value in state.items():
        place = re.fullmatch(r"block(\d+)/unit(\d+)/([abc])/(?:(proj)/)?(standardized_conv2d|group_norm)/(\w+)", name)
        if place:
            where = f"stages.{int(place[1]) - 1}.blocks.{int(place[2]) - 1}."
            kind = "conv" if place[5] == "standardized_conv2d" else "norm"
            layer = "downsample.conv" if place[4] else f"{kind}{numbers[place[3]]}"
            leaf = "bias" if place[6] == "beta" else "weight"
            converted[f"{where}{layer}.{leaf}"] = _kernel(value) if place[6] == "kernel" else value.reshape(-1)
        elif name == "root_block/standardized_conv2d/kernel":
            converted["stem.conv.weight"] = _kernel(value)
        elif name.startswith("group_norm/"):
            converted[f"norm.{'bias' if name.endswith('beta') else 'weight'}"] = value.reshape(-1)
    return converted


def from_efficientnet(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An EfficientNet of TensorFlow by timm's names.

    Args:
        state: Names such as ``stem/conv2d/kernel`` and ``blocks_3/depthwise_conv2d/depthwise_kernel``.
        own: Tensors of the network; its blocks are counted through.

    References:
        Tan, Le. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019.
    """
    blocks = blocks_in_order(own)
    converted: dict[str, Tensor] = {}
    # What was averaged over the training is what its authors evaluate.
    averages = {name.removesuffix(_AVERAGE): value for name, value in state.items() if name.endswith(_AVERAGE)}
    for name, value in {**state, **averages}.items():
        place = re.fullmatch(r"(stem|head|blocks_(\d+))/(?:(se)/)?(\w+)/(\w+)", name)
        if not place or (place[2] and int(place[2]) >= len(blocks)):
            continue
        block = blocks[int(place[2])] if place[2] else ""
        layer = _efficientnet_layer(place[1], bool(place[3]), place[4], f"{block}.conv_pwl.weight" in own)
        leaf = {**_TF_NORM, "kernel": "weight", "depthwise_kernel": "weight", "bias": "bias"}.get(place[5])
        if layer and leaf:
            if place[5] == "depthwise_kernel":
                value = value.permute(2, 3, 0, 1).contiguous()
            elif place[5] == "kernel":
                value = _kernel(value)
            converted[f"{block}.{layer}.{leaf}" if block else f"{layer}.{leaf}"] = value
    return converted


def _efficientnet_layer(part: str, is_gate: bool, layer: str, is_expanded: bool) -> str:
    """Timm's name of a layer of TensorFlow's EfficientNet; empty for one of the head.

    Args:
        part: ``stem``, ``head`` or a block.
        is_gate: Whether the layer belongs to the squeeze-and-excitation.
        layer: Its name there: the kind and, from the second on, a number.
        is_expanded: Whether the block begins with an expansion.
    """
    kind, _, number = layer.removeprefix("tpu_").partition("2d" if layer.startswith("conv") else "normalization")
    position = int(number.strip("_") or 0)
    if part == "stem":
        return "conv_stem" if kind == "conv" else "bn1"
    if part == "head":
        return {"conv": "conv_head", "batch_": "bn2"}.get(kind, "")
    if is_gate:
        return ("se.conv_reduce", "se.conv_expand")[position]
    if layer.startswith("depthwise"):
        return "conv_dw"
    if kind == "conv":
        return (("conv_pw", "conv_pwl") if is_expanded else ("conv_pw",))[position]
    return f"bn{position + 1}"


def blocks_in_order(own: Mapping[str, Tensor]) -> list[str]:
    """Paths of the blocks of timm's EfficientNet from the input on, such as ``blocks.1.0``."""
    return list(dict.fromkeys(match[0] for name in own if (match := re.match(r"blocks\.\d+\.\d+", name))))
