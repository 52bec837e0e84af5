"""The rule against a naïve re-implementation, ties, and what it may see."""

import dataclasses
import inspect

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from medgraft.evaluate.bootstrap import metric_replicates
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.search import choose, is_clearly_behind
from medgraft.search.rule import SURE
from medgraft.search.smoothed import loss_probabilities
from medgraft.types import Predictions

QUICK = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TRUTH = np.arange(60) % 2
GROUPS = np.arange(60) // 4  # Four cases per group, with both classes.


def predictions(signal, seed=0, truth=TRUTH, groups=None):
    """Binary predictions whose quality rises with `signal`; equal seeds share their noise."""
    logits = np.random.default_rng(seed).normal(size=len(truth)) + signal * truth
    positive = 1 / (1 + np.exp(-logits))
    return Predictions(
        probs=np.stack([1 - positive, positive], 1),
        targets=truth,
        groups=np.arange(len(truth)) if groups is None else groups,
        classes=("no", "yes"),
        task="binary",
        positive=1,
    )


def naive(tried, num_params, macs, replicates, seed):
    """Chosen and best index: plain loops, scikit-learn's metric, the case indices repeated."""
    from medgraft.evaluate.replicates import bootstrap_weights

    weights = bootstrap_weights(next(iter(tried.values()))[0], num=replicates, seed=seed).astype(int)

    def value(pred, counts):
        return average_precision_score(np.repeat(pred.targets, counts), np.repeat(pred.probs[:, 1], counts))

    score = {i: np.mean([value(p, np.ones(len(p.targets), int)) for p in ps]) for i, ps in tried.items()}
    best = sorted(tried, key=lambda i: (-score[i], num_params[i]))[0]
    values = {i: np.array([np.mean([value(p, row) for p in ps]) for row in weights]) for i, ps in tried.items()}
    allowed = []
    for index in tried:
        difference = values[best] - values[index]
        if index == best or difference.mean() <= min(difference.std(ddof=1), 0.01):
            allowed.append(index)
    return sorted(allowed, key=lambda i: (num_params[i], macs[i]))[0], best


@given(
    signals=st.lists(st.floats(0, 4), min_size=2, max_size=4),
    num_seeds=st.integers(1, 2),
    is_grouped=st.booleans(),
    seed=st.integers(0, 1000),
)
@QUICK
def test_compact_agrees_with_a_naive_implementation(cuts_of_stages, signals, num_seeds, is_grouped, seed):
    cuts = cuts_of_stages([2, 2, 2])
    groups = GROUPS if is_grouped else None
    tried = {
        index + 2: [predictions(signal, seed + s, groups=groups) for s in range(num_seeds)]
        for index, signal in enumerate(signals)
    }
    num_params = {index: 100 * index for index in tried}
    found = choose(tried, cuts, num_params, "compact", replicates=60, seed=seed)
    macs = {cut.index: cut.macs for cut in cuts}
    assert (found.chosen, found.best) == naive(tried, num_params, macs, 60, seed)
    assert choose(tried, cuts, num_params, "best", replicates=60, seed=seed).chosen == found.best
    by_cut = {candidate.cut: candidate for candidate in found.candidates}
    assert list(by_cut) == sorted(tried)
    assert by_cut[found.chosen].eligible
    assert by_cut[found.best].mean_difference == by_cut[found.best].sd_difference == 0
    assert num_params[found.chosen] <= num_params[found.best]


def test_compact_takes_the_smallest_of_the_indistinguishable(cuts_of_stages):
    good, bad = predictions(3.0), predictions(0.0, seed=1)
    tried = {1: [bad], 3: [good], 5: [good], 6: [good]}
    found = choose(tried, cuts_of_stages([6]), {i: 10 * i for i in tried}, "compact", replicates=100)
    assert found.chosen == found.best == 3
    assert [candidate.eligible for candidate in found.candidates] == [False, True, True, True]


def test_a_loss_of_more_than_a_hundredth_is_too_much_however_noisy(cuts_of_stages):
    # Few cases: the bootstrap SD is wide, so only the limit of 0.01 keeps the weaker cut out.
    truth = np.arange(16) % 2
    tried = {1: [predictions(1.5, seed=2, truth=truth)], 2: [predictions(1.5, seed=5, truth=truth)]}
    found = choose(tried, cuts_of_stages([2]), {1: 10, 2: 20}, "compact", replicates=300)
    small = next(c for c in found.candidates if c.cut != found.best)
    assert 0.01 < small.mean_difference < small.sd_difference
    assert not small.eligible
    assert found.chosen == found.best


def test_equal_parameters_fall_back_to_the_best(cuts_of_stages):
    # As for strategies that keep the whole network at every depth.
    tried = {1: [predictions(2.95)], 2: [predictions(3.0)], 3: [predictions(2.9)]}
    same = dict.fromkeys(tried, 100)
    found = choose(tried, cuts_of_stages([3]), same, "compact", replicates=100)
    assert found.chosen == found.best
    assert found.best == max(found.candidates, key=lambda candidate: candidate.score).cut


def test_ties_of_parameters_go_to_fewer_macs(cuts_of_stages):
    good = predictions(3.0)
    cuts = [dataclasses.replace(cut, macs=macs) for cut, macs in zip(cuts_of_stages([3]), (50, 30, 70), strict=True)]
    tried = {1: [good], 2: [good], 3: [good]}
    found = choose(tried, tuple(cuts), {1: 10, 2: 10, 3: 20}, "compact", replicates=100)
    assert found.chosen == 2


def test_ties_of_the_score_go_to_fewer_parameters(cuts_of_stages):
    good = predictions(3.0)
    found = choose({1: [good], 2: [good]}, cuts_of_stages([2]), {1: 30, 2: 20}, "best", replicates=100)
    assert found.chosen == found.best == 2


def test_one_cut_is_chosen_without_a_contest(cuts_of_stages):
    found = choose({2: [predictions(1.0)]}, cuts_of_stages([3]), {2: 5}, "compact", replicates=100)
    assert (found.chosen, found.best, len(found.candidates)) == (2, 2, 1)


def test_the_score_is_the_mean_over_seeds(cuts_of_stages):
    one, two = predictions(1.0, seed=1), predictions(2.0, seed=2)
    found = choose({1: [one, two]}, cuts_of_stages([1]), {1: 5}, "best", replicates=100)
    wanted = np.mean([average_precision_score(TRUTH, p.probs[:, 1]) for p in (one, two)])
    assert found.candidates[0].score == pytest.approx(wanted, rel=1e-12)


def test_the_choice_depends_on_the_seed_of_the_bootstrap_alone(cuts_of_stages):
    tried = {1: [predictions(0.9, seed=1)], 2: [predictions(1.0)]}
    runs = [choose(tried, cuts_of_stages([2]), {1: 1, 2: 2}, "compact", replicates=100, seed=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0].candidates != runs[2].candidates


def test_the_rule_has_no_door_for_test_data():
    wanted = ["tried", "cuts", "num_params", "rule", "macs", "tolerance", "replicates", "seed"]
    assert list(inspect.signature(choose).parameters) == wanted


def test_the_tolerance_decides_what_compact_may_give_up(cuts_of_stages):
    # Few cases: one SD of the difference is wide, and only the tolerance stands in the way.
    tried = {1: [predictions(1.0, seed=1)], 2: [predictions(1.3, seed=2)]}
    loss, sd = (
        getattr(choose(tried, cuts_of_stages([2]), {1: 1, 2: 2}, "compact").candidates[0], name)
        for name in ("mean_difference", "sd_difference")
    )
    assert 0.01 < loss < sd
    picks = [choose(tried, cuts_of_stages([2]), {1: 1, 2: 2}, "compact", tolerance=t) for t in (0.01, loss * 1.01)]
    assert [(choice.chosen, choice.tolerance) for choice in picks] == [(2, 0.01), (1, loss * 1.01)]


@pytest.mark.parametrize(
    ("signal", "best", "wanted"),
    [(0.0, 4.0, True), (4.0, 0.0, False), (3.0, 3.0, False), (2.6, 3.0, False), (1.0, 4.0, True)],
)
def test_only_a_clear_loss_ends_the_seeds_of_a_cut(signal, best, wanted):
    truth = np.arange(200) % 2
    assert is_clearly_behind(predictions(signal, 1, truth), predictions(best, 2, truth)) is wanted


def test_a_small_sure_loss_and_a_large_unsure_one_are_not_clear():
    truth = np.arange(2000) % 2
    one, best = predictions(3.0, 1, truth), predictions(3.6, 1, truth)
    assert 0.01 < average_precision(best) - average_precision(one) < 0.05
    assert not is_clearly_behind(one, best)
    few = np.array([0, 1] * 6)
    best = dataclasses.replace(one, probs=one.probs[:12], targets=few, groups=np.arange(12))
    swapped = best.probs.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    one = dataclasses.replace(best, probs=swapped)
    assert average_precision(best) - average_precision(one) > 0.05
    assert not is_clearly_behind(one, best)


def average_precision(pred):
    return average_precision_score(pred.targets, pred.probs[:, 1])


@given(
    signals=st.lists(st.floats(0, 4), min_size=5, max_size=7), num_seeds=st.integers(1, 2), seed=st.integers(0, 1000)
)
@QUICK
def test_where_all_cuts_are_seen_compact_asks_how_likely_little_is_lost(cuts_of_stages, signals, num_seeds, seed):
    cuts = cuts_of_stages([len(signals)])
    tried = {
        index: [predictions(signal, seed + s) for s in range(num_seeds)] for index, signal in enumerate(signals, 1)
    }
    num_params = {index: 100 * index for index in tried}
    found = choose(tried, cuts, num_params, "compact", replicates=60, seed=seed)
    weights = bootstrap_weights(tried[1][0], num=60, seed=seed)
    values = [metric_replicates(preds, "auprc", weights) for preds in tried.values()]
    scores = [
        np.mean([average_precision_score(pred.targets, pred.probs[:, 1]) for pred in preds]) for preds in tried.values()
    ]
    sure = loss_probabilities(
        np.array(list(tried)), np.array(scores), np.stack(values, 1), np.full(len(tried), num_seeds), 0.01, seed
    )
    assert [one.probability for one in found.candidates] == pytest.approx(sure.tolist())
    assert found.chosen == next(cut for cut, share in zip(tried, sure, strict=True) if share >= min(SURE, sure.max()))
    assert found.sure == SURE


@pytest.mark.parametrize("missing", [3, 7])
def test_a_gap_between_the_cuts_is_no_curve(cuts_of_stages, missing):
    # The last of them, too: probes, which have no network but a truncated one, are judged as they were.
    tried = {index: [predictions(1.0, seed=index)] for index in range(1, 8) if index != missing}
    found = choose(tried, cuts_of_stages([7]), {index: index for index in tried}, "compact", replicates=60)
    assert found.sure is None
    assert {one.probability for one in found.candidates} == {None}


def test_of_a_whole_curve_a_lucky_cut_does_not_decide(cuts_of_stages):
    """Seven cuts as good as each other but for the luck of few cases: the smallest is kept."""
    tried = {index: [predictions(1.5, seed=7), predictions(1.5, seed=7)] for index in range(1, 8)}
    tried[6] = [predictions(1.52, seed=7)] * 2
    found = choose(tried, cuts_of_stages([7]), {index: index for index in tried}, "compact", replicates=200)
    assert (found.best, found.chosen) == (6, 1)
