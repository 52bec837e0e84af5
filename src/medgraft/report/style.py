"""How every figure of the report looks, and how it becomes an SVG string that can stand inside a page.

Only the object-oriented interface of matplotlib is used: there is no current figure, no window, and the
user's own matplotlib settings neither change the report nor are changed by it.
"""

import io
import re
from typing import Any, Final
from xml.sax.saxutils import quoteattr

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["CLASS_COLOURS", "COLOURS", "STYLE", "legend_above", "new_figure", "quiet_axes", "to_svg"]

# Okabe & Ito's palette: distinct for all common kinds of colour blindness.
COLOURS: Final = {
    "chosen": "#0072B2",
    "baseline": "#595F69",
    "second": "#CC79A7",
    "best": "#D55E00",
    "good": "#009E73",
    "sky": "#56B4E9",
    "amber": "#E69F00",
    "ink": "#1F2328",
    "muted": "#6B7280",
    "line": "#C9CED6",
    "band": "#F4F6F9",
}
CLASS_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1F2328")
FONT_STACK: Final = (
    "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', system-ui, sans-serif"
)
PIXELS_PER_INCH: Final = 96

_OURS: Final[dict[str, Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": COLOURS["line"],
    "axes.grid": True,
    "axes.labelcolor": COLOURS["muted"],
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": COLOURS["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "font.family": ["sans-serif"],
    # Wide, and packaged with matplotlib: what is laid out with it fits in the other fonts too.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": "#E7EAEE",
    "grid.linewidth": 0.7,
    "hatch.color": COLOURS["line"],
    "hatch.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": COLOURS["ink"],
    "text.parse_math": False,
    "xtick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "xtick.labelsize": 8,
    "ytick.color": COLOURS["line"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.labelsize": 8,
}
# Starting from the library's defaults keeps a user's matplotlibrc (usetex, dark styles) out of the report.
_LOOKS: Final = frozenset(
    (
        *("axes", "errorbar", "figure", "font", "grid", "hatch", "image", "legend", "lines", "markers"),
        *("mathtext", "patch", "path", "savefig", "svg", "text", "xtick", "ytick"),
    )
)
STYLE: Final[Any] = {
    **{key: value for key, value in matplotlib.rcParamsDefault.items() if key.split(".")[0] in _LOOKS},
    **_OURS,
}


def new_figure(width: int, height: int) -> Figure:
    """An empty figure.

    Args:
        width: px, at 96 px per inch.
        height: px.

    Examples:
        >>> new_figure(960, 480).get_size_inches().tolist()
        [10.0, 5.0]
    """
    return Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), layout="constrained")


def quiet_axes(axes: Axes, *, is_gridded: bool = True, is_square: bool = False) -> None:
    """Take the tick marks, and where asked the grid, off `axes`.

    Args:
        axes: Changed in place.
        is_gridded: Keep the grid.
        is_square: Make both axes 0 to 1 with one scale.
    """
    axes.tick_params(length=0)
    axes.grid(visible=is_gridded)
    if is_square:
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])


def legend_above(axes: Axes, *, num_columns: int) -> None:
    """Put the legend above `axes`, where it hides no data; nothing where nothing is labelled.

    Args:
        axes: Changed in place.
        num_columns: Entries side by side.
    """
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=num_columns, borderaxespad=0.2, borderpad=0.2,
            columnspacing=1.6, handlelength=1.8,
        )  # fmt: skip


def to_svg(figure: Figure, *, name: str, label: str) -> str:
    """The figure as one `<svg>` element: same input, same bytes; text stays text; safe to stand in a page.

    Args:
        figure: Drawn inside `STYLE`.
        name: Unique in the page; keeps the ids of two figures apart.
        label: What a screen reader says.

    Examples:
        >>> svg = to_svg(new_figure(96, 96), name="empty", label='"nothing" <yet>')
        >>> svg[:4], svg[-6:], "&lt;yet&gt;" in svg
        ('<svg', '</svg>', True)
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"medgraft-{name}"}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # matplotlib numbers its groups (`axes_1`) alike in every figure; nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    # A style element inside a page would reach every other element of it.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"(font: [^;\"]*?px|font-family:) [^;\"]*", rf"\1 {FONT_STACK}", text)
    text = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    opening = f'<svg role="img" aria-label={quoteattr(label)} stroke-linejoin="round" '
    return text.replace("<svg ", opening, 1)
