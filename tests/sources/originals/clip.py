"""Image towers of CLIP, as OpenAI and open_clip save them with their text towers.

References:
    Radford et al. Learning transferable visual models from natural language supervision. ICML 2021.
"""

import functools
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from sources.originals.convnext import ARGS, DIMS, TIMM, convnext_features, convnext_weights
from sources.originals.draw import Draw
from sources.originals.layers import (
    attention,
    batch_norm,
    block_names,
    conv,
    gelu,
    in_double,
    layer_norm,
    linear,
    patches,
    quick_gelu,
    with_prefix,
)
from sources.originals.value import Original, Weights, under, within
from sources.originals.vit import vit_features, vit_weights

_CHANNELS: Final = 128
_HEADS: Final = 2  # 64 channels a head, as OpenAI counts them
_TEXT: Final = 64
_EMBEDDED: Final = 32


def _blocks(draw: Draw, channels: int, depth: int = 2) -> Weights:
    weights: Weights = {}
    for block in range(depth):
        part = under("ln_1", draw.norm(channels))
        joint = draw.linear(3 * channels, channels)
        part |= {"attn.in_proj_weight": joint["weight"], "attn.in_proj_bias": joint["bias"]}
        part |= under("attn.out_proj", draw.linear(channels, channels, gain=0.5)) | under("ln_2", draw.norm(channels))
        part |= under("mlp.c_fc", draw.linear(4 * channels, channels))
        part |= under("mlp.c_proj", draw.linear(channels, 4 * channels, gain=0.5))
        weights |= under(f"resblocks.{block}", part)
    return weights


def _text(draw: Draw) -> Weights:
    weights = {
        "positional_embedding": draw.normal(77, _TEXT, std=0.5),
        "text_projection": draw.normal(_TEXT, _EMBEDDED, std=0.1),
        "logit_scale": torch.tensor(4.6),
        "token_embedding.weight": draw.normal(50, _TEXT),
    }
    return weights | under("transformer", _blocks(draw, _TEXT)) | under("ln_final", draw.norm(_TEXT))


def _vit_tower(draw: Draw, patch: int = 32, grid: int = 2) -> Weights:
    weights = {
        "class_embedding": draw.normal(_CHANNELS, std=0.5),
        "positional_embedding": draw.normal(1 + grid**2, _CHANNELS, std=0.5),
        "proj": draw.normal(_CHANNELS, _EMBEDDED, std=0.1),
    }
    weights |= under("conv1", draw.conv(_CHANNELS, 3, patch, patch)) | under("ln_pre", draw.norm(_CHANNELS))
    weights |= under("transformer", _blocks(draw, _CHANNELS))
    return weights | under("ln_post", draw.norm(_CHANNELS))


@in_double
def _vit_tokens(w: Weights, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """All tokens after the last norm, before the projection."""
    x = with_prefix(patches(x, w, "conv1"), w["class_embedding"].view(1, 1, -1)) + w["positional_embedding"]
    x = layer_norm(x, w, "ln_pre", 1e-5)
    for block in block_names(w, "transformer.resblocks"):
        inner = layer_norm(x, w, f"{block}.ln_1", 1e-5)
        joint = inner @ w[f"{block}.attn.in_proj_weight"].T + w[f"{block}.attn.in_proj_bias"]
        q, k, v = joint.chunk(3, -1)
        x = x + linear(attention(q, k, v, _HEADS), w, f"{block}.attn.out_proj")
        inner = activation(linear(layer_norm(x, w, f"{block}.ln_2", 1e-5), w, f"{block}.mlp.c_fc"))
        x = x + linear(inner, w, f"{block}.mlp.c_proj")
    return layer_norm(x, w, "ln_post", 1e-5)


def _openai(seed: int, *, is_archive: bool = True) -> Weights:
    """The state of OpenAI's archive: half precision, and three whole numbers that are no weights."""
    draw = Draw(seed)
    weights = {**_text(draw), **under("visual", _vit_tower(draw))}
    if not is_archive:
        return weights
    numbers = {"input_resolution": 64, "context_length": 77, "vocab_size": 50}
    halves = {key: value.half() for key, value in weights.items()}
    return {**halves, **{name: torch.tensor(number) for name, number in numbers.items()}}


def _resnet_tower(draw: Draw, base: int = 16) -> Weights:
    half = base // 2
    weights: Weights = {}
    for number, (out, into) in enumerate(((half, 3), (half, half), (base, half)), start=1):
        weights |= under(f"conv{number}", draw.conv(out, into, 3, 3, gain=1.6))
        weights |= under(f"bn{number}", draw.batch_norm(out))
    into = base
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner, out = base * 2**stage, 4 * base * 2**stage
        for block in range(blocks):
            part: Weights = {}
            for number, (wide, seen, side) in enumerate(
                ((inner, into, 1), (inner, inner, 3), (out, inner, 1)), start=1
            ):
                part |= under(f"conv{number}", draw.conv(wide, seen, side, side, gain=1.4 if number < 3 else 0.2))
                part |= under(f"bn{number}", draw.batch_norm(wide))
            if block == 0:
                part |= under("downsample.0", draw.conv(out, into, 1, 1)) | under("downsample.1", draw.batch_norm(out))
            weights |= under(f"layer{stage + 1}.{block}", part)
            into = out
    pool = {"positional_embedding": draw.normal(5, into, std=0.1)}
    for name in ("k_proj", "q_proj", "v_proj"):
        pool |= under(name, draw.linear(into, into))
    return weights | under("attnpool", pool | under("c_proj", draw.linear(_EMBEDDED, into)))


@in_double
def _resnet_map(w: Weights, x: Tensor) -> Tensor:
    """The last feature map, before the attention pool; what strides is an average pool."""
    for number in (1, 2, 3):
        stem = conv(x, w, f"conv{number}", 2 if number == 1 else 1, 1)
        x = batch_norm(stem, w, f"bn{number}").relu()
    x = F.avg_pool2d(x, 2)
    for stage in range(1, 5):
        for number, block in enumerate(block_names(w, f"layer{stage}")):
            stride = 2 if number == 0 and stage > 1 else 1
            out = batch_norm(conv(x, w, f"{block}.conv1"), w, f"{block}.bn1").relu()
            out = batch_norm(conv(out, w, f"{block}.conv2", padding=1), w, f"{block}.bn2").relu()
            out = F.avg_pool2d(out, stride) if stride > 1 else out
            out = batch_norm(conv(out, w, f"{block}.conv3"), w, f"{block}.bn3")
            if number == 0:
                x = F.avg_pool2d(x, stride) if stride > 1 else x
                x = batch_norm(conv(x, w, f"{block}.downsample.0"), w, f"{block}.downsample.1")
            x = (out + x).relu()
    return x


def _openai_resnet(seed: int) -> Weights:
    draw = Draw(seed)
    return {**_text(draw), **under("visual", _resnet_tower(draw))}


def _biomed(seed: int) -> Weights:
    """open_clip around timm's ViT and a text transformer of Hugging Face."""
    draw = Draw(seed)
    trunk, head = under("trunk", vit_weights(draw)), under("head.proj", draw.linear(_EMBEDDED, 48, bias=False))
    text = under("transformer.embeddings.word_embeddings", {"weight": draw.normal(50, _TEXT)})
    for name in ("query", "key", "value"):
        part = draw.linear(_TEXT, _TEXT)
        text |= under(f"transformer.encoder.layer.0.attention.self.{name}", part)
    text |= under("proj.0", draw.linear(_TEXT, _TEXT, bias=False))
    scale = {"logit_scale": torch.tensor(4.6)}
    return {**scale, **under("visual", {**trunk, **head}), **under("text", text)}


def _convnext(seed: int) -> dict[str, Any]:
    """open_clip around timm's ConvNeXt, in a checkpoint of its training on several devices."""
    draw = Draw(seed)
    trunk, into = convnext_weights(draw, TIMM), DIMS[-1]
    head = under("mlp.fc1", draw.linear(80, into, bias=False)) | under(
        "mlp.fc2", draw.linear(_EMBEDDED, 80, bias=False)
    )
    visual = under("visual", {**under("trunk", trunk), **under("head", head)})
    return {
        "epoch": 5,
        "name": "convnext",
        "state_dict": under("module", {**_text(draw), **visual}),
        "optimizer": draw.optimizer(),
    }


_TOWER: Final[dict[str, Any]] = {"embed_dim": _CHANNELS, "depth": 2, "num_heads": _HEADS, "img_size": 64}

CLIPS: Final = (
    Original(
        name="OpenAI CLIP ViT in half precision",
        network="vit_base_patch32_clip_quickgelu_224",
        args=_TOWER,
        layout="openai-clip",
        suffix=".pt",
        content=_openai,
        features=lambda content, x: _vit_tokens(within("visual.", content), x, quick_gelu),
        shape=(3, 64, 64),
    ),
    Original(
        name="open_clip ViT of its own (LAION), with the exact GELU",
        network="vit_base_patch32_clip_224",
        args=_TOWER,
        layout="openai-clip",
        suffix=".safetensors",
        content=functools.partial(_openai, is_archive=False),
        features=lambda content, x: _vit_tokens(within("visual.", content), x, gelu),
        shape=(3, 64, 64),
    ),
    Original(
        name="OpenAI CLIP ResNet",
        network="resnet50_clip",
        args={"width_factor": 0.25, "img_size": 64},
        layout="openai-clip",
        suffix=".pt",
        content=_openai_resnet,
        features=lambda content, x: _resnet_map(within("visual.", content), x),
        shape=(3, 64, 64),
    ),
    Original(
        name="open_clip around timm's ViT (BiomedCLIP)",
        network="vit_tiny_patch16_224",
        args={"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 64},
        layout="open-clip",
        suffix=".safetensors",
        content=_biomed,
        features=lambda content, x: vit_features(within("visual.trunk.", content), x),
        shape=(3, 64, 64),
    ),
    Original(
        name="open_clip around timm's ConvNeXt, checkpoint of its training",
        network="convnext_tiny",
        args=ARGS,
        layout="open-clip",
        suffix=".pt",
        content=_convnext,
        features=lambda content, x: convnext_features(within("module.visual.trunk.", content["state_dict"]), x, TIMM),
        shape=(3, 64, 64),
    ),
)
