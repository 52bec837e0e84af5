"""Swin transformers as Microsoft's repositories save them, and those that others trained with that code."""

import functools
from typing import Any, Final

import torch
from torch import Tensor

from sources.originals.draw import Draw
from sources.originals.layers import block_names, conv, in_double, layer_norm, linear
from sources.originals.value import Original, Weights, turned, under, within
from sources.originals.windows import block, block_weights, shift_mask

_CHANNELS: Final = 16
_DEPTHS: Final = (2, 2, 2, 2)
_HEADS: Final = (1, 2, 4, 8)
_WINDOW: Final = 4
_SIDE: Final = 128
_MLP: Final = ("fc1", "fc2")
_ARGS: Final[dict[str, Any]] = {
    "embed_dim": _CHANNELS,
    "depths": _DEPTHS,
    "num_heads": _HEADS,
    "window_size": _WINDOW,
    "img_size": _SIDE,
}
_LAST: Final = _CHANNELS * 2 ** (len(_DEPTHS) - 1)


def _weights(draw: Draw) -> Weights:
    """Everything before the head, with the indices and masks that the code keeps as buffers."""
    weights = under("patch_embed.proj", draw.conv(_CHANNELS, 3, 4, 4, bias=True))
    weights |= under("patch_embed.norm", draw.norm(_CHANNELS))
    for layer, (depth, heads) in enumerate(zip(_DEPTHS, _HEADS, strict=True)):
        channels, side = _CHANNELS * 2**layer, _SIDE // 4 // 2**layer
        for number in range(depth):
            part = block_weights(draw, channels, heads, (_WINDOW, _WINDOW), _MLP)
            if number % 2 and side > _WINDOW:
                part["attn_mask"] = shift_mask((side, side), (_WINDOW, _WINDOW), (_WINDOW // 2, _WINDOW // 2))
            weights |= under(f"layers.{layer}.blocks.{number}", part)
        if layer < len(_DEPTHS) - 1:
            reduction = under("reduction", draw.linear(2 * channels, 4 * channels, bias=False))
            weights |= under(f"layers.{layer}.downsample", reduction | under("norm", draw.norm(4 * channels)))
    return weights | under("norm", draw.norm(_LAST))


@in_double
def _features(w: Weights, x: Tensor) -> Tensor:
    """The last map after the last norm, channels last (B, H, W, C)."""
    x = layer_norm(conv(x, w, "patch_embed.proj", 4).movedim(1, -1), w, "patch_embed.norm", 1e-5)
    window = (_WINDOW, _WINDOW)
    for layer in block_names(w, "layers"):
        for number, name in enumerate(block_names(w, f"{layer}.blocks")):
            shift = number % 2 * (_WINDOW // 2)
            x = block(x, w, name, window, (shift, shift), _MLP)
        if f"{layer}.downsample.norm.weight" in w:
            # Down first, then right: the order of the four neighbours in the channels.
            parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            x = linear(
                layer_norm(torch.cat(parts, -1), w, f"{layer}.downsample.norm", 1e-5),
                w,
                f"{layer}.downsample.reduction",
            )
    return layer_norm(x, w, "norm", 1e-5)


def _published(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    return {"model": {**_weights(draw), **under("head", draw.linear(10, _LAST))}}


def _simmim(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    encoder = {"mask_token": draw.normal(1, 1, _CHANNELS), **_weights(draw)}
    decoder = under("decoder.0", draw.conv(32**2 * 3, _LAST, 1, 1, bias=True))
    return {
        "model": {**under("encoder", encoder), **decoder},
        "optimizer": draw.optimizer(),
        "lr_scheduler": {"last_epoch": 800},
        "max_accuracy": 0.0,
        "epoch": 799,
    }


def _ark(seed: int, *, teacher_first: bool = False) -> dict[str, Any]:
    """A student that lags behind nothing, and a teacher that averages it: the authors use the teacher."""
    draw = Draw(seed)

    def network() -> Weights:
        weights = {**_weights(draw), **under("projector", draw.linear(48, _LAST))}
        for head, classes in enumerate((14, 3, 6)):
            weights |= under(f"omni_heads.{head}", draw.linear(classes, 48))
        return under("module", weights)

    networks = {"state_dict": network(), "teacher": network()}
    return {
        "epoch": 50,
        "lossMIN": [0.3, 0.2],
        **(turned(networks) if teacher_first else networks),
        "optimizer": draw.optimizer(),
        "scheduler": {"best": 0.25},
    }


def _of(content: Any, x: Tensor, *, entry: str, prefix: str = "") -> Tensor:
    return _features(within(prefix, content[entry]), x)


def _small(*, name: str, layout: str, content: Any, features: Any) -> Original:
    return Original(
        name=name,
        network="swin_tiny_patch4_window7_224",
        args=_ARGS,
        layout=layout,
        content=content,
        features=features,
        shape=(3, _SIDE, _SIDE),
    )


_TEACHER: Final = functools.partial(_of, entry="teacher", prefix="module.")

SWINS: Final = (
    _small(
        name="Microsoft Swin with its indices and masks",
        layout="swin-ms",
        content=_published,
        features=functools.partial(_of, entry="model"),
    ),
    _small(
        name="SimMIM, an encoder with its decoder",
        layout="simmim",
        content=_simmim,
        features=functools.partial(_of, entry="model", prefix="encoder."),
    ),
    _small(name="Ark", layout="ark", content=_ark, features=_TEACHER),
    _small(
        name="Ark with the teacher stored first",
        layout="ark",
        content=functools.partial(_ark, teacher_first=True),
        features=_TEACHER,
    ),
)
