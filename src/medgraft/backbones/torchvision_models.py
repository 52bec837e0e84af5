"""The adapter to torchvision: its networks for images and for videos, and the weights published with them."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import MNASNet, get_model, get_model_weights, list_models
from torchvision.models.vision_transformer import interpolate_embeddings

from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.reach import demand_reachable
from medgraft.errors import BackboneError, WeightsError

__all__ = [
    "IMAGE_NAMES",
    "VIDEO_NAMES",
    "ImageFacts",
    "build_image",
    "build_video",
    "image_converter",
    "image_facts",
    "licence_of",
    "published_file",
    "video_facts",
    "without_dropped",
]

_VIDEOS: Final = {
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
VIDEO_NAMES: Final = tuple(f"torchvision/{name}" for name in _VIDEOS)
"""Networks for videos, by name."""
IMAGE_NAMES: Final = tuple(f"torchvision/{name}" for name in list_models(module=torchvision.models))
"""Networks for images, by name."""

# Published weights of both were trained on -1 to 1, which `transform_input` makes of ImageNet's mean and std; it stands
# in the network's own forward pass, so that a truncated one has it, too. An auxiliary head makes a tuple of the output.
_INCEPTION: Final = {"aux_logits": False, "transform_input": True, "init_weights": True}
_SETTINGS: Final[dict[str, dict[str, Any]]] = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}
_DROPPED: Final = {
    "googlenet": ("aux1.", "aux2."),
    "inception_v3": ("AuxLogits.",),
    "squeezenet1_0": ("classifier.",),
    "squeezenet1_1": ("classifier.",),
}
"""What published files hold and `build_image` leaves out: auxiliary heads, and heads that are convolutions."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What the published weights of a network for images were judged on.

    Args:
        side: Of the square input, px.
        is_fixed: Whether the network is built for one size.
        mean: Per input channel.
        std: Per input channel.
    """

    side: int
    is_fixed: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


class CurrentMNASNet(MNASNet):  # type: ignore[misc]  # torchvision is untyped
    """An MNASNet that takes any dictionary for one of its current form; torchvision's refuses one without a version."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, {"version": 2, **local_metadata}, *rest)


def build_image(name: str, args: dict[str, Any], side: int) -> nn.Module:
    """The network with random weights; its head stays and is cut off later.

    GoogLeNet and Inception v3 have no auxiliary heads and turn their input into -1 to 1; SqueezeNets end at their
    pooled features, because their head is a convolution, behind which a cut could lie.

    Args:
        name: One of `IMAGE_NAMES`.
        args: Passed on to torchvision.
        side: Of the input, px; a ViT and a MaxViT are made for one.

    Raises:
        BackboneError: No such network, or torchvision refuses the arguments or the size.

    References:
        Szegedy et al. Going deeper with convolutions. CVPR 2015 (GoogLeNet, Inception v1).
        Szegedy et al. Rethinking the Inception architecture for computer vision. CVPR 2016 (Inception v3).
        Iandola et al. SqueezeNet: AlexNet-level accuracy with 50x fewer parameters. arXiv 2016.
        Krizhevsky. One weird trick for parallelizing convolutional neural networks. arXiv 2014 (alexnet).
    """
    if name not in IMAGE_NAMES:
        raise BackboneError(f"expected a network among {', '.join(IMAGE_NAMES)}, got {name!r}.")
    short = _short(name)
    sized: dict[str, Any] = {}
    if short.startswith("vit_"):
        sized = {"image_size": side}
    elif short.startswith("maxvit_"):
        sized = {"input_size": (side, side)}
    network = _made(short, {**_SETTINGS.get(short, {}), **sized, **args})
    if short.startswith("squeezenet"):
        network.classifier = nn.AdaptiveAvgPool2d(1)
    if isinstance(network, MNASNet):
        network.__class__ = CurrentMNASNet
    return network


def image_facts(name: str) -> ImageFacts:
    """Input size, mean and std of the weights that torchvision publishes for a network.

    Examples:
        >>> image_facts("torchvision/inception_v3").side
        299
    """
    short = _short(name)
    transforms = get_model_weights(short).DEFAULT.transforms()
    return ImageFacts(
        side=transforms.crop_size[0],
        is_fixed=short.startswith(("vit_", "maxvit_")),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def image_converter(name: str, side: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]] | None:
    """What makes a published file fit: older names of DenseNet, positions of a ViT at another size; else None.

    Args:
        name: One of `IMAGE_NAMES`.
        side: Of the input that the network was built for, px.
    """
    short = _short(name)
    if short.startswith("densenet"):
        return _densenet_names
    if short.startswith("vit_"):
        patch = int(short.rpartition("_")[2])
        return lambda state: dict(interpolate_embeddings(side, patch, state))
    return None


def without_dropped(name: str, report: LoadReport) -> LoadReport:
    """`report` with what is left out on purpose named so: auxiliary heads and SqueezeNet's.

    Args:
        name: A network; of others than `IMAGE_NAMES` nothing is left out.
        report: What loading a file did.
    """
    prefixes = _DROPPED.get(_short(name), ())
    dropped = tuple(key for key in report.unexpected if prefixes and key.startswith(prefixes))
    rest = tuple(key for key in report.unexpected if key not in dropped)
    return dataclasses.replace(report, unexpected=rest, dropped=(*report.dropped, *dropped))


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
    own = _VIDEOS[_short(name)][0]
    if own is not None and sides not in (None, own):
        raise BackboneError(f"{name} is made for inputs of {own}, got {sides}. Leave --size out.")
    return _made(_short(name), args)


def video_facts(name: str) -> tuple[tuple[int, int, int] | None, tuple[float, ...], tuple[float, ...]]:
    """(D, H, W) where the network is made for one size, mean and std of its published weights."""
    return _VIDEOS[_short(name)]


def published_file(name: str, *, is_offline: bool) -> tuple[Path, str]:
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
        demand_reachable(url)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"expected to load {file.name}, got {type(error).__name__}: {error}. "
                "Without internet, copy the weights file here and give --weights PATH."
            ) from error
    return file, f"hub:torchvision/{file.name}"


def licence_of(name: str) -> str:
    """What torchvision says of the licence of its published weights: those of SWAG have one, the others none of theirs.

    Examples:
        >>> licence_of("torchvision/vit_h_14")
        'CC-BY-NC-4.0 (https://github.com/facebookresearch/SWAG/blob/main/LICENSE)'
    """
    url = get_model_weights(_short(name)).DEFAULT.meta.get("license")
    # Of SWAG torchvision's README names the licence, its table of weights the address alone.
    return f"CC-BY-NC-4.0 ({url})" if url else "BSD-3-Clause (code); weights: terms of their data, see torchvision"


def _made(short: str, args: dict[str, Any]) -> nn.Module:
    try:
        network: nn.Module = get_model(short, weights=None, **args)
    except (TypeError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise BackboneError(
            f"expected arguments that torchvision's {short} takes, got {args}: {reason}. See --backbone-arg."
        ) from error
    return network


def _densenet_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys such as ``denselayer1.norm.1.weight``, which published files still have, as ``denselayer1.norm1.weight``."""
    return {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)\.", r"\1\2.", key): t for key, t in state.items()}


def _short(name: str) -> str:
    return name.removeprefix("torchvision/")
