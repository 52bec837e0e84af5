"""Links are followed once wherever a tree is walked; what file servers leave behind is counted apart."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_files import dicom, save, slice_at
from medgraft.data.cohort.cases import find_cases, volume_of
from medgraft.data.cohort.export import list_export
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.cohort.marked import read_mask_cohort
from medgraft.data.cohort.walk import tree_below
from medgraft.errors import DataError


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 12), np.uint8)).save(path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Twelve patients of two images, outside the cohort."""
    for person in range(12):
        for turn in "ab":
            picture(tmp_path / "store" / f"pat{person:02d}" / f"{turn}.png", person)
    return tmp_path / "store"


LINKED: dict[str, Callable[[Path, Path], object]] = {
    "folders": lambda patient, place: (place / patient.name).symlink_to(patient),
    "files": lambda patient, place: [(place / f"{patient.name}{f.name}").symlink_to(f) for f in patient.iterdir()],
    "hard links": lambda patient, place: [
        (place / f"{patient.name}{f.name}").hardlink_to(f) for f in patient.iterdir()
    ],
}


@pytest.mark.parametrize("kind", LINKED)
def test_linked_patients_count_in_every_place_that_walks(kind: str, store: Path, tmp_path: Path) -> None:
    for number, patient in enumerate(sorted(store.iterdir())):
        place = tmp_path / "cohort" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        LINKED[kind](patient, place)
    assert len(read_cohort(tmp_path / "cohort")) == 24
    assert len(find_cases([tmp_path / "cohort"])) == 24
    paths = [file.relative_to(tmp_path / "cohort").as_posix() for (file,) in find_cases([tmp_path / "cohort"])]
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{path},{path[0]}\n" for path in paths))
    assert len(list_export(tmp_path / "cohort", tmp_path / "t.csv", "path").table) == 24


def test_a_linked_class_folder_and_a_linked_root_are_entered(store: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    for name, half in (("a", range(6)), ("b", range(6, 12))):
        (tmp_path / f"class_{name}").mkdir()
        for person in half:
            (store / f"pat{person:02d}").rename(tmp_path / f"class_{name}" / f"pat{person:02d}")
        (tmp_path / "cohort" / name).symlink_to(tmp_path / f"class_{name}")
    (tmp_path / "link").symlink_to(tmp_path / "cohort")
    assert len(read_cohort(tmp_path / "link")) == 24
    assert len(find_cases([tmp_path / "link"])) == 24


def test_loops_end_and_nothing_counts_twice(tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / "ab"[number % 2] / f"p{number}" / "x.png", number)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "p0" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a" / "p2")
    (tmp_path / "a" / "y.png").symlink_to(tmp_path / "a" / "p2" / "x.png")
    (tmp_path / "a" / "dead.png").symlink_to(tmp_path / "nowhere")
    cohort = read_cohort(tmp_path)
    assert len(cohort) == 8
    (note,) = [note for note in cohort.notes if note.startswith("Skipped")]
    assert "4 links to what is read already" in note
    assert "1 links to nothing" in note
    assert len(find_cases([tmp_path])) == 8


def test_masks_and_series_lie_behind_links(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "store" / "images" / f"{number}.png", number)
        mask = picture(tmp_path / "store" / "masks" / f"{number}.png")
        Image.fromarray((np.eye(12) * 255).astype(np.uint8)).save(mask)
    for name in ("images", "masks"):
        (tmp_path / "cohort" / name).mkdir(parents=True)
        (tmp_path / "cohort" / name / "part").symlink_to(tmp_path / "store" / name)
    assert len(read_mask_cohort(tmp_path / "cohort")) == 6
    for z in range(4):
        save(slice_at(np.zeros((8, 8), np.uint16), float(z), series="1.2.3"), tmp_path / "slices" / f"{z}.dcm")
    (tmp_path / "patient").mkdir()
    (tmp_path / "patient" / "series").symlink_to(tmp_path / "slices")
    assert len(volume_of(tmp_path / "patient")) == 4


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "__MACOSX", ".thumbnails", "$RECYCLE.BIN"])
def test_what_file_servers_leave_behind_is_no_case(name: str, tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / "ab"[number % 2] / f"{number}.png", number)
        picture(tmp_path / "ab"[number % 2] / name / f"{number}.png" / "SYNOPHOTO_THUMB_M.jpg", number)
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    cohort = read_cohort(tmp_path)
    assert len(cohort) == 8
    assert any("9 files that a file server left behind" in note for note in cohort.notes)
    assert len(find_cases([tmp_path])) == 8


def test_dicom_is_found_behind_links(tmp_path: Path) -> None:
    for number in range(8):
        made = dicom(np.full((8, 8), number, np.uint16))
        made.PatientID = f"P{number}"
        save(made, tmp_path / "store" / f"{number}" / "IM0001")
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number}").symlink_to(tmp_path / "store" / f"{number}")
    (tmp_path / "cohort").mkdir()
    for name in "ab":
        (tmp_path / name).rename(tmp_path / "cohort" / name)
    cohort = read_cohort(tmp_path / "cohort")
    assert (len(cohort), cohort.table["patient"].nunique()) == (8, 8)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o000)
    with pytest.raises(DataError, match="cannot be listed"):
        tree_below(tmp_path)
