"""Equal and nearly equal images, without comparing all with all.

A perceptual hash proposes pairs, two correlations of thumbnails confirm them. The bounds were set on two
real sets, PneumoniaMNIST (5 856 chest films of 28 px) and BUSI (780 ultrasound images, many of them scanned
twice). Within 8 bits the hash proposes 12 181 and 215 pairs. Asking for a correlation of .96 as a whole and
.80 in fine detail leaves 0 and 182. With .93 and .70 it would be 204 in BUSI, and the ones looked at were
repeated scans too, but 263 in PneumoniaMNIST, of different children. A hash alone proves nothing among images
that all show the same anatomy.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from medgraft.data.audit.alignment import blur_matrix
from medgraft.data.audit.findings import NearPair
from medgraft.data.decoded.fingerprint import THUMBNAIL, quarters

__all__ = [
    "NearDuplicates",
    "exact_sets",
    "hash_pairs",
    "near_duplicates",
    "similarity",
    "MAX_BITS",
]

MAX_BITS: Final = 8
"""Bits of the hash that may differ in a proposed pair; more proposed no further pair in BUSI."""
MIN_SHAPE: Final = 0.96
"""Least correlation of the thumbnails."""
MIN_DETAIL: Final = 0.80
"""Least correlation of their fine detail."""
FIRST_LOOK: Final = 0.85
"""Least correlation without alignment; two pixels of shift cost a true pair less than this allows."""
SHIFT: Final = 2
SIGMA: Final = 3.0
MAX_CANDIDATES: Final = 200_000
BLOCK: Final = 1 << 16
"""Pairs looked at in one go: small enough to stay in the processor's cache and out of the memory bill."""
BATCH: Final = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Confirmed pairs, most alike first.

    Args:
        pairs: Pairs of rows.
        num_proposed: Pairs that the hash proposed and the pixels were asked about.
        bits: Bits of the hash that could differ; lower than usual where the hash proposed too many pairs,
            and -1 where even equal hashes were too many to ask about all.
    """

    pairs: tuple[NearPair, ...]
    num_proposed: int
    bits: int


def exact_sets(digests: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Sets of two or more rows with equal digests, in order of their first row.

    Args:
        digests: (N,) of any comparable or void type.

    Examples:
        >>> exact_sets(np.array([b"x", b"y", b"x", b"x"]))
        ((0, 2, 3),)
    """
    # NumPy cannot sort void records, and its byte strings forget trailing zeros.
    inverse = pd.factorize(np.array(digests.tolist(), dtype=object))[0]
    rows = np.flatnonzero(np.bincount(inverse)[inverse] > 1)
    order = rows[np.argsort(inverse[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(inverse[order])) + 1
    return tuple(sorted(tuple(part.tolist()) for part in np.split(order, edges) if len(part)))


def hash_pairs(hashes: np.ndarray, max_bits: int = MAX_BITS, limit: int = MAX_CANDIDATES) -> tuple[np.ndarray, int]:
    """All pairs of hashes that differ in at most `max_bits` bits, closest first, and the bound that held.

    Two such hashes agree in at least one of ``max_bits + 1`` pieces, so only rows with an equal piece are
    compared; where pieces are so common that this costs more than comparing all, all are compared, in blocks.
    Whenever more than `limit` pairs have come together the bound is lowered until they fit; at -1 there are
    more pairs of equal hashes than that, and only the first are returned.

    Args:
        hashes: (N,) uint64.
        max_bits: 0 to 16.
        limit: Most pairs to return.

    Returns:
        (P, 2) int64 with first < second, and the bound in bits.

    References:
        Norouzi, Punjani, Fleet, Fast exact search in Hamming space with multi-index hashing, TPAMI 2014.

    Examples:
        >>> pairs, bound = hash_pairs(np.array([0, 1, 2**63], np.uint64), max_bits=1)
        >>> pairs.tolist(), bound
        ([[0, 1], [0, 2]], 1)
    """
    hashes = hashes.astype(np.uint64)
    edges = np.linspace(0, 64, max_bits + 2).astype(int)
    pieces = [
        (hashes >> np.uint64(low)) & np.uint64(2 ** int(high - low) - 1) for low, high in itertools.pairwise(edges)
    ]
    cost = sum(int((counts * (counts - 1) // 2).sum()) for counts in map(_counts, pieces))
    if cost > len(hashes) * (len(hashes) - 1) // 2:
        pieces = [np.zeros_like(hashes)]
    bound, pairs = max_bits, np.zeros((0, 3), dtype=np.int64)
    for number, piece in enumerate(pieces):
        for first, second in _equal_pairs(piece):
            bits = _popcount(hashes[first] ^ hashes[second])
            new = bits <= bound
            # A pair belongs to the first piece in which it agrees.
            for earlier in pieces[:number]:
                new &= earlier[first] != earlier[second]
            rows = np.sort(np.stack([first[new], second[new]], axis=1), axis=1)
            pairs = np.concatenate([pairs, np.column_stack([bits[new], rows])])
            while len(pairs) > limit and bound >= 0:
                bound -= 1
                pairs = pairs[pairs[:, 0] <= bound] if bound >= 0 else pairs[:limit]
        if bound < 0:
            break
    pairs = pairs[np.lexsort((pairs[:, 2], pairs[:, 1], pairs[:, 0]))]
    return pairs[:limit, 1:], bound


def _counts(piece: np.ndarray) -> np.ndarray:
    return np.unique(piece, return_counts=True)[1].astype(np.int64)


def _equal_pairs(piece: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of pairs of rows whose piece is equal, each pair once."""
    order = np.argsort(piece, kind="stable")
    ordered = piece[order]
    # The row at position p pairs with the rows behind it in its bucket, which ends at ends[p].
    ends = np.searchsorted(ordered, ordered, side="right")
    partners = ends - np.arange(len(order)) - 1
    start = 0
    totals = np.cumsum(partners)
    while start < len(order):
        done = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, done + BLOCK, side="right")))
        counts = partners[start:stop]
        first = np.repeat(np.arange(start, stop), counts)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[first], order[first + 1 + offsets]
        start = stop


def _popcount(words: np.ndarray) -> np.ndarray:
    # np.bitwise_count came with NumPy 2; this is the same in arithmetic that NumPy 1.26 has.
    ones, twos, fours = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    words = words - ((words >> np.uint64(1)) & ones)
    words = (words & twos) + ((words >> np.uint64(2)) & twos)
    words = (words + (words >> np.uint64(4))) & fours
    return np.asarray(((words * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64))


def near_duplicates(
    hashes: np.ndarray, thumbs: np.ndarray, rows: np.ndarray, *, is_quartered: bool = False
) -> NearDuplicates:
    """Pairs among `rows` that are nearly the same picture, by hash and by pixels.

    Args:
        hashes: (N,) uint64 of all images.
        thumbs: (N, 64, 64) uint8 of all images.
        rows: (M,) the rows to compare, e.g. one of each set of equal images, constant ones left out.
        is_quartered: Whether a thumbnail shows four views (of a volume): then each of them must be alike. Together they
            always are a little, because of the edges between them: of 300 drawn chests of different patients 135 pairs
            were, and view by view none; 60 chests and their coarser, noisier copies are found either way.
    """
    local, bound = hash_pairs(hashes[rows])
    pairs = rows[local]
    confirmed = []
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        first, second = thumbs[batch[:, 0]], thumbs[batch[:, 1]]
        views = zip(quarters(first), quarters(second), strict=True) if is_quartered else [(first, second)]
        left, least = np.arange(len(batch)), np.ones(len(batch))
        for first_view, second_view in views:
            shape, detail = similarity(first_view[left], second_view[left])
            least[left] = np.minimum(least[left], detail)
            left = left[(shape >= MIN_SHAPE) & (detail >= MIN_DETAIL)]
        for index in left:
            first_row, second_row = (int(row) for row in batch[index])
            confirmed.append(NearPair(first=first_row, second=second_row, detail=round(float(least[index]), 4)))
    confirmed.sort(key=lambda pair: (-pair.detail, pair.first, pair.second))
    return NearDuplicates(pairs=tuple(confirmed), num_proposed=len(pairs), bits=bound)


def similarity(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of thumbnails and of their detail, each at the best shift of up to 2 px.

    Detail is what remains after a Gaussian blur (σ = 3 px) is taken away. Pairs that correlate below .85
    without any shift are not aligned.

    Args:
        first: (B, 64, 64) uint8.
        second: (B, 64, 64) uint8.

    Returns:
        Two (B,) arrays, -1 to 1.

    Examples:
        >>> noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64), np.uint8)
        >>> similarity(noise, 255 - noise)[0].round(3).tolist()
        [-1.0]
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    shape = _correlation(a, b)
    detail = np.full(len(a), -1, dtype=np.float32)
    close = np.flatnonzero(shape >= FIRST_LOOK)
    a, b = a[close], b[close]
    inner = slice(SHIFT, THUMBNAIL - SHIFT)
    best, where = np.full(len(close), -1, dtype=np.float32), np.zeros(len(close), dtype=np.int64)
    shifts = list(itertools.product(range(2 * SHIFT + 1), repeat=2))
    for number, (down, right) in enumerate(shifts):
        score = _correlation(a[:, inner, inner], _window(b, down, right))
        where[score > best] = number
        best = np.maximum(best, score)
    a, b = _detail(a), _detail(b)
    for number, (down, right) in enumerate(shifts):
        here = np.flatnonzero(where == number)
        detail[close[here]] = _correlation(a[here][:, inner, inner], _window(b[here], down, right))
    shape[close] = best
    return shape, detail


def _window(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """The part of each thumbnail that a shift leaves, (B, 60, 60).

    Args:
        images: (B, 64, 64).
        down: Its first row, 0 to 4.
        right: Its first column, 0 to 4.
    """
    side = THUMBNAIL - 2 * SHIFT
    return images[:, down : down + side, right : right + side]


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a = a - a.mean(axis=(1, 2), keepdims=True)
    b = b - b.mean(axis=(1, 2), keepdims=True)
    power = np.einsum("bij,bij->b", a, a) * np.einsum("bij,bij->b", b, b)
    return np.asarray(np.einsum("bij,bij->b", a, b) / np.sqrt(np.maximum(power, 1e-6)))


BLUR: Final = blur_matrix(SIGMA).numpy()


def _detail(images: np.ndarray) -> np.ndarray:
    return np.asarray(images - BLUR @ images @ BLUR.T)
