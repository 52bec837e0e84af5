"""Signals of every cut equal what truncating the network at each gives, and overlaps what their definition says."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from medgraft.analysis import linear_probe, moments_of, svcca
from medgraft.analysis.networks import ProbedCuts, probe_cuts
from medgraft.errors import DataError
from medgraft.listener import Listener
from medgraft.search import overlap_share, overlapping_cut, reuse_at_cuts
from medgraft.train.features import FeatureReader, extract_features
from medgraft.transfer import HeadSettings, apply_strategy


def whole(context, seed=0):
    torch.manual_seed(seed)
    return apply_strategy("ftl", context.source, context.source.cuts[-1], HeadSettings(num_outputs=1), lr=1.0, seed=0)[
        0
    ]


def probed(model, context, seed) -> ProbedCuts:
    return probe_cuts(model, context.source.cuts, context.study, context.engine, seed, Listener())


def test_probes_equal_those_of_the_truncated_networks(context) -> None:
    found = probed(whole(context), context, seed=3)
    assert sorted(found.said) == [cut.index for cut in context.source.cuts]
    for cut in context.source.cuts:
        model, _ = apply_strategy("ttl", context.source, cut, HeadSettings(num_outputs=1), lr=1.0, seed=0)
        reader = FeatureReader(model)
        train, val = (
            extract_features(reader, data, context.engine) for data in (context.study.train, context.study.val)
        )
        np.testing.assert_allclose(found.train[cut.index], train, rtol=1e-5, atol=1e-6)
        wanted = linear_probe(context.study.labelled(train), val, 3)
        np.testing.assert_allclose(found.said[cut.index].probs, wanted, rtol=1e-5)
        np.testing.assert_array_equal(found.said[cut.index].targets, context.study.val.targets)


def test_reuse_is_one_where_nothing_changed_and_less_where_it_did(context) -> None:
    before = whole(context)
    same = reuse_at_cuts(before, whole(context), context)
    for one in same.values():
        np.testing.assert_allclose(one.coefficients, 1, atol=1e-6)
        assert len(one.coefficients) <= max(1, len(context.study.train) // 10)
    other = whole(context)
    with torch.no_grad():
        for parameter in other.trunk.parameters():
            parameter.copy_(torch.randn_like(parameter))
    changed = reuse_at_cuts(before, other, context)
    reader = FeatureReader(before), FeatureReader(other)
    x, y = (extract_features(one, context.study.train, context.engine) for one in reader)
    last = context.source.cuts[-1].index
    np.testing.assert_allclose(changed[last].coefficients, svcca(moments_of([(x, y)]), max_components=3), atol=1e-6)
    assert changed[last].coefficients.mean() < 0.999


def test_a_sample_is_drawn_with_its_seed_and_keeps_rows_together(context) -> None:
    one, again, other = (context.study.sample(10, seed) for seed in (0, 0, 1))
    assert 10 <= len(one.train) <= 15
    assert np.bincount(one.train.targets).min() >= 5
    np.testing.assert_array_equal(one.train.rows, again.train.rows)
    assert set(one.train.rows) != set(other.train.rows)
    for row, target, group in zip(one.train.rows, one.train.targets, one.train_groups, strict=True):
        place = list(context.study.train.rows).index(row)
        assert (context.study.train.targets[place], context.study.train_groups[place]) == (target, group)
    assert len(context.study.sample(10_000, 0).train) == len(context.study.train)


def test_features_that_are_not_finite_are_refused_by_name(context) -> None:
    broken = whole(context)
    with torch.no_grad():
        next(broken.trunk.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="finite"):
        reuse_at_cuts(whole(context), broken, context)
    with pytest.raises(DataError, match="finite"):
        probed(broken, context, 0)


def test_the_overlap_is_what_kolmogorov_and_smirnov_leave() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.3, 0.8, 2.0):
        one, two = rng.random(40) + shift, rng.random(25)
        assert overlap_share(one, two) == pytest.approx(1 - ks_2samp(one, two).statistic)
    with pytest.raises(DataError, match="coefficients"):
        overlap_share(np.zeros(0), np.ones(3))


def test_the_cut_is_the_first_that_overlaps_enough() -> None:
    assert overlapping_cut({3: 0.9, 1: 0.2, 2: 0.5}) == 2
    assert overlapping_cut({1: 0.2, 2: 0.4}, least=0.3) == 2
    assert overlapping_cut({1: 0.2, 2: 0.4, 3: 0.1}) == 3


def test_signals_never_read_what_is_neither_training_nor_validation(context) -> None:
    context.study.train.images.read.clear()
    probed(whole(context), context, 0)
    reuse_at_cuts(whole(context), whole(context), dataclasses.replace(context))
    assert context.study.train.images.read <= set(range(48))


def test_a_sample_keeps_some_of_a_rare_class(context) -> None:
    targets = np.zeros(len(context.study.train), dtype=np.int64)
    targets[[3, 17]] = 1
    rare = dataclasses.replace(context.study, train=dataclasses.replace(context.study.train, targets=targets))
    for seed in range(5):
        assert rare.sample(8, seed).train.targets.sum() == 2
