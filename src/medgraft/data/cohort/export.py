"""A PACS export: a folder of DICOM files in any arrangement, labelled by a table that names them by an identifier."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd

from medgraft.config import Key, Unit
from medgraft.data.cohort.cases import cases_in, files_by_path
from medgraft.data.cohort.folders import COLUMNS, Listing
from medgraft.data.cohort.labels import nearest
from medgraft.data.cohort.spelling import only_matches, spelled_once, with_spelling
from medgraft.data.cohort.tables import FIRST_LINE, demand_column, find_column, label_columns, read_table, split_names
from medgraft.data.cohort.walk import tree_below
from medgraft.errors import DataError
from medgraft.io.dicom_header import header_if_dicom
from medgraft.io.formats import names_of_formats
from medgraft.io.in_order import in_order

__all__ = ["list_export", "unit_names", "units_of_cases"]

UNITS: Final[dict[Unit, Key]] = {"series": "SeriesInstanceUID", "study": "StudyInstanceUID", "patient": "PatientID"}
FIELDS: Final = {
    "SOPInstanceUID": "sop_uid",
    "SeriesInstanceUID": "series_uid",
    "StudyInstanceUID": "study_uid",
    "AccessionNumber": "accession",
    "PatientID": "patient_id",
}


def list_export(
    root: Path,
    labels: Path,
    key: Key,
    *,
    unit: Unit = "image",
    label_column: str | None = None,
    patient_column: str | None = None,
    dims: Literal[2, 3] = 2,
) -> Listing:
    """Every image below `root` whose identifier stands in the table; what finds no partner on either side is counted.

    Args:
        root: Folder of images, in any arrangement.
        labels: CSV, TSV or Parquet with a column named as `key` (in any spelling) and one or several of labels; columns
            of patients, sites and splits are taken along.
        key: What the table names images by; ``path`` is relative to `root`.
        unit: What is judged as one: an image, or all images of a series, study or patient together.
        label_column: Column of labels, or several of 0 and 1 separated by commas.
        patient_column: Column of patients; found by name when None.
        dims: 3 to read volumes; their ``path`` is the file or, of several slices, the folder.

    Raises:
        DataError: No image, no such column, two labels for one identifier, or no identifier in common.
    """
    frame = read_table(labels)
    column = _key_column(frame, key, labels)
    columns = {ours: theirs for ours in ("patient", "site", "split") if (theirs := find_column(frame, ours))}
    if patient_column is not None:
        columns["patient"] = demand_column(frame, patient_column, labels)
    names, is_flags = label_columns(frame, labels, label_column)
    rows = _rows_by_key(frame, column, [*names, *columns.values()], labels)
    what = "images" if dims == 2 else "volumes"
    cases = _cases(root, dims)
    keys = list(in_order(functools.partial(_identifiers, root, (key, UNITS.get(unit, key))), cases))
    matches = _matched(cases, keys, rows, unit)
    if not matches:
        example = next((name for name, _ in keys if name), "nothing")
        raise DataError(
            f"{labels}: none of its {len(rows)} values of {column} is the {key} of one of the {what} below {root}, "
            f"e.g. {next(iter(rows))!r} against {example!r}. Choose another --key, or correct the table."
        )
    picked = frame.iloc[[row for _, row, _ in matches]].reset_index(drop=True)
    paths = [case[0].relative_to(root).as_posix() for case, _, _ in matches]
    table, notes = with_spelling(_table(paths, picked, columns if is_flags else columns | {"label": names[0]}, labels))
    if unit != "image":
        table["unit"] = [part for _, _, part in matches]
        if lost := next((case[0] for case, _, part in matches if not part), None):
            raise DataError(f"{lost}: has no {UNITS[unit]} to be judged by {unit}. Use --set data.unit=image.")
    matched = {row for _, row, _ in matches}
    note = (
        f"{len(matches)} of {len(cases)} {what} found their {key} in {labels.name}; "
        f"{len(cases) - len(matches)} {what} have no row, {len(rows) - len(matched)} rows have no image."
    )
    flags = {name: picked[name].tolist() for name in names} if is_flags else None
    return Listing(
        layout="table",
        root=root,
        table=table,
        where=str(labels),
        flags=flags,
        files=files_by_path([case for case, _, _ in matches], root),
        dims=dims,
        notes=(note, *notes),
    )


def units_of_cases(cases: Sequence[tuple[Path, ...]], unit: Unit) -> np.ndarray:
    """(N,) int64 number of each case's unit by its DICOM header, by first appearance; a case without stands alone.

    Args:
        cases: Files of each image or volume.
        unit: What is judged as one.
    """
    if unit == "image":
        return np.arange(len(cases))
    names = pd.Series([name or f"\0{row}" for row, name in enumerate(unit_names(cases, unit))])
    return np.asarray(pd.factorize(names)[0], dtype=np.int64)


def unit_names(cases: Sequence[tuple[Path, ...]], unit: Unit) -> list[str]:
    """The identifier of each case's unit by its DICOM header; empty where there is none.

    Args:
        cases: Files of each image or volume.
        unit: ``series``, ``study`` or ``patient``.
    """
    names = list(in_order(functools.partial(_identifier, UNITS[unit]), [case[0] for case in cases]))
    return [name or "" for name in spelled_once(names)[0]] if unit == "patient" else names


def _matched(
    cases: Sequence[tuple[Path, ...]], keys: Sequence[tuple[str, ...]], rows: Mapping[str, int], unit: Unit
) -> list[tuple[tuple[Path, ...], int, str]]:
    """Files, row of the table and name of the unit of each case that has a row.

    Args:
        cases: Files of each.
        keys: Identifier that the table uses, and that of the unit.
        rows: Row of each identifier of the table.
        unit: What is judged as one.
    """
    found = _rows_of([name for name, _ in keys], rows)
    units = [part for _, part in keys]
    if unit == "patient":
        units = [part or "" for part in spelled_once(units)[0]]
    return [(case, row, part) for case, row, part in zip(cases, found, units, strict=True) if row is not None]


def _rows_of(names: Sequence[str], rows: Mapping[str, int]) -> list[int | None]:
    """The row of each identifier: spelled alike, or else the only one that differs in capitals, blanks and zeros alone.

    Args:
        names: Identifiers of cases; empty where there is none.
        rows: Row of each identifier of the table.
    """
    similar = only_matches(filter(None, names), rows)
    return [rows.get(name, rows.get(similar.get(name, ""))) if name else None for name in names]


def _table(paths: Sequence[str], picked: pd.DataFrame, columns: Mapping[str, str], labels: Path) -> pd.DataFrame:
    """Our table, from the row of the labels that belongs to each path.

    Args:
        paths: Path of each case, relative to the root.
        picked: Row of the labels' table for each path, in the same order.
        columns: Our column names to those of the table.
        labels: File of the table, for errors.
    """
    table = pd.DataFrame(dict.fromkeys(COLUMNS), index=range(len(paths)), dtype=object)
    table["path"] = paths
    for ours, theirs in columns.items():
        table[ours] = picked[theirs]
    table["split"] = pd.Series(split_names(table["split"], labels), dtype=object)
    return table


def _cases(root: Path, dims: int) -> list[tuple[Path, ...]]:
    """The files of each image or volume below `root`, at least one; hidden ones are left out."""
    cases = cases_in(tree_below(root).files, dims)
    if not cases:
        what = f"{'images' if dims == 2 else 'volumes'} ({names_of_formats(dims)})"
        raise DataError(f"{root}: expected {what} below it, found none.")
    return cases


def _identifiers(root: Path, keys: Sequence[Key], case: tuple[Path, ...]) -> tuple[str, ...]:
    """An image's or volume's identifier for each of `keys`, empty where it has none; one header is read, once.

    Args:
        root: Folder that ``path`` starts from.
        keys: Which identifiers.
        case: Files of the image or volume.
    """
    path = case[0]
    header = header_if_dicom(path) if set(keys) - {"path"} else None
    named = (path if len(case) == 1 else path.parent).relative_to(root).as_posix()
    return tuple(named if key == "path" else str(getattr(header, FIELDS[key], "")) for key in keys)


def _identifier(key: Key, path: Path) -> str:
    return str(getattr(header_if_dicom(path), FIELDS[key], ""))


def _spelling(name: str) -> str:
    return re.sub(r"[\s_\-]", "", name).casefold()


def _key_column(frame: pd.DataFrame, key: Key, labels: Path) -> str:
    """The column of the table that holds the identifiers.

    Args:
        frame: The table.
        key: What it names images by.
        labels: File of the table, for the error.
    """
    if key not in get_args(Key):
        raise DataError(f"expected --key among {', '.join(get_args(Key))}, got {key!r}.")
    columns = _columns_of(frame, key)
    if not columns and key in ("path", "PatientID"):
        columns = [name for name in [find_column(frame, "path" if key == "path" else "patient")] if name]
    if not columns:
        names = [str(name) for name in frame.columns]
        advice = nearest(key, names)
        other = next((field for field in FIELDS if _columns_of(frame, field)), None)
        if other and not advice.startswith("Nearest"):
            advice = f"Did you mean --key {other}?"
        raise DataError(f"{labels}: has no column {key!r}. {advice}")
    return columns[0]


def _columns_of(frame: pd.DataFrame, key: str) -> list[str]:
    wanted = {_spelling(key), *({"accession"} if key == "AccessionNumber" else ())}
    return [str(name) for name in frame.columns if _spelling(str(name)) in wanted]


def _rows_by_key(frame: pd.DataFrame, column: str, used: Sequence[str], labels: Path) -> dict[str, int]:
    """Each identifier's first row; a later one must say the same.

    Args:
        frame: The table.
        column: Its column of identifiers.
        used: Columns in which all rows of one identifier have to agree.
        labels: File of the table, for the error.
    """
    rows: dict[str, int] = {}
    for row, value in enumerate(frame[column]):
        if value is None or not str(value).strip():
            raise DataError(f"{labels}: column {column} is blank in line {FIRST_LINE + row}. Fill it in.")
        first = rows.setdefault(str(value).strip(), row)
        if first != row and not frame[used].iloc[first].equals(frame[used].iloc[row]):
            lines = f"{FIRST_LINE + first} and {FIRST_LINE + row}"
            raise DataError(f"{labels}: one {column} has different values in lines {lines}. Keep one row for each.")
    return rows
