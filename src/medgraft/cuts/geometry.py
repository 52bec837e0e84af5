"""Where the channels of a traced tensor lie, and how long its sides are."""

import math

from medgraft.cuts.events import Trace

__all__ = ["channel_axis", "side_of"]


def _spatial(trace: Trace, value: int) -> tuple[int, ...]:
    shape = trace.shapes[value][1:]
    if len(shape) == 1:
        return ()
    return shape[:-1] if channel_axis(trace, value) == -1 else shape[1:]


def side_of(trace: Trace, value: int) -> float:
    """Length of a value's longest spatial axis, px; of tokens the side of the square grid they would fill."""
    spatial = _spatial(trace, value)
    if len(spatial) == 1 and len(trace.shapes[trace.input]) > 3:
        return math.pow(spatial[0], 1 / (len(trace.shapes[trace.input]) - 2))
    return float(max(spatial, default=1))


def channel_axis(trace: Trace, value: int) -> int:
    """Where a value's channels lie: 1 or -1."""
    shape = trace.shapes[value]
    if len(shape) == 3 and len(trace.shapes[trace.input]) > 3:
        return trace.dims[value] or -1
    if len(shape) > 3 and shape[1] != shape[-1]:
        if len(set(shape[1:-1])) == 1 and len(set(shape[2:])) > 1:
            return -1
        if len(set(shape[2:])) == 1 and len(set(shape[1:-1])) > 1:
            return 1
    return trace.dims[value] or 1
