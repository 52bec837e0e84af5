"""Similarities against independent references, and what must not change them."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import medgraft.analysis.similarity as room
from medgraft.analysis import (
    Moments,
    area_between,
    canonical_correlations,
    linear_cka,
    moments_of,
    procrustes_distance,
    pwcca,
    random_reference,
    rbf_cka,
    svcca,
)
from medgraft.errors import DataError


def pair(num=120, p=6, q=4, seed=0, signal=1.0):
    """Two correlated feature matrices with large means, as features behind a ReLU have."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(num, 3))
    x = signal * hidden @ rng.normal(size=(3, p)) + rng.normal(size=(num, p)) + 50
    y = signal * hidden @ rng.normal(size=(3, q)) + rng.normal(size=(num, q)) - 20
    return x, y


def batched(x, y, size=17):
    """The same rows in batches."""
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def rotation(p, seed=0):
    """A random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(p, p)))[0]


def plain_hsic(k, l):  # noqa: E741
    """The unbiased estimator written as the sum over distinct quadruples' sufficient terms, from full matrices."""
    n = len(k)
    k, l = k.copy(), l.copy()  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)
    return (
        np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / (n - 1) / (n - 2) - 2 / (n - 2) * (one @ k @ l @ one)
    ) / (n * (n - 3))


@pytest.mark.parametrize(("p", "q"), [(6, 4), (3, 9), (5, 5)])
def test_correlations_are_the_cosines_of_the_principal_angles(p, q):
    x, y = pair(p=p, q=q)
    expected = np.cos(scipy.linalg.subspace_angles(x - x.mean(0), y - y.mean(0)))
    found = canonical_correlations(moments_of(batched(x, y)))
    np.testing.assert_allclose(found, np.sort(expected)[::-1], atol=1e-6)


def test_svcca_is_cca_of_the_principal_components():
    x, y = pair(num=300, p=30, q=20)
    found = svcca(moments_of(batched(x, y)), variance=0.9)
    reduced = []
    for features in (x, y):
        centred = features - features.mean(0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        kept = np.searchsorted(np.cumsum(s**2) / (s**2).sum(), 0.9) + 1
        reduced.append(u[:, :kept] * s[:kept])
    expected = np.cos(scipy.linalg.subspace_angles(*reduced))
    np.testing.assert_allclose(found, np.sort(expected)[::-1], atol=1e-8)


def test_pwcca_weighs_by_what_a_direction_explains():
    x, y = pair(num=300)
    centred = x - x.mean(0)
    u = np.linalg.svd(centred, full_matrices=False)[0]
    v = np.linalg.svd(y - y.mean(0), full_matrices=False)[0]
    left, coefficients, _ = np.linalg.svd(u.T @ v, full_matrices=False)
    variates = u @ left
    weights = np.abs(variates.T @ centred).sum(1)
    expected = (coefficients * weights).sum() / weights.sum()
    assert pwcca(moments_of(batched(x, y)), variance=1.0) == pytest.approx(expected, abs=1e-9)


def test_debiased_linear_cka_against_whole_kernels():
    x, y = pair(num=40)
    k, l = x @ x.T, y @ y.T  # noqa: E741 - features are not centred: the estimator does that
    expected = plain_hsic(k, l) / np.sqrt(plain_hsic(k, k) * plain_hsic(l, l))
    assert linear_cka(moments_of(batched(x, y))) == pytest.approx(expected, rel=1e-6)


def test_rbf_cka_against_whole_kernels():
    x, y = pair(num=40)
    kernels = []
    for features in (x, y):
        squared = scipy.spatial.distance.cdist(features, features, "sqeuclidean")
        kernels.append(np.exp(-squared / (2 * np.median(squared[np.triu_indices(40, 1)]))))
    k, l = kernels  # noqa: E741
    expected = plain_hsic(k, l) / np.sqrt(plain_hsic(k, k) * plain_hsic(l, l))
    assert rbf_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_procrustes_against_the_best_rotation():
    x, y = pair(p=5, q=5)
    _, _, disparity = scipy.spatial.procrustes(x, y)
    # scipy scales the second matrix to fit best: 1 - nuclear², with both of length 1.
    assert procrustes_distance(moments_of(batched(x, y))) == pytest.approx(1 - np.sqrt(1 - disparity), abs=1e-9)


@pytest.mark.parametrize("measure", [linear_cka, lambda m: 1 - procrustes_distance(m), pwcca, lambda m: svcca(m).min()])
@given(seed=st.integers(0, 20), scale=st.floats(0.01, 100))
def test_a_representation_equals_itself_turned_scaled_and_shifted(measure, seed, scale):
    x, _ = pair(p=6, seed=seed)
    other = scale * x @ rotation(6, seed) + 7
    assert measure(moments_of(batched(x, other))) == pytest.approx(1, abs=1e-6)


def test_rbf_cka_of_a_turned_and_scaled_copy_is_one():
    x, _ = pair(p=6)
    assert rbf_cka(x, 3 * x @ rotation(6) + 7) == pytest.approx(1, abs=1e-9)


def test_cca_does_not_mind_any_invertible_map_but_cka_does():
    x, _ = pair(p=6)
    skewed = x @ np.diag([100.0, 1, 1, 1, 1, 0.01]) @ rotation(6)
    pair_of = moments_of([(x, skewed)])
    np.testing.assert_allclose(canonical_correlations(pair_of), 1, atol=1e-6)
    assert linear_cka(pair_of) < 0.9


def test_unrelated_rows_give_no_debiased_cka_and_the_random_reference():
    x, y = pair(num=400, p=8, q=8)
    values = []
    for seed in range(60):
        shuffled = np.random.default_rng(seed).permutation(400)
        values.append(linear_cka(moments_of([(x, y[shuffled])])))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert linear_cka(moments_of([(x, y)])) > np.max(values)
    shuffled = svcca(moments_of([(x, y[np.random.default_rng(0).permutation(400)])]), variance=1.0)
    reference = random_reference(400, 8, 8, variance=1.0)
    assert area_between(shuffled, reference) == pytest.approx(0, abs=0.05)


@given(cut=st.integers(1, 119), seed=st.integers(0, 5))
def test_batches_do_not_matter(cut, seed):
    x, y = pair(seed=seed)
    whole, parts = moments_of([(x, y)]), moments_of([(x[:cut], y[:cut]), (x[cut:], y[cut:])])
    np.testing.assert_allclose(svcca(whole), svcca(parts), atol=1e-9)
    assert linear_cka(whole) == pytest.approx(linear_cka(parts), abs=1e-9)


def test_large_means_cost_no_digits():
    x, y = pair()
    near, far = moments_of(batched(x, y)), moments_of(batched(x + 1e6, y - 1e6))
    np.testing.assert_allclose(svcca(near), svcca(far), atol=1e-6)
    assert linear_cka(near) == pytest.approx(linear_cka(far), abs=1e-6)


def test_memory_does_not_grow_with_the_images():
    moments = Moments(3, 2)
    sizes = []
    for _ in range(3):
        moments.add(np.random.default_rng(0).normal(size=(50, 3)), np.zeros((50, 2)))
        sizes.append(sum(value.nbytes for value in moments._products.values()))
    assert len(set(sizes)) == 1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.full((9, 2), np.nan), np.ones((9, 2)), "NaN or infinity"),
        (np.ones((9, 2)), np.ones((8, 2)), "of the same images"),
        (np.ones((9, 2, 2)), np.ones((9, 2)), r"shape \(N, d\) at layer3\.1"),
    ],
)
def test_what_cannot_be_compared_is_refused(x, y, message):
    with pytest.raises(DataError, match=message):
        Moments(2, 2, "layer3.1").add(x, y)


def test_constant_features_and_too_few_images_are_refused():
    x, y = pair(num=9)
    with pytest.raises(DataError, match=r"more than 10 images at layer3\.1.*9.*at most 1 comp"):
        canonical_correlations(moments_of([(x, y)], "layer3.1"))
    with pytest.raises(DataError, match="got constant ones"):
        svcca(moments_of([(np.ones((9, 3)), y)]))
    with pytest.raises(DataError, match="got none"):
        moments_of([])
    with pytest.raises(DataError, match="at least 4 images"):
        linear_cka(moments_of([(x[:3], y[:3])]))
    with pytest.raises(DataError, match="Use linear CKA"):
        rbf_cka(x[:3], y[:3])
    assert svcca(moments_of([(x, y)]), max_components=2).shape == (2,)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
@pytest.mark.parametrize("smallest", [0.5, 1e-3, 1e-5, 0.0])
def test_singular_values_keep_their_digits_whatever_the_smallest(shape, smallest):
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in shape)
    values = np.sort(np.append(rng.random(min(shape) - 1), smallest))[::-1]
    middle = np.zeros(shape)
    np.fill_diagonal(middle, values)
    np.testing.assert_allclose(room._singular_values(u @ middle @ v.T), values, atol=1e-11)
