"""The guided search spends what it may, goes on where it stood, and takes the rule's word."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgraft.errors import ConfigError
from medgraft.search import Candidate, Choice, ShortTraining, affordable, cuts_to_try, drive, halving, within_budget

QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def choice_of(scores: dict[int, float], chosen: int | None = None) -> Choice:
    best = max(scores, key=lambda cut: scores[cut])
    candidates = tuple(
        Candidate(
            cut=cut, name=str(cut), score=score, mean_difference=0.0, sd_difference=0.0, num_params=cut, macs=cut,
            eligible=True,
        )
        for cut, score in sorted(scores.items())
    )  # fmt: skip
    return Choice(rule="compact", tolerance=0.01, chosen=chosen or best, best=best, candidates=candidates)


@given(st.integers(2, 60), st.data())
@QUICK
def test_the_cuts_to_try_are_truncations_and_begin_with_the_rules_own(num_cuts: int, data: st.DataObject) -> None:
    chosen, best = (data.draw(st.integers(1, num_cuts)) for _ in range(2))
    found = cuts_to_try(choice_of({chosen: 0.5, best: 0.9} | {num_cuts: 0.1}, chosen), num_cuts)
    assert found[0] == min(chosen, num_cuts - 1)
    assert len(set(found)) == len(found)
    assert all(1 <= cut < num_cuts for cut in found)


def test_a_network_with_one_cut_has_nothing_to_try() -> None:
    assert cuts_to_try(choice_of({1: 0.9}), 1) == []
    choice, rungs = drive(halving([], {1: 1.0}, 1.0), lambda _: choice_of({1: 0.9}))
    assert (choice.chosen, rungs) == (1, ())


@given(st.integers(3, 30), st.integers(1, 60), st.floats(0.2, 2.0), st.data())
@QUICK
def test_the_budget_is_kept_and_rungs_shrink(num_cuts: int, ftl_epochs: int, extra: float, data: st.DataObject) -> None:
    cost = {cut: cut / num_cuts for cut in range(1, num_cuts + 1)}
    scores = {cut: data.draw(st.floats(0, 1)) for cut in cost}
    wanted = cuts_to_try(choice_of(scores, data.draw(st.sampled_from(sorted(cost)))), num_cuts)
    spent: list[tuple[int, int, int]] = []
    budget = extra * ftl_epochs

    def judge(batch: Sequence[ShortTraining]) -> Choice:
        spent.extend((one.cut, one.epochs, one.rung) for one in batch)
        return choice_of({cut: scores[cut] for cut in (*(cut for cut, _, _ in spent), num_cuts)})

    try:
        choice, rungs = drive(halving(wanted, cost, budget), judge)
    except ConfigError:
        assert cost[wanted[0]] > budget
        return
    assert sum(cost[cut] * epochs for cut, epochs, _ in spent) <= budget + 1e-6
    assert [(cut, epochs) for cuts, epochs in rungs for cut in cuts] == [(cut, epochs) for cut, epochs, _ in spent]
    assert all(set(later) < set(earlier) or len(earlier) == 1 for (earlier, _), (later, _) in itertools.pairwise(rungs))
    assert choice.chosen in (*rungs[0][0], num_cuts)


def test_the_better_half_goes_on_and_the_last_word_is_the_newest() -> None:
    scores = {1: {8: 0.80, 6: 0.70, 10: 0.85, 4: 0.60}, 2: {10: 0.86, 8: 0.90}}
    trained: list[tuple[int, int, int]] = []

    def judge(batch: Sequence[ShortTraining]) -> Choice:
        trained.extend((one.cut, one.epochs, one.rung) for one in batch)
        return choice_of({cut: scores[rung][cut] for cut, _, rung in trained} | {16: 0.5})

    choice, rungs = drive(halving([8, 6, 10, 4, 12], dict.fromkeys(range(1, 17), 1.0), 20.0), judge)
    assert rungs == (((8, 6, 10, 4), 2), ((10, 8), 6))
    assert choice.chosen == 8


def test_the_whole_network_may_win() -> None:
    choice, rungs = drive(
        halving([3, 2], {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}, 8.0), lambda _: choice_of({3: 0.5, 2: 0.5, 4: 0.9})
    )
    assert choice.chosen == 4
    assert len(rungs) == 2


def test_too_little_money_is_said() -> None:
    with pytest.raises(ConfigError, match="one epoch at cut 3"):
        drive(halving([3], {3: 2.0}, 1.0), lambda _: choice_of({3: 0.5}))
    assert affordable([3], {3: 2.0}, 1.0) == ((), 0)


@given(st.integers(2, 30), st.floats(0.05, 3.0), st.data())
@QUICK
def test_whole_trainings_stay_within_the_budget_in_the_order_wanted(
    num_cuts: int, budget: float, data: st.DataObject
) -> None:
    cost = {cut: cut / num_cuts for cut in range(1, num_cuts)}
    wanted = cuts_to_try(choice_of({data.draw(st.sampled_from(sorted(cost))): 0.9}), num_cuts)
    if budget < min(cost.values()) or (len(wanted) and wanted[0] == 1 and budget < cost[1]):
        with pytest.raises(ConfigError, match=r"search\.extra"):
            within_budget(wanted, cost, budget)
        return
    found = within_budget(wanted, cost, budget)
    assert found
    assert sum(cost[cut] for cut in found) <= budget
    if cost[wanted[0]] <= budget:
        assert found == [cut for cut in wanted if cut in found]
        assert found[0] == wanted[0]


def test_a_first_choice_too_dear_gives_way_to_the_next_that_is_paid_for() -> None:
    cost = {1: 0.2, 2: 0.5, 3: 0.7, 4: 0.9}
    assert within_budget([4, 2], cost, 0.8) == [2]
    assert within_budget([4], cost, 0.8) == [3]
    assert within_budget([], cost, 0.8) == []
