"""A backbone with its trace and cuts: everything a strategy starts from."""

import dataclasses
from typing import Any, Final

from medgraft.backbones.build import build_backbone, check_size
from medgraft.backbones.spec import Backbone, BackboneSpec, Lift
from medgraft.cuts.points import find_cuts
from medgraft.cuts.pretrained import judge_load
from medgraft.cuts.trace import Trace, trace_network
from medgraft.cuts.truncate import entry_of
from medgraft.errors import CutError
from medgraft.types import Cut

__all__ = ["BELOW_STEM", "Source", "cuts_of", "prepare_source", "random_source"]

_DEFAULT_SIDES: Final = {2: (224, 224), 3: (64, 64, 64)}

BELOW_STEM: Final = Cut(
    index=0, name="(none)", stage=-1, channels=0, stride=1, num_params=0, macs=0, shape=(), channel_axis=1,
    tap="", tap_side="input",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What a strategy starts from.

    Args:
        backbone: With its weights and the judged load report.
        trace: At the run's input size.
        cuts: Of that trace, stem first.
        block_of: Parameter name in the network to the index of the cut that first needs it.
    """

    backbone: Backbone
    trace: Trace
    cuts: tuple[Cut, ...]
    block_of: dict[str, int]

    def depth(self, index: int) -> Cut:
        """The cut of that index; 0 is below the stem: nothing is kept, or nothing frozen.

        Raises:
            CutError: There is no such cut.
        """
        if index == 0:
            return BELOW_STEM
        if not 1 <= index <= len(self.cuts):
            raise CutError(f"expected a cut from 1 to {len(self.cuts)}, got {index}.")
        return self.cuts[index - 1]


def prepare_source(backbone: Backbone, sides: tuple[int, ...]) -> Source:
    """Trace `backbone` at (C, *sides), find its cuts and judge its load report.

    Args:
        backbone: With its weights.
        sides: (H, W) in px, or (D, H, W) in voxels.

    Raises:
        BackboneError: The network cannot process that size.
        CutError: It has no cut.
        WeightsError: Too little of it is pretrained.
    """
    entry = entry_of(backbone.network)
    trace = trace_network(backbone.network, (backbone.in_channels, *sides), entry=entry)
    cuts = find_cuts(trace, has_head=entry == "forward")
    report, cuts = judge_load(backbone.report, trace, cuts)
    backbone = dataclasses.replace(backbone, report=report, sides=tuple(sides))
    return Source(backbone=backbone, trace=trace, cuts=cuts, block_of=_blocks(trace, cuts))


def _blocks(trace: Trace, cuts: tuple[Cut, ...]) -> dict[str, int]:
    blocks: dict[str, int] = {}
    start = 0
    for cut in cuts:
        call = trace.calls[cut.tap][0]
        end = call.end if cut.tap_side == "output" else call.start
        for op in trace.ops[start:end]:
            for name in op.tensors:
                blocks.setdefault(name, cut.index)
        start = end
    return blocks


def cuts_of(
    name: str, args: dict[str, Any], size: int | tuple[int, ...] | None, lift: Lift = "none"
) -> tuple[Cut, ...]:
    """The cuts of a network by name, from its structure alone.

    Args:
        name: As for `medgraft.backbones.BackboneSpec`.
        args: Of its constructor.
        size: Input side in px or (D, H, W); None for the network's own; where it names none, 224, of volumes 64.
        lift: How a network for images reads volumes.
    """
    return random_source(name, args, size, lift).cuts


def random_source(name: str, args: dict[str, Any], size: int | tuple[int, ...] | None, lift: Lift = "none") -> Source:
    """A network by name, for what its structure tells, as if its weights were known; arguments as `cuts_of`."""
    backbone = build_backbone(BackboneSpec(name=name, args=args, weights="none", size=size, lift=lift))
    check_size(backbone)
    source = prepare_source(backbone, backbone.sides or _DEFAULT_SIDES[backbone.dims])
    return dataclasses.replace(source, cuts=tuple(dataclasses.replace(cut, is_pretrained=True) for cut in source.cuts))
