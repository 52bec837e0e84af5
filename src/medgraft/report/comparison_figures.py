"""The figures of a comparison: what each strategy costs and gives, and how it learns from more labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from medgraft.report.drawing import COLOURS, STYLE, legend_above, new_figure, quiet_axes, to_svg

__all__ = ["learning_figure", "pareto_figure"]

_STYLES = {
    "ftl": (COLOURS["baseline"], "D"), "ttl": (COLOURS["chosen"], "o"), "tf": (COLOURS["sky"], "o"),
    "lwft": (COLOURS["good"], "s"), "gradual": (COLOURS["good"], "^"), "lp-ft": (COLOURS["good"], "v"),
    "discriminative": (COLOURS["good"], "P"), "l2sp": (COLOURS["second"], "s"), "wtst": (COLOURS["second"], "^"),
    "lora": (COLOURS["second"], "v"), "scratch": (COLOURS["best"], "X"), "frozen": (COLOURS["amber"], "s"),
    "hybrid": (COLOURS["amber"], "^"),
}  # fmt: skip


@matplotlib.rc_context(STYLE)
def pareto_figure(rows: Sequence[Mapping[str, Any]]) -> str:
    """Test AUPRC against multiply-accumulates, with intervals; the line joins what nothing cheaper beats.

    Args:
        rows: Of one fraction, as in ``comparison.json``.

    Examples:
        >>> row = {"strategy": "ttl", "macs": 1e9, "test": {"auprc": {"mean": 0.8, "ci95": [0.7, 0.9]}}}
        >>> pareto_figure([row]).startswith("<svg")
        True
    """
    figure = new_figure(1000, 380)
    axes = figure.subplots()
    for row in rows:
        colour, marker = _STYLES[row["strategy"]]
        value, (low, high) = row["test"]["auprc"]["mean"], row["test"]["auprc"]["ci95"]
        x = row["macs"] / 1e9
        axes.plot([x, x], [low, high], color=colour, linewidth=1.0, alpha=0.45)
        axes.plot([x], [value], marker, color=colour, markersize=7, label=row["strategy"], zorder=3)
    front, best = [], float("-inf")
    for row in sorted(rows, key=lambda r: (r["macs"], -r["test"]["auprc"]["mean"])):
        if row["test"]["auprc"]["mean"] > best:
            best = row["test"]["auprc"]["mean"]
            front.append((row["macs"] / 1e9, best))
    axes.step(*zip(*front, strict=True), where="post", color=COLOURS["line"], linewidth=1.4, zorder=1)
    axes.set(xlabel="multiply–accumulates per image, G", ylabel="test AUPRC, mean over seeds")
    legend_above(axes, num_columns=7)
    quiet_axes(axes)
    return to_svg(figure, name="pareto", label="test AUPRC against multiply-accumulates")


@matplotlib.rc_context(STYLE)
def learning_figure(rows: Sequence[Mapping[str, Any]]) -> str:
    """Test AUROC against the number of training images, one line per strategy.

    Args:
        rows: Of all fractions, as in ``comparison.json``.

    Examples:
        >>> row = {"strategy": "ttl", "num_train": 10, "test": {"auroc": {"mean": 0.8, "ci95": [0.7, 0.9]}}}
        >>> learning_figure([row, {**row, "num_train": 20}]).startswith("<svg")
        True
    """
    figure = new_figure(1000, 360)
    axes = figure.subplots()
    for name in dict.fromkeys(row["strategy"] for row in rows):
        mine = sorted((r for r in rows if r["strategy"] == name), key=lambda r: r["num_train"])
        colour, marker = _STYLES[name]
        x, y = [r["num_train"] for r in mine], [r["test"]["auroc"]["mean"] for r in mine]
        is_main = name in ("ttl", "ftl")
        axes.plot(x, y, marker=marker, color=colour, linewidth=2.0 if is_main else 1.0, markersize=5, label=name)
    axes.set_xscale("log")
    ticks = sorted({row["num_train"] for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="training images", ylabel="test AUROC, mean over seeds")
    legend_above(axes, num_columns=7)
    quiet_axes(axes)
    return to_svg(figure, name="learning", label="test AUROC against the number of training images")
