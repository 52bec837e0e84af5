"""Levels: on the way to a cut the last tensor of every resolution, from which skip connections leave."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from medgraft.cuts.events import Trace
from medgraft.cuts.geometry import channel_axis, side_of
from medgraft.cuts.positions import live_positions, ops_until, tappable
from medgraft.cuts.truncate import Trunk
from medgraft.errors import CutError
from medgraft.types import Cut

__all__ = ["Level", "Pyramid", "levels_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Where the features of one resolution are taken.

    Args:
        stride: Factor by which they are coarser than the input, a power of two, 2 or more.
        channels: 0 where the network has no such resolution; the decoder then gets no skip connection there.
        channel_axis: 1, or -1 where the channels come last.
        tap: Path of the module that they enter or leave; empty where there are none.
        is_entering: Whether they enter it.
    """

    stride: int
    channels: int
    channel_axis: int = 1
    tap: str = ""
    is_entering: bool = False


def levels_of(trace: Trace, cuts: Sequence[Cut], cut: Cut) -> tuple[Level, ...]:
    """One level for every halving of the resolution down to that of `cut`, finest first; the last ends at the cut.

    A level is the deepest cut of its resolution; where there is none (before a pooling stem ends), the last tensor of
    that resolution which carries everything.

    Args:
        trace: The traced pass.
        cuts: Its cuts, stem first.
        cut: Where the encoder ends.

    Raises:
        CutError: The network has no resolutions (a transformer of tokens), or not those that a decoder can double.
    """
    if len(cut.shape) < len(trace.shapes[trace.input]) - 1:
        raise CutError(f"expected a network of maps for a decoder, got tokens {cut.shape} at {cut.name}. Choose a CNN.")
    before, after = trace.shapes[trace.input][2:], cut.shape[1:] if cut.channel_axis == 1 else cut.shape[:-1]
    if any(side % 2 ** math.ceil(math.log2(max(cut.stride, 1))) for side in before):
        raise CutError(f"expected sides that can be halved as often as {cut.name} needs, got {before}. Use --size.")
    if len({round(long / short) for long, short in zip(before, after, strict=True)}) > 1:
        raise CutError(
            f"expected a network that shrinks all axes alike, got {before} to {after} at {cut.name}. Choose one of "
            "MONAI's, or one for images with --lift acs or i3d."
        )
    if cut.stride < 2 or math.log2(cut.stride) % 1:
        raise CutError(
            f"expected a cut whose resolution is a half, a quarter … of the input's, got stride {cut.stride} at "
            f"{cut.name}. Choose a deeper cut, or another network."
        )
    levels = _positions_by_stride(trace, ops_until(trace, cut.tap, cut.tap_side))
    for candidate in cuts[: cut.index]:
        if len(candidate.shape) < len(cut.shape):
            continue  # tokens on the way from map to map
        levels[candidate.stride] = Level(
            stride=candidate.stride,
            channels=candidate.channels,
            channel_axis=candidate.channel_axis,
            tap=candidate.tap,
            is_entering=candidate.tap_side == "input",
        )
    strides = [2**power for power in range(1, int(math.log2(cut.stride)) + 1)]
    return tuple(levels.get(stride, Level(stride=stride, channels=0)) for stride in strides)


def _positions_by_stride(trace: Trace, last: int) -> dict[int, Level]:
    """The last map of each resolution among the first `last` operations that carries everything."""
    full = max(trace.shapes[trace.input][2:])
    levels: dict[int, Level] = {}
    for position in tappable(trace, live_positions(trace)):
        shape = trace.shapes[position.value]
        if len(shape) < 4 or ops_until(trace, position.tap, position.side) > last:
            continue
        axis = channel_axis(trace, position.value)
        stride = round(full / side_of(trace, position.value))
        levels[stride] = Level(
            stride=stride,
            channels=shape[axis],
            channel_axis=axis,
            tap=position.tap,
            is_entering=position.side == "input",
        )
    return levels


class Pyramid(Trunk):
    """The kept bottom of a network: images (B, C, *spatial) to themselves and the features of every level.

    Args:
        trunk: Ends at a cut; its network becomes this one's.
        levels: From `levels_of` for that cut.
    """

    def __init__(self, trunk: Trunk, levels: tuple[Level, ...]) -> None:
        # Not the trunk's own: its hook that ends the pass is there already.
        nn.Module.__init__(self)
        self.network = trunk.network
        self.entry = trunk.entry
        self.cut = trunk.cut
        self.levels = levels
        self._seen: dict[int, Tensor] = {}
        for level in levels[:-1]:
            if level.channels:
                _listen(self.network.get_submodule(level.tap), level, self._seen)

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """The images and the features of every level, finest first, channels on axis 1.

        Args:
            images: (B, C, *spatial), sides divisible by the cut's stride.
        """
        self._seen.clear()
        last = super().forward(images)
        seen = {**self._seen, self.levels[-1].stride: last}
        self._seen.clear()
        features = [images]
        for level in self.levels:
            if level.channels:
                features.append(_channels_first(seen[level.stride], level.channel_axis))
            else:
                sides = (side // level.stride for side in images.shape[2:])
                features.append(images.new_zeros(len(images), 0, *sides))
        return features


def _channels_first(features: Tensor, axis: int) -> Tensor:
    return features.movedim(-1, 1).contiguous() if axis == -1 else features


@dataclasses.dataclass(frozen=True, slots=True)
class _Tap:
    """A hook that notes what enters or leaves a module; no closure, so that a copied network notes its own."""

    seen: dict[int, Tensor]
    level: Level

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], output: Any = None) -> None:
        carrier = args if self.level.is_entering else output
        self.seen[self.level.stride] = next(t for t in tree_leaves(carrier) if isinstance(t, Tensor))


def _listen(module: nn.Module, level: Level, seen: dict[int, Tensor]) -> None:
    """Hook `module`, so that every forward pass notes the features of `level` in `seen`.

    Args:
        module: The module that the features enter or leave.
        level: Which features are meant.
        seen: Stride to features; every forward pass fills it.
    """
    if level.is_entering:
        module.register_forward_pre_hook(_Tap(seen, level))
    else:
        module.register_forward_hook(_Tap(seen, level))
