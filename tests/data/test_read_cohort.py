import numpy as np
import pandas as pd
import pytest

from medgraft.data import read_cohort
from medgraft.data.decoded.images import build_cache
from medgraft.errors import ConfigError, DataError

PIXELS = np.zeros((2, 2), np.uint8)


def class_folders(classes=("benign", "malignant"), count=3, parent=""):
    return {f"{parent}{name}/{number}.png": PIXELS for name in classes for number in range(count)}


def csv(folder, text, name="labels.csv", images=6):
    folder.mkdir(exist_ok=True)
    for number in range(images):
        (folder / f"{number}.png").touch()
    (folder / name).write_text(text)
    return folder / name


def rows(*, labels="aaabbb", extra=""):
    return "".join(f"{number}.png,{label}{extra}\n" for number, label in enumerate(labels))


def test_class_folders_are_read_recursively_and_strangers_are_counted(tmp_path, write):
    write(
        tmp_path,
        class_folders() | {"benign/deep/er/x.PNG": b"", "benign/.hidden.png": b"", "benign/notes.txt": b""},
    )
    write(tmp_path, {"loose.png": PIXELS, ".git/x.png": PIXELS, "empty/readme.md": b""})
    cohort = read_cohort(tmp_path)
    assert (cohort.layout, cohort.task, cohort.positive) == ("folder", "binary", "malignant")
    assert cohort.table["path"].tolist()[:4] == [
        "benign/0.png",
        "benign/1.png",
        "benign/2.png",
        "benign/deep/er/x.PNG",
    ]
    assert cohort.targets.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert cohort.table["split"].tolist() == [None] * 7
    notes = " ".join(cohort.notes)
    assert "1 .txt files" in notes
    assert "1 hidden files" in notes
    assert "1 images lie outside" in notes


def test_masks_beside_images_are_masks_not_images(tmp_path, write):
    write(
        tmp_path,
        class_folders() | {"benign/0_mask.png": PIXELS, "benign/0_mask_1.png": PIXELS, "benign/my_mask.png": PIXELS},
    )
    cohort = read_cohort(tmp_path)
    masks = dict(zip(cohort.table["path"], cohort.table["mask"], strict=True))
    assert masks["benign/0.png"] == "benign/0_mask.png"
    assert masks["benign/my_mask.png"] is None
    assert len(cohort) == 7
    assert "1 further masks" in " ".join(cohort.notes)


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders_give_the_split(tmp_path, write, val):
    for part in ("train", val, "test"):
        write(tmp_path, class_folders(parent=f"{part}/"))
    cohort = read_cohort(tmp_path)
    assert cohort.layout == "split-folder"
    assert {split: len(cohort.rows(split)) for split in ("train", "val", "test")} == {
        "train": 6,
        "val": 6,
        "test": 6,
    }
    assert cohort.table["path"].str.startswith("test/")[cohort.rows("test")].all()


def test_spellings_of_class_folders_in_different_splits_join(tmp_path, write):
    write(tmp_path, class_folders(parent="train/") | class_folders(("Benign", "malignant"), parent="test/"))
    cohort = read_cohort(tmp_path)
    assert cohort.classes == ("Benign", "malignant")
    assert set(cohort.table["label"]) == {"Benign", "benign", "malignant"}


def test_class_folders_win_over_a_table_that_adds_nothing(tmp_path, write):
    write(tmp_path, class_folders())
    text = "path,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in class_folders())
    (tmp_path / "labels.csv").write_text(text)
    cohort = read_cohort(tmp_path)
    assert cohort.layout == "folder"
    assert "labels.csv was not needed" in cohort.notes[-3]


def test_a_table_whose_labels_are_not_the_folders_wins(tmp_path, write):
    write(tmp_path, {f"images/{n}.png": PIXELS for n in range(6)} | {f"masks/{n}.png": PIXELS for n in range(6)})
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"images/{n}.png,{'ab'[n % 2]}\n" for n in range(6)))
    cohort = read_cohort(tmp_path)
    assert (cohort.layout, cohort.classes, len(cohort)) == ("table", ("a", "b"), 6)
    assert "its labels are not the folders' names" in cohort.notes[0]


def test_a_table_that_knows_patients_wins_over_class_folders(tmp_path, write):
    write(tmp_path, class_folders())
    lines = [f"{name},{name.split('/')[0]},p{number}" for number, name in enumerate(class_folders())]
    (tmp_path / "labels.csv").write_text("path,label,patient_id\n" + "\n".join(lines))
    cohort = read_cohort(tmp_path)
    assert cohort.layout == "table"
    assert cohort.table["patient"].tolist() == [f"p{number}" for number in range(6)]
    assert "also tells patient" in cohort.notes[0]


def test_all_columns_of_a_table_are_read(tmp_path):
    text = "image,Diagnosis,subject,split,site,mask\n"
    text += "".join(f"{n}.png,{'ab'[n % 2]},p{n},{['train', 'valid', 'test'][n // 2]},s1,{n}.png\n" for n in range(6))
    cohort = read_cohort(csv(tmp_path, text))
    first = cohort.table.iloc[0].to_dict()
    assert first == {
        "path": "0.png",
        "label": "a",
        "patient": "p0",
        "site": "s1",
        "split": "train",
        "mask": "0.png",
        "unit": None,
    }
    assert cohort.table["split"].tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert "path = image" in cohort.notes[0]


@pytest.mark.parametrize(("name", "separator"), [("t.tsv", "\t"), ("t.csv", ";"), ("t.csv", ",")])
def test_separators_follow_the_file(tmp_path, name, separator):
    cohort = read_cohort(csv(tmp_path, ("path,label\n" + rows()).replace(",", separator), name))
    assert cohort.classes == ("a", "b")


def test_parquet_keeps_numbers_as_labels(tmp_path):
    csv(tmp_path, "")
    frame = pd.DataFrame({"path": [f"{n}.png" for n in range(6)], "label": [0.0, 1.0] * 3, "patient": range(6)})
    frame.to_parquet(tmp_path / "t.parquet")
    cohort = read_cohort(tmp_path / "t.parquet")
    assert (cohort.classes, cohort.table["patient"].iloc[5]) == (("0", "1"), "5")


def test_several_flag_columns_make_a_multilabel_cohort(tmp_path):
    text = "path,mass,edema\n" + "".join(f"{n}.png,{n % 2},{int(n < 3)}\n" for n in range(6))
    cohort = read_cohort(csv(tmp_path, text), label_column="mass,edema")
    assert (cohort.task, cohort.classes) == ("multilabel", ("mass", "edema"))
    assert cohort.targets.tolist() == [[n % 2, float(n < 3)] for n in range(6)]
    assert cohort.table["label"].tolist() == ["edema", "mass|edema", "edema", "mass", "", "mass"]


def test_backslashes_and_absolute_paths_are_understood(tmp_path, write):
    write(tmp_path, {f"im/{n}.png": PIXELS for n in range(6)})
    lines = [f"im\\{n}.png,{'ab'[n % 2]}" for n in range(5)] + [f"{tmp_path}/im/5.png,b"]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(lines))
    assert read_cohort(tmp_path / "t.csv").table["path"].tolist() == [f"im/{n}.png" for n in range(6)]


def test_a_table_may_name_images_outside_its_own_folder(tmp_path, write):
    write(tmp_path, {f"images/{n}.png": PIXELS for n in range(6)})
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    table.write_text("path,label\n" + "".join(f"../images/{n}.png,{'ab'[n % 2]}\n" for n in range(6)))
    cohort = read_cohort(table)
    found = [(cohort.root / path).resolve() for path in cohort.table["path"]]
    assert found == [tmp_path / "images" / f"{n}.png" for n in range(6)]
    decoded = build_cache(cohort, tmp_path / "cache", sides=(2, 2))
    assert (len(decoded), decoded.broken) == (6, ())


def test_patients_come_from_the_path_by_pattern(tmp_path, write):
    write(tmp_path, {f"{c}/p{n}_{k}.png": PIXELS for c in "ab" for n in range(3) for k in range(2)})
    cohort = read_cohort(tmp_path, patient_regex=r"/(p\d+)_")
    assert cohort.table["patient"].tolist()[:3] == ["p0", "p0", "p1"]
    with pytest.raises(DataError, match=r"matches nothing in 12 of 12 paths, e\.g\. a/p0_0\.png"):
        read_cohort(tmp_path, patient_regex="q")
    with pytest.raises(ConfigError, match="no regular expression"):
        read_cohort(tmp_path, patient_regex="(")


def medmnist(path, *, count=6, labels=None, dtype=np.uint8, shape=(4, 4), **more):
    labels = np.arange(count)[:, None] % 2 if labels is None else labels
    parts = {}
    for split in ("train", "val", "test"):
        parts |= {f"{split}_images": np.zeros((count, *shape), dtype), f"{split}_labels": labels}
    np.savez(path, **(parts | more))
    return path


def test_a_medmnist_archive_keeps_its_official_split(tmp_path):
    cohort = read_cohort(medmnist(tmp_path / "pneumoniamnist_64.npz"))
    assert (cohort.task, cohort.classes, cohort.positive) == ("binary", ("normal", "pneumonia"), "pneumonia")
    assert cohort.table["path"].iloc[6] == "val/0"
    assert cohort.arrays["test"].shape == (6, 4, 4)
    assert read_cohort(medmnist(tmp_path / "other.npz")).classes == ("0", "1")
    flags = np.array([[0, 1, 1], [1, 0, 0]] * 3)
    assert read_cohort(medmnist(tmp_path / "multi.npz", labels=flags)).targets.shape == (18, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": np.float32}, "expected uint8 or uint16"),
        ({"shape": (4, 4, 4, 4)}, r"expected \(N, H, W\)"),
        ({"labels": np.zeros((6, 1), int)}, "got only 0"),
        ({"labels": np.full((6, 2), 3)}, "must be 0 or 1"),
        ({"val_labels": np.zeros((5, 1), int)}, "one row per image"),
        ({"labels": np.full((6, 1), 0.5)}, "whole numbers"),
    ],
)
def test_archives_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_cohort(medmnist(tmp_path / "x.npz", **change))


def test_column_options_need_a_table(tmp_path, write):
    with pytest.raises(ConfigError, match="--label-column is for tables"):
        read_cohort(medmnist(tmp_path / "x.npz"), label_column="y")
    write(tmp_path / "f", class_folders())
    with pytest.raises(ConfigError, match="--patient-column is for tables"):
        read_cohort(tmp_path / "f", patient_column="y")


BAD_TABLES = {
    "lost file": (
        "path,label\n" + rows(labels="aaabbbab"),
        r"2 of 8 files in column path are missing: 6\.png \(line 8\)",
    ),
    "no label": ("path,dignosis\n" + rows(), "expected a column 'label'.*--label-column"),
    "NaN label": (
        "path,label\n0.png,\n1.png,nan\n" + rows(),
        r"label is blank or NaN in 2 rows \(lines 2, 3\)",
    ),
    "one class": ("path,label\n" + rows(labels="aaaaaa"), "only 'a'"),
    "few": ("path,label\n" + rows(labels="aaaabb"), "class 'b' has 2 images, expected at least 3"),
    "typo": ("path,label\n" + rows(labels=["benign"] * 5 + ["bengin"]), "misspelling of 'benign'"),
    "clash": ("path,label\n" + rows() + "2.png,b\n", r"2\.png occurs with different values in lines 4 and 8"),
    "split": (
        "path,label,split\n" + rows(extra=",holdout"),
        "line 2: split must be train, val or test, got 'holdout'",
    ),
    "part split": (
        "path,label,split\n0.png,a,train\n1.png,a,\n" + rows(extra=",test"),
        "line 3: split must be",
    ),
    "header only": ("path,label\n", "no rows"),
    "empty": ("", "the table is empty"),
    "long row": ("path,label\n" + rows(extra=",x"), "cannot be read as a table"),
    "twice": ("path,label,label \n" + rows(extra=",x"), "column 'label' occurs twice"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_refused_with_line_and_value(tmp_path, case):
    text, message = BAD_TABLES[case]
    with pytest.raises(DataError, match=message) as caught:
        read_cohort(csv(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_an_unknown_column_names_the_nearest(tmp_path):
    with pytest.raises(DataError, match=r"no column 'lable'\. Nearest: label"):
        read_cohort(csv(tmp_path, "path,label\n" + rows()), label_column="lable")


def test_repeated_rows_are_left_out_once_they_agree(tmp_path):
    cohort = read_cohort(csv(tmp_path, "path,label\n" + rows() + "0.png,a\n\n\n"))
    assert len(cohort) == 6
    assert "1 rows repeat" in " ".join(cohort.notes)


def test_patients_are_counted_not_images(tmp_path):
    text = "path,label,patient\n" + "".join(f"{n}.png,{'ab'[n > 2]},{'p' if n < 3 else n}\n" for n in range(6))
    with pytest.raises(DataError, match="class 'a' has 1 patients"):
        read_cohort(csv(tmp_path, text))


def test_missing_and_empty_sources_are_refused(tmp_path):
    (tmp_path / "cohort").mkdir()
    with pytest.raises(DataError, match=r"found nothing\. Nearest: cohort"):
        read_cohort(tmp_path / "cohrt")
    with pytest.raises(DataError, match="no images found"):
        read_cohort(tmp_path / "cohort")
    (tmp_path / "x.xlsx").touch()
    with pytest.raises(DataError, match=r"got '\.xlsx'"):
        read_cohort(tmp_path / "x.xlsx")
    for name in "ab":
        (tmp_path / "cohort" / f"{name}.csv").touch()
    with pytest.raises(DataError, match=r"expected one table, got 2 \(a\.csv, b\.csv\)"):
        read_cohort(tmp_path / "cohort")
