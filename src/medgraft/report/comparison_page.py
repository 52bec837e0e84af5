"""The page of a comparison: the table of the papers, verdicts, cost against gain, learning curves."""

from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from medgraft.files import write_text
from medgraft.report import formatting as fmt
from medgraft.report.comparison_figures import differences_figure, learning_figure, pareto_figure
from medgraft.report.prose import citation
from medgraft.report.reading import read_results
from medgraft.report.rendering import environment

__all__ = ["comparison_rows", "write_comparison"]

_BASELINE: Final = "ftl"
_LEVEL: Final = 0.05


def write_comparison(folder: Path) -> Path:
    """The path of ``comparison.html``, written from ``comparison.json`` in `folder`.

    Raises:
        RunError: There is no finished comparison, or the page cannot be written.
    """
    results = read_results(folder, "comparison.json")
    rows = results["rows"]
    fractions = sorted({row["fraction"] for row in rows}, reverse=True)
    at_full = [row for row in rows if row["fraction"] == fractions[0]]
    page = (
        environment(is_html=True)
        .get_template("comparison.html.j2")
        .render(
            results=results,
            headline=headline(at_full, results["margin"]),
            tables=[
                {
                    "fraction": fmt.percent(fraction),
                    "num_train": fmt.integer(next(r["num_train"] for r in rows if r["fraction"] == fraction)),
                    "rows": comparison_rows([row for row in rows if row["fraction"] == fraction]),
                }
                for fraction in fractions
            ],
            has_second=any("second_difference" in row for row in rows),
            has_gpu=any("gpu_ms" in row for row in rows),
            differences_svg=Markup(differences_figure(at_full, results["margin"])),
            pareto_svg=Markup(pareto_figure(at_full)),
            learning_svg=Markup(learning_figure(rows)) if len(fractions) > 1 else "",
            citation=citation(results["versions"]),
        )
    )
    return write_text(folder / "comparison.html", page)


def headline(rows: list[dict[str, Any]], margin: float) -> str:
    """One sentence: which strategies are at least as good as full fine-tuning, and the smallest of them."""
    good = [row for row in rows if row.get("verdict") in ("better", "non-inferior")]
    if not good:
        return f"Against full fine-tuning, no strategy is proven non-inferior (margin {fmt.number(margin)})."
    smallest = min(good, key=lambda row: row["num_params"])
    base = next(row for row in rows if row["strategy"] == _BASELINE)
    share = fmt.percent(smallest["num_params"] / base["num_params"])
    names = ", ".join(row["strategy"] for row in good)
    # Better is said only where it outlives the adjustment for all that were asked.
    better = [row["strategy"] for row in good if row["verdict"] == "better" and _is_adjusted(row)]
    more = f" Better: {', '.join(better)}." if better else ""
    return (
        f"Non-inferior to full fine-tuning: {names}.{more} The smallest is {smallest['strategy']} with "
        f"{share} of the parameters."
    )


def _is_adjusted(row: dict[str, Any]) -> bool:
    p = row["difference"]["auroc"]["p_holm"]
    return p is not None and bool(p < _LEVEL)


def comparison_rows(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One row of text per strategy, best AUROC first.

    Args:
        rows: Of one fraction, as in ``comparison.json``.
    """
    return [
        {
            "strategy": row["strategy"],
            # Only hybrid has a head that others have not.
            "head": row["head"] if row["head"] != "pooled" else "",
            "depth": str(row["cut"]["index"]) if row["cut"] else fmt.ABSENT,
            "depth_name": row["cut"]["name"] if row["cut"] and row["cut"]["index"] else "",
            "lr": fmt.learning_rate(row["lr"]) if row["lr"] else fmt.ABSENT,
            "auroc": _mean(row["test"]["auroc"]),
            "auroc_interval": fmt.interval(row["test"]["auroc"]),
            "auprc": _mean(row["test"]["auprc"]),
            "auprc_interval": fmt.interval(row["test"]["auprc"]),
            "ece": fmt.number(row["test"]["ece"]["mean"]),
            "difference": fmt.signed(row["difference"]["auroc"]) if "difference" in row else fmt.ABSENT,
            "difference_interval": fmt.interval(row["difference"]["auroc"], is_signed=True)
            if "difference" in row
            else "",
            "p": fmt.p_value(row["difference"]["auroc"]["p_holm"]).removeprefix("p = ").removeprefix("p ")
            if "difference" in row
            else "",
            "verdict": row.get("verdict", "baseline"),
            "num_params": fmt.si(row["num_params"]),
            "macs": fmt.si(row["macs"]),
            "cpu_ms": fmt.milliseconds(row["cpu_ms"]),
            "gpu_ms": fmt.milliseconds(row.get("gpu_ms")),
            "cost": f"{row['cost_in_ftl']:.2f}",
            "seconds": f"{row['seconds_in_ftl']:.2f}" if "seconds_in_ftl" in row else "",
            "second": fmt.signed_with_interval(row["second_difference"]) if "second_difference" in row else "",
        }
        for row in sorted(rows, key=lambda row: -row["test"]["auroc"]["mean"])
    ]


def _mean(metric: dict[str, Any]) -> str:
    return fmt.sd_over_seeds(metric) or fmt.number(metric["mean"])
