"""Which pairs of thumbnails are worth a closer look: those whose spectra are alike beyond what their cohort shares.

The strength of a picture's spatial frequencies does not change with a shift, hardly with a small crop, and by a mere
reordering with quarter turns and mirroring. Whitened by the cohort's own spread, so that what all pictures share weighs
little, all pairs are compared by matrix products; a pair's figure is a z-score among all partners of its first picture.
"""

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from scipy.stats import norm

from medgraft.data.audit.alignment import detail, oriented
from medgraft.data.decoded.fingerprint import THUMBNAIL

__all__ = ["Proposed", "proposed_pairs"]

_FEW: Final = 12
"""Pictures of which all pairs are looked at."""
_LEAST: Final = 3.5
"""Least z-score of a pair that is looked at."""
_LEAST_OF_FEW: Final = 0.35
"""The same in units of the square root of the pictures, which no z-score can exceed: that of two copies is .7."""
_KEPT: Final = 4
"""Times `limit` that are collected before the best are picked."""
_ROWS: Final = 512
_COLUMNS: Final = 4096
_BATCH: Final = 512
_RIDGE: Final = 0.3
"""Of the mean variance, added to all: rare directions are noise."""
_ZOOMS: Final = (1.0, 1.05)
_DISTINCT: Final = (0, 1, 4, 5)
"""Orientations; half a turn further the strengths are the same."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One way to see a spectrum.

    Args:
        sigma: Of the blur that leaves detail, px.
        reach: Highest frequency along an axis, periods per picture.
        rank: Directions that are kept.
    """

    sigma: float
    reach: int
    rank: int


_LOOKS: Final = (_Look(sigma=3, reach=12, rank=128), _Look(sigma=5, reach=8, rank=64))
"""The fine one tells slices of one region apart; the coarse one survives strong compression of small pictures."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proposed:
    """Pairs to look at.

    Args:
        pairs: (P, 2) int64, the first turned as `way` says.
        ways: (P, 2) int64 orientations of the first that may lie on the second.
        is_complete: Whether all pairs that asked for a look are among them.
    """

    pairs: np.ndarray
    ways: np.ndarray
    is_complete: bool


def proposed_pairs(views: torch.Tensor, limit: int) -> Proposed:
    """Pairs that may be nearly the same picture, most promising first.

    Args:
        views: (N, V, 64, 64) uint8; several views belong to one case.
        limit: Most pairs to return.
    """
    num = len(views)
    if num <= _FEW:
        pairs = np.stack(np.triu_indices(num, 1), axis=1).astype(np.int64)
        ways = np.tile(np.arange(8), (len(pairs), 1))
        return Proposed(pairs=pairs[:limit], ways=ways[:limit], is_complete=len(pairs) <= limit)
    looks_each = num * num * len(_DISTINCT) * len(_ZOOMS) * len(_LOOKS)
    # Of pairs that are alike by chance alone, so many would be above that bound.
    least = min(_LEAST, _LEAST_OF_FEW * float(np.sqrt(num)))
    bound = max(least, float(norm.isf(min(0.5, _KEPT * limit / looks_each))))
    found = np.zeros((0, 4))
    is_complete = True
    for look in _LOOKS:
        for block in _outliers(views, look, bound):
            found = np.concatenate([found, block])
            if len(found) > 2 * _KEPT * limit:
                found = _best(found, _KEPT * limit)
                bound, is_complete = max(bound, float(found[-1, 0])), False
    found = _best(found, limit)
    pairs, way = found[:, 1:3].astype(np.int64), found[:, 3].astype(np.int64)
    # Half a turn later, mirrored or not, the strengths are the same.
    ways = np.stack([way, way // 4 * 4 + (way + 2) % 4], axis=1)
    return Proposed(pairs=pairs, ways=ways, is_complete=is_complete and len(found) < limit)


def _best(found: np.ndarray, limit: int) -> np.ndarray:
    """The `limit` pairs with the highest figure, each once.

    Args:
        found: (F, 4) figure, two rows, orientation.
        limit: Most pairs to keep.
    """
    found = found[np.argsort(-found[:, 0], kind="stable")]
    rows = np.sort(found[:, 1:3], axis=1)
    _, first = np.unique(rows, axis=0, return_index=True)
    return found[np.sort(first)][:limit]


def _outliers(views: torch.Tensor, look: _Look, bound: float) -> Iterator[np.ndarray]:
    """Blocks of (F, 4) figure, row, partner and orientation, of pairs above a bound.

    Args:
        views: (N, V, 64, 64).
        look: How spectra are seen.
        bound: Least z-score.
    """
    plain = _strengths(views, look, 1.0)
    mean = plain.mean(0)
    values, vectors = torch.linalg.eigh(((plain - mean).T @ (plain - mean) / len(plain)).double())
    values, vectors = values.flip(0)[: look.rank].clamp(min=0), vectors.flip(1)[:, : look.rank]
    ridge = _RIDGE * float((plain - mean).square().mean())
    whiten = (vectors / (values + ridge).sqrt()).float()
    spread = (values / (values + ridge)).float()
    partners = (plain - mean) @ whiten
    for zoom in _ZOOMS:
        strengths = plain if zoom == 1 else _strengths(views, look, zoom)
        for way in _DISTINCT:
            asked = (strengths[:, _reordered(look.reach, views.shape[1], way)] - mean) @ whiten
            is_same = zoom == 1 and way == 0
            yield from _above(*_comparable(asked, partners, spread, is_same), bound, way, is_half=zoom == 1)


def _comparable(
    asked: torch.Tensor, partners: torch.Tensor, spread: torch.Tensor, is_same: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides scaled so that their products are z-scores.

    Turned or enlarged, all pictures differ from the cohort in the same direction; it tells no two of them apart and is
    taken out.

    Args:
        asked: (N, K) whitened.
        partners: (N, K) whitened.
        spread: (K,) variance of `partners`.
        is_same: Whether both are the same.
    """
    shared = torch.zeros(asked.shape[1]) if is_same else torch.nn.functional.normalize(asked.mean(0), dim=0)
    asked = asked - (asked @ shared)[:, None] * shared
    asked = asked / (asked.square() @ spread).sqrt().clamp(min=1e-9)[:, None]
    lengths = (partners - (partners @ shared)[:, None] * shared).norm(dim=1)
    typical = lengths.square().mean().sqrt().clamp(min=1e-9)
    return asked, partners / (lengths / typical).clamp(min=1)[:, None]


def _above(asked: torch.Tensor, partners: torch.Tensor, bound: float, way: int, is_half: bool) -> Iterator[np.ndarray]:
    """Blocks of pairs whose product is above a bound.

    Args:
        asked: (N, K).
        partners: (N, K).
        bound: Least product.
        way: Orientation of the first side.
        is_half: Whether a pair need not be asked both ways.
    """
    others, memory = partners.T.contiguous(), torch.empty(_ROWS * _COLUMNS)
    for top in range(0, len(asked), _ROWS):
        ours = asked[top : top + _ROWS]
        for left in range(top if is_half else 0, len(partners), _COLUMNS):
            theirs = others[:, left : left + _COLUMNS]
            # Nearly no product is above the bound: new memory and a second pass for each would take most of the time.
            figures = memory[: len(ours) * theirs.shape[1]].view(len(ours), theirs.shape[1])
            torch.mm(ours, theirs, out=figures)
            high = torch.nonzero(figures.amax(1) >= bound)[:, 0]
            if not len(high):
                continue
            figures = figures[high]
            rows, columns = torch.nonzero(figures >= bound, as_tuple=True)
            block = torch.stack([figures[rows, columns].double(), high[rows] + top, columns + left], dim=1).numpy()
            block = block[block[:, 1] < block[:, 2]] if is_half else block[block[:, 1] != block[:, 2]]
            yield np.column_stack([block, np.full(len(block), way)])


def _strengths(views: torch.Tensor, look: _Look, zoom: float) -> torch.Tensor:
    """(N, V · F) square roots of the strengths of low frequencies, of unit length per view.

    Args:
        views: (N, V, 64, 64).
        look: How spectra are seen.
        zoom: Enlargement about the middle.
    """
    edge = torch.sin(torch.pi * (torch.arange(THUMBNAIL) + 0.5) / THUMBNAIL) ** 2
    half = look.reach + 1
    parts = []
    for batch in views.split(_BATCH):
        images = _zoomed(batch.flatten(0, 1).float(), zoom)
        spectrum = torch.fft.rfft2(detail(images, look.sigma, 2 * look.sigma) * edge[:, None] * edge).abs().sqrt()
        low = torch.cat([spectrum[:, -look.reach :, :half], spectrum[:, :half, :half]], dim=1).flatten(1)
        parts.append(torch.nn.functional.normalize(low, dim=1).reshape(len(batch), -1))
    return torch.cat(parts)


def _zoomed(images: torch.Tensor, zoom: float) -> torch.Tensor:
    if zoom == 1:
        return images
    grid = torch.nn.functional.affine_grid(
        torch.tensor([[[1 / zoom, 0, 0], [0, 1 / zoom, 0]]]), [1, 1, THUMBNAIL, THUMBNAIL], align_corners=False
    )
    grid = grid.expand(len(images), -1, -1, -1)
    return torch.nn.functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def _reordered(reach: int, num_views: int, way: int) -> torch.Tensor:
    """Where the strengths of a turned picture stand in those of the picture itself.

    Args:
        reach: Highest frequency along an axis.
        num_views: How often they are repeated.
        way: Orientation.
    """
    side = 2 * reach + 1
    half = torch.arange(side * (reach + 1)).reshape(side, reach + 1)
    # A real picture's strengths at opposite frequencies are equal.
    whole = torch.cat([half.flip(0, 1)[:, :-1], half], dim=1)
    order = oriented(whole, way)[:, reach:].flatten()
    return torch.cat([order + number * half.numel() for number in range(num_views)])
