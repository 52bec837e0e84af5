"""Tables of images: CSV, TSV, Parquet."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from medgraft.data.cohort.cases import files_of
from medgraft.data.cohort.folders import COLUMNS, SPLIT_NAMES, TABLE_SUFFIXES, Listing
from medgraft.data.cohort.labels import nearest
from medgraft.data.cohort.locate import located
from medgraft.data.cohort.spelling import with_spelling
from medgraft.errors import DataError
from medgraft.io.volume import is_volume_name
from medgraft.types import SPLITS

__all__ = [
    "demand_column",
    "demand_files",
    "find_column",
    "label_columns",
    "list_table",
    "names_volumes",
    "peek_table",
    "read_table",
    "split_names",
    "FIRST_LINE",
]

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
        *("image_name", "image_id", "id_code", "image index"),
    ),
    "label": ("label", "labels", "class", "diagnosis", "target", "dx", "finding labels"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "subjectid"),
    "site": ("site", "hospital", "centre", "center"),
    "split": ("split", "fold_name", "subset"),
    "mask": ("mask", "mask_path"),
    "unit": ("unit",),
}
_FLAGS: Final = frozenset(("0", "1", "0.0", "1.0", "-1", "-1.0", "True", "False"))
_MOST_BEFORE: Final = 50
MISSING: Final = ("", "nan", "NaN")
FIRST_LINE: Final = 2
"""Line of the first row in a text table: line 1 is the header."""
MAX_SHOWN: Final = 3


def list_table(
    path: Path,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    patient_column: str | None = None,
    dims: Literal[2, 3] = 2,
) -> Listing:
    """The rows of a table, checked: columns exist, nothing needed is blank, every file is there.

    Args:
        path: CSV, TSV or Parquet with a header. Paths in it start from its folder.
        path_column: Column of file names; found by name (``path``, ``image``, …) when None.
        label_column: Column of labels, or several columns of 0 and 1 separated by commas.
        patient_column: Column of patients.
        dims: 3 where each path is a volume: a file, or a folder of slices.

    Raises:
        DataError: The table cannot be read, or a column, a label or a file is missing; names line and value.
    """
    frame = read_table(path)
    columns = _columns(frame, path, path_column, label_column, patient_column)
    notes = [f"{len(frame)} rows in {path.name}; columns: {_describe(columns, label_column)}."]
    table = pd.DataFrame(index=frame.index, columns=list(COLUMNS), dtype=object)
    table = table.where(table.notna(), None)
    for ours, theirs in columns.items():
        table[ours] = frame[theirs]
    names, is_flags = label_columns(frame, path, label_column)
    flags = {name: frame[name].tolist() for name in names} if is_flags else None
    _refuse_blank(table["path"], columns["path"], path)
    table["path"] = pd.Series([_relative(text, path.parent) for text in table["path"]], dtype=object)
    table["split"] = pd.Series(split_names(table["split"], path), dtype=object)
    names, found = located(table["path"].tolist(), path.parent)
    table["path"] = pd.Series(names, dtype=object)
    notes += found
    demand_files(table, path)
    table, spelled = with_spelling(table)
    notes += spelled
    table, flags, dropped = _merge_repeats(table, flags, path)
    if dropped:
        notes.append(f"{dropped} rows repeat an earlier row word for word and were left out.")
    blank = sum(patient is None for patient in table["patient"])
    if "patient" in columns and blank:
        notes.append(f"{blank} rows name no patient; each of those images counts as a patient of its own.")
    root = path.parent
    files: dict[str, tuple[str, ...]] = {}
    if dims == 3:
        for name in table["path"]:
            members = files_of(root / name)
            if members != (root / name,):
                files[name] = tuple(_relative(str(member), root) for member in members)
    return Listing(
        layout="table", root=root, table=table, where=str(path), flags=flags, files=files, dims=dims, notes=tuple(notes)
    )


def label_columns(frame: pd.DataFrame, path: Path, label_column: str | None) -> tuple[list[str], bool]:
    """The columns of labels, and whether they are several of 0 and 1; one alone is blank nowhere.

    Args:
        frame: The table.
        path: File of the table, for errors.
        label_column: As given by the user; None to find it by name.

    Raises:
        DataError: There is no such column, or a blank in it.
    """
    is_flags = label_column is not None and "," in label_column and label_column not in frame.columns
    if label_column is None:
        names = [column] if (column := find_column(frame, "label")) else []
    else:
        names = [name.strip() for name in label_column.split(",") if name.strip()] if is_flags else [label_column]
    if not names:
        raise _absent(frame, "label", path)
    for name in names:
        demand_column(frame, name, path)
        if not is_flags:
            _refuse_blank(frame[name], name, path)
    return names, is_flags


def names_volumes(path: Path, path_column: str | None) -> bool:
    """Whether the paths of a table are volumes: by their endings, or because they are folders.

    Args:
        path: CSV, TSV or Parquet.
        path_column: Column of file names; found by name when None.

    Raises:
        DataError: The table cannot be read.
    """
    frame = read_table(path)
    column = path_column or find_column(frame, "path")
    if column is None or column not in frame.columns:
        return False
    names = [str(name) for name in frame[column] if name]
    return any(is_volume_name(name) for name in names) or any((path.parent / name).is_dir() for name in names[:1])


def peek_table(path: Path) -> tuple[set[str], dict[str, str]]:
    """Which of our columns a table has under any known name, and its labels by path; nothing is checked.

    Args:
        path: CSV, TSV or Parquet.

    Raises:
        DataError: The table cannot be read.
    """
    frame = read_table(path)
    columns = {ours: name for ours in COLUMNS if (name := find_column(frame, ours))}
    if not {"path", "label"} <= columns.keys():
        return set(columns), {}
    rows = zip(frame[columns["path"]], frame[columns["label"]], strict=True)
    return set(columns), {_relative(name, path.parent): label for name, label in rows if name and label}


def read_table(path: Path) -> pd.DataFrame:
    """All of a table as text; None where a cell is blank.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{path}: expected a .csv, .tsv, .parquet or .npz file, or a folder, got {path.suffix!r}.")
    try:
        frame = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its rights."
        ) from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: the table is empty. It needs a header line such as path,label.") from error
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: cannot be read as a table ({reason}). Save it as UTF-8 CSV.") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise DataError(f"{path}: column {repeated[0]!r} occurs twice. Rename one.")
    if frame.empty:
        raise DataError(f"{path}: the table has a header and no rows. Add one row per image.")
    return frame


def _read_text(path: Path) -> pd.DataFrame:
    encoding, num_skipped, separator = _dialect(path)
    # Blank and NaN are missing; words such as None or NA may well be a class and stay words.
    with warnings.catch_warnings():
        # Rows longer than the header would otherwise lose their last fields.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(
            path,
            sep=separator,
            # Not str: arrow would hold every text a second time, and each row's label would be an object of its own.
            dtype=object,
            encoding=encoding,
            skiprows=num_skipped,
            keep_default_na=False,
            na_values=list(MISSING),
            index_col=False,
            skip_blank_lines=False,
        )
    last = frame.notna().any(axis=1).to_numpy().nonzero()[0]
    frame = frame.iloc[: int(last[-1]) + 1 if len(last) else 0]
    return frame.where(frame.notna(), None)


def _dialect(path: Path) -> tuple[str, int, str]:
    """How a table is written: its encoding, lines before its header (``sep=;``, comments), what separates fields."""
    with path.open("rb") as stream:
        head = stream.read(4)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with path.open(encoding=encoding) as stream:
        lines = [stream.readline() for _ in range(_MOST_BEFORE)]
    said = ""
    for number, line in enumerate(lines):
        if line.casefold().startswith("sep="):
            said = line[4:5]
        elif not line.startswith("#"):
            # What stands between quotes separates nothing.
            bare = re.sub(r'"[^"]*"', "", line)
            counts = {mark: bare.count(mark) for mark in "\t;,|"}
            likely = "," if not any(counts.values()) else max(counts, key=lambda mark: counts[mark])
            return encoding, number, said or likely
    return encoding, 0, said or ","


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow. Run pip install 'medgraft[parquet]'.") from error
    frame = frame.reset_index(drop=True).astype(object)
    frame = frame.where(frame.notna(), None)
    return pd.DataFrame({name: [_text(value) for value in frame[name]] for name in frame.columns}, dtype=object)


def _text(value: object) -> str | None:
    if value is None:
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return None if text in MISSING else text


def _columns(
    frame: pd.DataFrame,
    path: Path,
    path_column: str | None,
    label_column: str | None,
    patient_column: str | None,
) -> dict[str, str]:
    """Our column names to theirs, for those that exist; several label columns are left to the caller.

    Args:
        frame: The table.
        path: Its file, for errors.
        path_column: Column of file names; None to find it by name.
        label_column: Column of labels, or several separated by commas; None to find it by name.
        patient_column: Column of patients; None to find it by name.
    """
    asked = {"path": path_column, "label": label_column, "patient": patient_column}
    columns: dict[str, str] = {}
    for ours in COLUMNS:
        theirs = asked.get(ours)
        if ours == "label" and theirs is not None and "," in theirs and theirs not in frame.columns:
            continue
        if theirs is not None:
            columns[ours] = demand_column(frame, theirs, path)
        elif column := find_column(frame, ours):
            columns[ours] = column
        elif ours in ("path", "label"):
            raise _absent(frame, ours, path)
    return columns


def _absent(frame: pd.DataFrame, ours: str, path: Path) -> DataError:
    """The error about a table that lacks one of our columns.

    Args:
        frame: The table.
        ours: Our name of the column.
        path: File of the table.
    """
    names = ", ".join(str(name) for name in frame.columns)
    message = f"{path}: expected a column {ours!r} (or {', '.join(ALIASES[ours][1:4])}), got {names}"
    flags = [str(name) for name in frame.columns if set(frame[name].dropna()) <= _FLAGS and frame[name].notna().any()]
    if ours == "label" and len(flags) > 1:
        return DataError(
            f"{message}. {', '.join(flags)} hold 0 and 1: name them with --label-column {','.join(flags)}."
        )
    return DataError(f"{message}. Name it with --{ours}-column.")


def find_column(frame: pd.DataFrame, ours: str) -> str | None:
    """The column that one of ours goes by in a table, or None."""
    by_name = {str(name).casefold(): str(name) for name in frame.columns}
    return next((by_name[alias] for alias in ALIASES[ours] if alias in by_name), None)


def demand_column(frame: pd.DataFrame, name: str, path: Path) -> str:
    """`name`, when the table has such a column.

    Args:
        frame: The table.
        name: What the user calls the column.
        path: File of the table, for the error.

    Raises:
        DataError: It has none; the nearest are named.
    """
    if name not in frame.columns:
        names = [str(column) for column in frame.columns]
        raise DataError(f"{path}: has no column {name!r}. {nearest(name, names)}")
    return name


def _describe(columns: dict[str, str], label_column: str | None) -> str:
    shown = columns if "label" in columns else columns | {"label": str(label_column)}
    return ", ".join(ours if ours == theirs else f"{ours} = {theirs}" for ours, theirs in shown.items())


def _refuse_blank(values: "pd.Series[str]", name: str, path: Path) -> None:
    """Refuse a column with blank cells.

    Args:
        values: Texts of the column, None where a cell is blank.
        name: Its name, for the error.
        path: File of the table, for the error.
    """
    blank = [row for row, value in enumerate(values) if value is None or not value.strip()]
    if blank:
        lines = ", ".join(str(FIRST_LINE + row) for row in blank[:MAX_SHOWN])
        message = f"{path}: column {name} is blank or NaN in {len(blank)} rows (lines {lines}{_more(blank)})"
        raise DataError(f"{message}. Fill it in or remove these rows.")


def _relative(text: str, root: Path) -> str:
    """A path with forward slashes, relative to the table's folder where it lies inside."""
    name = text.strip()
    if "\\" in name and not (root / name).exists():
        name = name.replace("\\", "/")
    # Without pathlib, which keeps every part of every path it has met in memory for good.
    absolute = os.path.abspath(os.path.join(root, name))  # noqa: PTH100, PTH118
    base = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118
    return absolute.removeprefix(base).replace(os.sep, "/")


def split_names(values: "pd.Series[str]", path: Path) -> list[str | None]:
    """``train``, ``val`` or ``test`` for each row, or None for all.

    Raises:
        DataError: Another word, or a blank beside others.
    """
    texts: Sequence[str | None] = values.tolist()
    names = [None if value is None else SPLIT_NAMES.get(value.strip().casefold(), value) for value in texts]
    if all(name is None for name in names):
        return names
    for row, name in enumerate(names):
        if name not in SPLITS:
            message = f"{path}, line {FIRST_LINE + row}: split must be train, val or test, got {name!r}"
            raise DataError(f"{message}. Fill the column for every row, or remove it.")
    return names


def demand_files(table: pd.DataFrame, path: Path) -> None:
    """Refuse a table whose images or masks are not there; a blank name is none.

    Args:
        table: With columns ``path`` and ``mask``, relative to the folder of `path`.
        path: File of the table.

    Raises:
        DataError: A file is missing; the message names lines.
    """
    for column in ("path", "mask"):
        names: Sequence[str | None] = table[column].tolist()
        lost = [row for row, name in enumerate(names) if name is not None and not os.path.lexists(path.parent / name)]
        if lost:
            shown = ", ".join(f"{names[row]} (line {FIRST_LINE + row})" for row in lost[:MAX_SHOWN])
            counts = f"{len(lost)} of {len(table)} files"
            message = f"{path}: {counts} in column {column} are missing: {shown}{_more(lost)}"
            raise DataError(f"{message}. Paths start from {path.parent}; move the table or correct the paths.")


def _merge_repeats(
    table: pd.DataFrame, flags: dict[str, list[str | None]] | None, path: Path
) -> tuple[pd.DataFrame, dict[str, list[str | None]] | None, int]:
    """The table and its flags without rows that repeat an earlier one, and how many these were.

    Args:
        table: A row for each image.
        flags: Label to its texts, where there are several columns of labels; else None.
        path: File of the table, for the error.
    """
    columns = {f"flag {name}": pd.Series(texts, dtype=object) for name, texts in (flags or {}).items()}
    whole = table.assign(**columns)
    keep = ~whole.duplicated().to_numpy()
    again = whole["path"][keep].duplicated(keep=False)
    if again.any():
        name = whole["path"][keep][again].iloc[0]
        lines = [FIRST_LINE + int(row) for row in (whole["path"] == name).to_numpy().nonzero()[0]]
        message = f"{path}: {name} occurs with different values in lines {lines[0]} and {lines[1]}"
        raise DataError(f"{message}. Keep one row per image; several labels of one image are written a|b.")
    kept = table[keep].reset_index(drop=True)
    if flags is not None:
        flags = {
            name: [text for text, kept_row in zip(texts, keep, strict=True) if kept_row]
            for name, texts in flags.items()
        }
    return kept, flags, int((~keep).sum())


def _more(rows: Sequence[int]) -> str:
    return ", …" if len(rows) > MAX_SHOWN else ""
