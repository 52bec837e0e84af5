"""Whether a cohort was drawn by this program is asked of its folder, not of its words."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.cohort.origin import is_phantom
from medgraft.phantom.phantom import PhantomSettings, write_phantom

DRAWN = PhantomSettings(
    shape=(32, 32),
    num_patients={"train": 4, "val": 2, "test": 2},
    classes=("nodule", "mass"),
    images_per_patient=(1, 1),
)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("drawn") / "cohort", DRAWN, 0)


def test_a_phantom_is_known_by_its_table_and_by_its_folders(phantom: Path, tmp_path: Path) -> None:
    assert is_phantom(read_cohort(phantom))
    # The same images in a folder for each class, beside the mark that came with them.
    table = pd.read_csv(phantom)
    for path, label in zip(table["path"], table["label"], strict=True):
        (tmp_path / "sorted" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(phantom.parent / path, tmp_path / "sorted" / label)
    shutil.copy(phantom.parent / "phantom.json", tmp_path / "sorted")
    assert is_phantom(read_cohort(tmp_path / "sorted"))
    (tmp_path / "sorted" / "phantom.json").unlink()
    assert not is_phantom(read_cohort(tmp_path / "sorted"))


def test_patients_with_the_words_of_a_phantom_are_patients(phantom: Path, tmp_path: Path) -> None:
    # Classes, folder and file names of the demonstration, of images of somebody else.
    folder = tmp_path / "phantom"
    shutil.copytree(phantom.parent, folder)
    (folder / "phantom.json").unlink()
    assert not is_phantom(read_cohort(folder / phantom.name))


def test_arrays_are_nobodys_phantom(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {
        f"{part}_{kind}": rng.integers(
            0, 2 if kind == "labels" else 255, (6, 1) if kind == "labels" else (6, 28, 28), np.uint8
        )
        for part in ("train", "val", "test")
        for kind in ("images", "labels")
    }
    (tmp_path / "phantom.json").write_text("{}")
    np.savez(tmp_path / "phantommnist.npz", **parts)
    assert not is_phantom(read_cohort(tmp_path / "phantommnist.npz"))
