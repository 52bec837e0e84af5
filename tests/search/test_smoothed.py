"""Probabilities of small losses against integrals and against what they promise."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from medgraft.search import smoothed
from medgraft.search.smoothed import loss_probabilities


def replicates_of(scores, covariance, num=4000, seed=0):
    """Replicates whose covariance is just this one."""
    drawn = np.random.default_rng(seed).normal(size=(num, len(scores)))
    drawn = np.linalg.solve(np.linalg.cholesky(np.cov(drawn.T)), (drawn - drawn.mean(0)).T).T
    return scores + drawn @ np.linalg.cholesky(covariance).T


def test_of_two_cuts_it_is_the_integral_over_all_curves():
    index, scores, covariance = np.array([3, 8]), np.array([0.85, 0.87]), np.array([[4e-4, 2e-4], [2e-4, 5e-4]])
    found = loss_probabilities(index, scores, replicates_of(scores, covariance), np.array([1, 2]), 0.01)
    noise = covariance + np.diag([1e-4, 5e-5])
    # Of two scores with a free constant the difference says all.
    along = np.array([1.0, -1.0])
    total, shares = 0.0, np.zeros(2)
    for length in (1.0, 2.0, 4.0):
        away = np.sqrt(5) * abs(np.sqrt(3) - np.sqrt(8)) / length
        for height in (0.03, 0.1, 0.3):
            of_curve = 2 * height**2 * (1 - (1 + away + away**2 / 3) * np.exp(-away))
            of_noise = along @ noise @ along
            evidence = norm.pdf(-0.02, 0, np.sqrt(of_curve + of_noise))
            mean = -0.02 * of_curve / (of_curve + of_noise)
            sd = np.sqrt(of_curve * of_noise / (of_curve + of_noise))
            total += evidence
            shares += evidence * np.array([norm.sf(-0.01, mean, sd), norm.cdf(0.01, mean, sd)])
    np.testing.assert_allclose(found, shares / total, atol=0.03)


def test_the_posterior_is_that_of_a_constant_with_a_wide_prior():
    rng = np.random.default_rng(0)
    scores, root = rng.normal(0.8, 0.05, 5), rng.normal(0, 0.02, (5, 5))
    prior, noise = 0.01 * smoothed._matern(np.arange(5) / 2), root @ root.T + 1e-4 * np.eye(5)
    mean, covariance, evidence = smoothed._posterior(scores, prior, noise)
    wide = prior + 1e4
    gain = wide @ np.linalg.inv(wide + noise)
    np.testing.assert_allclose(mean, gain @ scores, atol=1e-5)
    np.testing.assert_allclose(covariance, wide - gain @ wide, atol=1e-5)
    other = smoothed._posterior(scores, 4 * prior, noise)[2]
    expected = [multivariate_normal(np.zeros(5), p + 1e4 + noise).logpdf(scores) for p in (prior, 4 * prior)]
    assert evidence - other == pytest.approx(expected[0] - expected[1], abs=1e-3)


def test_a_clear_best_is_sure_and_equal_cuts_share_it():
    index = np.arange(1, 9)
    scores = np.linspace(0.6, 0.95, 8)
    sure = loss_probabilities(index, scores, replicates_of(scores, 1e-5 * np.eye(8)), np.full(8, 3), 0.01)
    assert sure[-1] > 0.99
    assert sure[:6].max() < 0.01
    flat = np.full(8, 0.9)
    # Cases that all cuts share say nothing of their differences.
    shared = loss_probabilities(
        index, flat, replicates_of(flat, 4e-4 * np.ones((8, 8)) + 1e-6 * np.eye(8)), np.full(8, 3), 0.01
    )
    assert shared.min() > 0.6


def test_neighbours_pull_down_a_lucky_cut():
    index = np.arange(1, 10)
    scores = np.full(9, 0.80)
    scores[4] = 0.86
    found = loss_probabilities(index, scores, replicates_of(scores, 9e-4 * np.eye(9)), np.ones(9), 0.02)
    assert found[4] < 0.9
    assert found[3] > 0.35


def test_one_cut_is_the_best():
    assert loss_probabilities(np.array([4]), np.array([0.8]), np.full((10, 1), 0.8), np.array([1]), 0.01).tolist() == [
        1.0
    ]
