"""The places where one tensor carries everything: found, measured, and cut for real."""

from medgraft.cuts.points import find_cuts
from medgraft.cuts.pretrained import judge_load
from medgraft.cuts.trace import Trace, trace_network
from medgraft.cuts.truncate import Trunk, cut_points, entry_of, resolve_cut, truncate, truncate_traced

__all__ = [
    "Trace",
    "Trunk",
    "cut_points",
    "entry_of",
    "find_cuts",
    "judge_load",
    "resolve_cut",
    "trace_network",
    "truncate",
    "truncate_traced",
]
