import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medgraft.errors import ConfigError, DataError
from medgraft.evaluate.bootstrap import bootstrap_interval, metric_replicates, paired_difference
from medgraft.evaluate.intervals import perfect_auroc_interval
from medgraft.evaluate.replicates import bootstrap_weights, group_strata, replicate_weights
from medgraft.metrics import METRICS, ece
from medgraft.metrics.weighted import calibrated_ece
from medgraft.types import Predictions


@st.composite
def grouped_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Groups of one to a few cases, each group in one of three strata."""
    strata = draw(st.lists(st.integers(0, 2), min_size=1, max_size=12))
    groups = draw(st.lists(st.integers(0, len(strata) - 1), min_size=1, max_size=30))
    return np.array(groups) + 5, np.array(strata)[groups]


@given(cases=grouped_cases(), seed=st.integers(0, 9))
@settings(max_examples=60)
def test_groups_stay_whole_and_strata_keep_their_number_of_groups(cases, seed) -> None:
    groups, strata = cases
    weights = replicate_weights(groups, strata, num=20, seed=seed)
    assert weights.dtype == np.uint8
    names, first = np.unique(groups, return_index=True)
    for name, row in zip(names, first, strict=True):
        assert (weights[:, groups == name] == weights[:, [row]]).all()
    for stratum in np.unique(strata):
        inside = first[strata[first] == stratum]
        assert (weights[:, inside].sum(axis=1, dtype=int) == len(inside)).all()


def test_counts_follow_the_bootstrap_distribution() -> None:
    weights = replicate_weights(np.arange(40), np.repeat([0, 1], [10, 30]), num=4000, seed=1)
    # Draws from n with replacement: mean 1, variance 1 - 1/n, covariance -1/n.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.08)
    covariance = np.cov(weights.T.astype(float))
    np.testing.assert_allclose(np.diag(covariance)[:10], 0.9, atol=0.12)
    assert covariance[:10, :10][~np.eye(10, dtype=bool)].mean() == pytest.approx(-0.1, abs=0.01)
    assert abs(covariance[:10, 10:].mean()) < 0.01


def test_the_seed_alone_decides_the_replicates() -> None:
    groups, strata = np.arange(30) // 2, np.arange(30) // 2 % 3
    same = [replicate_weights(groups, strata, num=50, seed=7) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (replicate_weights(groups, strata, num=50, seed=8) != same[0]).any()


def test_replicates_equal_a_brute_force_loop(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=40, per_group=2)
    pred = dataclasses.replace(pred, targets=pred.groups % 2)
    weights = bootstrap_weights(pred, num=30, seed=3)
    expected = []
    for row in weights:
        cases = [case for case in range(40) for _ in range(row[case])]
        expected.append(roc_auc_score(pred.targets[cases], pred.probs[cases, 1]))
    np.testing.assert_allclose(metric_replicates(pred, "auroc", weights), expected, atol=1e-12)
    assert bootstrap_interval(pred, "auroc", weights) == pytest.approx(
        (np.quantile(expected, 0.025), np.quantile(expected, 0.975))
    )


def test_the_interval_has_the_width_of_an_independent_bootstrap(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=200, signal=1.5)
    rng = np.random.default_rng(9)
    pos, neg = pred.probs[pred.targets == 1, 1], pred.probs[pred.targets == 0, 1]
    areas = []
    for _ in range(400):
        p, n = rng.choice(pos, len(pos)), rng.choice(neg, len(neg))
        areas.append(np.mean((p[:, None] > n) + (p[:, None] == n) / 2))
    ours = bootstrap_interval(pred, "auroc", bootstrap_weights(pred, num=1000))
    np.testing.assert_allclose(ours, np.quantile(areas, (0.025, 0.975)), atol=0.015)


def test_images_of_one_patient_do_not_narrow_the_interval(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=60)
    copied = dataclasses.replace(
        pred,
        probs=np.repeat(pred.probs, 5, axis=0),
        targets=np.repeat(pred.targets, 5),
        groups=np.repeat(pred.groups, 5),
    )
    ends = [bootstrap_interval(p, "auroc", bootstrap_weights(p, num=500, seed=2)) for p in (pred, copied)]
    assert ends[0] == pytest.approx(ends[1])


def test_the_stratum_is_the_rarest_class_of_the_group(make_predictions) -> None:
    pred = make_predictions("multiclass", num_cases=9)
    pred = dataclasses.replace(
        pred,
        targets=np.array([0, 0, 0, 0, 1, 1, 1, 2, 2]),
        groups=np.array([0, 0, 1, 2, 2, 3, 4, 4, 5]),
    )
    assert group_strata(pred).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_cases_without_any_label_are_a_stratum(make_predictions) -> None:
    pred = make_predictions("multilabel", num_cases=5, num_classes=2)
    pred = dataclasses.replace(pred, targets=np.array([[1, 0], [1, 1], [0, 0], [0, 0], [1, 0]]))
    assert group_strata(pred).tolist() == [0, 1, 2, 2, 0]


@given(seed=st.integers(0, 40))
@settings(max_examples=25)
def test_no_replicate_misses_a_class(make_predictions, seed: int) -> None:
    rng = np.random.default_rng(seed)
    single = make_predictions("multiclass", num_cases=12, seed=seed)
    mixed = dataclasses.replace(single, groups=rng.integers(0, 6, 12))
    labels = make_predictions("multilabel", num_cases=14, seed=seed)
    for pred in (single, mixed, labels):
        weights = bootstrap_weights(pred, num=50, seed=seed)
        assert np.isfinite(metric_replicates(pred, "auroc", weights)).all()


def test_replicates_of_an_absent_class_are_refused(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=6)
    with pytest.raises(DataError, match="none of 'class 1'"):
        bootstrap_weights(dataclasses.replace(pred, targets=np.zeros(6, dtype=int)))


def test_replicates_that_keep_missing_a_class_are_refused(make_predictions, monkeypatch) -> None:
    pred = make_predictions("binary", num_cases=6)
    monkeypatch.setattr(
        "medgraft.evaluate.replicates.replicate_weights",
        lambda groups, strata, num, seed: np.tile((pred.targets == 0).astype(np.uint8), (num, 1)),
    )
    with pytest.raises(DataError, match="after 100 draws 5 of 5 still miss one"):
        bootstrap_weights(pred, num=5)


def noisy(pred: Predictions, seed: int, size: float) -> Predictions:
    logits = np.log(pred.probs) + np.random.default_rng(seed).normal(size=pred.probs.shape) * size
    probs = np.exp(logits)
    return dataclasses.replace(pred, probs=probs / probs.sum(axis=1, keepdims=True))


def test_the_paired_difference_equals_a_loop_over_replicates(make_predictions) -> None:
    a = make_predictions("multiclass", num_cases=90)
    b = [noisy(a, seed, 1.0) for seed in (1, 2)]
    weights = bootstrap_weights(a, num=99)
    result = paired_difference(a, b, "auprc", weights)
    gaps = []
    for row in weights:
        pick = np.repeat(np.arange(90), row)
        values = [
            METRICS["auprc"](
                dataclasses.replace(p, probs=p.probs[pick], targets=p.targets[pick], groups=p.groups[pick])
            )
            for p in (a, *b)
        ]
        gaps.append(values[0] - (values[1] + values[2]) / 2)
    assert result.ci95 == pytest.approx(np.quantile(gaps, (0.025, 0.975)))
    assert result.value == pytest.approx(METRICS["auprc"](a) - np.mean([METRICS["auprc"](p) for p in b]))
    tail = min(np.sum(np.array(gaps) <= 0), np.sum(np.array(gaps) >= 0))
    assert result.p == pytest.approx(min(1, 2 * (tail + 1) / 100))


@given(seed=st.integers(0, 30))
@settings(max_examples=20)
def test_swapping_the_models_mirrors_the_difference(make_predictions, seed: int) -> None:
    a = make_predictions("binary", num_cases=40, seed=seed, decimals=6)
    b = noisy(a, seed, 0.5)
    weights = bootstrap_weights(a, num=200, seed=seed)
    one, two = paired_difference(a, b, "auroc", weights), paired_difference(b, a, "auroc", weights)
    assert one.value == pytest.approx(-two.value)
    assert one.ci95 == pytest.approx((-two.ci95[1], -two.ci95[0]))
    assert one.p == two.p
    assert 0 < one.p <= 1


def test_p_is_small_but_never_zero_for_a_clear_winner(make_predictions) -> None:
    good = make_predictions("binary", num_cases=200, signal=2.5, decimals=8)
    bad = noisy(good, 0, 6.0)
    weights = bootstrap_weights(good, num=199)
    result = paired_difference(good, bad, "auprc", weights)
    assert result.p == pytest.approx(2 / 200)
    assert result.ci95[0] > 0
    by_influence = paired_difference(good, bad, "auroc", weights)
    assert 0 < by_influence.p < 1e-6
    assert by_influence.ci95[0] > 0


def test_two_perfect_models_on_few_cases_prove_nothing(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=8)
    positive = np.where(pred.targets == 1, 0.9, 0.1)
    a = dataclasses.replace(pred, probs=np.stack((1 - positive, positive), axis=1))
    b = dataclasses.replace(pred, probs=a.probs**2 / (a.probs**2).sum(axis=1, keepdims=True))
    weights = bootstrap_weights(a, num=100)
    low = perfect_auroc_interval(4, 4)[0]
    assert paired_difference(a, b, "auroc", weights).ci95 == pytest.approx((low - 1, 1 - low))
    assert paired_difference(a, a, "auroc", weights).ci95 == (0, 0)
    assert bootstrap_interval(a, "auroc", weights) == (low, 1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num", [60, 300])
def test_of_right_probabilities_the_interval_of_ece_goes_down_to_0(num: int, seed: int, make_predictions) -> None:
    rng = np.random.default_rng(seed)
    probs = rng.beta(2, 2, num)
    pred = dataclasses.replace(
        make_predictions("binary", num_cases=num),
        probs=np.stack((1 - probs, probs), axis=1),
        targets=(rng.random(num) < probs).astype(int),
    )
    low, high = bootstrap_interval(pred, "ece", bootstrap_weights(pred, num=200))
    assert low == 0
    assert ece(pred) <= high
    assert calibrated_ece(pred, 50).min() > 0
    # Twice as sure as it is right to be: no chance gives as much.
    odds = 4 * np.log(pred.probs / (1 - pred.probs))
    sure = dataclasses.replace(pred, probs=1 / (1 + np.exp(-odds)))
    low, high = bootstrap_interval(sure, "ece", bootstrap_weights(sure, num=200))
    assert 0 < low < ece(sure) <= high


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_calibrated_ece_is_that_of_drawn_truths(task: str, make_predictions) -> None:
    pred = make_predictions(task, num_cases=100)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(300):
        if task == "multilabel":
            truth = (rng.random(pred.probs.shape) < pred.probs).astype(float)
        elif task == "binary":
            truth = (rng.random(100) < pred.probs[:, 1]).astype(int)
        else:
            truth = (rng.random((100, 1)) > pred.probs.cumsum(1)).sum(1).clip(0, pred.probs.shape[1] - 1)
        drawn.append(ece(dataclasses.replace(pred, targets=truth)))
    assert calibrated_ece(pred, 300).mean() == pytest.approx(np.mean(drawn), rel=0.06)


def test_the_interval_of_ece_takes_its_bias_off(make_predictions) -> None:
    rng = np.random.default_rng(4)
    probs = rng.random(300)
    pred = dataclasses.replace(
        make_predictions("binary", num_cases=300),
        probs=np.stack((1 - probs, probs), axis=1),
        targets=(rng.random(300) < probs).astype(int),
    )
    weights = bootstrap_weights(pred, num=300)
    low, high = bootstrap_interval(pred, "ece", weights)
    percentile = np.quantile(metric_replicates(pred, "ece", weights), (0.025, 0.975))
    # These probabilities are calibrated by construction: only the mirrored interval comes near 0.
    assert low < 0.01 < percentile[0]
    assert high < percentile[1]


def test_other_cases_cannot_be_compared(make_predictions) -> None:
    a, b = make_predictions("binary"), make_predictions("binary", seed=1)
    weights = bootstrap_weights(a, num=10)
    with pytest.raises(DataError, match=r"same cases, groups and classes .* predictions 1 and 2"):
        paired_difference(a, b, "auroc", weights)
    with pytest.raises(DataError, match="at least one set of predictions, got none"):
        metric_replicates([], "auroc", weights)


def test_bad_replicates_are_refused() -> None:
    with pytest.raises(ConfigError, match="num must be at least 1, got 0"):
        replicate_weights(np.arange(3), np.zeros(3), num=0)
    with pytest.raises(DataError, match=r"got \(3,\) and \(2,\)"):
        replicate_weights(np.arange(3), np.zeros(2))
    with pytest.raises(DataError, match="group 4 in 0 and 1"):
        replicate_weights(np.array([4, 4]), np.array([0, 1]))
