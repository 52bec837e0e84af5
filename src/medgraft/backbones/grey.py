"""Networks for colour images that read one grey channel: the three kernels of each filter become one."""

import dataclasses
from typing import Any, Final

import torch
from torch import Tensor, nn

from medgraft.backbones.evaluating import evaluating
from medgraft.backbones.spec import Backbone
from medgraft.errors import BackboneError

__all__ = ["folded"]

_SIDE: Final = 64
_TOLERANCE: Final = 1e-4


def folded(backbone: Backbone) -> Backbone:
    """The network as it sees a replicated grey channel, with a third of its first layer's multiplications.

    Mean and deviation go into the kernels and a bias: w = Σ w_c / std_c, b = -Σ w_c mean_c / std_c. Equal to
    replication but at the border, where what lies around an image is black instead of the mean colour. (Summing the
    kernels alone would be another network wherever mean or deviation differ between the channels.)

    Args:
        backbone: For images of three channels; its network is changed.

    Raises:
        BackboneError: Its first layer is no convolution of all three channels at once, or the channels are changed
            before it, or every image has its own mean and deviation.
    """
    name = backbone.spec.name
    if backbone.in_channels == 1:
        return backbone
    path, stem = _stem(backbone)
    if backbone.in_channels != 3 or backbone.normalisation != "weights" or stem is None:
        raise BackboneError(
            f"expected a network whose first layer is a convolution of three channels for --input fold, got {name}. "
            "Leave --input out: a grey channel is then replicated."
        )
    before = _first_output(backbone, stem, _normalised(backbone))
    network = backbone.network
    network.set_submodule(path, _grey(stem, backbone.mean, backbone.std))
    try:
        after = _first_output(backbone, network.get_submodule(path), _image())
        height, width = (slice(side // 4, side - side // 4) for side in before.shape[2:])
        difference = float((before - after)[..., height, width].abs().max())
    except (IndexError, RuntimeError):
        difference = float("inf")
    if difference > _TOLERANCE * max(1.0, float(before.abs().max())):
        raise BackboneError(
            f"expected a network that hands its channels on as they are for --input fold, got {name}, which changes "
            "them first. Leave --input out: a grey channel is then replicated."
        )
    return dataclasses.replace(backbone, in_channels=1, mean=(0.0,), std=(1.0,))


def _stem(backbone: Backbone) -> tuple[str, nn.Conv2d | None]:
    """Path of the first convolution, and the layer where it takes all three channels at once."""
    for path, module in backbone.network.named_modules():
        if isinstance(module, nn.Conv2d):
            is_plain = module.groups == 1 and module.in_channels == 3 and module.padding_mode == "zeros"
            return path, module if is_plain else None
    return "", None


def _grey(stem: nn.Conv2d, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Conv2d:
    """A layer like `stem` for one channel.

    Args:
        stem: For three channels.
        mean: Per channel on the scale 0 to 1.
        std: Per channel on the scale 0 to 1.
    """
    shape = (3, 1, 1)
    centre, scale = (torch.tensor(values, dtype=torch.float64).view(shape) for values in (mean, std))
    kernel = stem.weight.detach().double() / scale
    bias = -(kernel * centre).sum((1, 2, 3))
    if stem.bias is not None:
        bias = bias + stem.bias.detach().double()
    settings: dict[str, Any] = {"stride": stem.stride, "padding": stem.padding, "dilation": stem.dilation}
    grey = type(stem)(1, stem.out_channels, stem.kernel_size, **settings, bias=True)  # type: ignore[arg-type]
    with torch.no_grad():
        grey.weight.copy_(kernel.sum(1, keepdim=True))
        grey.get_parameter("bias").copy_(bias)
    return grey.train(stem.training)


def _image() -> Tensor:
    return torch.rand((1, 1, _SIDE, _SIDE), generator=torch.Generator().manual_seed(0))


def _normalised(backbone: Backbone) -> Tensor:
    """A grey image, replicated and normalised."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    return (_image().expand(-1, 3, -1, -1) - mean) / std


def _first_output(backbone: Backbone, stem: nn.Module, image: Tensor) -> Tensor:
    """What the first layer hands on when the network sees an image.

    Args:
        backbone: Runs in evaluation mode.
        stem: Its first layer.
        image: (1, C, H, W).
    """
    seen: list[Tensor] = []
    network = backbone.network
    side = backbone.sides[0] if backbone.is_fixed and backbone.sides else _SIDE
    image = nn.functional.interpolate(image, size=(side, side), mode="nearest")
    handle = stem.register_forward_hook(lambda *args: seen.append(args[2]))
    try:
        with evaluating(network):
            network(image)
    finally:
        handle.remove()
    return seen[0]
