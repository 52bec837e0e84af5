"""Positions: after which operations a single tensor carries everything forward, and where it can be tapped."""

import dataclasses

from medgraft.cuts.events import Trace

__all__ = ["Position", "live_positions", "ops_until", "relevant_ops", "tappable", "weighted_ops"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """After operation `op`, `value` alone carries everything; it can be tapped at `tap`."""

    op: int
    value: int
    tap: str
    side: str


def live_positions(trace: Trace) -> list[tuple[int, int]]:
    """Every (operation number, value) after which `value` alone carries everything forward."""
    relevant = relevant_ops(trace)
    # A trunk that returns several tensors returns the deepest one last (timm's order).
    last_use = dict.fromkeys(trace.outputs[-1:], len(trace.ops))
    for number in relevant:
        for value in trace.ops[number].inputs:
            last_use[value] = max(last_use.get(value, -1), number)
    live = {trace.input}
    positions: list[tuple[int, int]] = []
    for number in relevant:
        op = trace.ops[number]
        before = frozenset(live)
        live.update(value for value in op.outputs if last_use.get(value, -1) > number)
        live.difference_update([value for value in op.inputs if last_use.get(value, -1) <= number])
        if len(live) == 1:
            positions.append((number, next(iter(live))))
        elif op.name == "cat" and before == before & set(op.inputs):
            positions.append((number, op.outputs[0]))
    return positions


def relevant_ops(trace: Trace) -> list[int]:
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


def tappable(trace: Trace, live_values: list[tuple[int, int]]) -> list[Position]:
    """The positions whose tensor enters or leaves a module that is called exactly once."""
    out: dict[int, str] = {}
    into: dict[int, str] = {}
    for path, calls in trace.calls.items():
        if len(calls) == 1:
            call = calls[0]
            if len(call.outputs) == 1:
                # The outermost module that returns the tensor bears the name users know.
                previous = out.get(call.outputs[0])
                out[call.outputs[0]] = path if previous is None or len(path) < len(previous) else previous
            if call.inputs:
                previous = into.get(call.inputs[0])
                is_outer = previous is None or call.entered < trace.calls[previous][0].entered
                into[call.inputs[0]] = path if is_outer or previous is None else previous
    positions = []
    for number, value in live_values:
        if value in out and trace.calls[out[value]][0].end >= number:
            positions.append(Position(op=number, value=value, tap=out[value], side="output"))
        elif value in into:
            positions.append(Position(op=number, value=value, tap=into[value], side="input"))
    return positions


def ops_until(trace: Trace, tap: str, side: str) -> int:
    """Number of operations that have run when the tensor at `tap` appears; a trunk cut there runs exactly these.

    Args:
        trace: The traced pass.
        tap: Path of a module that was called.
        side: ``output`` where the tensor leaves the module, ``input`` where it enters.
    """
    call = trace.calls[tap][0]
    return call.end if side == "output" else call.start


def weighted_ops(trace: Trace, module: str, side: str = "output") -> frozenset[int] | None:
    """Numbers of the convolutions and matrix products that the outputs (or input) of `module` depend on.

    None when the module never ran. A ModuleList stands for its last member.

    Args:
        trace: The traced pass.
        module: Path of a module.
        side: ``output`` for what leaves the module, ``input`` for what enters it.
    """
    calls = trace.calls.get(module)
    if not calls:
        inside = [c for path, group in trace.calls.items() if path.startswith(module + ".") for c in group]
        calls = (max(inside, key=lambda call: call.end),) if inside else ()
    values = [call.outputs if side == "output" else call.inputs[:1] for call in calls[-1:]]
    if not values:
        return None
    producer = {value: number for number, op in enumerate(trace.ops) for value in op.outputs}
    visited: set[int] = set()
    stack = list(values[0])
    while stack:
        number = producer.get(stack.pop())
        if number is not None and number not in visited:
            visited.add(number)
            stack.extend(trace.ops[number].inputs)
    return frozenset(number for number in visited if trace.ops[number].has_weight)
