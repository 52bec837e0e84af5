"""Pictures for the report: duplicates, and what the chosen model makes of some test cases. They can be switched off."""

from pathlib import Path
from typing import Any, Final

from medgraft.files import write_json
from medgraft.judge.examples import picture
from medgraft.judge.judges import JUDGES
from medgraft.prepare.material import Material
from medgraft.search.trial import Trial, TrialContext
from medgraft.types import Judged

__all__ = ["write_pictures"]

_MAX_PAIRS: Final = 8


def write_pictures(folder: Path, material: Material, trial: Trial, context: TrialContext, judged: Judged) -> None:
    """Write `report_images/` for the report.

    Args:
        folder: The run.
        material: Its images.
        trial: Whose model was judged.
        context: Context of the trial.
        judged: What that model says of the test set.

    Raises:
        RunError: A picture cannot be written.
    """
    images = folder / "report_images"
    images.mkdir(exist_ok=True)
    cases = JUDGES[judged.kind].pictures(images, material.dataset, trial, context, judged)
    write_json(images / "index.json", {"duplicates": _duplicates(images, material), **cases})


def _duplicates(folder: Path, material: Material) -> list[dict[str, Any]]:
    """Pictures of duplicates, those across splits first, as the report's index names them."""
    exact = [(copies[0], copies[1], 1.0, "exact") for copies in material.audit.exact_duplicates]
    near = [(a, b, similarity, "near") for a, b, similarity in material.audit.near_duplicates]
    splits = material.given.table["split"].to_numpy(dtype=object)
    pairs = sorted([*exact, *near], key=lambda pair: splits[pair[0]] == splits[pair[1]])[:_MAX_PAIRS]
    paths = material.given.table["path"]
    return [
        {
            "a": picture(folder, material.dataset, a),
            "b": picture(folder, material.dataset, b),
            "a_path": paths.iat[a],
            "b_path": paths.iat[b],
            "kind": kind,
            "similarity": float(similarity),
        }
        for a, b, similarity, kind in pairs
    ]
