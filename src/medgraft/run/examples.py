"""Small pictures for the report: duplicates, hits and misses. They can be switched off."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from medgraft.data.fingerprint import views
from medgraft.deploy.predict import called_names
from medgraft.files import write_json
from medgraft.metrics.cases import known_labels, predicted_targets
from medgraft.run.prepare import Prepared
from medgraft.types import Predictions

__all__ = ["duplicate_pairs", "write_examples"]

_MAX_PAIRS: Final = 8
_MAX_CASES: Final = 8
_SIDE: Final = 160


def write_examples(folder: Path, found: Prepared, predictions: Predictions, *, is_wanted: bool) -> None:
    """Write `report_images/` for the report, or nothing when pictures are not wanted.

    Args:
        folder: The run.
        found: Its images.
        predictions: Of the chosen model on the test set.
        is_wanted: False where names may be burnt into the images.
    """
    if not is_wanted:
        return
    place = folder / "report_images"
    place.mkdir(exist_ok=True)
    index = {"duplicates": duplicate_pairs(place, found), **_cases(place, found, predictions)}
    write_json(place / "index.json", index)


def duplicate_pairs(place: Path, found: Prepared) -> list[dict[str, Any]]:
    """Pictures of duplicates, those across splits first, as the report's index names them."""
    exact = [(one[0], one[1], 1.0, "exact") for one in found.audit.exact_duplicates]
    near = [(a, b, similarity, "near") for a, b, similarity in found.audit.near_duplicates]
    splits = found.given.table["split"].to_numpy(dtype=object)
    pairs = sorted([*exact, *near], key=lambda pair: splits[pair[0]] == splits[pair[1]])[:_MAX_PAIRS]
    paths = found.given.table["path"]
    return [
        {
            "a": _picture(place, found, a),
            "b": _picture(place, found, b),
            "a_path": paths.iat[a],
            "b_path": paths.iat[b],
            "kind": kind,
            "similarity": float(similarity),
        }
        for a, b, similarity, kind in pairs
    ]


def _cases(place: Path, found: Prepared, predictions: Predictions) -> dict[str, list[dict[str, Any]]]:
    rows = found.cohort.case_rows("test")
    probs, called = predictions.probs, predicted_targets(predictions)
    if predictions.targets.ndim == 2:
        is_hit = ((called == predictions.targets) | ~known_labels(predictions)).all(1)
        confidence = np.abs(probs - 0.5).max(1) + 0.5
    else:
        is_hit, confidence = called == predictions.targets, probs.max(1)
    names, truth = (called_names(targets, predictions.classes) for targets in (called, predictions.targets))
    order = np.argsort(-confidence, kind="stable")
    chosen = {
        "hits": [i for i in order if is_hit[i]][:_MAX_CASES],
        "misses": [i for i in order if not is_hit[i]][:_MAX_CASES],
    }
    return {
        kind: [
            {
                "image": _picture(place, found, int(found.rows[rows[i]])),
                "path": found.cohort.table["path"].iat[rows[i]],
                "label": truth[i],
                "pred": names[i],
                "prob": float(confidence[i]),
            }
            for i in cases
        ]
        for kind, cases in chosen.items()
    }


def _picture(place: Path, found: Prepared, row: int) -> str:
    pixels = np.asarray(found.decoded.images[row], dtype=np.float64)
    low, high = pixels.min(), pixels.max()
    grey = ((pixels - low) / max(high - low, 1) * 255).round().astype(np.uint8)
    last = np.moveaxis(grey, 0, -1)
    if found.cohort.dims == 3:
        last = _four_views(last)
    image = Image.fromarray(last[..., 0] if last.shape[-1] == 1 else last)
    image.thumbnail((_SIDE, _SIDE))
    name = f"{row}.png"
    image.save(place / name)
    return name


def _four_views(volume: np.ndarray) -> np.ndarray:
    """(H, W, C): front, side and feet view of the middle, and the mean along the body, two by two."""
    axial, coronal, sagittal, mean = views(volume)
    # Files run from left to right, back to front and feet to head; films show the head above, the patient's right on
    # the left.
    shown = [image[::-1, ::-1] for image in (coronal, sagittal, axial, mean)]
    height, width = (max(image.shape[axis] for image in shown) for axis in (0, 1))
    one, two, three, four = (
        np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))) for image in shown
    )
    return np.concatenate([np.concatenate([one, two], axis=1), np.concatenate([three, four], axis=1)])
