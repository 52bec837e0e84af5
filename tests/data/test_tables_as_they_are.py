"""Tables as spreadsheets and competitions write them: found, or the message names ending, row and option."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_files import dicom, save
from medgraft.data.cohort.labelled import Unknown, read_cohort
from medgraft.data.cohort.marked import read_mask_cohort
from medgraft.errors import DataError
from volume_files import blob, write_nifti


def files(root: Path, names: Sequence[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (12, 12), np.uint8)).save(root / name)


def table(root: Path, lines: Sequence[str], encoding: str = "utf-8", name: str = "t.csv") -> Path:
    (root / name).write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return root / name


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ("train_images/{:04x}a.png", "{:04x}a"),
        ("train_images/{:04x}a.jpg", "train_images/{:04x}a"),
        ("a/b/{:04d}.tif", "{:04d}.tif"),
        ("img/{:05d}.png", "{}"),
        ("img/{:05d}.png", "{}.0"),
        ("img/ISIC_{:07d}.png", "isic_{}"),
    ],
)
def test_files_are_found_without_folder_ending_or_zeros(stored: str, named: str, tmp_path: Path) -> None:
    files(tmp_path, [stored.format(number) for number in range(12)])
    rows = [f"{named.format(number)},{number % 2}" for number in range(12)]
    cohort = read_cohort(table(tmp_path, ["id_code,diagnosis", *rows]))
    assert cohort.table["path"].tolist() == [stored.format(number) for number in range(12)]
    assert any("12 files are named" in note for note in cohort.notes)


@pytest.mark.parametrize("name", ["IM{:04d}", "x{:02d}.dcm"])
def test_dicom_is_found_without_ending(name: str, tmp_path: Path) -> None:
    for number in range(8):
        save(dicom(np.full((8, 8), number, np.uint16)), tmp_path / "data" / name.format(number))
    stems = [name.format(number).removesuffix(".dcm") for number in range(8)]
    path = table(tmp_path, ["image_id,label", *(f"{stem},{number % 2}" for number, stem in enumerate(stems))])
    assert len(read_cohort(path)) == 8


def test_volumes_and_masks_are_found_without_ending(tmp_path: Path) -> None:
    for number in range(6):
        write_nifti(blob(number, is_large=bool(number % 2)), tmp_path / "v" / f"case{number}.nii.gz")
    path = table(tmp_path, ["image,label", *(f"case{number},{number % 2}" for number in range(6))])
    assert len(read_cohort(path, dims=3)) == 6
    files(tmp_path, [f"{kind}/{number}_{kind}.png" for kind in ("i", "m") for number in range(6)])
    for number in range(6):
        Image.fromarray(np.eye(12, dtype=np.uint8) * 255).save(tmp_path / "m" / f"{number}_m.png")
    rows = [f"{number}_i,{number}_m" for number in range(6)]
    assert read_mask_cohort(table(tmp_path, ["image,mask", *rows])).masks[0] == (("m/0_m.png",),)


def test_what_leads_to_two_files_is_no_find(tmp_path: Path) -> None:
    files(tmp_path, [f"{folder}/{number}.png" for folder in "ab" for number in range(8)])
    path = table(tmp_path, ["image,label", *(f"{number},{number % 2}" for number in range(8))])
    with pytest.raises(DataError, match=r"8 of 8 files in column path are missing: 0 \(line 2\)"):
        read_cohort(path)
    files(tmp_path, ["c/007.png"])
    path = table(tmp_path, ["image,label", "7,a", "07,b"])
    with pytest.raises(DataError, match="are missing"):
        read_cohort(path)


WRITTEN: dict[str, tuple[list[str], str]] = {
    "sep line": (["sep=;", "path;label"], "utf-8"),
    "sep line of commas": (["sep=,", "path,label"], "utf-8"),
    "tabs": (["path\tlabel"], "utf-8"),
    "pipes": (["path|label"], "utf-8"),
    "UTF-16": (["path,label"], "utf-16"),
    "UTF-16 of tabs": (["path\tlabel"], "utf-16"),
    "BOM": (["path;label"], "utf-8-sig"),
    "quoted comma": (['path;label;"age, years"'], "utf-8"),
    "quoted comma first": (['"age, in, years";path;label'], "utf-8"),
    "comment": (["# exported today", "# by hand; with care", "path,label"], "utf-8"),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_separators_and_encodings_are_seen(kind: str, tmp_path: Path) -> None:
    head, encoding = WRITTEN[kind]
    files(tmp_path, [f"{number}.png" for number in range(8)])
    mark = next(mark for mark in "\t;|," if mark in head[-1])
    columns = [name.strip('"') for name in head[-1].split(mark)]
    cells = [{"path": f"{number}.png", "label": "ab"[number % 2]} for number in range(8)]
    rows = [mark.join(cell.get(column, "33") for column in columns) for cell in cells]
    cohort = read_cohort(table(tmp_path, [*head, *rows], encoding))
    assert (len(cohort), cohort.classes) == (8, ("a", "b"))


@pytest.mark.parametrize("values", ["01", ("0.0", "1.0"), ("False", "True")])
def test_one_of_several_columns_in_every_row_is_a_class(values: Sequence[str], tmp_path: Path) -> None:
    files(tmp_path, [f"{number}.png" for number in range(12)])
    rows = [f"{number}.png," + ",".join(values[number % 3 == k] for k in range(3)) for number in range(12)]
    path = table(tmp_path, ["image,MEL,NV,BCC", *rows])
    cohort = read_cohort(path, label_column="MEL,NV,BCC")
    assert (cohort.task, set(cohort.classes)) == ("multiclass", {"MEL", "NV", "BCC"})
    assert cohort.table["label"].tolist()[:3] == ["MEL", "NV", "BCC"]
    assert any("Every row has exactly one of MEL, NV, BCC" in note for note in cohort.notes)
    with pytest.raises(DataError, match=r"MEL, NV, BCC hold 0 and 1: name them with --label-column MEL,NV,BCC"):
        read_cohort(path)


@pytest.mark.parametrize("cell", ["1,1,0", "0,0,0", "1,,0"])
def test_one_row_of_two_or_none_makes_them_labels(cell: str, tmp_path: Path) -> None:
    files(tmp_path, [f"{number}.png" for number in range(12)])
    rows = [f"{number}.png," + ",".join("01"[number % 3 == k] for k in range(3)) for number in range(12)]
    rows += [f"{number}.png,{cell}" for number in range(12, 18)]
    files(tmp_path, [f"{number}.png" for number in range(12, 18)])
    cohort = read_cohort(table(tmp_path, ["image,A,B,C", *rows]), label_column="A,B,C", unknown=Unknown(blank="ignore"))
    assert cohort.task == "multilabel"


def test_two_columns_of_which_one_is_set_are_a_binary_task(tmp_path: Path) -> None:
    files(tmp_path, [f"{number}.png" for number in range(12)])
    rows = [f"{number}.png,{number % 2},{1 - number % 2}" for number in range(12)]
    cohort = read_cohort(table(tmp_path, ["image,tumour,normal", *rows]), label_column="tumour,normal")
    assert (cohort.task, cohort.positive) == ("binary", "tumour")


def test_the_folder_that_an_archive_unpacks_to_is_named(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        files(
            tmp_path / "zip" / "chest_xray" / split, [f"{name}/{n}.png" for name in ("NORMAL", "TB") for n in range(4)]
        )
    (tmp_path / "zip" / "__MACOSX").mkdir()
    with pytest.raises(
        DataError,
        match=r"got 'chest_xray' alone with NORMAL, TB in it\. Are these the classes\? Give .*zip/chest_xray\.$",
    ):
        read_cohort(tmp_path / "zip")
