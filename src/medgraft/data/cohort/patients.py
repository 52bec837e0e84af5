"""Who an image is of, where no table tells: by its path or its DICOM header; and pseudonyms for DICOM paths."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from medgraft.data.cohort.identity import case_name
from medgraft.data.cohort.spelling import spelled_once, spelling_note, with_spelling
from medgraft.errors import ConfigError, DataError
from medgraft.io.dicom_header import header_if_dicom
from medgraft.io.image import IMAGE_SUFFIXES
from medgraft.io.in_order import in_order
from medgraft.io.volume import is_volume_name
from medgraft.types import Cohort

__all__ = ["patients_of_files", "with_dicom", "with_patients"]

MAX_SHOWN: Final = 3
MANY_CLASSES: Final = 12
_NUMBER: Final = re.compile(r"[A-Za-z]{0,3}[\d._]+")
"""What a PACS calls a folder: ``00012``, ``ST000003``, a UID."""


def with_patients(cohort: Cohort, pattern: str) -> Cohort:
    """Patients by a pattern that is searched in each path; its first group (or the whole match) is the patient.

    Raises:
        ConfigError: No regular expression.
        DataError: It matches nothing in some path.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--patient-regex {pattern!r} is no regular expression ({error}).") from error
    paths = cohort.table["path"].tolist()
    matches = [regex.search(path) for path in paths]
    lost = [path for path, match in zip(paths, matches, strict=True) if match is None]
    if lost:
        message = f"--patient-regex {pattern!r} matches nothing in {len(lost)} of {len(paths)} paths"
        raise DataError(f"{message}, e.g. {', '.join(lost[:MAX_SHOWN])}. Correct the pattern.")
    patients = [match[1] if match.re.groups else match[0] for match in matches if match]
    table, spelled = with_spelling(cohort.table.assign(patient=pd.Series(patients, dtype=object)))
    note = f"Patients come from the paths by {pattern!r}: {table['patient'].nunique()} patients"
    blank = int(table["patient"].isna().sum())
    note += f"; {blank} images name none and stand alone." if blank else "."
    return dataclasses.replace(cohort, table=table, notes=(*cohort.notes, note, *spelled))


def with_dicom(cohort: Cohort) -> Cohort:
    """Patients by the PatientID of DICOM files, where nothing else tells them, and pseudonyms for their paths.

    Whatever is no picture by its ending counts as DICOM, so that a broken one is called by a pseudonym, too.
    """
    paths = cohort.table["path"].tolist()
    rows = [row for row in range(len(cohort)) if _may_be_dicom(cohort, row)]
    if not rows:
        return cohort
    table, notes = cohort.table.copy(), list(cohort.notes)
    if table["patient"].isna().all():
        patients = dict(zip(rows, in_order(_dicom_patient, [cohort.files_of(row)[0] for row in rows]), strict=True))
        table["patient"], note = _patients_of([patients.get(row) for row in range(len(cohort))])
        notes += note
    names = {row: case_name(f"{cohort.root}\0{paths[row]}") for row in rows}
    table["path"] = [names.get(row, path) for row, path in enumerate(paths)]
    what = "files" if cohort.dims == 2 else "volumes"
    notes.append(f"{len(rows)} DICOM {what} are called by pseudonyms in everything written.")
    are_numbers = all(_NUMBER.fullmatch(name) for name in cohort.classes)
    is_by_folder = cohort.layout == "folder" and cohort.task != "segmentation"
    if is_by_folder and (len(cohort.classes) > MANY_CLASSES or are_numbers):
        notes.append(
            f"{len(cohort.classes)} folders were taken for classes. If this is a PACS export, label it with "
            "--labels TABLE --key AccessionNumber (or another identifier)."
        )
    others = {path: files for path, files in cohort.files.items() if path not in {paths[row] for row in rows}}
    files = others | {names[row]: cohort.files.get(paths[row], (paths[row],)) for row in rows}
    frames = {names.get(row, path): cohort.frames[path] for row, path in enumerate(paths) if path in cohort.frames}
    return dataclasses.replace(cohort, table=table, notes=tuple(notes), files=files, frames=frames)


def _may_be_dicom(cohort: Cohort, row: int) -> bool:
    name = str(cohort.table["path"].iat[row])
    return any(_is_no_picture(cohort.root, file, cohort.dims) for file in cohort.files.get(name, (name,)))


def _is_no_picture(root: Path, name: str, dims: int) -> bool:
    """Whether a file by its ending, or a folder by its files, is no picture and no volume by name.

    Args:
        root: Root of the cohort.
        name: File or folder, relative to `root`.
        dims: 2 or 3.
    """
    if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
        return False
    folder = root / name
    if dims == 3 and folder.is_dir():
        try:
            return not any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in folder.iterdir())
        except OSError:
            return True  # reading it tells its reason
    return dims == 2 or not is_volume_name(name)


def patients_of_files(files: Sequence[Path]) -> list[str] | None:
    """The patient of each DICOM file by its header, a file without one alone; None where headers tell nobody apart.

    Args:
        files: Files of any kind.
    """
    patients, _ = _patients_of(list(in_order(_dicom_patient, files)))
    if patients.isna().all():
        return None
    return [patient if isinstance(patient, str) else f"\0{row}" for row, patient in enumerate(patients)]


def _dicom_patient(path: Path) -> str | None:
    """PatientID of a file that is no picture by its ending."""
    header = None if path.suffix.lower() in IMAGE_SUFFIXES else header_if_dicom(path)
    return None if header is None else header.patient_id or None


def _patients_of(patient_ids: Sequence[str | None]) -> tuple["pd.Series[Any]", list[str]]:
    names, ways = spelled_once(patient_ids)
    patients: pd.Series[Any] = pd.Series(names, dtype=object)
    num, lost = patients.nunique(), int(patients.isna().sum())
    if num == 0 and not any(patient_ids):
        return patients, []
    if num <= 1 and len(patients) > 1:
        note = "All DICOM files have one PatientID (an anonymised export?): patients are unknown. See --patient-column."
        return pd.Series([None] * len(patients), dtype=object), [note]
    note = f"Patients come from the DICOM headers: {num} patients"
    notes = [note + (f"; {lost} images name none and stand alone." if lost else ".")]
    if ways:
        notes.append(spelling_note("patients", ways, len(set(patient_ids) - {None}), num))
    return patients, notes
