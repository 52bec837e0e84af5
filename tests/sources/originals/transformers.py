"""Vision transformers as the authors of self-supervised methods save them, under the names of timm's ViT."""

import argparse
import dataclasses
import functools
from typing import Any, Final

from torch import Tensor

from sources.originals.contrastive import dino_head, perceptron
from sources.originals.draw import Draw
from sources.originals.value import Original, Weights, stack, turned, under, within
from sources.originals.vit import SMALL, block_weights, vit_features, vit_weights

_ARGS: Final[dict[str, Any]] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 64}
_SIDE: Final = (3, 64, 64)


def _timm(seed: int) -> Weights:
    draw = Draw(seed)
    return {**vit_weights(draw), **under("head", draw.linear(10, SMALL.channels))}


def _moco_v3(seed: int, *, momentum_first: bool = False) -> dict[str, Any]:
    draw = Draw(seed)

    def encoder() -> Weights:
        head = perceptron(draw, SMALL.channels, 64, 64, 16, ends_in_norm=True)
        return {**vit_weights(draw), **under("head", head)}

    parts = {"base_encoder": encoder(), "momentum_encoder": encoder()}
    parts = turned(parts) if momentum_first else parts
    parts["predictor"] = perceptron(draw, 16, 64, 16, ends_in_norm=True)
    state = {key: value for name, part in parts.items() for key, value in under(f"module.{name}", part).items()}
    return {"epoch": 300, "arch": "vit_small", "state_dict": state, "optimizer": draw.optimizer(), "scaler": {}}


def _dino(seed: int, *, teacher_first: bool = False) -> dict[str, Any]:
    draw = Draw(seed)

    def network() -> Weights:
        return {**under("backbone", vit_weights(draw)), **under("head", dino_head(draw, SMALL.channels))}

    # Without batch norms only the student is wrapped for training on several devices.
    networks = {"student": under("module", network()), "teacher": network()}
    return {
        **(turned(networks) if teacher_first else networks),
        "optimizer": draw.optimizer(),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", patch_size=16, lr=0.0005),
        "dino_loss": {"center": draw.normal(1, 32)},
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0},
    }


_DINOV2: Final = dataclasses.replace(SMALL, patch=14, is_scaled=True)
_REGISTERS: Final = dataclasses.replace(_DINOV2, registers=4)
# timm's giant: hidden channels are 2.66667 times the channels, of which SwiGLU has two sets.
_GIANT: Final = dataclasses.replace(_DINOV2, hidden=128, is_gated=True)


def _dinov2(seed: int, size: Any = _DINOV2) -> Weights:
    draw = Draw(seed)
    return {"mask_token": draw.normal(1, size.channels), **vit_weights(draw, size)}


def _dinov2_teacher(seed: int) -> dict[str, Any]:
    draw = Draw(seed)
    backbone = {"mask_token": draw.normal(1, _DINOV2.channels), **vit_weights(draw, _DINOV2)}
    heads = {
        f"{name}.{key}": value for name in ("dino_head", "ibot_head") for key, value in dino_head(draw, 48).items()
    }
    return {"teacher": {**under("backbone", backbone), **heads}}


def _mae(seed: int, *, is_whole: bool, grid: int = 4) -> dict[str, Any]:
    draw = Draw(seed)
    weights = vit_weights(draw, dataclasses.replace(SMALL, grid=grid))
    if not is_whole:
        return {"model": weights}
    decoder = dataclasses.replace(SMALL, channels=32, hidden=128)
    weights |= {"mask_token": draw.normal(1, 1, 32), "decoder_pos_embed": draw.normal(1, 1 + grid**2, 32)}
    weights |= under("decoder_embed", draw.linear(32, SMALL.channels))
    weights |= under("decoder_blocks", stack(block_weights(draw, decoder), block_weights(draw, decoder)))
    weights |= under("decoder_norm", draw.norm(32)) | under("decoder_pred", draw.linear(3 * 16**2, 32))
    settings = argparse.Namespace(model="mae_vit_base_patch16", mask_ratio=0.75, norm_pix_loss=True)
    return {"model": weights, "optimizer": draw.optimizer(), "epoch": 799, "scaler": {}, "args": settings}


def _of(content: Any, x: Tensor, *, entry: str = "", prefix: str = "", grid: int = 0) -> Tensor:
    return vit_features(within(prefix, content[entry] if entry else content), x, grid=grid)


def _tiny(*, name: str, layout: str, content: Any, features: Any, suffix: str = ".pth") -> Original:
    return Original(
        name=name,
        network="vit_tiny_patch16_224",
        args=_ARGS,
        layout=layout,
        suffix=suffix,
        content=content,
        features=features,
        shape=_SIDE,
    )


def _fourteen(*, name: str, content: Any, features: Any, network: str = "vit_small_patch14_dinov2") -> Original:
    return Original(
        name=name,
        network=network,
        args={**_ARGS, "img_size": 56},
        layout="dinov2",
        content=content,
        features=features,
        shape=(3, 56, 56),
    )


_BASE: Final = functools.partial(_of, entry="state_dict", prefix="module.base_encoder.")
_TEACHER: Final = functools.partial(_of, entry="teacher", prefix="backbone.")
_MODEL: Final = functools.partial(_of, entry="model")

TRANSFORMERS: Final = (
    _tiny(name="timm ViT, bare, safetensors", layout="network", suffix=".safetensors", content=_timm, features=_of),
    _tiny(name="MoCo v3 ViT", layout="moco-v3", content=_moco_v3, features=_BASE),
    _tiny(
        name="MoCo v3 ViT with momentum_encoder stored first",
        layout="moco-v3",
        content=functools.partial(_moco_v3, momentum_first=True),
        features=_BASE,
    ),
    _tiny(name="DINO ViT", layout="dino", content=_dino, features=_TEACHER),
    _tiny(
        name="DINO ViT with the teacher stored first",
        layout="dino",
        content=functools.partial(_dino, teacher_first=True),
        features=_TEACHER,
    ),
    _fourteen(name="DINOv2, published backbone", content=_dinov2, features=_of),
    _fourteen(
        name="DINOv2 with registers, published backbone",
        network="vit_small_patch14_reg4_dinov2",
        content=functools.partial(_dinov2, size=_REGISTERS),
        features=_of,
    ),
    _fourteen(
        name="DINOv2 giant with SwiGLU, published backbone",
        network="vit_giant_patch14_dinov2",
        content=functools.partial(_dinov2, size=_GIANT),
        features=_of,
    ),
    _fourteen(name="DINOv2, teacher of a training", content=_dinov2_teacher, features=_TEACHER),
    _tiny(
        name="MAE, published encoder",
        layout="mae",
        content=functools.partial(_mae, is_whole=False),
        features=_MODEL,
    ),
    _tiny(
        name="MAE, checkpoint of its training with the decoder",
        layout="mae",
        content=functools.partial(_mae, is_whole=True),
        features=_MODEL,
    ),
    _tiny(
        name="MAE of another input size (positions resized as timm does)",
        layout="mae",
        content=functools.partial(_mae, is_whole=False, grid=6),
        features=functools.partial(_MODEL, grid=4),
    ),
)
