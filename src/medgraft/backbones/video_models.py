"""The adapter to torchvision's networks for videos, whose weights of Kinetics serve volumes."""

from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from medgraft.errors import BackboneError, WeightsError

__all__ = ["VIDEO_NAMES", "build_video", "kinetics_file", "video_facts"]

_MODELS: Final = {
    # sides (None: any), mean, std
    "r3d_18": (None, (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
    "mc3_18": (None, (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
    "r2plus1d_18": (None, (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
    "mvit_v1_b": ((16, 224, 224), (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
    "mvit_v2_s": ((16, 224, 224), (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
    "swin3d_t": (None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "swin3d_s": (None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "swin3d_b": (None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
VIDEO_NAMES: Final = tuple(f"torchvision/{name}" for name in _MODELS)


def build_video(name: str, args: dict[str, Any], sides: tuple[int, ...] | None = None) -> nn.Module:
    """The network with random weights; its head stays and is cut off later.

    Args:
        name: One of `VIDEO_NAMES`.
        args: Passed on to torchvision.
        sides: (D, H, W) in voxels; an MViT is made for one size.

    Raises:
        BackboneError: No such network, or torchvision refuses the arguments, or it is made for other sides.
    """
    if name not in VIDEO_NAMES:
        raise BackboneError(f"expected a network among {', '.join(VIDEO_NAMES)}, got {name!r}.")
    short = _short(name)
    own = _MODELS[short][0]
    if own is not None and sides not in (None, own):
        raise BackboneError(f"{name} is made for inputs of {own}, got {sides}. Leave --size out.")
    try:
        network: nn.Module = get_model(short, weights=None, **args)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise BackboneError(
            f"expected arguments that torchvision's {short} takes, got {args}: {reason}. See --backbone-arg."
        ) from error
    return network


def video_facts(name: str) -> tuple[tuple[int, int, int] | None, tuple[float, ...], tuple[float, ...]]:
    """(D, H, W) where the network is made for one size, mean and std of its published weights."""
    return _MODELS[_short(name)]


def kinetics_file(name: str, *, is_offline: bool) -> tuple[Path, str]:
    """The weights file of torchvision's published network, from the local cache or its server, and its source.

    Raises:
        WeightsError: It cannot be reached, or `is_offline` and it is not cached.
    """
    url = get_model_weights(_short(name)).DEFAULT.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not file.is_file():
        if is_offline:
            raise WeightsError(
                f"expected {file.name} in {file.parent} because --offline is set, got nothing. "
                "Give --weights PATH, or run once online."
            )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"expected to load {file.name}, got {type(error).__name__}: {error}. "
                "Without internet, copy the weights file here and give --weights PATH."
            ) from error
    return file, f"hub:torchvision/{file.name}"


def _short(name: str) -> str:
    return name.removeprefix("torchvision/")
