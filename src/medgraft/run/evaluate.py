"""A finished model on an external cohort: the same metrics and intervals, per site when known."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.config import DataConfig, Unit
from medgraft.data.cohort.labelled import Known, with_units
from medgraft.data.cohort.marked import NO_NUMBER
from medgraft.data.decoded.masks import build_mask_cache
from medgraft.deploy.artefact import Artefact, LoadedModel, load_artefact
from medgraft.errors import ConfigError, DataError
from medgraft.files import write_json, write_table
from medgraft.judge.external import judge_external
from medgraft.judge.judges import JUDGES
from medgraft.judge.plan import JudgePlan
from medgraft.listener import Listener
from medgraft.prepare.cohort import audited, open_cohort
from medgraft.result.external import ExternalResult, external_to_json
from medgraft.setup.folder import output_folder
from medgraft.study.dataset import Dataset
from medgraft.train.engine import pick_device
from medgraft.types import Cohort, Kind, kind_of

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
) -> ExternalResult:
    """What another cohort says of a finished model; thresholds stay those chosen on validation.

    Args:
        run: A finished run or its model folder.
        config: The external cohort; all its images are used, whatever split they are in.
        out: Folder for `evaluation.json` and `predictions.csv`; None writes nothing.
        unit: What is judged as one; None: what the model was judged by.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        replicates: Replicates of the bootstrap.
        seed: Seeds the bootstrap.
        listener: Told how things go.

    Raises:
        RunError: There is no finished model, or `out` cannot be made.
        ConfigError: The truth are masks and the model classifies, or the machine has no such device.
        DataError: The cohort has other classes, or one of the model's classes is absent.
    """
    listener, used = listener or Listener(), pick_device(device)
    model = load_artefact(Path(run))
    folder = None if out is None else output_folder(Path(out))
    settings, kind = model.artefact.preprocessing, kind_of(model.artefact.task)
    # As in training, whatever the options say.
    config = config.model_copy(update={"resize": settings.resize, **dataclasses.asdict(settings.reading)})
    cohort = _OPENED[kind](model, config, unit, listener)
    looked = audited(cohort, config, settings.sides, settings.channels, listener)
    dataset = Dataset(
        cohort=looked.cohort,
        decoded=looked.decoded,
        rows=np.arange(len(looked.cohort)),
        groups=looked.groups,
        preprocessing=settings,
        patch=model.artefact.patch,
    )
    plan = JudgePlan(replicates=replicates, seed=seed, tolerance=model.artefact.tolerance_mm)
    rows = _USABLE[kind](dataset)
    result, judged = judge_external(model, dataset, rows, looked.audit.findings, plan, used, listener)
    if folder is not None:
        cases = rows[np.unique(looked.cohort.units(rows), return_index=True)[1]]
        write_json(folder / "evaluation.json", external_to_json(result))
        write_table(JUDGES[kind].table(dataset, cases, judged), folder / "predictions.csv")
    return result


def _opened_labels(model: LoadedModel, config: DataConfig, unit: Unit | None, listener: Listener) -> Cohort:
    """The cohort in terms of the model's classes; its cases are what the model was judged by unless `unit` is given.

    Args:
        model: A finished model.
        config: The external cohort.
        unit: What is judged as one.
        listener: Told what is inferred.
    """
    if config.task == "segmentation":
        raise ConfigError("a model that classifies understands labels alone, got --task segmentation. Leave it out.")
    artefact = model.artefact
    wanted = unit or (config.unit if config.unit != "image" else artefact.judged_by)
    update: dict[str, Any] = {"dims": artefact.preprocessing.dims}
    known = Known(task=artefact.task, classes=artefact.classes)
    if config.labels is not None:
        config = config.model_copy(update=update | {"unit": wanted})
        return _with_labels(artefact, open_cohort(config, listener, known=known))
    cohort = open_cohort(config.model_copy(update=update | {"unit": "image"}), listener, known=known)
    divided = with_units(cohort, wanted)
    for note in divided.notes_since(cohort):
        listener.say(note)
    return _with_labels(artefact, divided)


def _with_labels(artefact: Artefact, cohort: Cohort) -> Cohort:
    """The cohort with the model's classes in the model's order."""
    classes = artefact.classes
    if set(cohort.classes) - set(classes) or (cohort.task == "multilabel") != (artefact.task == "multilabel"):
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
    return dataclasses.replace(
        cohort,
        task=artefact.task,
        classes=classes,
        positive=artefact.positive,
        is_ordinal=artefact.is_ordinal,
        targets=targets,
        taught=None,
        is_uncertain=None,
    )


def _opened_masks(model: LoadedModel, config: DataConfig, unit: Unit | None, listener: Listener) -> Cohort:
    """The cohort in terms of the model's classes.

    Args:
        model: A finished model.
        config: The external cohort.
        unit: None: it is for labels, and refused.
        listener: Told what is inferred.
    """
    if unit is not None:
        raise ConfigError("--unit is for labels, and the model marks masks. Leave it out.")
    cohort = open_cohort(config.model_copy(update={"task": "segmentation"}), listener)
    dims = model.artefact.preprocessing.dims
    if cohort.dims != dims:
        wanted = "volumes" if dims == 3 else "images"
        raise DataError(f"{cohort.root}: expected {wanted}, which the model marks, got {cohort.noun}.")
    return _in_terms_of(model.artefact, cohort)


def _all_rows(dataset: Dataset) -> np.ndarray:
    return np.arange(len(dataset.cohort))


def _rows_with_masks(dataset: Dataset) -> np.ndarray:
    """The rows whose mask can be used."""
    unusable = build_mask_cache(dataset.cohort, dataset.decoded).unusable
    rows = np.array([row for row in range(len(dataset.cohort)) if row not in unusable], dtype=np.int64)
    if not len(rows):
        raise DataError(f"{dataset.cohort.root}: no mask can be used. First: {next(iter(unusable.values()))}")
    return rows


_OPENED: Final[dict[Kind, Callable[[LoadedModel, DataConfig, Unit | None, Listener], Cohort]]] = {
    "labels": _opened_labels,
    "masks": _opened_masks,
}
_USABLE: Final[dict[Kind, Callable[[Dataset], np.ndarray]]] = {"labels": _all_rows, "masks": _rows_with_masks}


def _in_terms_of(artefact: Artefact, cohort: Cohort) -> Cohort:
    """The cohort with the model's classes: by their names, or by their numbers where one side has no names.

    Where both sides have one class, neither matters.
    """
    if len(artefact.classes) == len(cohort.classes) == 1:
        return dataclasses.replace(cohort, classes=artefact.classes)
    if set(cohort.classes) <= set(artefact.classes):
        values = dict(zip(cohort.classes, cohort.mask_values, strict=True))
        # Numbers that no file holds stand for classes that this cohort does not show.
        absent = range(NO_NUMBER, NO_NUMBER + len(artefact.classes))
        numbers = tuple(values.get(name, other) for name, other in zip(artefact.classes, absent, strict=True))
        return _with_classes(cohort, artefact, [artefact.classes.index(name) for name in cohort.classes], numbers)
    if cohort.mask_reading.segments or not (_are_numbers(cohort.classes) or _are_numbers(artefact.classes)):
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
    """The cohort whose classes lie at these places among the model's, which the files write as these numbers.

    Args:
        cohort: Its classes are among those of the model.
        artefact: Tells the model's classes.
        places: Index of each class of the cohort among the model's.
        numbers: Number of each of the model's classes in the cohort's files.
    """
    targets = np.zeros((len(cohort), len(artefact.classes)), dtype=np.float32)
    targets[:, places] = cohort.targets
    targets[np.isnan(cohort.targets).any(1)] = np.nan
    return dataclasses.replace(cohort, classes=artefact.classes, mask_values=numbers, targets=targets)
