"""The figures of feature reuse: what transfer changed at every cut, beside chance, and what each cut is worth."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from medgraft.analysis.change import LayerChange
from medgraft.report.style import COLOURS, STYLE, legend_above, new_figure, quiet_axes, to_svg
from medgraft.result.analysis import AnalysisResult, DepthGain, OtherRun, RunPoint
from medgraft.result.run import CutFacts

__all__ = [
    "change_figure",
    "curves_figure",
    "distance_figure",
    "gain_figure",
    "heat_figure",
    "other_figure",
    "reuse_figure",
]

# What probes were solved on, with the colour and the name of their curve.
_PROBES = {
    "before": ("amber", "probe on pretrained features"),
    "after": ("good", "probe on fine-tuned features"),
    "random": ("muted", "probe on features of random weights"),
}

_MAX_PANELS = 12


@matplotlib.rc_context(STYLE)
def reuse_figure(analysis: AnalysisResult, val_auprc: Mapping[int, float]) -> str:
    """Above: validation score of trained cuts and of probes; below: SVCCA coefficients before and after transfer.

    Where nothing was trained, the coefficients are those between pretrained and random weights. As Peng et al., BMVC
    2023, Fig. 4: one distribution per cut, the random reference of the same size beside it.

    Args:
        analysis: A run's analysis, or a cohort's.
        val_auprc: Cut index to the score of the model trained there, as far as the search did.
    """
    cuts = [cut.index for cut in analysis.cuts]
    figure = new_figure(1000, 520)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.2))
    if val_auprc:
        trained = sorted(val_auprc)
        upper.plot(trained, [val_auprc[i] for i in trained], "o-", color=COLOURS["chosen"], label="trained, cut here")
    curves = {"before": analysis.worth, "after": analysis.worth_after, "random": analysis.worth_random}
    for key, worth in curves.items():
        if not worth:
            continue
        colour, label = _PROBES[key]
        values = [worth[i].probe for i in cuts]
        upper.plot(cuts, values, "-", color=COLOURS[colour], linewidth=1.2, label=label)
    upper.set_ylabel("validation AUPRC")
    legend_above(upper, num_columns=3)
    measures = analysis.after or analysis.random
    for offset, key, colour in ((-0.17, "svcca", COLOURS["chosen"]), (0.17, "reference", COLOURS["line"])):
        values = [getattr(measures[i], key) for i in cuts]
        boxes = lower.boxplot(
            values, positions=[i + offset for i in cuts], widths=0.28, showfliers=False, patch_artist=True,
            medianprops={"color": COLOURS["ink"], "linewidth": 1}, boxprops={"linewidth": 0.6},
            whiskerprops={"linewidth": 0.6}, capprops={"linewidth": 0.6},
        )  # fmt: skip
        for box in boxes["boxes"]:
            box.set(facecolor=colour, alpha=0.8)
    lower.set(ylim=(-0.03, 1.03), ylabel="SVCCA coefficients", xlabel="cut (1 = stem)", xlim=(0.4, cuts[-1] + 0.6))
    lower.set_xticks(cuts, [str(i) for i in cuts])
    for axes in (upper, lower):
        quiet_axes(axes)
        axes.grid(visible=False, axis="x")
    return to_svg(figure, name="reuse", label="validation score and SVCCA coefficients at every cut")


@matplotlib.rc_context(STYLE)
def curves_figure(analysis: AnalysisResult) -> str:
    """SVCCA coefficients over their index, a panel per cut: after transfer, a random network, random features.

    Args:
        analysis: A run's analysis, or a cohort's.
    """
    cuts = analysis.cuts
    step = -(-len(cuts) // _MAX_PANELS)
    # From the top down, so that the last cut is always among them.
    shown = list(reversed(cuts[::-1][::step]))
    rows = -(-len(shown) // 4)
    figure = new_figure(1000, 60 + 170 * rows)
    panels = np.atleast_1d(figure.subplots(rows, 4, sharex=True, sharey=True, squeeze=False)).ravel()
    for axes, cut in zip(panels, shown, strict=False):
        after, random = analysis.after[cut.index], analysis.random[cut.index]
        for values, colour, label in (
            (after.svcca, COLOURS["chosen"], "after transfer"),
            (random.svcca, COLOURS["best"], "random weights"),
            (after.reference, COLOURS["muted"], "random features"),
        ):
            axes.plot(np.linspace(0, 1, len(values)), values, color=colour, linewidth=1.4, label=label)
        axes.set_title(f"{cut.index} {cut.name}: area {after.area:.2f}", fontsize=8)
        axes.set(ylim=(-0.03, 1.05))
        quiet_axes(axes)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    panels[0].legend(loc="lower left", fontsize=7)
    figure.supxlabel("index of the coefficient, 0 to 1", fontsize=8, color=COLOURS["muted"])
    return to_svg(figure, name="curves", label="SVCCA coefficients of every cut beside chance")


@matplotlib.rc_context(STYLE)
def heat_figure(analysis: AnalysisResult) -> str:
    """Linear CKA of every cut with every other one: before against after transfer, and within the fine-tuned network.

    Args:
        analysis: A run's analysis, or a cohort's.
    """
    indices = [cut.index for cut in analysis.cuts]
    figure = new_figure(1000, 460)
    panels = figure.subplots(1, 2)
    shown = (
        (analysis.cka_before_after, "pretrained against fine-tuned"),
        (analysis.cka_after, "fine-tuned against itself"),
    )
    for axes, (matrix, title) in zip(panels, shown, strict=True):
        image = axes.imshow(np.asarray(matrix), origin="lower", vmin=0, vmax=1, cmap="cividis", aspect="equal")
        places = range(0, len(indices), -(-len(indices) // 10))
        axes.set_xticks(list(places), [str(indices[i]) for i in places])
        axes.set_yticks(list(places), [str(indices[i]) for i in places])
        axes.set(title=title, xlabel="cut", ylabel="cut")
        quiet_axes(axes, is_gridded=False)
    figure.colorbar(image, ax=list(panels), shrink=0.7, label="linear CKA")
    return to_svg(figure, name="heat", label="CKA of every cut with every other one")


@matplotlib.rc_context(STYLE)
def change_figure(analysis: AnalysisResult) -> str:
    """Per block: how far its weights moved, and what putting it back to its pretrained state costs.

    Args:
        analysis: A run's analysis, or a cohort's.
    """
    cuts = [cut.index for cut in analysis.cuts]
    figure = new_figure(1000, 300)
    left, right = figure.subplots(1, 2)
    moved = _by_block(analysis.weights)
    left.bar(cuts, [moved.get(i, 0.0) for i in cuts], color=COLOURS["sky"], width=0.7)
    left.set(title="Change of the weights, relative to their length", xlabel="block")
    lost = [analysis.importance.get(i, 0.0) for i in cuts]
    right.bar(cuts, lost, color=COLOURS["amber"], width=0.7)
    right.set(title="Validation AUPRC lost when the block is put back", xlabel="block")
    for axes in (left, right):
        axes.set_xticks(cuts[:: -(-len(cuts) // 12)])
        quiet_axes(axes)
        axes.grid(visible=False, axis="x")
    return to_svg(figure, name="change", label="change and importance of every block")


def _by_block(changes: Sequence[LayerChange]) -> dict[int, float]:
    """Relative length of the change of a block: its layers' changes and lengths added in squares."""
    squares: dict[int, list[float]] = {}
    for change in changes:
        totals = squares.setdefault(change.block, [0.0, 0.0])
        totals[0] += change.l2**2
        totals[1] += change.length**2
    return {block: (moved / length) ** 0.5 for block, (moved, length) in squares.items() if length}


@matplotlib.rc_context(STYLE)
def gain_figure(rows: Sequence[DepthGain]) -> str:
    """What pretrained weights up to a depth bring over random ones with their statistics, on validation.

    As Matsoukas et al., CVPR 2022, Fig. 4 (WT-ST).

    Args:
        rows: Rows of an analysis, depth 0 first.
    """
    depths, gains = [row.depth for row in rows], [row.gain for row in rows]
    figure = new_figure(1000, 260)
    axes = figure.subplots()
    axes.axhline(0, color=COLOURS["line"], linewidth=1)
    axes.plot(depths, gains, "o-", color=COLOURS["chosen"], linewidth=1.4)
    axes.set(xlabel="weights kept up to cut (0: none)", ylabel="gain, validation AUPRC")
    axes.set_xticks(depths)
    quiet_axes(axes)
    axes.grid(visible=False, axis="x")
    return to_svg(figure, name="gain", label="gain of pretrained weights by depth")


@matplotlib.rc_context(STYLE)
def distance_figure(points: Sequence[RunPoint]) -> str:
    """Every run a point: distance of its images to the source against the gain of the pretrained weights.

    As Matsoukas et al., CVPR 2022, Fig. 2.

    Args:
        points: The runs.
    """
    figure = new_figure(1000, 300)
    axes = figure.subplots()
    for point in points:
        axes.plot(point.ci95, [point.gain] * 2, color=COLOURS["muted"], linewidth=1)
        axes.plot([point.fid], [point.gain], "o", color=COLOURS["chosen"], markersize=6)
        axes.annotate(point.run, (point.fid, point.gain), (5, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel="FID to the source, last cut (95 % interval)", ylabel="gain, validation AUPRC")
    quiet_axes(axes)
    return to_svg(figure, name="distance", label="gain of pretrained weights against the distance to their source")


@matplotlib.rc_context(STYLE)
def other_figure(other: OtherRun, cuts: Sequence[CutFacts]) -> str:
    """Two runs of one network: SVCCA and CKA of every cut with its counterpart, and CKA of all pairs.

    Args:
        other: The second run beside this one.
        cuts: The cuts of the network.
    """
    indices = [cut.index for cut in cuts]
    figure = new_figure(1000, 340)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for key, colour, label in (("mean", "chosen", "SVCCA, mean"), ("cka", "good", "CKA")):
        left.plot(indices, [getattr(other.cuts[i], key) for i in indices], "o-", color=COLOURS[colour], label=label)
    chance = [float(np.mean(other.cuts[i].reference)) for i in indices]
    left.plot(indices, chance, "--", color=COLOURS["muted"], label="SVCCA, random features")
    left.set(ylim=(-0.03, 1.03), xlabel="cut", ylabel="similarity")
    left.set_xticks(indices[:: -(-len(indices) // 14)])
    left.legend(fontsize=8)
    image = right.imshow(np.asarray(other.cka), origin="lower", vmin=0, vmax=1, cmap="cividis", aspect="equal")
    places = list(range(0, len(indices), -(-len(indices) // 8)))
    right.set_xticks(places, [str(indices[i]) for i in places])
    right.set_yticks(places, [str(indices[i]) for i in places])
    right.set(xlabel=f"cut, {other.run}", ylabel="cut, this run")
    figure.colorbar(image, ax=right, shrink=0.8, label="linear CKA")
    quiet_axes(left)
    quiet_axes(right, is_gridded=False)
    return to_svg(figure, name="other", label="similarity of two runs at every cut")
