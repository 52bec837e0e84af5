"""Judge a load of weights against the trunk: refuse a poor one, mark the cuts that are partly random."""

import dataclasses
from typing import Final

from medgraft.backbones.load_report import LoadReport
from medgraft.cuts.positions import ops_until
from medgraft.cuts.trace import Trace
from medgraft.errors import WeightsError
from medgraft.types import Cut

__all__ = ["judge_load"]

_MIN_MATCHED: Final = 0.9
_SHOWN: Final = 5


def judge_load(report: LoadReport, trace: Trace, cuts: tuple[Cut, ...]) -> tuple[LoadReport, tuple[Cut, ...]]:
    """The report counted over the trunk alone, and the cuts with `is_pretrained` set.

    Args:
        report: What `medgraft.sources.load_weights` says of the whole network.
        trace: Trace of the trunk.
        cuts: Cuts of the same trace.

    Where something is missing decides, not how much: above a random layer no pretrained one means anything.

    Raises:
        WeightsError: Something is missing below what was filled; or under 90 % of the trunk's parameters were filled
            and no cut is whole, or a tensor has another shape, which is none that is missing but shows another
            architecture.
    """
    if report.source == "none":
        return report, tuple(dataclasses.replace(cut, is_pretrained=False) for cut in cuts)
    first_use = _first_uses(trace, cuts[-1])
    sizes = {name: trace.num_elements.get(name, 0) for name in first_use}
    missing = [name for name in report.missing if name in first_use]
    total = sum(sizes.values())
    fraction = 1 - sum(sizes[name] for name in missing) / max(total, 1)
    start = min((first_use[name] for name in missing), default=len(trace.ops))
    filled = [first_use[name] for name in first_use if name not in set(missing)]
    is_tail = bool(missing) and max(filled, default=-1) < start
    marked = tuple(dataclasses.replace(cut, is_pretrained=_ends_before(trace, cut, start)) for cut in cuts)
    pretrained = [cut.index for cut in marked if cut.is_pretrained]
    is_other = any(name in first_use for name in report.wrong_shape)
    if missing and not is_tail:
        below = [name for name in missing if first_use[name] < max(filled, default=0)]
        raise WeightsError(
            f"expected {report.source} to fill every layer up to the last one it fills, got none for {_some(below)}, "
            f"which lie below others that it fills; random, they would spoil these. "
            f"{report.hint or 'Check that the architecture and its arguments are those of the file.'}"
        )
    if fraction < _MIN_MATCHED and (is_other or not pretrained):
        raise WeightsError(
            f"expected weights for at least 90 % of the network's parameters, got {fraction:.0%} from "
            f"{report.source}. Missing: {_some(missing)}. Not understood: "
            f"{_some([*report.unexpected, *report.wrong_shape])}. Check architecture and arguments; random "
            "weights would be passed off as pretrained."
        )
    judged = dataclasses.replace(
        report,
        missing=tuple(missing),
        matched_fraction=fraction,
        missing_tail=is_tail,
        last_pretrained_cut=max(pretrained, default=None),
    )
    return judged, marked


def _first_uses(trace: Trace, last: Cut) -> dict[str, int]:
    """Each parameter and statistic of the trunk with the number of the operation that first reads it."""
    uses: dict[str, int] = {}
    for number, op in enumerate(trace.ops[: ops_until(trace, last.tap, last.tap_side)]):
        for name in op.tensors:
            uses.setdefault(name, number)
    return uses


def _ends_before(trace: Trace, cut: Cut, op: int) -> bool:
    """Whether a trunk that ends at `cut` runs only operations before operation `op`.

    Args:
        trace: The traced pass.
        cut: One of its cuts.
        op: Number of an operation.
    """
    return ops_until(trace, cut.tap, cut.tap_side) <= op


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "nothing"
    return shown + (f" … ({len(names)} in all)" if len(names) > _SHOWN else "")
