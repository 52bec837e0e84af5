"""Every search from the folder to the report: what it trains, what it may spend, and what stands beside its choice."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import medgraft.search.executor as room
from medgraft.config import make_config
from medgraft.deploy.artefact import load_artefact
from medgraft.deploy.predict import predict_files
from medgraft.errors import ConfigError, DataError
from medgraft.listener import Listener
from medgraft.search import Choice, budget, choose, explore
from medgraft.search.budget import Budget
from medgraft.search.plan import SearchPlan
from medgraft.search.settle import settled
from medgraft.setup.plan import material_of, method_of, plan_run
from medgraft.train.engine import Engine
from small_runs import fit, own_network, small_config

LOOKS_AT_FIGURES = True
NUM_CUTS = 9


@pytest.fixture(autouse=True)
def _home_of_searches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of their own: other tests count the openings of the same phantom."""
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-searches"))


@pytest.fixture(scope="module")
def guided(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished guided run."""
    run = tmp_path_factory.mktemp("guided") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-searches"))
        fit(_config(phantom, "guided", train={"epochs": 4}, search={"method": "guided", "extra": 1.5}), run)
    return run


@pytest.fixture(scope="module")
def halved(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished guided run from the fine-tuned trunk, with two seeds."""
    run = tmp_path_factory.mktemp("halved") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-searches"))
        patch.setattr(explore, "choose", _never_whole)
        fit(_halving(phantom), run)
    return run


def _never_whole(tried: Any, cuts: Any, *rest: Any, **options: Any) -> Choice:
    """The rule, kept from the whole network: what follows a warm start must be seen on every machine."""
    if len(tried) > 1:
        tried = {index: predictions for index, predictions in tried.items() if index < NUM_CUTS}
    return choose(tried, cuts, *rest, **options)


def _halving(phantom: Path) -> Any:
    search = {"method": "guided", "start": "ftl"}
    return _config(phantom, "guided", train={"epochs": 4}, seeds=2, search=search)


def _config(phantom: Path, method: str, **options: Any) -> Any:
    """With a network that is quickly probed."""
    usual = {
        "search": {"method": method},
        "transfer": {"rule": "best"},
        "backbone": own_network(phantom.parent / "net"),
    }
    return small_config(phantom, **{**usual, **options})


def _results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def test_guided_trains_what_the_probes_name_within_its_budget(guided: Path) -> None:
    results, trials, signals = (
        _results(guided), pd.read_csv(guided / "search.csv"), pd.read_csv(guided / "signals.csv")
    )  # fmt: skip
    assert list(signals["cut"]) == list(range(1, NUM_CUTS + 1))
    assert signals["probe"].between(0, 1).all()
    cost = results["search"]
    assert (cost["method"], results["chosen"]["init"], results["continued"]) == ("guided", "pretrained", None)
    own, baseline = trials[trials["role"] == "guided"], trials[trials["role"] == "baseline"]
    below = signals[signals["cut"] < NUM_CUTS]
    assert own["cut"].iloc[0] == below.loc[below["probe"].idxmax(), "cut"]
    assert set(own["epochs"]) == {4}
    assert own["train_macs"].sum() / baseline["train_macs"].iloc[0] < cost["beyond_ftl"] <= 1.5 + 1e-9
    assert cost["cost_in_ftl"] == pytest.approx(cost["beyond_ftl"] + 1)
    scores = trials.set_index("cut")["val_auprc"]
    assert results["chosen"]["cut"]["index"] == scores.idxmax()
    page = (guided / "report.html").read_text()
    for text in ("naming what was truncated and trained", "beyond the full fine-tuning itself", "probe on fine-tuned"):
        assert text in page


def test_halving_stays_within_one_full_fine_tuning(halved: Path) -> None:
    results, trials = _results(halved), pd.read_csv(halved / "search.csv")
    cost = results["search"]
    assert (cost["method"], cost["start"]) == ("guided", "ftl")
    own = trials[(trials["seed"] == 0) & trials["role"].str.startswith("rung")]
    baseline = trials[(trials["seed"] == 0) & (trials["role"] == "baseline")]["train_macs"].iloc[0]
    assert len(own) >= 2
    assert own["train_macs"].sum() / baseline < cost["beyond_ftl"] <= 1 + 1e-9
    assert cost["cost_in_ftl"] == pytest.approx(cost["beyond_ftl"] + 1)


def test_halving_trains_few_cuts_and_leaves_no_features_behind(halved: Path) -> None:
    assert not (halved / "checkpoints" / "features").exists()
    trials = pd.read_csv(halved / "search.csv")
    tried = set(trials[trials["role"].str.startswith("rung")]["cut"])
    assert tried < set(range(1, NUM_CUTS))
    assert _results(halved)["chosen"]["cut"]["index"] in tried | {NUM_CUTS}


def test_the_halved_model_goes_on_from_full_fine_tuning_with_every_seed(halved: Path) -> None:
    results, trials = _results(halved), pd.read_csv(halved / "search.csv")
    assert results["chosen"]["init"] == "ftl"
    cut = results["chosen"]["cut"]["index"]
    rungs = trials[(trials["seed"] == 0) & (trials["cut"] == cut) & trials["role"].str.startswith("rung")]
    again = trials[(trials["seed"] == 1) & (trials["cut"] == cut) & (trials["role"] == "chosen")]
    assert list(rungs["epochs"]) == list(again["epochs"])
    continued = trials[trials["role"] == "continued"]
    assert set(continued["seed"]) == {0, 1}
    assert set(continued["cut"]) == {NUM_CUTS}
    assert set(continued["epochs"]) == {max(1, round(4 * results["search"]["beyond_ftl"]))}
    assert set(results["continued"]["difference"]["auroc"]) == {"value", "ci95", "p", "spread"}
    page = (halved / "report.html").read_text()
    assert "Full fine-tuning, trained on" in page
    assert "beyond the full fine-tuning itself" in page
    assert "a linear probe on the fully fine-tuned features" in page
    assert "probe on fine-tuned features" in page
    assert "trained on" in (halved / "MODEL_CARD.md").read_text()


def test_the_stored_halved_model_gives_the_test_predictions(halved: Path, phantom: Path) -> None:
    loaded = load_artefact(halved)
    table = pd.read_csv(halved / "predictions.csv")
    assert loaded.artefact.cut.index == _results(halved)["chosen"]["cut"]["index"]
    again = predict_files(loaded, [phantom.parent / path for path in table["path"]])
    columns = [name for name in table if name.startswith("prob_")]
    np.testing.assert_allclose(again[columns], table[columns], atol=1e-5)


def test_an_interrupted_halving_goes_on_to_the_bit(
    halved: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = room.run_trial, []

    def dying(spec: Any, *rest: Any) -> Any:
        calls.append(spec)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(spec, *rest)

    config = _halving(phantom)
    monkeypatch.setattr(explore, "choose", _never_whole)
    with monkeypatch.context() as patched:
        patched.setattr(room, "run_trial", dying)
        with pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path / "run")
    fit(config, tmp_path / "run")
    one, two = (load_artefact(place).network.state_dict() for place in (halved, tmp_path / "run"))
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    assert _results(halved)["test"]["chosen"]["auprc"] == _results(tmp_path / "run")["test"]["chosen"]["auprc"]


def test_a_sample_keeps_two_groups_with_and_without_a_rare_label(phantom: Path, tmp_path: Path) -> None:
    study = material_of(_config(phantom, "guided"), Listener()).dataset.study
    targets = np.zeros((len(study.train), 3), np.float32)
    targets[:, 0] = 1
    targets[[5, 17], 0] = 0
    targets[:40, 1] = 1
    groups = np.where(np.arange(len(targets)) < 39, 0, 1 + np.arange(len(targets)))
    train = dataclasses.replace(study.train, targets=targets, task="multilabel")
    small = dataclasses.replace(study, train=train, train_groups=groups).sample(12, 0)
    kept, ids = small.train.targets, small.train_groups
    assert (kept[:, 0] == 0).sum() == 2
    assert len(np.unique(ids[kept[:, 1] == 1])) == 2
    assert len(kept) < 40


def test_svcca_trains_twice_and_keeps_the_cut_where_chance_begins(phantom: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = fit(_config(phantom, "svcca"), run)
    signals, trials = (pd.read_csv(run / f"{name}.csv") for name in ("signals", "search"))
    over = signals[signals["overlap"] >= 0.5]["cut"]
    wanted = int(over.min()) if len(over) else NUM_CUTS
    assert results["chosen"]["cut"]["index"] == wanted
    assert results["chosen"]["rule"] == "overlap"
    assert len(trials) == (1 if wanted == NUM_CUTS else 2)
    assert results["search"]["cost_in_ftl"] <= 2 + 1e-9 + 2 / 3
    assert results["continued"] is None
    assert "from training images alone, where canonical" in (run / "report.html").read_text()


def test_exhaustive_trains_every_cut(phantom: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = fit(_config(phantom, "exhaustive", train={"epochs": 1}), run)
    trials = pd.read_csv(run / "search.csv")
    assert sorted(set(trials["cut"])) == list(range(1, NUM_CUTS + 1))
    assert results["chosen"]["cut"]["index"] == trials.loc[trials["val_auprc"].idxmax(), "cut"]
    assert "every cut being trained" in (run / "report.html").read_text()


@pytest.mark.parametrize(("method", "strategy"), [("guided", "lwft"), ("svcca", "tf"), ("incremental", "ttl")])
def test_a_search_for_another_strategy_is_refused(phantom: Path, tmp_path: Path, method: str, strategy: str) -> None:
    with pytest.raises(ConfigError, match=f"--search {method} is a search for"):
        fit(_config(phantom, method, transfer={"strategy": strategy}), tmp_path / "run")
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize("start", ["source", "ftl"])
def test_too_small_a_budget_is_told_before_anything_is_trained(
    phantom: Path, tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "run_trial", None)
    config = _config(phantom, "guided", search={"method": "guided", "start": start, "extra": 0.01})
    with pytest.raises(ConfigError, match=r"search\.extra"):
        fit(config, tmp_path / "run")


def test_a_class_that_cannot_be_probed_is_told_before_anything_is_trained(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "run_trial", None)
    table = pd.read_csv(phantom)
    rare = table.index[(table["label"] == "mass") & (table["split"] == "train")]
    patients = table.loc[rare, "patient"].unique()[1:]
    table = table[~((table["label"] == "mass") & (table["split"] == "train") & table["patient"].isin(patients))]
    table = table.drop(columns="mask").assign(path=[str(phantom.parent / path) for path in table["path"]])
    table.to_csv(tmp_path / "rare.csv", index=False)
    with pytest.raises(DataError, match="with and without mass"):
        fit(_config(tmp_path / "rare.csv", "guided"), tmp_path / "run")
    monkeypatch.undo()
    lines: list[str] = []
    results = fit(
        _config(tmp_path / "rare.csv", "auto", train={"epochs": 1}),
        tmp_path / "left",
        listener=Listener(say=lines.append),
    )
    assert results["search"]["method"] == "two-stage"
    assert any("is two-stage, because" in line and "mass" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({}, "guided"),
        ({"search": {"seeds": 1}}, "guided"),
        ({"search": {"seeds": 3}}, "two-stage"),
        ({"search": {"epochs": 4}}, "two-stage"),
        ({"search": {"max_trials": 2}}, "two-stage"),
        ({"search": {"method": "guided", "seeds": 3}}, "guided"),
        ({"transfer": {"strategy": "lwft"}}, "two-stage"),
    ],
)
def test_the_default_search_is_guided_unless_its_settings_are_anothers(options: dict[str, Any], method: str) -> None:
    assert method_of(make_config("images", options=options)) == method


def _planned(config: Any, listener: Listener | None = None) -> SearchPlan:
    listener = listener or Listener()
    return plan_run(config, material_of(config, listener), listener).search


def test_a_flattened_head_is_searched_in_two_stages(phantom: Path) -> None:
    lines: list[str] = []
    config = _config(phantom, "auto", transfer={"head": "flattened"})
    assert _planned(config, Listener(say=lines.append)).method == "two-stage"
    assert "pooled" in lines[-1]
    with pytest.raises(ConfigError, match="pooled"):
        _planned(_config(phantom, "guided", transfer={"head": "flattened"}))


def test_a_warm_start_needs_a_head_that_a_probe_can_be(phantom: Path) -> None:
    # Its head comes with the way a network reads volumes; a head that is asked for is refused before anything is read.
    config = _config(phantom, "guided", search={"start": "ftl"})
    listener = Listener()
    material = material_of(config, listener)
    plan = plan_run(config, material, listener).search
    recipe = dataclasses.replace(plan.recipe, head=dataclasses.replace(plan.recipe.head, kind="attention"))
    unsuited = dataclasses.replace(plan, recipe=recipe)
    with pytest.raises(ConfigError, match=r"Leave search\.start=source"):
        settled(unsuited, material.source, material.dataset.study, listener, is_guided_asked=True, fewest_epochs=3)


def test_whoever_gives_guided_a_budget_asks_for_it(phantom: Path) -> None:
    packaged = {"size": 32}
    with pytest.raises(ConfigError, match=r"search\.extra"):
        _planned(_config(phantom, "auto", search={"extra": 0.1}, backbone=packaged))
    # A time budget may leave three epochs, in which the pass for signals weighs ten times as much.
    tight = {"search": {"extra": 0.5}, "train": {"epochs": 30}, "deterministic": False, "backbone": packaged}
    assert _planned(_config(phantom, "auto", **tight)).method == "guided"
    with pytest.raises(ConfigError, match=r"search\.extra"):
        _planned(_config(phantom, "auto", **tight, budget_minutes=1))


def test_a_given_cut_is_no_search(phantom: Path, tmp_path: Path) -> None:
    results = fit(_config(phantom, "auto", transfer={"cut": "3"}, train={"epochs": 1}), tmp_path / "run")
    assert results["search"]["method"] == "given"
    assert "as fixed beforehand" in (tmp_path / "run" / "report.html").read_text()


def test_guided_searches_every_fold(phantom: Path, tmp_path: Path) -> None:
    config = _config(phantom, "auto", data={"folds": 3}, train={"epochs": 3}, backbone=own_network(tmp_path / "net", 5))
    results = fit(config, tmp_path / "run")
    folds = [json.loads((tmp_path / "run" / f"fold_{k}" / "results.json").read_text()) for k in (1, 2, 3)]
    assert [one["search"]["method"] for one in folds] == ["guided"] * 3
    assert all(one["search"]["beyond_ftl"] <= 1 for one in folds)
    assert results["search"]["method"] == "guided"
    assert results["search"]["num_trials"] == sum(one["search"]["num_trials"] for one in folds)
    tables = [pd.read_csv(tmp_path / "run" / f"fold_{k}" / "signals.csv") for k in (1, 2, 3)]
    merged = pd.read_csv(tmp_path / "run" / "signals.csv")
    np.testing.assert_allclose(merged["probe"], np.mean([table["probe"] for table in tables], axis=0))
    # Folds choose different cuts: the cut of the page, its size and the saved file have to be one and the same.
    run = tmp_path / "run"
    saved = json.loads((run / "model" / "model.json").read_text())
    assert results["chosen"] == folds[0]["chosen"]
    assert results["efficiency"] == folds[0]["efficiency"]
    assert saved["cut"]["name"] == results["chosen"]["cut"]["name"] == results["folds"][0]["cut"]["name"]
    network = load_artefact(run).network
    assert sum(p.numel() for p in network.parameters()) == results["efficiency"]["chosen"]["num_params"]
    assert (run / "model" / "model.json").read_bytes() == (run / "fold_1" / "model" / "model.json").read_bytes()
    assert "those of fold 1" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"search": {"method": "two-stage", "start": "ftl"}}, "belongs to --search guided"),
        ({"search": {"method": "guided", "start": "ftl"}, "data": {"folds": 3}}, "one division"),
        ({"search": {"method": "guided", "start": "ftl"}, "transfer": {"head": "flattened"}}, "pooled head"),
    ],
)
def test_a_warm_start_where_it_cannot_be_judged_is_refused(
    phantom: Path, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        fit(_config(phantom, "guided", **options), tmp_path / "run")


def _paid(config: Any, num_at_once: int = 1) -> tuple[budget.Decision, float]:
    """What 0.4 min pay for where an epoch takes 0.1 s, and the cost of a training at every cut in full fine-tunings."""
    material = material_of(config, Listener())
    plan, cuts = plan_run(config, material, Listener()).search, material.source.cuts
    return budget._decide(plan, Budget(minutes=0.4, num_at_once=num_at_once), 0.1, material.source), sum(
        cut.macs for cut in cuts
    ) / cuts[-1].macs


def test_an_exhaustive_search_is_priced_whole(phantom: Path) -> None:
    decided, share = _paid(_config(phantom, "exhaustive", train={"epochs": 400}))
    assert decided.max_trials == NUM_CUTS - 1
    assert decided.epochs == pytest.approx(0.4 * 60 * 0.85 / 0.1 / share, rel=0.3)
    assert decided.epochs * share * 0.1 <= 0.4 * 60
    # Two at once take half as long, but for the last one that runs alone; searches that look first gain nothing.
    twice, _ = _paid(_config(phantom, "exhaustive", train={"epochs": 400}), num_at_once=2)
    assert decided.epochs * 1.2 < twice.epochs <= decided.epochs * 2
    one, two = (_paid(_config(phantom, "guided", train={"epochs": 400}), num)[0] for num in (1, 2))
    assert one == two


def test_a_time_budget_pays_for_what_the_search_may_spend(phantom: Path) -> None:
    little, much = (
        _paid(_config(phantom, "guided", search={"method": "guided", "extra": extra}, train={"epochs": 400}))[0].epochs
        for extra in (1.0, 4.0)
    )
    assert much == pytest.approx(little * 2 / 5, abs=1)


def test_a_fold_with_another_search_spends_its_part_in_its_own_way(phantom: Path, tmp_path: Path) -> None:
    config = _config(phantom, "auto", train={"epochs": 60}, backbone=own_network(tmp_path / "net", 5))
    material = material_of(config, Listener())
    guided = plan_run(config, material, Listener()).search
    staged = dataclasses.replace(guided, method="two-stage")
    source, dataset, said = material.source, material.dataset, list[str]()
    kept = tmp_path / "budget.json"

    def planned(plan: SearchPlan, folds: int = 1) -> SearchPlan:
        listener = Listener(say=said.append)
        return budget.within_minutes(
            plan, Budget(minutes=0.5, num_folds=folds), Engine(device="cpu"), source, dataset, kept, listener
        )

    kept.write_text(json.dumps({"epochs": 60, "max_trials": 8, "epoch_seconds": 0.2, "method": "guided"}))
    assert planned(guided).recipe.train.epochs == 60
    other = planned(staged)
    assert (other.recipe.train.epochs, other.max_trials) != (60, 8)
    assert json.loads(kept.read_text())["method"] == "two-stage"
    # The time is for all folds together, also where it is too short.
    kept.unlink()
    with pytest.raises(ConfigError, match=r"a budget of at least \d+ min .* got 0\.5"):
        planned(dataclasses.replace(guided, method="exhaustive"), folds=10_000)
