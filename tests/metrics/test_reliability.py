import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from medgraft.errors import ConfigError, DataError
from medgraft.metrics import ece, reliability_curve, top_label


def test_the_curve_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probs = rng.random(500)
    events = rng.random(500) < probs**2
    curve = reliability_curve(probs, events, num_bins=10)
    frequency, confidence = calibration_curve(events, probs, n_bins=10)
    np.testing.assert_allclose(curve.frequency, frequency)
    np.testing.assert_allclose(curve.confidence, confidence)


def test_ece_is_the_weighted_gap_of_the_curve(make_predictions) -> None:
    for task in ("binary", "multiclass"):
        pred = make_predictions(task, num_cases=200)
        confidence, correct = top_label(pred)
        curve = reliability_curve(confidence[:, 0], correct[:, 0])
        gap = np.sum(curve.count * np.abs(curve.confidence - curve.frequency)) / 200
        assert ece(pred) == pytest.approx(gap)


@given(probs=st.lists(st.floats(0, 1), min_size=1, max_size=40), num_bins=st.integers(1, 20))
def test_every_case_lies_in_one_bin(probs: list[float], num_bins: int) -> None:
    curve = reliability_curve(np.array(probs), np.ones(len(probs)), num_bins)
    assert curve.count.sum() == len(probs)
    assert (curve.count > 0).all()
    assert (curve.lower - 1e-12 <= curve.confidence).all()
    assert (curve.confidence <= curve.upper + 1e-12).all()
    np.testing.assert_allclose(curve.frequency, 1)


def test_bad_input_to_the_curve_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_bins must be at least 1, got 0"):
        reliability_curve(np.ones(2), np.ones(2), 0)
    with pytest.raises(DataError, match=r"got \(2,\) and \(3,\)"):
        reliability_curve(np.ones(2), np.ones(3))
    with pytest.raises(DataError, match="between 0 and 1"):
        reliability_curve(np.array([np.nan]), np.ones(1))
