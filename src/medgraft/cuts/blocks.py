"""Units: the module tree, descended until a module is a block."""

import bisect
import collections
import dataclasses
import re
from collections.abc import Iterator
from typing import Final

from torch import nn

from medgraft.cuts.events import ModuleCall, Trace
from medgraft.cuts.positions import Position, relevant_ops

__all__ = ["Unit", "cuttable_units"]

_CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One indivisible piece: the operations `start` to `end` (excluded) of module `path`."""

    path: str
    start: int
    end: int
    first_weight: int
    is_block: bool


def cuttable_units(trace: Trace, positions: list[Position]) -> list[Unit]:
    """The blocks and single layers of a traced network, in the order they run.

    Args:
        trace: The traced pass.
        positions: Where a single tensor carries everything.
    """
    relevant = relevant_ops(trace)
    tree = _Tree(trace, relevant, positions)
    units = tree.units("")
    return [unit for unit in units if unit.first_weight >= 0]


class _Tree:
    """The module calls as a tree, with the questions the descent asks of it."""

    def __init__(self, trace: Trace, relevant: list[int], positions: list[Position]) -> None:
        self.trace = trace
        self.relevant = relevant
        # A branch that leads nowhere makes no block.
        self.weights = list(_weighted(trace, relevant))
        self.positions = positions
        # Between attention and MLP of a transformer block one tensor carries everything too, but no module
        # returns it: such a place does not divide a block. A join of all live features (DenseNet) does.
        self.inner_ops = [p.op for p in positions if p.side == "output" or trace.ops[p.op].name == "cat"]
        made = ((value, number) for number in self.relevant for value in trace.ops[number].outputs)
        self.first_seen = {trace.input: -1, **dict(made)}
        self.children: dict[str, list[ModuleCall]] = collections.defaultdict(list)
        for path, calls in trace.calls.items():
            if len(calls) == 1:
                self.children[self._caller(path)].append(calls[0])
        for siblings in self.children.values():
            siblings.sort(key=lambda call: (call.start, call.end))
        self.blocks = self._block_kinds()
        self.block_places = {
            _place(calls[0].path) for calls in trace.calls.values() if len(calls) == 1 and calls[0].kind in self.blocks
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
        """Whether one child of `call` does all its weighted work (several operations), with no skip around it."""
        number = self.num_weights(call.start, call.end)
        return number > 1 and any(
            self.num_weights(child.start, child.end) == number and not self.is_bypassed(child, call.end)
            for child in self.children[call.path]
        )

    def is_bypassed(self, call: ModuleCall, end: int) -> bool:
        """Whether operations behind `call` and before `end` read what was made of the input before `call`."""
        return any(
            self.first_seen.get(value, len(self.trace.ops)) < call.start
            for number in self.relevant[bisect.bisect_left(self.relevant, call.end) :]
            if number < end
            for value in self.trace.ops[number].inputs
        )

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

    def units(self, path: str) -> list[Unit]:
        units: list[Unit] = []
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
                units.append(
                    Unit(
                        path=call.path,
                        start=call.start,
                        end=call.end,
                        first_weight=first,
                        is_block=is_block or number > 1,
                    )
                )
            else:
                units.extend(self.units(call.path))
        return units


def _weighted(trace: Trace, relevant: list[int]) -> Iterator[int]:
    """Operations with weights; a convolution that runs as several (a kernel in each of three planes) counts as one."""
    seen: set[str] = set()
    for number in relevant:
        op = trace.ops[number]
        calls = trace.calls.get(op.module, ())
        is_layer = len(calls) == 1 and issubclass(calls[0].kind, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        if op.has_weight and not (is_layer and op.module in seen):
            seen.add(op.module)
            yield number


def _place(path: str) -> str:
    """`path` with its numbers blanked: ``blocks.0.1`` and ``blocks.3.0`` stand at the same place."""
    return re.sub(r"\d+", "#", path)
