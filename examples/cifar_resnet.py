"""CIFAR ResNet-20 and ResNet-56: an example of one's own network for `--backbone examples/cifar_resnet.py:resnet20`.

The network of section 4.2 in He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016,
with parameter-free shortcuts (option A). Its module names fit the checkpoints that circulate for it.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut that subsamples and pads with zero channels."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.subsample = nn.AvgPool2d(1, stride)
        self.padding = (channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        shortcut = self.subsample(x)
        if self.padding:
            # Along the channels, however many axes follow them: the network can be lifted to volumes.
            shortcut = F.pad(shortcut.transpose(1, -1), (self.padding, self.padding)).transpose(1, -1)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels."""

    input_size = 32

    def __init__(self, blocks_per_stage: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks_per_stage, 1)
        self.layer2 = self._stage(16, 32, blocks_per_stage, 2)
        self.layer3 = self._stage(32, 64, blocks_per_stage, 2)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(in_channels: int, channels: int, count: int, stride: int) -> nn.Sequential:
        first = Block(in_channels, channels, stride)
        return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.flatten(2).mean(2))
        return logits


def resnet20() -> nn.Module:
    """20 layers, 0.27 M parameters."""
    return CifarResNet(3)


def resnet56() -> nn.Module:
    """56 layers, 0.85 M parameters."""
    return CifarResNet(9)
