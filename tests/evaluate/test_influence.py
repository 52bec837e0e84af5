"""Variances by influence against DeLong's and Obuchowski's formulas, and what few groups may prove."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from medgraft.evaluate.bootstrap import paired_difference
from medgraft.evaluate.comparison import compare
from medgraft.evaluate.delong import delong_covariance
from medgraft.evaluate.influence import clustered_variance, influence_difference, influence_interval, influence_variance
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import interval_of, summarise
from medgraft.types import Overlaps, Predictions


def binary(scores: np.ndarray, targets: np.ndarray, groups: np.ndarray | None = None) -> Predictions:
    """Predictions with these scores as probabilities."""
    probs = 1 / (1 + np.exp(-scores))
    groups = np.arange(len(scores)) if groups is None else groups
    return Predictions(
        probs=np.stack([1 - probs, probs], 1), targets=targets, groups=groups, classes=("a", "b"), task="binary",
        positive=1,
    )  # fmt: skip


def obuchowski(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Variance of the AUROC of clustered data, equation by equation (Biometrics 1997)."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    beats = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    area = beats.mean()
    v10, v01 = np.zeros(len(scores)), np.zeros(len(scores))
    v10[labels == 1], v01[labels == 0] = beats.mean(1), beats.mean(0)
    clusters = np.unique(groups)
    m = np.array([(labels[groups == g] == 1).sum() for g in clusters])
    n = np.array([(labels[groups == g] == 0).sum() for g in clusters])
    s10 = np.array([v10[(groups == g) & (labels == 1)].sum() for g in clusters]) - m * area
    s01 = np.array([v01[(groups == g) & (labels == 0)].sum() for g in clusters]) - n * area
    i10, i01, count = (m > 0).sum(), (n > 0).sum(), len(clusters)
    first = i10 / (i10 - 1) / m.sum() * (s10**2).sum()
    second = i01 / (i01 - 1) / n.sum() * (s01**2).sum()
    both = count / (count - 1) * (s10 * s01).sum()
    return float(first / m.sum() + second / n.sum() + 2 * both / m.sum() / n.sum())


@pytest.mark.parametrize("seed", range(5))
def test_of_single_images_it_is_delongs_variance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random(60) < 0.3).astype(int)
    scores = np.round(rng.normal(size=(2, 60)) + labels, 1)
    areas, covariance = delong_covariance(scores, labels)
    first, second = (binary(row, labels) for row in scores)
    assert influence_variance([first], "auroc")[0] == pytest.approx(covariance[0, 0], rel=1e-12)
    gap = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    variance, freedom = influence_variance([first], "auroc", [second])
    assert variance == pytest.approx(gap, rel=1e-10)
    assert min(labels.sum(), (1 - labels).sum()) - 1 <= freedom <= 58
    found = influence_difference([first], [second], "auroc", float(areas[0] - areas[1]))
    assert found is not None
    assert found.p == pytest.approx(2 * t.sf(abs(found.value) / np.sqrt(gap), freedom))


@pytest.mark.parametrize("is_mixed", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_of_patients_it_is_obuchowskis_variance(seed: int, is_mixed: bool) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 25, 90)
    labels = (rng.random(90) < 0.4).astype(int) if is_mixed else (groups < 9).astype(int)
    scores = rng.normal(size=25)[groups] + rng.normal(size=90) + labels
    found, _ = influence_variance([binary(scores, labels, groups)], "auroc")
    assert found == pytest.approx(obuchowski(scores, labels, groups), rel=1e-9)


def test_a_mean_over_masks_has_the_t_interval_over_patients() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(10, 100, (12, 1, 3))
    counts[..., 2] = counts[..., :2].min(-1) // 2
    overlaps = Overlaps(counts=counts, groups=np.arange(12), classes=("vessel",))
    values = 2 * counts[:, 0, 2] / counts[:, 0, :2].sum(1)
    half = t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    found = influence_interval(overlaps, "dice", float(values.mean()))
    assert found == pytest.approx((values.mean() - half, values.mean() + half))


@pytest.mark.parametrize("num_positive", [1, 2, 3, 9])
def test_few_cases_of_a_class_prove_nothing(num_positive: int) -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(60) < num_positive).astype(int)
    first, second = binary(rng.normal(size=60) + 5 * labels, labels), binary(rng.normal(size=60), labels)
    found = compare(first, second, weights=bootstrap_weights(first, num=200))
    assert found.verdict == "inconclusive"
    who = "1 patient or group of the rarest class proves" if num_positive == 1 else f"{num_positive} patients or groups"
    assert found.numbers.startswith(who)
    assert "at least 10 are needed" in found.numbers
    low, high = found.difference["auroc"].ci95
    if num_positive == 1:
        assert (low, high, found.difference["auroc"].p) == (-1, 1, 1)


def test_noise_is_called_better_or_worse_in_a_twentieth_of_pairs() -> None:
    for num_positive, most in ((10, 0.07), (30, 0.08)):
        claims = 0
        for seed in range(300):
            rng = np.random.default_rng([num_positive, seed])
            labels = (np.arange(150) < num_positive).astype(int)
            first, second = (binary(rng.normal(size=150), labels) for _ in range(2))
            low, high = paired_difference(first, second, "auroc", np.ones((2, 150))).ci95
            claims += low > 0 or high < 0
        assert claims / 300 <= most


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_nothing_has_width_zero_not_even_perfection(task: str) -> None:
    classes = ("a", "b") if task == "binary" else ("a", "b", "c")
    targets = np.arange(30) % len(classes)
    probs = np.where(targets[:, None] == np.arange(len(classes)), 0.9, 0.1 / (len(classes) - 1))
    options: dict[str, Any] = {"task": task, "classes": classes, "positive": 1 if task == "binary" else None}
    pred = Predictions(probs=probs, targets=targets, groups=np.arange(30), **options)
    result = summarise(pred, bootstrap_weights(pred, num=100))
    for name, score in result.scores.items():
        assert score.ci95 is not None
        assert score.ci95[1] - score.ci95[0] > 0.01 or name in ("brier", "ece"), name
    other = dataclasses.replace(pred, probs=np.where(probs > 0.5, 0.8, 0.2 / (len(classes) - 1)))
    for name, gap in compare(pred, other, weights=bootstrap_weights(pred, num=100)).difference.items():
        assert gap.ci95[0] < -0.05 < 0.05 < gap.ci95[1], name


def test_masks_that_are_all_perfect_have_an_interval() -> None:
    counts = np.full((12, 1, 3), 50)
    overlaps = Overlaps(counts=counts, groups=np.arange(12), classes=("vessel",))
    low, high = interval_of(overlaps, "dice", bootstrap_weights(overlaps, num=50))
    assert 0.5 < low < high == 1.0


def test_classes_of_mixed_patients_and_of_one_patient() -> None:
    influence, groups = np.array([0.1, -0.1, 0.3, 0.2]), np.array([0, 0, 1, 1])
    assert clustered_variance(influence, groups, np.array([0, 1, 0, 1]))[0] > 0
    assert clustered_variance(influence, groups, np.array([0, 1, 1, 1])) == (float("inf"), 0.0)
    assert clustered_variance(np.zeros(4), groups, np.zeros(4, int))[0] == 0
