"""Distances of domains against torch-fidelity on the same features."""

import numpy as np
import pytest
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_mmd

from medgraft.analysis import fid, fid_of_statistics, fid_with_interval, kid, kid_with_interval, statistics_of
from medgraft.errors import DataError


def sets(num=200, d=12, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d))
    return rng.normal(size=(num, d)) @ mixing, 1.2 * rng.normal(size=(num, d)) @ mixing + shift


@pytest.mark.parametrize("d", [3, 12, 64])
def test_fid_is_that_of_torch_fidelity(d):
    one, two = sets(d=d)
    statistics = [{"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)} for x in (one, two)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fid(statistics_of(one), statistics_of(two)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("d", [3, 12, 64])
def test_kid_is_that_of_torch_fidelity(d):
    one, two = sets(d=d)
    settings = {
        "kid_kernel": "poly",
        "kid_kernel_poly_degree": 3,
        "kid_kernel_poly_gamma": None,
        "kid_kernel_poly_coef0": 1,
    }
    assert kid(one, two) == pytest.approx(kernel_mmd(one, two, **settings), rel=1e-4)


def test_equal_distributions_are_near_and_shifted_ones_far():
    one, two = sets(num=500, d=4)
    half = np.random.default_rng(1).permutation(500)
    near, far = kid_with_interval(one[half[:250]], one[half[250:]]), kid_with_interval(one, two + 2)
    assert near.ci95[0] < 0 < near.ci95[1]
    assert far.ci95[0] > 0
    assert fid(statistics_of(one), statistics_of(one)) == pytest.approx(0, abs=1e-9)


def test_intervals_hold_the_value_and_few_images_are_warned_of():
    one, two = sets(num=100, d=5)
    found = fid_with_interval(one, two, replicates=100)
    assert found.ci95[0] < found.value < found.ci95[1]
    assert found.value == pytest.approx(fid(statistics_of(one), statistics_of(two)))
    assert found.warning == ""
    few = fid_with_interval(*sets(num=20, d=30), replicates=3)
    assert "fewer images (20) than features (30)" in few.warning


def test_a_replicate_is_the_set_of_the_images_it_drew():
    one, _ = sets(num=6, d=2)
    counts = np.array([2, 0, 1, 3, 0, 0])
    drawn = statistics_of(np.repeat(one, counts, axis=0))
    weighted = statistics_of(one, counts)
    np.testing.assert_allclose(weighted.mean, drawn.mean)
    np.testing.assert_allclose(weighted.covariance, drawn.covariance)


def test_what_cannot_be_compared_is_refused():
    one, two = sets(d=4)
    with pytest.raises(DataError, match="of one layer"):
        fid(statistics_of(one), statistics_of(two[:, :3]))
    with pytest.raises(DataError, match="at least two images"):
        kid(one[:1], two)
    with pytest.raises(DataError, match="NaN or infinity"):
        kid(one * np.nan, two)
    with pytest.raises(DataError, match="finite activations"):
        statistics_of(one * np.inf)


def test_few_images_of_many_features_give_the_same_distance():
    one, two = sets(num=20, d=30)
    found = fid_with_interval(one, two[:15], replicates=50)
    assert found.value == pytest.approx(fid(statistics_of(one), statistics_of(two[:15])), rel=1e-6)
    assert found.ci95[0] < found.value < found.ci95[1]


def test_stored_statistics_give_the_distance_of_their_images():
    one, two = sets(num=100, d=5)
    found = fid_of_statistics(one, statistics_of(two), replicates=100)
    assert found.value == pytest.approx(fid(statistics_of(one), statistics_of(two)))
    assert found.ci95[0] < found.value < found.ci95[1]
    assert "fewer images (4) than features (5)" in fid_of_statistics(one, statistics_of(two[:4]), replicates=3).warning
