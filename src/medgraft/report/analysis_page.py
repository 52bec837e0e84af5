"""The page of a pretrained network on a cohort, before any training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

import medgraft.report.formatting as fmt
from medgraft.files import write_text
from medgraft.report.analysis_figures import reuse_figure
from medgraft.report.reading import read_results
from medgraft.report.rendering import environment
from medgraft.report.tables import distance_rows, reuse_rows

__all__ = ["write_analysis"]


def write_analysis(folder: Path) -> Path:
    """The path of ``analysis.html``, written from ``analysis.json`` in `folder`.

    Raises:
        RunError: There is no finished analysis, or the page cannot be written.
    """
    results = read_results(folder, "analysis.json")
    page = (
        environment(is_html=True)
        .get_template("analysis.html.j2")
        .render(
            results=results,
            headline=_headline(results),
            reuse_svg=Markup(reuse_figure(results, {})),
            reuse=reuse_rows(results),
            distances=distance_rows(results),
            source=results.get("distance", {}).get("source", ""),
        )
    )
    return write_text(folder / "analysis.html", page)


def _headline(results: Mapping[str, Any]) -> str:
    """Where frozen features are worth most, unless random weights do as well."""
    names = {str(cut["index"]): cut["name"] for cut in results["cuts"]}
    probes, chance = (
        {index: worth["probe"] for index, worth in results["signals"][key].items()} for key in ("before", "random")
    )
    best = max(probes, key=lambda index: probes[index])
    reached, by_chance = probes[best], max(chance.values())
    if reached <= by_chance:
        return (
            "Frozen pretrained features are worth no more than those of random weights: AUPRC "
            f"{fmt.number(reached)} against {fmt.number(by_chance)}."
        )
    return (
        f"Frozen features are worth most at cut {best} ({names[best]}): AUPRC {fmt.number(reached)}, "
        f"{fmt.number(by_chance)} with random weights."
    )
