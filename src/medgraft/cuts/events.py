"""What a recorded pass consists of: operations, module calls, and the trace that holds them."""

import dataclasses

from torch import nn

__all__ = ["ModuleCall", "Op", "Trace"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One executed operation; values are numbered in the order they appear."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: frozenset[str]
    macs: int
    module: str
    has_weight: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
    """One call of a submodule: operations `start` (included) to `end` (excluded) ran inside it.

    `entered` and `left` count the entering and leaving of all modules, which orders calls that run no operation.
    """

    path: str
    kind: type[nn.Module]
    start: int
    end: int
    entered: int
    left: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The recorded pass.

    Args:
        ops: In execution order.
        calls: By module path, every call of it in execution order.
        shapes: Shape of each value, batch axis included.
        dims: Channel axis of each value: +1 where channels are known to lie on axis 1, -1 for the last axis, else 0.
        input: The value of the network's input.
        outputs: The values that the entry point returned.
        num_elements: Elements of every parameter, by name.
        buffers: Names of buffers.
    """

    ops: tuple[Op, ...]
    calls: dict[str, tuple[ModuleCall, ...]]
    shapes: dict[int, tuple[int, ...]]
    dims: dict[int, int]
    input: int
    outputs: tuple[int, ...]
    num_elements: dict[str, int]
    buffers: frozenset[str]
