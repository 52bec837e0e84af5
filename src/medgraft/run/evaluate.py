"""A finished model on an external cohort: the same metrics and intervals, per site when known."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medgraft.config import DataConfig, Unit
from medgraft.data.cohort import with_units
from medgraft.data.groups import groups_of
from medgraft.data.identity import pseudonym
from medgraft.deploy.artefact import LoadedModel, load_artefact
from medgraft.deploy.predict import predict_pixels, predictions_table
from medgraft.errors import ConfigError, DataError
from medgraft.evaluate.operating_point import apply_thresholds
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import metric_interval, site_metrics
from medgraft.files import write_json, write_table
from medgraft.listener import Listener
from medgraft.metrics.cases import pooled
from medgraft.metrics.classification import metrics_of
from medgraft.run.evaluate_masks import evaluate_masks
from medgraft.run.folder import output_folder
from medgraft.run.prepare import audited, open_cohort
from medgraft.train.engine import pick_device
from medgraft.types import Cohort, Predictions, to_json

__all__ = ["evaluate"]


def evaluate(
    run: str | Path,
    config: DataConfig,
    *,
    out: str | Path | None = None,
    unit: Unit | None = None,
    device: str = "auto",
    replicates: int = 2000,
    seed: int = 0,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Metrics of a finished model on another cohort; thresholds stay those chosen on validation.

    Args:
        run: A finished run or its model folder.
        config: The external cohort; all its images are used, whatever split they are in.
        out: Folder for `evaluation.json` and `predictions.csv`; None writes nothing.
        unit: What is judged as one; None: what the model was judged by.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.
        listener: Told how things go.

    Raises:
        RunError: There is no finished model, or `out` cannot be made.
        ConfigError: The truth are masks and the model classifies, or the machine has no such device.
        DataError: The cohort has other classes, or one of the model's classes is absent.
    """
    told, used = listener or Listener(), pick_device(device)
    model = load_artefact(Path(run))
    place = None if out is None else output_folder(Path(out))
    if model.artefact.patch:
        return evaluate_masks(model, config, told, device=used, out=place, replicates=replicates, seed=seed)
    if config.task == "segmentation":
        raise ConfigError("a model that classifies understands labels alone, got --task segmentation. Leave it out.")
    cohort = _opened(model, config, unit, told)
    with tempfile.TemporaryDirectory(prefix="medgraft-evaluate-") as folder:
        settings = model.artefact.preprocessing
        # As in training, whatever the options say.
        config = config.model_copy(update={"resize": settings.resize, **dataclasses.asdict(settings.reading)})
        readable, decoded, audit = audited(cohort, Path(folder), config, settings.sides, settings.channels, told)
        probs = predict_pixels(model, decoded.images, device=used)
        high = decoded.facts["high"]
    groups = groups_of(readable, audit.exact_duplicates, audit.near_duplicates)
    predictions = pooled(_predictions(model, readable, probs, groups), readable.units(np.arange(len(readable))))
    judged, unlabelled = _labelled(predictions, readable.classes)
    if unlabelled:
        told.say(f"The cohort has no label {', '.join(unlabelled)}: nothing is said of it.")
    cases = readable.case_rows()
    above = int((high > settings.intensity_max).sum())
    result = _metrics(judged, model, replicates, seed)
    result |= {
        "classes": list(judged.classes),
        "unlabelled": list(unlabelled),
        "judged_by": readable.judged_by,
        "num_images": len(readable),
        "num_cases": len(cases),
        "num_above_training_range": above,
        "audit": to_json(audit.findings),
    }
    if above:
        told.say(f"warn: {above} images hold values above the training range of {settings.intensity_max}.")
    sites = readable.sites(cases)
    if any(sites):
        result["sites"] = site_metrics(judged, sites, num=replicates, seed=seed)
    if place is not None:
        _write(place, result, predictions, readable.select(cases))
    return result


def _opened(model: LoadedModel, config: DataConfig, unit: Unit | None, told: Listener) -> Cohort:
    """The external cohort, whose cases are what the model was judged by unless `unit` says otherwise."""
    wanted = unit or (config.unit if config.unit != "image" else model.artefact.judged_by)
    update: dict[str, Any] = {"dims": model.artefact.preprocessing.dims}
    if config.labels is not None:
        return open_cohort(config.model_copy(update=update | {"unit": wanted}), told)
    cohort = open_cohort(config.model_copy(update=update | {"unit": "image"}), told)
    divided = with_units(cohort, wanted)
    for note in divided.notes[len(cohort.notes) :]:
        told.say(note)
    return divided


def _labelled(predictions: Predictions, classes: Sequence[str]) -> tuple[Predictions, tuple[str, ...]]:
    """The predictions of the labels that the cohort has, and the names of the others; of single labels all."""
    if predictions.task != "multilabel":
        return predictions, ()
    there = [index for index, name in enumerate(predictions.classes) if name in classes]
    part = dataclasses.replace(
        predictions,
        probs=predictions.probs[:, there],
        targets=predictions.targets[:, there],
        classes=tuple(predictions.classes[index] for index in there),
    )
    return part, tuple(name for name in predictions.classes if name not in classes)


def _predictions(model: LoadedModel, cohort: Cohort, probs: np.ndarray, groups: np.ndarray) -> Predictions:
    classes = model.artefact.classes
    if set(cohort.classes) - set(classes) or (cohort.task == "multilabel") != (model.artefact.task == "multilabel"):
        raise DataError(
            f"expected the model's classes {', '.join(classes)}, got {', '.join(cohort.classes)}. "
            "Rename the labels or folders of the cohort."
        )
    order = np.array([classes.index(name) for name in cohort.classes])
    if cohort.targets.ndim == 2:
        # A label the cohort does not have is not known of any image, which is not the same as absent.
        targets = np.full((len(cohort), len(classes)), np.nan, dtype=np.float32)
        targets[:, order] = cohort.targets
    else:
        targets = order[cohort.targets]
    positive = model.artefact.positive
    return Predictions(
        probs=probs,
        targets=targets,
        groups=groups,
        classes=classes,
        task=model.artefact.task,
        positive=classes.index(positive) if positive is not None else None,
        is_ordinal=model.artefact.is_ordinal,
    )


def _metrics(predictions: Predictions, model: LoadedModel, replicates: int, seed: int) -> dict[str, Any]:
    weights = bootstrap_weights(predictions, replicates, seed)
    metrics = {
        name: {"value": metric(predictions), "ci95": list(metric_interval(predictions, name, weights))}
        for name, metric in metrics_of(predictions).items()
    }
    thresholds = {name: value for name, value in model.artefact.thresholds.items() if name in predictions.classes}
    points = apply_thresholds(predictions, thresholds)
    return {"metrics": metrics, "operating_point": points}


def _write(folder: Path, result: dict[str, Any], predictions: Predictions, cohort: Cohort) -> None:
    write_json(folder / "evaluation.json", result)
    patients = [pseudonym(str(p)) if isinstance(p, str) else "" for p in cohort.table["patient"]]
    write_table(predictions_table(predictions, list(cohort.table["path"]), patients), folder / "predictions.csv")
