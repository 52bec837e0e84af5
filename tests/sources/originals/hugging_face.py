"""Vision transformers under the names of Hugging Face's library."""

import functools
from typing import Any, Final

import torch
from torch import Tensor

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
from sources.originals.value import Original, Weights, under, within

_CHANNELS: Final = 48
_HIDDEN: Final = 192
_HEADS: Final = 3
_DEPTH: Final = 2
_ARGS: Final[dict[str, Any]] = {"embed_dim": _CHANNELS, "depth": _DEPTH, "num_heads": _HEADS}


def _embeddings(draw: Draw, patch: int) -> Weights:
    weights = {
        "cls_token": draw.normal(1, 1, _CHANNELS, std=0.5),
        "position_embeddings": draw.normal(1, 17, _CHANNELS, std=0.5),
    }
    return weights | under("patch_embeddings.projection", draw.conv(_CHANNELS, 3, patch, patch, bias=True))


def _attention(draw: Draw) -> Weights:
    parts = {name: draw.linear(_CHANNELS, _CHANNELS) for name in ("query", "key", "value")}
    weights = {key: value for name, part in parts.items() for key, value in under(f"attention.{name}", part).items()}
    return weights | under("output.dense", draw.linear(_CHANNELS, _CHANNELS, gain=0.5))


def _attended(x: Tensor, w: Weights, name: str) -> Tensor:
    q, k, v = (linear(x, w, f"{name}.attention.{part}") for part in ("query", "key", "value"))
    return linear(attention(q, k, v, _HEADS), w, f"{name}.output.dense")


def _embedded(w: Weights, x: Tensor) -> Tensor:
    x = with_prefix(patches(x, w, "embeddings.patch_embeddings.projection"), w["embeddings.cls_token"])
    return x + w["embeddings.position_embeddings"]


def _vit(seed: int, *, prefix: str = "") -> Weights:
    draw = Draw(seed)
    weights = under("embeddings", _embeddings(draw, 16))
    for layer in range(_DEPTH):
        part = under("attention", _attention(draw)) | under("intermediate.dense", draw.linear(_HIDDEN, _CHANNELS))
        part |= under("output.dense", draw.linear(_CHANNELS, _HIDDEN, gain=0.5))
        part |= under("layernorm_before", draw.norm(_CHANNELS)) | under("layernorm_after", draw.norm(_CHANNELS))
        weights |= under(f"encoder.layer.{layer}", part)
    weights |= under("layernorm", draw.norm(_CHANNELS))
    if prefix:
        return {**under(prefix, weights), **under("classifier", draw.linear(10, _CHANNELS))}
    return weights | under("pooler.dense", draw.linear(_CHANNELS, _CHANNELS))


@in_double
def _vit_features(w: Weights, x: Tensor) -> Tensor:
    """All tokens after the last norm."""
    x = _embedded(w, x)
    for layer in block_names(w, "encoder.layer"):
        x = x + _attended(layer_norm(x, w, f"{layer}.layernorm_before", 1e-12), w, f"{layer}.attention")
        inner = gelu(linear(layer_norm(x, w, f"{layer}.layernorm_after", 1e-12), w, f"{layer}.intermediate.dense"))
        x = x + linear(inner, w, f"{layer}.output.dense")
    return layer_norm(x, w, "layernorm", 1e-12)


def _dinov2(seed: int, *, registers: int = 0, is_gated: bool = False, prefix: str = "") -> Weights:
    draw = Draw(seed)
    embeddings = {**_embeddings(draw, 14), "mask_token": draw.normal(1, _CHANNELS)}
    if registers:
        embeddings["register_tokens"] = draw.normal(1, registers, _CHANNELS, std=0.5)
    weights = under("embeddings", embeddings)
    for layer in range(_DEPTH):
        part = under("norm1", draw.norm(_CHANNELS)) | under("attention", _attention(draw))
        part |= under("norm2", draw.norm(_CHANNELS))
        if is_gated:
            part |= under("mlp.weights_in", draw.linear(2 * 128, _CHANNELS))
            part |= under("mlp.weights_out", draw.linear(_CHANNELS, 128, gain=0.5))
        else:
            part |= under("mlp.fc1", draw.linear(_HIDDEN, _CHANNELS))
            part |= under("mlp.fc2", draw.linear(_CHANNELS, _HIDDEN, gain=0.5))
        part |= {f"layer_scale{number}.lambda1": draw.between(0.2, 1.2, _CHANNELS) for number in (1, 2)}
        weights |= under(f"encoder.layer.{layer}", part)
    weights |= under("layernorm", draw.norm(_CHANNELS))
    return {**under(prefix, weights), **under("classifier", draw.linear(10, 2 * _CHANNELS))} if prefix else weights


@in_double
def _dinov2_features(w: Weights, x: Tensor) -> Tensor:
    """All tokens after the last norm: the class, the registers, the patches."""
    x = _embedded(w, x)
    if "embeddings.register_tokens" in w:
        x = torch.cat([x[:, :1], w["embeddings.register_tokens"].expand(len(x), -1, -1), x[:, 1:]], dim=1)
    for layer in block_names(w, "encoder.layer"):
        branch = _attended(layer_norm(x, w, f"{layer}.norm1", 1e-6), w, f"{layer}.attention")
        x = x + branch * w[f"{layer}.layer_scale1.lambda1"]
        inner = layer_norm(x, w, f"{layer}.norm2", 1e-6)
        if f"{layer}.mlp.weights_in.weight" in w:
            gate, value = linear(inner, w, f"{layer}.mlp.weights_in").chunk(2, -1)
            branch = linear(silu(gate) * value, w, f"{layer}.mlp.weights_out")
        else:
            branch = linear(gelu(linear(inner, w, f"{layer}.mlp.fc1")), w, f"{layer}.mlp.fc2")
        x = x + branch * w[f"{layer}.layer_scale2.lambda1"]
    return layer_norm(x, w, "layernorm", 1e-6)


def _small_vit(*, name: str, content: Any, features: Any) -> Original:
    return Original(
        name=name,
        network="vit_tiny_patch16_224",
        args={**_ARGS, "img_size": 64},
        layout="vit-hf",
        suffix=".safetensors",
        content=content,
        features=features,
        shape=(3, 64, 64),
    )


def _small_dinov2(*, name: str, content: Any, features: Any, network: str = "vit_small_patch14_dinov2") -> Original:
    return Original(
        name=name,
        network=network,
        args={**_ARGS, "img_size": 56},
        layout="dinov2-hf",
        suffix=".safetensors",
        content=content,
        features=features,
        shape=(3, 56, 56),
    )


HUGGING_FACE: Final = (
    _small_vit(name="Hugging Face ViT with a pooler", content=_vit, features=_vit_features),
    _small_vit(
        name="Hugging Face ViT that classifies",
        content=functools.partial(_vit, prefix="vit"),
        features=lambda content, x: _vit_features(within("vit.", content), x),
    ),
    _small_dinov2(name="Hugging Face DINOv2", content=_dinov2, features=_dinov2_features),
    _small_dinov2(
        name="Hugging Face DINOv2 that classifies",
        content=functools.partial(_dinov2, prefix="dinov2"),
        features=lambda content, x: _dinov2_features(within("dinov2.", content), x),
    ),
    _small_dinov2(
        name="Hugging Face DINOv2 with registers",
        network="vit_small_patch14_reg4_dinov2",
        content=functools.partial(_dinov2, registers=4),
        features=_dinov2_features,
    ),
    _small_dinov2(
        name="Hugging Face DINOv2 giant with SwiGLU",
        network="vit_giant_patch14_dinov2",
        content=functools.partial(_dinov2, is_gated=True),
        features=_dinov2_features,
    ),
)
