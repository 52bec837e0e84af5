"""Find the cuts of a traced network: where one tensor carries everything, one per block.

1. *Positions*: after which operations exactly one input-dependent tensor is still needed; a concatenation of
   everything that is still needed counts too (DenseNet between its dense layers).
2. *Units*: the module tree is descended until a module is a block. A class is a block when one of its
   instances has several weighted operations and no position inside (a skip connection or parallel branches),
   or when it repeats, is no plain container and holds no other block (MobileNet v1).
3. *Cuts*: the last position of each block before the next begins, grouped into stages by resolution.
"""

import bisect
import collections
import dataclasses
import re
from typing import Final

from torch import nn

from medgraft.cuts.trace import ModuleCall, Trace
from medgraft.errors import CutError
from medgraft.types import Cut

__all__ = ["find_cuts", "live_positions", "weighted_ops"]

_CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_ISOTROPIC_STAGES: Final = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """After operation `op`, `value` alone carries everything; it can be tapped at `tap`."""

    op: int
    value: int
    tap: str
    side: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """One indivisible piece: the operations `start` to `end` (excluded) of module `path`."""

    path: str
    start: int
    end: int
    first_weight: int
    is_block: bool


def find_cuts(trace: Trace, *, has_head: bool) -> tuple[Cut, ...]:
    """The cuts of a network, from the stem (index 1) to the end of the trunk.

    Args:
        trace: Of the trunk (or of the whole network).
        has_head: Whether the traced pass includes a classification head, which is then left out: everything
            behind the last tensor with a spatial (or token) axis.

    Raises:
        CutError: When no place exists where one tensor carries everything.
    """
    positions = _tappable(trace, live_positions(trace))
    units = _cuttable_units(trace, positions)
    if has_head:
        units = _without_head(trace, units, positions)
    if not units:
        raise CutError(
            "expected at least one place where a single tensor carries everything forward, got none: "
            "skip connections span the whole network."
        )
    places = _places(trace, units, positions, has_head)
    return _as_cuts(trace, places)


def live_positions(trace: Trace) -> list[tuple[int, int]]:
    """Every (operation number, value) after which `value` alone carries everything forward."""
    relevant = _relevant_ops(trace)
    # A trunk that returns several tensors returns the deepest one last (timm's order).
    last_use = dict.fromkeys(trace.outputs[-1:], len(trace.ops))
    for number in relevant:
        for value in trace.ops[number].inputs:
            last_use[value] = max(last_use.get(value, -1), number)
    dependent = {trace.input}
    live = {trace.input}
    found: list[tuple[int, int]] = []
    for number in relevant:
        op = trace.ops[number]
        before = frozenset(live)
        dependent.update(op.outputs)
        live.update(value for value in op.outputs if last_use.get(value, -1) > number)
        live.difference_update([value for value in op.inputs if last_use.get(value, -1) <= number])
        if len(live) == 1:
            found.append((number, next(iter(live))))
        elif op.name == "cat" and before == before & set(op.inputs):
            found.append((number, op.outputs[0]))
    return found


def weighted_ops(trace: Trace, module: str, side: str = "output") -> frozenset[int] | None:
    """Numbers of the convolutions and matrix products that the outputs (or input) of `module` depend on.

    None when the module never ran. A ModuleList stands for its last member.
    """
    calls = trace.calls.get(module)
    if not calls:
        inside = [c for path, group in trace.calls.items() if path.startswith(module + ".") for c in group]
        calls = (max(inside, key=lambda call: call.end),) if inside else ()
    values = [call.outputs if side == "output" else call.inputs[:1] for call in calls[-1:]]
    if not values:
        return None
    ancestors = _Ancestors(trace)
    for value in values[0]:
        ancestors.of(value)
    return frozenset(number for number in ancestors.visited if trace.ops[number].has_weight)


def _relevant_ops(trace: Trace) -> list[int]:
    """Operations that depend on the input and that the output depends on, in order."""
    forward: set[int] = {trace.input}
    from_input = []
    for number, op in enumerate(trace.ops):
        if forward.intersection(op.inputs):
            forward.update(op.outputs)
            from_input.append(number)
    needed = set(trace.outputs[-1:])
    relevant = []
    for number in reversed(from_input):
        op = trace.ops[number]
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            relevant.append(number)
    # Inputs that are constants (parameters, position tables) carry nothing of the image.
    return list(reversed(relevant))


def _tappable(trace: Trace, found: list[tuple[int, int]]) -> list[_Position]:
    """The positions whose tensor enters or leaves a module that is called exactly once."""
    out: dict[int, str] = {}
    into: dict[int, str] = {}
    for path, calls in trace.calls.items():
        if len(calls) == 1:
            call = calls[0]
            if len(call.outputs) == 1:
                # The outermost module that returns the tensor bears the name users know.
                known = out.get(call.outputs[0])
                out[call.outputs[0]] = path if known is None or len(path) < len(known) else known
            if call.inputs:
                known = into.get(call.inputs[0])
                is_outer = known is None or call.entered < trace.calls[known][0].entered
                into[call.inputs[0]] = path if is_outer or known is None else known
    positions = []
    for number, value in found:
        if value in out and trace.calls[out[value]][0].end >= number:
            positions.append(_Position(op=number, value=value, tap=out[value], side="output"))
        elif value in into:
            positions.append(_Position(op=number, value=value, tap=into[value], side="input"))
    return positions


def _cuttable_units(trace: Trace, positions: list[_Position]) -> list[_Unit]:
    weights = [number for number, op in enumerate(trace.ops) if op.has_weight]
    tree = _Tree(trace, weights, positions)
    units = tree.units("")
    return [unit for unit in units if unit.first_weight >= 0]


class _Tree:
    """The module calls as a tree, with the questions the descent asks of it."""

    def __init__(self, trace: Trace, weights: list[int], positions: list[_Position]) -> None:
        self.trace = trace
        self.weights = weights
        self.positions = positions
        # Between attention and MLP of a transformer block one tensor carries everything too, but no module
        # returns it: such a place does not divide a block. A join of all live features (DenseNet) does.
        self.inner_ops = [p.op for p in positions if p.side == "output" or trace.ops[p.op].name == "cat"]
        self.children: dict[str, list[ModuleCall]] = collections.defaultdict(list)
        for path, calls in trace.calls.items():
            if len(calls) == 1:
                self.children[self._caller(path)].append(calls[0])
        for calls in self.children.values():
            calls.sort(key=lambda call: (call.start, call.end))
        self.blocks = self._block_kinds()
        self.block_places = {
            _place(calls[0].path)
            for calls in trace.calls.values()
            if len(calls) == 1 and calls[0].kind in self.blocks
        }

    def _caller(self, path: str) -> str:
        """The nearest enclosing module that was itself called (a ModuleList never is)."""
        parent = path.rpartition(".")[0]
        while parent and len(self.trace.calls.get(parent, ())) != 1:
            parent = parent.rpartition(".")[0]
        return parent

    def num_weights(self, start: int, end: int) -> int:
        return bisect.bisect_left(self.weights, end) - bisect.bisect_left(self.weights, start)

    def has_inside(self, call: ModuleCall) -> bool:
        """Whether a position lies inside `call` with weighted operations before and after it."""
        low = bisect.bisect_left(self.inner_ops, call.start)
        high = bisect.bisect_left(self.inner_ops, call.end)
        return any(
            self.num_weights(call.start, op + 1) > 0 and self.num_weights(op + 1, call.end) > 0
            for op in self.inner_ops[low:high]
        )

    def is_wrapper(self, call: ModuleCall) -> bool:
        """Whether one child of `call` does all its weighted work (several operations)."""
        number = self.num_weights(call.start, call.end)
        return number > 1 and any(self.num_weights(c.start, c.end) == number for c in self.children[call.path])

    def is_block(self, call: ModuleCall) -> bool:
        """Whether `call` is of a block class, or stands where blocks stand (numbers aside)."""
        if call.kind in self.blocks:
            return True
        is_plain = call.kind in _CONTAINERS or self.num_weights(call.start, call.end) < 2
        return not is_plain and _place(call.path) in self.block_places

    def _block_kinds(self) -> set[type[nn.Module]]:
        single = [calls[0] for calls in self.trace.calls.values() if len(calls) == 1]
        heavy = [call for call in single if self.num_weights(call.start, call.end) >= 2]
        kinds = {
            call.kind
            for call in heavy
            if call.kind not in _CONTAINERS and not self.has_inside(call) and not self.is_wrapper(call)
        }
        count = collections.Counter(call.kind for call in heavy)
        repeated = [c for c in heavy if c.kind not in _CONTAINERS and count[c.kind] > 1]
        # Innermost first, so that a stage class is no block once the blocks inside it are known.
        for call in sorted(repeated, key=lambda c: -c.path.count(".")):
            prefix = call.path + "."
            inner = (other for other in heavy if other.path.startswith(prefix))
            if call.kind not in kinds and not any(other.kind in kinds for other in inner):
                kinds.add(call.kind)
        return kinds

    def units(self, path: str) -> list[_Unit]:
        found: list[_Unit] = []
        for call in self.children[path]:
            number = self.num_weights(call.start, call.end)
            if number == 0:
                continue
            inner = [c for c in self.children[call.path] if self.num_weights(c.start, c.end)]
            covered = sum(self.num_weights(c.start, c.end) for c in inner) == number
            is_block = self.is_block(call)
            whole = number == 1 or not covered or not (self.has_inside(call) or self.is_wrapper(call))
            if is_block or whole:
                first = self.weights[bisect.bisect_left(self.weights, call.start)]
                found.append(
                    _Unit(
                        path=call.path,
                        start=call.start,
                        end=call.end,
                        first_weight=first,
                        is_block=is_block or number > 1,
                    )
                )
            else:
                found.extend(self.units(call.path))
        return found


def _place(path: str) -> str:
    """`path` with its numbers blanked: ``blocks.0.1`` and ``blocks.3.0`` stand at the same place."""
    return re.sub(r"\d+", "#", path)


def _without_head(trace: Trace, units: list[_Unit], positions: list[_Position]) -> list[_Unit]:
    """Drop the units behind the last tensor that still has a spatial or token axis."""
    kept = list(units)
    while kept:
        last = kept[-1]
        shapes = [trace.shapes[p.value] for p in positions if last.first_weight <= p.op < last.end]
        if shapes and len(shapes[-1]) >= 3:
            break
        kept.pop()
    return kept


def _places(
    trace: Trace, units: list[_Unit], positions: list[_Position], has_head: bool
) -> list[tuple[str, _Position, _Unit]]:
    """(name, position, last unit) of each cut."""
    has_blocks = any(unit.is_block for unit in units)
    first_block = next((i for i, unit in enumerate(units) if unit.is_block), 1 if len(units) > 1 else 0)
    last_block = max((i for i, unit in enumerate(units) if unit.is_block), default=len(units) - 1)
    ends = _unit_ends(trace, units, positions, has_head)
    places: list[tuple[str, _Position, _Unit]] = []
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


def _unit_ends(
    trace: Trace, units: list[_Unit], positions: list[_Position], has_head: bool
) -> list[_Position | None]:
    """For each unit the position at which it ends, or None where no single tensor leaves it."""
    ends: list[_Position | None] = []
    relevant = _relevant_ops(trace)
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


def _ends_stem_level(trace: Trace, units: list[_Unit], i: int, first_block: int) -> bool:
    """Whether a stem of several convolutions ends a resolution, or its module, with unit `i`."""
    here, following, block = units[i].path, units[i + 1].path, units[first_block].path
    if _common(following, block) > _common(here, block):
        return True
    sides = []
    for path in (here, following):
        outputs = trace.calls[path][0].outputs
        if not outputs or len(trace.shapes[outputs[0]]) < 3:
            return False
        sides.append(_side(trace, outputs[0]))
    return sides[0] > 1.5 * sides[1]


def _belongs_to_next(before: str, path: str, after: str) -> bool:
    """Whether `path` shares a deeper module with what follows than with what precedes it."""
    return _common(path, after) > _common(before, path)


def _common(a: str, b: str) -> int:
    count = 0
    for x, y in zip(a.split("."), b.split("."), strict=False):
        if x != y:
            break
        count += 1
    return count


def _spatial(trace: Trace, value: int) -> tuple[int, ...]:
    shape = trace.shapes[value][1:]
    if len(shape) == 1:
        return ()
    return shape[:-1] if _channel_axis(trace, value) == -1 else shape[1:]


def _side(trace: Trace, value: int) -> float:
    spatial = _spatial(trace, value)
    if len(spatial) == 1 and len(trace.shapes[trace.input]) > 3:
        return float(spatial[0]) ** (1 / (len(trace.shapes[trace.input]) - 2))  # tokens of a square grid
    return float(max(spatial, default=1))


def _channel_axis(trace: Trace, value: int) -> int:
    shape = trace.shapes[value]
    if len(shape) == 3 and len(trace.shapes[trace.input]) > 3:
        return trace.dims[value] or -1
    if len(shape) > 3 and shape[1] != shape[-1]:
        if len(set(shape[1:-1])) == 1 and len(set(shape[2:])) > 1:
            return -1
        if len(set(shape[2:])) == 1 and len(set(shape[1:-1])) > 1:
            return 1
    return trace.dims[value] or 1


def _as_cuts(trace: Trace, places: list[tuple[str, _Position, _Unit]]) -> tuple[Cut, ...]:
    stages = _stages(trace, places)
    full = max(trace.shapes[trace.input][2:])
    cuts: list[Cut] = []
    seen: set[str] = set()
    ancestors = _Ancestors(trace)
    for (name, position, _), stage in zip(places, stages, strict=True):
        tensors, macs = ancestors.of(position.value)
        axis = _channel_axis(trace, position.value)
        shape = trace.shapes[position.value][1:]
        cuts.append(
            Cut(
                index=len(cuts) + 1,
                name=name if name not in seen else position.tap,
                stage=stage,
                channels=shape[-1] if axis == -1 else shape[0],
                stride=max(1, round(full / _side(trace, position.value))),
                num_params=sum(trace.num_elements.get(tensor, 0) for tensor in tensors),
                macs=macs,
                shape=shape,
                channel_axis=axis,
                tap=position.tap,
                tap_side="output" if position.side == "output" else "input",
            )
        )
        seen.add(name)
    return tuple(cuts)


class _Ancestors:
    """Which parameters and how many MACs a value depends on (each value is asked for in order)."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.producer = {value: n for n, op in enumerate(trace.ops) for value in op.outputs}
        self.visited: set[int] = set()
        self.tensors: set[str] = set()
        self.macs = 0

    def of(self, value: int) -> tuple[frozenset[str], int]:
        stack = [value]
        while stack:
            number = self.producer.get(stack.pop())
            if number is None or number in self.visited:
                continue
            self.visited.add(number)
            op = self.trace.ops[number]
            self.tensors.update(op.tensors)
            self.macs += op.macs
            stack.extend(op.inputs)
        return frozenset(self.tensors), self.macs


def _stages(trace: Trace, places: list[tuple[str, _Position, _Unit]]) -> list[int]:
    """Stage numbers: a new one where the resolution changes; isotropic networks by module, else quarters."""
    sides = [round(_side(trace, position.value)) for _, position, _ in places]
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
    for before, here in zip(keys, keys[1:], strict=False):
        stages.append(stages[-1] + (before != here))
    return stages
