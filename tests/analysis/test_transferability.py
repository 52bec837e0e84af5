"""Cheap signals against brute force, and the order they must keep."""

import numpy as np
import pytest
import scipy.optimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from medgraft.analysis import h_score, knn_probs, linear_probe, logme, nleep
from medgraft.errors import DataError
from medgraft.train.classical import Labelled


def cohort(num=90, d=6, signal=1.5, seed=0, num_classes=3):
    """Features with class means apart."""
    rng = np.random.default_rng(seed)
    classes = np.arange(num) % num_classes
    return rng.normal(size=(num, d)) + signal * np.eye(num_classes, d)[classes], classes


@pytest.mark.parametrize("k", [None, 1, 7])
def test_knn_against_a_loop_over_all_pairs(k):
    x, classes = cohort()
    queries, _ = cohort(20, seed=1)
    truth = np.eye(3)[classes]
    found = knn_probs(x, truth, queries, k=k)
    for query, row in zip(queries, found, strict=True):
        cosines = np.array([query @ other / np.linalg.norm(query) / np.linalg.norm(other) for other in x])
        nearest = sorted(range(len(x)), key=lambda i: -cosines[i])[: k or 90]
        weights = np.array([np.exp(cosines[i] / 0.1) for i in nearest])
        np.testing.assert_allclose(row, weights @ truth[nearest] / weights.sum(), atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)


def test_knn_of_many_queries_is_that_of_each():
    x, classes = cohort()
    queries, _ = cohort(1100, seed=1)
    truth = np.eye(3)[classes]
    np.testing.assert_allclose(knn_probs(x, truth, queries)[1050:], knn_probs(x, truth, queries[1050:]))


@pytest.mark.parametrize(("num", "d"), [(60, 4), (20, 30)])
def test_logme_is_the_maximum_of_the_evidence(num, d):
    x, classes = cohort(num, d)
    found = []
    for column in np.eye(3)[classes].T:

        def negative(logs, y=column):
            alpha, beta = np.exp(logs)
            covariance = np.eye(num) / beta + x @ x.T / alpha
            return 0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1]) / num

        starts = [scipy.optimize.minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
                  for start in ((0, 0), (3, 1), (-3, 2))]  # fmt: skip
        found.append(-min(result.fun for result in starts))
    assert logme(x, np.eye(3)[classes]) == pytest.approx(np.mean(found), rel=1e-5)


def test_h_score_is_the_trace_of_the_discriminant_problem():
    x, classes = cohort(300)
    centred = x - x.mean(0)
    means = np.stack([centred[classes == c].mean(0) for c in range(3)])[classes]
    expected = np.trace(np.linalg.inv(centred.T @ centred) @ (means.T @ means))
    assert h_score(x, classes, is_shrunk=False) == pytest.approx(expected, rel=1e-9)
    eigen = LinearDiscriminantAnalysis(solver="eigen").fit(x, classes)
    assert 0 < expected < 2
    assert eigen.score(x, classes) > 0.5
    assert h_score(*cohort(40, 200)) < 2, "shrinking keeps it finite where there are fewer images than features"


def test_nleep_of_well_parted_clusters_is_perfect_and_of_noise_that_of_guessing():
    x, classes = cohort(300, signal=60)
    assert nleep(x, classes) == pytest.approx(0, abs=1e-3)
    noise = np.random.default_rng(0).normal(size=(3000, 6))
    assert nleep(noise, np.arange(3000) % 3) == pytest.approx(np.log(1 / 3), abs=0.02)


def test_nleep_lets_features_of_a_cluster_go_together():
    """Two classes that cross: along every axis by itself they are one."""
    rng, classes = np.random.default_rng(0), np.arange(600) % 2
    along, across = 2 * rng.normal(size=600), 0.1 * rng.normal(size=600)
    x = np.stack([along + across, np.where(classes == 0, along - across, across - along)], axis=1)
    assert nleep(x, classes, energy=0.9999, per_class=1) > -0.15


@pytest.mark.parametrize("measure", [lambda x, c: logme(x, np.eye(3)[c]), h_score, nleep])
def test_better_features_score_higher(measure):
    scores = [measure(*cohort(200, signal=signal)) for signal in (0.0, 1.0, 3.0)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("positive", [0, 1])
def test_a_probe_of_a_binary_task_gives_both_classes(positive):
    x, classes = cohort(80, num_classes=2, signal=3)
    train = Labelled(
        features=x.astype(np.float32), targets=classes, groups=np.arange(80), task="binary", positive=positive, num_classes=2
    )  # fmt: skip
    probs = linear_probe(train, x)
    assert (probs.argmax(1) == classes).mean() > 0.9
    np.testing.assert_allclose(probs.sum(1), 1)


def test_what_cannot_be_scored_is_refused():
    x, classes = cohort()
    broken = np.full_like(x, np.nan)
    truth = np.eye(3)[classes]
    for call in (lambda: knn_probs(broken, truth, x), lambda: logme(broken, truth), lambda: h_score(broken, classes)):
        with pytest.raises(DataError, match="NaN or infinity"):
            call()
    for call in (lambda: knn_probs(x, classes, x), lambda: logme(x, classes), lambda: h_score(x, truth)):
        with pytest.raises(DataError, match="expected"):
            call()
    with pytest.raises(DataError, match="got zeros"):
        logme(np.zeros((9, 2)), np.eye(3)[np.arange(9) % 3])
    with pytest.raises(DataError, match="constant"):
        nleep(np.ones((9, 2)), np.arange(9) % 3)


def test_shares_of_neighbours_are_probabilities():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 16)).astype(np.float32)
    found = knn_probs(features, np.eye(2)[np.ones(500, dtype=int)], rng.normal(size=(400, 16)))
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_logme_is_finite_where_images_are_fewer_than_features(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num, width = rng.integers(5, 60), rng.integers(5, 90)
    features = rng.normal(size=(num, width)) * rng.gamma(0.3, size=width)
    assert np.isfinite(logme(features, np.eye(3)[rng.integers(0, 3, num)]))
