"""The page of a pretrained network on a cohort, before any training."""

from pathlib import Path

from markupsafe import Markup

import medgraft.report.formatting as fmt
from medgraft.files import write_text
from medgraft.report.analysis_figures import reuse_figure
from medgraft.report.environment import environment
from medgraft.report.tables import distance_rows, reuse_rows
from medgraft.result.analysis import AnalysisResult, read_analysis

__all__ = ["write_analysis"]


def write_analysis(folder: Path) -> Path:
    """The path of ``analysis.html``, written from ``analysis.json`` in `folder`.

    Raises:
        RunError: There is no finished analysis, or the page cannot be written.
    """
    result = read_analysis(folder)
    page = (
        environment(is_html=True)
        .get_template("analysis.html.j2")
        .render(
            result=result,
            headline=_headline(result),
            reuse_svg=Markup(reuse_figure(result, {})),
            reuse=reuse_rows(result),
            distances=distance_rows(result),
            source=result.distance.source if result.distance else "",
        )
    )
    return write_text(folder / "analysis.html", page)


def _headline(result: AnalysisResult) -> str:
    """Where frozen features are worth most, unless random weights do as well."""
    probes, chance = (
        {index: worth.probe for index, worth in signals.items()} for signals in (result.worth, result.worth_random)
    )
    best = max(probes, key=lambda index: probes[index])
    reached, by_chance = probes[best], max(chance.values())
    if reached <= by_chance:
        return (
            "Frozen pretrained features are worth no more than those of random weights: AUPRC "
            f"{fmt.number(reached)} against {fmt.number(by_chance)}."
        )
    return (
        f"Frozen features are worth most at cut {best} ({result.names[best]}): AUPRC {fmt.number(reached)}, "
        f"{fmt.number(by_chance)} with random weights."
    )
