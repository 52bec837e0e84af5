"""One person spelled in several ways is one person, however the cohort tells of people."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_files import dicom, save
from medgraft.data.cohort.export import unit_names
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.cohort.marked import read_mask_cohort
from medgraft.data.cohort.spelling import folded, spelled_once
from medgraft.types import Cohort

PEOPLE = 6
SPELLINGS: dict[str, Callable[[int, int], str]] = {
    "blanks": lambda person, turn: f"P{person}" + " " * (turn % 3),
    "capitals": lambda person, turn: f"{'Pp'[turn % 2]}{person}",
    "zeros": lambda person, turn: f"P{person:0{1 + turn % 3}d}",
    "fractions": lambda person, turn: f"{person + 1}{['', '.0', '.00'][turn % 3]}",
    "zeros of numbers": lambda person, turn: f"{person + 1:0{1 + 2 * (turn % 2)}d}",
    "all at once": lambda person, turn: [f"{person + 1}", f" {person + 1}.0", f"00{person + 1} "][turn % 3],
}
WHO = [(person, turn) for turn in range(4) for person in range(PEOPLE)]


def files(root: Path, names: Sequence[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(root / name)


def table(root: Path, people: Sequence[str], column: str = "patient") -> Cohort:
    names = [f"im/{i:03d}.png" for i in range(len(people))]
    files(root, names)
    rows = [f"{name},{i % 2},{person}" for i, (name, person) in enumerate(zip(names, people, strict=True))]
    (root / "t.csv").write_text(f"path,label,{column}\n" + "\n".join(rows) + "\n")
    return read_cohort(root / "t.csv")


@pytest.mark.parametrize("kind", SPELLINGS)
@pytest.mark.parametrize("column", ["patient", "site"])
def test_a_column_names_each_once(kind: str, column: str, tmp_path: Path) -> None:
    cohort = table(tmp_path, [SPELLINGS[kind](*who) for who in WHO], column)
    assert cohort.table[column].nunique() == PEOPLE
    assert any(f"{PEOPLE} {column}s." in note and "differ only in" in note for note in cohort.notes)


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_column_of_masks_names_each_once(kind: str, tmp_path: Path) -> None:
    names = [f"{i:03d}.png" for i in range(len(WHO))]
    files(tmp_path, [f"im/{name}" for name in names])
    (tmp_path / "m").mkdir()
    for name in names:
        Image.fromarray((np.eye(16) * 255).astype(np.uint8)).save(tmp_path / "m" / name)
    rows = [f"im/{name},m/{name},{SPELLINGS[kind](*who)}" for name, who in zip(names, WHO, strict=True)]
    (tmp_path / "t.csv").write_text("path,mask,patient\n" + "\n".join(rows) + "\n")
    assert read_mask_cohort(tmp_path / "t.csv").table["patient"].nunique() == PEOPLE


@pytest.mark.parametrize("kind", ["capitals", "zeros", "zeros of numbers"])
def test_a_pattern_names_each_once(kind: str, tmp_path: Path) -> None:
    names = [f"{'ab'[i % 2]}/{SPELLINGS[kind](*who)}_{i:03d}.png" for i, who in enumerate(WHO)]
    files(tmp_path, names)
    cohort = read_cohort(tmp_path, patient_regex=r"([^/_]+)_\d+\.png")
    assert cohort.table["patient"].nunique() == PEOPLE
    assert any("differ only in" in note for note in cohort.notes)


@pytest.mark.parametrize("kind", SPELLINGS)
def test_headers_name_each_once(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i, who in enumerate(WHO):
        made = dicom(rng.integers(0, 4096, (8, 8)).astype(np.uint16))
        made.PatientID = SPELLINGS[kind](*who)
        save(made, tmp_path / "ab"[i % 2] / f"{i:03d}.dcm")
    cohort = read_cohort(tmp_path)
    assert cohort.table["patient"].nunique() == PEOPLE
    # Trailing blanks are no part of a value in DICOM.
    assert any("differ only in" in note for note in cohort.notes) is (kind != "blanks")
    assert not any(SPELLINGS[kind](2, 1).strip() in note for note in cohort.notes if "differ" in note and len(kind) > 6)
    cases = [(file,) for file in sorted(tmp_path.rglob("*.dcm"))]
    assert len(set(unit_names(cases, "patient"))) == PEOPLE


def test_labels_of_an_export_find_people_whose_zeros_a_spreadsheet_ate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        made = dicom(rng.integers(0, 4096, (8, 8)).astype(np.uint16))
        made.PatientID = f"{i + 1:05d}"
        save(made, tmp_path / "data" / f"{i}.dcm")
    (tmp_path / "t.csv").write_text("PatientID,label\n" + "".join(f"{i + 1},{'ab'[i % 2]}\n" for i in range(12)))
    cohort = read_cohort(tmp_path / "data", labels=tmp_path / "t.csv", key="PatientID")
    assert len(cohort) == 12
    (tmp_path / "t.csv").write_text("PatientID,label\n1,a\n01,b\n" + "".join(f"{i + 1},a\n" for i in range(1, 12)))
    # Two rows may be meant by 00001.
    assert len(read_rows(tmp_path)) == 11


def read_rows(tmp_path: Path) -> set[str]:
    from medgraft.data.cohort.export import list_export

    return set(list_export(tmp_path / "data", tmp_path / "t.csv", "PatientID").table["path"])


@pytest.mark.parametrize("word", ["NA", "n/a", "nan", "None", "unknown", " ", "-", "#N/A", "ANONYMOUS", "Anonym^^"])
def test_words_for_nobody_are_nobody(word: str, tmp_path: Path) -> None:
    people = [word if i % 3 == 0 else f"P{i}" for i in range(12)]
    cohort = table(tmp_path, people)
    assert cohort.table["patient"].isna().sum() == 4
    assert any("4 rows name no patient" in note for note in cohort.notes)


def test_rows_that_differ_in_spelling_alone_are_one_row(tmp_path: Path) -> None:
    files(tmp_path, [f"{i}.png" for i in range(8)])
    rows = [f"{i}.png,{i % 2},P{i}" for i in range(8)]
    (tmp_path / "t.csv").write_text("path,label,patient\n" + "\n".join([*rows, "3.png,1,p3 "]) + "\n")
    assert len(read_cohort(tmp_path / "t.csv")) == 8


def test_different_people_stay_different() -> None:
    names = ["P1", "P10", "P1a", "1.2.3", "1.23", "12-3", "123", "3.5", "35", "Müller", "Muller"]
    assert len({folded(name) for name in names}) == len(names)
    assert spelled_once(["", None, float("nan")]) == ([None, None, None], ())
