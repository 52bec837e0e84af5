"""Small differences between PyTorch's own namings of one network."""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from medgraft.sources.layouts.tensorflow import blocks_in_order

__all__ = ["from_efficientnet_pytorch", "from_sequential_inception", "from_sequential_resnet", "with_biases_in_norms"]

_EFFICIENTNET: Final = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_EXPANDED: Final = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
}
# A block whose input is as wide as its depthwise convolution has no expansion.
_SLIM: Final = {**_EXPANDED, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_CHILDREN: Final = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def from_efficientnet_pytorch(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An EfficientNet of the package EfficientNet-PyTorch, or its Lite, by timm's names.

    Args:
        state: Names such as ``_blocks.3._depthwise_conv.weight``.
        own: Tensors of the network; its blocks are counted through.
    """
    blocks = blocks_in_order(own)
    converted = {}
    for name, value in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match and int(match[1]) < len(blocks):
            block = blocks[int(match[1])]
            layers = _EXPANDED if f"{block}.conv_pwl.weight" in own else _SLIM
            name = f"{block}.{layers.get(match[2], match[2])}.{match[3]}"
        elif not match:
            layer, _, leaf = name.partition(".")
            name = f"{_EFFICIENTNET.get(layer, layer)}.{leaf}"
        converted[name] = value
    return converted


def from_sequential_resnet(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet whose children were put into a Sequential, by its own names.

    Args:
        state: Names such as ``0.weight`` and ``4.0.conv1.weight``.
        own: Unused: the numbers of a ResNet's children say all.
    """
    del own
    converted = {}
    for name, value in state.items():
        child, _, rest = name.partition(".")
        converted[f"{_CHILDREN[child]}.{rest}" if child in _CHILDREN else name] = value
    return converted


def from_sequential_inception(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An Inception v3 whose children were put into a Sequential, by its own names.

    Args:
        state: Names such as ``0.conv.weight``; pools between the layers have numbers and no tensors.
        own: Tensors of the network, whose children they are in this order.
    """
    numbers = sorted({int(name.partition(".")[0]) for name in state if name.partition(".")[0].isdigit()})
    children = list(dict.fromkeys(name.partition(".")[0] for name in own))
    names = dict(zip(map(str, numbers), children, strict=False))
    return {f"{names.get(name.partition('.')[0], '')}.{name.partition('.')[2]}": value for name, value in state.items()}


def with_biases_in_norms(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet whose convolutions have biases as one without: what a normalisation subtracts becomes so much less.

    Exact in evaluation. A lenient load would drop the biases, and nobody would be told.

    Args:
        state: Names such as ``layer1.0.conv1.bias`` beside ``layer1.0.bn1.running_mean``.
        own: Unused: the names say all.
    """
    del own
    converted = dict(state)
    for name, value in state.items():
        norm = re.sub(r"conv(\d+)\.bias$", r"bn\1.running_mean", name)
        norm = re.sub(r"downsample\.0\.bias$", "downsample.1.running_mean", norm)
        if norm != name and norm in state:
            converted[norm] = converted[norm] - value
            del converted[name]
    return converted
