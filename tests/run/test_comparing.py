"""Strategies are compared under one protocol, once on test, and an interrupted comparison goes on."""

import json
import re

import numpy as np
import pandas as pd
import pytest

import medgraft.run.comparing as room
from medgraft.errors import BackboneError, ConfigError, RunError
from medgraft.run.advising import advise
from medgraft.run.comparing import compare
from medgraft.run.fit import fit
from small_runs import small_config

STRATEGIES = ["ftl", "ttl", "hybrid", "frozen", "gradual"]


def config_of(phantom, **compare_settings):
    settings = {"strategies": STRATEGIES, "fractions": [0.5, 1.0], "trials": 2, **compare_settings}
    return small_config(phantom, train={"epochs": 1}, compare=settings, seeds=2)


@pytest.fixture(autouse=True)
def _home_of_comparisons(tmp_path_factory, monkeypatch):
    """A ledger of their own: other tests count the openings of the same phantom."""
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-comparisons"))


@pytest.fixture(scope="module")
def finished(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-comparisons"))
        return folder, compare(config_of(phantom), folder, command="medgraft compare phantom")


def test_every_strategy_stands_in_every_fraction_with_the_same_trials(finished):
    _, results = finished
    rows = results["rows"]
    assert [(row["strategy"], row["fraction"]) for row in rows] == [(s, f) for f in (0.5, 1.0) for s in STRATEGIES]
    assert {len(row["tried"]) for row in rows} == {2}
    small, whole = ({row["num_train"] for row in rows if row["fraction"] == f} for f in (0.5, 1.0))
    assert max(small) < min(whole)
    assert len(small) == len(whole) == 1


def test_the_trial_with_the_best_validation_was_taken(finished):
    for row in finished[1]["rows"]:
        best = max(row["tried"], key=lambda one: one[2])
        assert row["cut"] is None or row["cut"]["index"] == best[0]
        assert row["lr"] is None or row["lr"] == pytest.approx(best[1])


def test_differences_verdicts_and_costs_are_against_full_fine_tuning(finished):
    rows = finished[1]["rows"]
    for row in rows:
        if row["strategy"] == "ftl":
            assert "difference" not in row
            assert row["cost_in_ftl"] == 1
            continue
        gap = row["difference"]["auroc"]
        base = next(r for r in rows if r["strategy"] == "ftl" and r["fraction"] == row["fraction"])
        assert gap["value"] == pytest.approx(row["test"]["auroc"]["mean"] - base["test"]["auroc"]["mean"])
        assert gap["ci95"][0] <= gap["value"] <= gap["ci95"][1]
        assert gap["p"] <= gap["p_holm"] <= 1
        assert row["verdict"] in ("better", "worse", "non-inferior", "inconclusive")
    frozen = next(row for row in rows if row["strategy"] == "frozen" and row["fraction"] == 1)
    assert frozen["cost_in_ftl"] < 0.5
    assert frozen["test"]["auroc"]["sd"] == pytest.approx(0, abs=1e-9) or frozen["test"]["auroc"]["sd"] is not None


def test_the_test_set_is_opened_once_and_a_finished_comparison_is_read_back(finished, phantom, monkeypatch):
    folder, results = finished
    assert results["ledger"]["openings"] >= 1
    monkeypatch.setattr(room, "prepared", None)
    again = compare(config_of(phantom), folder)
    assert again == json.loads((folder / "comparison.json").read_text())
    table = pd.read_csv(folder / "comparison.csv")
    assert len(table) == len(results["rows"])
    page = (folder / "comparison.html").read_text()
    assert all(name in page for name in STRATEGIES)
    assert "<script" not in page
    assert page.count("<svg") == 3
    assert "&lt;svg" not in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)


def test_other_settings_in_the_same_folder_are_refused(finished, phantom):
    with pytest.raises(RunError, match=r"compare\.trials"):
        compare(config_of(phantom, trials=3), finished[0])


class Killed(BaseException):
    pass


def test_a_killed_comparison_repeats_no_finished_training(phantom, tmp_path, monkeypatch):
    config = config_of(phantom, strategies=["ftl", "ttl"], fractions=[1.0])
    real, calls = room.run_trial, []

    def dying(spec, context, on_epoch):
        calls.append(spec)
        if len(calls) == 4:
            raise Killed
        return real(spec, context, on_epoch)

    monkeypatch.setattr(room, "run_trial", dying)
    with pytest.raises(Killed):
        compare(config, tmp_path / "run")
    trained = []
    monkeypatch.setattr("medgraft.search.trial.train_model", spy(trained))
    monkeypatch.setattr(room, "run_trial", real)
    results = compare(config, tmp_path / "run")
    whole = compare(config, tmp_path / "whole")
    assert [row["test"] for row in results["rows"]] == [row["test"] for row in whole["rows"]]
    assert len(trained) == 3 + 6


def spy(trained):
    from medgraft.train.loop import train_model

    def train(*args, **kwargs):
        trained.append(1)
        return train_model(*args, **kwargs)

    return train


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"strategies": ["ttl", "magic"]}, ConfigError, "got magic"),
        ({"strategies": ["lora"]}, BackboneError, "transformer"),
        ({"fractions": [0.001]}, ConfigError, "every class at fraction 0.001"),
        ({"fractions": [0.0, 1.0]}, ConfigError, "above 0 and at most 1"),
    ],
)
def test_what_makes_no_sense_is_refused(phantom, tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        compare(config_of(phantom, **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "the corrected call may use the same folder"


def test_a_classical_head_without_hybrid_is_refused(phantom, tmp_path):
    config = small_config(phantom, compare={"strategies": ["ttl"]}, transfer={"head": "svm"})
    with pytest.raises(ConfigError, match="add hybrid"):
        compare(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="Use --strategy hybrid"):
        fit(small_config(phantom, transfer={"head": "svm", "strategy": "gradual"}), tmp_path / "run")


def test_all_leaves_out_what_the_network_cannot_do(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "STRATEGIES", {name: room.STRATEGIES[name] for name in ("ftl", "lora")})
    results = compare(config_of(phantom, strategies=["all"], fractions=[1.0], trials=1), tmp_path / "run")
    assert [row["strategy"] for row in results["rows"]] == ["ftl"]
    assert "transformer" in results["left_out"]["lora"]


def test_advice_names_facts_probes_and_sources_and_opens_no_test_set(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("medgraft.evaluate.ledger.open_test", None)
    advice = advise(small_config(phantom))
    assert len(advice["facts"]) == 3
    assert all(0 < probe["val_auprc"] <= 1 for probe in advice["probes"])
    assert advice["domain_distance"] > 0
    assert advice["advice"][0]["strategy"] in ("ttl", "ftl")
    assert all(item["source"] for item in advice["advice"])
    assert len({item["strategy"] for item in advice["advice"]}) == len(advice["advice"])


def test_without_pretrained_weights_the_advice_is_scratch(phantom):
    advice = advise(small_config(phantom, backbone={"weights": "none"}))
    assert [item["strategy"] for item in advice["advice"]] == ["scratch"]
    assert advice["domain_distance"] is None


def test_images_of_the_source_itself_are_near_and_others_far(phantom):
    near = advise(small_config(phantom))["domain_distance"]
    assert np.isfinite(near)
