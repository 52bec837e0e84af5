"""How likely each cut loses little against the best one, when the scores of neighbouring cuts tell of each other.

Scores of some hundred validation cases differ by luck more than cuts do. What is known beside them is that the quality
of a cut changes smoothly with its depth, how the bootstrap says that their luck goes together, and how much another
training changes. A Gaussian process on the square root of the index (early cuts change most) puts the three together.
"""

import itertools
from typing import Final

import numpy as np

__all__ = ["loss_probabilities"]

_LUCK: Final = 0.01
"""Standard deviation of a validation score between trainings."""
_LENGTHS: Final = (1.0, 2.0, 4.0)
"""Over what stretch of √index a curve changes."""
_HEIGHTS: Final = (0.03, 0.1, 0.3)
"""By how much, in units of the score."""
_DRAWS: Final = 2000


def loss_probabilities(
    index: np.ndarray,
    scores: np.ndarray,
    replicates: np.ndarray,
    num_trainings: np.ndarray,
    tolerance: float,
    seed: int = 0,
) -> np.ndarray:
    """(K,) probability of each cut that it scores at most `tolerance` less than the best of the K.

    The curve is a constant of any size plus a Gaussian process with Matérn's covariance (5/2); its length and height
    are averaged over by their evidence. The noise is the covariance of the replicates and the luck of training.

    Args:
        index: (K,) indices of the cuts.
        scores: (K,) validation scores, means over trainings.
        replicates: (R, K) the same of bootstrap replicates, the same for all cuts.
        num_trainings: (K,) trainings behind each score.
        tolerance: In units of the score.
        seed: Seeds the draws from the posterior.

    References:
        Rasmussen and Williams, Gaussian processes for machine learning, MIT Press, 2006 (sections 2.7 and 5.4.1).

    Examples:
        >>> scores, noise = np.array([0.7, 0.8, 0.9, 0.9]), np.random.default_rng(0).normal(0, 0.01, (500, 4))
        >>> loss_probabilities(np.arange(1, 5), scores, scores + noise, np.full(4, 3), 0.01).round(1).tolist()
        [0.0, 0.0, 0.4, 0.9]
    """
    noise = np.atleast_2d(np.cov(replicates.T)) + np.diag(_LUCK**2 / num_trainings + 1e-9)
    posteriors = [
        _posterior(scores, height**2 * _matern(np.sqrt(index) / length), noise)
        for length, height in itertools.product(_LENGTHS, _HEIGHTS)
    ]
    evidence = np.array([posterior[2] for posterior in posteriors])
    share = np.exp(evidence - evidence.max())
    rng = np.random.default_rng(seed)
    drawn = []
    for (mean, covariance, _), count in zip(posteriors, rng.multinomial(_DRAWS, share / share.sum()), strict=True):
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        drawn.append(mean + rng.standard_normal((count, len(index))) @ root.T)
    curves = np.concatenate(drawn)
    return np.asarray((curves >= curves.max(axis=1, keepdims=True) - tolerance).mean(axis=0))


def _matern(places: np.ndarray) -> np.ndarray:
    away = np.sqrt(5) * np.abs(places[:, None] - places)
    correlation: np.ndarray = (1 + away + away**2 / 3) * np.exp(-away)
    return correlation


def _posterior(scores: np.ndarray, prior: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of a curve given its scores, and the logarithm of the evidence but for a constant.

    Args:
        scores: (K,).
        prior: (K, K) covariance of the curve about its constant.
        noise: (K, K) covariance of the scores about the curve.
    """
    both = prior + noise
    ones, gain = np.linalg.solve(both, np.ones(len(scores))), np.linalg.solve(both, prior)
    precision = float(ones.sum())
    constant = float(ones @ scores) / precision
    left = scores - constant
    weighted = np.linalg.solve(both, left)
    # What the curve does not explain of a constant is what the constant's own error adds.
    unexplained = 1 - prior @ ones
    covariance = prior - prior @ gain + np.outer(unexplained, unexplained) / precision
    evidence = -0.5 * (float(left @ weighted) + float(np.linalg.slogdet(both)[1]) + float(np.log(precision)))
    return constant + prior @ weighted, covariance, evidence
