"""The figures about the answer, the training and what was kept; each function returns one SVG string."""

from collections.abc import Sequence
from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from medgraft.evaluate.intervals import Difference
from medgraft.evaluate.results import Estimate
from medgraft.metrics.measures import MEASURES, Measure
from medgraft.report.formatting import number, signed, value_of
from medgraft.report.style import COLOURS, STYLE, legend_above, new_figure, quiet_axes, to_svg
from medgraft.types import BlockPlan

__all__ = ["TREATMENTS", "answer_figure", "history_figure", "plan_figure"]

TREATMENTS: Final = {
    "reused": ("#0072B2", ""),
    "frozen": ("#56B4E9", ""),
    "slimmed": ("#E69F00", ""),
    "re-initialised": ("#FBE3B3", "////"),
    "new": ("#009E73", ""),
    "removed": ("#FFFFFF", ""),
}


@matplotlib.rc_context(STYLE)
def answer_figure(
    chosen: Estimate,
    baseline: Estimate,
    difference: Difference,
    *,
    margin: float | None,
    names: tuple[str, str],
    metric: str = "AUROC",
) -> str:
    """One metric of two models with its intervals, and their difference beside the margin fixed beforehand.

    Args:
        chosen: The chosen model's metric.
        baseline: Full fine-tuning's metric.
        difference: Chosen minus baseline.
        margin: Non-inferiority margin, or None where none was set.
        names: What the two rows are called.
        metric: What is shown.

    Examples:
        >>> a = Estimate(value=0.9, ci95=(0.85, 0.95))
        >>> gap = Difference(value=0.0, ci95=(-0.01, 0.01), p=1.0)
        >>> svg = answer_figure(a, a, gap, margin=0.02, names=("cut", "full"))
        >>> svg.startswith("<svg") and "full" in svg
        True
    """
    figure = new_figure(1000, 150)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    _interval_row(left, 1, chosen, COLOURS["chosen"])
    _interval_row(left, 0, baseline, COLOURS["baseline"])
    left.set(ylim=(-0.6, 1.6), title=f"{metric[:1].upper()}{metric[1:]} on test, 95 % interval")
    left.set_yticks([1, 0], names)
    _interval_row(right, 0, difference, COLOURS["ink"], is_signed=True)
    right.axvline(0, color=COLOURS["muted"], linewidth=1)
    if margin:
        right.axvline(-margin, color=COLOURS["best"], linewidth=1.2, linestyle=(0, (4, 3)))
        right.annotate(
            f"margin {signed(-margin)}",
            (-margin, -0.72),
            xytext=(4, 0),
            textcoords="offset points",
            color=COLOURS["best"],
            fontsize=8,
        )
        low, high = right.get_xlim()
        right.set_xlim(min(low, -1.3 * margin), max(high, 0.7 * margin))
    right.set(ylim=(-0.9, 0.9), yticks=[], title="Difference: chosen − full fine-tuning")
    for axes in (left, right):
        quiet_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    left.tick_params(axis="y", labelcolor=COLOURS["ink"], labelsize=8.5)
    return to_svg(figure, name="answer", label=f"{metric} of both models and their difference, with intervals")


def _interval_row(
    axes: Axes, height: float, metric: Estimate | Difference, colour: str, *, is_signed: bool = False
) -> None:
    """Draw a metric as a dot on the line of its interval, with its number above.

    Args:
        axes: Changed in place.
        height: Where on the vertical axis.
        metric: Not drawn where it has no value.
        colour: Colour of dot, line and number.
        is_signed: Whether the number is written with its sign.
    """
    value = value_of(metric)
    if value is None:
        return
    if metric.ci95 is not None:
        axes.plot(metric.ci95, [height, height], color=colour, linewidth=2.4)
    axes.plot([value], [height], "o", color=colour, markersize=7)
    text = signed(value) if is_signed else number(value)
    axes.annotate(
        text,
        (value, height),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        color=colour,
        weight="bold",
    )


@matplotlib.rc_context(STYLE)
def history_figure(history: pd.DataFrame, measure: Measure = MEASURES["labels"]) -> str:
    """Training loss and validation score by epoch, a line per seed, the kept epoch marked.

    Args:
        history: Columns role (``chosen`` or ``baseline``), seed, epoch, train_loss, and the measure's.
        measure: Which score chooses.

    Examples:
        >>> table = pd.DataFrame({"role": ["chosen"] * 2, "seed": [0, 0], "epoch": [1, 2],
        ...     "train_loss": [0.7, 0.4], "val_auprc": [0.6, 0.8]})
        >>> history_figure(table).startswith("<svg")
        True
    """
    figure = new_figure(1000, 270)
    panels = figure.subplots(1, 2)
    looks = {"chosen": (COLOURS["chosen"], "-"), "baseline": (COLOURS["baseline"], (0, (4, 2)))}
    labels = {"chosen": "chosen", "baseline": "full fine-tuning"}
    for axes, column, title in zip(
        panels,
        ("train_loss", measure.column),
        ("Training loss", f"Validation {measure.chooses_name}, kept epoch marked"),
        strict=True,
    ):
        for (role, seed), rows in history.groupby(["role", "seed"], sort=True) if column in history else ():
            if role not in looks or rows[column].isna().all():
                continue
            colour, dashes = looks[role]
            is_first = seed == history.loc[history["role"] == role, "seed"].min()
            # A line through one epoch is invisible.
            drawn = {"linestyle": dashes} if len(rows) > 1 else {"linestyle": "", "marker": "o"}
            axes.plot(
                rows["epoch"], rows[column], color=colour, **drawn,
                linewidth=1.8 if is_first else 0.9, alpha=1.0 if is_first else 0.5,
                label=labels[role] if is_first else None,
            )  # fmt: skip
            if column == measure.column:
                kept = rows.iloc[int(rows[column].argmax())]
                axes.plot([kept["epoch"]], [kept[column]], "o", color=colour, markersize=6 if is_first else 4)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        quiet_axes(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="upper right" if column == "train_loss" else "lower right")
    return to_svg(figure, name="history", label="Training loss and validation score by epoch")


@matplotlib.rc_context(STYLE)
def plan_figure(blocks: Sequence[BlockPlan]) -> str:
    """The network as a row of blocks coloured by what happened to them, above their share of the parameters.

    Args:
        blocks: From stem to head.

    Examples:
        >>> plan_figure([BlockPlan(name="stem", treatment="reused", lr=0.1, num_params=8)]).startswith("<svg")
        True
    """
    figure = new_figure(1000, 200)
    axes = figure.subplots()
    sizes = np.array([float(block.num_params) for block in blocks])
    shares = sizes / max(sizes.sum(), 1.0)
    seen: set[str] = set()
    top = max(float(shares.max()), 0.01) if len(shares) else 1.0
    for index, (block, part) in enumerate(zip(blocks, shares, strict=True)):
        treatment = block.treatment
        colour, hatch = TREATMENTS.get(treatment, (COLOURS["line"], ""))
        is_removed = treatment == "removed"
        look: dict[str, Any] = {
            "facecolor": colour,
            "edgecolor": COLOURS["muted"] if is_removed else COLOURS["amber"] if hatch else colour,
            "hatch": hatch,
            "linewidth": 0.8,
            "linestyle": (0, (2, 2)) if is_removed else "-",
        }
        label = None if treatment in seen else treatment
        axes.add_patch(Rectangle((index + 0.06, -0.2 * top), 0.88, 0.14 * top, label=label, **look))
        axes.add_patch(Rectangle((index + 0.06, 0), 0.88, part, **look))
        seen.add(treatment)
    step = max(1, -(-len(blocks) // 24))
    axes.set_xticks(
        [index + 0.5 for index in range(0, len(blocks), step)],
        [block.name for block in blocks[::step]],
        rotation=45 if len(blocks) > 8 else 0,
        ha="right" if len(blocks) > 8 else "center",
        rotation_mode="anchor",
    )
    axes.set(xlim=(0, max(len(blocks), 1)), ylim=(-0.25 * top, 1.08 * top))
    ticks = [tick for tick in MaxNLocator(3).tick_values(0, 100 * top) if 0 <= tick <= 108 * top]
    axes.set_yticks([tick / 100 for tick in ticks], [f"{tick:g} %" for tick in ticks])
    axes.set_ylabel("of all parameters")
    legend_above(axes, num_columns=6)
    quiet_axes(axes)
    axes.grid(visible=False, axis="x")
    return to_svg(figure, name="plan", label="What happened to each block of the network")
