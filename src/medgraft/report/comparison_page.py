"""The page of a comparison: the table of the papers, verdicts, cost against gain, learning curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup

from medgraft.evaluate.intervals import FEWEST_TRAININGS, Spread
from medgraft.files import write_text
from medgraft.report import formatting as fmt
from medgraft.report.comparison_figures import differences_figure, learning_figure, pareto_figure
from medgraft.report.environment import environment
from medgraft.report.prose import citation
from medgraft.result.comparison import MetricOverSeeds, StrategyResult, read_comparison

__all__ = ["comparison_rows", "write_comparison"]

_BASELINE: Final = "ftl"


def write_comparison(folder: Path) -> Path:
    """The path of ``comparison.html``, written from ``comparison.json`` in `folder`.

    Raises:
        RunError: There is no finished comparison, or the page cannot be written.
    """
    result = read_comparison(folder)
    fractions = result.fractions
    at_full = result.at(fractions[0])
    page = (
        environment(is_html=True)
        .get_template("comparison.html.j2")
        .render(
            result=result,
            sha256=result.weights.sha256 or "",
            headline=headline(at_full, result.margin, len(result.seeds)),
            tables=[
                {
                    "fraction": fmt.percent(fraction),
                    "num_train": fmt.integer(result.at(fraction)[0].num_train),
                    "rows": comparison_rows(result.at(fraction)),
                }
                for fraction in fractions
            ],
            has_second=any(row.second_difference is not None for row in result.rows),
            has_gpu=any(row.gpu_ms is not None for row in result.rows),
            differences_svg=Markup(differences_figure(at_full, result.margin)),
            pareto_svg=Markup(pareto_figure(at_full)),
            learning_svg=Markup(learning_figure(result.rows)) if len(fractions) > 1 else "",
            citation=citation(result.versions),
        )
    )
    return write_text(folder / "comparison.html", page)


def headline(rows: Sequence[StrategyResult], margin: float, num_trainings: int) -> str:
    """One sentence: which strategies are at least as good as full fine-tuning, and the smallest of them.

    Args:
        rows: Strategies at one fraction.
        margin: Non-inferiority margin, in AUROC.
        num_trainings: Seeds of each.
    """
    good = [row for row in rows if row.verdict in ("better", "non-inferior")]
    if not good:
        return f"Against full fine-tuning, no strategy is proven non-inferior (margin {fmt.number(margin)})."
    smallest = min(good, key=lambda row: row.num_params)
    base = next(row for row in rows if row.strategy == _BASELINE)
    share = fmt.percent(smallest.num_params / base.num_params)
    names = ", ".join(row.strategy for row in good)
    # The fairer baseline is no strategy: it is outside the family that p is adjusted for.
    better = [row.strategy for row in good if row.verdict == "better" and row.difference["auroc"].p_holm is not None]
    more = f" Better: {', '.join(better)}." if better else ""
    start = "As trained here, non" if num_trainings < FEWEST_TRAININGS else "Non"
    return (
        f"{start}-inferior to full fine-tuning: {names}.{more} The smallest is {smallest.strategy} with "
        f"{share} of the parameters."
    )


def comparison_rows(rows: Sequence[StrategyResult]) -> list[dict[str, str]]:
    """One row of text per strategy, best AUROC first.

    Args:
        rows: Strategies at one fraction.
    """
    return [_cells(row) for row in sorted(rows, key=lambda row: -row.test["auroc"].mean)]


def _cells(row: StrategyResult) -> dict[str, str]:
    gap = row.difference.get("auroc")
    return {
        "strategy": row.strategy,
        # Only hybrid has a head that others have not.
        "head": row.head if row.head != "pooled" else "",
        "depth": str(row.cut.index) if row.cut else fmt.ABSENT,
        "depth_name": row.cut.name if row.cut and row.cut.index else "",
        "lr": fmt.learning_rate(row.lr) if row.lr else fmt.ABSENT,
        "auroc": _mean(row.test["auroc"]),
        "auroc_interval": fmt.interval(row.test["auroc"]),
        "auprc": _mean(row.test["auprc"]),
        "auprc_interval": fmt.interval(row.test["auprc"]),
        "ece": fmt.number(row.test["ece"].mean),
        "difference": fmt.signed(gap) if gap else fmt.ABSENT,
        "difference_interval": fmt.interval(gap, is_signed=True) if gap else "",
        "spread": _spread(gap.spread) if gap and gap.spread else "",
        "p": fmt.p_value(gap.p_holm).removeprefix("p = ").removeprefix("p ") if gap else "",
        "verdict": row.verdict or "baseline",
        "num_params": fmt.si(row.num_params),
        "macs": fmt.si(row.macs),
        "cpu_ms": fmt.milliseconds(row.cpu_ms),
        "gpu_ms": fmt.milliseconds(row.gpu_ms),
        "cost": f"{row.cost_in_ftl:.2f}",
        "seconds": f"{row.seconds_in_ftl:.2f}",
        "second": fmt.signed_with_interval(row.second_difference) if row.second_difference else "",
    }


def _spread(spread: Spread) -> str:
    """Standard errors in short: the table is wide."""
    return f"SE {fmt.number(spread.cases)} cases, {fmt.number(spread.trainings)} seeds"


def _mean(metric: MetricOverSeeds) -> str:
    return fmt.sd_over_seeds(metric) or fmt.number(metric.mean)
