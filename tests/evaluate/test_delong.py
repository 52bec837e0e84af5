import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medgraft.errors import DataError
from medgraft.evaluate.delong import delong_covariance, delong_interval, delong_test
from medgraft.evaluate.intervals import perfect_auroc_interval


def cases(seed: int = 0, num: int = 40, models: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 3 == 0
    shared = rng.normal(size=num) + labels
    return np.round(shared + 0.7 * rng.normal(size=(models, num)), 1), labels


def naive_delong(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 1988 paper written down: all pairs, structural components, their covariances."""
    pos, neg = scores[:, labels], scores[:, ~labels]
    wins = (pos[:, :, None] > neg[:, None, :]) + 0.5 * (pos[:, :, None] == neg[:, None, :])
    areas = wins.mean(axis=(1, 2))
    v10 = wins.mean(axis=2) - areas[:, None]
    v01 = wins.mean(axis=1) - areas[:, None]
    m, n = pos.shape[1], neg.shape[1]
    return areas, v10 @ v10.T / (m - 1) / m + v01 @ v01.T / (n - 1) / n


@given(seed=st.integers(0, 60), num=st.integers(6, 50), models=st.integers(1, 3))
@settings(max_examples=60)
def test_mid_ranks_equal_all_pairs(seed: int, num: int, models: int) -> None:
    scores, labels = cases(seed, num, models)
    areas, covariance = delong_covariance(scores, labels)
    expected = naive_delong(scores, labels)
    np.testing.assert_allclose(areas, expected[0], atol=1e-12)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-12)
    np.testing.assert_allclose(areas, [roc_auc_score(labels, row) for row in scores], atol=1e-12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    truth = 0.8413447  # Phi(sqrt 2 / sqrt 2): two normals, means sqrt 2 apart
    labels = np.repeat([False, True], [60, 40])
    hits = 0
    for _ in range(400):
        low, high = delong_interval(rng.normal(size=100) + np.sqrt(2) * labels, labels)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.98


@given(seed=st.integers(0, 40))
def test_the_interval_surrounds_the_value_inside_zero_to_one(seed: int) -> None:
    scores, labels = cases(seed, num=12)
    area = delong_covariance(scores[:1], labels)[0][0]
    low, high = delong_interval(scores[0], labels)
    assert 0 <= low <= area <= high <= 1


def test_the_interval_is_symmetric_on_the_logit_scale() -> None:
    scores, labels = cases()
    areas, covariance = delong_covariance(scores[:1], labels)
    ends = np.array(delong_interval(scores[0], labels))
    logits = np.log(ends / (1 - ends))
    assert logits.mean() == pytest.approx(np.log(areas[0] / (1 - areas[0])))
    half = 1.959964 * np.sqrt(covariance[0, 0]) / (areas[0] * (1 - areas[0]))
    assert np.diff(logits)[0] / 2 == pytest.approx(half, rel=1e-6)


def test_a_perfect_auroc_still_has_an_interval() -> None:
    labels = np.repeat([0, 1], [6, 4])
    low, high = delong_interval(labels.astype(float), labels)
    assert (low, high) == perfect_auroc_interval(4, 6)
    assert delong_interval(-labels.astype(float), labels) == pytest.approx((0, 1 - low))


def test_the_paired_test_follows_from_the_covariance() -> None:
    scores, labels = cases(5, num=90)
    areas, covariance = naive_delong(scores, labels)
    result = delong_test(scores[0], scores[1], labels)
    error = np.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    assert result.value == pytest.approx(areas[0] - areas[1])
    assert result.ci95 == pytest.approx(result.value + np.array([-1, 1]) * 1.959964 * error, rel=1e-6)
    swapped = delong_test(scores[1], scores[0], labels)
    assert (swapped.value, swapped.p) == pytest.approx((-result.value, result.p))


def test_the_paired_test_is_right_under_the_null() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(100) % 2
    p = [delong_test(*(rng.normal(size=(2, 100)) + rng.normal(size=100) + labels), labels).p for _ in range(300)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09


def test_equal_models_do_not_differ() -> None:
    scores, labels = cases()
    result = delong_test(scores[0], 3 * scores[0] + 1, labels)
    assert (result.value, result.ci95, result.p) == (0, (0, 0), 1)


def test_bad_input_to_delong_is_refused() -> None:
    scores, labels = cases()
    with pytest.raises(DataError, match="got 1 positive and 39 negative"):
        delong_covariance(scores, np.arange(40) == 0)
    with pytest.raises(DataError, match=r"got \(2, 40\) and \(39,\)"):
        delong_covariance(scores, labels[1:])
    scores[1, 3] = np.nan
    with pytest.raises(DataError, match="got nan for case 3"):
        delong_covariance(scores, labels)
    perfect = labels.astype(float)
    with pytest.raises(DataError, match=r"got 1\.0 without any variance"):
        delong_test(perfect, -perfect, labels)
