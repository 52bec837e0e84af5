"""The page of a pretrained network on a cohort, before any training."""

from pathlib import Path

from markupsafe import Markup

import medgraft.report.formatting as fmt
from medgraft.report.analysis_figures import reuse_figure
from medgraft.report.reading import look_up, read_results
from medgraft.report.rendering import environment, write_whole
from medgraft.report.tables import distance_rows, reuse_rows

__all__ = ["write_analysis"]


def write_analysis(folder: Path) -> Path:
    """The path of ``analysis.html``, written from ``analysis.json`` in `folder`.

    Raises:
        RunError: There is no finished analysis, or the page cannot be written.
    """
    results = read_results(folder, "analysis.json")
    probes = {cut["index"]: results["signals"]["before"][str(cut["index"])]["probe"] for cut in results["cuts"]}
    best = max(probes, key=lambda index: probes[index])
    name = next(cut["name"] for cut in results["cuts"] if cut["index"] == best)
    page = (
        environment(is_html=True)
        .get_template("analysis.html.j2")
        .render(
            results=results,
            headline=f"Frozen features are worth most at cut {best} ({name}): AUPRC {fmt.number(probes[best])}.",
            reuse_svg=Markup(reuse_figure(results, {})),
            reuse=reuse_rows(results),
            distances=distance_rows(results),
            source=look_up(results, "distance.source", ""),
        )
    )
    return write_whole(folder / "analysis.html", page)
