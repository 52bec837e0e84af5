"""Figures of a segmentation: what each test case says, of the chosen model, of full fine-tuning, of other observers."""

from typing import Final

import matplotlib
import numpy as np
import pandas as pd

from medgraft.report.style import COLOURS, STYLE, legend_above, new_figure, quiet_axes, to_svg

__all__ = ["cases_figure"]

_SPREAD: Final = 0.06
# More lines than these are a grey cloud.
_MOST_JOINED: Final = 60


@matplotlib.rc_context(STYLE)
def cases_figure(chosen: pd.DataFrame, baseline: pd.DataFrame | None, classes: tuple[str, ...]) -> str:
    """Dice of every test case by class, and beside it that of full fine-tuning, joined where they are few.

    Args:
        chosen: Columns ``path`` and for every class ``dice_…``.
        baseline: Full fine-tuning's table, the same columns and cases in the same order; None where there is none.
        classes: Names.

    Examples:
        >>> table = pd.DataFrame({"path": ["a", "b"], "dice_vessel": [0.7, 0.8]})
        >>> cases_figure(table, table, ("vessel",)).startswith("<svg")
        True
    """
    figure = new_figure(1000, 110 + 60 * len(classes))
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for height, name in enumerate(reversed(classes)):
        places = height + rng.uniform(-_SPREAD, _SPREAD, len(chosen))
        if baseline is not None:
            other = baseline[f"dice_{name}"]
            joined = zip(places, chosen[f"dice_{name}"], other, strict=True) if len(places) <= _MOST_JOINED else ()
            for at, score, base in joined:
                axes.plot([score, base], [at + 0.14, at - 0.14], color=COLOURS["line"], linewidth=0.7, zorder=1)
            axes.plot(other, places - 0.14, "D", color=COLOURS["baseline"], markersize=4, alpha=0.8,
                      label="full fine-tuning" if not height else None)  # fmt: skip
        axes.plot(chosen[f"dice_{name}"], places + 0.14, "o", color=COLOURS["chosen"], markersize=5, alpha=0.8,
                  label="chosen" if not height else None)  # fmt: skip
    axes.set_yticks(range(len(classes)), list(reversed(classes)))
    axes.set(ylim=(-0.5, len(classes) - 0.5), xlabel="Dice of each test case")
    legend_above(axes, num_columns=2)
    quiet_axes(axes)
    axes.grid(visible=False, axis="y")
    return to_svg(figure, name="cases", label="Dice of each test case")
