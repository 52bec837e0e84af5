"""PACS exports: which image finds which row of the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dicom_files import dicom, save
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.groups import groups_of
from medgraft.errors import ConfigError, DataError

STORED = np.zeros((8, 8), np.uint16)


@pytest.fixture
def pacs(tmp_path: Path) -> Path:
    """Twenty films of ten studies of ten patients in folders that mean nothing, and a picture."""
    for number in range(20):
        made = dicom(
            STORED + number, PatientID=f"P{number // 2}", AccessionNumber=f"A{number // 2}",
            StudyInstanceUID=f"1.2.{number // 2}", SeriesInstanceUID=f"1.2.{number // 2}.{number % 2}",
            SOPInstanceUID=f"1.2.{number // 2}.{number % 2}.1",
        )  # fmt: skip
        save(made, tmp_path / "pacs" / f"ST{number // 2:04}" / f"IM{number:04}")
    return tmp_path / "pacs"


def table(pacs: Path, **columns: list[str]) -> Path:
    """A CSV beside the export."""
    path = pacs.parent / "labels.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


CASES = {
    "AccessionNumber": [f"A{n}" for n in range(10)],
    "PatientID": [f"P{n}" for n in range(10)],
    "StudyInstanceUID": [f"1.2.{n}" for n in range(10)],
}


@pytest.mark.parametrize("spelling", [str, str.lower, lambda name: name.replace("ID", "_id"), lambda name: f" {name} "])
@pytest.mark.parametrize("key", CASES)
def test_a_row_labels_all_images_of_its_identifier(pacs: Path, key: str, spelling) -> None:
    labels = table(pacs, **{spelling(key): CASES[key], "label": ["clear", "ill"] * 5})
    cohort = read_cohort(pacs, labels=labels, key=key)
    assert len(cohort) == 20
    assert cohort.classes == ("clear", "ill")
    patients = cohort.table["patient"].tolist()
    assert [(int(p[1:]) % 2) for p in patients] == cohort.targets.tolist()
    assert len(cohort.files) == 20


@pytest.mark.parametrize(("key", "depth"), [("SeriesInstanceUID", "{}.{}"), ("SOPInstanceUID", "{}.{}.1")])
def test_an_image_may_be_named_by_its_own_uid(pacs: Path, key: str, depth: str) -> None:
    names = ["1.2." + depth.format(n // 2, n % 2) for n in range(20)]
    cohort = read_cohort(pacs, labels=table(pacs, **{key: names, "label": ["a", "b"] * 10}), key=key)
    assert np.bincount(cohort.targets).tolist() == [10, 10]


def test_paths_work_for_any_image(pacs: Path) -> None:
    names = [f"ST{n // 2:04}/IM{n:04}" for n in range(20)]
    cohort = read_cohort(pacs, labels=table(pacs, file=names, label=["a", "b"] * 10))
    assert len(cohort) == 20


def test_both_sides_are_counted(pacs: Path) -> None:
    labels = table(pacs, AccessionNumber=[*CASES["AccessionNumber"][:8], "A77"], label=[*"ababababa"])
    (note,) = [n for n in read_cohort(pacs, labels=labels, key="AccessionNumber").notes if "found their" in n]
    assert note.startswith(
        "16 of 20 images found their AccessionNumber in labels.csv; 4 images have no row, 1 rows have"
    )


def test_several_labels_sites_and_splits_are_taken_along(pacs: Path) -> None:
    labels = table(
        pacs, PatientID=CASES["PatientID"], mass=list("0101010101"), fluid=list("0011110010"), site=list("xxyyxxyyxx"),
    )  # fmt: skip
    cohort = read_cohort(pacs, labels=labels, key="PatientID", label_column="mass,fluid")
    assert (cohort.task, cohort.classes) == ("multilabel", ("mass", "fluid"))
    assert cohort.targets.sum(0).tolist() == [10, 10]
    assert set(cohort.table["site"]) == {"x", "y"}


@pytest.mark.parametrize(
    ("columns", "key", "told"),
    [
        (
            {"AccessionNumber": ["A0", "A0"], "label": ["a", "b"]},
            "AccessionNumber",
            "different values in lines 2 and 3",
        ),
        ({"AccessionNumber": ["A0", ""], "label": ["a", "b"]}, "AccessionNumber", "blank in line 3"),
        (
            {"AccessionNumber": ["B0", "B1"], "label": ["a", "b"]},
            "AccessionNumber",
            "none of its 2 values .* 'B0' against",
        ),
        ({"Accesion": ["A0", "A1"], "label": ["a", "b"]}, "AccessionNumber", "no column 'AccessionNumber'"),
        ({"PatientID": ["P0", "P1"], "finding": ["a", "b"]}, "PatientID", "expected a column 'label'"),
    ],
)
def test_a_table_that_cannot_label_is_refused(pacs: Path, columns: dict, key: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_cohort(pacs, labels=table(pacs, **columns), key=key)


def test_a_column_of_patients_is_taken_from_the_table(pacs: Path) -> None:
    labels = table(pacs, AccessionNumber=CASES["AccessionNumber"], label=["a", "b"] * 5, mrn=[*"1122334455"])
    with pytest.raises(DataError, match="has no column 'mrm'"):
        read_cohort(pacs, labels=labels, key="AccessionNumber", patient_column="mrm")
    with pytest.raises(ConfigError, match="--path-column"):
        read_cohort(pacs, labels=labels, key="AccessionNumber", path_column="mrn")
    cohort = read_cohort(pacs, labels=labels, key="AccessionNumber", patient_column="mrn")
    assert cohort.table["patient"].nunique() == 5


def test_labels_are_for_folders(pacs: Path) -> None:
    with pytest.raises(ConfigError, match="--labels is for a folder"):
        read_cohort(table(pacs, path=["x"], label=["a"]), labels="other.csv")
    (pacs.parent / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected images .* found none"):
        read_cohort(pacs.parent / "empty", labels=table(pacs, PatientID=["P0"], label=["a"]), key="PatientID")


@pytest.mark.parametrize(("unit", "num"), [("image", 20), ("series", 20), ("study", 10), ("patient", 10)])
def test_units_are_judged_together(pacs: Path, unit: str, num: int) -> None:
    labels = table(pacs, PatientID=CASES["PatientID"], label=["a", "b"] * 5)
    cohort = read_cohort(pacs, labels=labels, key="PatientID", unit=unit)
    assert len(np.unique(cohort.units(np.arange(20)))) == num
    nouns = {"study": "studies", "patient": "patients"}
    assert cohort.case_noun == nouns.get(unit, "images")
    assert any(f"judged as 10 {cohort.case_noun}" in note for note in cohort.notes) == (num == 10)


def test_a_unit_has_one_label_and_one_split(pacs: Path) -> None:
    names = [f"1.2.{n // 2}.{n % 2}.1" for n in range(20)]
    labels = table(pacs, SOPInstanceUID=names, label=["a", "b"] * 10)
    with pytest.raises(DataError, match="images of one unit have different labels"):
        read_cohort(pacs, labels=labels, key="SOPInstanceUID", unit="study")
    split = ["train", "val", *["train"] * 6, *["val"] * 6, *["test"] * 6]
    labels = table(pacs, SOPInstanceUID=names, label=[*"aabb" * 5], split=split)
    with pytest.raises(DataError, match="images of one unit differ in split"):
        read_cohort(pacs, labels=labels, key="SOPInstanceUID", unit="study")


def test_without_patients_a_unit_stays_whole(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number}.png")
    rows = {"path": [f"{n}.png" for n in range(12)], "label": [*"aabb" * 3], "unit": [f"u{n // 2}" for n in range(12)]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    cohort = read_cohort(tmp_path / "t.csv")
    assert groups_of(cohort, []).tolist() == [n // 2 for n in range(12)]


def test_a_file_without_the_unit_is_named(pacs: Path) -> None:
    save(dicom(STORED + 99, PatientID="P0", StudyInstanceUID=""), pacs / "ST0000" / "IM9999")
    labels = table(pacs, PatientID=CASES["PatientID"], label=["a", "b"] * 5)
    with pytest.raises(DataError, match="IM9999: has no StudyInstanceUID to be judged by study"):
        read_cohort(pacs, labels=labels, key="PatientID", unit="study")


def test_who_leaves_something_out_is_told_what(pacs: Path) -> None:
    labels = table(pacs, **{"accession number": CASES["AccessionNumber"], "diagnosis": ["clear", "ill"] * 5})
    with pytest.raises(DataError, match=r"has no column 'path'\. Did you mean --key AccessionNumber\?"):
        read_cohort(pacs, labels=labels)
    parent = pacs.parent / "parent"
    parent.mkdir()
    pacs.rename(parent / "dicom")
    (parent / "labels.csv").write_text("accession number,diagnosis\nA1,ill")
    with pytest.raises(DataError, match=r"got 'dicom' alone.* say --labels .*labels\.csv --key KEY"):
        read_cohort(parent)


def test_folders_with_numbers_for_names_may_be_an_export(pacs: Path) -> None:
    for number, folder in enumerate(sorted(pacs.iterdir())):
        if folder.is_dir():
            folder.rename(pacs / f"ST{number % 2}" if number < 2 else pacs / f"ST{number % 2}" / folder.name)
    (note,) = [note for note in read_cohort(pacs).notes if "PACS export" in note]
    assert note.startswith("2 folders were taken for classes.")
