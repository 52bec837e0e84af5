"""A finished model on an external cohort."""

import json
from pathlib import Path

import pandas as pd
import pytest

from medgraft.config import DataConfig
from medgraft.data.phantom import write_phantom
from medgraft.errors import DataError, RunError
from medgraft.run.evaluate import evaluate
from small_runs import SMALL


def test_an_external_cohort_gets_the_same_metrics_and_its_sites(finished: Path, tmp_path: Path) -> None:
    other = write_phantom(tmp_path / "other", SMALL, 5)
    result = evaluate(finished, DataConfig(source=str(other)), out=tmp_path / "out", replicates=200)
    assert set(result["metrics"]) >= {"auroc", "auprc", "accuracy", "majority", "brier", "ece"}
    low, high = result["metrics"]["auroc"]["ci95"]
    assert low <= result["metrics"]["auroc"]["value"] <= high
    assert set(result["sites"]) == set(pd.read_csv(other)["site"])
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["num_images"] == len(pd.read_csv(other))
    assert not set(pd.read_csv(tmp_path / "out" / "predictions.csv")["patient"]) & set(pd.read_csv(other)["patient"])


def test_other_classes_are_refused(finished: Path, phantom: Path, tmp_path: Path) -> None:
    table = pd.read_csv(phantom)
    table["label"] = table["label"].replace({"mass": "cat"})
    table["path"] = [str(phantom.parent / path) for path in table["path"]]
    table = table.drop(columns=["mask"])
    table.to_csv(tmp_path / "cases.csv", index=False)
    with pytest.raises(DataError, match="cat"):
        evaluate(finished, DataConfig(source=str(tmp_path / "cases.csv")))


def test_a_folder_without_a_model_is_refused(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"model\.json"):
        evaluate(tmp_path, DataConfig(source=str(phantom)))
