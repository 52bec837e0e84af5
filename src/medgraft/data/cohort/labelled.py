"""Any source of labelled images to one `Cohort`."""

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd

from medgraft.config import Blank, Key, Unit
from medgraft.data.cohort.export import list_export, unit_names
from medgraft.data.cohort.films import with_frames
from medgraft.data.cohort.folders import TABLE_SUFFIXES, Listing, list_folder, tables_in
from medgraft.data.cohort.labels import (
    as_known,
    choose_positive,
    class_matrix,
    describe_task,
    encode_flags,
    encode_labels,
    nearest,
    spelling_key,
)
from medgraft.data.cohort.medmnist import read_medmnist
from medgraft.data.cohort.origin import is_phantom
from medgraft.data.cohort.pairs import IMAGE_FOLDERS, MASK_FOLDERS
from medgraft.data.cohort.patients import with_dicom, with_patients
from medgraft.data.cohort.tables import FIRST_LINE, list_table, names_volumes, peek_table
from medgraft.data.cohort.unknown import describe_unknown, retaught
from medgraft.data.cohort.walk import tree_below
from medgraft.errors import ConfigError, DataError
from medgraft.io.formats import names_of_formats
from medgraft.io.image import IMAGE_SUFFIXES
from medgraft.io.volume import is_volume_name
from medgraft.types import Cohort, Task

__all__ = ["MIN_PATIENTS", "Known", "Unknown", "read_cohort", "with_units"]

MIN_PATIENTS: Final = 3
"""Fewest patients (images, where patients are unknown) of a class: one each for train, val and test."""
MAX_SHOWN: Final = 3
_NETWORKS: Final = "Images need a network for images, volumes one for volumes or --lift; see docs/volumes.md."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """What labels mean that are neither 0 nor 1.

    Args:
        uncertain: Policy of `medgraft.data.cohort.unknown.parse_policy` for -1; None refuses it.
        blank: What a blank cell is.
        seed: Seeds what is drawn for uncertain labels.
    """

    uncertain: str | None = None
    blank: Blank = "refuse"
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a finished model predicts, in whose terms a cohort is read; a cohort of one class is enough.

    Args:
        task: Of the model.
        classes: In the order of its outputs.
    """

    task: Task
    classes: tuple[str, ...]


def read_cohort(
    source: str | Path,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    patient_column: str | None = None,
    patient_regex: str | None = None,
    positive: str | None = None,
    labels: str | Path | None = None,
    key: Key = "path",
    unit: Unit = "image",
    dims: Literal["auto", 2, 3] = "auto",
    frames: Literal["one", "first", "middle", "all"] = "one",
    unknown: Unknown | None = None,
    known: Known | None = None,
    grades: Sequence[str] = (),
) -> Cohort:
    """The cohort found at `source`; everything inferred on the way is in its notes.

    Understood are ``root/class/*``, ``root/{train,val,test}/class/*``, a CSV, TSV or Parquet table, a
    folder with one such table in it, and MedMNIST's `.npz`. A folder with class folders and a table is read
    by its folders, unless a column was asked for, its labels differ, or it knows more (patient, split,
    site, mask).

    Args:
        source: Folder, table or archive.
        path_column: Column of file names.
        label_column: Column of labels (``a|b`` for several), or several 0/1 columns separated by commas.
        patient_column: Column of patients.
        patient_regex: Pattern searched in each path; its first group (or whole match) is the patient.
        known: What a finished model predicts, for a cohort that tests it.
        frames: ``all``: every frame of a DICOM film is an image, and they are judged together; else files are images.
        positive: Positive class of a binary task.
        labels: Table that labels the images of a folder by an identifier, e.g. of a PACS export.
        key: Which identifier.
        unit: What is judged as one where `labels` is given.
        dims: 2 to read images, 3 to read volumes; ``auto``: volumes where files or arrays are such, and a DICOM file is
            an image.
        unknown: What labels of -1 and blank ones mean; None refuses them.
        grades: All classes from the lowest to the highest, where they are grades.

    Raises:
        DataError: Nothing there, a file, column or label is missing, one class only, too few patients.
        ConfigError: An option does not fit the source.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("normal", "tumour"):
        ...         (Path(folder) / name).mkdir()
        ...         for number in range(3):
        ...             (Path(folder) / name / f"{number}.png").touch()
        ...     cohort = read_cohort(folder)
        >>> len(cohort), cohort.task, cohort.classes, cohort.positive
        (6, 'binary', ('normal', 'tumour'), 'tumour')
    """
    path = Path(source).expanduser()
    if not path.exists():
        siblings = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        raise DataError(f"{path}: expected a folder, table or .npz, found nothing. {nearest(path.name, siblings)}")
    options = {"path_column": path_column, "label_column": label_column, "patient_column": patient_column}
    asked = {name: column for name, column in options.items() if column is not None}
    wanted = dims if dims != "auto" else 3 if _are_volumes(path, path_column) else 2
    if labels is not None:
        if not path.is_dir():
            raise ConfigError(f"--labels is for a folder of images, got {path}. Leave it out.")
        if path_column is not None:
            raise ConfigError("--path-column names no column of --labels: say --key path, and call the column path.")
        columns = {"label_column": label_column, "patient_column": patient_column}
        listing = list_export(path, Path(labels).expanduser(), key, unit=unit, dims=wanted, **columns)
        cohort = dataclasses.replace(_encode(listing, positive, unknown or Unknown(), known), judged_by=unit)
    elif key != "path" or unit != "image":
        raise ConfigError(f"--key and --unit say how --labels is meant, got {key} and {unit} without it. Add --labels.")
    elif path.suffix.lower() == ".npz" and path.is_file():
        _refuse_columns(asked, path)
        if unknown is not None and (unknown.uncertain is not None or unknown.blank != "refuse"):
            raise ConfigError("--uncertain and --blank are for tables, got an archive. Leave them out.")
        cohort = read_medmnist(path, positive=positive)
        if dims not in ("auto", cohort.dims):
            noun, other = ("images", "volumes") if cohort.dims == 2 else ("volumes", "images")
            raise DataError(f"{path}: expected {other}, got {noun}. {_NETWORKS}")
    else:
        cohort = _encode(_listing(path, asked, wanted), positive, unknown or Unknown(), known)
    if grades:
        cohort = _graded(cohort, grades)
    if patient_regex is not None:
        cohort = with_patients(cohort, patient_regex)
    if frames == "all":
        cohort = with_frames(cohort)
    if cohort.arrays is None:
        cohort = with_dicom(cohort)
    if known is None:
        _check_enough(cohort)
    return _with_units(dataclasses.replace(cohort, is_phantom=is_phantom(cohort)))


def _are_volumes(path: Path, path_column: str | None) -> bool:
    """Whether what lies at `path` is volumes by name; single DICOM files and pictures are images unless told."""
    if path.is_file():
        return path.suffix.lower() in TABLE_SUFFIXES and names_volumes(path, path_column)
    tables = tables_in(path)
    if len(tables) == 1:
        return names_volumes(tables[0], path_column)
    has_volumes = False
    for folder, names in tree_below(path).folders:
        if folder != path:
            if any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names):  # noqa: PTH122
                return False
            has_volumes |= any(is_volume_name(name) for name in names)
    return has_volumes


def _refuse_columns(asked: dict[str, str], path: Path) -> None:
    if asked:
        option = next(iter(asked)).replace("_", "-")
        raise ConfigError(f"--{option} is for tables, got {path} without one. Leave it out or name the table.")


def _refuse_masks(path: Path, folders: Listing) -> None:
    """Folders called images and masks are no classes, whoever forgot to say what is learned."""
    names = {str(name) for name in folders.table["label"]}
    lower_names = {name.casefold() for name in names}
    if len(lower_names) == 2 and lower_names & set(IMAGE_FOLDERS) and lower_names & set(MASK_FOLDERS):
        raise DataError(
            f"{path}: expected a folder for each class, got {' and '.join(sorted(names))}. Give --task segmentation, "
            "or rename the folders."
        )


def _listing(path: Path, asked: dict[str, str], dims: Literal[2, 3]) -> Listing:
    """What lies at a path: a table, class folders, or a folder with one table in it.

    Args:
        path: Folder or table.
        asked: Columns that the user named, by the name of the option.
        dims: 2 to read images, 3 to read volumes.
    """
    if path.is_file():
        return list_table(path, dims=dims, **asked)
    folders = list_folder(path, dims)
    tables = tables_in(path)
    if folders is None and not tables:
        raise DataError(f"{path}: no images found. Expected class folders of {names_of_formats(dims)}, or one table.")
    if (folders is None or asked) and len(tables) != 1:
        if not tables:
            _refuse_columns(asked, path)
        names = ", ".join(table.name for table in tables[:MAX_SHOWN])
        raise DataError(f"{path}: expected one table, got {len(tables)} ({names}). Give the path of the right one.")
    if folders is None or asked:
        return list_table(tables[0], dims=dims, **asked)
    if len(tables) != 1:
        _refuse_masks(path, folders)
        return folders
    columns, labels = peek_table(tables[0])
    folder_labels = dict(zip(folders.table["path"], folders.table["label"], strict=True))
    extra = sorted(columns - {"path", "label"})
    agrees = all(spelling_key(folder_labels.get(name, "")) == spelling_key(label) for name, label in labels.items())
    if not labels or (agrees and not extra):
        note = f"{tables[0].name} was not needed: the folders already label every image."
        return dataclasses.replace(folders, notes=(*folders.notes, note))
    why = f"it also tells {', '.join(extra)}" if agrees else "its labels are not the folders' names"
    listing = list_table(tables[0], dims=dims)
    note = f"{tables[0].name} was read instead of the class folders, because {why}."
    return dataclasses.replace(listing, notes=(note, *listing.notes))


def _encode(listing: Listing, positive: str | None, unknown: Unknown, known: Known | None) -> Cohort:
    """The cohort of a listing, whose labels become classes and targets.

    Args:
        listing: What lies on disk.
        positive: Positive class that the user asked for, or None.
        unknown: What labels mean that are neither 0 nor 1.
        known: What a finished model predicts; None where there is none.
    """
    if listing.flags is not None:
        cohort = _from_flags(listing, listing.flags, unknown, known)
    elif unknown.uncertain is None and unknown.blank == "refuse":
        cohort = _from_labels(listing, known)
    else:
        raise ConfigError(
            f"--uncertain and --blank are for several columns of 0 and 1, got one label in {listing.where}. "
            "Name the columns with --label-column A,B,C."
        )
    chosen = choose_positive(cohort.task, cohort.classes, positive)
    described = describe_task(cohort.task, cohort.classes, chosen, positive)
    notes = (*listing.notes, *described, *cohort.notes)
    return dataclasses.replace(cohort, positive=chosen, table=cohort.table.astype(object), notes=notes)


def _from_labels(listing: Listing, known: Known | None) -> Cohort:
    try:
        labels = listing.table["label"].tolist()
        task, classes, targets = encode_labels(labels, () if known is None else known.classes)
    except DataError as error:
        tables = tables_in(listing.root) if listing.layout == "folder" else []
        advice = f" If {tables[0].name} holds the labels, say --labels {tables[0]} --key KEY." if tables else ""
        reason = _nested(listing) or f"{error}"
        raise DataError(f"{listing.where}: {reason}{advice}") from error
    return _cohort(listing, task, classes, targets)


def _nested(listing: Listing) -> str:
    """Where the classes may lie instead: in the one folder that an archive unpacks to; empty where there is none."""
    if listing.layout != "folder" or listing.table["label"].nunique() != 1:
        return ""
    inside = listing.root / str(listing.table["label"].iat[0])
    below = list_folder(inside, listing.dims)
    if below is None or below.table["label"].nunique() < 2:
        return ""
    found = ", ".join(sorted(below.table["label"].unique())[:3])
    alone = f"expected a folder for each class, got {inside.name!r} alone with {found} in it."
    return f"{alone} Are these the classes? Give {inside}."


def _from_flags(
    listing: Listing, flags: Mapping[str, Sequence[str | None]], unknown: Unknown, known: Known | None
) -> Cohort:
    """A multilabel cohort, from a column of 0 and 1 for each label.

    Args:
        listing: What lies on disk.
        flags: Label to its texts, None where a cell is blank.
        unknown: What labels mean that are neither 0 nor 1.
        known: What a finished model predicts; None where there is none.
    """
    if known is not None:
        names = as_known({name: name for name in flags}, known.classes)
        flags = {names[name]: texts for name, texts in flags.items()}
    classes = tuple(flags)
    takes_uncertain = unknown.uncertain is not None
    targets, is_uncertain = encode_flags(
        flags, listing.where, FIRST_LINE, takes_uncertain=takes_uncertain, blank=unknown.blank
    )
    has_classes = (targets.sum(1) == 1).all() if known is None else known.task != "multilabel"
    if unknown.uncertain is None and has_classes and (targets.sum(1) == 1).all():
        # NaN is no 1, so nothing is blank either.
        table = listing.table.assign(label=[classes[row.argmax()] for row in targets])
        cohort = _from_labels(dataclasses.replace(listing, table=table, flags=None), known)
        words = f"Every row has exactly one of {', '.join(classes)}: they are classes, of which an image has one."
        return dataclasses.replace(cohort, notes=(words, *cohort.notes))
    cohort = _cohort(listing, "multilabel", classes, targets)
    labels = ["|".join(classes[c] for c in np.flatnonzero(row == 1)) for row in targets]
    note = describe_unknown(targets, is_uncertain, classes, unknown.uncertain)
    cohort = dataclasses.replace(
        cohort,
        table=cohort.table.assign(label=labels),
        notes=(note,) if note else (),
        is_uncertain=is_uncertain,
    )
    return cohort if unknown.uncertain is None else retaught(cohort, unknown.uncertain, unknown.seed)


def _cohort(listing: Listing, task: Task, classes: tuple[str, ...], targets: np.ndarray) -> Cohort:
    """The cohort of a listing, before its positive class is chosen.

    Args:
        listing: What lies on disk.
        task: What is predicted.
        classes: Class names in the order of the targets.
        targets: (N,) int64 class indices, or (N, C) float32 for multilabel.
    """
    return Cohort(
        root=listing.root.absolute(),
        layout=listing.layout,
        task=task,
        classes=classes,
        positive=None,
        table=listing.table,
        targets=targets,
        files=listing.files,
        dims=listing.dims,
    )


def _graded(cohort: Cohort, grades: Sequence[str]) -> Cohort:
    """The classes in the order of the grades."""
    by_key = {spelling_key(name): name for name in cohort.classes}
    named = [by_key.get(spelling_key(grade)) for grade in grades]
    if cohort.task != "multiclass" or sorted(map(str, named)) != sorted(cohort.classes):
        raise ConfigError(
            f"expected --grades to name each of the classes once, of three or more, got {', '.join(grades)} for "
            f"{', '.join(cohort.classes)} ({cohort.task})."
        )
    classes = tuple(str(name) for name in named)
    ranks = np.array([classes.index(name) for name in cohort.classes])
    note = f"Grades, from the lowest to the highest: {', '.join(classes)}."
    targets = ranks[cohort.targets].astype(np.int64)
    return dataclasses.replace(cohort, classes=classes, targets=targets, is_ordinal=True, notes=(*cohort.notes, note))


def with_units(cohort: Cohort, unit: Unit) -> Cohort:
    """The cohort whose images are judged by series, study or patient, as their DICOM headers tell.

    Units that the cohort has already stay. Where no header tells any, images stay alone, and a note says so.

    Args:
        cohort: As read.
        unit: What is judged as one; ``image`` changes nothing.

    Raises:
        DataError: Images of one unit contradict each other.
    """
    if unit == "image" or cohort.table["unit"].notna().any():
        return cohort
    names: list[str] = []
    if cohort.arrays is None:
        names = unit_names([cohort.files_of(row) for row in range(len(cohort))], unit)
    if not any(names):
        note = f"Warning: no file tells its {unit}, by which the model was judged; each of the {cohort.noun} is alone."
        return dataclasses.replace(cohort, notes=(*cohort.notes, note))
    table = cohort.table.assign(unit=pd.Series([name or None for name in names], dtype=object))
    return _with_units(dataclasses.replace(cohort, table=table, judged_by=unit))


def _with_units(cohort: Cohort) -> Cohort:
    """Refuses units that contradict themselves, and says how many there are."""
    units, first = cohort.units(np.arange(len(cohort))), cohort.case_rows()
    if len(first) == len(cohort):
        return cohort
    for column in ("patient", "split", "site"):
        values = cohort.table[column].to_numpy(dtype=object)
        odd = np.flatnonzero(values != values[first[units]])
        if len(odd):
            raise DataError(
                f"{cohort.root}: images of one unit differ in {column}, e.g. {cohort.table['path'].iat[odd[0]]}. "
                "Give a unit one of each."
            )
    truth = np.nan_to_num(cohort.targets, nan=-1.0) if cohort.targets.ndim == 2 else cohort.targets
    same = truth == truth[first[units]]
    odd = np.flatnonzero(~(same if same.ndim == 1 else same.all(1)))
    if len(odd):
        raise DataError(
            f"{cohort.root}: images of one unit have different labels, e.g. {cohort.table['path'].iat[odd[0]]}. "
            "Label the unit, or judge images."
        )
    note = f"{len(cohort)} {cohort.noun} are judged as {len(first)} {cohort.case_noun}: probabilities are averaged."
    return dataclasses.replace(cohort, notes=(*cohort.notes, note))


def _check_enough(cohort: Cohort) -> None:
    patient_ids = cohort.table["patient"]
    alone = pd.Series([f"row {row}" for row in range(len(patient_ids))], dtype=object)
    patients = pd.factorize(patient_ids.where(patient_ids.notna(), alone))[0]
    matrix = class_matrix(cohort.task, cohort.targets, len(cohort.classes))
    names = [*cohort.classes, *(f"not {name}" for name in cohort.classes)]
    unit = "patients" if patient_ids.notna().any() else "images"
    for column, name in zip(matrix.T, names, strict=False):
        count = len(np.unique(patients[column]))
        if count < MIN_PATIENTS:
            message = f"class {name!r} has {count} {unit}, expected at least {MIN_PATIENTS} (train, val, test)"
            others = [other for other in cohort.classes if other != name]
            close = difflib.get_close_matches(name, others, n=1, cutoff=0.75)
            advice = f"Is it a misspelling of {close[0]!r}?" if close else "Add cases or leave this class out."
            raise DataError(f"{cohort.root}: {message}. {advice}")
