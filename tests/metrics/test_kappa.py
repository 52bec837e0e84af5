"""Agreement of grades: quadratically weighted kappa, against scikit-learn."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from medgraft.errors import ConfigError
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import summarise
from medgraft.metrics.cases import predicted_targets
from medgraft.metrics.classification import METRICS, quadratic_kappa
from medgraft.metrics.measures import measure_of
from medgraft.metrics.weighted import weighted_metric
from medgraft.types import Predictions


def graded(seed: int, noise: float = 0.8) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, 120)
    logits = -((np.arange(5) - truth[:, None] - rng.normal(0, noise, (120, 1))) ** 2)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = tuple(f"grade {number}" for number in range(5))
    return Predictions(
        probs=probs, targets=truth, groups=np.arange(120), classes=names, task="multiclass", is_ordinal=True
    )


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_scikit_learn(seed: int) -> None:
    pred = graded(seed)
    expected = cohen_kappa_score(pred.targets, predicted_targets(pred), weights="quadratic")
    assert quadratic_kappa(pred) == pytest.approx(expected)


def test_weights_count_cases() -> None:
    pred = graded(0)
    weights = bootstrap_weights(pred, 20)
    for row, value in zip(weights, weighted_metric(pred, "kappa", weights), strict=True):
        cases = np.repeat(np.arange(120), row)
        expected = cohen_kappa_score(pred.targets[cases], predicted_targets(pred)[cases], weights="quadratic")
        assert value == pytest.approx(expected)


def test_a_larger_mistake_costs_more() -> None:
    pred = graded(0, noise=0)
    near, far = (np.where(pred.targets == 0, wrong, pred.targets) for wrong in (1, 4))
    assert quadratic_kappa(pred) == pytest.approx(1)
    values = [quadratic_kappa(dataclasses.replace(pred, probs=np.eye(5)[called])) for called in (near, far)]
    assert values[0] > values[1]
    always = dataclasses.replace(pred, probs=np.tile(np.eye(5)[2], (120, 1)))
    assert quadratic_kappa(always) == pytest.approx(0)


def test_it_is_for_grades_alone() -> None:
    pred = graded(1)
    assert set(measure_of(pred).metrics(pred)) - METRICS.keys() == {"kappa"}
    assert set(measure_of(pred).metrics(dataclasses.replace(pred, is_ordinal=False))) == METRICS.keys()
    kappa = summarise(pred, weights=bootstrap_weights(pred, 50)).scores["kappa"]
    assert kappa.ci95[0] < kappa.value < kappa.ci95[1]
    assert "kappa" not in summarise(dataclasses.replace(pred, is_ordinal=False)).scores
    two = Predictions(
        probs=np.eye(2), targets=np.arange(2), groups=np.arange(2), classes=("a", "b"), task="binary", positive=1
    )
    with pytest.raises(ConfigError, match="kappa is for grades"):
        quadratic_kappa(two)
