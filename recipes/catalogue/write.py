"""Write what follows from the catalogue of sources: docs/sources.md, and the size of every source's network.

python recipes/catalogue/write.py
"""

from pathlib import Path

import torch

from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.sources.catalogue import SOURCES
from medgraft.sources.fingerprint import size_of
from medgraft.sources.known import KnownSource
from medgraft.sources.layouts.published import LAYOUTS
from medgraft.sources.layouts.value import Layout

ROOT = Path(__file__).resolve().parents[2]
SIZES = ROOT / "src" / "medgraft" / "sources" / "catalogue" / "sizes.py"
PAGE = ROOT / "docs" / "sources.md"
BEGIN, END = "<!-- catalogue: begin, written by recipes/catalogue/write.py -->", "<!-- catalogue: end -->"


def sizes() -> dict[str, int]:
    """Numbers in the trunk of every source's network, by the name of the source."""
    by_network: dict[str, int] = {}
    for source in SOURCES.values():
        key = f"{source.network} {source.args}"
        if key not in by_network:
            # MONAI reads numbers while it builds.
            with torch.device("cpu" if source.network.startswith("monai/") else "meta"):
                spec = BackboneSpec(name=source.network, args=source.args, weights="none")
                by_network[key] = size_of(build_backbone(spec).network.state_dict())
    return {source.name: by_network[f"{source.network} {source.args}"] for source in SOURCES.values()}


def sizes_module(numbers: dict[str, int]) -> str:
    """The module that holds them."""
    rows = "\n".join(f'    "{name}": {number:_},' for name, number in numbers.items())
    return (
        '"""How large the network of every source is; written by recipes/catalogue/write.py."""\n\n'
        'from typing import Final\n\n__all__ = ["SIZES"]\n\n'
        f"SIZES: Final[dict[str, int]] = {{\n{rows}\n}}\n"
        '"""Numbers in its trunk, see `medgraft.sources.fingerprint.size_of`, by the name of the source."""\n'
    )


def row(source: KnownSource) -> str:
    """One line of the table."""
    what = source.input
    size = "×".join(map(str, what.side)) if isinstance(what.side, tuple) else str(what.side)
    scale = (
        f"mean {_numbers(what.mean)}, std {_numbers(what.std)}" if what.mean else "each image's own mean and deviation"
    )
    agreed = {"": "", "non-commercial": " (no commercial use)", "agreement": " (terms to agree to)"}[source.acceptance]
    args = "".join(f" `{key}={value}`" for key, value in source.args.items())
    layout = LAYOUTS[source.layout].words if source.layout in LAYOUTS else "the network's own names"
    cells = (
        f"`{source.name}`",
        f"`{source.network}`{args}",
        f"{source.objective}: {source.data}",
        f"{size} px, {what.channels}, {scale}",
        layout,
        f"{source.licence}{agreed}",
        f"{source.size_mb:.0f} MB",
        f"{source.place.kind}: {source.place.name}",
    )
    return "| " + " | ".join(cells) + " |"


def layout_row(key: str, layout: Layout) -> str:
    """One line of the table of layouts."""
    needs = f"needs `{layout.network}`" if layout.network else ""
    facts = [f"refused: {layout.refusal}" if layout.refusal else "", needs, layout.caution]
    return f"| `{key}` | {layout.words} | {'; '.join(fact for fact in facts if fact)} |"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in dict.fromkeys(values))


def catalogue() -> str:
    """The generated part of the page."""
    head = "| name | network | learned | saw | file | licence | size | from |\n|---|---|---|---|---|---|---|---|\n"
    notes = [f"- `{source.name}`: {source.note}" for source in SOURCES.values() if source.note]
    cited = [f"- `{source.name}`: {source.citation}." for source in SOURCES.values()]
    return "\n".join(
        [
            BEGIN,
            "",
            "| layout | a file of it is | note |",
            "|---|---|---|",
            *(layout_row(key, layout) for key, layout in LAYOUTS.items()),
            "",
            "## Catalogue",
            "",
            head + "\n".join(row(source) for source in SOURCES.values()),
            "",
            "### Notes",
            "",
            *notes,
            "",
            "### Citations",
            "",
            *(line.replace("..", ".") for line in cited),
            "",
            END,
        ]
    )


def page(before: str) -> str:
    """The page with its generated part renewed."""
    start, _, rest = before.partition(BEGIN)
    _, _, end = rest.partition(END)
    return start + catalogue() + end


if __name__ == "__main__":
    SIZES.write_text(sizes_module(sizes()), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
