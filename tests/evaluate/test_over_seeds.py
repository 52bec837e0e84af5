"""Many strategies against one: Holm's adjustment, and intervals over groups and seeds."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgraft.evaluate.bootstrap import bootstrap_interval, paired_difference
from medgraft.evaluate.over_seeds import difference_over_seeds, holm, interval_over_seeds
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import interval_of


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


def test_one_seed_is_the_plain_bootstrap(make_predictions) -> None:
    one, two = (make_predictions("binary", num_cases=80, seed=0, signal=s) for s in (1.0, 2.0))
    two = dataclasses.replace(two, targets=one.targets)
    weights = bootstrap_weights(one, num=300)
    assert interval_over_seeds([one], "auprc", weights) == interval_of(one, "auprc", weights)
    assert difference_over_seeds([two], [one], "auroc", weights) == paired_difference(two, one, "auroc", weights)


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
