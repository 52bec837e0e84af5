"""Networks that the literature names and no library has: LeNet-5, AlexNet, CaffeNet and the CBR family."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from medgraft.errors import BackboneError

__all__ = ["CBR", "CLASSIC_NAMES", "AlexNet", "LeNet5", "build_classic"]

# Table I of LeCun 1998: which maps of S2 each of C3's sixteen reads; by how many these are.
_C3: Final = (
    ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    (
        *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
        *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    ),
    ((0, 1, 2, 3, 4, 5),),
)
_AMPLITUDE: Final = 1.7159
_SLOPE: Final = 2 / 3
_POOLS: Final = 4


def build_classic(name: str, args: dict[str, Any]) -> nn.Module:
    """The network with random weights, without a head unless `args` asks for one; `input_size` is its side in px.

    Args:
        name: One of `CLASSIC_NAMES`.
        args: Passed on to its constructor.

    Raises:
        BackboneError: No such network, or not such arguments.

    Examples:
        >>> sum(parameter.numel() for parameter in build_classic("lenet5", {}).parameters())
        60000
    """
    if name not in _CLASSIC:
        raise BackboneError(f"expected a network among {', '.join(CLASSIC_NAMES)}, got {name!r}.")
    try:
        return _CLASSIC[name](**args)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise BackboneError(
            f"expected arguments that {name} takes, got {args}: {reason}. See --backbone-arg."
        ) from error


class ScaledTanh(nn.Module):
    """1.7159 tanh(2 x / 3), whose value is ±1 at ±1."""

    def forward(self, x: Tensor) -> Tensor:
        """The squashed sum."""
        return _AMPLITUDE * torch.tanh(_SLOPE * x)


class Squashed(nn.Sequential):
    """A layer whose weighted sums are squashed."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers, squash=ScaledTanh()))


class Subsampling(Squashed):
    """The sum of 2×2 neighbours, times a trainable coefficient of its map, plus a trainable bias, squashed."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            sum=nn.AvgPool2d(2, divisor_override=1), scale=nn.Conv2d(channels, channels, 1, groups=channels)
        )


class PartialConv(nn.Module):
    """C3 of LeNet-5: sixteen 5×5 convolutions, each of some of six maps: (B, 6, H, W) to (B, 16, H - 4, W - 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(len(maps) * len(maps[0]), len(maps), 5, groups=len(maps)) for maps in _C3)
        self.squash = ScaledTanh()

    def forward(self, x: Tensor) -> Tensor:
        """The sixteen squashed maps, in the order of the table."""
        outputs = [
            conv(x[:, [number for group in maps for number in group]])
            for conv, maps in zip(self.convs, _C3, strict=True)
        ]
        out: Tensor = self.squash(torch.cat(outputs, 1))
        return out


class LeNet5(nn.Module):
    """LeNet-5 up to F6: (B, in_chans, 32, 32) to (B, 84), 60 000 trainable parameters, 1 716 up to S4.

    Its output layer, radial basis functions with fixed parameters, is what a head of yours takes the place of. A larger
    image makes C5 a map, which is averaged.

    Args:
        in_chans: Channels of the input.

    References:
        LeCun, Bottou, Bengio, Haffner. Gradient-based learning applied to document recognition. Proc. IEEE 1998.
    """

    input_size = 32

    def __init__(self, in_chans: int = 1) -> None:
        super().__init__()
        self.c1 = Squashed(conv=nn.Conv2d(in_chans, 6, 5))
        self.s2 = Subsampling(6)
        self.c3 = PartialConv()
        self.s4 = Subsampling(16)
        self.c5 = Squashed(conv=nn.Conv2d(16, 120, 5))
        self.f6 = Squashed(linear=nn.Linear(120, 84))

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps (B, 120, H / 4 - 7, W / 4 - 7)."""
        out: Tensor = self.c5(self.s4(self.c3(self.s2(self.c1(x)))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """What F6 makes of the pooled maps, (B, 84)."""
        out: Tensor = self.f6(self.forward_features(x).flatten(2).mean(2))
        return out


class AlexNet(nn.Module):
    """Five convolutions in one column: (B, in_chans, 227, 227) to (B, 256, 6, 6), or to (B, num_classes).

    With a head of 1 000 classes 62 378 344 parameters; with two groups, as its two columns had and CaffeNet has,
    60 965 224. The paper says 224 px, which its own numbers do not fit; 227 do.

    Args:
        in_chans: Channels of the input.
        num_classes: Of the head of three layers; 0 for none.
        groups: Of the second, fourth and fifth convolution.
        is_pooled_first: Whether pooling comes before normalisation (CaffeNet).

    References:
        Krizhevsky, Sutskever, Hinton. ImageNet classification with deep convolutional neural networks. NeurIPS 2012.
        Jia et al. Caffe: convolutional architecture for fast feature embedding. ACM MM 2014 (CaffeNet).
    """

    input_size = 227

    def __init__(
        self, in_chans: int = 3, num_classes: int = 0, *, groups: int = 1, is_pooled_first: bool = False
    ) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        convs = [
            nn.Conv2d(in_chans, 96, 11, 4),
            nn.Conv2d(96, 256, 5, padding=2, groups=groups),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.Conv2d(384, 384, 3, padding=1, groups=groups),
            nn.Conv2d(384, 256, 3, padding=1, groups=groups),
        ]
        for number, conv in enumerate(convs, 1):
            layers[f"conv{number}"], layers[f"relu{number}"] = conv, nn.ReLU()
            if number in (1, 2):
                # torch divides alpha by the size, as Caffe does and the paper does not.
                norm = nn.LocalResponseNorm(5, 1e-4) if is_pooled_first else nn.LocalResponseNorm(5, 5e-4, k=2.0)
                ends = [(f"pool{number}", nn.MaxPool2d(3, 2)), (f"norm{number}", norm)]
                layers.update(ends if is_pooled_first else reversed(ends))
        layers["pool5"] = nn.MaxPool2d(3, 2)
        self.features = nn.Sequential(layers)
        self.classifier = _three_layers(num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps before the head."""
        out: Tensor = self.features(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or maps where there is no head."""
        out: Tensor = self.classifier(self.forward_features(x))
        return out


def _three_layers(num_classes: int) -> nn.Module:
    """The head of AlexNet; of another than its own input size the maps are averaged to 6×6."""
    return nn.Sequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(6),
            flatten=nn.Flatten(),
            fc6=nn.Linear(256 * 36, 4096),
            relu6=nn.ReLU(),
            drop6=nn.Dropout(),
            fc7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(),
            drop7=nn.Dropout(),
            fc8=nn.Linear(4096, num_classes),
        )
    )


class CBR(nn.Module):
    """Convolution, batch normalisation and ReLU, four times followed by max-pooling: (B, in_chans, H, W) to features.

    Every convolution has stride 1, every pooling a window of 3×3 and stride 2. The paper does not say how borders are
    padded: here maps keep their size, so that a cut's stride is a power of two.

    Args:
        kernel: Side of the convolutions.
        channels: Of every layer; a fifth is not pooled.
        in_chans: Channels of the input.
        num_classes: Of the linear head; 0 for none.

    References:
        Raghu, Zhang, Kleinberg, Bengio. Transfusion: understanding transfer learning for medical imaging. NeurIPS 2019.
    """

    input_size = 224

    def __init__(self, *, kernel: int, channels: Sequence[int], in_chans: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(zip((in_chans, *channels), channels, strict=False), 1):
            layers: OrderedDict[str, nn.Module] = OrderedDict(
                conv=nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False),
                bn=nn.BatchNorm2d(after),
                relu=nn.ReLU(),
            )
            if number <= _POOLS:
                layers["pool"] = nn.MaxPool2d(3, 2, 1)
            blocks[f"cbr{number}"] = nn.Sequential(layers)
        self.features = nn.Sequential(blocks)
        self.fc = nn.Linear(channels[-1], num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps before global average pooling."""
        out: Tensor = self.features(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or pooled features where there is no head."""
        out: Tensor = self.fc(self.forward_features(x).flatten(2).mean(2))
        return out


_CLASSIC: Final[dict[str, Callable[..., nn.Module]]] = {
    "lenet5": LeNet5,
    "alexnet": AlexNet,
    "caffenet": partial(AlexNet, groups=2, is_pooled_first=True),
    "cbr_large_t": partial(CBR, kernel=7, channels=(32, 64, 128, 256, 512)),
    "cbr_large_w": partial(CBR, kernel=7, channels=(64, 128, 256, 512)),
    "cbr_small": partial(CBR, kernel=7, channels=(32, 64, 128, 256)),
    "cbr_tiny": partial(CBR, kernel=5, channels=(64, 128, 256, 512)),
}
CLASSIC_NAMES: Final = tuple(_CLASSIC)
"""Networks of this module, by name."""
