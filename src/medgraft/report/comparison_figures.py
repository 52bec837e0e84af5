"""The figures of a comparison: what each strategy gains, what it costs, and how it learns from more labels."""

from collections.abc import Sequence
from typing import Final

import matplotlib

from medgraft.report.formatting import signed
from medgraft.report.style import COLOURS, STYLE, legend_above, new_figure, quiet_axes, to_svg
from medgraft.result.comparison import StrategyResult

__all__ = ["differences_figure", "learning_figure", "pareto_figure"]

STYLES: Final = {
    "ftl": (COLOURS["baseline"], "D"), "ttl": (COLOURS["chosen"], "o"), "tf": (COLOURS["sky"], "o"),
    "lwft": (COLOURS["good"], "s"), "gradual": (COLOURS["good"], "^"), "lp-ft": (COLOURS["good"], "v"),
    "discriminative": (COLOURS["good"], "P"), "l2sp": (COLOURS["second"], "s"), "wtst": (COLOURS["second"], "^"),
    "lora": (COLOURS["second"], "v"), "scratch": (COLOURS["best"], "X"), "frozen": (COLOURS["amber"], "s"),
    "hybrid": (COLOURS["amber"], "^"), "ftl-pretrained": (COLOURS["baseline"], "o"),
}  # fmt: skip
# For a strategy that nobody has given a look of its own yet.
_PLAIN: Final = (COLOURS["muted"], "o")
_VERDICT_COLOURS = {"better": "good", "non-inferior": "good", "worse": "best"}
# Costs this close, as a share of the axis, would lie on top of one another.
_CLOSE = 0.015


@matplotlib.rc_context(STYLE)
def differences_figure(rows: Sequence[StrategyResult], margin: float) -> str:
    """Difference in test AUROC to full fine-tuning, one line per strategy, beside the margin.

    Args:
        rows: Strategies at one fraction; the baseline has no difference and no line.
        margin: Non-inferiority margin in AUROC.
    """
    compared = sorted((row for row in rows if row.difference), key=lambda row: row.difference["auroc"].value)
    figure = new_figure(1000, 70 + 26 * len(compared))
    axes = figure.subplots()
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    axes.axvline(-margin, color=COLOURS["best"], linewidth=1.2, linestyle=(0, (4, 3)))
    for height, row in enumerate(compared):
        gap = row.difference["auroc"]
        colour = COLOURS[_VERDICT_COLOURS.get(row.verdict or "", "baseline")]
        axes.plot(gap.ci95, [height, height], color=colour, linewidth=2.2)
        axes.plot([gap.value], [height], "o", color=colour, markersize=6)
        axes.annotate(
            f"{signed(gap)}  {row.verdict}", (1.0, height), xytext=(8, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", color=colour, fontsize=8,
        )  # fmt: skip
    low, high = axes.get_xlim()
    axes.set(xlim=(min(low, -1.4 * margin), max(high, 0.7 * margin)), ylim=(-0.7, len(compared) - 0.3))
    axes.set_yticks(range(len(compared)), [row.strategy for row in compared])
    axes.set_xlabel(f"difference in AUROC to ftl (dashed: the margin, {signed(-margin)})")
    quiet_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"], labelsize=8.5)
    return to_svg(figure, name="differences", label="difference in AUROC to full fine-tuning, per strategy")


@matplotlib.rc_context(STYLE)
def pareto_figure(rows: Sequence[StrategyResult]) -> str:
    """Test AUPRC against multiply-accumulates, with intervals; the line joins what nothing cheaper beats.

    Args:
        rows: Strategies at one fraction.
    """
    figure = new_figure(1000, 380)
    axes = figure.subplots()
    for row, x in zip(rows, _side_by_side([row.macs / 1e9 for row in rows]), strict=True):
        colour, marker = STYLES.get(row.key, _PLAIN)
        auprc = row.test["auprc"]
        if auprc.ci95 is not None:
            axes.plot([x, x], auprc.ci95, color=colour, linewidth=1.0, alpha=0.45)
        # Hollow: the same strategy with other words for uncertain labels.
        inside = colour if row.strategy == row.key else "none"
        axes.plot([x], [auprc.mean], marker, color=colour, markerfacecolor=inside, markersize=7, label=row.strategy,
                  zorder=3)  # fmt: skip
    front, best = [], float("-inf")
    for row in sorted(rows, key=lambda row: (row.macs, -row.test["auprc"].mean)):
        if row.test["auprc"].mean > best:
            best = row.test["auprc"].mean
            front.append((row.macs / 1e9, best))
    axes.step(*zip(*front, strict=True), where="post", color=COLOURS["line"], linewidth=1.4, zorder=1)
    axes.set(xlabel="multiply–accumulates per input, G", ylabel="test AUPRC, mean over seeds")
    legend_above(axes, num_columns=7)
    quiet_axes(axes)
    return to_svg(figure, name="pareto", label="test AUPRC against multiply-accumulates")


def _side_by_side(costs: Sequence[float]) -> list[float]:
    """Where to draw each cost: equal ones are spread around their place, so that all can be seen."""
    step = _CLOSE * ((max(costs) - min(costs)) or max(costs) or 1.0)
    clusters: list[list[int]] = []
    for i in sorted(range(len(costs)), key=lambda i: costs[i]):
        if clusters and costs[i] - costs[clusters[-1][0]] < step:
            clusters[-1].append(i)
        else:
            clusters.append([i])
    places = list(costs)
    for cluster in clusters:
        for number, i in enumerate(cluster):
            places[i] = costs[cluster[0]] + step * (number - (len(cluster) - 1) / 2)
    return places


@matplotlib.rc_context(STYLE)
def learning_figure(rows: Sequence[StrategyResult]) -> str:
    """Test AUROC against the size of the training set, one line per strategy.

    Args:
        rows: Strategies at all fractions.
    """
    figure = new_figure(1000, 360)
    axes = figure.subplots()
    for name in dict.fromkeys(row.strategy for row in rows):
        mine = sorted((row for row in rows if row.strategy == name), key=lambda row: row.num_train)
        colour, marker = STYLES.get(mine[0].key, _PLAIN)
        x, y = [row.num_train for row in mine], [row.test["auroc"].mean for row in mine]
        is_main = name in ("ttl", "ftl")
        axes.plot(x, y, marker=marker, color=colour, linewidth=2.0 if is_main else 1.0, markersize=5, label=name)
    axes.set_xscale("log")
    ticks = sorted({row.num_train for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="size of the training set", ylabel="test AUROC, mean over seeds")
    legend_above(axes, num_columns=7)
    quiet_axes(axes)
    return to_svg(figure, name="learning", label="test AUROC against the size of the training set")
