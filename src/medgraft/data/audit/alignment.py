"""How alike two thumbnails are once they lie on each other, and once what all of a cohort show is taken away.

Compared is detail: what a blur takes away, divided by its local strength, so that brightness and contrast do not count.
One picture is laid on the other by its best shift (Fourier), and from there by least squares over shift and scale of
both axes (Gauss-Newton), so that a crop or a scan a little to the side costs nothing; first at half the size, where
most pairs of different pictures end already. What a whole cohort has in common (the frame, the disc of a fundus camera,
markers, anatomy) makes any two of its pictures alike; so the cohort's mean is laid on the pair, too, and what
correlates is what the mean does not explain.
"""

import functools
from typing import Final

import numpy as np
import torch

from medgraft.data.decoded.fingerprint import THUMBNAIL

__all__ = ["ORIENTATIONS", "closest_partners", "common_of", "detail", "likeness", "oriented"]

ORIENTATIONS: Final = 8
"""Quarter turns, each plain and mirrored."""
_FINE: Final = 2.0
"""σ of the blur that leaves detail, px."""
_STRENGTH: Final = 6.0
"""σ of the window over which the strength of detail is measured, px."""
_FAINT: Final = 3.0
"""Strength of detail, of 255, below which it is noise and stays faint."""
_SHIFT: Final = 4
"""Largest shift that is tried, px of half the size."""
_RIM: Final = 16
"""The rim that does not count, as a part of the side: a shift or a crop left an edge there."""
_SCALES: Final = (0.88, 1.136)
_DOUBT: Final = 0.25
"""Lead of the best orientation before the pictures lie on each other, from which on no other is tried."""
_WAYS: Final = 4
"""Orientations that are tried to the end, at most."""
_SLACK: Final = 0.15
"""By how much a pair at half the size may be less alike than is asked for, and still be looked at in full."""
_DAMPED: Final = 1e-3
_MOST_SCALE: Final = 0.03
_MOST_SHIFT: Final = 1.0
"""Largest change of a step, as a share and in px: a first-order step holds no further."""
_COARSE: Final = (1.0, 0.7, 0.0, 0.0)
"""Blur of the steps at half the size, px: a blurred picture shows from further away where the other one lies."""
_FULL: Final = (0.0, 0.0, 0.0)
"""Those in full."""
_BATCH: Final = 32
"""Pairs at once: what they need stays in a core's cache."""
_SAMPLE: Final = 4096
"""Pictures that a cohort's mean is taken over, at most."""


@functools.cache
def _blur(sigma: float, side: int = THUMBNAIL) -> torch.Tensor:
    """(side, side) rows of a Gaussian with mirrored edges, so that a blur is two matrix products.

    Args:
        sigma: Standard deviation, px.
        side: Of the pictures, px.
    """
    reach = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    matrix = np.zeros((side, side))
    for row in range(side):
        columns = np.arange(row - reach, row + reach + 1) % (2 * side)
        columns = np.where(columns >= side, 2 * side - 1 - columns, columns)
        np.add.at(matrix[row], columns, taps / taps.sum())
    return torch.from_numpy(matrix.astype(np.float32))


def detail(images: torch.Tensor, sigma: float = _FINE, strength: float = _STRENGTH) -> torch.Tensor:
    """What a blur takes away from pictures, divided by its local strength.

    Args:
        images: (N, 64, 64), 0 to 255.
        sigma: Of the blur, px.
        strength: σ of the window over which the strength is measured, px.

    Returns:
        (N, 64, 64) float32.
    """
    images = images.float()
    fine, wide = _blur(sigma), _blur(strength)
    left = images - fine @ images @ fine.T
    return left / ((wide @ left.square() @ wide.T).clamp(min=0).sqrt() + _FAINT)


def oriented(images: torch.Tensor, orientation: int) -> torch.Tensor:
    """Pictures turned by quarters, from the fourth orientation on mirrored first.

    Args:
        images: (…, H, W).
        orientation: 0 to 7.
    """
    return torch.rot90(images.flip(-1) if orientation >= 4 else images, orientation % 4, (-2, -1))


def common_of(thumbs: torch.Tensor) -> torch.Tensor:
    """(8, 64, 64) what pictures have in common: the mean of their detail, in every orientation.

    Args:
        thumbs: (N, 64, 64) uint8.
    """
    sample = thumbs[:: max(1, -(-len(thumbs) // _SAMPLE))]
    mean = torch.stack([detail(part).sum(0) for part in sample.split(_BATCH)]).sum(0) / len(sample)
    return torch.stack([oriented(mean, number) for number in range(ORIENTATIONS)])


def likeness(
    first: torch.Tensor, second: torch.Tensor, ways: torch.Tensor, common: torch.Tensor, least: float
) -> np.ndarray:
    """Correlation of the detail of pairs laid on each other, without what the cohort has in common.

    Args:
        first: (P, 64, 64) uint8.
        second: (P, 64, 64) uint8.
        ways: (P, K) int64 of orientations in which the second of each pair is tried.
        common: (8, 64, 64) of their cohort, from `common_of`.
        least: Pairs that correlate less with what is common are not asked further: theirs is what they correlate then.

    Returns:
        (P,) float64, -1 to 1.
    """
    parts = [
        _likeness(first[rows], second[rows], ways[rows], common, least)
        for rows in torch.arange(len(first)).split(_BATCH)
    ]
    return torch.cat(parts).double().numpy() if parts else np.zeros(0)


def closest_partners(views: torch.Tensor, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each picture with those that lie best on it when merely shifted, at half the size: all with all.

    Args:
        views: (N, V, 64, 64) uint8; of several views that of the least alike counts.
        num: Partners of each picture.

    Returns:
        (P, 2) rows, and (P, 2) the two orientations of the first that lie best on the second.
    """
    first, second = torch.triu_indices(len(views), len(views), 1)
    least = torch.full((len(first), ORIENTATIONS), float("inf"))
    for view in views.unbind(1):
        own = _halved(detail(view))
        own = own - own.mean(0)
        turned = torch.stack([oriented(own, way) for way in range(ORIENTATIONS)], dim=1)
        found = [_shifted(own[second[part]], turned[first[part]])[0] for part in torch.arange(len(first)).split(_BATCH)]
        least = torch.minimum(least, torch.cat(found))
    score, ways = least.sort(dim=1, descending=True)
    both = torch.full((len(views), len(views)), float("-inf"))
    both[first, second] = both[second, first] = score[:, 0]
    partners = both.topk(min(num, len(views) - 1), dim=1).indices
    is_asked = torch.zeros_like(both, dtype=torch.bool).scatter_(1, partners, True)
    asked = (is_asked | is_asked.T)[first, second]
    return torch.stack([first, second], dim=1)[asked].numpy(), ways[asked, :2].numpy()


def _likeness(
    first: torch.Tensor, second: torch.Tensor, ways: torch.Tensor, common: torch.Tensor, least: float
) -> torch.Tensor:
    ours, theirs = detail(first), detail(second)
    turned = torch.stack([_oriented_each(theirs, ways[:, number]) for number in range(ways.shape[1])], dim=1)
    best, score, place = _best_way(_halved(ours), _halved(turned))
    near = torch.nonzero(score >= least - _SLACK)[:, 0]
    if not len(near):
        return score
    theirs = turned[near, best[near]]
    in_full, there = _refined(ours[near], theirs, place[near], _FULL)
    close = torch.nonzero(in_full >= least)[:, 0]
    if len(close):
        in_full[close] = _without_common(ours[near[close]], theirs[close], there[close], common)
    score[near] = in_full
    return score


def _halved(images: torch.Tensor) -> torch.Tensor:
    """(…, H / 2, W / 2) means of two by two pixels."""
    height, width = images.shape[-2:]
    return images.reshape(*images.shape[:-2], height // 2, 2, width // 2, 2).mean((-3, -1))


def _best_way(ours: torch.Tensor, turned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which of several pictures lies best on another one, its correlation, and its place in px of twice the size.

    Args:
        ours: (P, H, H) detail at half the size.
        turned: (P, K, H, H) detail at half the size.
    """
    coarse, places = _shifted(ours, turned)
    order = coarse.argsort(dim=1, descending=True)
    every = torch.arange(len(ours))
    best = order[:, 0].clone()
    score, place = _refined(ours, turned[every, best], places[every, best], _COARSE)
    for rank in range(1, min(_WAYS, turned.shape[1])):
        # What frames the picture may lie well the wrong way round while the rest is still a little off.
        way = order[:, rank]
        doubt = torch.nonzero(coarse[every, way] >= coarse[every, order[:, 0]] - _DOUBT)[:, 0]
        other, there = _refined(ours[doubt], turned[doubt, way[doubt]], places[doubt, way[doubt]], _COARSE)
        won = other > score[doubt]
        best[doubt[won]], score[doubt[won]], place[doubt[won]] = way[doubt[won]], other[won], there[won]
    return best, score, place * torch.tensor([1.0, 1.0, 2.0, 2.0])


def _without_common(
    ours: torch.Tensor, theirs: torch.Tensor, place: torch.Tensor, common: torch.Tensor
) -> torch.Tensor:
    """Partial correlation given the cohort's mean, laid on the first of each pair, and what a small move changes of it.

    Args:
        ours: (P, 64, 64) detail.
        theirs: (P, 64, 64) detail.
        place: (P, 4) where they lie.
        common: (8, 64, 64) of their cohort, from `common_of`.
    """
    best, _, there = _best_way(_halved(ours), _halved(common).expand(len(ours), -1, -1, -1))
    mean = common[best]
    mean, _ = _laid(mean, _refined(ours, mean, there, _FULL)[1])
    theirs, counts = _laid(theirs, place)
    columns = _columns(mean, counts)
    both = torch.stack([_centred(part, counts).flatten(1) for part in (ours, theirs)], dim=2)
    ours, theirs = (both - columns.transpose(1, 2) @ _solved(columns, both, 0.0)).unbind(2)
    return _cosine(ours, theirs)


def _oriented_each(images: torch.Tensor, ways: torch.Tensor) -> torch.Tensor:
    turned = torch.empty_like(images)
    for way in range(ORIENTATIONS):
        rows = torch.nonzero(ways == way)[:, 0]
        turned[rows] = oriented(images[rows], way)
    return turned


def _shifted(ours: torch.Tensor, turned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, K) best correlation at any shift, and (P, K, 4) that place, as `_laid` takes it.

    Args:
        ours: (P, H, H).
        turned: (P, K, H, H).
    """
    side, window = ours.shape[-1], 2 * _SHIFT + 1
    # So far padded, no shift that is tried wraps around.
    padded = (side + 2 * _SHIFT, side + 2 * _SHIFT)
    product = torch.fft.rfft2(ours, padded)[:, None] * torch.fft.rfft2(turned, padded).conj()
    found = torch.fft.irfft2(product, padded).roll((_SHIFT, _SHIFT), (2, 3))[..., :window, :window]
    overlap = 1 - torch.arange(-_SHIFT, _SHIFT + 1).abs() / side
    best, at = (found / (overlap[:, None] * overlap)).flatten(2).max(2)
    power = ours.square().sum((1, 2))[:, None] * turned.square().sum((2, 3))
    shift = torch.stack([_SHIFT - at // window, _SHIFT - at % window], dim=2).float()
    return best / power.sqrt().clamp(min=1e-6), torch.cat([torch.ones_like(shift), shift], dim=2)


def _laid(images: torch.Tensor, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures at a place, and which pixels count there.

    Args:
        images: (P, H, H).
        place: (P, 4) scale of rows and columns, and shift of rows and columns in px: the pixel at row y, from the
            middle, shows that at ``scale · y + shift``.
    """
    still = _from_middle(images.shape[-1])
    down, right = (place[:, axis : axis + 1] * still + place[:, axis + 2 : axis + 3] for axis in (0, 1))
    laid = _weights(down) @ images @ _weights(right).transpose(1, 2)
    return laid, _inside(down)[:, :, None] * _inside(right)[:, None, :] * _inside(still)[:, None] * _inside(still)


@functools.cache
def _from_middle(side: int) -> torch.Tensor:
    return torch.arange(side, dtype=torch.float32) - (side - 1) / 2


def _inside(places: torch.Tensor) -> torch.Tensor:
    side = places.shape[-1]
    return (places.abs() <= (side - 1) / 2 - side / _RIM).float()


def _weights(places: torch.Tensor) -> torch.Tensor:
    """(P, H, H) weights of cubic interpolation at places along one axis.

    Args:
        places: (P, H) px from the middle.

    References:
        Keys, Cubic convolution interpolation for digital image processing, IEEE Trans ASSP, 1981.
    """
    away = (places[:, :, None] - _from_middle(places.shape[-1])).abs()
    near = (1.5 * away - 2.5) * away.square() + 1
    far = ((2.5 - 0.5 * away) * away - 4) * away + 2
    return torch.where(away <= 1, near, torch.where(away < 2, far, torch.zeros(())))


def _refined(
    ours: torch.Tensor, theirs: torch.Tensor, place: torch.Tensor, blurs: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best correlation on the way of a few Gauss-Newton steps, and where it was.

    Args:
        ours: (P, H, H).
        theirs: (P, H, H).
        place: (P, 4) where to begin.
        blurs: Of each step, px; the correlation is that of what is not blurred.
    """
    best, at = torch.full((len(ours),), -1.0), place
    for number, sigma in enumerate(blurs, 1):
        blur = _blur(sigma, ours.shape[-1]) if sigma else None
        target, source = (ours, theirs) if blur is None else (blur @ part @ blur.T for part in (ours, theirs))
        laid, counts = _laid(source, place)
        if blur is None:
            score = _cosine(_centred(target, counts).flatten(1), _centred(laid, counts).flatten(1))
            at = torch.where((score > best)[:, None], place, at)
            best = torch.maximum(score, best)
        if number == len(blurs):
            break  # nothing asks where a further step would lead
        columns = _columns(laid, counts)
        place = place + _step(
            _solved(columns, _centred(target, counts).flatten(1)[:, :, None], _DAMPED)[..., 0], ours.shape[-1]
        )
        most = (_SHIFT + 0.5) * ours.shape[-1] * 2 / THUMBNAIL
        place = torch.cat([place[:, :2].clamp(*_SCALES), place[:, 2:].clamp(-most, most)], dim=1)
    return best, at


def _columns(images: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(P, 5, pixels): pictures, and what they change by per change of scale (at the edge, px) and shift (px).

    Args:
        images: (P, H, H) as they lie.
        counts: (P, H, H) which pixels count.
    """
    down, right = torch.gradient(images, dim=(1, 2))
    reach = _from_middle(images.shape[-1]) / (images.shape[-1] / 2)
    scaled = down * reach[:, None], right * reach
    return torch.stack([_centred(part, counts) for part in (images, *scaled, down, right)], dim=1).flatten(2)


def _solved(columns: torch.Tensor, targets: torch.Tensor, damped: float) -> torch.Tensor:
    """(P, 5, T) coefficients of least squares.

    Args:
        columns: (P, 5, pixels).
        targets: (P, pixels, T).
        damped: Share by which the diagonal is raised.
    """
    normal = columns @ columns.transpose(1, 2)
    ridge = damped * torch.diag_embed(torch.diagonal(normal, dim1=1, dim2=2)) + 1e-3 * torch.eye(5)
    found: torch.Tensor = torch.linalg.solve(normal + ridge, columns @ targets)
    return found


def _step(found: torch.Tensor, side: int) -> torch.Tensor:
    """(P, 4) change of place.

    Args:
        found: (P, 5) coefficients of `_columns`.
        side: Of the pictures, px.
    """
    change = found[:, 1:] / found[:, :1].clamp(min=0.2)
    scale = (change[:, :2] / (side / 2)).clamp(-_MOST_SCALE, _MOST_SCALE)
    return torch.cat([scale, change[:, 2:].clamp(-_MOST_SHIFT, _MOST_SHIFT)], dim=1)


def _centred(images: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Pictures less their mean over the pixels that count; the others are 0."""
    mean = (images * counts).sum((1, 2), keepdim=True) / counts.sum((1, 2), keepdim=True).clamp(min=1)
    return (images - mean) * counts


def _cosine(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """(P,) cosine of (P, pixels)."""
    found: torch.Tensor = torch.nn.functional.cosine_similarity(ours, theirs, dim=1)
    return found
