import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medgraft.errors import ConfigError, DataError
from medgraft.evaluate import (
    bootstrap_interval,
    bootstrap_weights,
    compare,
    delong_interval,
    site_results,
    summarise,
    with_points,
)
from medgraft.evaluate.over_seeds import difference_over_seeds
from medgraft.evaluate.results import (
    SiteResult,
    comparison_from_json,
    comparison_to_json,
    model_from_json,
    model_to_json,
)
from medgraft.evaluate.summary import label_interval
from medgraft.metrics import METRICS, brier, ece

TASKS = ("binary", "multiclass", "multilabel")


def result_of(test, val, operating_point="youden", weights=None):
    """One model's result with what validation fixes, as a run makes it."""
    seeds = test if isinstance(test, list) else [test]
    return with_points(summarise(test, weights), seeds[0], val, operating_point)


@pytest.mark.parametrize("task", TASKS)
def test_the_summary_has_the_keys_of_the_contract_and_is_json(make_predictions, task) -> None:
    pred = make_predictions(task)
    found = result_of(pred, make_predictions(task, seed=1), weights=bootstrap_weights(pred, num=100))
    result = model_to_json(found)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert model_from_json(result) == found
    for metric in ("auroc", "auprc"):
        assert set(result[metric]) == {"value", "ci95", "mean", "sd"}
        assert result[metric]["sd"] is None
    for metric in ("accuracy", "majority", "balanced_accuracy", "brier", "ece"):
        assert result[metric] == METRICS[metric](pred) == result["details"][metric]["value"]
    shares = result["operating_point"]["classes"]["class 1"]
    assert set(shares) == {"threshold", "sensitivity", "specificity", "ppv", "npv"}


@pytest.mark.parametrize("task", TASKS)
def test_every_class_is_told_apart_with_intervals(make_predictions, task) -> None:
    pred = make_predictions(task, num_cases=120)
    weights = bootstrap_weights(pred, num=100)
    found = summarise(pred, weights).per_class
    if task == "binary":
        assert found == {}
        return
    assert list(found) == list(pred.classes)
    for column, name in enumerate(pred.classes):
        truth = pred.targets[:, column] if task == "multilabel" else pred.targets == column
        scores = found[name].scores
        assert found[name].num_cases == int(truth.sum())
        assert scores["auroc"].value == pytest.approx(roc_auc_score(truth, pred.probs[:, column]))
        assert scores["auprc"].value == pytest.approx(average_precision_score(truth, pred.probs[:, column]))
        for score in scores.values():
            assert score.ci95[0] < score.value < score.ci95[1]
    whole = summarise(pred, weights).scores
    for metric in ("auroc", "auprc"):
        assert whole[metric].value == pytest.approx(np.mean([part.scores[metric].value for part in found.values()]))


def test_value_and_interval_are_the_first_seeds(make_predictions) -> None:
    first = make_predictions("multiclass")
    others = [dataclasses.replace(make_predictions("multiclass", seed=k), targets=first.targets) for k in (1, 2)]
    seeds = [first, *others]
    weights = bootstrap_weights(first, num=100)
    result = summarise(seeds, weights).scores["auprc"]
    values = [METRICS["auprc"](pred) for pred in seeds]
    assert result.value == values[0]
    assert result.ci95 == label_interval(first, "auprc", weights)
    assert result.mean == pytest.approx(np.mean(values))
    assert result.sd == pytest.approx(np.std(values, ddof=1))


def test_thresholds_and_temperature_come_from_validation(make_predictions) -> None:
    test, val = make_predictions("binary"), make_predictions("binary", seed=3)
    weights = bootstrap_weights(test, num=50)
    one = result_of(test, val, "sensitivity=0.9", weights)
    flipped = dataclasses.replace(test, targets=1 - test.targets)
    other = result_of(flipped, val, "sensitivity=0.9", weights)
    for result in (one, other):
        assert result.rule == "sensitivity=0.9"
    assert one.points["class 1"].threshold == other.points["class 1"].threshold
    assert one.scaled.temperature == other.scaled.temperature
    assert (one.scores["brier"].value, one.scores["ece"].value) == (brier(test), ece(test))


def test_intervals_are_those_of_influence_for_auroc_and_logit_for_auprc(make_predictions) -> None:
    single = make_predictions("binary", num_cases=400)
    weights = bootstrap_weights(single, num=400)
    # Student's t of hundreds of cases is nearly normal: the same variance as DeLong's.
    assert label_interval(single, "auroc", weights) == pytest.approx(
        delong_interval(single.probs[:, 1], single.targets), abs=2e-3
    )
    low, high = label_interval(single, "auprc", weights)
    assert (low, high) == pytest.approx(bootstrap_interval(single, "auprc", weights), abs=0.02)
    grouped = make_predictions("binary", per_group=4)
    wide = label_interval(grouped, "auroc", bootstrap_weights(grouped, num=100))
    assert 0 < wide[0] < wide[1] < 1
    lone = dataclasses.replace(single, targets=(np.arange(400) == 0).astype(int))
    # One case of a class says nothing of another one.
    assert label_interval(lone, "auroc", bootstrap_weights(lone, num=100)) == (0.0, 1.0)


def test_the_comparison_holds_both_differences_and_the_verdict(make_predictions) -> None:
    good = make_predictions("multiclass", num_cases=150, signal=3.0)
    bad = dataclasses.replace(make_predictions("multiclass", num_cases=150, signal=0.3), targets=good.targets)
    weights = bootstrap_weights(good, num=200)
    result = compare(good, bad, margin=0.02, weights=weights)
    told = comparison_to_json(result)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert comparison_from_json(told) == result
    gap = difference_over_seeds([good], [bad], "auroc", weights)
    assert told["difference"]["auroc"] == {
        "value": gap.value,
        "ci95": list(gap.ci95),
        "p": gap.p,
        "spread": dataclasses.asdict(gap.spread),
    }
    assert set(result.difference) == {"auroc", "auprc"}
    assert result.verdict == "better"
    assert told["sentence"].startswith("The compact model as trained here is better than full fine-tuning")
    told = comparison_to_json(compare([good] * 3, [bad] * 3, weights=weights))
    assert told["sentence"].startswith("The compact model is proven better than full fine-tuning: AUROC difference")
    assert compare(bad, good, weights=weights).verdict == "worse"


def test_replicates_are_drawn_when_none_are_given(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=30)
    drawn = bootstrap_weights(pred)
    assert summarise(pred) == summarise(pred, drawn)
    assert compare(pred, pred) == compare(pred, pred, weights=drawn)


def test_each_site_gets_the_metrics_of_its_cases(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=100)
    sites = np.array(["north", "south"])[np.arange(100) // 50].tolist()
    sites[-6:] = [None] * 6
    expected = [int((pred.targets[-6:] == k).sum()) for k in (1, 0)]
    result = site_results(pred, sites, num=100)
    north = dataclasses.replace(pred, probs=pred.probs[:50], targets=pred.targets[:50], groups=pred.groups[:50])
    assert set(result) == {"(not stated)", "north", "south"}
    for metric, score in METRICS.items():
        assert result["north"].scores[metric].value == score(north)
        low, high = result["north"].scores[metric].ci95
        assert low <= high
    assert result["north"].num_cases == result["north"].num_groups == 50
    reason = f"fewer than 10 groups with and without 'class 1': {expected[0]} and {expected[1]}"
    assert result["(not stated)"] == SiteResult(num_cases=6, num_groups=6, reason=reason)


def test_a_site_counts_patients_not_images(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=60, per_group=6)
    assert site_results(pred, ["a"] * 60, minimum=11)["a"].reason
    assert "auroc" in site_results(pred, ["a"] * 60, minimum=10, num=20)["a"].scores


def test_bad_summaries_are_refused(make_predictions) -> None:
    binary, multi = make_predictions("binary"), make_predictions("multiclass")
    with pytest.raises(DataError, match="validation and test must have the same classes"):
        with_points(summarise(binary), binary, multi, "youden")
    with pytest.raises(ConfigError, match="operating point must be"):
        result_of(binary, binary, "f1")
    with pytest.raises(ConfigError, match="margin must be above 0"):
        compare(binary, binary, margin=0)
    with pytest.raises(ConfigError, match="minimum must be at least 2, got 1"):
        site_results(binary, ["a"] * 60, minimum=1)
    with pytest.raises(DataError, match="one site for each of 60 cases, got 59"):
        site_results(binary, ["a"] * 59)
