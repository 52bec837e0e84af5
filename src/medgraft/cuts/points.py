"""Find the cuts of a traced network: where one tensor carries everything, one per block.

1. *Positions*: after which operations exactly one input-dependent tensor is still needed; a concatenation of
   everything that is still needed counts too (DenseNet between its dense layers).
2. *Units*: the module tree is descended until a module is a block. A class is a block when one of its
   instances has several weighted operations and no position inside (a skip connection or parallel branches),
   or when it repeats, is no plain container and holds no other block (MobileNet v1).
3. *Cuts*: the last position of each block before the next begins, grouped into stages by resolution.
"""

import bisect
import itertools
from typing import Final

from medgraft.cuts.blocks import Unit, cuttable_units
from medgraft.cuts.events import Trace
from medgraft.cuts.geometry import channel_axis, side_of
from medgraft.cuts.positions import Position, live_positions, ops_until, relevant_ops, tappable
from medgraft.errors import CutError
from medgraft.types import Cut

__all__ = ["find_cuts"]

_ISOTROPIC_STAGES: Final = 4


def find_cuts(trace: Trace, *, has_head: bool) -> tuple[Cut, ...]:
    """The cuts of a network, from the stem (index 1) to the end of the trunk.

    Args:
        trace: Trace of the trunk (or of the whole network).
        has_head: Whether the traced pass includes a classification head, which is then left out: everything
            behind the last tensor with a spatial (or token) axis.

    Raises:
        CutError: When no place exists where one tensor carries everything.
    """
    positions = tappable(trace, live_positions(trace))
    units = cuttable_units(trace, positions)
    if has_head:
        units = _without_head(trace, units, positions)
    if not units:
        raise CutError(
            "expected at least one place where a single tensor carries everything forward, got none: "
            "skip connections span the whole network."
        )
    places = _places(trace, units, positions, has_head)
    return _as_cuts(trace, places)


def _without_head(trace: Trace, units: list[Unit], positions: list[Position]) -> list[Unit]:
    """Drop the units behind the last tensor that still has a spatial or token axis.

    Args:
        trace: The traced pass.
        units: Units in the order they run.
        positions: Where a single tensor carries everything, in the order they run.
    """
    kept = list(units)
    limit = len(trace.ops)
    while kept:
        # Up to the next unit's weights: DenseNet joins what its last layer made only behind that layer.
        start = kept[-1].first_weight
        if any(start <= p.op < limit and len(trace.shapes[p.value]) >= 3 for p in positions):
            break
        limit = start
        kept.pop()
    return kept


def _places(
    trace: Trace, units: list[Unit], positions: list[Position], has_head: bool
) -> list[tuple[str, Position, Unit]]:
    """(name, position, last unit) of each cut.

    Args:
        trace: The traced pass.
        units: Units in the order they run.
        positions: Where a single tensor carries everything, in the order they run.
        has_head: Whether the traced pass includes a classification head.
    """
    has_blocks = any(unit.is_block for unit in units)
    first_block = next((i for i, unit in enumerate(units) if unit.is_block), 1 if len(units) > 1 else 0)
    last_block = max((i for i, unit in enumerate(units) if unit.is_block), default=len(units) - 1)
    ends = _unit_ends(trace, units, positions, has_head)
    places: list[tuple[str, Position, Unit]] = []
    for i, unit in enumerate(units):
        position = ends[i]
        if position is None:
            continue
        following = units[i + 1] if i + 1 < len(units) else None
        in_stem = has_blocks and i < first_block
        if in_stem and i + 1 < first_block and not _ends_stem_level(trace, units, i, first_block):
            continue
        between = has_blocks and not unit.is_block and first_block < i < last_block
        if between and following and _belongs_to_next(units[i - 1].path, unit.path, following.path):
            continue
        name = position.tap if in_stem and position.side == "output" else unit.path
        places.append((name, position, unit))
    return places


def _unit_ends(trace: Trace, units: list[Unit], positions: list[Position], has_head: bool) -> list[Position | None]:
    """For each unit the position at which it ends, or None where no single tensor leaves it.

    Args:
        trace: The traced pass.
        units: Units in the order they run.
        positions: Where a single tensor carries everything, in the order they run.
        has_head: Whether the traced pass includes a classification head.
    """
    ends: list[Position | None] = []
    relevant = relevant_ops(trace)
    for i, unit in enumerate(units):
        following = units[i + 1] if i + 1 < len(units) else None
        limit = following.start if following else len(trace.ops)
        last = relevant[bisect.bisect_left(relevant, unit.end) - 1]
        gap = [p for p in positions if last <= p.op < limit]
        if not gap and following:
            # DenseNet joins the live features only inside the next layer.
            gap = [p for p in positions if limit <= p.op < following.first_weight][:1]
        if not gap:
            ends.append(None)
            continue
        is_trunk_end = following is None and not has_head
        keeps_pooling = is_trunk_end or i == 0 or (following is not None and following.is_block and not unit.is_block)
        chosen = gap[0]
        for p in gap[1:]:
            same = trace.shapes[p.value] == trace.shapes[chosen.value]
            is_map = len(trace.shapes[p.value]) >= 3
            owner = trace.ops[p.op].module
            theirs = following is not None and _belongs_to_next(unit.path, owner, following.path)
            if theirs or not is_map:
                break
            if same or is_trunk_end or (keeps_pooling and not any(u.is_block for u in units[: i + 1])):
                chosen = p
            else:
                break
        ends.append(chosen)
    return ends


def _ends_stem_level(trace: Trace, units: list[Unit], i: int, first_block: int) -> bool:
    """Whether a stem of several convolutions ends a resolution, or its module, with unit `i`.

    Args:
        trace: The traced pass.
        units: Units in the order they run.
        i: Index of a unit of the stem, not of its last one.
        first_block: Index of the first unit that is a block.
    """
    here, following, block = units[i].path, units[i + 1].path, units[first_block].path
    if _common(following, block) > _common(here, block):
        return True
    sides = []
    for path in (here, following):
        outputs = trace.calls[path][0].outputs
        if not outputs or len(trace.shapes[outputs[0]]) < 3:
            return False
        sides.append(side_of(trace, outputs[0]))
    return sides[0] > 1.5 * sides[1]


def _belongs_to_next(before: str, path: str, after: str) -> bool:
    """Whether `path` shares a deeper module with what follows than with what precedes it.

    Args:
        before: Path of the module that precedes it.
        path: Path of the module in question.
        after: Path of the module that follows.
    """
    return _common(path, after) > _common(before, path)


def _common(a: str, b: str) -> int:
    count = 0
    for x, y in zip(a.split("."), b.split("."), strict=False):
        if x != y:
            break
        count += 1
    return count


def _as_cuts(trace: Trace, places: list[tuple[str, Position, Unit]]) -> tuple[Cut, ...]:
    stages = _stages(trace, places)
    full = max(trace.shapes[trace.input][2:])
    cuts: list[Cut] = []
    seen: set[str] = set()
    num_params, macs = _running_costs(trace)
    for (name, position, _), stage in zip(places, stages, strict=True):
        executed = ops_until(trace, position.tap, position.side)
        axis = channel_axis(trace, position.value)
        shape = trace.shapes[position.value][1:]
        cuts.append(
            Cut(
                index=len(cuts) + 1,
                name=name if name not in seen else position.tap,
                stage=stage,
                channels=shape[-1] if axis == -1 else shape[0],
                stride=max(1, round(full / side_of(trace, position.value))),
                num_params=num_params[executed],
                macs=macs[executed],
                shape=shape,
                channel_axis=axis,
                tap=position.tap,
                tap_side="output" if position.side == "output" else "input",
            )
        )
        seen.add(name)
    return tuple(cuts)


def _running_costs(trace: Trace) -> tuple[list[int], list[int]]:
    """(parameters, MACs) of the first 0, 1, 2, … operations, branches that lead nowhere included."""
    num_params, macs = [0], [0]
    read: set[str] = set()
    for op in trace.ops:
        new = op.tensors - read
        read |= new
        num_params.append(num_params[-1] + sum(trace.num_elements.get(name, 0) for name in new))
        macs.append(macs[-1] + op.macs)
    return num_params, macs


def _stages(trace: Trace, places: list[tuple[str, Position, Unit]]) -> list[int]:
    """Stage numbers: a new one where the resolution changes; isotropic networks by module, else quarters."""
    sides = [round(side_of(trace, position.value)) for _, position, _ in places]
    parents = [unit.path.rpartition(".")[0] for _, _, unit in places]
    body = set(sides[1:])
    if len(body) > 1 or len(places) < 2 * _ISOTROPIC_STAGES:
        keys: list[object] = list(sides)
    elif len(set(parents[1:])) > 2:
        keys = [parents[1], *parents[1:]]
    else:
        length = len(places)
        return [min(_ISOTROPIC_STAGES * max(0, i - 1) // (length - 1), _ISOTROPIC_STAGES - 1) for i in range(length)]
    stages = [0]
    for before, here in itertools.pairwise(keys):
        stages.append(stages[-1] + (before != here))
    return stages
