import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_curve

from medgraft.errors import ConfigError, DataError
from medgraft.evaluate.intervals import wilson_interval
from medgraft.evaluate.operating_point import (
    OperatingPoint,
    apply_thresholds,
    choose_thresholds,
    parse_operating_point,
)
from medgraft.evaluate.results import Estimate

YOUDEN = OperatingPoint(rule="youden")


def test_the_rule_is_read_from_text() -> None:
    assert parse_operating_point(" Youden ") == YOUDEN
    assert parse_operating_point("sensitivity = .9") == OperatingPoint(rule="sensitivity", target=0.9)
    assert parse_operating_point("sensitivity=1").target == 1


@pytest.mark.parametrize("text", ["", "sensitivity", "sensitivity=0", "sensitivity=95", "specificity=0.9"])
def test_a_rule_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="'youden' or 'sensitivity=S'"):
        parse_operating_point(text)


@given(seed=st.integers(0, 60), decimals=st.integers(1, 6))
@settings(max_examples=50)
def test_youden_reaches_the_largest_index_of_scikit_learn(make_predictions, seed, decimals) -> None:
    pred = make_predictions("binary", num_cases=40, seed=seed, decimals=decimals)
    threshold = choose_thresholds(pred, YOUDEN)["class 1"]
    row = apply_thresholds(pred, {"class 1": threshold})["class 1"]
    fpr, tpr, _ = roc_curve(pred.targets, pred.probs[:, 1])
    index = row.sensitivity.value + row.specificity.value - 1
    assert index == pytest.approx(max(tpr - fpr))


@given(seed=st.integers(0, 60), target=st.floats(0.05, 1))
@settings(max_examples=50)
def test_the_sensitivity_is_reached_at_the_highest_threshold(make_predictions, seed, target) -> None:
    pred = make_predictions("binary", num_cases=40, seed=seed)
    threshold = choose_thresholds(pred, OperatingPoint(rule="sensitivity", target=target))["class 1"]
    scores, labels = pred.probs[:, 1], pred.targets == 1
    assert np.mean(scores[labels] >= threshold) >= target - 1e-12
    higher = scores[scores >= threshold].min() + 1e-9
    assert np.mean(scores[labels] >= higher) < target


def test_a_threshold_lies_between_scores(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=40)
    for point in (YOUDEN, OperatingPoint(rule="sensitivity", target=0.8)):
        threshold = choose_thresholds(pred, point)["class 1"]
        assert np.abs(pred.probs[:, 1] - threshold).min() > 1e-6


def test_neighbouring_floats_are_kept_apart(make_predictions) -> None:
    high = np.nextafter(0.5, 1)
    probs = np.array([0.5, 0.5, high, high])
    pred = dataclasses.replace(
        make_predictions("binary", num_cases=4),
        probs=np.stack((1 - probs, probs), axis=1),
        targets=np.array([0, 0, 1, 1]),
    )
    assert choose_thresholds(pred, YOUDEN)["class 1"] == high


def test_the_four_shares_agree_with_a_confusion_matrix(make_predictions) -> None:
    pred = make_predictions("multiclass", num_cases=90)
    thresholds = {"class 0": 0.3, "class 1": 0.35, "class 2": 0.4}
    result = apply_thresholds(pred, thresholds)
    for k, (name, threshold) in enumerate(thresholds.items()):
        tn, fp, fn, tp = confusion_matrix(pred.targets == k, pred.probs[:, k] >= threshold).ravel()
        assert result[name].threshold == threshold
        counts = {
            "sensitivity": (tp, tp + fn),
            "specificity": (tn, tn + fp),
            "ppv": (tp, tp + fp),
            "npv": (tn, tn + fn),
        }
        for share, (part, total) in counts.items():
            assert getattr(result[name], share).value == pytest.approx(part / total)
            assert getattr(result[name], share).ci95 == pytest.approx(wilson_interval(part, total))


def test_nothing_called_leaves_ppv_undefined(make_predictions) -> None:
    row = apply_thresholds(make_predictions("binary"), {"class 1": 1.5})["class 1"]
    assert row.ppv == Estimate(value=None)
    assert row.sensitivity.value == 0


def test_every_label_gets_a_threshold(make_predictions) -> None:
    for task, names in (("multilabel", 3), ("multiclass", 3), ("binary", 1)):
        assert len(choose_thresholds(make_predictions(task), YOUDEN)) == names


def test_a_class_without_a_threshold_is_named(make_predictions) -> None:
    with pytest.raises(DataError, match="none for 'class 2'"):
        apply_thresholds(make_predictions("multiclass"), {"class 0": 0.5, "class 1": 0.5})
