"""Many strategies against one: Holm's adjustment, and intervals over groups and seeds."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgraft.evaluate.bootstrap import bootstrap_interval, paired_difference
from medgraft.evaluate.over_seeds import USUAL_SD, difference_over_seeds, holm, interval_over_seeds
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import interval_of
from medgraft.metrics.measures import measured
from medgraft.types import Overlaps


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p_values) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for step, i in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[i] * (len(p_values) - step) > level:
                break
            rejected.add(int(i))
        assert rejected == {i for i, a in enumerate(adjusted) if a <= level}


def test_of_one_seed_the_usual_luck_of_training_is_assumed(make_predictions) -> None:
    one, two = (make_predictions("binary", num_cases=80, seed=0, signal=s) for s in (1.0, 2.0))
    two = dataclasses.replace(two, targets=one.targets)
    weights = bootstrap_weights(one, num=300)
    assert interval_over_seeds([one], "auprc", weights) == interval_of(one, "auprc", weights)
    alone = paired_difference(two, one, "auroc", weights)
    found = difference_over_seeds([two], [one], "auroc", weights)
    assert found.value == pytest.approx(alone.value)
    assert found.spread.cases == alone.spread.cases
    assert found.spread.trainings == pytest.approx(2**0.5 * USUAL_SD)
    assert not found.spread.is_measured
    assert found.ci95[1] - found.ci95[0] > alone.ci95[1] - alone.ci95[0]
    assert found.p > alone.p
    of_folds = difference_over_seeds([two], [one], "auroc", weights, num_folds=5)
    assert of_folds.spread.trainings == pytest.approx((2 / 5) ** 0.5 * USUAL_SD)
    # AUPRC has no influences, and the same law.
    assert difference_over_seeds([two], [one], "auprc", weights).spread.trainings == found.spread.trainings


def test_two_seeds_count_as_they_differ_but_never_less_than_usual(make_predictions) -> None:
    good, poor = (make_predictions("binary", num_cases=80, seed=0, signal=s) for s in (3.0, 0.5))
    poor, base = (
        dataclasses.replace(pred, targets=good.targets)
        for pred in (poor, make_predictions("binary", num_cases=80, seed=1))
    )
    weights = bootstrap_weights(good, num=300)
    alike = difference_over_seeds([good, good], [base, base], "auroc", weights)
    assert alike.spread.trainings == pytest.approx(USUAL_SD)
    apart = difference_over_seeds([good, poor], [base, base], "auroc", weights)
    values = [measured(pred, "auroc") for pred in (good, poor)]
    assert apart.spread.trainings == pytest.approx((np.var(values, ddof=1) / 2) ** 0.5)
    assert (alike.spread.is_measured, apart.spread.is_measured) == (False, True)
    three = difference_over_seeds([good, poor, good], [base] * 3, "auroc", weights)
    assert three.spread.is_measured
    assert three.spread.trainings == pytest.approx((np.var([*values, values[0]], ddof=1) / 3) ** 0.5)


def test_one_model_on_both_sides_differs_by_nothing(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=80)
    for metric in ("auroc", "auprc"):
        assert difference_over_seeds([pred], [pred], metric, bootstrap_weights(pred, num=100)).ci95 == (0.0, 0.0)


def test_nothing_usual_is_known_of_distances() -> None:
    counts = np.array([[[4, 4, 3]], [[4, 4, 2]], [[4, 4, 4]], [[4, 4, 1]]])
    surfaces = np.array([[[1.0, 0.5]], [[2.0, 0.25]], [[0.0, 1.0]], [[3.0, 0.0]]])
    masks = Overlaps(counts=counts, surfaces=surfaces, groups=np.arange(4), classes=("vessel",))
    other = dataclasses.replace(masks, surfaces=surfaces * [2.0, 0.5])
    weights = bootstrap_weights(masks, num=100)
    assert difference_over_seeds([masks], [other], "hd95", weights).spread.trainings == 0
    assert difference_over_seeds([masks], [other], "surface_dice", weights).spread.trainings > 0


def test_seeds_that_differ_widen_the_interval_and_the_mean_stands_inside(make_predictions) -> None:
    good, poor = (make_predictions("binary", num_cases=80, seed=0, signal=s) for s in (3.0, 0.5))
    poor = dataclasses.replace(poor, targets=good.targets)
    weights = bootstrap_weights(good, num=400)
    same, mixed = (interval_over_seeds(seeds, "auroc", weights) for seeds in ([good] * 3, [good, good, poor]))
    assert mixed[1] - mixed[0] > same[1] - same[0]
    gap = difference_over_seeds([good] * 3, [good, good, poor], "auroc", weights)
    assert gap.ci95[0] <= gap.value <= gap.ci95[1]
    assert gap.value > 0
    assert difference_over_seeds([good, poor], [good, poor], "auroc", weights).ci95 == pytest.approx((0, 0))


def test_two_perfect_strategies_on_few_cases_prove_nothing(make_predictions) -> None:
    pred = make_predictions("binary", num_cases=8)
    positive = np.where(pred.targets == 1, 0.9, 0.1)
    a = dataclasses.replace(pred, probs=np.stack((1 - positive, positive), axis=1))
    b = dataclasses.replace(pred, probs=a.probs**2 / (a.probs**2).sum(axis=1, keepdims=True))
    weights = bootstrap_weights(a, num=100)
    alone = paired_difference(a, b, "auroc", weights)
    assert difference_over_seeds([a, a], [b, b], "auroc", weights).ci95 == alone.ci95
    assert alone.ci95[0] < -0.2
    assert interval_over_seeds([a, a], "auroc", weights) == bootstrap_interval(a, "auroc", weights)
