import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from medgraft.errors import DataError
from medgraft.metrics.ranking import (
    pr_curve_points,
    replicate_chunks,
    roc_curve_points,
    weighted_auprc,
    weighted_auroc,
)

KERNELS = {"auroc": weighted_auroc, "auprc": weighted_auprc}
ORACLES = {"auroc": roc_auc_score, "auprc": average_precision_score}


@st.composite
def scored_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores on a coarse grid (many ties) and labels with both classes."""
    num = draw(st.integers(2, 25))
    scores = draw(st.lists(st.integers(-8, 8), min_size=num, max_size=num))
    labels = draw(st.lists(st.booleans(), min_size=num, max_size=num))
    labels[0], labels[1] = True, False
    return np.array(scores, dtype=np.float64) / 8, np.array(labels)


def once(kernel: str, scores: np.ndarray, labels: np.ndarray) -> float:
    return float(KERNELS[kernel](scores, labels, np.ones((1, len(scores))))[0])


@pytest.mark.parametrize("kernel", KERNELS)
@given(cases=scored_cases())
def test_unweighted_kernels_agree_with_scikit_learn(kernel: str, cases: tuple) -> None:
    assert once(kernel, *cases) == pytest.approx(ORACLES[kernel](cases[1], cases[0]), abs=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@given(cases=scored_cases(), data=st.data())
def test_weights_equal_physical_duplication(kernel: str, cases: tuple, data: st.DataObject) -> None:
    scores, labels = cases
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores)))
    weights = np.array(counts, dtype=np.uint8)
    weights[:2] = np.maximum(weights[:2], 1)
    result = KERNELS[kernel](scores, labels, weights[None])[0]
    copied = np.repeat(scores, weights), np.repeat(labels, weights)
    assert result == pytest.approx(once(kernel, *copied), abs=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_real_weights_agree_with_scikit_learn(kernel: str) -> None:
    rng = np.random.default_rng(3)
    scores, labels = np.round(rng.random(80), 1), rng.random(80) < 0.3
    weights = rng.random((5, 80))
    expected = [ORACLES[kernel](labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(KERNELS[kernel](scores, labels, weights), expected, rtol=0, atol=1e-12)


@given(cases=scored_cases())
def test_auroc_is_the_share_of_won_pairs(cases: tuple) -> None:
    scores, labels = cases
    wins = [(p > n) + (p == n) / 2 for p in scores[labels] for n in scores[~labels]]
    assert once("auroc", scores, labels) == pytest.approx(np.mean(wins), abs=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@given(cases=scored_cases())
def test_a_monotone_transform_changes_nothing(kernel: str, cases: tuple) -> None:
    scores, labels = cases
    assert once(kernel, np.exp(3 * scores) - 7, labels) == once(kernel, scores, labels)


@given(cases=scored_cases())
def test_flipping_labels_or_scores_gives_one_minus_auroc(cases: tuple) -> None:
    scores, labels = cases
    area = once("auroc", scores, labels)
    assert once("auroc", scores, ~labels) == pytest.approx(1 - area, abs=1e-12)
    assert once("auroc", -scores, labels) == pytest.approx(1 - area, abs=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@given(cases=scored_cases(), seed=st.integers(0, 99))
def test_the_order_of_cases_does_not_matter(kernel: str, cases: tuple, seed: int) -> None:
    scores, labels = cases
    order = np.random.default_rng(seed).permutation(len(scores))
    assert once(kernel, scores[order], labels[order]) == pytest.approx(once(kernel, scores, labels), abs=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_chunks_do_not_change_the_result(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.random(30), np.arange(30) % 3 == 0
    weights = rng.integers(0, 3, (17, 30)) + 1
    whole = KERNELS[kernel](scores, labels, weights)
    monkeypatch.setattr("medgraft.metrics.ranking._BLOCK", 64)
    assert len(list(replicate_chunks(17, 30))) == 9
    np.testing.assert_allclose(KERNELS[kernel](scores, labels, weights), whole, rtol=1e-14)


def test_two_thousand_replicates_of_five_classes_take_seconds_not_minutes() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, (2000, 600)).astype(np.uint8)
    start = time.process_time()
    for k in range(5):
        labels = np.arange(600) % 5 == k
        scores = rng.random(600) + labels
        weighted_auroc(scores, labels, weights)
        weighted_auprc(scores, labels, weights)
    # About 0.3 s; the bound only catches a fall back to one replicate at a time.
    assert time.process_time() - start < 5


@given(cases=scored_cases())
@settings(max_examples=50)
def test_roc_points_agree_with_scikit_learn(cases: tuple) -> None:
    scores, labels = cases
    for ours, theirs in zip(
        roc_curve_points(scores, labels), roc_curve(labels, scores, drop_intermediate=False), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@given(cases=scored_cases())
@settings(max_examples=50)
def test_pr_points_agree_with_scikit_learn(cases: tuple) -> None:
    scores, labels = cases
    recall, precision, thresholds = pr_curve_points(scores, labels)
    theirs = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(precision[::-1], theirs[0][:-1], atol=1e-12)
    np.testing.assert_allclose(recall[::-1], theirs[1][:-1], atol=1e-12)
    np.testing.assert_allclose(thresholds[::-1], theirs[2], atol=0)


def test_bad_input_is_named() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3]), np.array([0, 1, 1])
    with pytest.raises(DataError, match="got nan for case 1"):
        weighted_auroc(np.array([0.1, np.nan, 0.3]), labels, np.ones((1, 3)))
    with pytest.raises(DataError, match=r"\(N,\), \(N,\) and \(R, N\), got \(3,\), \(2,\)"):
        weighted_auprc(scores, labels[:2], np.ones((1, 3)))
    with pytest.raises(DataError, match=r"expected positive cases .* none in row 1"):
        weighted_auprc(scores, labels, np.array([[1, 1, 1], [1, 0, 0]]))
    with pytest.raises(DataError, match=r"expected negative cases .* none in row 0"):
        weighted_auroc(scores, labels, np.array([[0, 1, 1]]))
    with pytest.raises(DataError, match="expected negative cases"):
        roc_curve_points(scores, np.ones(3))
