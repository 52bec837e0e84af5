"""Small pictures of hits and misses among labelled test cases."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from medgraft.data.decoded.fingerprint import views
from medgraft.deploy.predict import called_names
from medgraft.files import replacing
from medgraft.metrics.cases import known_labels, predicted_targets
from medgraft.result.pictures import ExamplePicture, Pictures
from medgraft.search.trial import Trial, TrialContext
from medgraft.study.dataset import Dataset
from medgraft.types import Predictions

__all__ = ["example_pictures", "picture"]

_MAX_CASES: Final = 8
_SIDE: Final = 160


def example_pictures(
    folder: Path, dataset: Dataset, trial: Trial, context: TrialContext, predictions: Predictions
) -> Pictures:
    """Hits and misses with their pictures, those first of which the model is surest.

    Args:
        folder: Pictures are written here.
        dataset: The images.
        trial: Not needed for labels.
        context: Not needed for labels.
        predictions: The chosen model's predictions on the test set.
    """
    rows = dataset.cohort.case_rows("test")
    probs, called = predictions.probs, predicted_targets(predictions)
    if predictions.targets.ndim == 2:
        is_hit = ((called == predictions.targets) | ~known_labels(predictions)).all(1)
        confidence = np.abs(probs - 0.5).max(1) + 0.5
    else:
        is_hit, confidence = called == predictions.targets, probs.max(1)
    names, truth = (called_names(targets, predictions.classes) for targets in (called, predictions.targets))
    order = np.argsort(-confidence, kind="stable")

    def shown(cases: Sequence[int]) -> tuple[ExamplePicture, ...]:
        return tuple(
            ExamplePicture(
                image=picture(folder, dataset, int(dataset.rows[rows[i]])),
                path=str(dataset.cohort.table["path"].iat[rows[i]]),
                label=truth[i],
                pred=names[i],
                prob=float(confidence[i]),
            )
            for i in cases[:_MAX_CASES]
        )

    return Pictures(
        hits=shown([i for i in order.tolist() if is_hit[i]]), misses=shown([i for i in order.tolist() if not is_hit[i]])
    )


def picture(folder: Path, dataset: Dataset, row: int, *, top: float | None = None) -> str:
    """The name of a small picture of a decoded image, after it was written; four views of a volume.

    Args:
        folder: The picture is written here.
        dataset: The images.
        row: Row of the cache.
        top: What is white; None for the image's own range.
    """
    pixels = np.asarray(dataset.decoded.images[row], dtype=np.float64)
    low, high = (pixels.min(), pixels.max()) if top is None else (0.0, top)
    grey = ((pixels - low) / max(high - low, 1) * 255).round().clip(0, 255).astype(np.uint8)
    last = np.moveaxis(grey, 0, -1)
    if dataset.cohort.dims == 3:
        last = _four_views(last)
    image = Image.fromarray(last[..., 0] if last.shape[-1] == 1 else last)
    image.thumbnail((_SIDE, _SIDE))
    name = f"{row}.png" if top is None else f"scale-{row}.png"
    with replacing(folder / name) as temporary:
        image.save(temporary, format="PNG")
    return name


def _four_views(volume: np.ndarray) -> np.ndarray:
    """(H, W, C): front, side and feet view of the middle, and the mean along the body, two by two."""
    axial, coronal, sagittal, mean = views(volume)
    # Files run from left to right, back to front and feet to head; films show the head above, the patient's right on
    # the left.
    shown = [image[::-1, ::-1] for image in (coronal, sagittal, axial, mean)]
    height, width = (max(image.shape[axis] for image in shown) for axis in (0, 1))
    front, side, feet, averaged = (
        np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))) for image in shown
    )
    return np.concatenate([np.concatenate([front, side], axis=1), np.concatenate([feet, averaged], axis=1)])
