"""A finished model on an external cohort."""

import json
from pathlib import Path

import pandas as pd
import pytest

import medgraft
from medgraft.config import DataConfig
from medgraft.errors import ConfigError, DataError, RunError
from medgraft.judge import external
from medgraft.listener import Listener
from medgraft.phantom.phantom import write_phantom
from medgraft.run import analyze as analyze_module
from medgraft.run import evaluate as evaluate_module
from medgraft.run.analyze import Question, analyze
from medgraft.train.engine import exact_engine
from small_runs import SMALL, evaluate, fit, small_config


def test_an_external_cohort_gets_the_same_metrics_and_its_sites(finished: Path, tmp_path: Path) -> None:
    other = write_phantom(tmp_path / "other", SMALL, 5)
    told: list[tuple[int, int]] = []
    listener = Listener(step=lambda what, done, total: told.append((done, total)) if what == "judging" else None)
    result = evaluate(finished, DataConfig(source=str(other)), out=tmp_path / "out", replicates=200, listener=listener)
    assert told[-1] == (len(pd.read_csv(other)),) * 2
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


def test_classes_spelled_otherwise_are_the_models(finished: Path, phantom: Path, tmp_path: Path) -> None:
    table = pd.read_csv(phantom).drop(columns=["mask"])
    table["path"] = [str(phantom.parent / path) for path in table["path"]]
    table.to_csv(tmp_path / "plain.csv", index=False)
    table["label"] = [f" {label.upper()}" if row % 2 else label.title() for row, label in enumerate(table["label"])]
    table.to_csv(tmp_path / "cases.csv", index=False)
    found = [evaluate(finished, DataConfig(source=str(tmp_path / f"{name}.csv"))) for name in ("plain", "cases")]
    assert found[0]["metrics"] == found[1]["metrics"]


@pytest.mark.parametrize("label", ["normal", "mass"])
def test_a_cohort_of_one_class_tells_how_often_the_model_is_right(
    label: str, finished: Path, phantom: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(phantom).drop(columns=["mask"])
    table["path"] = [str(phantom.parent / path) for path in table["path"]]
    table = table[table["label"] == label]
    table.to_csv(tmp_path / "cases.csv", index=False)
    said: list[str] = []
    source = DataConfig(source=str(tmp_path / "cases.csv"))
    result = evaluate(finished, source, out=tmp_path / "out", listener=Listener(say=said.append))
    assert set(result["metrics"]) == {"accuracy"}
    called = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert result["metrics"]["accuracy"]["value"] == pytest.approx((called["pred"] == label).mean())
    low, high = result["metrics"]["accuracy"]["ci95"]
    assert 0 <= low < high <= 1
    assert any(f"The cohort shows {label} alone" in words for words in said)
    for name, point in result.get("operating_point", {}).items():
        known, other = ("sensitivity", "specificity") if name == label else ("specificity", "sensitivity")
        assert point[known]["value"] is not None
        assert point[other]["value"] is None


def test_a_folder_without_a_model_is_refused(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"model\.json"):
        evaluate(tmp_path, DataConfig(source=str(phantom)))


@pytest.fixture(scope="module")
def labelled(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A run on three labels that exclude nothing, and the table it learned from."""
    folder = tmp_path_factory.mktemp("labels")
    table = pd.read_csv(phantom)
    table["path"] = [str(phantom.parent / path) for path in table["path"]]
    for name in ("nodule", "mass"):
        table[name] = (table["label"] == name).astype(int)
    table["odd"] = [row % 2 for row in range(len(table))]
    table = table.drop(columns=["label", "mask"])
    table.to_csv(folder / "cases.csv", index=False)
    config = small_config(
        folder / "cases.csv", data={"label_column": "nodule,mass,odd"}, transfer={"strategy": "frozen", "cut": "2"}
    )
    fit(config, folder / "run")
    return folder / "run", table


def test_labels_that_the_other_cohort_lacks_are_not_known_and_not_judged(
    labelled: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    """They were once taken for absent everywhere, after which the whole evaluation was refused."""
    run, table = labelled
    said: list[str] = []
    table.drop(columns=["mass"]).to_csv(tmp_path / "cases.csv", index=False)
    config = DataConfig(source=str(tmp_path / "cases.csv"), label_column="odd,nodule")
    part = evaluate(run, config, out=tmp_path / "out", replicates=200, listener=Listener(say=said.append))
    table.to_csv(tmp_path / "whole.csv", index=False)
    config = DataConfig(source=str(tmp_path / "whole.csv"), label_column="nodule,mass,odd")
    whole = evaluate(run, config, replicates=200)
    assert (part["classes"], part["unlabelled"]) == (["nodule", "odd"], ["mass"])
    assert set(part["operating_point"]) == {"nodule", "odd"}
    assert part["operating_point"]["odd"] == whole["operating_point"]["odd"]
    assert any("no label mass" in text for text in said)
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert "prob_mass" in rows
    assert all("?mass" in label for label in rows["label"])


def test_a_device_that_is_not_there_is_refused_by_every_job_that_computes(finished: Path, phantom: Path) -> None:
    with pytest.raises(ConfigError, match="device of this machine"):
        evaluate(finished, DataConfig(source=str(phantom)), device="abacus")
    with pytest.raises(ConfigError, match="device of this machine"):
        analyze(finished, Question(device="abacus"))
    with pytest.raises(ConfigError, match="device of this machine"):
        medgraft.predict(finished, phantom.parent / "images", device="abacus")


def test_the_device_that_was_asked_for_is_used(finished: Path, phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    for module in (external, analyze_module):
        monkeypatch.setattr(
            module, "exact_engine", lambda device, **rest: used.append(device) or exact_engine(device, **rest)
        )
    monkeypatch.setattr(evaluate_module, "pick_device", lambda wanted: used.append(f"asked {wanted}") or "cpu")
    evaluate(finished, DataConfig(source=str(phantom)), device="cuda:1", replicates=100)
    assert used == ["asked cuda:1", "cpu"]
