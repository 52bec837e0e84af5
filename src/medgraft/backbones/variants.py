"""ResNets of timm with the paddings and strides of other frameworks, under the names timm gives their tensors.

Published weights fit both, by name and by shape, and mean one of them: in the other, features lie half a pixel off
behind every halving.
"""

from collections.abc import Callable
from typing import Any, Final

from timm.layers import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from timm.models.resnet import Bottleneck
from torch import nn

from medgraft.backbones.timm_models import build_timm

__all__ = ["VARIANTS", "build_variant"]

_KERAS_EPS: Final = 1.001e-5


def build_variant(name: str, args: dict[str, Any], size: int | None) -> nn.Module:
    """A variant with random weights.

    Args:
        name: A key of `VARIANTS`.
        args: Passed on to timm.
        size: Input side in px.

    Raises:
        BackboneError: timm refuses the arguments.
    """
    architecture, changes = VARIANTS[name]
    network = build_timm(architecture, args, size)
    for change in changes:
        change(network)
    return network


def _pad_convolutions(network: nn.Module) -> None:
    """Pad strided convolutions as TensorFlow does: by the size of the input, the odd pixel at the end."""
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            sizes = (module.in_channels, module.out_channels, module.kernel_size)
            padded = Conv2dSame(*sizes, module.stride, bias=module.bias is not None, device="meta")
            padded.weight, padded.bias = module.weight, module.bias
            network.set_submodule(path, padded)


def _pad_pool(network: nn.Module) -> None:
    """Pad the pool behind the stem as TensorFlow does."""
    network.set_submodule("maxpool", MaxPool2dSame(kernel_size=3, stride=2))


def _stride_first(network: nn.Module) -> None:
    """Halve in the first 1 × 1 convolution of a bottleneck, as the paper has it, instead of in its 3 × 3."""
    for module in network.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)


def _keras_eps(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = _KERAS_EPS


VARIANTS: Final[dict[str, tuple[str, tuple[Callable[[nn.Module], None], ...]]]] = {
    # Grill et al. 2020 (BYOL): every convolution and the pool.
    "resnet50_same": ("resnet50", (_pad_convolutions, _pad_pool)),
    # Chen et al. 2020 (SimCLR): its convolutions pad both sides alike, its pool does not.
    "resnet50_same_pool": ("resnet50", (_pad_pool,)),
    # Keras's ResNet-50, from which RadImageNet's weights come (He et al. 2016, as published).
    "resnet50_v1": ("resnet50", (_stride_first, _keras_eps)),
}
"""timm's architecture, and what is changed in it, by name."""
