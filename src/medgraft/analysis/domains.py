"""How far two sets of images lie apart in a network's features: Fréchet and kernel distance."""

import dataclasses
from collections.abc import Callable
from typing import Final

import numpy as np
import scipy.linalg
from scipy.stats import t

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

_FEW: Final = (
    "{images} images are fewer than twice the {features} features: the noise of the covariance stays in the distance"
)
_SPLITS: Final = 20
"""Divisions into halves."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureStatistics:
    """Mean (d,) and covariance (d, d) of the features of some images; enough for FID, so a source can ship them."""

    mean: np.ndarray
    covariance: np.ndarray
    num_images: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """A distance with its 95 % interval over images.

    Args:
        value: As of endlessly many images.
        ci95: Ends of its interval.
        warning: Why it is to be read with care, or an empty string.
        as_is: Distance of the images at hand, which grows as they get fewer: what other programs print.
    """

    value: float
    ci95: tuple[float, float]
    warning: str = ""
    as_is: float | None = None


def statistics_of(features: np.ndarray) -> FeatureStatistics:
    """Mean and covariance of (N, d) features in float64.

    Args:
        features: One row per image.

    Raises:
        DataError: Fewer than two images, or values that are not finite.
    """
    x = finite_rows(features)
    if len(x) < 2:
        raise DataError(f"expected features of at least two images, got {len(x)}.")
    mean = x.mean(0)
    centred = x - mean
    return FeatureStatistics(mean=mean, covariance=centred.T @ centred / (len(x) - 1), num_images=len(x))


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


def fid_with_interval(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Distance:
    """FID of two sets of features, freed of what few images add, with an interval over the images of both.

    FID of N images exceeds that of endlessly many by about c / N, so twice FID less that of halves is free of it;
    halves of one set share no image, so their difference tells the standard error.

    Args:
        first: (N, d), N at least 4.
        second: (M, d), M at least 4.
        seed: Seeds the division into halves.

    References:
        Chong and Forsyth. Effectively unbiased FID and Inception Score and where to find them. CVPR 2020.
    """
    x, y = _pair(first, second, least=4)
    return _freed(_fid_of_rows, (x, y), min(len(x), len(y)), seed)


def fid_of_statistics(features: np.ndarray, reference: FeatureStatistics, *, seed: int = 0) -> Distance:
    """FID of features to stored statistics of a source, freed of what few images at hand add, with an interval.

    Args:
        features: (N, d), N at least 4.
        reference: Statistics of the source's features at the same layer; taken as they are.
        seed: Seeds the division into halves.
    """
    x = finite_rows(features)
    if len(x) < 4:
        raise DataError(f"expected features of at least 4 images, got {len(x)}.")
    return _freed(lambda rows: fid(statistics_of(rows), reference), (x,), min(len(x), reference.num_images), seed)


def _freed(distance: Callable[..., float], sets: tuple[np.ndarray, ...], num_images: int, seed: int) -> Distance:
    """The distance as of endlessly many images.

    Args:
        distance: Of sets of features.
        sets: (N, d) each.
        num_images: Images of the smaller set.
        seed: Seeds the division into halves.
    """
    rng, told = np.random.default_rng(seed), []
    for _ in range(_SPLITS):
        orders = [rng.permutation(len(rows)) for rows in sets]
        told.append(
            [distance(*(rows[order[part::2]] for rows, order in zip(sets, orders, strict=True))) for part in (0, 1)]
        )
    value, halves, num_features = distance(*sets), np.array(told), sets[0].shape[1]
    means = halves.mean(1)
    freed = 2 * value - float(means.mean())
    # Half the squared difference is the variance of a half, half of that the variance of the whole.
    variance = float(np.square(halves[:, 0] - halves[:, 1]).mean()) / 4 + float(means.var(ddof=1)) / len(means)
    # Squared differences of divisions are about independent of each other: as many degrees of freedom.
    half = float(t.ppf(0.975, len(halves))) * float(np.sqrt(variance))
    return Distance(
        value=max(0.0, freed),
        ci95=(max(0.0, freed - half), max(0.0, freed + half)),
        warning=_FEW.format(images=num_images, features=num_features) if num_images < 2 * num_features else "",
        as_is=value,
    )


def _fid_of_rows(x: np.ndarray, y: np.ndarray) -> float:
    """FID of features; with fewer images than features without their covariances.

    With centred rows X and Y the trace of the root of the product of covariances is the nuclear norm of X Yᵀ.

    Args:
        x: (N, d).
        y: (M, d).
    """
    if max(len(x), len(y)) >= x.shape[1]:
        return fid(statistics_of(x), statistics_of(y))
    rows_x, rows_y = ((rows - rows.mean(0)) / np.sqrt(len(rows) - 1) for rows in (x, y))
    shared = scipy.linalg.svdvals(rows_x @ rows_y.T).sum()
    squares = sum(float(np.square(part).sum()) for part in (x.mean(0) - y.mean(0), rows_x, rows_y))
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


def _pair(first: np.ndarray, second: np.ndarray, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    x, y = finite_rows(first), finite_rows(second)
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < least:
        raise DataError(
            f"expected features (N, d) and (M, d) of at least {least} images each, got {x.shape} and {y.shape}."
        )
    return x, y
