"""ConvNeXt as its authors save it, and under timm's names.

References:
    Liu et al. A ConvNet for the 2020s. CVPR 2022.
    Woo et al. ConvNeXt V2: co-designing and scaling ConvNets with masked autoencoders. CVPR 2023.
"""

import dataclasses
import functools
from typing import Any, Final

from torch import Tensor

from sources.originals.draw import Draw
from sources.originals.layers import conv, gelu, in_double, layer_norm, linear
from sources.originals.value import Original, Weights, under, within

_EPS: Final = 1e-6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a file calls the parts of a ConvNeXt; braces are numbers.

    Attributes:
        stem: Convolution, then norm.
        down: Norm, then convolution before a stage.
        block: Of a stage.
        depthwise: Its 7×7 convolution.
        wide: Its first linear map.
        narrow: Its second linear map.
        norm: The norm after pooling.
    """

    stem: tuple[str, str]
    down: tuple[str, str]
    block: str
    depthwise: str
    wide: str
    narrow: str
    norm: str


FACEBOOK: Final = Names(
    stem=("downsample_layers.0.0", "downsample_layers.0.1"),
    down=("downsample_layers.{}.0", "downsample_layers.{}.1"),
    block="stages.{}.{}",
    depthwise="dwconv",
    wide="pwconv1",
    narrow="pwconv2",
    norm="norm",
)
TIMM: Final = Names(
    stem=("stem.0", "stem.1"),
    down=("stages.{}.downsample.0", "stages.{}.downsample.1"),
    block="stages.{}.blocks.{}",
    depthwise="conv_dw",
    wide="mlp.fc1",
    narrow="mlp.fc2",
    norm="head.norm",
)
DEPTHS: Final = (1, 1, 2, 1)
DIMS: Final = (16, 24, 32, 40)
ARGS: Final[dict[str, Any]] = {"depths": DEPTHS, "dims": DIMS}


def convnext_weights(draw: Draw, names: Names = FACEBOOK, *, is_second: bool = False) -> Weights:
    """Everything before the head; the second version has response norms and no layer scale."""
    weights = under(names.stem[0], draw.conv(DIMS[0], 3, 4, 4, bias=True)) | under(names.stem[1], draw.norm(DIMS[0]))
    for stage, (depth, channels) in enumerate(zip(DEPTHS, DIMS, strict=True)):
        if stage:
            norm, reduction = (name.format(stage) for name in names.down)
            weights |= under(norm, draw.norm(DIMS[stage - 1]))
            weights |= under(reduction, draw.conv(channels, DIMS[stage - 1], 2, 2, bias=True))
        for block in range(depth):
            part = under(names.depthwise, draw.conv(channels, 1, 7, 7, bias=True)) | under("norm", draw.norm(channels))
            part |= under(names.wide, draw.linear(4 * channels, channels))
            part |= under(names.narrow, draw.linear(channels, 4 * channels))
            if is_second:
                part |= {f"grn.{key}": draw.normal(1, 1, 1, 4 * channels, std=0.5) for key in ("gamma", "beta")}
            else:
                part["gamma"] = draw.between(0.1, 0.9, channels)
            weights |= under(names.block.format(stage, block), part)
    return weights | under(names.norm, draw.norm(DIMS[-1]))


@in_double
def convnext_features(w: Weights, x: Tensor, names: Names = FACEBOOK, *, is_pooled: bool = False) -> Tensor:
    """The last feature map (B, C, H, W), or what the authors take from it: its mean after the last norm (B, C)."""
    x = _over_channels(conv(x, w, names.stem[0], 4), w, names.stem[1])
    for stage, depth in enumerate(DEPTHS):
        if stage:
            norm, reduction = (name.format(stage) for name in names.down)
            x = conv(_over_channels(x, w, norm), w, reduction, 2)
        for block in range(depth):
            x = x + _branch(x, w, names.block.format(stage, block), names)
    return layer_norm(x.mean((2, 3)), w, names.norm, _EPS) if is_pooled else x


def _branch(x: Tensor, w: Weights, name: str, names: Names) -> Tensor:
    x = conv(x, w, f"{name}.{names.depthwise}", padding=3, groups=x.shape[1]).movedim(1, -1)
    x = gelu(linear(layer_norm(x, w, f"{name}.norm", _EPS), w, f"{name}.{names.wide}"))
    if f"{name}.grn.gamma" in w:
        response = x.square().sum((1, 2), keepdim=True).sqrt()
        share = response / (response.mean(-1, keepdim=True) + 1e-6)
        x = w[f"{name}.grn.gamma"] * (x * share) + w[f"{name}.grn.beta"] + x
    x = linear(x, w, f"{name}.{names.narrow}")
    return (x * w[f"{name}.gamma"] if f"{name}.gamma" in w else x).movedim(-1, 1)


def _over_channels(x: Tensor, w: Weights, name: str) -> Tensor:
    return layer_norm(x.movedim(1, -1), w, name, _EPS).movedim(-1, 1)


def _published(seed: int, *, entry: str = "", prefix: str = "", is_second: bool = False) -> dict[str, Any]:
    draw = Draw(seed)
    weights = {**convnext_weights(draw, is_second=is_second), **under("head", draw.linear(10, DIMS[-1]))}
    weights = under(prefix, weights) if prefix else weights
    return {entry: weights} if entry else weights


def _of(content: Any, x: Tensor, *, entry: str = "", prefix: str = "", is_pooled: bool = False) -> Tensor:
    return convnext_features(within(prefix, content[entry] if entry else content), x, is_pooled=is_pooled)


def _small(*, name: str, content: Any, features: Any, network: str = "convnext_tiny", **others: Any) -> Original:
    return Original(
        name=name,
        network=network,
        args=ARGS,
        layout="convnext-fb",
        content=content,
        features=features,
        shape=(3, 64, 64),
        **others,
    )


CONVNEXTS: Final = (
    _small(name="Facebook ConvNeXt, bare", content=_published, features=_of),
    _small(
        name="Facebook ConvNeXt in model",
        content=functools.partial(_published, entry="model"),
        features=functools.partial(_of, entry="model"),
    ),
    _small(
        name="Facebook ConvNeXt in model, pooled and normed",
        content=functools.partial(_published, entry="model"),
        features=functools.partial(_of, entry="model", is_pooled=True),
        where="forward",
    ),
    _small(
        name="Facebook ConvNeXt of a wrapped network",
        content=functools.partial(_published, entry="state_dict", prefix="module"),
        features=functools.partial(_of, entry="state_dict", prefix="module."),
    ),
    _small(
        name="Facebook ConvNeXt as the backbone of a wrapped network",
        content=functools.partial(_published, prefix="module.backbone"),
        features=functools.partial(_of, prefix="module.backbone."),
    ),
    _small(
        name="Facebook ConvNeXt V2",
        network="convnextv2_atto",
        content=functools.partial(_published, entry="model", is_second=True),
        features=functools.partial(_of, entry="model"),
    ),
)
