"""Cohorts whose truth is a mask for every image."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from medgraft.config import MAX_MASK_NUMBER
from medgraft.data.cohort.cases import files_of
from medgraft.data.cohort.folders import COLUMNS, TABLE_SUFFIXES, tables_in
from medgraft.data.cohort.labelled import MIN_PATIENTS
from medgraft.data.cohort.labels import nearest
from medgraft.data.cohort.locate import located
from medgraft.data.cohort.mask_look import classes_of, look_at_masks, read_alike
from medgraft.data.cohort.origin import is_phantom
from medgraft.data.cohort.pairs import Pairs, find_pairs, some_names
from medgraft.data.cohort.patients import with_dicom, with_patients
from medgraft.data.cohort.spelling import with_spelling
from medgraft.data.cohort.tables import FIRST_LINE, demand_column, demand_files, find_column, read_table, split_names
from medgraft.errors import ConfigError, DataError, reason_of
from medgraft.io.dicom_header import read_header
from medgraft.io.dicom_open import is_dicom
from medgraft.io.image import IMAGE_SUFFIXES
from medgraft.io.in_order import in_order
from medgraft.io.mask import NO_NAMES, read_mask
from medgraft.io.volume import is_volume_name
from medgraft.types import VOID, Cohort

__all__ = ["MAJORITY", "NO_NUMBER", "mask_files_of", "mask_of", "mask_readers", "read_mask_cohort", "with_truth"]

NO_NUMBER: Final = MAX_MASK_NUMBER + 1
"""From here on numbers stand for classes that no file shows: no mask holds them."""
MAJORITY: Final = "majority"
"""The observer that takes for each pixel what more than half of the others say."""
_SHOWN: Final = 3
_VOLUMES_AT_ONCE: Final = 2


def read_mask_cohort(
    source: str | Path,
    *,
    observer: str | None = None,
    classes: Mapping[str, int] = NO_NAMES,
    ignored: int | None = None,
    path_column: str | None = None,
    patient_column: str | None = None,
    patient_regex: str | None = None,
) -> Cohort:
    """The images at `source` that have a mask; what was inferred on the way is in the notes.

    Understood are a table with ``path,mask[,patient,site,split]`` and the folders of
    `medgraft.data.cohort.pairs.find_pairs`.
    Every mask is opened once, for the numbers in it: 0 is the background, each other number a class.

    Args:
        source: Folder or table.
        observer: Whose masks, where an image has several; ``majority``: of all. None: the first by name.
        classes: Names of the classes and the numbers that stand for them; empty: what the folder tells, or every number
            in the masks. A mask that holds another number cannot be used.
        ignored: Number that is neither a class nor background; None: what the folder tells.
        path_column: Column of image files; found by name when None.
        patient_column: Column of patients.
        patient_regex: Pattern searched in each path; its first group (or whole match) is the patient.

    Returns:
        A cohort of the task ``segmentation``: `targets` (N, C) float32 says which classes a mask shows (NaN where it
        cannot be read), `classes` names those beside the background, `mask_values` their numbers in the files.

    Raises:
        DataError: Nothing there, an image without a mask, no mask that can be read or shows anything, or more different
            numbers than there can be classes.
        ConfigError: No such observer, or a pattern that fits no path.
    """
    root, table, pairs, is_table = _found(Path(source).expanduser(), path_column, patient_column)
    names, notes = _observed(pairs, observer)
    paths = table["path"].tolist()
    masks = tuple(tuple(pairs.masks[path][name] for name in names if name in pairs.masks[path]) for path in paths)
    lost = [path for path, voters in zip(paths, masks, strict=True) if not voters]
    if lost:
        by = ", ".join(names)
        raise DataError(
            f"{root}: {len(lost)} images have no mask of {by}{some_names(lost)}. Choose another --observer."
        )
    files = _files_by_path(root, paths)
    is_volume = _are_volumes(root, paths, files)
    images = [tuple(root / name for name in files.get(path, (path,))) for path in paths]
    ignored = pairs.ignored if ignored is None else ignored
    look = functools.partial(look_at_masks, root, ignored)
    seen = list(in_order(look, zip(images, masks, strict=True), mask_readers(is_volume)))
    reading, seen, reading_notes = read_alike(seen, dict(classes) or pairs.labels, root)
    named, values, class_notes = classes_of(dict(classes) or pairs.labels, seen, root)
    targets = np.array([[float(value in look.values) for value in values] for look in seen], dtype=np.float32)
    targets[[bool(look.reason) for look in seen]] = np.nan
    table["label"] = ["|".join(name for name, shown in zip(named, row, strict=True) if shown == 1) for row in targets]
    cohort = Cohort(
        root=root.absolute(),
        layout="table" if is_table else "folder",
        task="segmentation",
        classes=named,
        positive=None,
        table=table.astype(object),
        targets=targets,
        dims=3 if is_volume else 2,
        files=files,
        masks=masks,
        observers=_others(pairs, names, paths),
        mask_values=values,
        mask_reading=dataclasses.replace(reading, ignored=ignored),
        notes=(*pairs.notes, *notes, *reading_notes, *class_notes),
    )
    cohort = with_dicom(cohort if patient_regex is None else with_patients(cohort, patient_regex))
    _demand_patients(cohort)
    return dataclasses.replace(cohort, is_phantom=is_phantom(cohort))


def _are_volumes(root: Path, paths: Sequence[str], files: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether all images are volumes, as far as they can be read: by name, folders, DICOM files of many frames.

    Args:
        root: Folder that paths start from.
        paths: Path of each image.
        files: Path to its files, where it is a folder of slices.
    """
    is_any = False
    for path in paths:
        is_volume = True if is_volume_name(path) or path in files else _has_frames(root / path)
        if is_volume is False:
            return False
        is_any |= is_volume is True
    return is_any


def _has_frames(path: Path) -> bool | None:
    """Whether a file is DICOM of several frames; None where that cannot be read."""
    try:
        return path.suffix.lower() not in IMAGE_SUFFIXES and is_dicom(path) and len(read_header(path).frames) > 1
    except DataError:
        return None  # named when the images are read


def _files_by_path(root: Path, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The files of each path that is a folder of slices, relative to `root`."""
    folders = [path for path in paths if (root / path).is_dir()]
    return {path: tuple(os.path.relpath(file, root) for file in files_of(root / path)) for path in folders}


def _found(path: Path, path_column: str | None, patient_column: str | None) -> tuple[Path, pd.DataFrame, Pairs, bool]:
    """Where paths start, one row for each image, its masks, and whether a table named them.

    Args:
        path: Folder or table.
        path_column: Column of image files; None to find it by name.
        patient_column: Column of patients; None to find it by name.
    """
    if not path.exists():
        raise DataError(f"{path}: expected a folder or a table of images and masks, found nothing.")
    tables = [path] if path.is_file() else _mask_tables(path)
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables[:_SHOWN])
        raise DataError(
            f"{path}: expected one table of masks, got {len(tables)} ({names}). Give the path of the right one; a "
            "split is a column of it."
        )
    if tables:
        return *_from_table(tables[0], path_column, patient_column), True
    if path_column or patient_column:
        raise ConfigError(f"--path-column and --patient-column are for tables, got {path} without one.")
    pairs = find_pairs(path)
    table = pd.DataFrame(dict.fromkeys(COLUMNS), index=range(len(pairs.masks)), dtype=object)
    table["path"] = list(pairs.masks)
    table["split"] = pd.Series([pairs.splits.get(image) for image in pairs.masks], dtype=object)
    return path, table, pairs, False


def _others(pairs: Pairs, names: Sequence[str], paths: Sequence[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Files of each image's mask by every observer who is not the truth; none where there is no such mask.

    Args:
        pairs: Images and their masks.
        names: Observers who are the truth.
        paths: Path of each image, in the order of the cohort.
    """
    observers = [name for name in pairs.observers if name not in names]
    return {name: tuple(pairs.masks[path].get(name, ()) for path in paths) for name in observers}


def mask_readers(is_volume: bool) -> int | None:
    """How many masks are read at a time: of volumes two, each of which takes gigabytes; None for one per core."""
    return _VOLUMES_AT_ONCE if is_volume else None


def with_truth(cohort: Cohort, observer: str, row: int) -> tuple[np.ndarray, np.ndarray] | str | None:
    """Another observer's class numbers of one image and those of the truth, on one grid.

    Args:
        cohort: From `read_mask_cohort`.
        observer: A key of `cohort.observers`.
        row: Row number.

    Returns:
        The two; why one of them cannot be read; or None where there is no such mask, or one of another size.
    """
    files = cohort.observers[observer][row]
    if not files:
        return None
    try:
        mask, truth = _united(cohort, row, files), mask_of(cohort, row)
    except DataError as error:
        return reason_of(error, [*(cohort.root / file for file in files), *mask_files_of(cohort, row)])
    return (mask, truth) if mask.shape == truth.shape else None


def mask_files_of(cohort: Cohort, row: int) -> list[Path]:
    """The files that an image and its mask are read from."""
    return [*(cohort.root / file for files in cohort.masks[row] for file in files), *cohort.files_of(row)]


def mask_of(cohort: Cohort, row: int) -> np.ndarray:
    """Class numbers of one mask, native size: 0 the background, 1 the first class …; of several observers the majority.

    Args:
        cohort: From `read_mask_cohort`.
        row: Row number.

    Returns:
        (H, W) or (D, H, W) uint8; `medgraft.types.VOID` where it is to be ignored.

    Raises:
        DataError: It cannot be read, holds a number that is no class, or observers' masks differ in size.
    """
    votes = [_united(cohort, row, files) for files in cohort.masks[row]]
    if len({vote.shape for vote in votes}) > 1:
        sizes = ", ".join("×".join(map(str, vote.shape)) for vote in votes)
        first = cohort.root / cohort.masks[row][0][0]
        raise DataError(f"{first}: observers' masks of different sizes ({sizes}). Leave one out.")
    if len(votes) == 1:
        return votes[0]
    agreed = np.zeros(votes[0].shape, dtype=np.uint8)
    for number in (*range(1, len(cohort.mask_values) + 1), VOID):
        agreed[2 * sum((vote == number).astype(np.uint8) for vote in votes) > len(votes)] = number
    return agreed


def _united(cohort: Cohort, row: int, files: Sequence[str]) -> np.ndarray:
    """Class numbers of one observer's mask of a row; several files are united, and where they overlap the last wins.

    Args:
        cohort: From `read_mask_cohort`.
        row: Row number.
        files: Files of the observer's mask, relative to the cohort's root.
    """
    mask: np.ndarray | None = None
    for name in files:
        path = cohort.root / name
        part = _numbered(read_mask(path, cohort.files_of(row), cohort.mask_reading), cohort, path)
        if mask is not None and mask.shape != part.shape:
            raise DataError(f"{cohort.root / name}: a part of a mask of another size than the others. Correct it.")
        # What one part does not judge another may.
        mask = part if mask is None else np.where((part == 0) | ((part == VOID) & (mask != 0)), mask, part)
    if mask is None:
        raise DataError("expected the files of a mask, got none.")
    return mask


def _numbered(mask: np.ndarray, cohort: Cohort, file: Path) -> np.ndarray:
    """Class numbers of a mask: 0 for the background, 1 for the first class, and so on; `VOID` for what is ignored.

    Args:
        mask: (H, W) or (D, H, W) numbers as they stand in the file.
        cohort: Tells the number in the file that stands for each class.
        file: For the error.
    """
    values = cohort.mask_values
    numbers = np.zeros(mask.shape, dtype=np.uint8)
    if cohort.mask_reading.ignored is not None:
        numbers[mask == cohort.mask_reading.ignored] = VOID
    for number, value in enumerate(values, 1):
        numbers[mask == value] = number
    strange = np.unique(mask[(numbers == 0) & (mask != 0)])
    if len(strange):
        expected = ", ".join(str(value) for value in values if value < NO_NUMBER)
        raise DataError(f"{file}: holds the label {strange[0]}, expected 0 or {expected}.")
    return numbers


def _mask_tables(folder: Path) -> list[Path]:
    """Tables in a folder that name masks; what is no table at all (notes, say) is none of them.

    Nor is the list of what a model predicted: its masks are no truth.
    """
    tables = []
    for table in tables_in(folder):
        with contextlib.suppress(DataError):
            frame = read_table(table)
            is_predicted = "status" in frame and any(str(name).startswith("pixels_") for name in frame)
            tables += [table] if find_column(frame, "mask") is not None and not is_predicted else []
    return tables


def _from_table(path: Path, path_column: str | None, patient_column: str | None) -> tuple[Path, pd.DataFrame, Pairs]:
    """Where paths start, one row for each image, and its masks, from a table.

    Args:
        path: CSV, TSV or Parquet.
        path_column: Column of image files; None to find it by name.
        patient_column: Column of patients; None to find it by name.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{path}: expected a folder, or a .csv, .tsv or .parquet with columns path and mask.")
    frame = read_table(path)
    wanted: dict[str, str | None] = {"path": path_column, "patient": patient_column}
    columns = {}
    for ours in ("path", "mask", "patient", "site", "split"):
        asked = wanted.get(ours)
        theirs = demand_column(frame, asked, path) if asked else find_column(frame, ours)
        if theirs is None and ours in ("path", "mask"):
            raise DataError(f"{path}: has no column {ours!r}. {nearest(ours, [str(name) for name in frame.columns])}")
        if theirs is not None:
            columns[ours] = theirs
    table = pd.DataFrame(dict.fromkeys(COLUMNS), index=range(len(frame)), dtype=object)
    for ours, theirs in columns.items():
        table[ours] = pd.Series(frame[theirs].tolist(), dtype=object)
    table["split"] = pd.Series(split_names(table["split"], path), dtype=object)
    for column in ("path", "mask"):
        for line, name in enumerate(table[column], FIRST_LINE):
            if name is None:
                image = table["path"].iat[line - FIRST_LINE]
                of = f" of {image!s}" if column == "mask" and image is not None else ""
                raise DataError(f"{path}, line {line}: the {column}{of} is missing. A case needs an image and a mask.")
    found: list[str] = []
    for column in ("path", "mask"):
        names, notes = located(table[column].tolist(), path.parent)
        table[column] = pd.Series(names, dtype=object)
        found += notes
    demand_files(table, path)
    if table["path"].duplicated().any():
        raise DataError(f"{path}: {table['path'][table['path'].duplicated()].iloc[0]} stands in two rows. Keep one.")
    masks = {image: {"": (mask,)} for image, mask in zip(table["path"], table["mask"], strict=True)}
    table, spelled = with_spelling(table)
    return path.parent, table, Pairs(masks=masks, notes=(f"{len(table)} rows in {path.name}.", *found, *spelled))


def _observed(pairs: Pairs, observer: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The observers whose masks count, and a note on the choice."""
    observers = pairs.observers
    if observer is not None and observer not in (*observers, MAJORITY):
        raise ConfigError(
            f"expected --observer among {', '.join((*filter(None, observers), MAJORITY))}, got {observer!r}."
        )
    if len(observers) == 1:
        return observers, ()
    names = ", ".join(observers)
    if observer == MAJORITY:
        return observers, (f"{len(observers)} observers ({names}): a pixel is what more than half of them say.",)
    chosen = observer or observers[0]
    return (chosen,), (f"{len(observers)} observers ({names}): the truth is {chosen}; --observer chooses.",)


def _demand_patients(cohort: Cohort) -> None:
    patients = cohort.table["patient"]
    count = patients.nunique() if patients.notna().any() else len(cohort)
    if count < MIN_PATIENTS:
        raise DataError(f"{cohort.root}: {count} patients (or images), expected at least three.")
