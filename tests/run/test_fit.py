"""The main job, end to end, on a small phantom."""

import hashlib
import html
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from medgraft.as_json import from_json
from medgraft.backbones.packaged import packaged_weights
from medgraft.config import PRESETS, RunConfig, make_config, to_yaml
from medgraft.deploy import load_artefact, predict_files
from medgraft.errors import ConfigError, CutError, DataError, LeakError, RunError, WeightsError
from medgraft.evaluate.results import Estimate
from medgraft.listener import Listener
from medgraft.report import write_report
from medgraft.report.formatting import with_interval
from medgraft.run import fit as fit_module
from medgraft.search import explore
from medgraft.search.plan import shared_epochs
from medgraft.setup.plan import method_of, search_seeds
from small_runs import fit, small_config


class StopHere(BaseException):
    pass


def weights_hash(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_results_hold_every_key_of_the_contract(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    expected = {
        "schema", "task", "classes", "positive", "chosen", "test", "efficiency", "search", "splits", "audit",
        "ledger", "versions", "command",
    }  # fmt: skip
    assert expected <= set(results)
    assert set(results["chosen"]) >= {"strategy", "rule", "init", "cut"}
    assert set(results["chosen"]["cut"]) >= {"index", "name", "num_params", "macs"}
    for model in ("chosen", "baseline"):
        summary = results["test"][model]
        assert set(summary["auroc"]) == {"value", "ci95", "mean", "sd"}
        assert {"accuracy", "majority", "balanced_accuracy", "brier", "ece", "operating_point"} <= set(summary)
        assert set(results["efficiency"][model]) >= {"num_params", "macs", "cpu_ms", "file_bytes"}
    assert set(results["test"]["difference"]["auroc"]) == {"value", "ci95", "p", "spread"}
    assert results["test"]["verdict"] in {"better", "worse", "non-inferior", "inconclusive"}
    assert set(results["search"]) == {
        "num_trials", "seconds", "baseline_seconds", "cost_in_ftl", "beyond_ftl", "method", "seeds", "epochs", "start",
        "fold",
    }  # fmt: skip
    assert results["search"]["fold"] is None
    assert results["ledger"]["openings"] == 1
    assert results["is_phantom"] is True  # the folder is marked, whoever made the run


def test_a_run_folder_holds_its_files_and_nothing_half_written(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {
        "config.yaml", "splits.csv", "audit.json", "search.csv", "results.json", "predictions.csv", "model",
        "baseline",        "report.html", "MODEL_CARD.md", "log.jsonl", "checkpoints",
    } <= names  # fmt: skip
    assert not [path for path in finished.rglob("*") if path.name.startswith(".unfinished") or path.suffix == ".lock"]
    page = (finished / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


def test_the_deployed_model_has_the_parameters_it_claims(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    model = load_artefact(finished)
    assert sum(p.numel() for p in model.network.parameters()) == results["efficiency"]["chosen"]["num_params"]


def test_predict_on_the_raw_files_gives_the_test_predictions(finished: Path, phantom: Path) -> None:
    stored = pd.read_csv(finished / "predictions.csv")
    table = predict_files(load_artefact(finished), [phantom.parent / path for path in stored["path"]])
    columns = [name for name in stored.columns if name.startswith("prob_")]
    np.testing.assert_array_equal(table[columns].to_numpy(), stored[columns].to_numpy())
    assert list(table["pred"]) == list(stored["pred"])
    assert set(table["status"]) == {"ok"}


def test_patients_stay_whole_and_appear_as_pseudonyms_only(finished: Path, phantom: Path) -> None:
    cases = pd.read_csv(phantom)
    stored = pd.read_csv(finished / "predictions.csv")
    assert not set(stored["patient"]) & set(cases["patient"])
    assert stored.merge(cases, on="path").groupby("patient_x")["patient_y"].nunique().max() == 1
    splits = pd.read_csv(finished / "splits.csv").merge(cases.drop(columns="split"), on="path")
    assert splits.groupby("patient")["split"].nunique().max() == 1


def test_the_same_command_on_a_finished_run_trains_nothing(finished: Path, phantom: Path) -> None:
    before = (finished / "search.csv").stat().st_mtime_ns
    said: list[str] = []
    results = fit(small_config(phantom), finished, listener=Listener(say=said.append))
    assert results["ledger"]["openings"] == 1
    assert (finished / "search.csv").stat().st_mtime_ns == before
    assert any("finished" in line for line in said)


def test_a_run_with_other_settings_is_refused_with_their_names(finished: Path, phantom: Path) -> None:
    with pytest.raises(RunError, match=r"train\.lr"):
        fit(small_config(phantom, train={"lr": 1e-4}), finished)


def test_a_folder_with_foreign_files_is_left_alone(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"thesis\.tex"):
        fit(small_config(phantom), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    stop_at: int, finished: Path, phantom: Path, tmp_path: Path
) -> None:
    epochs = 0

    def stop(what: str, done: int, total: int) -> None:
        nonlocal epochs
        epochs += "seed" in what
        if epochs == stop_at:
            raise StopHere

    with pytest.raises(StopHere):
        fit(small_config(phantom), tmp_path / "run", listener=Listener(step=stop))
    results = fit(small_config(phantom), tmp_path / "run")
    expected = json.loads((finished / "results.json").read_text())
    assert weights_hash(tmp_path / "run") == weights_hash(finished)
    for model in ("chosen", "baseline", "difference"):
        assert results["test"][model] == expected["test"][model]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "run" / "search.csv").drop(columns="seconds"),
        pd.read_csv(finished / "search.csv").drop(columns="seconds"),
    )


@pytest.mark.slow
def test_a_killed_process_loses_at_most_its_epoch(finished: Path, phantom: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(small_config(phantom).model_dump_json())
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[3]));"
        "from medgraft.config import RunConfig; from medgraft.run.fit import fit;"
        "fit(RunConfig.model_validate_json(open(sys.argv[1]).read()), sys.argv[2])"
    )
    import torch

    command = [sys.executable, "-c", code, str(config), str(tmp_path / "run"), str(torch.get_num_threads())]
    for num_stored in (1, 3):  # in the first training, and in a later one
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            # Killed as soon as so many trainings have stored something to go on from.
            while process.poll() is None and len(list((tmp_path / "run").glob("checkpoints/*/*"))) < num_stored:
                time.sleep(0.01)
            assert process.poll() is None, "it ended before it could be killed"
            process.send_signal(signal.SIGKILL)
    fit(small_config(phantom), tmp_path / "run")
    assert weights_hash(tmp_path / "run") == weights_hash(finished)


def test_of_two_networks_in_a_file_the_one_that_was_taken_is_told(phantom: Path, tmp_path: Path) -> None:
    state = load_file(packaged_weights())
    both = {f"teacher.{name}": value for name, value in state.items()}
    both |= {f"student.{name}": value * 2 for name, value in state.items()}
    save_file(both, tmp_path / "dino.safetensors")
    with pytest.raises(WeightsError, match="got 2 that fit alike"):
        fit(small_config(phantom, backbone={"weights": str(tmp_path / "dino.safetensors")}), tmp_path / "run")
    said: list[str] = []
    config = small_config(
        phantom,
        backbone={"weights": f"{tmp_path / 'dino.safetensors'}#teacher"},
        transfer={"strategy": "frozen", "cut": "2"},
        train={"epochs": 1},
    )
    results = fit(config, tmp_path / "run", listener=Listener(say=said.append))
    assert any("100% of its trunk pretrained from dino.safetensors#teacher." in words for words in said)
    assert results["backbone"]["load_report"]["key"] == "teacher"
    assert "network in the file" in (tmp_path / "run" / "report.html").read_text()


def test_a_second_run_on_the_same_test_cases_is_counted(phantom: Path, finished: Path, tmp_path: Path) -> None:
    results = fit(small_config(phantom, transfer={"cut": "2"}), tmp_path / "again")
    assert results["ledger"]["openings"] > 1
    assert results["chosen"]["cut"]["index"] == 2


def test_several_seeds_give_mean_and_sd(phantom: Path, tmp_path: Path) -> None:
    results = fit(small_config(phantom, transfer={"cut": "3"}, seeds=2, train={"epochs": 1}), tmp_path / "run")
    assert results["seeds"] == [0, 1]
    assert results["test"]["chosen"]["auroc"]["sd"] is not None


def test_frozen_and_full_fine_tuning_run_without_a_search(phantom: Path, tmp_path: Path) -> None:
    for strategy in ("frozen", "ftl"):
        config = small_config(phantom, transfer={"strategy": strategy}, train={"epochs": 1})
        results = fit(config, tmp_path / strategy)
        assert results["chosen"]["strategy"] == strategy
        assert results["chosen"]["cut"]["index"] == 9
    with pytest.raises(ConfigError, match="no depth"):
        fit(small_config(phantom, transfer={"strategy": "ftl", "cut": "2"}), tmp_path / "refused")


def test_an_unknown_cut_is_refused_before_anything_is_trained(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(CutError, match="Its cuts: 1 "):
        fit(small_config(phantom, transfer={"cut": "layer9.9"}), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("options", "num_val_groups", "effort"),
    [
        ({}, 199, (3, 10)),
        ({}, 200, (1, 30)),
        ({"search": {"seeds": 2}}, 500, (2, 15)),
        ({"search": {"seeds": 2, "epochs": 7}}, 500, (2, 7)),
        ({"train": {"epochs": 6}}, 50, (3, 5)),
        ({"train": {"epochs": 2}}, 50, (3, 2)),
        ({"transfer": {"cut": "3"}}, 50, (1, 30)),
        ({"transfer": {"strategy": "ftl"}}, 50, (1, 30)),
    ],
)
def test_a_small_validation_set_is_searched_with_three_seeds_at_the_same_cost(options, num_val_groups, effort) -> None:
    assert search_effort(make_config("images", options=options), num_val_groups) == effort


def search_effort(config: RunConfig, num_val_groups: int) -> tuple[int, int]:
    seeds, shares = search_seeds(config, num_val_groups)
    whole = config.train.epochs
    return seeds, whole if method_of(config) == "given" else shared_epochs(whole, config.search.epochs, shares)


def test_presets_say_how_they_search() -> None:
    efforts = {preset: search_effort(make_config("images", preset=preset), 50) for preset in PRESETS}
    assert efforts == {"fast": (1, 12), "balanced": (3, 10), "thorough": (3, 60), "paper": (1, 100)}


def test_a_shared_search_is_followed_by_training_with_all_epochs(phantom: Path, tmp_path: Path) -> None:
    results = fit(
        small_config(phantom, train={"epochs": 3}, search={"seeds": 2, "epochs": 1, "max_trials": 1}), tmp_path / "run"
    )
    table = pd.read_csv(tmp_path / "run" / "search.csv")
    final = table[table["role"].str.startswith("final")]
    searched = table.drop(final.index)
    assert set(searched["epochs"]) == {1}
    assert set(searched.groupby("cut").size()) == {2}
    assert final["epochs"].tolist() == [3] * len(final)
    assert results["chosen"]["cut"]["index"] in set(final["cut"])
    assert set(final["cut"]) <= {results["chosen"]["cut"]["index"], 9}
    assert results["search"]["num_trials"] == len(searched) + 1
    assert len(pd.read_csv(tmp_path / "run" / "history.csv").query("role == 'baseline'")) == 3


def test_a_cut_that_is_clearly_behind_gets_no_further_seeds(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = []

    def is_behind(one: object, best: object) -> bool:
        behind.append(one is not best)
        return len(behind) == 2

    monkeypatch.setattr(explore, "is_clearly_behind", is_behind)
    fit(small_config(phantom, train={"epochs": 1}, search={"seeds": 2}), tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "search.csv")
    seeds = table[~table["role"].str.startswith("final")].groupby("cut").size()
    assert sorted(seeds) == [1] + [2] * (len(behind) - 1)


def test_folds_test_every_group_once(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(
        phantom,
        transfer={"cut": "3"},
        data={"folds": 3},
        train={"epochs": 1, "precision": "float32"},
        deterministic=False,
        budget_minutes=6,
    )
    run = tmp_path / "run"
    said: list[str] = []
    # Killed between the results and the report of the second fold: its report is written when the run goes on.
    written: list[Path] = []

    def killed_at_the_second(folder: Path) -> Path:
        written.append(folder)
        if len(written) == 2:
            raise KeyboardInterrupt
        return write_report(folder)

    monkeypatch.setattr(fit_module, "write_report", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        fit(config, run, listener=Listener(say=said.append))
    assert (run / "fold_2" / "results.json").is_file()
    assert not (run / "fold_2" / "report.html").exists()
    results = fit(config, run, listener=Listener(say=said.append))
    # The time is for all folds together, and what was measured in the first one holds for all.
    budgets = [line for line in said if line.startswith("Budget ")]
    assert all(line.startswith("Budget 6 min for 3 folds") for line in budgets)
    assert len(budgets) == 4
    for name in ("engine.json", "budget.json"):
        assert len({(run / f"fold_{number}" / name).read_bytes() for number in (1, 2, 3)}) == 1
    assert written == [run / f"fold_{number}" for number in (1, 2, 2, 3)]
    assert all((folder / "report.html").is_file() for folder in written)
    assert not list(run.glob("fold_*/checkpoints/*/*.safetensors"))  # nor are weights left that nobody needs
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert sorted(predictions["path"]) == sorted(pd.read_csv(phantom)["path"])
    assert [fold["fold"] for fold in results["folds"]] == [1, 2, 3]
    assert sum(fold["num_cases"] for fold in results["folds"]) == len(predictions)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Fold by fold" in report
    for number, fold in enumerate(results["folds"], 1):
        alone = json.loads((run / f"fold_{number}" / "results.json").read_text())["test"]
        assert (fold["chosen"], fold["baseline"]) == (alone["chosen"]["auroc"], alone["baseline"]["auroc"])
        assert with_interval(from_json(Estimate, fold["baseline"])) in report


def test_sites_of_the_cohort_are_judged_one_by_one(phantom: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom.parent, data)
    cases = pd.read_csv(data / phantom.name)
    patients = cases["patient"].astype("category").cat.codes
    cases["site"] = ["north" if code % 2 else "south" for code in patients]
    cases.to_csv(data / phantom.name, index=False)
    results = fit(small_config(data / phantom.name, transfer={"cut": "2"}, train={"epochs": 1}), tmp_path / "run")
    sites = results["test"]["sites"]
    assert set(sites) == {"north", "south"}
    assert sum(site["num_cases"] for site in sites.values()) == results["test"]["num_cases"]
    report = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert "Site by site" in report
    assert all(
        (site.get("reason") or with_interval(from_json(Estimate, site["auroc"]))) in report for site in sites.values()
    )


def test_one_broken_image_loses_nothing_else(phantom: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom.parent, data)
    broken = sorted((data / "images").iterdir())[0]
    broken.write_bytes(b"not an image")
    results = fit(small_config(data / phantom.name, transfer={"cut": "2"}, train={"epochs": 1}), tmp_path / "run")
    audit = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert audit["counts"]["unreadable"] == 1
    assert broken.name in audit["broken"][0]["path"]
    assert sum(sum(part.values()) for part in results["splits"]["counts"].values()) == len(pd.read_csv(phantom)) - 1


def test_a_refused_call_leaves_nothing_behind(phantom: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match="nowhere"):
            fit(small_config(tmp_path / "nowhere"), tmp_path / "run")
        assert list(tmp_path.iterdir()) == []
    # A folder that was there before stays.
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError):
        fit(small_config(tmp_path / "nowhere"), tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_leaking_split_stops_the_run(phantom: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom.parent, data)
    cases = pd.read_csv(data / phantom.name)
    train, test = cases[cases["split"] == "train"], cases[cases["split"] == "test"]
    shutil.copyfile(data / train["path"].iloc[0], data / test["path"].iloc[0])
    with pytest.raises(LeakError, match="--leaks drop"):
        fit(small_config(data / phantom.name), tmp_path / "run")


def test_offline_reaches_for_no_network(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    fit(small_config(phantom, transfer={"cut": "2"}, train={"epochs": 1}), tmp_path / "run")


def test_several_processes_are_refused(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process, got 2"):
        fit(small_config(phantom), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_write_permission_is_refused(phantom: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        target = Path("/proc/medgraft-run")
    else:
        tmp_path.chmod(0o500)
        target = tmp_path / "run"
    with pytest.raises(RunError, match="could not write the run folder"):
        fit(small_config(phantom), target)


def test_what_validation_fixes_is_said_by_the_stored_model(phantom: Path, tmp_path: Path) -> None:
    # Trained in other arithmetic than it is used with.
    options = {"transfer": {"cut": "3"}, "train": {"epochs": 1, "precision": "bf16"}, "deterministic": False}
    fit(small_config(phantom, **options), tmp_path / "run")
    told = pd.read_csv(tmp_path / "run" / "predictions_val.csv")
    model = load_artefact(tmp_path / "run")
    said = predict_files(model, [phantom.parent / path for path in told["path"]])
    columns = [f"prob_{name}" for name in model.artefact.classes]
    np.testing.assert_allclose(told[columns], said[columns], atol=2e-6)


def test_a_budget_decides_epochs_before_training(phantom: Path, tmp_path: Path) -> None:
    config = small_config(phantom, deterministic=False, budget_minutes=0.5, train={"epochs": 4, "precision": "float32"})
    said: list[str] = []
    fit(config, tmp_path / "run", listener=Listener(say=said.append))
    decided = json.loads((tmp_path / "run" / "budget.json").read_text())
    assert 3 <= decided["epochs"] <= 4
    assert any(line.startswith("Budget 0.5 min") for line in said)
    with pytest.raises(ConfigError, match="--deterministic measures nothing"):
        fit(small_config(phantom, budget_minutes=1.0), tmp_path / "refused")
    with pytest.raises(ConfigError, match="budget of at least"):
        fit(small_config(phantom, deterministic=False, budget_minutes=1e-4), tmp_path / "tiny")


def test_the_stored_configuration_is_the_resolved_one(finished: Path, phantom: Path) -> None:
    assert (finished / "config.yaml").read_text() == to_yaml(small_config(phantom))
