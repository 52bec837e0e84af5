import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from medgraft.errors import ConfigError, DataError
from medgraft.metrics import (
    METRICS,
    WEIGHTED,
    accuracy,
    auprc,
    auprc_per_class,
    auroc,
    auroc_per_class,
    balanced_accuracy,
    brier,
    confusion,
    ece,
    majority_rate,
    predicted_targets,
    weighted_metric,
)
from medgraft.types import Predictions

TASKS = ("binary", "multiclass", "multilabel")


def one_hot(pred: Predictions) -> np.ndarray:
    return pred.targets if pred.task == "multilabel" else np.eye(len(pred.classes))[pred.targets]


def test_auroc_agrees_with_scikit_learn(make_predictions) -> None:
    binary, multi, labels = (make_predictions(task) for task in TASKS)
    assert auroc(binary) == pytest.approx(sk.roc_auc_score(binary.targets, binary.probs[:, 1]))
    assert auroc(multi) == pytest.approx(sk.roc_auc_score(multi.targets, multi.probs, multi_class="ovr"))
    assert auroc(labels) == pytest.approx(sk.roc_auc_score(labels.targets, labels.probs, average="macro"))


def test_auprc_agrees_with_scikit_learn(make_predictions) -> None:
    binary = make_predictions("binary")
    assert auprc(binary) == pytest.approx(sk.average_precision_score(binary.targets, binary.probs[:, 1]))
    for task in TASKS[1:]:
        pred = make_predictions(task)
        expected = sk.average_precision_score(one_hot(pred), pred.probs, average="macro")
        assert auprc(pred) == pytest.approx(expected)


def test_the_positive_column_can_be_the_first(make_predictions) -> None:
    pred = dataclasses.replace(make_predictions("binary"), positive=0)
    truth = pred.targets == 0
    assert auprc(pred) == pytest.approx(sk.average_precision_score(truth, pred.probs[:, 0]))
    assert brier(pred) == pytest.approx(sk.brier_score_loss(truth, pred.probs[:, 0]))
    assert auroc_per_class(pred).keys() == {"class 0"}


def test_macro_is_the_mean_of_the_classes(make_predictions) -> None:
    for task in TASKS:
        pred = make_predictions(task)
        assert auroc(pred) == pytest.approx(np.mean(list(auroc_per_class(pred).values())))
        assert auprc(pred) == pytest.approx(np.mean(list(auprc_per_class(pred).values())))


def test_accuracies_and_confusion_agree_with_scikit_learn(make_predictions) -> None:
    for task in TASKS[:2]:
        pred = make_predictions(task)
        called = predicted_targets(pred)
        assert accuracy(pred) == pytest.approx(sk.accuracy_score(pred.targets, called))
        assert balanced_accuracy(pred) == pytest.approx(sk.balanced_accuracy_score(pred.targets, called))
        np.testing.assert_array_equal(confusion(pred), sk.confusion_matrix(pred.targets, called))


def test_multilabel_accuracies_are_means_over_labels(make_predictions) -> None:
    pred = make_predictions("multilabel")
    called = predicted_targets(pred)
    pairs = [(pred.targets[:, k], called[:, k]) for k in range(3)]
    assert accuracy(pred) == pytest.approx(np.mean([sk.accuracy_score(*pair) for pair in pairs]))
    assert balanced_accuracy(pred) == pytest.approx(np.mean([sk.balanced_accuracy_score(*pair) for pair in pairs]))
    np.testing.assert_array_equal(confusion(pred), sk.multilabel_confusion_matrix(pred.targets, called))


def test_brier_sums_over_classes_except_for_binary(make_predictions) -> None:
    binary = make_predictions("binary")
    assert brier(binary) == pytest.approx(sk.brier_score_loss(binary.targets, binary.probs[:, 1]))
    for task in TASKS[1:]:
        pred = make_predictions(task)
        columns = [sk.brier_score_loss(one_hot(pred)[:, k], pred.probs[:, k]) for k in range(3)]
        assert brier(pred) == pytest.approx(np.sum(columns))


def plain_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    total = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return total


def test_ece_agrees_with_a_plain_loop_over_bins(make_predictions) -> None:
    for task in TASKS[:2]:
        pred = make_predictions(task, num_cases=300)
        expected = plain_ece(pred.probs.max(axis=1), predicted_targets(pred) == pred.targets)
        assert ece(pred) == pytest.approx(expected)
    pred = make_predictions("multilabel", num_cases=300)
    correct = (pred.probs > 0.5) == pred.targets
    confidence = np.maximum(pred.probs, 1 - pred.probs)
    assert ece(pred) == pytest.approx(np.mean([plain_ece(confidence[:, k], correct[:, k]) for k in range(3)]))


def test_one_half_is_not_positive(make_predictions) -> None:
    pred = dataclasses.replace(make_predictions("binary", num_cases=4), probs=np.full((4, 2), 0.5))
    assert predicted_targets(pred).tolist() == [0, 0, 0, 0]
    assert predicted_targets(dataclasses.replace(pred, positive=0)).tolist() == [1, 1, 1, 1]


def test_majority_rate_counts_the_most_frequent_class(make_predictions) -> None:
    pred = dataclasses.replace(make_predictions("multiclass"), targets=np.repeat([2, 1, 0], [40, 15, 5]))
    assert majority_rate(pred) == pytest.approx(40 / 60)
    pred = make_predictions("multilabel")
    share = pred.targets.mean(axis=0)
    assert majority_rate(pred) == pytest.approx(np.maximum(share, 1 - share).mean())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 30))
def test_every_weighted_metric_equals_duplicated_cases(make_predictions, task, metric, seed) -> None:
    pred = make_predictions(task, num_cases=24, seed=seed)
    weights = np.random.default_rng(seed).choice([0, 1, 2, 3], (3, 24), p=[0.2, 0.5, 0.2, 0.1])
    values = weighted_metric(pred, metric, weights)
    for row, value in zip(weights, values, strict=True):
        copied = dataclasses.replace(
            pred,
            probs=np.repeat(pred.probs, row, axis=0),
            targets=np.repeat(pred.targets, row, axis=0),
            groups=np.repeat(pred.groups, row),
        )
        assert METRICS[metric](copied) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 50), task=st.sampled_from(TASKS))
def test_every_metric_stays_in_its_range(make_predictions, metric, seed, task) -> None:
    value = METRICS[metric](make_predictions(task, num_cases=20, seed=seed))
    assert 0 <= value <= (3 if metric == "brier" else 1)


def test_perfect_predictions_are_perfect(make_predictions) -> None:
    for task in TASKS:
        pred = make_predictions(task)
        perfect = dataclasses.replace(pred, probs=one_hot(pred).astype(np.float64))
        got = {name: METRICS[name](perfect) for name in METRICS if name != "majority"}
        assert got == {
            "auroc": 1, "auprc": 1, "accuracy": 1, "balanced_accuracy": 1, "brier": 0, "ece": 0,
        }  # fmt: skip


def test_plain_and_weighted_metrics_have_the_same_names() -> None:
    # Kappa is for grades alone.
    assert METRICS.keys() | {"kappa"} == WEIGHTED.keys()


def test_an_absent_class_is_named(make_predictions) -> None:
    pred = make_predictions("multiclass")
    lacking = dataclasses.replace(pred, targets=np.where(pred.targets == 2, 0, pred.targets))
    for metric in (auroc, auprc, balanced_accuracy):
        with pytest.raises(DataError, match="none of 'class 2' among 60"):
            metric(lacking)
    binary = make_predictions("binary")
    for target, absent in ((0, "class 1"), (1, "class 0")):
        with pytest.raises(DataError, match=f"none of '{absent}'"):
            auroc(dataclasses.replace(binary, targets=np.full(60, target)))
    labels = make_predictions("multilabel")
    with pytest.raises(DataError, match="none of 'not class 0'"):
        auroc(dataclasses.replace(labels, targets=np.ones_like(labels.targets)))


@pytest.mark.parametrize("metric", METRICS)
def test_nan_probabilities_are_refused(make_predictions, metric) -> None:
    pred = make_predictions("multiclass")
    probs = pred.probs.copy()
    probs[7, 1] = np.nan
    with pytest.raises(DataError, match="got nan for case 7, class 'class 1'"):
        METRICS[metric](dataclasses.replace(pred, probs=probs))


def test_unsound_predictions_are_refused(make_predictions) -> None:
    pred = make_predictions("multiclass")
    with pytest.raises(DataError, match=r"sum to 1, got 0\.5"):
        accuracy(dataclasses.replace(pred, probs=np.full((60, 3), 1 / 6)))
    with pytest.raises(DataError, match=r"between 0 and 1, got 1\.5"):
        accuracy(dataclasses.replace(pred, probs=np.full((60, 3), 1.5)))
    with pytest.raises(DataError, match="class index from 0 to 2, got 3 for case 0"):
        accuracy(dataclasses.replace(pred, targets=np.full(60, 3)))
    with pytest.raises(DataError, match=r"must have the shapes .* got \(\(60, 3\), \(59,\)"):
        accuracy(dataclasses.replace(pred, targets=pred.targets[1:]))
    with pytest.raises(DataError, match="positive = None"):
        accuracy(dataclasses.replace(make_predictions("binary"), positive=None))
    with pytest.raises(DataError, match="at least one case"):
        accuracy(dataclasses.replace(pred, probs=pred.probs[:0], targets=pred.targets[:0], groups=pred.groups[:0]))
    labels = make_predictions("multilabel")
    with pytest.raises(DataError, match=r"0 or 1 \(NaN: not known\), got 2 for case 0"):
        accuracy(dataclasses.replace(labels, targets=np.full((60, 3), 2)))


def test_bad_weights_and_names_are_refused(make_predictions) -> None:
    pred = make_predictions("multiclass")
    with pytest.raises(ConfigError, match=r"one of auroc, .* got 'auc'"):
        weighted_metric(pred, "auc", np.ones((1, 60)))
    with pytest.raises(DataError, match=r"\(R, 60\), got \(1, 59\)"):
        weighted_metric(pred, "auroc", np.ones((1, 59)))
    with pytest.raises(DataError, match="above 0 somewhere in every row, got row 0"):
        weighted_metric(pred, "brier", np.zeros((1, 60)))
    with pytest.raises(DataError, match="a class without in row 0"):
        weighted_metric(pred, "balanced_accuracy", (pred.targets != 1)[None])
