"""A finished segmentation on an external cohort: overlaps at the images' own size, with intervals."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from medgraft.config import DataConfig
from medgraft.data.findings import Audit
from medgraft.data.groups import groups_of
from medgraft.data.mask_cache import build_mask_cache
from medgraft.data.masks import NO_NUMBER
from medgraft.deploy.artefact import Artefact, LoadedModel
from medgraft.errors import DataError
from medgraft.evaluate.masks import site_overlaps, summarise_masks
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.files import write_json, write_table
from medgraft.listener import Listener
from medgraft.run.judging_masks import Marked, judge_masks, mask_table, other_observers, segmenter
from medgraft.run.prepare import audited, open_cohort
from medgraft.train.engine import exact_engine
from medgraft.types import Cohort, to_json

__all__ = ["evaluate_masks"]


def evaluate_masks(
    model: LoadedModel,
    config: DataConfig,
    told: Listener,
    *,
    device: str = "cpu",
    out: Path | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Overlaps of a finished model with the masks of another cohort.

    Args:
        model: Of a segmentation.
        config: The external cohort; all its images are used, whatever split they are in.
        told: Told how things go.
        device: From `medgraft.train.engine.pick_device`.
        out: Folder for `evaluation.json` and `predictions.csv`; None writes nothing.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: The masks hold numbers the model knows nothing of, or none of them can be used.
    """
    settings = model.artefact.preprocessing
    task = {"task": "segmentation", "resize": settings.resize}
    config = config.model_copy(update=task | dataclasses.asdict(settings.reading))
    cohort = open_cohort(config, told)
    if cohort.dims != settings.dims:
        wanted = "volumes" if settings.dims == 3 else "images"
        raise DataError(f"{cohort.root}: expected {wanted}, which the model marks, got {cohort.noun}.")
    cohort = _in_terms_of(model.artefact, cohort)
    with tempfile.TemporaryDirectory(prefix="medgraft-evaluate-") as folder:
        images, rows, audit = _usable(model, cohort, config, Path(folder), told)
        called = segmenter(model.network, images, exact_engine(device))
        tolerance = model.artefact.tolerance_mm
        overlaps = judge_masks(images, rows, called, tolerance, lambda done: told.step("judging", done, len(rows)))
        unit = images.unit
        observers = other_observers(images, rows, overlaps, tolerance=tolerance, replicates=replicates, seed=seed)
        above = int((images.decoded.facts["high"][rows] > settings.intensity_max).sum())
    found = summarise_masks(overlaps, bootstrap_weights(overlaps, replicates, seed))
    result = {
        "per_class": found.pop("per_class"),
        "metrics": found,
        "tolerance": tolerance,
        "unit": unit,
        **observers,
        "num_images": len(images.cohort),
        "num_cases": len(rows),
        "num_above_training_range": above,
        "audit": to_json(audit.findings),
    }
    if above:
        told.say(f"warn: {above} images hold values above the training range of {settings.intensity_max}.")
    sites = images.cohort.sites(rows)
    if any(sites):
        result["sites"] = site_overlaps(overlaps, sites, num=replicates, seed=seed)
    if out is not None:
        write_json(out / "evaluation.json", result)
        write_table(mask_table(images, rows, overlaps), out / "predictions.csv")
    return result


def _usable(
    model: LoadedModel, cohort: Cohort, config: DataConfig, folder: Path, told: Listener
) -> tuple[Marked, np.ndarray, Audit]:
    """The readable images, the rows of them whose mask can be used, and the audit."""
    settings = model.artefact.preprocessing
    readable, decoded, audit = audited(cohort, folder, config, settings.sides, settings.channels, told)
    unusable = build_mask_cache(readable, decoded).unusable
    rows = np.array([row for row in range(len(readable)) if row not in unusable], dtype=np.int64)
    if not len(rows):
        raise DataError(f"{cohort.root}: no mask can be used. First: {next(iter(unusable.values()))}")
    images = Marked(
        cohort=readable,
        decoded=decoded,
        rows=np.arange(len(readable)),
        groups=groups_of(readable, audit.exact_duplicates, audit.near_duplicates),
        preprocessing=settings,
        patch=model.artefact.patch,
    )
    return images, rows, audit


def _in_terms_of(artefact: Artefact, cohort: Cohort) -> Cohort:
    """The cohort with the model's classes: by their names, or by their numbers where one side has no names.

    Of one class each neither matters.
    """
    if len(artefact.classes) == len(cohort.classes) == 1:
        return dataclasses.replace(cohort, classes=artefact.classes)
    if set(cohort.classes) <= set(artefact.classes):
        values = dict(zip(cohort.classes, cohort.mask_values, strict=True))
        # Numbers that no file holds stand for classes that this cohort does not show.
        absent = range(NO_NUMBER, NO_NUMBER + len(artefact.classes))
        numbers = tuple(values.get(name, other) for name, other in zip(artefact.classes, absent, strict=True))
        return _with_classes(cohort, artefact, [artefact.classes.index(name) for name in cohort.classes], numbers)
    if cohort.segments or not (_are_numbers(cohort.classes) or _are_numbers(artefact.classes)):
        raise DataError(
            f"expected the model's classes {', '.join(artefact.classes)} in the masks, got "
            f"{', '.join(cohort.classes)}. Name them alike: --set data.mask_classes=NAME=NUMBER,…"
        )
    strange = set(cohort.mask_values) - set(artefact.mask_values)
    if strange:
        raise DataError(
            f"expected the model's numbers {', '.join(map(str, artefact.mask_values))} in the masks, got "
            f"{', '.join(map(str, sorted(strange)))}, too. Renumber the masks."
        )
    places = [artefact.mask_values.index(value) for value in cohort.mask_values]
    return _with_classes(cohort, artefact, places, artefact.mask_values)


def _are_numbers(classes: tuple[str, ...]) -> bool:
    """Whether classes were named by this program, for want of names."""
    return all(name == "foreground" or name.startswith("label ") for name in classes)


def _with_classes(cohort: Cohort, artefact: Artefact, places: list[int], numbers: tuple[int, ...]) -> Cohort:
    """The cohort whose classes lie at these places among the model's, which the files write as these numbers."""
    targets = np.zeros((len(cohort), len(artefact.classes)), dtype=np.float32)
    targets[:, places] = cohort.targets
    targets[np.isnan(cohort.targets).any(1)] = np.nan
    return dataclasses.replace(cohort, classes=artefact.classes, mask_values=numbers, targets=targets)
