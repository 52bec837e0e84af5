import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from medgraft.errors import DataError
from medgraft.evaluate.intervals import clustered_proportion, perfect_auroc_interval, wilson_interval


@given(total=st.integers(1, 300), data=st.data())
def test_wilson_agrees_with_scipy(total: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, total))
    expected = binomtest(successes, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(events=st.lists(st.booleans(), min_size=1, max_size=50))
def test_single_cases_get_wilsons_interval(events: list[bool]) -> None:
    value, ci95 = clustered_proportion(np.array(events), np.arange(len(events)))
    assert value == pytest.approx(np.mean(events))
    assert ci95 == pytest.approx(wilson_interval(sum(events), len(events)))


@given(events=st.lists(st.booleans(), min_size=4, max_size=30), copies=st.integers(2, 6))
def test_copies_inside_a_group_add_nothing(events: list[bool], copies: int) -> None:
    once = np.array(events)
    _, ci95 = clustered_proportion(np.repeat(once, copies), np.repeat(np.arange(len(once)), copies))
    single = wilson_interval(once.sum(), len(once))
    # The design effect uses n / (n - 1), so at most one group's worth wider.
    assert ci95[0] <= single[0] + 1e-12
    assert ci95[1] >= single[1] - 1e-12
    np.testing.assert_allclose(np.diff(ci95) / np.diff(single), 1, atol=1.2 / len(once))


def test_the_clustered_interval_matches_a_bootstrap_over_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(150), rng.integers(1, 6, 150))
    events = rng.random(len(groups)) < rng.beta(2, 2, 150)[groups]
    _, ci95 = clustered_proportion(events, groups)
    sums, sizes = np.bincount(groups, weights=events), np.bincount(groups)
    picks = rng.integers(0, 150, (4000, 150))
    shares = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    np.testing.assert_allclose(ci95, np.quantile(shares, (0.025, 0.975)), atol=0.008)
    assert np.diff(ci95) > np.diff(wilson_interval(events.sum(), len(events)))


def test_an_empty_proportion_is_undefined() -> None:
    assert clustered_proportion(np.zeros(0, dtype=bool), np.zeros(0, dtype=int)) == (None, None)


def test_all_successes_count_each_group_once() -> None:
    _, ci95 = clustered_proportion(np.ones(12, dtype=bool), np.repeat([0, 1, 2], 4))
    assert ci95 == pytest.approx(wilson_interval(3, 3))


def hanley_mcneil(area: float, num_pos: int, num_neg: int) -> float:
    """Their variance with both counts replaced by the mean, as Newcombe's method 5 has it."""
    mean = (num_pos + num_neg) / 2
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    square = area**2
    return (area * (1 - area) + (mean - 1) * (q1 - square + q2 - square)) / (num_pos * num_neg)


@given(num_pos=st.integers(1, 500), num_neg=st.integers(1, 500))
def test_the_interval_of_a_perfect_auroc_solves_the_score_equation(num_pos: int, num_neg: int) -> None:
    low, high = perfect_auroc_interval(num_pos, num_neg)
    assert high == 1
    assert 0 < low < 1
    assert 1 - low == pytest.approx(1.959964 * np.sqrt(hanley_mcneil(low, num_pos, num_neg)), rel=1e-6)
    assert perfect_auroc_interval(num_pos + 1, num_neg + 1)[0] > low


def test_bad_counts_are_refused() -> None:
    with pytest.raises(DataError, match="got 3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(DataError, match="got 0 of 0"):
        wilson_interval(0, 0)
    with pytest.raises(DataError, match="got 0 positive and 4 negative"):
        perfect_auroc_interval(0, 4)
    with pytest.raises(DataError, match=r"got \(2,\) and \(3,\)"):
        clustered_proportion(np.ones(2, dtype=bool), np.arange(3))
