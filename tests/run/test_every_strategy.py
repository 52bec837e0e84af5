"""Every strategy from images to a stored model: what the report says of the test set is what the model predicts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medgraft.deploy import load_artefact, predict_files
from medgraft.transfer import STRATEGIES
from small_runs import fit, small_config

TRANSFORMER = {
    "name": "vit_tiny_patch16_224",
    "args": {"patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3},
    "weights": "none",
    "size": 32,
}


@pytest.fixture(autouse=True)
def _home_of_strategies(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of their own: other tests count the openings of the same phantom."""
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-strategies"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_stored_model_predicts_what_the_report_says(phantom: Path, tmp_path: Path, strategy: str) -> None:
    cut = {"cut": "4"} if STRATEGIES[strategy].has_depth else {}
    options = {"backbone": TRANSFORMER} if strategy == "lora" else {}
    config = small_config(phantom, transfer={"strategy": strategy, **cut}, **options)
    results = fit(config, tmp_path / "run")
    assert results["chosen"]["strategy"] == strategy
    assert [block["treatment"] for block in results["plan"]["blocks"]][-1] == "new"
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    model = load_artefact(tmp_path / "run")
    again = predict_files(model, [phantom.parent / path for path in table["path"]])
    columns = [name for name in table.columns if name.startswith("prob_")]
    np.testing.assert_allclose(again[columns], table[columns], atol=1e-6, rtol=0)
    assert table[columns].to_numpy().std(axis=0).max() > 1e-4, "a model that says the same of all proves nothing"
    described = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert described["strategy"] == strategy
    page = (tmp_path / "run" / "report.html").read_text()
    assert "None" not in page
    assert ("compact" in results["test"]["sentence"]) == (strategy == "ttl")


def test_a_search_shows_what_each_depth_would_deploy(phantom: Path, tmp_path: Path) -> None:
    config = small_config(phantom, transfer={"strategy": "lwft"}, search={"max_trials": 3, "seeds": 1})
    results = fit(config, tmp_path / "run")
    candidates = json.loads((tmp_path / "run" / "choice.json").read_text())["candidates"]
    assert len(candidates) > 1
    assert {candidate["macs"] for candidate in candidates} == {results["efficiency"]["chosen"]["macs"]}
    assert results["chosen"]["rule"] == "best", "where all depths deploy the same, the smallest is none"
