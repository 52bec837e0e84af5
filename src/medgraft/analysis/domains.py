"""How far two sets of images lie apart in a network's features: Fréchet and kernel distance."""

import dataclasses
from typing import Final

import numpy as np
import scipy.linalg

from medgraft.analysis.rows import finite_rows
from medgraft.errors import DataError

__all__ = [
    "Distance",
    "FeatureStatistics",
    "fid",
    "fid_of_statistics",
    "fid_with_interval",
    "kid",
    "kid_with_interval",
    "statistics_of",
]

_FEW: Final = "fewer images ({images}) than features ({features}): the distance is mostly noise of the covariance"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureStatistics:
    """Mean (d,) and covariance (d, d) of the features of some images; enough for FID, so a source can ship them."""

    mean: np.ndarray
    covariance: np.ndarray
    num_images: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """A distance with its 95 % bootstrap interval over images, and a warning or an empty string."""

    value: float
    ci95: tuple[float, float]
    warning: str = ""


def statistics_of(features: np.ndarray, weights: np.ndarray | None = None) -> FeatureStatistics:
    """Mean and covariance of (N, d) features in float64.

    Args:
        features: One row per image.
        weights: (N,) counts of a bootstrap replicate; None is one each.

    Raises:
        DataError: Fewer than two images, or values that are not finite.
    """
    x = finite_rows(features)
    if len(x) < 2:
        raise DataError(f"expected features of at least two images, got {len(x)}.")
    counts = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = counts.sum()
    mean = counts @ x / total
    centred = (x - mean) * np.sqrt(counts)[:, None]
    return FeatureStatistics(mean=mean, covariance=centred.T @ centred / (total - 1), num_images=round(total))


def fid(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Squared Fréchet distance of two Gaussians, 0 or more.

    References:
        Heusel et al. GANs trained by a two time-scale update rule converge to a local Nash equilibrium. NeurIPS 2017.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> a, b = statistics_of(x), statistics_of(x + 3.0)
        >>> round(fid(a, b), 6)
        18.0
    """
    if first.mean.shape != second.mean.shape:
        raise DataError(f"expected features of one layer, got {len(first.mean)} and {len(second.mean)} features.")
    # The trace of the root of a product of covariances, as singular values of the product of their roots.
    shared = scipy.linalg.svdvals(_root(first.covariance) @ _root(second.covariance)).sum()
    squared = float(np.square(first.mean - second.mean).sum())
    return max(0.0, squared + float(np.trace(first.covariance) + np.trace(second.covariance)) - 2 * float(shared))


def kid(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel (x·y / d + 1)³; about 0 for equal distributions, may be negative.

    Args:
        first: (N, d).
        second: (M, d).

    References:
        Bińkowski, Sutherland, Arbel, Gretton. Demystifying MMD GANs. ICLR 2018.
    """
    x, y = _pair(first, second)
    n, m = len(x), len(y)
    return _kid_from(_kernel(x, x), _kernel(y, y), _kernel(x, y), np.ones(n), np.ones(m))


def fid_with_interval(first: np.ndarray, second: np.ndarray, *, replicates: int = 200, seed: int = 0) -> Distance:
    """FID of two sets of features with a bootstrap interval over the images of both.

    FID of a resampled set is higher than that of the set itself, because repeated images make covariances smaller in
    rank; the interval is shifted by the mean of that.

    Args:
        first: (N, d).
        second: (M, d).
        replicates: Replicates of the bootstrap.
        seed: Seeds the bootstrap.
    """
    x, y = _pair(first, second)
    value = _fid_of_rows(x, y, np.ones(len(x)), np.ones(len(y)))
    rng = np.random.default_rng(seed)
    resampled = [_fid_of_rows(x, y, _counts(rng, len(x)), _counts(rng, len(y))) for _ in range(replicates)]
    return Distance(value=value, ci95=_shifted(resampled, value), warning=_warning(min(len(x), len(y)), x.shape[1]))


def fid_of_statistics(
    features: np.ndarray, reference: FeatureStatistics, *, replicates: int = 200, seed: int = 0
) -> Distance:
    """FID of features to stored statistics of a source, with a bootstrap interval over the images at hand.

    Args:
        features: (N, d).
        reference: Statistics of the source's features at the same layer.
        replicates: Replicates of the bootstrap.
        seed: Seeds the bootstrap.
    """
    x = finite_rows(features)
    value = fid(statistics_of(x), reference)
    rng = np.random.default_rng(seed)
    resampled = [fid(statistics_of(x, _counts(rng, len(x))), reference) for _ in range(replicates)]
    warning = _warning(min(len(x), reference.num_images), x.shape[1])
    return Distance(value=value, ci95=_shifted(resampled, value), warning=warning)


def _shifted(resampled: list[float], value: float) -> tuple[float, float]:
    """Percentiles of replicates, less by what resampling adds on average."""
    low, high = np.quantile(resampled, (0.025, 0.975)) - (np.mean(resampled) - value)
    return max(0.0, float(low)), float(high)


def _fid_of_rows(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """FID of rows that count `a` and `b` times; with fewer images than features without their covariances.

    With centred rows X and Y the trace of the root of the product of covariances is the nuclear norm of X Yᵀ.

    Args:
        x: (N, d) features.
        y: (M, d) features.
        a: (N,) counts of the rows of `x`.
        b: (M,) counts of the rows of `y`.
    """
    if max(len(x), len(y)) >= x.shape[1]:
        return fid(statistics_of(x, a), statistics_of(y, b))
    parts = []
    for rows, counts in ((x, a), (y, b)):
        mean = counts @ rows / counts.sum()
        parts.append((mean, (rows - mean) * np.sqrt(counts / (counts.sum() - 1))[:, None]))
    (mean_x, rows_x), (mean_y, rows_y) = parts
    shared = scipy.linalg.svdvals(rows_x @ rows_y.T).sum()
    squares = sum(float(np.square(part).sum()) for part in (mean_x - mean_y, rows_x, rows_y))
    return max(0.0, squares - 2 * float(shared))


def kid_with_interval(first: np.ndarray, second: np.ndarray, *, replicates: int = 200, seed: int = 0) -> Distance:
    """KID of two sets of features with a bootstrap interval over the images of both.

    Args:
        first: (N, d), N at most a few thousand: kernels are held whole.
        second: (M, d).
        replicates: Replicates of the bootstrap.
        seed: Seeds the bootstrap.
    """
    x, y = _pair(first, second)
    kernels = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    value = _kid_from(*kernels, np.ones(len(x)), np.ones(len(y)))
    rng = np.random.default_rng(seed)
    with np.errstate(invalid="ignore"):  # a replicate that drew one image only has no pairs
        resampled = [_kid_from(*kernels, _counts(rng, len(x)), _counts(rng, len(y))) for _ in range(replicates)]
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    return Distance(value=value, ci95=(float(low), float(high)))


def _kid_from(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Weighted U-statistics: pairs of an image with itself do not count, also when it was drawn twice.

    Args:
        xx: (N, N) kernel of the first images with themselves.
        yy: (M, M) kernel of the second images with themselves.
        xy: (N, M) kernel of the first with the second.
        a: (N,) counts of the first images.
        b: (M,) counts of the second images.
    """
    within = []
    for kernel, counts in ((xx, a), (yy, b)):
        pairs = counts.sum() ** 2 - np.square(counts).sum()
        within.append((counts @ kernel @ counts - np.square(counts) @ np.diag(kernel)) / pairs)
    return float(within[0] + within[1] - 2 * (a @ xy @ b) / (a.sum() * b.sum()))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    product: np.ndarray = (x @ y.T / x.shape[1] + 1) ** 3
    return product


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = scipy.linalg.eigh(covariance, driver="evd")
    root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def _counts(rng: np.random.Generator, num: int) -> np.ndarray:
    return rng.multinomial(num, np.full(num, 1 / num)).astype(np.float64)


def _pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = finite_rows(first), finite_rows(second)
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise DataError(
            f"expected features (N, d) and (M, d) of at least two images each, got {x.shape} and {y.shape}."
        )
    return x, y


def _warning(images: int, features: int) -> str:
    return _FEW.format(images=images, features=features) if images < features else ""
