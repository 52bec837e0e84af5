"""Distances of domains against torch-fidelity on the same features."""

import numpy as np
import pytest
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_mmd

from medgraft.analysis import fid, fid_of_statistics, fid_with_interval, kid, kid_with_interval, statistics_of
from medgraft.analysis.domains import FeatureStatistics
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
    found = fid_with_interval(one, two)
    assert found.ci95[0] < found.value < found.ci95[1]
    assert found.as_is == pytest.approx(fid(statistics_of(one), statistics_of(two)))
    assert found.value < found.as_is
    assert found.warning == ""
    few = fid_with_interval(*sets(num=20, d=30))
    assert "20 images are fewer than twice the 30 features" in few.warning


@pytest.mark.parametrize(("num", "d"), [(80, 16), (300, 16), (400, 32)])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_distance_is_that_of_endlessly_many_images(num, d, shift):
    """As they are, 80 images of 16 features lie .7 to 2.6 apart where their sources do not differ, or by 1.8."""
    mixing = np.random.default_rng(5).normal(size=(d, d)) / np.sqrt(d)
    scales = 1.0, 1.3 if shift else 1.0
    true = fid(
        *(
            FeatureStatistics(mean=np.full(d, s / np.sqrt(d)), covariance=k**2 * mixing @ mixing.T, num_images=9)
            for s, k in zip((0.0, shift), scales, strict=True)
        )
    )
    covered, values, plain = 0, [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        one, two = (
            s / np.sqrt(d) + k * rng.normal(size=(num, d)) @ mixing.T for s, k in zip((0.0, shift), scales, strict=True)
        )
        found = fid_with_interval(one, two)
        covered += found.ci95[0] <= true <= found.ci95[1]
        values.append(found.value)
        plain.append(found.as_is)
    assert covered >= 34
    assert abs(np.mean(values) - true) < 0.15 * (np.mean(plain) - true)


def test_what_cannot_be_compared_is_refused():
    one, two = sets(d=4)
    with pytest.raises(DataError, match="of one layer"):
        fid(statistics_of(one), statistics_of(two[:, :3]))
    with pytest.raises(DataError, match="at least 2 images"):
        kid(one[:1], two)
    for call in (lambda: fid_with_interval(one[:3], two), lambda: fid_of_statistics(one[:3], statistics_of(two))):
        with pytest.raises(DataError, match="at least 4 images"):
            call()
    with pytest.raises(DataError, match="NaN or infinity"):
        kid(one * np.nan, two)
    with pytest.raises(DataError, match="finite activations"):
        statistics_of(one * np.inf)


def test_few_images_of_many_features_give_the_same_distance():
    one, two = sets(num=20, d=30)
    found = fid_with_interval(one, two[:15])
    assert found.as_is == pytest.approx(fid(statistics_of(one), statistics_of(two[:15])), rel=1e-6)
    assert found.ci95[0] < found.value < found.ci95[1]


def test_stored_statistics_give_the_distance_of_their_images():
    one, two = sets(num=100, d=5)
    found = fid_of_statistics(one, statistics_of(two))
    assert found.as_is == pytest.approx(fid(statistics_of(one), statistics_of(two)))
    assert found.ci95[0] < found.value < found.ci95[1]
    assert found.value < found.as_is
    assert "9 images are fewer than twice the 5 features" in fid_of_statistics(one, statistics_of(two[:9])).warning
