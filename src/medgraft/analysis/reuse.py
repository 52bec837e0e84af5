"""How transfer changed a network: each cut before against after, and each block against each other one."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from medgraft.analysis.rows import finite_rows
from medgraft.analysis.similarity import Moments, random_reference, svcca
from medgraft.errors import DataError

__all__ = ["SMALLEST_BATCH", "CkaSums", "Reuse", "add_cuts", "most_components", "reuse_of"]

SMALLEST_BATCH: Final = 4

# A direction of CCA estimated from fewer images than this is mostly chance.
_IMAGES_PER_COMPONENT: Final = 10

Rows = Mapping[int, np.ndarray]


def add_cuts(moments: dict[int, Moments], first: Rows, second: Rows, names: Mapping[int, str]) -> None:
    """Add one batch to the moments of every cut that two networks share, in place.

    Args:
        moments: By cut index; a cut that is not there yet begins.
        first: Cut index to rows in the first network.
        second: Cut index to rows in the second, for the same images in the same order.
        names: Cut index to name, for errors.

    Raises:
        DataError: Rows of different images, or activations that are not finite.
    """
    for index in first.keys() & second.keys():
        if index not in moments:
            widths = first[index].shape[1], second[index].shape[1]
            moments[index] = Moments(*widths, names.get(index, f"cut {index}"))
        moments[index].add(first[index], second[index])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reuse:
    """SVCCA coefficients between two representations, and those of random features of the same size."""

    coefficients: np.ndarray
    reference: np.ndarray


def most_components(pair: Moments) -> int:
    """Principal components a side that the images at hand can carry: one per ten."""
    return max(1, pair.num_rows // _IMAGES_PER_COMPONENT)


def reuse_of(pair: Moments) -> Reuse:
    """SVCCA beside chance, with at most `most_components` a side.

    Raises:
        DataError: Too few rows, or constant features.
    """
    most = most_components(pair)
    return Reuse(coefficients=svcca(pair, max_components=most), reference=_chance(pair.num_rows, *pair.widths, most))


@functools.cache
def _chance(num_rows: int, num_x: int, num_y: int, most: int) -> np.ndarray:
    """SVCCA coefficients of two unrelated representations of that size.

    Args:
        num_rows: Images.
        num_x: Features of the first representation.
        num_y: Features of the second.
        most: Principal components a side.
    """
    # It depends on sizes alone, and several cuts and comparisons share these.
    return random_reference(num_rows, num_x, num_y, max_components=most)


class CkaSums:
    """Linear CKA of every layer of one network with every layer of another, or of itself, batch by batch.

    The unbiased HSIC is averaged over batches, so memory does not grow with the images; every batch holds the same
    images for all layers.

    References:
        Nguyen, Raghu, Kornblith. Do wide and deep networks learn the same things? ICLR 2021.
    """

    def __init__(self) -> None:
        self._sums: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def add(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> "CkaSums":
        """Add a batch: the rows (B, p) of each layer of the first and of the second network, B at least 4.

        Raises:
            DataError: The batch is too small, its rows differ, or an activation is not finite.
        """
        left = _centred_grams(first)
        right = left if second is first else _centred_grams(second)
        if left.shape[1:] != right.shape[1:]:
            raise DataError(
                f"expected the same images for both networks, got {left.shape[1]} and {right.shape[1]} rows."
            )
        parts = (
            np.einsum("aij,bij->ab", left, right, optimize=True),
            np.einsum("aij,aij->a", left, left),
            np.einsum("bij,bij->b", right, right),
        )
        before = self._sums or tuple(np.zeros_like(part) for part in parts)
        self._sums = (before[0] + parts[0], before[1] + parts[1], before[2] + parts[2])
        return self

    def matrix(self) -> np.ndarray:
        """(L1, L2) CKA; 1 for equal representations up to rotation and scale.

        Raises:
            DataError: No batch was added, or a layer is constant.
        """
        if self._sums is None:
            raise DataError(f"expected batches of at least {SMALLEST_BATCH} images, got none.")
        together, first_lengths, second_lengths = self._sums
        for lengths in (first_lengths, second_lengths):
            if lengths.min() <= 0:
                raise DataError(
                    f"expected features that differ between images, got constant ones at layer {int(lengths.argmin())}."
                )
        matrix: np.ndarray = together / np.sqrt(np.outer(first_lengths, second_lengths))
        return matrix


def _centred_grams(layers: Sequence[np.ndarray]) -> np.ndarray:
    """(L, B, B) U-centred linear kernels: zero diagonal and zero row sums, whose products are the unbiased HSIC.

    References:
        Székely, Rizzo. Partial distance correlation with methods for dissimilarities. Ann Stat 2014.
    """
    grams = []
    for number, rows in enumerate(layers):
        x = finite_rows(rows, f"layer {number}")
        n = len(x)
        if n < SMALLEST_BATCH:
            raise DataError(f"expected batches of at least {SMALLEST_BATCH} images, got {n}. Use larger batches.")
        x = x - x.mean(0)
        k = x @ x.T
        np.fill_diagonal(k, 0)
        sums = k.sum(0)
        k = k - (sums[:, None] + sums[None]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(k, 0)
        grams.append(k)
    return np.stack(grams)
