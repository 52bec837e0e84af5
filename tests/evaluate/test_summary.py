import dataclasses
import json

import numpy as np
import pytest

from medgraft.errors import ConfigError, DataError
from medgraft.evaluate import (
    bootstrap_interval,
    bootstrap_weights,
    compare,
    delong_interval,
    metric_interval,
    paired_difference,
    site_metrics,
    summarise,
)
from medgraft.metrics import METRICS, brier, ece

TASKS = ("binary", "multiclass", "multilabel")


@pytest.mark.parametrize("task", TASKS)
def test_the_summary_has_the_keys_of_the_contract_and_is_json(make_predictions, task) -> None:
    pred = make_predictions(task)
    result = summarise(pred, val=make_predictions(task, seed=1), weights=bootstrap_weights(pred, num=100))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for metric in ("auroc", "auprc"):
        assert set(result[metric]) == {"value", "ci95", "mean", "sd"}
        assert result[metric]["sd"] is None
    for metric in ("accuracy", "majority", "balanced_accuracy", "brier", "ece"):
        assert result[metric] == METRICS[metric](pred) == result["details"][metric]["value"]
    shares = result["operating_point"]["classes"]["class 1"]
    assert set(shares) == {"threshold", "sensitivity", "specificity", "ppv", "npv"}


def test_value_and_interval_are_the_first_seeds(make_predictions) -> None:
    first = make_predictions("multiclass")
    others = [dataclasses.replace(make_predictions("multiclass", seed=k), targets=first.targets) for k in (1, 2)]
    seeds = [first, *others]
    weights = bootstrap_weights(first, num=100)
    result = summarise(seeds, val=first, weights=weights)
    values = [METRICS["auprc"](pred) for pred in seeds]
    assert result["auprc"]["value"] == values[0]
    assert result["auprc"]["ci95"] == list(bootstrap_interval(first, "auprc", weights))
    assert result["auprc"]["mean"] == pytest.approx(np.mean(values))
    assert result["auprc"]["sd"] == pytest.approx(np.std(values, ddof=1))


def test_thresholds_and_temperature_come_from_validation(make_predictions) -> None:
    test, val = make_predictions("binary"), make_predictions("binary", seed=3)
    weights = bootstrap_weights(test, num=50)
    one = summarise(test, val=val, operating_point="sensitivity=0.9", weights=weights)
    flipped = dataclasses.replace(test, targets=1 - test.targets)
    other = summarise(flipped, val=val, operating_point="sensitivity=0.9", weights=weights)
    for result in (one, other):
        assert result["operating_point"]["rule"] == "sensitivity=0.9"
    thresholds = [r["operating_point"]["classes"]["class 1"]["threshold"] for r in (one, other)]
    assert thresholds[0] == thresholds[1]
    assert one["temperature_scaled"]["temperature"] == other["temperature_scaled"]["temperature"]
    assert (one["brier"], one["ece"]) == (brier(test), ece(test))


def test_delong_is_used_only_for_binary_with_single_images(make_predictions) -> None:
    single = make_predictions("binary")
    weights = bootstrap_weights(single, num=100)
    assert metric_interval(single, "auroc", weights) == delong_interval(single.probs[:, 1], single.targets)
    assert metric_interval(single, "auprc", weights) == bootstrap_interval(single, "auprc", weights)
    grouped = make_predictions("binary", per_group=4)
    weights = bootstrap_weights(grouped, num=100)
    assert metric_interval(grouped, "auroc", weights) == bootstrap_interval(grouped, "auroc", weights)
    lone = dataclasses.replace(single, targets=(np.arange(60) == 0).astype(int))
    weights = bootstrap_weights(lone, num=100)
    assert metric_interval(lone, "auroc", weights) == bootstrap_interval(lone, "auroc", weights)


def test_the_comparison_holds_both_differences_and_the_verdict(make_predictions) -> None:
    good = make_predictions("multiclass", num_cases=150, signal=3.0)
    bad = dataclasses.replace(make_predictions("multiclass", num_cases=150, signal=0.3), targets=good.targets)
    weights = bootstrap_weights(good, num=200)
    result = compare(good, bad, margin=0.02, weights=weights)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    gap = paired_difference(good, bad, "auroc", weights)
    assert result["difference"]["auroc"] == {"value": gap.value, "ci95": list(gap.ci95), "p": gap.p}
    assert set(result["difference"]) == {"auroc", "auprc"}
    assert result["verdict"] == "better"
    assert result["sentence"].startswith("The compact model is proven better than full fine-tuning")
    assert compare(bad, good, weights=weights)["verdict"] == "worse"


def test_replicates_are_drawn_when_none_are_given(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=30)
    drawn = bootstrap_weights(pred)
    assert summarise(pred, val=pred) == summarise(pred, val=pred, weights=drawn)
    assert compare(pred, pred) == compare(pred, pred, weights=drawn)


def test_each_site_gets_the_metrics_of_its_cases(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=100)
    sites = np.array(["north", "south"])[np.arange(100) // 50].tolist()
    sites[-6:] = [None] * 6
    expected = [int((pred.targets[-6:] == k).sum()) for k in (1, 0)]
    result = site_metrics(pred, sites, num=100)
    north = dataclasses.replace(pred, probs=pred.probs[:50], targets=pred.targets[:50], groups=pred.groups[:50])
    assert set(result) == {"(not stated)", "north", "south"}
    for metric, score in METRICS.items():
        assert result["north"][metric]["value"] == score(north)
        low, high = result["north"][metric]["ci95"]
        assert low <= high
    assert result["north"]["num_cases"] == result["north"]["num_groups"] == 50
    assert result["(not stated)"] == {
        "num_cases": 6,
        "num_groups": 6,
        "reason": f"fewer than 10 groups with and without 'class 1': {expected[0]} and {expected[1]}",
    }
    json.dumps(result, allow_nan=False)


def test_a_site_counts_patients_not_images(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=60, per_group=6)
    assert "reason" in site_metrics(pred, ["a"] * 60, minimum=11)["a"]
    assert "auroc" in site_metrics(pred, ["a"] * 60, minimum=10, num=20)["a"]


def test_bad_summaries_are_refused(make_predictions) -> None:
    binary, multi = make_predictions("binary"), make_predictions("multiclass")
    with pytest.raises(DataError, match="validation and test must have the same classes"):
        summarise(binary, val=multi)
    with pytest.raises(ConfigError, match="operating point must be"):
        summarise(binary, val=binary, operating_point="f1")
    with pytest.raises(ConfigError, match="margin must be above 0"):
        compare(binary, binary, margin=0)
    with pytest.raises(ConfigError, match="minimum must be at least 2, got 1"):
        site_metrics(binary, ["a"] * 60, minimum=1)
    with pytest.raises(DataError, match="one site for each of 60 cases, got 59"):
        site_metrics(binary, ["a"] * 59)
