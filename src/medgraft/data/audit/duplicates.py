"""Equal and nearly equal images: who is compared, and from when on two are called the same picture.

Spectra propose pairs (`spectra`), in small cohorts, whose spread they know badly, pixels do so, too; pixels laid on
each other confirm them (`alignment`). From which likeness on depends on the cohort: pairs of it that were drawn by
chance show how alike different pictures are here. Where chance alone makes no pair of `_SURE`, such a pair is one; a
less alike one (28 px, compressed hard) is where it leaves every other partner of both pictures, and chance, well
behind. Among 17 million pairs of chest films of different children some reach .79, but those have many partners nearly
as good.
"""

import dataclasses
from typing import Final

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from medgraft.data.audit.alignment import ORIENTATIONS, closest_partners, common_of, likeness
from medgraft.data.audit.findings import NearPair
from medgraft.data.audit.spectra import Proposed, proposed_pairs
from medgraft.data.decoded.fingerprint import quarters

__all__ = ["NearDuplicates", "exact_sets", "near_duplicates"]

_SURE: Final = 0.8
"""Likeness from which on a pair is one, in a cohort whose chance pairs are no likelier."""
_LEAST: Final = 0.6
"""Least likeness of a pair that stands out from all other partners of both of its pictures."""
_LEAD: Final = 0.2
"""By how much it has to stand out, on Fisher's scale."""
_MOST: Final = 0.97
"""The bound goes no higher: what is left is noise of compression."""
_FEW: Final = 150
"""Pictures up to which pixels propose pairs, too."""
_PARTNERS: Final = 3
"""Of each picture, so many."""
_LIMIT: Final = 10_000
"""Pairs that are looked at, at most."""
_TAIL: Final = 10
"""Where one of the last such part of them is confirmed, there may be more."""
_CHANCE: Final = 500
"""Pairs drawn by chance, at most; in small cohorts two per picture."""
_QUANTILE: Final = 0.9
"""Of pairs drawn by chance; further up there may be true ones in a cohort with many."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Confirmed pairs, most alike first.

    Args:
        pairs: Pairs of rows.
        num_proposed: Pairs whose pixels were compared.
        is_complete: Whether there is no sign of pairs beyond those that were looked at.
    """

    pairs: tuple[NearPair, ...]
    num_proposed: int
    is_complete: bool


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


def near_duplicates(thumbs: np.ndarray, rows: np.ndarray, *, is_quartered: bool = False) -> NearDuplicates:
    """Pairs among `rows` that are nearly the same picture: brighter, shifted, cropped, turned or compressed again.

    Args:
        thumbs: (N, 64, 64) uint8 of all images.
        rows: (M,) the rows to compare, e.g. one of each set of equal images, constant ones left out.
        is_quartered: Whether a thumbnail shows four views (of a volume): then each of them must be alike.
    """
    if len(rows) < 2:
        return NearDuplicates(pairs=(), num_proposed=0, is_complete=True)
    chosen = thumbs[rows]
    views = torch.from_numpy(np.stack(list(quarters(chosen)), axis=1) if is_quartered else chosen[:, None])
    commons = [common_of(views[:, number]) for number in range(views.shape[1])]
    proposed = _proposed(views)
    ways = proposed.ways
    if is_quartered:
        # Views of a volume that was turned in space are turned each in its own way.
        ways = np.tile(np.arange(ORIENTATIONS), (len(proposed.pairs), 1))
    chance = _chance(views, commons, proposed.ways.shape[1])
    bound = float(np.clip(np.tanh(chance), _SURE, _MOST))
    alike = _alike(views, proposed.pairs, ways, commons, _LEAST)
    pairs, alike = _once(proposed.pairs, alike)
    is_pair = (alike >= bound) | ((alike >= _LEAST) & (_lead(pairs, alike, chance) >= _LEAD))
    confirmed = [
        NearPair(first=min(pair), second=max(pair), detail=round(float(score), 4))
        for pair, score in zip(rows[pairs[is_pair]].tolist(), alike[is_pair], strict=True)
    ]
    confirmed.sort(key=lambda pair: (-pair.detail, pair.first, pair.second))
    # Of a large cohort not all pairs that are promising by chance are looked at; the least promising ones that were
    # tell whether more might be found below.
    is_complete = proposed.is_complete or not is_pair[-max(1, len(pairs) // _TAIL) :].any()
    return NearDuplicates(pairs=tuple(confirmed), num_proposed=len(pairs), is_complete=is_complete)


def _proposed(views: torch.Tensor) -> Proposed:
    """Pairs to look at, some of them twice with other orientations.

    Args:
        views: (N, V, 64, 64).
    """
    found = proposed_pairs(views, _LIMIT)
    if len(views) > _FEW or found.ways.shape[1] == ORIENTATIONS:
        return found
    pairs, ways = closest_partners(views, _PARTNERS)
    return dataclasses.replace(
        found, pairs=np.concatenate([found.pairs, pairs]), ways=np.concatenate([found.ways, ways])
    )


def _once(pairs: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair once, where it first stands, as it is most alike.

    Args:
        pairs: (P, 2) rows.
        alike: (P,) their likeness.
    """
    _, first, which = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True, return_inverse=True)
    most = np.full(len(first), -np.inf)
    np.maximum.at(most, which.reshape(-1), alike)
    order = np.argsort(first)
    return pairs[first[order]], most[order]


def _alike(
    views: torch.Tensor, pairs: np.ndarray, ways: np.ndarray, commons: list[torch.Tensor], asked: float
) -> np.ndarray:
    """(P,) likeness of pairs, of several views that of the least alike.

    Args:
        views: (N, V, 64, 64).
        pairs: (P, 2) rows.
        ways: (P, K) orientations of the first that may lie on the second.
        commons: What each view shows in all of the cohort.
        asked: Likeness below which a pair is not asked further.
    """
    least, left = np.full(len(pairs), 1.0), np.arange(len(pairs))
    for number, common in enumerate(commons):
        turned, still = (torch.from_numpy(pairs[left, side]) for side in (0, 1))
        found = likeness(views[still, number], views[turned, number], torch.from_numpy(ways[left]), common, asked)
        least[left] = np.minimum(least[left], found)
        left = left[found >= asked]
    return least


def _lead(pairs: np.ndarray, alike: np.ndarray, chance: float) -> np.ndarray:
    """(P,) how far each pair is ahead of every other pair of its two pictures, and of chance, on Fisher's scale.

    Args:
        pairs: (P, 2) rows.
        alike: (P,) their likeness.
        chance: Of all pairs the likeliest by chance, on Fisher's scale.
    """
    fisher = np.arctanh(np.clip(alike, -0.999, 0.999))
    rivals = np.full((2, int(pairs.max(initial=0)) + 1), chance)
    for value, pair in zip(fisher.tolist(), pairs.tolist(), strict=True):
        for row in pair:
            rivals[:, row] = np.sort([*rivals[:, row], value])[-2:][::-1]
    # The best of a picture is its own rival's first; the pair itself is none.
    rival = np.where(fisher[:, None] >= rivals[0][pairs], rivals[1][pairs], rivals[0][pairs])
    return np.asarray(fisher - rival.max(axis=1))


def _chance(views: torch.Tensor, commons: list[torch.Tensor], num_ways: int) -> float:
    """Of all pairs of a cohort the likeliest by chance, on Fisher's scale.

    On Fisher's scale correlations of different pictures are about normal; their upper tail is carried on to where less
    than one of all pairs in all orientations lies.

    Args:
        views: (N, V, 64, 64).
        commons: What each view shows in all of the cohort.
        num_ways: Orientations in which a proposed pair is tried.
    """
    rng, num = np.random.default_rng(0), len(views)
    drawn = min(_CHANCE, 2 * num)
    first = rng.integers(0, num, drawn)
    pairs = np.stack([first, (first + rng.integers(1, num, drawn)) % num], axis=1)
    ways = np.stack([rng.permutation(ORIENTATIONS)[:num_ways] for _ in pairs])
    fisher = np.arctanh(np.clip(_alike(views, pairs, ways, commons, -np.inf), -0.999, 0.999))
    middle, high = np.quantile(fisher, (0.5, _QUANTILE))
    looks = num * (num - 1) / 2 * ORIENTATIONS / num_ways
    return float(middle + (high - middle) / norm.ppf(_QUANTILE) * norm.isf(min(0.5, 1 / looks)))
