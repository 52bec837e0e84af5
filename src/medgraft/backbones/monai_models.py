"""The adapter to MONAI: its networks for volumes, with the flags that published weights need.

MONAI takes seconds to import, so it is loaded when one of its networks is asked for.
"""

import functools
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from medgraft.backbones.reach import demand_reachable
from medgraft.errors import BackboneError, WeightsError

__all__ = ["MONAI_NAMES", "MonaiEncoder", "build_monai", "medicalnet_file", "medicalnet_flags", "monai_sides"]

_RESNETS: Final = (10, 18, 34, 50, 101, 152, 200)
_DENSENETS: Final = (121, 169, 201, 264)
MONAI_NAMES: Final = (
    *(f"monai/resnet{depth}" for depth in _RESNETS),
    *(f"monai/densenet{depth}" for depth in _DENSENETS),
    "monai/swin_unetr",
    "monai/swin_unetr_2022",
    "monai/unet",
    "monai/vit",
    *(f"medicalnet/resnet{depth}" for depth in _RESNETS),
)
_DILATIONS: Final = {"layer3": 2, "layer4": 4}
"""Of MedicalNet's networks, which were taught to mark organs: their upper stages look further instead of halving."""
_NEIGHBOURS: Final = (
    *((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
    *((1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
)
_PATCH: Final = 16
_WAY_DOWN: Final = ("conv_0", "down_1", "down_2", "down_3", "down_4")
_VIT_SIDE: Final = 96
_HUB: Final = "TencentMedicalNet/MedicalNet-Resnet{depth}"


class MonaiEncoder(nn.Module):
    """A network of MONAI that hands on its last features alone: (B, C, D, H, W) to those of its kind.

    Args:
        name: Name of the network inside, as in published weights of whole UNETRs.
        net: Returns a list, or features and hidden states.
        pick: Which of these.
    """

    def __init__(self, name: str, net: nn.Module, pick: int) -> None:
        super().__init__()
        self.add_module(name, net)
        self.name = name
        self.pick = pick

    def forward_features(self, x: Tensor) -> Tensor:
        """The last features."""
        features: Tensor = self.get_submodule(self.name)(x)[self.pick]
        return features

    def forward(self, x: Tensor) -> Tensor:
        """The last features; a head comes with the cut."""
        return self.forward_features(x)


class MergingOf2022(nn.Module):
    """The halving of Swin UNETRs that were trained before MONAI 1.5: of eight neighbours it takes two twice, two never.

    Weights that were published then compute something else with today's.

    Args:
        dim: Channels that go in; twice as many come out.
        norm_layer: Makes the normalisation of so many channels.
        spatial_dims: 3.
    """

    def __init__(self, dim: int, norm_layer: Callable[[int], nn.Module] = nn.LayerNorm, spatial_dims: int = 3) -> None:
        super().__init__()
        if spatial_dims != 3:
            raise ValueError(f"expected spatial_dims 3, got {spatial_dims}")
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) to half the sides and twice the channels."""
        depth, height, width = (side % 2 for side in x.shape[1:4])
        if depth or height or width:
            x = nn.functional.pad(x, (0, 0, 0, width, 0, height, 0, depth))
        reduced: Tensor = self.reduction(self.norm(torch.cat([x[:, i::2, j::2, k::2] for i, j, k in _NEIGHBOURS], -1)))
        return reduced


def build_monai(name: str, args: dict[str, Any], sides: tuple[int, ...] | None) -> nn.Module:
    """The network with random weights, one input channel unless `args` says otherwise.

    Args:
        name: One of `MONAI_NAMES`.
        args: Passed on to MONAI's constructor.
        sides: (D, H, W) in voxels, for which a ViT is made; None leaves MONAI's 96.

    Raises:
        BackboneError: No such network, or MONAI refuses the arguments.
    """
    if name not in MONAI_NAMES:
        raise BackboneError(f"expected a network among {', '.join(MONAI_NAMES)}, got {name!r}.")
    kind, depth = _parts(name)
    builders: dict[str, Callable[[], nn.Module]] = {
        "resnet": lambda: (_medicalnet if name.startswith("medicalnet/") else _resnet)(depth, args),
        "densenet": lambda: _densenet(depth, args),
        "swin_unetr": lambda: _swin(args),
        "swin_unetr_2022": lambda: _swin({"downsample": MergingOf2022, **args}),
        "unet": lambda: _unet(args),
        "vit": lambda: _vit(args, sides),
    }
    try:
        return builders[kind]()
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise BackboneError(
            f"expected arguments that MONAI's {name} takes, got {args}: {reason}. See --backbone-arg."
        ) from error


def monai_sides(name: str, sides: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The sides asked for, in voxels; without any, those a ViT is made for, and None of others, which read all."""
    return (_VIT_SIDE,) * 3 if sides is None and name == "monai/vit" else sides


def _parts(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:monai|medicalnet)/(resnet|densenet)(\d+)", name)
    return (match[1], int(match[2])) if match else (name.partition("/")[2], 0)


def medicalnet_flags(depth: int) -> dict[str, Any]:
    """The flags that MedicalNet's weights of one depth were trained with.

    References:
        Chen, Ma, Zheng. Med3D: transfer learning for 3D medical image analysis. arXiv 2019.
    """
    is_a = depth in (18, 34)
    return {"shortcut_type": "A" if is_a else "B", "bias_downsample": is_a}


def _resnet(depth: int, args: dict[str, Any]) -> nn.Module:
    from monai.networks import nets

    settings = {"spatial_dims": 3, "n_input_channels": 1, "feed_forward": False, **medicalnet_flags(depth), **args}
    network: nn.Module = getattr(nets, f"resnet{depth}")(**settings)
    return network


def _medicalnet(depth: int, args: dict[str, Any]) -> nn.Module:
    """A ResNet as MedicalNet's authors trained it; MONAI's has other strides at the same names and shapes.

    References:
        Chen, Ma, Zheng. Med3D: transfer learning for 3D medical image analysis. arXiv 2019.
    """
    network = _resnet(depth, {"conv1_t_stride": 2, **args})
    for stage, dilation in _DILATIONS.items():
        for block in network.get_submodule(stage).children():
            for layer in block.modules():
                if isinstance(layer, nn.Conv3d):
                    layer.stride = (1, 1, 1)
                    if layer.kernel_size == (3, 3, 3):
                        layer.dilation = layer.padding = (dilation,) * 3
            shortcut: Any = block.downsample
            if isinstance(shortcut, functools.partial):
                plain: Any = functools.partial(shortcut.func, **{**shortcut.keywords, "stride": 1})
                block.downsample = plain
    return network


def _densenet(depth: int, args: dict[str, Any]) -> nn.Module:
    from monai.networks import nets

    network = getattr(nets, f"DenseNet{depth}")(**{"spatial_dims": 3, "in_channels": 1, "out_channels": 1, **args})
    features: nn.Module = network.features
    return features


def _swin(args: dict[str, Any]) -> nn.Module:
    from monai.networks.nets.swin_unetr import SwinTransformer

    # As in SwinUNETR with feature_size 48, whose published encoders have these settings.
    usual: dict[str, Any] = {
        "in_chans": 1,
        "embed_dim": 48,
        "window_size": (7, 7, 7),
        "patch_size": (2, 2, 2),
        "depths": (2, 2, 2, 2),
        "num_heads": (3, 6, 12, 24),
        "spatial_dims": 3,
    }
    return MonaiEncoder("swinViT", SwinTransformer(**{**usual, **args}), -1)


def _unet(args: dict[str, Any]) -> nn.Module:
    from monai.networks.nets import BasicUNet

    # The way down alone, under its names in weights of the whole network: a decoder of ours is cut with it.
    whole = BasicUNet(**{"spatial_dims": 3, "in_channels": 1, "out_channels": 1, **args})
    return nn.Sequential(OrderedDict((name, part) for name, part in whole.named_children() if name in _WAY_DOWN))


def _vit(args: dict[str, Any], sides: tuple[int, ...] | None) -> nn.Module:
    from monai.networks.nets import ViT

    settings = {"in_channels": 1, "img_size": monai_sides("monai/vit", sides), "patch_size": (_PATCH,) * 3, **args}
    return MonaiEncoder("vit", ViT(**{**settings, "classification": False}), 0)


def medicalnet_file(name: str, *, is_offline: bool) -> tuple[Path, str]:
    """The weights file of MedicalNet's network of this depth, from the local hub cache or the hub, and its source.

    Raises:
        WeightsError: There is none, or it cannot be reached.
    """
    kind, depth = _parts(name)
    if kind != "resnet":
        raise WeightsError(f"expected --weights none or PATH for {name}: no hub is known for it.")
    if not name.startswith("medicalnet/"):
        raise WeightsError(
            f"expected medicalnet/resnet{depth} for MedicalNet's weights, got {name}: its strides differ from "
            f"those they were trained with. Say --backbone medicalnet/resnet{depth}."
        )
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import ENDPOINT

    hub = _HUB.format(depth=depth)
    # There are two of each shallow network; the one trained on 23 data sets saw more.
    file = f"resnet_{depth}_23dataset.pth" if depth in (10, 18, 34, 50) else f"resnet_{depth}.pth"
    if not is_offline and not isinstance(try_to_load_from_cache(hub, file), str):
        demand_reachable(ENDPOINT)
    try:
        path = hf_hub_download(hub, file, local_files_only=is_offline)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(
            f"expected to load {file} of {hub}, got {type(error).__name__}: {reason}. "
            "Without internet, copy the weights file here and give --weights PATH."
        ) from error
    return Path(path), f"hub:{hub}"
