"""Networks for images that read volumes: the weights stay, their layers gain an axis.

Three ways, all with the names of the network for images: every kernel repeated along the slices and divided by their
number (I3D), every layer's kernels shared out over the three planes (ACS), or every slice by itself (2.5D), in which
case the head has to look across the slices.
"""

import copy
from collections.abc import Callable
from typing import Any, Final

import torch
from timm.layers import (
    BatchNormAct2d,
    Conv2dSame,
    EcaModule,
    EffectiveSEModule,
    GroupNorm,
    LayerNorm2d,
    SEModule,
)
from timm.layers.padding import get_same_padding
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torch.nn import functional as F

from medgraft.backbones.spec import LIFTS, Lift
from medgraft.errors import BackboneError, ConfigError

__all__ = ["lift_network"]

_CHECK_SIDE: Final = 96
_TOLERANCE: Final = 1e-3


def lift_network(network: nn.Module, kind: Lift, *, name: str = "the network") -> nn.Module:
    """`network`, which reads (B, C, H, W), as one that reads (B, C, D, H, W), with the same weights and names.

    A copy whose slices are read one by one is compared with the network first, so that a layer which looks at axes of
    its own is refused instead of being fooled.

    Args:
        network: A network of convolutions; changed in place unless `kind` is ``none``.
        kind: A key of `medgraft.backbones.spec.LIFTS`.
        name: For errors.

    Raises:
        BackboneError: It has layers that cannot gain an axis (transformers, mostly).
        ConfigError: There is no such way.

    References:
        Carreira, Zisserman. Quo vadis, action recognition? CVPR 2017 (I3D).
        Yang et al. Reinventing 2D convolutions for 3D images. IEEE JBHI 2021 (ACS).
    """
    if kind not in LIFTS:
        raise ConfigError(f"expected a lift among {', '.join(LIFTS)}, got {kind!r}.")
    if kind == "none":
        return network
    trial = copy.deepcopy(network).eval()
    _check_slices(trial, _lifted(copy.deepcopy(trial), "slices", name), name)
    return _lifted(network, kind, name)


class FlatConv(nn.Conv2d):
    """A convolution of images whose kernels are laid into volumes; `is_same` pads as TensorFlow does."""

    is_same: bool = False


class SliceConv(FlatConv):
    """A convolution of images on every slice: (B, C, D, H, W) to (B, C', D, H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolved slices."""
        return _convolve(self, x, self.weight.unsqueeze(2), self.bias, self.groups)


class ACSConv(FlatConv):
    """A third of the kernels each in the axial, coronal and sagittal plane: (B, C, D, H, W) to (B, C', D', H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolved volume; strides hold for all three axes."""
        if self.kernel_size == (1, 1):
            return _convolve(self, x, self.weight.unsqueeze(2), self.bias, self.groups, depth_stride=self.stride[0])
        parts, start = [], 0
        units = self.groups if self.groups > 1 else self.weight.shape[0]
        outputs = self.weight.shape[0] // units
        inputs = x.shape[1] // units if self.groups > 1 else 0
        for axis, count in enumerate((units - 2 * (units // 3), units // 3, units // 3)):
            if count:
                part = slice(start * outputs, (start + count) * outputs)
                seen = x[:, start * inputs : (start + count) * inputs] if self.groups > 1 else x
                bias = self.bias[part] if self.bias is not None else None
                groups = count if self.groups > 1 else 1
                kernel = self.weight[part].unsqueeze(axis + 2)
                parts.append(_convolve(self, seen, kernel, bias, groups, depth_stride=self.stride[0], flat=axis))
            start += count
        return torch.cat(parts, 1)


def _convolve(
    layer: FlatConv,
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    groups: int,
    *,
    depth_stride: int = 1,
    flat: int = 0,
) -> Tensor:
    """A convolution with a kernel that is one voxel thick along the spatial axis `flat`.

    Args:
        layer: Tells stride, padding and dilation of the axes of images.
        x: (B, C, D, H, W).
        kernel: (C', C / groups, *three sides), one voxel thick along `flat`.
        bias: (C',), or None.
        groups: Groups of channels.
        depth_stride: Stride along the slices, voxels.
        flat: 0 (slices), 1 (rows) or 2 (columns).
    """
    stride = (depth_stride, *layer.stride)
    # Strings were refused when the layer was lifted.
    dilation, padding = list(layer.dilation), [int(side) for side in layer.padding]
    dilation.insert(flat, 1)
    padding.insert(flat, 0)
    if layer.is_same:
        x = _pad_same(x, kernel.shape[2:], stride, dilation)
    return F.conv3d(x, kernel, bias, stride, padding, dilation, groups)


def _pad_same(x: Tensor, kernel: Any, stride: Any, dilation: Any, value: float = 0.0) -> Tensor:
    """A volume padded as TensorFlow does it: a convolution leaves its side / stride, rounded up.

    Args:
        x: (B, C, D, H, W).
        kernel: Sides of the kernel along D, H and W, voxels.
        stride: Along D, H and W, voxels.
        dilation: Along D, H and W.
        value: What lies around.
    """
    sizes: list[int] = []
    for side, k, s, d in reversed(list(zip(x.shape[2:], kernel, stride, dilation, strict=True))):
        extra = int(get_same_padding(side, k, s, d))
        sizes += [extra // 2, extra - extra // 2]
    return F.pad(x, sizes, value=value)


class SameConv3d(nn.Conv3d):
    """A convolution that pads as TensorFlow does, by the size of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolved volume."""
        x = _pad_same(x, self.kernel_size, self.stride, self.dilation)
        return F.conv3d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class NormAct3d(nn.BatchNorm3d):
    """Batch normalisation with the dropout and activation that timm puts into it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised and activated."""
        out: Tensor = self.act(self.drop(super().forward(x)))  # type: ignore[operator]  # modules, set when lifted
        return out


class ShortAvgPool3d(nn.AvgPool3d):
    """A pool that, where the volume is thinner than its kernel, takes what there is: few slices are usual."""

    def forward(self, x: Tensor) -> Tensor:
        """The pooled volume."""
        kernel = _at_most(self.kernel_size, x, self.padding)
        return F.avg_pool3d(
            x, kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override
        )


class ShortMaxPool3d(nn.MaxPool3d):
    """A max pool that, where the volume is thinner than its kernel, takes what there is."""

    def forward(self, x: Tensor) -> Tensor:
        """The pooled volume."""
        kernel = _at_most(self.kernel_size, x, self.padding)
        return F.max_pool3d(x, kernel, self.stride, self.padding, self.dilation, self.ceil_mode)


def _at_most(kernel: Any, x: Tensor, padding: Any) -> list[int]:
    """Sides of a kernel, none longer than the padded volume.

    Args:
        kernel: Wished sides along D, H and W, voxels.
        x: (B, C, D, H, W).
        padding: On either side along D, H and W, voxels.
    """
    return [min(k, side + 2 * pad) for k, side, pad in zip(kernel, x.shape[2:], padding, strict=True)]


class SamePool(nn.Module):
    """A pool that pads as TensorFlow does.

    Args:
        pool: A pool of three axes, without padding of its own.
        value: What lies around the volume.
    """

    def __init__(self, pool: nn.MaxPool3d | nn.AvgPool3d, value: float) -> None:
        super().__init__()
        self.pool = pool
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """The pooled volume."""
        out: Tensor = self.pool(_pad_same(x, self.pool.kernel_size, self.pool.stride, (1, 1, 1), self.value))
        return out


class Folded(nn.Module):
    """A layer of images that is the same at every place, on volumes whose slices are laid out as rows or as a batch.

    Args:
        layer: Keeps the shape of what it gets.
        is_by_slice: Every slice by itself (as a batch), or all together (as rows).
    """

    def __init__(self, layer: nn.Module, *, is_by_slice: bool) -> None:
        super().__init__()
        self.layer = layer
        self.is_by_slice = is_by_slice

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to the same shape."""
        if not self.is_by_slice:
            rows: Tensor = self.layer(x.flatten(2, 3)).reshape(x.shape)
            return rows
        slices = x.transpose(1, 2)
        done: Tensor = self.layer(slices.flatten(0, 1)).reshape(slices.shape).transpose(1, 2)
        return done


def _conv(layer: nn.Conv2d, kind: Lift) -> nn.Module:
    is_same = isinstance(layer, Conv2dSame)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise BackboneError(f"expected convolutions padded with zeros, got {layer.padding_mode} {layer.padding!r}")
    channels = (layer.in_channels, layer.out_channels)
    rest: dict[str, Any] = {"groups": layer.groups, "bias": layer.bias is not None, "device": "meta"}
    if kind != "i3d":
        flat: Any = SliceConv if kind == "slices" else ACSConv
        sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        new: Any = flat(*channels, *sizes, **rest)
        new.weight, new.bias, new.is_same = layer.weight, layer.bias, is_same
        return _in_mode(new, layer)
    # A kernel that is no square looks along one axis alone.
    is_square = layer.kernel_size[0] == layer.kernel_size[1]
    thick = layer.kernel_size[0] if is_square else 1
    sizes3 = [
        (first, *both)
        for first, both in (
            (thick, layer.kernel_size),
            (layer.stride[0], layer.stride),
            (layer.padding[0] if is_square else 0, layer.padding),
            (layer.dilation[0], layer.dilation),
        )
    ]
    solid: Any = SameConv3d if is_same else nn.Conv3d
    new = solid(*channels, *sizes3, **rest)
    kernel = layer.weight.detach().unsqueeze(2).repeat(1, 1, thick, 1, 1) / thick
    new.weight, new.bias = nn.Parameter(kernel, layer.weight.requires_grad), layer.bias
    return _in_mode(new, layer)


def _in_mode(new: nn.Module, old: nn.Module) -> nn.Module:
    """`new` in training or evaluation, as `old` was."""
    return new.train(old.training)


def _norm(layer: nn.BatchNorm2d, kind: Lift) -> nn.Module:
    del kind
    is_with_act = isinstance(layer, BatchNormAct2d)
    new = (NormAct3d if is_with_act else nn.BatchNorm3d)(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
    )
    new._parameters, new._buffers = layer._parameters, layer._buffers
    if is_with_act:
        new.drop, new.act = layer.drop, layer.act
    return _in_mode(new, layer)


def _pool(layer: Any, kind: Lift) -> nn.Module:
    is_max = isinstance(layer, nn.MaxPool2d)
    is_flat = kind == "slices"
    sizes: dict[str, Any] = {}
    for name in ("kernel_size", "stride", "padding"):
        both = getattr(layer, name)
        both = both if isinstance(both, tuple) else (both, both)
        sizes[name] = ((0 if name == "padding" else 1) if is_flat else both[0], *both)
    if is_max:
        dilation = layer.dilation if isinstance(layer.dilation, tuple) else (layer.dilation,) * 2
        pool: Any = ShortMaxPool3d(**sizes, dilation=(dilation[0], *dilation), ceil_mode=layer.ceil_mode)
    else:
        pool = ShortAvgPool3d(
            **sizes, ceil_mode=layer.ceil_mode, count_include_pad=layer.count_include_pad,
            divisor_override=layer.divisor_override,
        )  # fmt: skip
    if isinstance(layer, (MaxPool2dSame, AvgPool2dSame)):
        return SamePool(pool, float("-inf") if is_max else 0.0)
    return _in_mode(pool, layer)


def _global_pool(layer: nn.AdaptiveAvgPool2d, kind: Lift) -> nn.Module:
    del kind
    if layer.output_size not in (1, (1, 1)):
        raise BackboneError(f"expected pooling to one position, got {layer.output_size}")
    return nn.AdaptiveAvgPool3d(1)


def _dropout(layer: nn.Dropout2d, kind: Lift) -> nn.Module:
    del kind
    return nn.Dropout3d(layer.p, layer.inplace)


def _fold(layer: nn.Module, kind: Lift) -> nn.Module:
    return Folded(layer, is_by_slice=kind == "slices")


_LAYERS: Final[dict[type[nn.Module], Callable[[Any, Lift], nn.Module]]] = {
    nn.Conv2d: _conv,
    Conv2dSame: _conv,
    nn.BatchNorm2d: _norm,
    BatchNormAct2d: _norm,
    nn.MaxPool2d: _pool,
    MaxPool2dSame: _pool,
    nn.AvgPool2d: _pool,
    AvgPool2dSame: _pool,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.Dropout2d: _dropout,
    SEModule: _fold,
    SqueezeExcite: _fold,
    EffectiveSEModule: _fold,
    EcaModule: _fold,
    LayerNorm2d: _fold,
    GroupNorm: _fold,
}


def _lifted(network: nn.Module, kind: Lift, name: str) -> nn.Module:
    """`network` with every layer replaced that looks at axes of images; changed in place.

    Args:
        network: Reads (B, C, H, W).
        kind: A key of `medgraft.backbones.spec.LIFTS` other than ``none``.
        name: For errors.
    """
    done: dict[int, nn.Module] = {}

    def descend(parent: nn.Module, path: str) -> None:
        for child_name, child in list(parent._modules.items()):
            where = f"{path}{child_name}"
            convert = _LAYERS.get(type(child)) if child is not None else None
            if child is not None and convert is None:
                descend(child, f"{where}.")
            elif child is not None and convert is not None:
                try:
                    if id(child) not in done:
                        done[id(child)] = convert(child, kind)
                except BackboneError as error:
                    raise BackboneError(f"{name} cannot read volumes: {where}: {error}. {_OTHERS}") from error
                parent._modules[child_name] = done[id(child)]

    descend(network, "")
    return network


_OTHERS: Final = "Use a network of convolutions (resnet18, densenet121 …) or one for volumes (monai/resnet10 …)."


def _check_slices(images: nn.Module, volumes: nn.Module, name: str) -> None:
    """Refuse a network whose slices, read one by one, give other features than images do.

    Args:
        images: Reads (B, C, H, W).
        volumes: The same network lifted by slices.
        name: For the error.
    """
    channels = next((m.in_channels for m in images.modules() if isinstance(m, nn.Conv2d)), 3)
    device = next((p.device for p in images.parameters()), torch.device("cpu"))
    entry = "forward_features" if callable(getattr(images, "forward_features", None)) else "forward"
    side = torch.Generator().manual_seed(0)
    example = torch.rand(1, channels, _CHECK_SIDE, _CHECK_SIDE, generator=side).to(device)
    try:
        with torch.no_grad():
            features = getattr(images, entry)(example)
            both = getattr(volumes, entry)(example.unsqueeze(2).expand(-1, -1, 2, -1, -1))
        shapes = tuple(features.shape), tuple(both.shape)
        first = both[:, :, 0] if both.ndim == features.ndim + 1 else both
        is_same = first.shape == features.shape and torch.allclose(first, features, rtol=_TOLERANCE, atol=_TOLERANCE)
        reason = f"features {shapes[0]} of an image against {shapes[1]} of two equal slices"
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError, AttributeError) as error:
        is_same, reason = False, (str(error).splitlines() or [type(error).__name__])[0][:200]
    if not is_same:
        raise BackboneError(f"{name} cannot read volumes: a layer counts on images ({reason}). {_OTHERS}")
