"""Strategies are compared under one protocol, once on test, and an interrupted comparison goes on."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import medgraft.judge.comparison as judging
import medgraft.run.compare as room
import medgraft.search.executor as executor
import medgraft.setup.comparison as planning
from medgraft.analysis.remembered import domain_distance
from medgraft.backbones import BackboneSpec
from medgraft.backbones.packaged import packaged_weights
from medgraft.errors import BackboneError, ConfigError, RunError
from medgraft.listener import Listener
from medgraft.run.advise import advise
from medgraft.sources import open_backbone
from medgraft.train.batches import ImageSet
from medgraft.transfer import prepare_source
from medgraft.transfer.model import Normalise
from small_runs import compare, fit, small_config

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
        best = max(row["tried"], key=lambda trial: trial["val_score"])
        assert row["cut"] is None or row["cut"]["index"] == best["cut"]
        assert row["lr"] is None or row["lr"] == pytest.approx(best["lr"])


def test_differences_verdicts_and_costs_are_against_full_fine_tuning(finished):
    rows = finished[1]["rows"]
    for row in rows:
        if row["strategy"] == "ftl":
            assert row["difference"] == {}
            assert row["verdict"] is None
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
    assert frozen["test"]["auroc"]["sd"] == pytest.approx(0, abs=1e-9), "a solved head has no luck of the seed"
    assert all(row["seconds_in_ftl"] > 0 for row in rows)


def test_times_are_those_of_the_model_in_the_row(phantom, tmp_path, monkeypatch):
    timed = {}

    def latency(models, example, **_):
        timed.update({name: sum(p.numel() for p in model.parameters()) for name, model in models.items()})
        return {name: float(size) for name, size in timed.items()}

    monkeypatch.setattr(judging, "latency_ms", latency)
    monkeypatch.setattr(room, "fair_search", chosen_by_fraction(room.fair_search))
    results = compare(config_of(phantom, strategies=["ttl"], trials=3), tmp_path / "run")
    rows = [row for row in results["rows"] if row["strategy"] == "ttl"]
    assert len({row["num_params"] for row in rows}) == 2, "another depth at each fraction, or this proves nothing"
    assert all(row["cpu_ms"] == row["num_params"] for row in rows)


def chosen_by_fraction(search):
    """The search, made to choose another depth each time."""
    calls = []

    def searched(depths, lr, num, **options):
        found = yield from search(depths, lr, num, **options)
        if len(depths) == 1:
            return found
        calls.append(1)
        return dataclasses.replace(found, depth=depths[len(calls) % 2], lr=lr)

    return searched


def test_a_class_in_one_group_is_refused_before_anything_is_trained(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "_MIN_GROUPS", 1000)
    with pytest.raises(ConfigError, match=r"at least 1000 training groups of .* for frozen, got .*Use a larger"):
        compare(config_of(phantom, strategies=["frozen"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_without_a_tail_bring_a_second_baseline(phantom, tmp_path):
    state = {name: value for name, value in load_file(packaged_weights()).items() if not name.startswith("layer4")}
    save_file(state, tmp_path / "bottom.safetensors")
    config = small_config(
        phantom,
        backbone={"weights": str(tmp_path / "bottom.safetensors")},
        train={"epochs": 1},
        compare={"strategies": ["ttl"], "trials": 2},
        seeds=2,
    )
    rows = {row["strategy"]: row for row in compare(config, tmp_path / "run")["rows"]}
    assert set(rows) == {"ftl", "ttl", "ftl-pretrained"}
    assert rows["ftl-pretrained"]["cut"]["name"] == "layer3.1"
    assert len(rows["ftl-pretrained"]["tried"]) == 2
    gap = rows["ttl"]["test"]["auroc"]["mean"] - rows["ftl-pretrained"]["test"]["auroc"]["mean"]
    assert rows["ttl"]["second_difference"]["value"] == pytest.approx(gap)
    assert rows["ftl"]["second_difference"] is None
    # A baseline is no strategy: one question was asked, so nothing is adjusted.
    assert rows["ftl-pretrained"]["difference"]["auroc"]["p_holm"] is None
    assert rows["ttl"]["difference"]["auroc"]["p_holm"] == rows["ttl"]["difference"]["auroc"]["p"]
    assert "the fairer baseline" in (tmp_path / "run" / "comparison.html").read_text()


def test_plans_are_said_before_training_and_stored(phantom, tmp_path):
    said = []
    config = small_config(phantom, train={"epochs": 1}, compare={"strategies": ["lwft"], "trials": 1}, seeds=1)
    compare(config, tmp_path / "run", listener=Listener(say=said.append))
    plan = next(i for i, line in enumerate(said) if "plan of lwft" in line)
    trained = next(i for i, line in enumerate(said) if "/2 lwft" in line)
    assert plan < trained
    assert "frozen" in said[plan]
    assert "head new 3.0e-03" in said[plan]
    plans = [json.loads(path.read_text()) for path in (tmp_path / "run" / "checkpoints").glob("*/plan.json")]
    assert "lwft" in {plan["strategy"] for plan in plans}


def test_the_test_set_is_opened_once_and_a_finished_comparison_is_read_back(finished, phantom, monkeypatch):
    folder, results = finished
    assert results["ledger"]["openings"] == 1
    monkeypatch.setattr(room, "material_of", None)
    again = compare(config_of(phantom), folder)
    assert {"schema": 3, **again} == json.loads((folder / "comparison.json").read_text())
    assert again == results
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
    real, calls = executor.run_trial, []

    def dying(spec, context, *rest):
        # The probes of the advice are solved, not trained.
        calls.extend([] if spec.is_solved else [spec])
        if len(calls) == 4:
            raise Killed
        return real(spec, context, *rest)

    monkeypatch.setattr(executor, "run_trial", dying)
    with pytest.raises(Killed):
        compare(config, tmp_path / "run")
    trained = []
    monkeypatch.setattr("medgraft.search.trial.train_model", spy(trained))
    monkeypatch.setattr(executor, "run_trial", real)
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
    monkeypatch.setattr(planning, "STRATEGIES", {name: planning.STRATEGIES[name] for name in ("ftl", "lora")})
    results = compare(config_of(phantom, strategies=["all"], fractions=[1.0], trials=1), tmp_path / "run")
    assert [row["strategy"] for row in results["rows"]] == ["ftl"]
    assert "transformer" in results["left_out"]["lora"]


def test_advice_names_facts_probes_and_sources_and_opens_no_test_set(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("medgraft.evaluate.ledger.open_test", None)
    advice = advise(small_config(phantom))
    assert len(advice.facts) == 3
    assert all(0 < probe.val_auprc <= 1 for probe in advice.probes)
    assert advice.domain_distance is not None
    assert advice.domain_distance > 0
    assert advice.advice[0].strategy in ("ttl", "ftl")
    assert all(item.source for item in advice.advice)
    assert len({item.strategy for item in advice.advice}) == len(advice.advice)


def test_without_pretrained_weights_the_advice_is_scratch(phantom):
    advice = advise(small_config(phantom, backbone={"weights": "none"}))
    assert [item.strategy for item in advice.advice] == ["scratch"]
    assert advice.domain_distance is None


def test_images_like_the_source_are_near_and_others_far():
    """Statistics are set to those of some images: these are near, the same images inverted and coarse are far."""
    source = prepare_source(open_backbone(BackboneSpec(name="shapes_resnet18", weights="hub", size=32)), (32, 32))
    rng = np.random.default_rng(0)
    near = rng.integers(0, 120, (128, 1, 32, 32), dtype=np.uint8)
    far = 255 - np.kron(near[:, :, ::4, ::4], np.ones((4, 4), dtype=np.uint8))
    network, backbone = source.backbone.network, source.backbone
    normalise = Normalise(backbone.in_channels, backbone.normalisation, backbone.mean, backbone.std)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        network.train()(normalise(torch.from_numpy(near).float() / 255))
    distances = []
    for images in (near, far):
        data = ImageSet(
            images=images, rows=np.arange(128), targets=np.zeros(128, dtype=np.int64), intensity_max=255,
            task="binary", positive=1, num_classes=2,
        )  # fmt: skip
        distances.append(domain_distance(source, data))
    assert distances[0] < 0.1
    assert distances[1] > 10 * distances[0]


def test_the_distance_does_not_hang_on_how_many_images_are_in_the_last_batch():
    source = prepare_source(open_backbone(BackboneSpec(name="shapes_resnet18", weights="hub", size=32)), (32, 32))
    images = np.random.default_rng(0).integers(0, 255, (33, 1, 32, 32), dtype=np.uint8)
    images[:3] = 0
    distances = []
    for times in (1, 2):
        rows = np.tile(np.arange(33), times)
        data = ImageSet(
            images=images, rows=rows, targets=np.zeros(len(rows), dtype=np.int64), intensity_max=255,
            task="binary", positive=1, num_classes=2,
        )  # fmt: skip
        distances.append(domain_distance(source, data))
    assert distances[0] == pytest.approx(distances[1], rel=1e-4)
