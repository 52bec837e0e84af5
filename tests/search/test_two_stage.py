"""The two-stage search tries what it should, once, and keeps its budget."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medgraft.search import drive, neighbours, stage_ends, two_stage

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
QUICK = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def searched(cuts, values: Callable[[int], float], max_trials=0):
    calls = []

    def scored(batch):
        calls.extend((cut.index, role) for cut, role in batch)
        return [values(cut.index) for cut, _ in batch]

    return drive(two_stage(cuts, max_trials=max_trials), scored), calls


@given(lengths=LENGTHS)
@QUICK
def test_stage_ends_are_the_last_cuts_of_their_stages(cuts_of_stages, lengths):
    cuts = cuts_of_stages(lengths)
    wanted = [max(cut.index for cut in cuts if cut.stage == stage) for stage in range(len(lengths))]
    assert [cut.index for cut in stage_ends(cuts)] == wanted


@given(lengths=LENGTHS, data=st.data())
@QUICK
def test_neighbours_lie_strictly_inside_the_two_adjoining_stages(cuts_of_stages, lengths, data):
    cuts = cuts_of_stages(lengths)
    ends = [cut.index for cut in stage_ends(cuts)]
    best = cuts[data.draw(st.sampled_from(ends)) - 1]
    place = ends.index(best.index)
    low = ends[place - 1] if place else 0
    high = ends[place + 1] if place + 1 < len(ends) else best.index
    found = [cut.index for cut in neighbours(cuts, best)]
    assert found == sorted(set(found))
    assert all(low < index < max(high, best.index) and index != best.index for index in found)
    assert not set(found) & set(ends)
    # Both direct neighbours are there unless they were tried already.
    for index in (best.index - 1, best.index + 1):
        assert (index in found) == (1 <= index <= len(cuts) and index not in ends)
    assert len(found) <= 4


@given(lengths=LENGTHS, seed=st.randoms(use_true_random=False), max_trials=st.integers(0, 12))
@QUICK
def test_every_cut_is_tried_at_most_once_and_the_budget_is_kept(cuts_of_stages, lengths, seed, max_trials):
    cuts = cuts_of_stages(lengths)
    values = {cut.index: seed.random() for cut in cuts}
    scores, calls = searched(cuts, values.__getitem__, max_trials)
    tried = [index for index, _ in calls]
    assert len(tried) == len(set(tried))
    assert scores == {index: values[index] for index in tried}
    assert tried[0] == len(cuts)
    assert len(tried) <= (max_trials + 1 if max_trials else len(cuts))
    roles = [role for _, role in calls]
    assert roles == sorted(roles, reverse=True)
    ends = [cut.index for cut in stage_ends(cuts)][::-1]
    staged = [index for index, role in calls if role == "stage"]
    assert staged == ends[: len(staged)]
    assert len(staged) == len(ends) or len(tried) == max_trials + 1


@given(lengths=LENGTHS, seed=st.randoms(use_true_random=False))
@QUICK
def test_the_second_stage_looks_around_the_best_of_the_first(cuts_of_stages, lengths, seed):
    cuts = cuts_of_stages(lengths)
    values = {cut.index: seed.random() for cut in cuts}
    _, calls = searched(cuts, values.__getitem__)
    best = max((index for index, role in calls if role == "stage"), key=lambda index: (values[index], -index))
    assert [i for i, role in calls if role == "neighbour"] == [cut.index for cut in neighbours(cuts, cuts[best - 1])]


def test_equal_stage_ends_continue_from_the_lower(cuts_of_stages):
    cuts = cuts_of_stages([4, 4, 4])
    _, calls = searched(cuts, lambda _index: 0.5)
    assert calls[:3] == [(12, "stage"), (8, "stage"), (4, "stage")]
    assert calls[3:] == [(index, "neighbour") for index in (2, 3, 5, 6)]


def test_resnet50_reaches_the_published_cut(cuts_of_stages):
    # 17 cuts: the stem and 3 + 4 + 6 + 3 bottlenecks; the published winner is cut 12, inside stage 3.
    cuts = cuts_of_stages([1, 3, 4, 6, 3])
    scores, _ = searched(cuts, lambda index: -abs(index - 12))
    assert max(scores, key=scores.__getitem__) in (11, 13, 12)
    assert len(scores) <= 9


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1]])
def test_networks_without_neighbours_try_the_stage_ends_alone(cuts_of_stages, lengths):
    scores, calls = searched(cuts_of_stages(lengths), lambda index: index)
    assert set(scores) == set(range(1, len(lengths) + 1))
    assert {role for _, role in calls} == {"stage"}
