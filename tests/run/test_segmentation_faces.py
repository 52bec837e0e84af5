"""Segmentation as people call it: the command line, the demo, and DICOM from films with objects to objects."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import medgraft.run.demo as room
from dicom_files import dicom, save
from medgraft.cli import app
from medgraft.config import make_config
from medgraft.errors import ConfigError
from medgraft.files import read_json
from medgraft.io.mask import read_mask
from medgraft.io.mask_files import write_mask
from medgraft.phantom.phantom import PhantomSettings, write_phantom

STUDY = {"StudyInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.5"}


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-faces"))


def lesion(number: int, side: int = 40) -> np.ndarray:
    """(side, side) bool: a disc at a place of its own."""
    row, column = np.random.default_rng(number).uniform(12, side - 12, 2)
    y, x = np.mgrid[:side, :side]
    return np.hypot(y - row, x - column) < 8


def said(*asked: str) -> str:
    """What the program says to a call that goes well."""
    result = CliRunner().invoke(app, list(asked))
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def test_a_fit_from_the_command_line_takes_decoder_observer_and_loss(tmp_path: Path) -> None:
    for number in range(12):
        mask = lesion(number)
        Image.fromarray((60 + 120 * mask).astype(np.uint8)).save(tmp_path / f"p{number // 2}_{number}.png")
        for observer, marks in (("one", mask), ("two", np.roll(mask, 2, 0))):
            Image.fromarray(marks.astype(np.uint8)).save(tmp_path / f"p{number // 2}_{number}_{observer}.png")
    told = said(
        "fit", str(tmp_path), "--task", "segmentation", "--observer", "two", "--patient-regex", r"(p\d+)_",
        "--decoder", "unet++", "--cut", "5", "--size", "32", "--epochs", "1", "--preset", "fast",
        "--set", "train.patches=2", "--set", "train.loss=dice-bce", "--set", "evaluate.replicates=100", "--leaks",
        "allow", "--offline", "--device", "cpu", "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert "2 observers (one, two): the truth is two; --observer chooses." in told
    assert "one against the same truth: Dice 0." in told
    results = read_json(tmp_path / "run" / "results.json")
    assert (results["chosen"]["head"], results["train"]["loss"]) == ("unet++", "dice-bce")
    assert results["chosen"]["cut"]["index"] == 5
    shifted = said("check", str(tmp_path), "--task", "segmentation", "--patient-regex", r"(p\d+)_")
    assert "two against the truth, mean Dice of 12 images: foreground 0." in shifted


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_demo_draws_searches_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    tiny = PhantomSettings(
        shape=(32, 32), num_patients={"train": 12, "val": 8, "test": 8}, classes=("nodule", "mass"), contrast=0.9
    )
    monkeypatch.setattr(room, "_SETTINGS", {(task, False): tiny})

    def short(source: str, *, preset: str, options: dict[str, Any]) -> Any:
        assert preset == "balanced"
        less = {
            "train": {"epochs": 1, "patches": int(task == "segmentation")},
            "search": {"method": "two-stage", "max_trials": 1, "seeds": 1},
        }
        return make_config(source, preset="fast", options={**options, **less, "evaluate": {"replicates": 100}})

    monkeypatch.setattr(room, "make_config", short)
    told = said("demo", "--task", task, "--out", str(tmp_path))
    assert told.rstrip().endswith("A demonstration on drawn films, not evidence.")
    results = read_json(tmp_path / ("run-masks" if task == "segmentation" else "run") / "results.json")
    assert results["is_phantom"]
    assert results["command"].startswith("medgraft demo")
    assert results["search"]["num_trials"] >= 2
    assert "dice" in results["test"]["chosen"] or task == "classification"


def test_dicom_films_with_objects_are_learned_marked_and_judged_as_objects(tmp_path: Path) -> None:
    rows = ["path,mask"]
    (tmp_path / "films").mkdir()
    for number in range(14):
        mask = lesion(number).astype(np.uint8)
        stored = np.random.default_rng(number).integers(300, 500, mask.shape) + 2500 * mask.astype(int)
        names = {"PatientID": f"miller {number // 2}", "SeriesInstanceUID": f"1.2.{number}", **STUDY}
        file = save(dicom(stored.astype(np.uint16), window=(2048, 4096), **names), tmp_path / "films" / f"{number}.dcm")
        seg = write_mask(
            mask,
            (file,),
            tmp_path / f"seg{number}.dcm",
            kind="dicom-seg",
            values=(1,),
            classes=("lesion",),
            version="1",
        )
        rows.append(f"films/{file.name},{seg.name}")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    told = said(
        "fit", str(tmp_path / "cases.csv"), "--task", "segmentation", "--cut", "3", "--size", "32", "--epochs", "8",
        "--preset", "fast", "--set", "train.patches=6", "--set", "evaluate.replicates=100", "--leaks", "allow",
        "--offline", "--device", "cpu", "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert "miller" not in told
    results = read_json(tmp_path / "run" / "results.json")
    assert results["classes"] == ["lesion"]
    assert results["test"]["chosen"]["dice"]["value"] > 0.7
    said("predict", str(tmp_path / "run"), str(tmp_path / "films"), "-o", str(tmp_path / "out"))
    marked = pd.read_csv(tmp_path / "out" / "masks.csv")
    assert (marked["status"] == "ok").all()
    for path, name, count in zip(marked["path"], marked["mask"], marked["pixels_lesion"], strict=True):
        assert name.endswith(".dcm")
        assert read_mask(tmp_path / "out" / name, (Path(path),)).sum() == count > 0
    # What it drew is a cohort of its own: the model agrees with itself.
    own = [f"films/{Path(path).name},out/{name}" for path, name in zip(marked["path"], marked["mask"], strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(["path,mask", *own]))
    said("evaluate", str(tmp_path / "run"), str(tmp_path / "own.csv"), "-o", str(tmp_path / "judged"))
    assert read_json(tmp_path / "judged" / "evaluation.json")["metrics"]["dice"]["value"] == pytest.approx(1.0)


def test_analysis_understands_labels_alone(tmp_path: Path) -> None:
    settings = PhantomSettings(
        shape=(32, 32), num_patients={"train": 4, "val": 3, "test": 3}, classes=("nodule", "mass")
    )
    cases = write_phantom(tmp_path / "films", settings, 0)
    said(
        "fit", str(cases), "--task", "segmentation", "--cut", "3", "--size", "32", "--epochs", "1", "--preset", "fast",
        "--set", "train.patches=1", "--set", "evaluate.replicates=100", "--leaks", "allow", "--offline",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    result = CliRunner().invoke(app, ["analyze", str(tmp_path / "run")])
    assert isinstance(result.exception, ConfigError)
    assert "labels alone" in str(result.exception)
