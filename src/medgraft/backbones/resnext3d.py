"""ResNeXt-101 for volumes and videos, in the key names of the published Kinetics weights."""

from collections import OrderedDict

from torch import Tensor, nn

__all__ = ["ResNeXt3D", "resnext3d_101"]

_EXPANSION = 2


class Bottleneck(nn.Module):
    """1×1×1, grouped 3×3×3 and 1×1×1 convolution around a shortcut."""

    def __init__(self, in_channels: int, planes: int, stride: int, groups: int) -> None:
        super().__init__()
        out_channels = planes * _EXPANSION
        self.conv1 = nn.Conv3d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = (
            nn.Sequential(nn.Conv3d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm3d(out_channels))
            if stride > 1 or in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) to (B, 2 × planes, D / stride, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return out


class ResNeXt3D(nn.Module):
    """Stem and four stages: (B, 3, D, H, W) to (B, 2 048, D / 16, H / 32, W / 32).

    Args:
        blocks: Number of blocks per stage.
        groups: Number of groups of the grouped convolutions.
    """

    def __init__(self, blocks: tuple[int, int, int, int], groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        channels = 64
        for stage, count in enumerate(blocks):
            planes, stride = 128 * 2**stage, 1 if stage == 0 else 2
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(count):
                layers[str(block)] = Bottleneck(channels, planes, stride if block == 0 else 1, groups)
                channels = planes * _EXPANSION
            setattr(self, f"layer{stage + 1}", nn.Sequential(layers))

    def forward_features(self, x: Tensor) -> Tensor:
        """Features before any head."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (B, 2 048)."""
        return self.forward_features(x).flatten(2).mean(2)


def resnext3d_101() -> nn.Module:
    """101 layers with 32 groups, 47.5 M parameters without a head.

    References:
        Hara, Kataoka, Satoh. Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet? CVPR 2018.
        Xie et al. Aggregated residual transformations for deep neural networks. CVPR 2017.

    Examples:
        >>> sum(parameter.numel() for parameter in resnext3d_101().parameters())
        47521216
    """
    return ResNeXt3D((3, 4, 23, 3), groups=32)
