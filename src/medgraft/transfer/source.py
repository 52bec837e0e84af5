"""A backbone with its trace and cuts: everything a strategy starts from."""

import dataclasses
from typing import Any, Final

from medgraft.backbones.build import build_backbone, check_size
from medgraft.backbones.spec import Backbone, BackboneSpec, Lift
from medgraft.cuts.points import find_cuts
from medgraft.cuts.pretrained import judge_load
from medgraft.cuts.trace import Trace, trace_network
from medgraft.cuts.truncate import entry_of
from medgraft.errors import CutError, WeightsError
from medgraft.sources.open import open_backbone
from medgraft.types import Cut

__all__ = [
    "BELOW_STEM",
    "Source",
    "SourceSpec",
    "cuts_of",
    "open_source",
    "prepare_source",
    "random_source",
    "source_name",
]

_DEFAULT_SIDES: Final = {2: (224, 224), 3: (64, 64, 64)}

BELOW_STEM: Final = Cut(
    index=0, name="(none)", stage=-1, channels=0, stride=1, num_params=0, macs=0, shape=(), channel_axis=1,
    tap="", tap_side="input",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """What decides a source: enough to make it again in another process.

    Args:
        backbone: The network and its weights.
        sides: Sides of its input: (H, W) in px or (D, H, W) in voxels.
        sha256: Hash of the weights file, empty where there is none.
    """

    backbone: BackboneSpec
    sides: tuple[int, ...]
    sha256: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What a strategy starts from.

    Args:
        backbone: With its weights and the judged load report.
        trace: At the run's input size.
        cuts: Cuts of the trace, stem first.
        block_of: Parameter name in the network to the index of the cut that first needs it.
    """

    backbone: Backbone
    trace: Trace
    cuts: tuple[Cut, ...]
    block_of: dict[str, int]

    @property
    def spec(self) -> SourceSpec:
        """The specification from which `open_source` makes this source again."""
        backbone = self.backbone
        return SourceSpec(backbone=backbone.spec, sides=backbone.sides or (), sha256=backbone.report.sha256)

    @property
    def input_sides(self) -> tuple[int, ...]:
        """What the network sees at once: an image, or a patch of one with a mask; px or voxels."""
        return tuple(self.trace.shapes[self.trace.input][2:])

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


def open_source(spec: SourceSpec) -> Source:
    """The source that has this specification, made anew.

    Raises:
        MedgraftError: The network cannot be built; see `medgraft.sources.open.open_backbone`.
        WeightsError: The weights are other ones than they were.
    """
    source = prepare_source(open_backbone(spec.backbone), spec.sides)
    if source.spec.sha256 != spec.sha256:
        raise WeightsError(
            f"expected the weights of {spec.backbone.name} that the run was started with (sha256 {spec.sha256}), got "
            f"{source.spec.sha256} in {spec.backbone.weights}. Restore them, or choose another --out."
        )
    return source


def source_name(source: Source) -> str:
    """What decides a source's features, in words: its network, arguments, input size and weights."""
    backbone = source.backbone
    weights = backbone.report.sha256 or backbone.report.source
    return f"{backbone.spec.name} {backbone.spec.args} {backbone.spec.lift} {backbone.sides} px {weights}"


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
        name: Name of the network, see `medgraft.backbones.BackboneSpec`.
        args: Arguments of its constructor.
        size: Input side in px or (D, H, W); None for the network's own; where it names none, 224, of volumes 64.
        lift: How a network for images reads volumes.
    """
    return random_source(name, args, size, lift).cuts


def random_source(name: str, args: dict[str, Any], size: int | tuple[int, ...] | None, lift: Lift = "none") -> Source:
    """A network by name, for what its structure tells, as if its weights were known.

    Args:
        name: Name of the network, see `medgraft.backbones.BackboneSpec`.
        args: Arguments of its constructor.
        size: Input side in px or (D, H, W); None for the network's own; where it names none, 224, of volumes 64.
        lift: How a network for images reads volumes.
    """
    backbone = build_backbone(BackboneSpec(name=name, args=args, weights="none", size=size, lift=lift))
    check_size(backbone)
    source = prepare_source(backbone, backbone.sides or _DEFAULT_SIDES[backbone.dims])
    return dataclasses.replace(source, cuts=tuple(dataclasses.replace(cut, is_pretrained=True) for cut in source.cuts))
