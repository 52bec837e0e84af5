"""What frozen features promise for a task, without training a network: kNN, LogME, H-score, N-LEEP, linear probe.

All take features (N, d) of labelled images; multilabel tasks are scored label by label and averaged. Higher is better.
"""

from typing import Final

import numpy as np
import scipy.linalg
from scipy.special import expit, softmax
from sklearn.covariance import ledoit_wolf
from sklearn.mixture import GaussianMixture

from medgraft.analysis.rows import finite_rows
from medgraft.errors import DataError
from medgraft.train.classical import Labelled, fit_linear

__all__ = ["h_score", "knn_probs", "linear_probe", "logme", "nleep"]

_BLOCK: Final = 512
_MAX_STEPS: Final = 1000


def knn_probs(
    train: np.ndarray, targets: np.ndarray, queries: np.ndarray, *, k: int | None = None, temperature: float = 0.1
) -> np.ndarray:
    """(M, C) class shares among the nearest training images, weighted by exp(cosine / temperature).

    Args:
        train: (N, d) features.
        targets: (N, C) 0 and 1.
        queries: (M, d).
        k: Neighbours; None is min(200, N).
        temperature: Above 0.

    Raises:
        DataError: Shapes that do not fit, or values that are not finite.

    References:
        Matsoukas et al. What makes transfer learning work for medical images. CVPR 2022; as in Caron et al., DINO,
        ICCV 2021.

    Examples:
        >>> knn_probs(np.eye(2), np.eye(2), np.array([[3.0, 0.0]]), k=1).tolist()
        [[1.0, 0.0]]
    """
    x, queries = _checked(train), _checked(queries)
    truth = np.asarray(targets, dtype=np.float64)
    if truth.ndim != 2 or len(truth) != len(x) or queries.shape[1] != x.shape[1]:
        raise DataError(f"expected (N, C) targets of N = {len(x)} images, got {truth.shape}; or other features.")
    k = min(k or 200, len(x))
    x, queries = _unit(x), _unit(queries)
    shares = []
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ x.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = softmax(np.take_along_axis(similarity, nearest, axis=1) / temperature, axis=1)
        shares.append(np.einsum("mk,mkc->mc", weights, truth[nearest]))
    # Two hundred shares that make up one can add up to a little more.
    return np.concatenate(shares).clip(0, 1)


def linear_probe(train: Labelled, queries: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities (M, C) of a logistic regression solved to convergence on frozen features; binary: both classes.

    Args:
        train: Training features with their truth.
        queries: (M, d).
        seed: Seeds the divisions that choose the penalty.

    Raises:
        DataError: A class has too few groups for a division.
    """
    weight, bias = (tensor.double().numpy() for tensor in fit_linear(train, seed))
    logits = _checked(queries) @ weight.T + bias
    if train.task == "multiclass":
        return np.asarray(softmax(logits, axis=1))
    if train.task == "multilabel":
        return np.asarray(expit(logits))
    positive = expit(logits[:, 0])
    return np.stack((1 - positive, positive) if train.positive in (None, 1) else (positive, 1 - positive), axis=1)


def logme(features: np.ndarray, targets: np.ndarray) -> float:
    """Logarithm of maximum evidence per image of a linear model on the features, mean over classes.

    Args:
        features: (N, d).
        targets: (N, C) 0 and 1; or real values.

    Raises:
        DataError: Shapes that do not fit, constant features, or values that are not finite.

    References:
        You, Liu, Wang, Long. LogME: practical assessment of pre-trained models for transfer learning. ICML 2021.
    """
    x = _checked(features)
    truth = np.asarray(targets, dtype=np.float64)
    if truth.ndim != 2 or len(truth) != len(x):
        raise DataError(f"expected (N, C) targets of N = {len(x)} images, got {truth.shape}.")
    u, s, _ = scipy.linalg.svd(x, full_matrices=False)
    if s[0] <= 0:
        raise DataError("expected features that differ between images, got zeros.")
    return float(np.mean([_evidence(u, s, column, x.shape[1]) for column in truth.T]))


def _evidence(u: np.ndarray, s: np.ndarray, y: np.ndarray, d: int) -> float:
    """Maximum over alpha and beta of the log evidence of y = Fw + noise, divided by N (fixed point of MacKay).

    Args:
        u: (N, r) left singular vectors of the features.
        s: (r,) singular values, the largest above 0.
        y: (N,) one target of each image.
        d: Features of an image.
    """
    n = len(y)
    projected = (u.T @ y) ** 2
    outside = float(max(y @ y - projected.sum(), 0.0))
    squares = s**2
    most = 1e12 * n / max(float(y @ y), 1e-12)
    alpha = beta = 1.0
    for _ in range(_MAX_STEPS):
        gamma = float((beta * squares / (alpha + beta * squares)).sum())
        weights = float((projected * squares * beta**2 / (alpha + beta * squares) ** 2).sum())
        residual = outside + float((projected * alpha**2 / (alpha + beta * squares) ** 2).sum())
        new_alpha = gamma / max(weights, 1e-300)
        new_beta = (n - gamma) / max(residual, 1e-300)
        # With fewer images than features all is explained in the end and nothing is left for noise: there the evidence
        # has no maximum, and the last pair above rounding counts.
        is_possible = 0 < new_alpha < np.inf and 0 < new_beta < most
        if not is_possible or new_alpha > 1e12 * squares[0] * max(new_beta, 1):
            break
        is_done = abs(new_alpha - alpha) <= 1e-10 * alpha and abs(new_beta - beta) <= 1e-10 * beta
        alpha, beta = new_alpha, new_beta
        if is_done:
            break
    weights = float((projected * squares * beta**2 / (alpha + beta * squares) ** 2).sum())
    residual = outside + float((projected * alpha**2 / (alpha + beta * squares) ** 2).sum())
    logdet = float(np.log(alpha + beta * squares).sum()) + (d - len(s)) * np.log(alpha)
    total = n * np.log(beta) + d * np.log(alpha) - n * np.log(2 * np.pi) - beta * residual - alpha * weights - logdet
    return float(total / (2 * n))


def h_score(features: np.ndarray, targets: np.ndarray, *, is_shrunk: bool = True) -> float:
    """Variance between classes in units of the features' own covariance; at most C − 1.

    Args:
        features: (N, d).
        targets: (N,) class indices.
        is_shrunk: Covariance after Ledoit and Wolf, without which N near d gives noise.

    References:
        Bao et al. An information-theoretic approach to transferability. ICIP 2019; shrunk as in Ibrahim et al.
        Newer is not always better: rethinking transferability metrics. ECML 2022.
    """
    x, classes = _checked(features), np.asarray(targets)
    if classes.ndim != 1 or len(classes) != len(x):
        raise DataError(f"expected one class index per image, got {classes.shape} for {len(x)} images.")
    x = x - x.mean(0)
    means = np.zeros_like(x)
    for value in np.unique(classes):
        means[classes == value] = x[classes == value].mean(0)
    between = means.T @ means / len(x)
    covariance, shrinkage = ledoit_wolf(x, assume_centered=True) if is_shrunk else (x.T @ x / len(x), 0.0)
    scored = scipy.linalg.lstsq(covariance, between * (1 - shrinkage), lapack_driver="gelsd")[0]
    return float(np.trace(scored))


def nleep(
    features: np.ndarray, targets: np.ndarray, *, energy: float = 0.8, per_class: int = 5, seed: int = 0
) -> float:
    """Mean log likelihood of the labels given soft clusters of the features: 0 is perfect, lower is worse.

    Args:
        features: (N, d).
        targets: (N,) class indices.
        energy: Share of the variance that the principal components keep.
        per_class: Clusters per class.
        seed: Seeds the clustering.

    References:
        Li et al. Ranking neural checkpoints. CVPR 2021.
    """
    x, classes = _checked(features), np.asarray(targets)
    values, index = np.unique(classes, return_inverse=True)
    num = min(per_class * len(values), len(x) // 2)
    if len(classes) != len(x) or num < 2:
        raise DataError(f"expected at least 4 images with one class index each, got {len(x)} and {len(classes)}.")
    u, s, _ = scipy.linalg.svd(x - x.mean(0), full_matrices=False)
    if s[0] <= 0:
        raise DataError("expected features that differ between images, got constant ones.")
    kept = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), energy) + 1)
    reduced = u[:, :kept] * (s[:kept] / s[0])
    mixture = GaussianMixture(num, covariance_type="full", random_state=seed, reg_covar=1e-6).fit(reduced)
    clusters = mixture.predict_proba(reduced)
    joint = np.eye(len(values))[index].T @ clusters / len(x)
    conditional = joint / np.maximum(joint.sum(0), 1e-300)
    likelihood = np.take_along_axis(clusters @ conditional.T, index[:, None], axis=1)
    return float(np.log(np.maximum(likelihood, 1e-300)).mean())


def _checked(features: np.ndarray) -> np.ndarray:
    x = finite_rows(features)
    if not len(x):
        raise DataError("expected features of at least one image, got none.")
    return x


def _unit(x: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return scaled
