"""The figures about the test: ROC, precision–recall, reliability, confusion; each returns one SVG string.

The curves are those of `medgraft.metrics`; full fine-tuning is always the thin dashed line.
"""

from collections.abc import Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from medgraft.metrics.cases import OneVsRest, known_labels, one_vs_rest
from medgraft.metrics.classification import confusion
from medgraft.metrics.ranking import pr_curve_points, roc_curve_points
from medgraft.metrics.reliability import reliability_curve, top_label
from medgraft.report.style import CLASS_COLOURS, COLOURS, STYLE, new_figure, quiet_axes, to_svg
from medgraft.types import Predictions

__all__ = ["MAX_NAMED_CLASSES", "confusion_figure", "ranking_figure", "reliability_figure"]

MAX_NAMED_CLASSES: Final = len(CLASS_COLOURS)
MAX_COUNTED_CLASSES: Final = 12
THIN_DASHES: Final = (0, (3, 2))


@matplotlib.rc_context(STYLE)
def ranking_figure(chosen: Predictions, baseline: Predictions | None) -> str:
    """ROC and precision–recall side by side, one colour per class, full fine-tuning thin and dashed.

    Args:
        chosen: The chosen model's predictions on test.
        baseline: Full fine-tuning on the same cases, or None.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.array([0, 1]), classes=("normal", "sick"), task="binary", positive=1)
        >>> "sick" in ranking_figure(pred, None)
        True
    """
    figure = new_figure(672, 350)
    roc, precision = figure.subplots(1, 2)
    parts = one_vs_rest(chosen)
    colours = _colours(parts)
    if baseline is not None:
        baseline_colours = colours if 1 < len(parts) <= MAX_NAMED_CLASSES else [COLOURS["baseline"]] * len(parts)
        for part, colour in zip(one_vs_rest(baseline), baseline_colours, strict=True):
            _draw_curves(roc, precision, part, colour, is_thin=True)
    for part, colour in zip(parts, colours, strict=True):
        _draw_curves(roc, precision, part, colour, is_thin=False)
    roc.plot([0, 1], [0, 1], color=COLOURS["line"], linewidth=1, zorder=0)
    roc.set(title="ROC", xlabel="1 − specificity", ylabel="sensitivity")
    precision.set(title="Precision–recall", xlabel="recall (sensitivity)", ylabel="precision (PPV)")
    for axes in (roc, precision):
        quiet_axes(axes, is_square=True)
    _legend(roc, parts, colours, has_baseline=baseline is not None)
    return to_svg(figure, name="ranking", label="ROC and precision-recall curves on test")


def _colours(parts: Sequence[OneVsRest]) -> list[str]:
    if len(parts) > MAX_NAMED_CLASSES:
        return [COLOURS["chosen"]] * len(parts)
    return list(CLASS_COLOURS[: len(parts)])


def _draw_curves(roc: Axes, precision: Axes, part: OneVsRest, colour: str, *, is_thin: bool) -> None:
    """Draw the ROC and the precision–recall curve of one class.

    Args:
        roc: Axes of the ROC curve, changed in place.
        precision: Axes of the precision–recall curve, changed in place.
        part: Scores and labels of one class against the rest.
        colour: Colour of both curves.
        is_thin: Whether lines are thin and dashed, without the share of the class.
    """
    look: dict[str, Any] = {"color": colour, "linewidth": 0.9 if is_thin else 1.8}
    dashes = THIN_DASHES if is_thin else "-"
    false_rate, true_rate, _ = roc_curve_points(part.scores, part.labels)
    roc.plot(false_rate, true_rate, linestyle=dashes, **look)
    recall, precise, _ = pr_curve_points(part.scores, part.labels)
    # Steps, not slopes: average precision is a sum of steps, and the first one starts at recall 0.
    precision.step(np.r_[0.0, recall], np.r_[precise[0], precise], where="pre", linestyle=dashes, **look)
    if not is_thin:
        precision.axhline(part.labels.mean(), color=colour, linewidth=0.8, alpha=0.45, linestyle=(0, (1, 2)))


def _legend(axes: Axes, parts: Sequence[OneVsRest], colours: Sequence[str], *, has_baseline: bool) -> None:
    """Name the classes by their colours, and full fine-tuning by its dashes.

    Args:
        axes: Changed in place.
        parts: The classes.
        colours: Colour of each class.
        has_baseline: Whether full fine-tuning is drawn, too.
    """
    if len(parts) <= MAX_NAMED_CLASSES:
        for part, colour in zip(parts, colours, strict=True):
            axes.plot([], [], color=colour, label=_short(part.name))
    else:
        axes.plot([], [], color=colours[0], label=f"{len(parts)} classes, one line each")
    if has_baseline:
        axes.plot([], [], color=COLOURS["baseline"], linewidth=0.9, linestyle=THIN_DASHES, label="full fine-tuning")
    axes.legend(loc="lower right")


@matplotlib.rc_context(STYLE)
def reliability_figure(chosen: Predictions, baseline: Predictions | None) -> str:
    """How often it was right against how sure it was, over the bins of ECE, above the cases per bin.

    Args:
        chosen: The chosen model's predictions on test.
        baseline: Full fine-tuning on the same cases, or None.

    References:
        Guo et al., On calibration of modern neural networks, ICML, 2017.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.array([0, 1]), classes=("normal", "sick"), task="binary", positive=1)
        >>> reliability_figure(pred, None).startswith("<svg")
        True
    """
    figure = new_figure(312, 350)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    start = 0.5 if chosen.task in ("binary", "multilabel") else 1 / len(chosen.classes)
    upper.plot([0, 1], [0, 1], color=COLOURS["line"], linewidth=1, zorder=0)
    for pred, colour, width in ((baseline, COLOURS["baseline"], 0.9), (chosen, COLOURS["chosen"], 1.8)):
        if pred is None:
            continue
        confidence, is_right = (part[known_labels(pred)] for part in top_label(pred))
        curve = reliability_curve(confidence, is_right)
        is_chosen = pred is chosen
        upper.plot(
            curve.confidence, curve.frequency, color=colour, linewidth=width,
            # Where all probabilities fall into one bin the line is a point.
            marker="o" if is_chosen or len(curve.confidence) == 1 else "", markersize=4,
            label="chosen" if is_chosen else "full fine-tuning",
            linestyle="-" if is_chosen else THIN_DASHES,
        )  # fmt: skip
        if is_chosen:
            lower.bar(
                curve.lower, curve.count, width=0.92 * (curve.upper - curve.lower), align="edge",
                color=COLOURS["chosen"], alpha=0.35,
            )  # fmt: skip
    upper.set(title="Calibration", ylabel="how often right", ylim=(-0.01, 1.03), xlim=(start - 0.02, 1.01))
    lower.set(xlabel="how sure (top probability)", ylabel="cases")
    upper.legend(loc="lower right")
    quiet_axes(upper)
    quiet_axes(lower, is_gridded=False)
    return to_svg(figure, name="reliability", label="Reliability diagram on test")


@matplotlib.rc_context(STYLE)
def confusion_figure(pred: Predictions, *, title: str = "Confusion") -> str:
    """Counts of true class (row) by called class (column), shaded by the share of the row.

    Args:
        pred: Binary or multiclass, on test.
        title: Whose predictions; keeps two matrices in one page apart.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.array([0, 1]), classes=("normal", "sick"), task="binary", positive=1)
        >>> "100" in confusion_figure(pred)
        True
    """
    counts = confusion(pred)
    num_classes = len(pred.classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(490, 230 + 44 * num_classes)
    figure = new_figure(side + 40 if side < 450 else 490, side)
    axes = figure.subplots()
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1.15, edgecolors="white", linewidth=2)
    if num_classes <= MAX_COUNTED_CLASSES:
        for row, column in np.ndindex(counts.shape):
            axes.text(
                column + 0.5, row + 0.5, f"{counts[row, column]}\n{100 * shares[row, column]:.0f} %",
                ha="center", va="center", fontsize=9 if num_classes <= 6 else 7,
                color="white" if shares[row, column] > 0.55 else COLOURS["ink"],
            )  # fmt: skip
    places = np.arange(num_classes) + 0.5
    names = [_short(name) for name in pred.classes]
    axes.set_xticks(places, names, rotation=0 if num_classes <= 3 else 40, ha="center" if num_classes <= 3 else "right")
    axes.set_yticks(places, names)
    axes.set(title=title, xlabel="called", ylabel="truly", aspect="equal")
    axes.invert_yaxis()
    quiet_axes(axes, is_gridded=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(labelcolor=COLOURS["ink"])
    return to_svg(figure, name=f"confusion-{title}", label=f"Confusion matrix on test: {title}")


def _short(name: str, limit: int = 22) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
