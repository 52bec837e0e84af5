"""Pictures for the report: duplicates, and what the chosen model makes of some test cases. They can be switched off."""

import dataclasses
from pathlib import Path
from typing import Final

from medgraft.data.audit.scales import KIND
from medgraft.judge.examples import picture
from medgraft.judge.judges import JUDGES
from medgraft.prepare.material import Material
from medgraft.result.pictures import DuplicatePicture, ScalePicture, write_picture_index
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
    scales = _scales(images, material)
    write_picture_index(dataclasses.replace(cases, duplicates=_duplicates(images, material), scales=scales), images)


def _scales(folder: Path, material: Material) -> tuple[ScalePicture, ...]:
    """Pictures of two groups on different intensity scales, on the scale of the brightest, as the index names them."""
    finding = material.audit.of(KIND)
    if finding is None:
        return ()
    rows = list(finding.rows)
    top = float(material.dataset.decoded.facts["quantiles"][rows, -1].max())
    return tuple(
        ScalePicture(
            image=picture(folder, material.dataset, row, top=top),
            path=str(material.given.table["path"].iat[row]),
            is_apart=number < len(rows) // 2,
        )
        for number, row in enumerate(rows)
    )


def _duplicates(folder: Path, material: Material) -> tuple[DuplicatePicture, ...]:
    """Pictures of duplicates, those across splits first, as the report's index names them."""
    exact = [(copies[0], copies[1], 1.0, "exact") for copies in material.audit.exact_duplicates]
    near = [(pair.first, pair.second, pair.detail, "near") for pair in material.audit.near_duplicates]
    splits = material.given.table["split"].to_numpy(dtype=object)
    pairs = sorted([*exact, *near], key=lambda pair: splits[pair[0]] == splits[pair[1]])[:_MAX_PAIRS]
    paths = material.given.table["path"]
    return tuple(
        DuplicatePicture(
            a=picture(folder, material.dataset, a),
            b=picture(folder, material.dataset, b),
            a_path=str(paths.iat[a]),
            b_path=str(paths.iat[b]),
            kind=kind,
            similarity=float(similarity),
        )
        for a, b, similarity, kind in pairs
    )
