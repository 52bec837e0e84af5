"""DenseNets as torchvision and torchxrayvision save them.

References:
    Huang, Liu, van der Maaten, Weinberger. Densely connected convolutional networks. CVPR 2017.
"""

import functools
import math
import re
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from sources.originals.draw import Draw
from sources.originals.layers import batch_norm, conv, in_double, max_pool
from sources.originals.value import Original, Weights, under

_GROWTH: Final = 8
_BLOCKS: Final = (2, 4, 3, 2)
_ARGS: Final[dict[str, Any]] = {"growth_rate": _GROWTH, "block_config": _BLOCKS}
_STEM: Final = 2 * _GROWTH


def densenet_weights(draw: Draw, *, into: int, counted: bool) -> tuple[Weights, int]:
    """The features of a small DenseNet, and their number of channels."""
    norm = functools.partial(draw.batch_norm, counted=counted)
    weights = under("conv0", draw.conv(_STEM, into, 7, 7, gain=1.5)) | under("norm0", norm(_STEM))
    channels = _STEM
    for block, layers in enumerate(_BLOCKS, start=1):
        for layer in range(1, layers + 1):
            inner = 4 * _GROWTH
            part = under("norm1", norm(channels)) | under("conv1", draw.conv(inner, channels, 1, 1, gain=1.4))
            part |= under("norm2", norm(inner)) | under("conv2", draw.conv(_GROWTH, inner, 3, 3, gain=1.4))
            weights |= under(f"denseblock{block}.denselayer{layer}", part)
            channels += _GROWTH
        if block < len(_BLOCKS):
            part = under("norm", norm(channels)) | under("conv", draw.conv(channels // 2, channels, 1, 1, gain=1.4))
            weights |= under(f"transition{block}", part)
            channels //= 2
    return weights | under("norm5", norm(channels)), channels


@in_double
def densenet_features(w: Weights, x: Tensor, *, is_old: bool = False) -> Tensor:
    """The last feature map (B, C, H, W), after the last ReLU.

    Args:
        is_old: Layers are called ``norm.1``, ``conv.1`` as in the files torchvision has published since 2017.
    """
    dot = "." if is_old else ""
    x = batch_norm(conv(x, w, "features.conv0", 2, 3), w, "features.norm0").relu()
    x = max_pool(x, 3, 2, 1)
    for block in range(1, len(_BLOCKS) + 1):
        count = len({key.split(".")[2] for key in w if key.startswith(f"features.denseblock{block}.")})
        for layer in range(1, count + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            new = conv(batch_norm(x, w, f"{name}.norm{dot}1").relu(), w, f"{name}.conv{dot}1")
            new = conv(batch_norm(new, w, f"{name}.norm{dot}2").relu(), w, f"{name}.conv{dot}2", padding=1)
            x = torch.cat([x, new], dim=1)
        if block < len(_BLOCKS):
            name = f"features.transition{block}"
            x = F.avg_pool2d(conv(batch_norm(x, w, f"{name}.norm").relu(), w, f"{name}.conv"), 2)
    return batch_norm(x, w, "features.norm5").relu()


def _torchvision(seed: int, *, is_old: bool) -> Weights:
    draw = Draw(seed)
    weights, channels = densenet_weights(draw, into=3, counted=not is_old)
    if is_old:
        weights = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in weights.items()
        }
    return {**under("features", weights), **under("classifier", draw.linear(10, channels))}


def _torchxrayvision(seed: int) -> Weights:
    draw = Draw(seed)
    weights, channels = densenet_weights(draw, into=1, counted=True)
    head = under("classifier", draw.linear(18, channels))
    thresholds = draw.between(0.01, 0.9, 18)
    thresholds[14:] = math.nan  # labels that the training set lacks
    return {"op_threshs": thresholds, **under("features", weights), **head}


DENSENETS: Final = (
    Original(
        name="torchvision DenseNet, bare",
        network="densenet121",
        args=_ARGS,
        layout="network",
        content=functools.partial(_torchvision, is_old=False),
        features=densenet_features,
        shape=(3, 64, 64),
    ),
    Original(
        name="torchvision DenseNet with dotted names, as published",
        network="densenet121",
        args=_ARGS,
        layout="network",
        content=functools.partial(_torchvision, is_old=True),
        features=functools.partial(densenet_features, is_old=True),
        shape=(3, 64, 64),
    ),
    Original(
        name="torchxrayvision DenseNet",
        network="densenet121",
        args={**_ARGS, "in_chans": 1},
        layout="torchxrayvision",
        suffix=".pt",
        content=_torchxrayvision,
        features=densenet_features,
        shape=(1, 64, 64),
    ),
)
