"""How alike two representations of the same images are: CCA and its relatives.

SVCCA, PWCCA, linear CKA and Procrustes need second moments only, so batches are added up and forgotten, and memory
does not grow with the number of images. All arithmetic is float64, on features shifted by the mean of the first
batch, which changes no result and keeps the sums from cancelling.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import scipy.integrate
import scipy.linalg
from scipy.linalg import blas

from medgraft.analysis.rows import finite_rows
from medgraft.errors import DataError

__all__ = [
    "Moments",
    "area_between",
    "canonical_correlations",
    "linear_cka",
    "moments_of",
    "procrustes_distance",
    "pwcca",
    "random_reference",
    "rbf_cka",
    "svcca",
]

_MAX_GRAM: Final = 10_000
_ROWS_AT_ONCE: Final = 2048
_SQUARE_OF_SMALL: Final = 1e-9
# Below this share of the largest eigenvalue a direction is rounding.
_RANK: Final = 1e-12


class Moments:
    """Running sums over pairs of feature rows; enough for every linear similarity here.

    Args:
        num_x: Features of the first representation.
        num_y: Features of the second.
        name: Name of the layer, for errors.
    """

    def __init__(self, num_x: int, num_y: int, name: str = "the features") -> None:
        self.name, self.num_rows = name, 0
        self._shift: tuple[np.ndarray, np.ndarray] | None = None
        self._sums = (np.zeros(num_x), np.zeros(num_y))
        # Column-major, because BLAS adds to them in place; of the symmetric ones the upper triangle.
        self._products = {
            "xx": np.zeros((num_x, num_x), order="F"),
            "yy": np.zeros((num_y, num_y), order="F"),
            "xy": np.zeros((num_x, num_y), order="F"),
        }
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        # For the debiased HSIC: squared lengths, and features weighted by squared lengths.
        self._lengths = {"xx": 0.0, "yy": 0.0, "xy": 0.0, "x": 0.0, "y": 0.0}
        self._weighted = {"xx": np.zeros(num_x), "xy": np.zeros(num_x), "yy": np.zeros(num_y), "yx": np.zeros(num_y)}

    @property
    def widths(self) -> tuple[int, int]:
        """Features of the two representations."""
        return len(self._sums[0]), len(self._sums[1])

    def add(self, x: np.ndarray, y: np.ndarray) -> "Moments":
        """Add rows: (B, p) and (B, q) of the same images in the same order.

        Raises:
            DataError: Different numbers of rows, another width, or values that are not finite.
        """
        x, y = finite_rows(x, self.name), finite_rows(y, self.name)
        wanted = self.widths
        if len(x) != len(y) or (x.shape[1], y.shape[1]) != wanted:
            raise DataError(
                f"expected rows of {wanted[0]} and {wanted[1]} features of the same images at {self.name}, "
                f"got arrays of {x.shape} and {y.shape}."
            )
        if not len(x):
            return self
        if self._shift is None:
            self._shift = x.mean(0), y.mean(0)
        x, y = x - self._shift[0], y - self._shift[1]
        long_x, long_y = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
        self.num_rows += len(x)
        for total, rows in zip(self._sums, (x, y), strict=True):
            total += rows.sum(0)
        self._waiting.append((x, y))
        if sum(len(rows) for rows, _ in self._waiting) >= _ROWS_AT_ONCE:
            self._settle()
        for key, value in {
            "xx": long_x @ long_x, "yy": long_y @ long_y, "xy": long_x @ long_y, "x": long_x.sum(), "y": long_y.sum(),
        }.items():  # fmt: skip
            self._lengths[key] += float(value)
        for key, (rows, lengths) in {
            "xx": (x, long_x), "xy": (x, long_y), "yy": (y, long_y), "yx": (y, long_x),
        }.items():  # fmt: skip
            self._weighted[key] += lengths @ rows
        return self

    def _settle(self) -> None:
        """Add the products of the rows that wait; a few thousand at once keep the processor busy."""
        if not self._waiting:
            return
        x, y = (np.concatenate(rows) for rows in zip(*self._waiting, strict=True))
        self._waiting.clear()
        products = self._products
        for key, rows in (("xx", x), ("yy", y)):
            products[key] = blas.dsyrk(1.0, rows.T, beta=1.0, c=products[key], overwrite_c=1)
        products["xy"] = blas.dgemm(1.0, x.T, y.T, beta=1.0, c=products["xy"], trans_b=1, overwrite_c=1)

    def product(self, pair: str) -> np.ndarray:
        """Sum of the outer products of shifted rows: ``xx``, ``yy`` or ``xy``."""
        self._settle()
        product = self._products[pair]
        return product if pair == "xy" else np.triu(product) + np.triu(product, 1).T

    def covariances(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Σxx (p, p), Σyy (q, q) and Σxy (p, q), about the mean.

        Raises:
            DataError: Fewer than two rows, or features that never change.
        """
        if self.num_rows < 2:
            raise DataError(f"expected at least two images at {self.name}, got {self.num_rows}.")
        (sx, sy), n = self._sums, self.num_rows
        covariances = []
        for key, left, right in (("xx", sx, sx), ("yy", sy, sy), ("xy", sx, sy)):
            covariances.append((self.product(key) - np.outer(left, right) / n) / (n - 1))
        if min(np.trace(covariances[0]), np.trace(covariances[1])) <= 0:
            raise DataError(f"expected features that differ between images at {self.name}, got constant ones.")
        return covariances[0], covariances[1], covariances[2]

    def hsic(self, pair: str) -> float:
        """The unbiased HSIC of linear kernels: ``xx``, ``yy`` or ``xy``.

        References:
            Song et al. Feature selection via dependence maximization. JMLR 2012.
        """
        n, a, b = self.num_rows, pair[0], pair[1]
        if n < 4:
            raise DataError(f"expected at least 4 images at {self.name} for a debiased CKA, got {n}.")
        sums = dict(zip("xy", self._sums, strict=True))
        product = self.product(pair)
        # Kernels without their diagonal: their trace of product, their sums, and the product of their row sums.
        together = float(np.square(product).sum()) - self._lengths[pair]
        total = {k: float(sums[k] @ sums[k]) - self._lengths[k] for k in {a, b}}
        rows = (
            float(sums[a] @ product @ sums[b])
            - float(sums[a] @ self._weighted[a + b])
            - float(sums[b] @ self._weighted[b + a])
            + self._lengths[pair]
        )
        return (together + total[a] * total[b] / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))


def moments_of(batches: Iterable[tuple[np.ndarray, np.ndarray]], name: str = "the features") -> Moments:
    """The moments of all rows of `batches`, each ((B, p), (B, q)).

    Raises:
        DataError: There is no batch, or `Moments.add` refuses one.
    """
    moments: Moments | None = None
    for x, y in batches:
        moments = moments or Moments(np.shape(x)[1], np.shape(y)[1], name)
        moments.add(x, y)
    if moments is None:
        raise DataError(f"expected images to compare at {name}, got none.")
    return moments


def canonical_correlations(pair: Moments) -> np.ndarray:
    """(min(p, q),) canonical correlations, highest first, 0 to 1: cosines of the principal angles.

    Raises:
        DataError: Not more rows than features of both sides together, where every correlation would be 1.
    """
    return svcca(pair, variance=1.0)


def svcca(pair: Moments, *, variance: float = 0.99, max_components: int | None = None) -> np.ndarray:
    """SVCCA coefficients, highest first, 0 to 1: both sides reduced by PCA, then CCA.

    Args:
        pair: Moments of both representations.
        variance: Share of each side's variance that its principal components keep, above 0 and at most 1.
        max_components: At most so many components a side; the remedy where images are few.

    Raises:
        DataError: Too few rows for the components that are left.

    References:
        Raghu et al. SVCCA: singular vector canonical correlation analysis. NeurIPS 2017; as a guide to the cut: Peng
        et al. Rethinking transfer learning for medical image classification. BMVC 2023.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(200, 5))
        >>> [round(float(c), 6) for c in svcca(moments_of([(x, x @ rng.normal(size=(5, 5)))]), variance=1.0)]
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    between, _ = _canonical(pair, variance, max_components)
    coefficients: np.ndarray = np.clip(_singular_values(between), 0, 1)
    return coefficients


def pwcca(pair: Moments, *, variance: float = 0.99, max_components: int | None = None) -> float:
    """Projection-weighted CCA, 0 to 1: the SVCCA coefficients weighted by how much of x each direction explains.

    Args:
        pair: Moments of both representations; x is the one explained.
        variance: Share of each side's variance that its principal components keep, above 0 and at most 1.
        max_components: At most so many components a side; the remedy where images are few.

    References:
        Morcos, Raghu, Bengio. Insights on representational similarity in neural networks with canonical correlation.
        NeurIPS 2018.
    """
    between, whitened = _canonical(pair, variance, max_components)
    u, coefficients, _ = scipy.linalg.svd(between, full_matrices=False, lapack_driver="gesdd")
    directions = whitened @ u
    # A column is a direction with variance 1; its products with every feature of x say how much of x it explains.
    weights = np.abs(directions.T @ pair.covariances()[0]).sum(1)
    return float(np.clip(coefficients, 0, 1) @ weights / weights.sum())


def linear_cka(pair: Moments) -> float:
    """Debiased linear CKA; 1 for equal representations up to rotation and scale, about 0 for unrelated ones.

    References:
        Kornblith et al. Similarity of neural network representations revisited. ICML 2019; debiased as in Nguyen,
        Raghu, Kornblith. Do wide and deep networks learn the same things? ICLR 2021.
    """
    pair.covariances()
    return _cka(pair.hsic("xy"), pair.hsic("xx"), pair.hsic("yy"), pair.name)


def rbf_cka(x: np.ndarray, y: np.ndarray, *, bandwidth: float = 1.0) -> float:
    """Debiased CKA with Gaussian kernels. Memory grows with the square of the images, so at most 10 000.

    Args:
        x: (N, p).
        y: (N, q) of the same images.
        bandwidth: Width of the kernel in units of the median distance between two images, above 0.

    Raises:
        DataError: Fewer than 4 or more than 10 000 images, or constant features.
    """
    if len(x) != len(y) or not 4 <= len(x) <= _MAX_GRAM:
        raise DataError(f"expected 4 to {_MAX_GRAM} images of both sides, got {len(x)} and {len(y)}. Use linear CKA.")
    gram_x, gram_y = _gaussian(x, bandwidth), _gaussian(y, bandwidth)
    return _cka(_unbiased(gram_x, gram_y), _unbiased(gram_x, gram_x), _unbiased(gram_y, gram_y), "the features")


def procrustes_distance(pair: Moments) -> float:
    """0 for representations equal up to rotation, shift and scale, 1 for unrelated ones.

    References:
        Ding, Denain, Steinhardt. Grounding representation similarity through statistical testing. NeurIPS 2021.
    """
    xx, yy, xy = pair.covariances()
    nuclear = scipy.linalg.svdvals(xy).sum()
    return float(np.clip(1 - nuclear / np.sqrt(np.trace(xx) * np.trace(yy)), 0, 1))


def random_reference(
    num_rows: int, num_x: int, num_y: int, *, variance: float = 0.99, max_components: int | None = None, seed: int = 0
) -> np.ndarray:
    """SVCCA coefficients of two unrelated Gaussian representations of the same size: what chance alone gives.

    Args:
        num_rows: Images.
        num_x: Features of the first representation.
        num_y: Features of the second.
        variance: Share of each side's variance that its principal components keep, above 0 and at most 1.
        max_components: At most so many components a side; None for no limit.
        seed: Seeds both representations.
    """
    rng = np.random.default_rng(seed)
    block = 4096
    batches = (
        (rng.standard_normal((size, num_x)), rng.standard_normal((size, num_y)))
        for size in (min(block, num_rows - start) for start in range(0, num_rows, block))
    )
    return svcca(moments_of(batches, "random features"), variance=variance, max_components=max_components)


def area_between(curve: np.ndarray, reference: np.ndarray) -> float:
    """Area between two falling curves of coefficients over the index from 0 to 1; positive where `curve` is higher.

    Examples:
        >>> area_between(np.ones(5), np.zeros(3))
        1.0
    """
    grid = np.linspace(0, 1, 201)
    upper, lower = (np.interp(grid, np.linspace(0, 1, len(line)), line) for line in (curve, reference))
    return float(scipy.integrate.trapezoid(upper - lower, grid))


def _singular_values(matrix: np.ndarray) -> np.ndarray:
    """Singular values, highest first, as roots of the eigenvalues of the smaller product: three times as fast.

    Squaring costs the small ones their digits, so where one is below 3e-5 of a largest of about 1 they are taken from
    the matrix itself.
    """
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares = scipy.linalg.eigvalsh(small @ small.T, driver="evd")
    if squares[0] < _SQUARE_OF_SMALL:
        plain: np.ndarray = scipy.linalg.svdvals(matrix)
        return plain
    roots: np.ndarray = np.sqrt(squares[::-1])
    return roots


def _canonical(pair: Moments, variance: float, max_components: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(k, m) correlations between the whitened principal components of both sides, and the (p, k) directions of x.

    Args:
        pair: Moments of both representations.
        variance: Share of each side's variance that its principal components keep, above 0 and at most 1.
        max_components: At most so many components a side; None for no limit.
    """
    if not 0 < variance <= 1:
        raise DataError(f"expected a share of the variance above 0 and at most 1, got {variance}.")
    xx, yy, xy = pair.covariances()
    left, right = _whitened(xx, variance, max_components), _whitened(yy, variance, max_components)
    needed = left.shape[1] + right.shape[1]
    if pair.num_rows <= needed:
        raise DataError(
            f"expected more than {needed} images at {pair.name} for {left.shape[1]} and {right.shape[1]} components, "
            f"got {pair.num_rows}: every correlation would be 1. Give more images, sample positions of the maps "
            f"instead of pooling them, or take at most {max(1, (pair.num_rows - 1) // 10)} components."
        )
    return left.T @ xy @ right, left


def _whitened(covariance: np.ndarray, variance: float, max_components: int | None) -> np.ndarray:
    """(p, k) leading principal directions, scaled to variance 1.

    Args:
        covariance: (p, p).
        variance: Share of the variance that the directions keep, above 0 and at most 1.
        max_components: At most so many directions; None for no limit.
    """
    values, vectors = scipy.linalg.eigh(covariance, driver="evd", check_finite=False)
    values, vectors = values[::-1], vectors[:, ::-1]
    share = np.cumsum(np.maximum(values, 0)) / np.maximum(values, 0).sum()
    kept = int(np.searchsorted(share, variance - 1e-12) + 1)
    kept = min(kept, int((values > _RANK * values[0]).sum()), max_components or len(values))
    scaled: np.ndarray = vectors[:, :kept] / np.sqrt(values[:kept])
    return scaled


def _cka(together: float, first: float, second: float, name: str) -> float:
    """CKA from three HSIC.

    Args:
        together: HSIC of the first with the second representation.
        first: HSIC of the first with itself.
        second: HSIC of the second with itself.
        name: Name of the layer, for the error.
    """
    if min(first, second) <= 0:
        raise DataError(f"expected features that differ between images at {name}, got nearly constant ones.")
    return together / float(np.sqrt(first * second))


def _gaussian(features: np.ndarray, bandwidth: float) -> np.ndarray:
    x = finite_rows(features)
    x = x - x.mean(0)
    lengths = np.einsum("ij,ij->i", x, x)
    squared = np.maximum(lengths[:, None] + lengths[None] - 2 * x @ x.T, 0)
    middle = float(np.median(squared[np.triu_indices(len(x), 1)]))
    if middle <= 0:
        raise DataError("expected features that differ between images, got constant ones.")
    gram: np.ndarray = np.exp(-squared / (2 * bandwidth**2 * middle))
    return gram


def _unbiased(left: np.ndarray, right: np.ndarray) -> float:
    n = len(left)
    k, l = left - np.diag(np.diag(left)), right - np.diag(np.diag(right))  # noqa: E741 - K and L as in the literature
    rows = float(k.sum(0) @ l.sum(0))
    return float(((k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3)))
