"""The adapter to decoders: features of every level to one logit per class and pixel.

segmentation-models-pytorch makes those for images, MONAI that for volumes; both are loaded when a decoder is asked for.
A decoder has as many steps as its encoder has levels: a truncated encoder gets a truncated decoder, of which the steps
next to the output stay.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from medgraft.cuts.levels import Level, levels_of
from medgraft.errors import ConfigError, CutError
from medgraft.transfer.source import Source
from medgraft.types import Cut

__all__ = ["DECODERS", "MaskHead", "SegmenterCost", "decoders_at_cuts", "segmenter_costs"]

DECODERS: Final = ("unet", "unet++", "fpn", "upernet")
_FINEST: Final = 16
_WIDEST: Final = 256
# What these take apart from the input.
_FEWEST_LEVELS: Final = {"unet": 1, "unet++": 2, "fpn": 4, "upernet": 3}


class MaskHead(nn.Module):
    """A decoder and its last convolution: what `medgraft.cuts.levels.Pyramid` gives to logits (B, K, *spatial).

    Args:
        kind: One of `DECODERS`; volumes take ``unet`` alone.
        levels: Levels of the encoder, finest first.
        input_shape: (C, *spatial) of the network's input, of two or three axes.
        num_outputs: K.

    Raises:
        ConfigError: No such decoder, not for volumes, too few levels, or the extra is not installed.

    References:
        Ronneberger et al. U-Net. MICCAI 2015. Zhou et al. UNet++. DLMIA 2018. Kirillov et al. Panoptic feature pyramid
        networks. CVPR 2019. Xiao et al. Unified perceptual parsing. ECCV 2018.
    """

    def __init__(self, kind: str, levels: Sequence[Level], input_shape: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        dims = len(input_shape) - 1
        if kind not in DECODERS or (dims == 3 and kind != "unet"):
            kinds = DECODERS if dims == 2 else DECODERS[:1]
            raise ConfigError(f"expected a decoder among {', '.join(kinds)}, got {kind!r}. See --decoder.")
        if len(levels) < _FEWEST_LEVELS[kind]:
            raise ConfigError(
                f"{kind} needs an encoder of {_FEWEST_LEVELS[kind]} halvings of the resolution, got {len(levels)}. "
                "Choose a deeper cut, or --decoder unet."
            )
        if lacking := _lacking(kind, levels):
            raise ConfigError(
                f"{kind} reads features at strides {', '.join(map(str, lacking))}, where this network has none. "
                "Choose --decoder unet, or another cut."
            )
        channels = (input_shape[0], *(level.channels for level in levels))
        widths = tuple(min(_WIDEST, _FINEST * 2**step) for step in reversed(range(len(levels))))
        self.kind = kind
        self.input_shape = tuple(input_shape)
        self.levels = tuple(levels)
        self.decoder = _monai_unet(channels, widths) if dims == 3 else _smp(kind, channels, widths)
        last = {"fpn": 128, "upernet": _WIDEST}.get(kind, widths[-1])
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        # Decoders that double up to the input look around once more; the others are interpolated afterwards.
        size = 3 if kind in ("unet", "unet++") else 1
        self.last = convolution(last, num_outputs, size, padding=size // 2)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Logits (B, K, *spatial) at the resolution of the input."""
        logits: Tensor = self.last(self.decoder(features))
        if logits.shape[2:] != features[0].shape[2:]:
            logits = F.interpolate(logits, size=features[0].shape[2:], mode="bilinear", align_corners=False)
        return logits

    def macs(self) -> int:
        """Multiply-accumulates for one input."""
        input_shape = self.input_shape
        shadow = copy.deepcopy(self).to("meta").eval()
        features = [torch.empty(1, *input_shape, device="meta")]
        for level in self.levels:
            sides = (side // level.stride for side in input_shape[1:])
            features.append(torch.empty(1, level.channels, *sides, device="meta"))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shadow(features)
        return int(counter.get_total_flops()) // 2


def _lacking(kind: str, levels: Sequence[Level]) -> list[int]:
    """Strides at which this decoder takes features and the encoder has none; a U-Net does without skip connections."""
    first = next(index for index, level in enumerate(levels) if level.channels)
    read = {"fpn": levels[-4:], "upernet": levels[1:], "unet++": levels[first:]}.get(kind, ())
    return [level.stride for level in read if not level.channels]


def decoders_at_cuts(source: Source, kind: str, num_outputs: int = 1) -> dict[int, MaskHead]:
    """A decoder without weights for every cut at which one can begin, by the index of the cut.

    Args:
        source: The network and its cuts.
        kind: One of `DECODERS`.
        num_outputs: 1 for one class beside the background, else one for each and the background.

    Raises:
        ConfigError: No such decoder, or the extra is not installed.
        CutError: The network can have none.
    """
    shape = source.trace.shapes[source.trace.input][1:]

    def head_at(cut: Cut) -> MaskHead:
        levels = levels_of(source.trace, source.cuts, cut)
        # Sizes are all that is wanted: on the meta device nothing is drawn or held.
        with torch.device("meta"):
            return MaskHead(kind, levels, shape, num_outputs)

    # The whole network first: what cannot be decoded there cannot be anywhere.
    head_at(source.cuts[-1])
    heads = {}
    for cut in source.cuts:
        # Some are too shallow for this decoder.
        with contextlib.suppress(ConfigError, CutError):
            heads[cut.index] = head_at(cut)
    return heads


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterCost:
    """Parameters, and multiply-accumulates of one patch, of an encoder with its decoder."""

    num_params: int
    macs: int


def segmenter_costs(source: Source, kind: str, num_outputs: int = 1) -> dict[int, SegmenterCost]:
    """What encoder and decoder cost together, by the index of the cut where the encoder can end.

    Args:
        source: The network and its cuts.
        kind: One of `DECODERS`.
        num_outputs: 1 for one class beside the background, else one for each and the background.

    Raises:
        ConfigError: No such decoder, or the extra is not installed.
        CutError: The network can have none.
    """
    heads = decoders_at_cuts(source, kind, num_outputs)
    return {
        index: SegmenterCost(
            num_params=source.cuts[index - 1].num_params + sum(parameter.numel() for parameter in head.parameters()),
            macs=source.cuts[index - 1].macs + head.macs(),
        )
        for index, head in heads.items()
    }


def _smp(kind: str, channels: Sequence[int], widths: Sequence[int]) -> nn.Module:
    """The decoder of that kind for images, from segmentation-models-pytorch.

    Args:
        kind: One of `DECODERS`.
        channels: Channels of the input and of every level, finest first.
        widths: Channels of each step of the decoder, the one next to the encoder's end first.
    """
    try:
        from segmentation_models_pytorch import decoders
    except ImportError as error:
        raise ConfigError(
            "decoders for images need segmentation-models-pytorch. Run pip install 'medgraft[segmentation]'."
        ) from error
    depth = len(widths)
    makers: dict[str, Any] = {
        "unet": lambda: decoders.unet.decoder.UnetDecoder(channels, widths, n_blocks=depth),
        "unet++": lambda: decoders.unetplusplus.decoder.UnetPlusPlusDecoder(channels, widths, n_blocks=depth),
        "fpn": lambda: decoders.fpn.decoder.FPNDecoder(list(channels), encoder_depth=depth),
        "upernet": lambda: decoders.upernet.decoder.UPerNetDecoder(list(channels), encoder_depth=depth),
    }
    decoder: nn.Module = makers[kind]()
    return decoder


class _Volumes(nn.Module):
    """MONAI's decoder, with a skip connection from every level."""

    def __init__(self, decoder: nn.Module, num_skips: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.num_skips = num_skips

    def forward(self, features: list[Tensor]) -> Tensor:
        decoded: Tensor = self.decoder(features, self.num_skips)
        return decoded


def _monai_unet(channels: Sequence[int], widths: Sequence[int]) -> nn.Module:
    from monai.networks.nets.flexible_unet import UNetDecoder

    decoder = UNetDecoder(
        spatial_dims=3,
        encoder_channels=channels,
        decoder_channels=widths,
        act=("relu", {"inplace": True}),
        norm=("batch", {"eps": 1e-5, "momentum": 0.1}),
        dropout=0.0,
        bias=False,
        upsample="nontrainable",
        pre_conv=None,
        interp_mode="nearest",
        align_corners=None,
        is_pad=True,
    )
    return _Volumes(decoder, len(widths) - 1)
