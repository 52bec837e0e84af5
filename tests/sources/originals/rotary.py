"""Vision transformers with rotary positions: DINOv3, and EVA-02 as EVA-X trains it on chest films.

References:
    Siméoni et al. DINOv3. arXiv 2025.
    Fang et al. EVA-02: a visual representation for neon genesis. Image and Vision Computing 2024.
    Yao et al. EVA-X: a foundation model for general chest X-ray analysis. npj Digital Medicine 2025.
"""

import functools
import math
from typing import Any, Final

import torch
from torch import Tensor

from sources.originals.draw import Draw
from sources.originals.layers import (
    attend,
    block_names,
    gelu,
    in_double,
    layer_norm,
    linear,
    merged,
    patches,
    silu,
    split,
    with_prefix,
)
from sources.originals.value import Original, Weights, under, within

_GRID: Final = 4
_DEPTH: Final = 2
_DINO_CHANNELS: Final = 64
_DINO_HEADS: Final = 2
_EVA_CHANNELS: Final = 48
_EVA_HEADS: Final = 3
_EVA_HIDDEN: Final = 128  # channels × 4 × 2 / 3


def _rotated(x: Tensor, angles: Tensor, partners: Tensor, signs: Tensor) -> Tensor:
    """The patches' channels (B, heads, N, D) turned by `angles` (patches, D); tokens before them stay.

    Args:
        angles: In radians.
        partners: Index of the channel that each channel is turned with (D).
        signs: −1 for the first of a pair, 1 for the second (D).
    """
    first = x.shape[-2] - len(angles)
    patch = x[..., first:, :]
    turned = patch * angles.cos() + patch[..., partners] * signs * angles.sin()
    return torch.cat([x[..., :first, :], turned], dim=-2)


def _dinov3(seed: int, *, has_bias: bool) -> Weights:
    """The published state: three biases in a row, of which that of the keys is masked away."""
    draw, channels = Draw(seed), _DINO_CHANNELS
    weights = {
        "cls_token": draw.normal(1, 1, channels, std=0.5),
        "storage_tokens": draw.normal(1, 4, channels, std=0.5),
        "mask_token": draw.normal(1, channels),
    }
    weights |= under("patch_embed.proj", draw.conv(channels, 3, 16, 16, bias=True))
    quarter = channels // _DINO_HEADS // 4
    weights["rope_embed.periods"] = 100 ** (torch.arange(quarter) * 2 / (channels // _DINO_HEADS / 2))
    mask = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(channels)
    for block in range(_DEPTH):
        joint = draw.linear(3 * channels, channels)
        joint = {**joint, "bias": joint["bias"] * has_bias, "bias_mask": mask}
        part = under("norm1", draw.norm(channels)) | under("attn.qkv", joint)
        part |= under("attn.proj", draw.linear(channels, channels, gain=0.5)) | under("norm2", draw.norm(channels))
        part |= under("mlp.fc1", draw.linear(4 * channels, channels))
        part |= under("mlp.fc2", draw.linear(channels, 4 * channels, gain=0.5))
        part |= {f"ls{number}.gamma": draw.between(0.2, 1.2, channels) for number in (1, 2)}
        weights |= under(f"blocks.{block}", part)
    return weights | under("norm", draw.norm(channels))


@in_double
def _dinov3_features(w: Weights, x: Tensor) -> Tensor:
    """All tokens after the last norm: the class, the storage, the patches; norms have an epsilon of 1e-5."""
    x = with_prefix(patches(x, w, "patch_embed.proj"), w["cls_token"], w["storage_tokens"])
    half = _DINO_CHANNELS // _DINO_HEADS // 2
    place = (torch.arange(_GRID).double() + 0.5) / _GRID * 2 - 1
    rows, columns = place.repeat_interleave(_GRID), place.repeat(_GRID)
    periods = w["rope_embed.periods"]
    angles = 2 * math.pi * torch.cat([rows[:, None] / periods, columns[:, None] / periods], dim=1).repeat(1, 2)
    partners = torch.arange(2 * half).roll(half)
    signs = torch.tensor([-1.0, 1.0]).double().repeat_interleave(half)
    for block in block_names(w, "blocks"):
        bias = w[f"{block}.attn.qkv.bias"] * w[f"{block}.attn.qkv.bias_mask"]
        joint = layer_norm(x, w, f"{block}.norm1", 1e-5) @ w[f"{block}.attn.qkv.weight"].T + bias
        q, k, v = (split(part, _DINO_HEADS) for part in joint.chunk(3, -1))
        q, k = (_rotated(part, angles, partners, signs) for part in (q, k))
        x = x + linear(merged(attend(q, k, v)), w, f"{block}.attn.proj") * w[f"{block}.ls1.gamma"]
        inner = gelu(linear(layer_norm(x, w, f"{block}.norm2", 1e-5), w, f"{block}.mlp.fc1"))
        x = x + linear(inner, w, f"{block}.mlp.fc2") * w[f"{block}.ls2.gamma"]
    return layer_norm(x, w, "norm", 1e-5)


def _frequencies() -> Tensor:
    """Angles of EVA's patches (patches, D): rows, then columns, each frequency for a pair of neighbours."""
    half = _EVA_CHANNELS // _EVA_HEADS // 2
    speeds = 10000 ** -(torch.arange(0, half, 2).double() / half)
    place = torch.arange(_GRID).double()[:, None] * speeds.repeat_interleave(2)
    return torch.cat([place.repeat_interleave(_GRID, 0), place.repeat(_GRID, 1)], dim=1)


def _eva(seed: int, *, is_base: bool = False) -> dict[str, Any]:
    """A pretrained EVA-X with its mask and its target's head; the base has a norm inside and three projections."""
    draw, channels = Draw(seed), _EVA_CHANNELS
    angles = _frequencies().float()
    weights = {
        "cls_token": draw.normal(1, 1, channels, std=0.5),
        "mask_token": draw.normal(1, 1, channels),
        "pos_embed": draw.normal(1, 1 + _GRID**2, channels, std=0.5),
    }
    # The network and each of its blocks name the same table.
    rope = under("rope", {"freqs_cos": angles.cos(), "freqs_sin": angles.sin()})
    weights |= rope | under("patch_embed.proj", draw.conv(channels, 3, 16, 16, bias=True))
    for block in range(_DEPTH):
        part = under("norm1", draw.norm(channels)) | under("norm2", draw.norm(channels))
        part |= under("attn", rope) | {f"attn.{name}_bias": draw.normal(channels, std=0.2) for name in ("q", "v")}
        if is_base:
            for name in ("q", "k", "v"):
                part |= under(f"attn.{name}_proj", draw.linear(channels, channels, bias=False))
            part |= under("mlp.ffn_ln", draw.norm(_EVA_HIDDEN))
            part |= under("mlp.w1", draw.linear(_EVA_HIDDEN, channels))
            part |= under("mlp.w2", draw.linear(_EVA_HIDDEN, channels))
        else:
            part |= under("attn.qkv", draw.linear(3 * channels, channels, bias=False))
            part |= under("mlp.w12", draw.linear(2 * _EVA_HIDDEN, channels))
        part |= under("attn.proj", draw.linear(channels, channels, gain=0.5))
        part |= under("mlp.w3", draw.linear(channels, _EVA_HIDDEN, gain=0.5))
        weights |= under(f"blocks.{block}", part)
    weights |= under("norm", draw.norm(channels)) | under("lm_head", draw.linear(32, channels))
    return {"model": weights, "optimizer": draw.optimizer(), "epoch": 900, "scaler": {}}


@in_double
def _eva_features(w: Weights, x: Tensor, *, is_pooled: bool = False) -> Tensor:
    """All tokens before any last norm, or their mean over patches after it: it is moved there for classifying."""
    x = with_prefix(patches(x, w, "patch_embed.proj"), w["cls_token"]) + w["pos_embed"]
    angles = _frequencies()
    dim = angles.shape[1]
    partners = torch.arange(dim).view(-1, 2).flip(1).flatten()
    signs = torch.tensor([-1.0, 1.0]).double().repeat(dim // 2)
    for block in block_names(w, "blocks"):
        inner = layer_norm(x, w, f"{block}.norm1", 1e-6)
        if f"{block}.attn.qkv.weight" in w:
            q, k, v = linear(inner, w, f"{block}.attn.qkv").chunk(3, -1)
        else:
            q, k, v = (linear(inner, w, f"{block}.attn.{name}_proj") for name in ("q", "k", "v"))
        parts = (q + w[f"{block}.attn.q_bias"], k, v + w[f"{block}.attn.v_bias"])
        q, k, v = (split(part, _EVA_HEADS) for part in parts)
        q, k = (_rotated(part, angles, partners, signs) for part in (q, k))
        x = x + linear(merged(attend(q, k, v)), w, f"{block}.attn.proj")
        inner = layer_norm(x, w, f"{block}.norm2", 1e-6)
        if f"{block}.mlp.w12.weight" in w:
            gate, value = linear(inner, w, f"{block}.mlp.w12").chunk(2, -1)
        else:
            gate, value = linear(inner, w, f"{block}.mlp.w1"), linear(inner, w, f"{block}.mlp.w2")
        inner = silu(gate) * value
        inner = layer_norm(inner, w, f"{block}.mlp.ffn_ln", 1e-6) if f"{block}.mlp.ffn_ln.weight" in w else inner
        x = x + linear(inner, w, f"{block}.mlp.w3")
    return layer_norm(x[:, 1:].mean(1), w, "norm", 1e-6) if is_pooled else x


def _of_eva(content: Any, x: Tensor, *, is_pooled: bool = False) -> Tensor:
    return _eva_features(within("", content["model"]), x, is_pooled=is_pooled)


_DINO_ARGS: Final[dict[str, Any]] = {"embed_dim": _DINO_CHANNELS, "depth": _DEPTH, "num_heads": _DINO_HEADS}
_EVA_ARGS: Final[dict[str, Any]] = {
    "embed_dim": _EVA_CHANNELS,
    "depth": _DEPTH,
    "num_heads": _EVA_HEADS,
    "patch_size": 16,
    "img_size": 64,
    "ref_feat_shape": (_GRID, _GRID),
}


def _small(
    *, name: str, network: str, layout: str, args: dict[str, Any], content: Any, features: Any, **others: Any
) -> Original:
    return Original(
        name=name,
        network=network,
        args=args,
        layout=layout,
        content=content,
        features=features,
        shape=(3, 64, 64),
        **others,
    )


_DINOV3: Final[dict[str, Any]] = {"layout": "dinov3", "args": _DINO_ARGS, "features": _dinov3_features}
_TINY: Final[dict[str, Any]] = {
    "layout": "eva-x",
    "network": "eva02_tiny_patch14_224",
    "args": _EVA_ARGS,
    "suffix": ".pt",
}
_BASE: Final[dict[str, Any]] = {**_TINY, "network": "eva02_base_patch14_224"}

ROTARY: Final = (
    _small(
        name="DINOv3, published backbone whose biases of queries and values are zero",
        network="vit_small_patch16_dinov3",
        content=functools.partial(_dinov3, has_bias=False),
        **_DINOV3,
    ),
    _small(
        name="DINOv3, published backbone with biases of queries and values",
        network="vit_small_patch16_dinov3_qkvb",
        content=functools.partial(_dinov3, has_bias=True),
        **_DINOV3,
    ),
    _small(name="EVA-X tiny", content=_eva, features=_of_eva, **_TINY),
    _small(
        name="EVA-X tiny, pooled and normed",
        content=_eva,
        features=functools.partial(_of_eva, is_pooled=True),
        where="forward",
        **_TINY,
    ),
    _small(name="EVA-X base", content=functools.partial(_eva, is_base=True), features=_of_eva, **_BASE),
)
