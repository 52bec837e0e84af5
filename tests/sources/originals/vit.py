"""Vision transformers under the names of timm, DINO and MAE: random weights, and their features.

References:
    Dosovitskiy et al. An image is worth 16×16 words: transformers for image recognition at scale. ICLR 2021.
    Darcet, Oquab, Mairal, Bojanowski. Vision transformers need registers. ICLR 2024.
"""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from sources.originals.draw import Draw
from sources.originals.layers import (
    attention,
    block_names,
    gelu,
    in_double,
    layer_norm,
    linear,
    patches,
    silu,
    with_prefix,
)
from sources.originals.value import Weights, under

_LAST = 0.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a transformer whose weights are drawn.

    Attributes:
        depth: Number of blocks.
        channels: Of a token.
        hidden: Channels inside the MLP.
        patch: Side in px.
        grid: Patches along a side of the image.
        registers: Number of register tokens.
        is_scaled: Whether branches have a layer scale.
        is_gated: Whether the MLP is a SwiGLU.
        into: Channels of the input.
    """

    depth: int = 2
    channels: int = 48
    hidden: int = 192
    patch: int = 16
    grid: int = 4
    registers: int = 0
    is_scaled: bool = False
    is_gated: bool = False
    into: int = 3


SMALL = Size()
HEADS = 3


def block_weights(draw: Draw, size: Size) -> Weights:
    """One block."""
    channels, hidden = size.channels, size.hidden
    weights = under("norm1", draw.norm(channels)) | under("attn.qkv", draw.linear(3 * channels, channels))
    weights |= under("attn.proj", draw.linear(channels, channels, gain=_LAST)) | under("norm2", draw.norm(channels))
    if size.is_gated:
        weights |= under("mlp.w12", draw.linear(2 * hidden, channels))
        weights |= under("mlp.w3", draw.linear(channels, hidden, gain=_LAST))
    else:
        weights |= under("mlp.fc1", draw.linear(hidden, channels))
        weights |= under("mlp.fc2", draw.linear(channels, hidden, gain=_LAST))
    if size.is_scaled:
        weights |= {f"ls{number}.gamma": draw.between(0.2, 1.2, channels) for number in (1, 2)}
    return weights


def vit_weights(draw: Draw, size: Size = SMALL) -> Weights:
    """Everything before the head."""
    weights = {
        "cls_token": draw.normal(1, 1, size.channels, std=0.5),
        "pos_embed": draw.normal(1, 1 + size.grid**2, size.channels, std=0.5),
    }
    if size.registers:
        weights["register_tokens"] = draw.normal(1, size.registers, size.channels, std=0.5)
    weights |= under("patch_embed.proj", draw.conv(size.channels, size.into, size.patch, size.patch, bias=True))
    for block in range(size.depth):
        weights |= under(f"blocks.{block}", block_weights(draw, size))
    return weights | under("norm", draw.norm(size.channels))


@in_double
def vit_features(w: Weights, x: Tensor, heads: int = HEADS, grid: int = 0) -> Tensor:
    """All tokens (B, N, C) after the last norm: the class, the registers, the patches.

    Args:
        heads: Of the attention.
        grid: Patches along a side of the image, where the file's positions are for another number.
    """
    place = _resized(w["pos_embed"], grid) if grid else w["pos_embed"]
    x = with_prefix(patches(x, w, "patch_embed.proj"), w["cls_token"]) + place
    if "register_tokens" in w:
        x = torch.cat([x[:, :1], w["register_tokens"].expand(len(x), -1, -1), x[:, 1:]], dim=1)
    for block in block_names(w, "blocks"):
        q, k, v = linear(layer_norm(x, w, f"{block}.norm1", 1e-6), w, f"{block}.attn.qkv").chunk(3, -1)
        branch = linear(attention(q, k, v, heads), w, f"{block}.attn.proj")
        x = x + branch * w.get(f"{block}.ls1.gamma", torch.ones(1))
        branch = _mlp(layer_norm(x, w, f"{block}.norm2", 1e-6), w, f"{block}.mlp")
        x = x + branch * w.get(f"{block}.ls2.gamma", torch.ones(1))
    return layer_norm(x, w, "norm", 1e-6)


def _mlp(x: Tensor, w: Weights, name: str) -> Tensor:
    if f"{name}.w12.weight" in w:
        gate, value = linear(x, w, f"{name}.w12").chunk(2, -1)
        return linear(silu(gate) * value, w, f"{name}.w3")
    return linear(gelu(linear(x, w, f"{name}.fc1")), w, f"{name}.fc2")


def _resized(place: Tensor, grid: int) -> Tensor:
    """Positions for another number of patches, as timm documents: bicubic with antialiasing, the class apart."""
    old = round((place.shape[1] - 1) ** 0.5)
    image = place[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image.float(), size=(grid, grid), mode="bicubic", antialias=True).double()
    return torch.cat([place[:, :1], image.flatten(2).transpose(1, 2)], dim=1)
