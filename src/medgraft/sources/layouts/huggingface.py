"""Vision transformers and ResNets by the names of the library transformers, under those of timm."""

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

__all__ = ["from_hf_resnet", "from_hf_vit"]

_VIT: Final = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (r"^encoder\.layer\.(\d+)\.(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (r"^encoder\.layer\.(\d+)\.(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.", r"blocks.\1.mlp.fc1."),
    (r"^encoder\.layer\.(\d+)\.(?:output\.dense|mlp\.fc2|mlp\.weights_out)\.", r"blocks.\1.mlp.fc2."),
    (r"^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^layernorm\.", "norm."),
)
_QKV: Final = re.compile(r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)")
_RESNET: Final = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.", r"layer\1.\2.downsample.0."),
    (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.", r"layer\1.\2.downsample.1."),
)
_STEP: Final = re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.(convolution|normalization)\.(.+)")


def _renamed(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def from_hf_vit(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ViT, DeiT or DINOv2 of transformers by timm's names; queries, keys and values become one layer.

    Args:
        state: Names such as ``encoder.layer.0.attention.attention.query.weight``.
        own: Tensors of the network.
    """
    split: dict[str, dict[str, Tensor]] = {}
    converted = {}
    for name, value in state.items():
        if match := _QKV.fullmatch(name):
            split.setdefault(f"blocks.{match[1]}.attn.qkv.{match[3]}", {})[match[2]] = value
        else:
            converted[_renamed(name, _VIT)] = value
    for name, parts in split.items():
        if len(parts) == 3:
            converted[name] = torch.cat([parts[part] for part in ("query", "key", "value")])
    table, wanted = converted.get("pos_embed"), own.get("pos_embed")
    if table is not None and wanted is not None and table.shape[1] == wanted.shape[1] + 1 and "cls_token" in converted:
        # timm's DINOv2 with registers adds the class token's position to the token itself.
        converted["cls_token"] = converted["cls_token"] + table[:, :1]
        converted["pos_embed"] = table[:, 1:]
    return converted


def from_hf_resnet(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet of transformers by timm's names.

    Args:
        state: Names such as ``encoder.stages.0.layers.0.layer.0.convolution.weight``.
        own: Unused: the names say all.
    """
    del own
    converted = {}
    for name, value in state.items():
        if match := _STEP.fullmatch(name):
            kind = "conv" if match[4] == "convolution" else "bn"
            name = f"layer{int(match[1]) + 1}.{match[2]}.{kind}{int(match[3]) + 1}.{match[5]}"
        else:
            name = re.sub(r"^layer(\d+)", lambda stage: f"layer{int(stage[1]) + 1}", _renamed(name, _RESNET))
        converted[name] = value
    return converted
