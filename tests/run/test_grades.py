"""Ordinal grades: their order is the user's, and the report says how well it is kept."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from medgraft.data.cohort.labelled import read_cohort
from medgraft.deploy.artefact import load_artefact
from medgraft.errors import ConfigError
from small_runs import evaluate, fit, small_config

GRADES = ("none", "mild", "severe")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(90):
        film = rng.integers(0, 60, (16, 16)) + 70 * (number % 3)
        place = tmp_path / "films" / GRADES[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(film.astype(np.uint8)).save(place / f"{number}.png")
    return tmp_path / "films"


def test_classes_stand_in_the_order_of_the_grades(films: Path) -> None:
    plain, graded = read_cohort(films), read_cohort(films, grades=GRADES)
    assert plain.classes == ("mild", "none", "severe")
    assert graded.classes == GRADES
    assert graded.is_ordinal
    names = [graded.classes[target] for target in graded.targets]
    assert names == [plain.classes[target] for target in plain.targets]
    for bad in (("none", "mild"), ("none", "mild", "mild"), ("none", "mild", "grave")):
        with pytest.raises(ConfigError, match="expected --grades to name each of the classes once"):
            read_cohort(films, grades=bad)


def test_a_run_reports_the_weighted_kappa(films: Path, tmp_path: Path) -> None:
    config = small_config(
        films, data={"grades": "none, mild, severe"}, backbone={"size": 16}, train={"epochs": 3}, transfer={"cut": "3"}
    )
    fit(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    table = pd.read_csv(tmp_path / "run" / "predictions.csv", keep_default_na=False)
    codes = [[GRADES.index(name) for name in table[column]] for column in ("label", "pred")]
    expected = cohen_kappa_score(*codes, weights="quadratic")
    assert results["classes"] == list(GRADES)
    assert results["test"]["chosen"]["kappa"] == pytest.approx(expected)
    assert "Weighted kappa" in (tmp_path / "run" / "report.html").read_text()
    assert load_artefact(tmp_path / "run").artefact.is_ordinal
    again = evaluate(tmp_path / "run", config.data.model_copy(update={"grades": ()}), replicates=100)
    assert again["metrics"]["kappa"]["value"] <= 1
