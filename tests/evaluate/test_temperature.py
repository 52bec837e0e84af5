import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from medgraft.errors import ConfigError
from medgraft.evaluate.calibration import apply_temperature, fit_temperature
from medgraft.metrics import auroc, ece
from medgraft.types import Predictions


def sharpened(pred: Predictions, factor: float) -> Predictions:
    probs = pred.probs**factor
    return dataclasses.replace(pred, probs=probs / probs.sum(axis=1, keepdims=True))


def calibrated(num: int = 4000, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet((1, 1, 1), num)
    targets = (probs.cumsum(axis=1) < rng.random((num, 1))).sum(axis=1)
    return Predictions(probs=probs, targets=targets, groups=np.arange(num), classes=("a", "b", "c"), task="multiclass")


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_factor_that_sharpened_calibrated_cases_is_found(factor: float) -> None:
    pred = sharpened(calibrated(), factor)
    temperature = fit_temperature(pred)
    assert temperature == pytest.approx(factor, rel=0.06)
    assert ece(apply_temperature(pred, temperature)) < 0.03


def test_no_other_temperature_has_a_smaller_loss() -> None:
    pred = sharpened(calibrated(300), 2.0)
    best = fit_temperature(pred)
    losses = [log_loss(pred.targets, apply_temperature(pred, best * step).probs) for step in (0.98, 1.0, 1.02)]
    assert losses[1] == min(losses)


def test_labels_are_scaled_one_by_one(make_predictions) -> None:
    pred = make_predictions("multilabel", num_cases=4000, decimals=9)
    rng = np.random.default_rng(1)
    pred = dataclasses.replace(pred, targets=(rng.random(pred.probs.shape) < pred.probs).astype(int))
    odds = (pred.probs / (1 - pred.probs)) ** 2
    sharp = dataclasses.replace(pred, probs=odds / (1 + odds))
    temperature = fit_temperature(sharp)
    assert temperature == pytest.approx(2, rel=0.06)
    np.testing.assert_allclose(apply_temperature(sharp, 2.0).probs, pred.probs, atol=1e-7)


@given(temperature=st.floats(0.2, 5), seed=st.integers(0, 20))
def test_binary_ranking_and_calls_never_change(make_predictions, temperature: float, seed: int) -> None:
    pred = make_predictions("binary", seed=seed)
    scaled = apply_temperature(pred, temperature)
    assert auroc(scaled) == pytest.approx(auroc(pred))
    np.testing.assert_array_equal(scaled.probs.argmax(axis=1), pred.probs.argmax(axis=1))
    np.testing.assert_allclose(scaled.probs.sum(axis=1), 1)


def test_certain_probabilities_have_a_finite_temperature(make_predictions) -> None:
    pred = make_predictions("binary")
    certain = dataclasses.replace(pred, probs=np.eye(2)[pred.targets])
    temperature = fit_temperature(certain)
    assert 0.05 <= temperature <= 20
    np.testing.assert_allclose(apply_temperature(certain, temperature).probs, certain.probs, atol=0.1)
    wrong = dataclasses.replace(pred, probs=np.eye(2)[1 - pred.targets])
    assert fit_temperature(wrong) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_makes_no_sense_is_refused(make_predictions, temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        apply_temperature(make_predictions("binary"), temperature)
