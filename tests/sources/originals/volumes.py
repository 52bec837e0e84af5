"""Networks for volumes as their authors save them.

References:
    Chen, Ma, Zheng. Med3D: transfer learning for 3D medical image analysis. arXiv 2019.
    Tang et al. Self-supervised pre-training of Swin transformers for 3D medical image analysis. CVPR 2022.
    Hara, Kataoka, Satoh. Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet? CVPR 2018.
"""

import dataclasses
import functools
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from sources.originals.draw import Draw
from sources.originals.layers import block_names, conv, in_double, layer_norm, linear, standardised
from sources.originals.resnet import Plan, Size, resnet_features, resnet_weights
from sources.originals.value import Original, Weights, stack, under, within
from sources.originals.windows import block, block_weights

_CUBES: Final = ((7, 7, 7), (3, 3, 3))
_RESNET10: Final = Size(blocks=(1, 1, 1, 1), channels=(64, 128, 256, 512), expansion=0, into=1, kernels=_CUBES)
_RESNEXT: Final = Size(blocks=(3, 4, 23, 3), channels=(128, 256, 512, 1024), expansion=2, kernels=_CUBES, groups=32)


def _medicalnet(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    # A transposed convolution stores its two numbers of channels the other way round.
    up = {"weight": draw.normal(512, 32, 2, 2, 2, std=0.05), "bias": draw.normal(32, std=0.2)}
    head = stack(
        up,
        draw.batch_norm(32),
        None,
        draw.conv(32, 32, 3, 3, 3),
        draw.batch_norm(32),
        None,
        draw.conv(2, 32, 1, 1, 1),
    )
    state = under("module", {**resnet_weights(draw, _RESNET10), **under("conv_seg", head)})
    return {"epoch": 180, "batch_id": 10, "state_dict": state, "optimizer": draw.optimizer()}


def _kinetics(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    state = under("module", {**resnet_weights(draw, _RESNEXT), **under("fc", draw.linear(400, 2048))})
    return {"epoch": 250, "arch": "resnext-101", "state_dict": state, "optimizer": draw.optimizer()}


def _of_resnet(content: Any, x: Tensor, *, plan: Plan) -> Tensor:
    return resnet_features(within("module.", content["state_dict"]), x, plan)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Swin:
    """A Swin transformer for volumes.

    Attributes:
        channels: Of the first stage.
        depth: Blocks per stage.
        heads: Per stage.
        window: Side in tokens.
        mlp: Names of the two linear maps of a block.
    """

    channels: int = 12
    depth: int = 2
    heads: tuple[int, ...] = (1, 2, 3, 4)
    window: int = 3
    mlp: tuple[str, str] = ("linear1", "linear2")


_OLD: Final = Swin(mlp=("fc1", "fc2"))
_NEW: Final = Swin()
# The eight neighbours that are joined, as MONAI had them when the weights were published: two twice, two never.
# MONAI 1.5 made them the eight corners without a change of name.
_JOINED_THEN: Final = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))
_JOINED_NOW: Final = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))


def _swin_weights(draw: Draw, swin: Swin) -> Weights:
    weights = under("patch_embed.proj", draw.conv(swin.channels, 1, 2, 2, 2, bias=True))
    for stage, heads in enumerate(swin.heads):
        channels, window = swin.channels * 2**stage, (swin.window,) * 3
        for number in range(swin.depth):
            part = block_weights(draw, channels, heads, window, swin.mlp)
            weights |= under(f"layers{stage + 1}.0.blocks.{number}", part)
        merging = under("reduction", draw.linear(2 * channels, 8 * channels, bias=False))
        weights |= under(f"layers{stage + 1}.0.downsample", merging | under("norm", draw.norm(8 * channels)))
    return weights


@in_double
def _swin_features(w: Weights, x: Tensor, swin: Swin, joined: tuple[tuple[int, int, int], ...]) -> Tensor:
    """The last hidden state, standardised over its channels (B, C, D, H, W)."""
    x = conv(x, w, "patch_embed.proj", 2).movedim(1, -1)
    window = (swin.window,) * 3
    for stage in range(1, len(swin.heads) + 1):
        layer = f"layers{stage}.0"
        for number, name in enumerate(block_names(w, f"{layer}.blocks")):
            x = block(x, w, name, window, (number % 2 * (swin.window // 2),) * 3, swin.mlp)
        x = F.pad(x, (0, 0, *(number for size in reversed(x.shape[1:4]) for number in (0, size % 2))))
        parts = [x[:, depth::2, row::2, column::2] for depth, row, column in joined]
        x = layer_norm(torch.cat(parts, -1), w, f"{layer}.downsample.norm", 1e-5)
        x = linear(x, w, f"{layer}.downsample.reduction")
    return standardised(x, 1e-5).movedim(-1, 1)


def _self_supervised(seed: int) -> dict[str, Any]:
    """MONAI's model_swinvit.pt: the encoder alone, with the heads of its three tasks."""
    draw = Draw(seed)
    last = _OLD.channels * 16
    state = _swin_weights(draw, _OLD) | under("norm", draw.norm(last))
    state |= under("rotation_head", draw.linear(4, last)) | under("contrastive_head", draw.linear(512, last))
    state |= under("convTrans3d", draw.conv(last, 1, 2, 2, 2, bias=True))
    return {"epoch": 100, "state_dict": under("module", state), "optimizer": draw.optimizer()}


def _head_of_tasks(seed: int) -> dict[str, Any]:
    """What the published pretraining code saves today: the encoder called swin_vit."""
    draw = Draw(seed)
    last = _NEW.channels * 16
    state = under("swin_vit", _swin_weights(draw, _NEW))
    state |= under("rotation_head", draw.linear(4, last)) | under("contrastive_head", draw.linear(512, last))
    state |= under("conv.0", draw.conv(last // 2, last, 3, 3, 3, bias=True))
    return {"global_step": 4000, "state_dict": state, "optimizer": draw.optimizer()}


def _segmenting(seed: int) -> dict[str, Any]:
    """A whole Swin UNETR, trained to segment."""
    draw = Draw(seed)
    state = under("swinViT", _swin_weights(draw, _NEW))
    for name, channels, into in (("encoder1", 12, 1), ("encoder2", 12, 12), ("decoder1", 12, 24)):
        for number, seen in ((1, into), (2, channels)):
            part = under("conv", draw.conv(channels, seen, 3, 3, 3))
            state |= under(f"{name}.layer.conv{number}", part)
    state |= under("out.conv.conv", draw.conv(14, 12, 1, 1, 1, bias=True))
    return {"epoch": 800, "best_acc": 0.82, "state_dict": state}


def _of_swin(content: Any, x: Tensor, *, prefix: str, swin: Swin, joined: Any = _JOINED_THEN) -> Tensor:
    return _swin_features(within(prefix, content["state_dict"]), x, swin, joined)


_SWIN_ARGS: Final[dict[str, Any]] = {
    "embed_dim": _NEW.channels,
    "num_heads": _NEW.heads,
    "window_size": (_NEW.window,) * 3,
}
_VOLUME: Final = (1, 32, 48, 32)


def _small_swin(*, name: str, layout: str, content: Any, features: Any, is_old: bool = False) -> Original:
    return Original(
        name=name,
        network="monai/swin_unetr_2022" if is_old else "monai/swin_unetr",
        args=_SWIN_ARGS,
        layout=layout,
        suffix=".pt",
        content=content,
        features=features,
        shape=_VOLUME,
    )


_WHOLE: Final = functools.partial(_of_swin, prefix="swinViT.", swin=_NEW)

VOLUMES: Final = (
    Original(
        name="MedicalNet, whose last two stages dilate",
        network="medicalnet/resnet10",
        layout="medicalnet",
        content=_medicalnet,
        features=functools.partial(_of_resnet, plan=Plan(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))),
        where="layer4",
        shape=(1, 32, 48, 32),
    ),
    Original(
        name="MedicalNet as MONAI reads it, with strides for dilations",
        network="monai/resnet10",
        args={"conv1_t_stride": 2},
        layout="medicalnet",
        content=_medicalnet,
        refused="its upper stages stride where those of the weights dilate",
        where="layer4",
        shape=(1, 32, 48, 32),
    ),
    Original(
        name="ResNeXt3D-101 of Kinetics",
        network="resnext3d_101",
        layout="resnext3d",
        content=_kinetics,
        features=functools.partial(_of_resnet, plan=Plan(stem_stride=(1, 2, 2), groups=32)),
        shape=(3, 16, 32, 32),
    ),
    _small_swin(
        name="Swin UNETR, self-supervised encoder as published in 2022",
        layout="swin-unetr-ssl",
        content=_self_supervised,
        features=functools.partial(_of_swin, prefix="module.", swin=_OLD),
        is_old=True,
    ),
    _small_swin(
        name="Swin UNETR, self-supervised encoder of today's code (MONAI 1.5 or newer)",
        layout="swin-unetr-ssl",
        content=_head_of_tasks,
        features=functools.partial(_of_swin, prefix="swin_vit.", swin=_NEW, joined=_JOINED_NOW),
    ),
    _small_swin(
        name="Swin UNETR, whole, trained before MONAI 1.5",
        layout="swin-unetr",
        content=_segmenting,
        features=_WHOLE,
        is_old=True,
    ),
    _small_swin(
        name="Swin UNETR, whole, trained with MONAI 1.5 or newer",
        layout="swin-unetr",
        content=_segmenting,
        features=functools.partial(_WHOLE, joined=_JOINED_NOW),
    ),
)
