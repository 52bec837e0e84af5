"""Files in, probabilities out: the same decoding, scaling and network input as in training."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from medgraft.config import Unit
from medgraft.data.cohort.cases import volume_of
from medgraft.data.cohort.export import units_of_cases
from medgraft.data.cohort.films import num_frames
from medgraft.data.decoded.rows import read_files
from medgraft.deploy.artefact import LoadedModel
from medgraft.errors import ConfigError, DataError, MedgraftError
from medgraft.io.preprocess import prepare
from medgraft.metrics.cases import predicted_targets, unit_means
from medgraft.train.batches import ImageSet, evaluation_batch
from medgraft.train.engine import exact_engine
from medgraft.train.outputs import predict_probs
from medgraft.types import ImageFacts, Predictions, Preprocessing

__all__ = [
    "UNREADABLE",
    "called_names",
    "files_of_case",
    "predict_files",
    "predict_pixels",
    "predictions_table",
    "range_status",
]

UNREADABLE: Final = "unreadable"
"""How the status of a broken file begins."""


def predict_files(
    model: LoadedModel,
    cases: Sequence[Path | tuple[Path, ...]],
    *,
    unit: Unit | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """One row per image or volume: ``path, prob_<class>…, pred, status``; a broken one costs only its own row.

    Where units are judged there is one row for each, named by its first image: the mean of the probabilities of its
    readable images, and the number of these in a column ``images`` (``volumes``). ``status`` is ``ok``,
    ``above the training range (…)`` or ``unreadable: …``.

    Args:
        model: From `load_artefact`.
        cases: Files, of volumes also folders of slices or all files of one; named by the first.
        unit: What is judged as one, by the DICOM headers; None: what the model was judged by.
        device: Where to compute.
        progress: Called with (cases done, cases in all).

    Raises:
        DataError: No file was given.
        ConfigError: The model marks masks.
    """
    if not cases:
        raise DataError("expected image files, got none. Give files, or a folder with images in it.")
    if model.artefact.patch:
        raise ConfigError("expected a model that classifies, got one of a segmentation. Use medgraft.segment.")
    settings = model.artefact.preprocessing
    dims = settings.dims
    batch = evaluation_batch(settings.sides)
    probs = np.full((len(cases), len(model.artefact.classes)), np.nan)
    status = ["ok"] * len(cases)
    members = [case if isinstance(case, tuple) else (case,) for case in cases]
    for start in range(0, len(cases), batch):
        stop = min(start + batch, len(cases))
        pixels, rows = [], []
        for row in range(start, stop):
            try:
                members[row] = files_of_case(cases[row], dims)
                for image, facts in _images_of(members[row], settings):
                    status[row] = range_status(int(image.max()), facts.bits, model)
                    pixels.append(prepare(image, settings, facts.spacing_mm))
                    rows.append(row)
            except MedgraftError as error:
                status[row] = f"{UNREADABLE}: {error}"
        if rows:
            found = predict_pixels(model, np.stack(_same_type(pixels)), device=device)
            read = np.unique(rows)
            # Of a film, the mean over its frames.
            probs[read] = unit_means(found, np.searchsorted(read, rows))
        if progress is not None:
            progress(stop, len(cases))
    named = [case[0] if isinstance(case, tuple) else case for case in cases]
    table = pd.DataFrame({"path": [path.as_posix() for path in named]})
    unit = unit or model.artefact.judged_by
    if unit != "image":
        units = units_of_cases(members, unit)
        noun = "images" if dims == 2 else "volumes"
        table = table.iloc[np.unique(units, return_index=True)[1]].reset_index(drop=True)
        table[noun] = np.bincount(units[np.isfinite(probs).all(1)], minlength=len(table))
        status = [_remark(words, noun) for words in _gathered(status, units)]
        probs = unit_means(probs, units)
    return _with_probs(table, _said(model, probs)).assign(status=status)


def _images_of(files: tuple[Path, ...], settings: Preprocessing) -> list[tuple[np.ndarray, ImageFacts]]:
    """The image or volume of a case, or all frames of a film where the model judges these together.

    Args:
        files: Of the case.
        settings: How the model's images are read.
    """
    reading = settings.reading
    if settings.dims == 3 or reading.frames != "all":
        return [read_files(files, settings.dims, reading)]
    (count,) = num_frames(files[:1])
    return [read_files(files, 2, dataclasses.replace(reading, frames=frame)) for frame in range(count)]


def _said(model: LoadedModel, probs: np.ndarray) -> Predictions:
    """Probabilities of cases without truth."""
    artefact = model.artefact
    return Predictions(
        probs=probs,
        targets=np.zeros(len(probs), dtype=np.int64),
        groups=np.arange(len(probs)),
        classes=artefact.classes,
        task=artefact.task,
        positive=artefact.classes.index(artefact.positive) if artefact.positive is not None else None,
    )


def _gathered(status: Sequence[str], units: np.ndarray) -> list[list[str]]:
    """The words on each unit's images."""
    by_unit: list[list[str]] = [[] for _ in range(int(units.max()) + 1)]
    for number, word in zip(units.tolist(), status, strict=True):
        by_unit[number].append(word)
    return by_unit


def _remark(words: Sequence[str], noun: str) -> str:
    """One word for the images of a unit: each remark once, and how many could not be read where others could."""
    lost = [word for word in words if word.startswith(UNREADABLE)]
    if 0 < len(lost) < len(words):
        words = [word for word in words if word not in lost] + [f"{len(lost)} of {len(words)} {noun} {lost[0]}"]
    return "; ".join(dict.fromkeys(word for word in words if word != "ok")) or "ok"


def files_of_case(case: Path | tuple[Path, ...], dims: int) -> tuple[Path, ...]:
    """The files of a case; a folder that is named by itself holds one volume."""
    if isinstance(case, tuple):
        return case
    return volume_of(case) if dims == 3 else (case,)


def predict_pixels(model: LoadedModel, images: np.ndarray, *, device: str = "cpu") -> np.ndarray:
    """(N, C) probabilities of prepared images.

    Args:
        model: From `load_artefact`.
        images: (N, c, *sides) uint8 or uint16, as `medgraft.io.prepare` makes them.
        device: Where to compute.
    """
    artefact = model.artefact
    positive = artefact.classes.index(artefact.positive) if artefact.positive is not None else None
    data = ImageSet(
        images=images,
        rows=np.arange(len(images)),
        targets=np.zeros(len(images), dtype=np.int64),
        intensity_max=artefact.preprocessing.intensity_max,
        task=artefact.task,
        positive=positive,
        num_classes=len(artefact.classes),
    )
    return predict_probs(model.network.to(device), data, exact_engine(device))


def predictions_table(predictions: Predictions, paths: Sequence[str], patients: Sequence[str]) -> pd.DataFrame:
    """``path, patient, label, prob_<class>…, pred, status`` of known cases.

    Args:
        predictions: Probabilities and truth of the cases.
        paths: Name of each case.
        patients: Pseudonym of the patient of each case.
    """
    table = pd.DataFrame({"path": list(paths), "patient": list(patients)})
    table["label"] = called_names(predictions.targets, predictions.classes)
    return _with_probs(table, predictions).assign(status="ok")


def _with_probs(table: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """The table with probabilities, and what is called by the rule that metrics are computed by."""
    for index, name in enumerate(predictions.classes):
        table[f"prob_{name}"] = predictions.probs[:, index]
    is_readable = np.isfinite(predictions.probs).all(1)
    called = predicted_targets(dataclasses.replace(predictions, probs=np.nan_to_num(predictions.probs)))
    table["pred"] = np.where(is_readable, called_names(called, predictions.classes), "")
    return table


def called_names(targets: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """The name of each case's class, or its labels joined by ``|``; a label that is not known with a question mark.

    Args:
        targets: (N,) class indices, or (N, C) of 0, 1 and NaN.
        classes: Names in the order of the indices.
    """
    if targets.ndim == 2:
        return ["|".join(_label(n, on) for n, on in zip(classes, row, strict=True) if on != 0) for row in targets]
    return [classes[int(index)] for index in targets]


def _label(name: str, value: float) -> str:
    """The name; with a question mark where it is not known whether the case has it."""
    return f"?{name}" if np.isnan(value) else name


def range_status(maximum: int, bits: int, model: LoadedModel) -> str:
    """What is odd about the intensities of an image, or ``ok``.

    Args:
        maximum: Highest value in the image.
        bits: Bits of a pixel in its file.
        model: Tells the training range.
    """
    limit = model.artefact.preprocessing.intensity_max
    if maximum > limit:
        return f"above the training range ({maximum} > {limit}): check the export of this image"
    if bits == 8 and limit > 255:
        return f"8-bit file, but the model was trained on values up to {limit}: check the export of this image"
    return "ok"


def _same_type(pixels: list[np.ndarray]) -> list[np.ndarray]:
    if any(image.dtype == np.uint16 for image in pixels):
        return [image.astype(np.uint16) for image in pixels]
    return pixels
