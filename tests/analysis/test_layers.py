"""One pass reads every cut as truncating the network there would, on every family."""

import numpy as np
import pytest
import torch

from families import EVERY_FAMILY, source_of
from medgraft.analysis import CkaSums, CutReader, add_cuts, linear_cka, moments_of, sample_positions
from medgraft.cuts.truncate import truncate_traced
from medgraft.errors import CutError, DataError
from medgraft.transfer import HeadSettings, apply_strategy
from medgraft.transfer.heads import pool_features

HEAD = HeadSettings(num_outputs=2)


@EVERY_FAMILY
def test_one_pass_reads_what_truncation_at_each_cut_gives(name, size):
    source = source_of(name, size)
    model, _ = apply_strategy("ftl", source, source.cuts[-1], HEAD, lr=0.1, seed=0)
    images = torch.rand(2, 3, size, size)
    found = CutReader(model, source.cuts)(images)
    assert list(found) == [cut.index for cut in source.cuts]
    chosen = source.cuts[:: max(1, len(source.cuts) // 4)]
    with torch.inference_mode():
        for cut in chosen:
            trunk = truncate_traced(source.backbone.network, source.trace, cut).eval()
            expected = pool_features(trunk(model.normalise(images)), cut.channel_axis)
            torch.testing.assert_close(found[cut.index], expected, rtol=1e-5, atol=1e-6)


def test_a_truncated_model_is_read_up_to_its_end_and_keeps_working():
    source = source_of("resnet18", 64)
    whole, _ = apply_strategy("ftl", source, source.cuts[-1], HEAD, lr=0.1, seed=0)
    short, _ = apply_strategy("ttl", source, source.cuts[4], HEAD, lr=0.1, seed=0)
    images = torch.rand(2, 3, 64, 64)
    before = short.eval()(images)
    one, two = CutReader(whole, source.cuts)(images), CutReader(short, source.cuts[:5])(images)
    assert list(two) == [1, 2, 3, 4, 5]
    assert all(torch.equal(one[index], two[index]) for index in two)
    assert torch.equal(short(images), before)
    with pytest.raises(CutError, match="ends at"):
        CutReader(short, source.cuts)


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 5, 4, 6), 1), ((3, 24, 5), -1), ((3, 4, 6, 5), -1), ((3, 5, 2, 3, 4), 1)]
)
def test_positions_are_sampled_alike_and_without_repetition(shape, axis):
    features = torch.rand(shape)
    rows = sample_positions(features, axis, 7)
    assert rows.shape == (21, 5)
    assert torch.equal(rows, sample_positions(features, axis, 7))
    every = sample_positions(features, axis, 1000)
    assert every.shape == (3 * 24, 5)
    assert len({tuple(row) for row in rows.tolist()}) == 21
    assert {tuple(row) for row in rows.tolist()} <= {tuple(row) for row in every.tolist()}


def test_vertical_similarity_of_a_network_with_itself_is_one():
    rng = np.random.default_rng(0)
    moments = {}
    for x in rng.normal(size=(5, 20, 4)):
        add_cuts(moments, {1: x, 2: x[:, :2], 3: x}, {1: x, 2: x[:, :2]}, {1: "stem", 2: "layer1.0"})
    assert sorted(moments) == [1, 2]
    assert [linear_cka(moments[index]) for index in (1, 2)] == pytest.approx([1, 1])
    with pytest.raises(DataError, match=r"finite activations at layer3\.1,"):
        add_cuts({}, {1: np.full((5, 2), np.nan)}, {1: np.ones((5, 2))}, {1: "layer3.1"})


def test_the_matrix_is_the_debiased_cka_of_each_pair():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6))
    layers = [x, np.maximum(x, 0), rng.normal(size=(50, 3))]
    matrix = CkaSums().add(layers, layers).matrix()
    for a in range(3):
        for b in range(3):
            assert matrix[a, b] == pytest.approx(linear_cka(moments_of([(layers[a], layers[b])])), abs=1e-9)


def test_batches_of_the_matrix_average_to_the_whole_for_unrelated_layers():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3000, 4))
    sums = CkaSums()
    for i in range(0, 3000, 60):
        sums.add([x[i : i + 60]], [y[i : i + 60]])
    assert sums.matrix()[0, 0] == pytest.approx(0, abs=0.03)


def test_batches_that_say_nothing_are_refused():
    rows = np.random.default_rng(0).normal(size=(9, 4))
    with pytest.raises(DataError, match="got none"):
        CkaSums().matrix()
    with pytest.raises(DataError, match="at least 4"):
        CkaSums().add([rows[:3]], [rows[:3]])
    with pytest.raises(DataError, match="same images"):
        CkaSums().add([rows], [rows[:8]])
    with pytest.raises(DataError, match="constant"):
        CkaSums().add([np.ones((9, 2))], [rows]).matrix()
    with pytest.raises(DataError, match="finite"):
        CkaSums().add([rows * np.nan], [rows])
