"""ResNets under torchvision's names: random weights, and their features from the definition.

References:
    He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016.
"""

import dataclasses

from torch import Tensor

from sources.originals.draw import Draw
from sources.originals.layers import batch_norm, block_names, conv, in_double, max_pool
from sources.originals.value import Weights, under

_LAST = 0.2  # of the last convolution of a block, lest a hundred layers add up to thousands


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a network whose weights are drawn.

    Attributes:
        blocks: Per stage.
        channels: Of the 3×3 convolutions, per stage.
        expansion: Channels of a bottleneck's output per channel of its 3×3 convolution; 0 makes basic blocks.
        stem: Channels of the first convolution.
        into: Channels of the input.
        kernels: Sides of the kernels of the first convolution, and of all others but 1×1.
        groups: Of the 3×3 convolutions.
        bias: Whether convolutions have biases.
        counted: Whether batch norms count batches.
    """

    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    expansion: int = 4
    stem: int = 64
    into: int = 3
    kernels: tuple[tuple[int, ...], tuple[int, ...]] = ((7, 7), (3, 3))
    groups: int = 1
    bias: bool = False
    counted: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a file's names and its network differ from torchvision's.

    Attributes:
        stem: Name of the first convolution.
        stem_norm: Of its batch norm.
        stages: Names of the stages.
        stem_stride: Of the first convolution.
        strides: Per stage.
        dilations: Of the 3×3 convolutions, per stage.
        strided: Number of the convolution of a bottleneck that strides.
        groups: Of the 3×3 convolutions.
        eps: Of the batch norms.
    """

    stem: str = "conv1"
    stem_norm: str = "bn1"
    stages: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")
    stem_stride: int | tuple[int, ...] = 2
    strides: tuple[int, ...] = (1, 2, 2, 2)
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    strided: int = 2
    groups: int = 1
    eps: float = 1e-5


TORCHVISION = Plan()
RESNET18 = Size(blocks=(2, 2, 2, 2), channels=(64, 128, 256, 512), expansion=0)
BASIC = Size(blocks=(1, 2, 1, 1), channels=(64, 96, 128, 160), expansion=0)
BOTTLENECK = Size(blocks=(1, 2, 1, 1), channels=(24, 32, 40, 48))
RESNET50 = Size(blocks=(3, 4, 6, 3), channels=(64, 128, 256, 512))


def width(size: Size) -> int:
    """Channels of the features."""
    return size.channels[-1] * (size.expansion or 1)


def resnet_weights(draw: Draw, size: Size) -> Weights:
    """Everything before the head."""
    stem, inner = size.kernels
    weights = under("conv1", draw.conv(size.stem, size.into, *stem, bias=size.bias, gain=1.5))
    weights |= under("bn1", draw.batch_norm(size.stem, counted=size.counted))
    into = size.stem
    point = (1,) * len(inner)
    for stage, (blocks, channels) in enumerate(zip(size.blocks, size.channels, strict=True), start=1):
        out = channels * (size.expansion or 1)
        for block in range(blocks):
            if size.expansion:
                shapes = [(channels, into, point), (channels, channels, inner), (out, channels, point)]
            else:
                shapes = [(channels, into, inner), (out, channels, inner)]
            part: Weights = {}
            for number, (wide, seen, kernel) in enumerate(shapes, start=1):
                gain = _LAST if number == len(shapes) else 1.4
                seen //= size.groups if kernel == inner else 1
                part |= under(f"conv{number}", draw.conv(wide, seen, *kernel, bias=size.bias, gain=gain))
                part |= under(f"bn{number}", draw.batch_norm(wide, counted=size.counted))
            if block == 0 and (stage > 1 or into != out):
                part |= under("downsample.0", draw.conv(out, into, *point, bias=size.bias))
                part |= under("downsample.1", draw.batch_norm(out, counted=size.counted))
            weights |= under(f"layer{stage}.{block}", part)
            into = out
    return weights


@in_double
def resnet_features(w: Weights, x: Tensor, plan: Plan = TORCHVISION) -> Tensor:
    """The last feature map (B, C, …)."""
    kernel = w[f"{plan.stem}.weight"].shape[-1]
    x = conv(x, w, plan.stem, plan.stem_stride, kernel // 2)
    x = batch_norm(x, w, plan.stem_norm, plan.eps).relu()
    x = max_pool(x, 3, 2, 1)
    for stage, stride, dilation in zip(plan.stages, plan.strides, plan.dilations, strict=True):
        for number, block in enumerate(block_names(w, stage)):
            x = _block(x, w, block, stride if number == 0 else 1, dilation, plan)
    return x


def _block(x: Tensor, w: Weights, name: str, stride: int, dilation: int, plan: Plan) -> Tensor:
    is_bottleneck = f"{name}.conv3.weight" in w
    last, strided = (3, plan.strided) if is_bottleneck else (2, 1)
    out = x
    for number in range(1, last + 1):
        is_wide = w[f"{name}.conv{number}.weight"].shape[-1] > 1
        step = stride if number == strided else 1
        spread = dilation if is_wide else 1
        out = conv(
            out, w, f"{name}.conv{number}", step, spread if is_wide else 0, spread, plan.groups if is_wide else 1
        )
        out = batch_norm(out, w, f"{name}.bn{number}", plan.eps)
        out = out.relu() if number < last else out
    if f"{name}.downsample.0.weight" in w:
        x = batch_norm(conv(x, w, f"{name}.downsample.0", stride), w, f"{name}.downsample.1", plan.eps)
    return (out + x).relu()
