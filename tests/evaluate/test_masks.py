"""Results of masks: intervals over groups, paired comparisons, classes apart, seeds."""

import dataclasses
import re

import numpy as np
import pytest

from medgraft.errors import DataError
from medgraft.evaluate.bootstrap import as_seeds, metric_replicates, paired_difference
from medgraft.evaluate.comparison import compare
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import site_results, summarise
from medgraft.metrics.measures import measure_of
from medgraft.search.rule import choose, is_clearly_behind
from medgraft.types import Cut, Overlaps


def overlaps(share: float, seed: int = 0, num: int = 40, per_group: int = 2, num_classes: int = 1) -> Overlaps:
    """Masks of a hundred pixels of which about `share` are found; both of a group alike."""
    rng = np.random.default_rng(seed)
    hits = np.repeat(rng.normal(100 * share, 8, (num // per_group, num_classes)), per_group, axis=0).clip(0, 100)
    both = np.rint(hits).astype(np.int64)
    counts = np.stack([np.full_like(both, 100), np.full_like(both, 100), both], -1)
    return Overlaps(
        counts=counts, groups=np.repeat(np.arange(num // per_group), per_group),
        classes=tuple(f"c{n}" for n in range(num_classes)), surfaces=np.stack([100 - both, both / 100], -1),
    )  # fmt: skip


def test_intervals_take_groups_whole():
    found = overlaps(0.8)
    alone = dataclasses.replace(found, groups=np.arange(40))
    widths = []
    for one in (found, alone):
        low, high = summarise(one, bootstrap_weights(one, 2000)).scores["dice"].ci95
        assert low < 0.8 < high
        widths.append(high - low)
    # Two images of a patient that agree are worth one.
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(2), rel=0.1)


def test_classes_are_told_apart_and_seeds_have_a_spread():
    one, two = (overlaps(0.7, seed, num_classes=2) for seed in (0, 1))
    result = summarise([one, two], bootstrap_weights(one, 200))
    assert set(result.scores) == set(measure_of(one).metrics(one))
    values = [float((2 * found.counts[..., 2] / 200).mean()) for found in (one, two)]
    assert result.scores["dice"].value == pytest.approx(values[0])
    assert result.scores["dice"].mean == pytest.approx(np.mean(values))
    assert result.scores["dice"].sd == pytest.approx(np.std(values, ddof=1))
    assert result.per_class["c1"].scores["dice"].value == pytest.approx(float((one.counts[:, 1, 2] / 100).mean()))
    assert result.scores["hd95"].value == pytest.approx(float(one.surfaces[..., 0].mean()))
    assert summarise(one, bootstrap_weights(one, 100)).scores["dice"].sd is None


def test_without_surfaces_areas_are_told_alone():
    found = dataclasses.replace(overlaps(0.7), surfaces=None)
    assert measure_of(found).metrics(found) == ("dice", "pooled_dice", "jaccard")
    assert "hd95" not in summarise(found, bootstrap_weights(found, 100)).scores


def test_the_verdict_is_about_mean_dice_on_the_same_replicates():
    good, bad = overlaps(0.8), overlaps(0.6)
    found = compare(bad, good, 0.02, name="The small one")
    assert found.verdict == "worse"
    assert "mean Dice difference" in found.sentence
    assert set(found.difference) == set(measure_of(good).metrics(good))
    assert compare(good, good, 0.02).verdict == "non-inferior"
    # What both share of a case's difficulty cancels: the difference is surer than either value.
    harder = dataclasses.replace(good, counts=good.counts - np.array([0, 0, 2]))
    weights = bootstrap_weights(good, 500)
    gap = paired_difference(harder, good, "dice", weights)
    assert gap.value == pytest.approx(-0.02)
    assert gap.ci95[1] - gap.ci95[0] < 0.1 * np.ptp(metric_replicates(good, "dice", weights))


def test_models_on_other_cases_are_not_compared():
    one = overlaps(0.8)
    with pytest.raises(DataError, match="same cases"):
        as_seeds([one, dataclasses.replace(one, groups=one.groups + 1)])
    with pytest.raises(DataError, match="same cases"):
        as_seeds([one, dataclasses.replace(one, counts=one.counts + np.array([0, 1, 0]))])
    with pytest.raises(DataError, match="same cases"):
        as_seeds([one, dataclasses.replace(one, classes=("other",))])


def cut(index: int) -> Cut:
    return Cut(
        index=index, name=str(index), stage=index, channels=1, stride=2, num_params=index, macs=index, shape=(1,),
        channel_axis=1, tap="", tap_side="output",
    )  # fmt: skip


def test_the_rule_takes_the_smallest_cut_whose_dice_is_not_behind():
    best = overlaps(0.8, 3)
    # By a pixel worse in the mean, but better in every second patient.
    shifts = np.where(best.groups % 2, -5, 4)[:, None, None] * np.array([0, 0, 1])
    close = dataclasses.replace(best, counts=best.counts + shifts)
    # Three pixels worse in every case: sure, and within what may be given up only if that is said.
    sure = dataclasses.replace(best, counts=best.counts - np.array([0, 0, 3]))
    surely = choose({2: [sure], 3: [best]}, tuple(map(cut, (2, 3))), {2: 20, 3: 30}, "compact")
    assert surely.chosen == 3
    assert (
        choose({2: [sure], 3: [best]}, tuple(map(cut, (2, 3))), {2: 20, 3: 30}, "compact", tolerance=0.04).chosen == 2
    )
    tried = {1: [overlaps(0.5)], 2: [close], 3: [best]}
    sizes = {1: 10, 2: 20, 3: 30}
    compact = choose(tried, tuple(map(cut, (1, 2, 3))), sizes, "compact")
    assert (compact.best, compact.chosen) == (3, 2)
    assert choose(tried, tuple(map(cut, (1, 2, 3))), sizes, "best").chosen == 3
    assert is_clearly_behind(tried[1][0], tried[3][0])
    assert not is_clearly_behind(tried[2][0], tried[3][0])


@pytest.mark.parametrize(("num", "word"), [(1, "inconclusive"), (5, "inconclusive"), (6, "better")])
def test_a_handful_of_patients_proves_nothing(num: int, word: str) -> None:
    good = overlaps(0.9, num=num, per_group=1)
    bad = dataclasses.replace(good, counts=good.counts - np.array([0, 0, 9]))
    found = compare(good, bad, 0.02)
    assert found.verdict == word
    assert bool(re.search("proves? nothing", found.sentence)) == (word == "inconclusive")
    # No sign test of so few has a smaller p.
    assert found.difference["dice"].p >= 2.0 ** (1 - num)


def test_sites_are_told_apart_where_they_have_enough_patients() -> None:
    found = overlaps(0.8, num=40, per_group=2)
    sites = ["north"] * 24 + ["south"] * 10 + [None] * 6
    result = site_results(found, sites, num=100)
    assert result["north"].num_groups == 12
    assert result["north"].scores["dice"].value == pytest.approx(float((found.counts[:24, 0, 2] / 100).mean()))
    assert result["south"].reason == "fewer than 10 groups: 5"
    assert "(not stated)" in result
