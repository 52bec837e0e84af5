"""Pictures of test cases with masks for the report: the best, the median and the worst, truth and model beside it."""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from medgraft.data.cohort.marked import mask_of
from medgraft.data.decoded.rows import read_row
from medgraft.files import replacing
from medgraft.io.formats import FORMATS
from medgraft.judge.masks import segmenter
from medgraft.metrics.overlap import dice, without_void
from medgraft.result.pictures import OverlayPicture, Pictures
from medgraft.search.trial import Trial, TrialContext, load_trial_model
from medgraft.study.dataset import Dataset
from medgraft.train.engine import exact_engine
from medgraft.types import Overlaps

__all__ = ["overlay", "overlay_pictures"]

_SIDE: Final = 560
_RIGHT: Final = (46, 160, 67)
_MISSED: Final = (31, 111, 235)
_WRONG: Final = (214, 51, 108)
_OPACITY: Final = 0.55


def overlay_pictures(
    folder: Path, dataset: Dataset, trial: Trial, context: TrialContext, overlaps: Overlaps
) -> Pictures:
    """The best, the median and the worst test case with their pictures.

    Args:
        folder: Pictures are written here.
        dataset: The images.
        trial: Whose model draws.
        context: Context of the trial.
        overlaps: Overlaps of that model with the truth of the test set.
    """
    rows, scores = dataset.cohort.rows("test"), dice(overlaps.counts).mean(1)
    order = np.argsort(-scores, kind="stable")
    named = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    picked = {name: int(at) for name, at in named.items()} if len(order) > 2 else {"best": int(order[0])}
    model, _ = load_trial_model(trial, context)
    engine = exact_engine(context.engine.device)
    call = segmenter(model, dataset, engine)
    cases: list[OverlayPicture] = []
    for name, at in picked.items():
        row = int(rows[at])
        truth = mask_of(dataset.cohort, row)
        pixels, facts = read_row(dataset.cohort, row, dataset.decoded.reading)
        is_placed = any(known.is_placed and known.name == facts.mode for known in FORMATS.values())
        plain, tinted = overlay(pixels, *without_void(call(row, truth.shape), truth), is_placed=is_placed)
        pictures = {"image": f"{name}.png", "overlay": f"{name}_overlay.png"}
        for key, picture in (("image", plain), ("overlay", tinted)):
            with replacing(folder / pictures[key]) as temporary:
                picture.save(temporary, format="PNG")
        cases.append(
            OverlayPicture(
                kind=name, path=str(dataset.cohort.table["path"].iat[row]), dice=float(scores[at]), **pictures
            )
        )
    return Pictures(overlays=tuple(cases))


def overlay(
    pixels: np.ndarray, called: np.ndarray, truth: np.ndarray, *, is_placed: bool = True
) -> tuple[Image.Image, Image.Image]:
    """An image, and it with what is rightly called (green), missed (blue) and wrongly called (red), classes together.

    A volume is shown by the slice where most is marked.

    Args:
        pixels: (H, W[, 3]) or (D, H, W[, 3]) integers.
        called: (H, W) or (D, H, W) class numbers of the model.
        truth: (H, W) or (D, H, W) class numbers of the truth.
        is_placed: Whether a volume's axes are known to run to the right, the front and the head.
    """
    if called.ndim == 3:
        at = int((truth > 0).sum((1, 2)).argmax()) if (truth > 0).any() else len(truth) // 2
        # Volumes that were resampled have other slices.
        pixels = pixels[int((at + 0.5) * len(pixels) / len(truth))]
        called, truth = called[at], truth[at]
        if is_placed:
            # Films show the front above and the patient's right on the left.
            pixels, called, truth = (part[::-1, ::-1] for part in (pixels, called, truth))
    low, high = (float(end) for end in np.percentile(pixels, (0.5, 99.5)))
    grey = (np.clip((pixels - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    colour = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)
    if colour.shape[:2] != called.shape:
        colour = np.asarray(Image.fromarray(colour).resize(called.shape[::-1], Image.Resampling.BILINEAR))
    kinds = {
        _RIGHT: (called == truth) & (truth > 0),
        _MISSED: (truth > 0) & (called != truth),
        _WRONG: (called > 0) & (truth == 0),
    }
    tinted = colour.astype(np.float64)
    for tint, where in kinds.items():
        tinted[where] = (1 - _OPACITY) * tinted[where] + _OPACITY * np.array(tint)
    pictures = (Image.fromarray(colour), Image.fromarray(tinted.round().astype(np.uint8)))
    for picture in pictures:
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return pictures
