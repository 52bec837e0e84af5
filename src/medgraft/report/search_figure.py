"""The figure about the search: validation score against the cut, above the size of what is deployed there."""

from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from medgraft.metrics.measures import MEASURES, Measure
from medgraft.report.style import COLOURS, STYLE, legend_above, new_figure, quiet_axes, to_svg
from medgraft.search.rule import Choice
from medgraft.search.tables import is_searched

__all__ = ["cut_figure"]

# How far below the best scores are shown; lower ones are told in words at the lower edge.
_MOST_SHOWN: Final = 0.15
_FULL: Final = "full fine-tuning"
_PROBE: Final = "probe on fine-tuned features"
_NOTHING: Final = pd.Series(dtype=float)


@matplotlib.rc_context(STYLE)
def cut_figure(
    search: pd.DataFrame,
    choice: Choice | None,
    *,
    signals: pd.DataFrame | None = None,
    measure: Measure = MEASURES["labels"],
    fold: int | None = None,
) -> str:
    """Validation score against the cut, above what is deployed at that cut.

    Args:
        search: One row per trial: cut, the column of `measure`, role, and where known stage, seed, num_params, macs,
            is_pretrained.
        choice: The rule's choice; without it nothing is marked.
        signals: One row per cut with its stage, num_params, macs and is_pretrained, and ``probe`` where a linear
            probe was solved at each.
        measure: Which score chooses.
        fold: Fold that `choice` belongs to, counted in the column ``seed``; the others are grey. None: there are no
            folds.

    Examples:
        >>> table = pd.DataFrame({"cut": [1, 2], "val_auprc": [0.7, 0.8], "role": ["stage", "stage"]})
        >>> cut_figure(table, None).startswith("<svg")
        True
    """
    score_name = f"validation {measure.chooses_name}"
    search = search.rename(columns={measure.column: "score"})
    trials = search[search["role"].map(is_searched).astype(bool)]
    is_rung = trials["role"].str.startswith("rung")
    if is_rung.any():
        # A cut that was trained on is shown as it was in the end.
        trials = pd.concat([trials[~is_rung], trials[is_rung].groupby(["cut", "seed"]).tail(1)])
    baseline = search[search["role"] == "baseline"]
    if "seed" in search and len(trials):
        # Seeds that were trained only to repeat the choice say nothing about the search.
        baseline = baseline[baseline["seed"].isin(trials["seed"])]
    means = trials.groupby("cut").mean(numeric_only=True).sort_index()
    has_sizes = {"num_params", "macs"} <= set(means.columns)
    # A search that begins with full fine-tuning trains few cuts, but has looked at all of them.
    seen = trials if signals is None else pd.concat([trials, signals])
    figure = new_figure(1000, 490 if has_sizes else 340)
    if has_sizes:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        _size_axes(lower, seen.groupby("cut").first().sort_index(), baseline)
        _stage_bands(lower, seen, is_named=False)
        lower.set_xlabel("cut (1 = stem)")
    else:
        upper = figure.subplots()
        upper.set_xlabel("cut (1 = stem)")
    _stage_bands(upper, seen, is_named=True)
    probes = None if signals is None or "probe" not in signals else signals.set_index("cut")["probe"]
    _score_axes(upper, trials, baseline, probes, fold, is_dense=signals is None)
    if choice:
        _mark_choice(upper, choice, measure, is_dense=signals is None)
    # Depth 0 (nothing stays frozen) stands left of the stem.
    first, last = min(1, int(search["cut"].min())), int(search["cut"].max())
    upper.set(ylabel=score_name, xlim=(first - 0.6, last + 0.6))
    upper.set_xticks(sorted({int(cut) for cut in (*search["cut"], *seen["cut"])}))
    legend_above(upper, num_columns=4)
    quiet_axes(upper)
    upper.grid(visible=False, axis="x")
    return to_svg(figure, name="cuts", label=f"{score_name} and size against the cut")


def _stage_bands(axes: Axes, seen: pd.DataFrame, *, is_named: bool) -> None:
    """Shade every other stage, and hatch cuts whose weights are partly random.

    Args:
        axes: Changed in place.
        seen: Cuts that were looked at, with stage and is_pretrained where known.
        is_named: Whether stages are named and the hatching is labelled.
    """
    if "stage" in seen.columns and len(seen):
        spans = seen.groupby("stage")["cut"].agg(["min", "max"]).sort_index()
        edges = [
            0.4,
            *((spans["max"].to_numpy()[:-1] + spans["min"].to_numpy()[1:]) / 2),
            spans["max"].max() + 0.6,
        ]
        for number_of_band, (stage, start, stop) in enumerate(zip(spans.index, edges[:-1], edges[1:], strict=True)):
            if number_of_band % 2 == 0:
                axes.axvspan(start, stop, color=COLOURS["band"], linewidth=0, zorder=0)
            if is_named:
                axes.text(
                    (start + stop) / 2,
                    0.985,
                    f"stage {stage}" if len(spans) <= 9 else f"{stage}",
                    transform=axes.get_xaxis_transform(),
                    ha="center",
                    va="top",
                    color=COLOURS["muted"],
                    fontsize=7.5,
                )
    if "is_pretrained" in seen.columns:
        partly_random = seen[seen["is_pretrained"].astype(str).str.lower().isin(("false", "0", "0.0"))]
        for count, cut in enumerate(sorted(set(partly_random["cut"]))):
            label = "partly random weights" if is_named and not count else None
            axes.axvspan(
                cut - 0.5,
                cut + 0.5,
                facecolor="none",
                edgecolor=COLOURS["line"],
                hatch="////",
                linewidth=0,
                label=label,
            )


def _score_axes(
    axes: Axes,
    trials: pd.DataFrame,
    baseline: pd.DataFrame,
    probes: "pd.Series[float] | None",
    fold: int | None,
    *,
    is_dense: bool,
) -> None:
    """The line of the means and full fine-tuning, each seed in grey; or those of one fold, and in grey the others.

    Args:
        axes: Changed in place.
        trials: One row per trial: cut, seed, score.
        baseline: Trials of full fine-tuning.
        probes: Scores of probes by cut; None where none were solved.
        fold: Fold that stands in colour; None: there are no folds.
        is_dense: Whether a line joins the means.
    """
    dots, label = trials, "each seed"
    if fold is not None:
        dots, label = trials[trials["seed"] != fold], "other folds"
        trials, baseline = trials[trials["seed"] == fold], baseline[baseline["seed"] == fold]
    means = trials.groupby("cut").mean(numeric_only=True).sort_index()["score"]
    level = pd.Series(baseline["score"].mean(), index=[baseline["cut"].mean()]) if len(baseline) else _NOTHING
    seen = _NOTHING if probes is None else probes
    spread = dots.set_index("cut")["score"] if len(dots) > (len(means) if fold is None else 0) else _NOTHING
    lowest = _limits(axes, pd.concat([means, level, seen, spread]))
    if len(level):
        axes.axhline(level.iloc[0], color=COLOURS["baseline"], linewidth=1.2, linestyle=(0, (5, 3)), label=_FULL)
        _marks(axes, level, lowest, COLOURS["baseline"], marker="D", markersize=6, zorder=4, linestyle="none")
    if is_dense:
        axes.plot(means.index, means, color=COLOURS["chosen"], alpha=0.55, linewidth=1.3)
    if len(spread):
        _marks(
            axes, spread, lowest, COLOURS["muted"], marker="o", alpha=0.55, markersize=3, linestyle="none", label=label
        )
    look: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": COLOURS["chosen"], "linestyle": "none"}
    _marks(axes, means, lowest, COLOURS["chosen"], marker="o", markersize=6, **look)
    if len(seen):
        _marks(axes, seen, lowest, COLOURS["muted"], marker=".", linewidth=0.9, markersize=4, label=_PROBE)


def _limits(axes: Axes, scores: "pd.Series[float]") -> float:
    """The lowest score that is shown, after the axes were set: a stem that can do nothing would press all others."""
    lowest = max(float(scores.min()), float(scores.max()) - _MOST_SHOWN)
    reach = max(float(scores.max()) - lowest, 0.01)
    # Room above for the names of the stages, below for what lies under the edge.
    axes.set_ylim(lowest - 0.12 * reach, scores.max() + 0.22 * reach)
    return lowest


def _marks(axes: Axes, scores: "pd.Series[float]", lowest: float, colour: str, **look: Any) -> None:
    """Scores at their cuts; those far below the best are told in words at the lower edge, the highest of each cut.

    Args:
        axes: Changed in place.
        scores: Scores by cut.
        lowest: Lowest score that is marked at its place.
        colour: Colour of marks and words.
        look: Further arguments of `Axes.plot`.
    """
    shown, below = scores[scores >= lowest], scores[scores < lowest]
    axes.plot(shown.index, shown, color=colour, **look)
    edge = axes.get_ylim()[0] + 0.02 * (lowest - axes.get_ylim()[0])
    for cut, value in below.groupby(level=0).max().items():
        if cut not in shown.index:
            position = (float(str(cut)), edge)
            axes.annotate(f"▾ {value:.2f}", position, ha="center", va="bottom", color=colour, fontsize=7.5)


def _mark_choice(axes: Axes, choice: Choice, measure: Measure, *, is_dense: bool) -> None:
    """Mark the chosen and the best cut, the deviations of the differences, and what ``compact`` accepts.

    Args:
        axes: Changed in place.
        choice: The rule's choice with all candidates.
        measure: Tells whether the tolerance alone decides.
        is_dense: Whether a band shows the deviations instead of single bars.
    """
    candidates = sorted(choice.candidates, key=lambda candidate: candidate.cut)
    cuts, scores, sd = (
        np.array([getattr(candidate, name) for candidate in candidates]) for name in ("cut", "score", "sd_difference")
    )
    label = "± 1 SD of the difference to the best"
    if is_dense:
        axes.fill_between(cuts, scores - sd, scores + sd, color=COLOURS["chosen"], alpha=0.12, linewidth=0, label=label)
    else:
        # Far from each other nothing is known about what lies between.
        axes.errorbar(
            cuts, scores, sd, color=COLOURS["chosen"], alpha=0.25, linewidth=9, linestyle="none", label=label,
        )  # fmt: skip
    at = {int(cut): float(score) for cut, score in zip(cuts, scores, strict=True)}
    if choice.rule == "compact" and choice.sure is None:
        tolerance = np.full(len(cuts), choice.tolerance)
        accepted = tolerance if measure.tolerance_alone else np.minimum(sd, tolerance)
        threshold = at[choice.best] - accepted
        axes.plot(
            cuts, threshold, "_", color=COLOURS["best"], markersize=15, markeredgewidth=1.6,
            label="compact threshold",
        )  # fmt: skip
    elif choice.rule == "compact":
        eligible = np.array([candidate.eligible for candidate in candidates])
        axes.plot(
            cuts[eligible], scores[eligible], "_", color=COLOURS["best"], markersize=15, markeredgewidth=1.6,
            label=f"probably within {choice.tolerance:g}",
        )  # fmt: skip
    # A cut that similarity chose may lie far below the best: its mark stands at the edge.
    low = axes.get_ylim()[0]
    axes.plot([choice.best], [at[choice.best]], "o", color="none", markeredgecolor=COLOURS["best"],
              markersize=15, markeredgewidth=1.4, label="best")  # fmt: skip
    axes.plot([choice.chosen], [max(low, at[choice.chosen])], "o", color=COLOURS["chosen"], markersize=9, zorder=5,
              label="chosen")  # fmt: skip


def _size_axes(axes: Axes, sizes: pd.DataFrame, baseline: pd.DataFrame) -> None:
    """Draw parameters and multiply-accumulates at each cut as shares of the full network.

    Args:
        axes: Changed in place.
        sizes: num_params and macs by cut.
        baseline: Trials of full fine-tuning; without any the largest cut is the full network.
    """
    for column, colour, label in (
        ("num_params", COLOURS["good"], "parameters"),
        ("macs", COLOURS["second"], "MACs"),
    ):
        whole = baseline[column].mean() if len(baseline) and column in baseline else sizes[column].max()
        if not whole or np.isnan(whole):
            continue
        percentages = 100 * sizes[column].dropna() / whole
        shares = dict(zip(percentages.index.tolist(), percentages.tolist(), strict=True))
        if len(baseline):
            shares[int(baseline["cut"].mean())] = 100.0
        axes.plot(list(shares), list(shares.values()), "o-", color=colour, markersize=3.5, label=label)
    axes.set(ylim=(0, None), ylabel="% of full network")
    axes.set_ylim(0, max(105.0, axes.get_ylim()[1]))
    axes.legend(loc="upper left")
    quiet_axes(axes)
    axes.grid(visible=False, axis="x")
