"""Smooth shapes and noise on coordinate grids of any number of axes: the phantom's drawing tools.

Coordinates run from -1 to 1 along every axis of the image. The last two axes are head to foot and left to
right; axes before them are depth. Everything is float32, and random scalars are Python floats, so that the
promotion rules of NumPy 1 and 2 give the same bytes.
"""

import functools

import numpy as np
from scipy import ndimage

__all__ = ["between", "ellipsoid", "grid", "inside", "moved", "near_segments", "smooth_noise", "spot"]

# Noise knots reach beyond the image, so that shifted and rotated patients still lie on them.
_KNOT_REACH = 1.4


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A uniform draw as a Python float, which never promotes float32 arrays.

    Args:
        rng: Draws the number.
        low: Smallest number.
        high: Largest number.
    """
    return float(rng.uniform(low, high))


@functools.lru_cache(maxsize=8)
def grid(shape: tuple[int, ...]) -> np.ndarray:
    """Coordinates of the pixel centres, (D, *shape) float32, read-only.

    Args:
        shape: Pixels along each of the D axes.

    Examples:
        >>> grid((2, 4))[1][0].tolist()
        [-0.75, -0.25, 0.25, 0.75]
    """
    axes = [((np.arange(n) + 0.5) * (2.0 / n) - 1.0).astype(np.float32) for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    points.setflags(write=False)
    return points


def moved(points: np.ndarray, shift: np.ndarray, angle: float, scale: float) -> np.ndarray:
    """Where the points lie in a frame that was shifted, turned in the last two axes and scaled.

    Args:
        points: (D, …) coordinates.
        shift: (D,) of the frame's origin.
        angle: Turn of the frame, radians.
        scale: Scale of the frame; 1.1 shows the content 10 % larger.

    Examples:
        >>> moved(np.array([[0.0], [1.0]]), np.zeros(2), np.pi / 2, 1.0).round(3).tolist()
        [[1.0], [0.0]]
    """
    result: np.ndarray = (points - _column(shift, points)) / scale
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    row, column = result[-2].copy(), result[-1].copy()
    result[-2], result[-1] = cos * row + sin * column, cos * column - sin * row
    return result


def ellipsoid(points: np.ndarray, centre: np.ndarray, radii: np.ndarray, power: float = 2.0) -> np.ndarray:
    """Level of a superellipsoid: 1 at its centre, 0 on its surface, negative outside.

    Args:
        points: (D, …) coordinates.
        centre: (D,).
        radii: (D,), positive.
        power: 2 gives an ellipsoid, more a box with round corners.

    Examples:
        >>> ellipsoid(np.array([[0.0], [0.5]]), np.zeros(2), np.ones(2)).tolist()
        [0.5]
    """
    scaled = np.abs((points - _column(centre, points)) / _column(radii, points))
    if power == 2.0:
        distance: np.ndarray = np.sqrt(np.square(scaled).sum(axis=0))
    else:
        distance = np.power(np.power(scaled, power).sum(axis=0), 1.0 / power)
    return 1.0 - distance


def inside(level: np.ndarray, softness: float) -> np.ndarray:
    """Soft step: 0 where the level is at or below -softness, 1 at or above +softness, smooth between.

    Examples:
        >>> inside(np.array([-1.0, 0.0, 1.0]), 0.5).tolist()
        [0.0, 0.5, 1.0]
    """
    ramp = np.clip(0.5 + level * (0.5 / softness), 0.0, 1.0)
    step: np.ndarray = ramp * ramp * (3.0 - 2.0 * ramp)
    return step


def spot(points: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """A Gaussian hill of height 1.

    Args:
        points: (D, …) coordinates.
        centre: (D,).
        radius: Standard deviation of the hill, in coordinates.
    """
    squared = np.square(points - _column(centre, points)).sum(axis=0)
    hill: np.ndarray = np.exp(squared * (-0.5 / radius**2))
    return hill


def near_segments(points: np.ndarray, start: np.ndarray, end: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Sum of soft tubes around line segments, each of height 1 on its axis.

    Args:
        points: (D, …) coordinates.
        start: (K, D).
        end: (K, D).
        width: (K,) standard deviation of the Gaussian cross-section.
    """
    total = np.zeros(points.shape[1:], dtype=np.float32)
    for a, b, w in zip(start, end, width, strict=True):
        edge = b - a
        away = points - _column(a, points)
        column = _column(edge, points)
        along = (column * away).sum(axis=0) / max(float(edge @ edge), 1e-9)
        away -= column * np.clip(along, 0.0, 1.0)
        total += np.exp(np.square(away).sum(axis=0) * (-0.5 / float(w) ** 2))
    return total


def smooth_noise(knots: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Noise that varies as slowly as its knots are apart (cubic B-spline), fixed to the coordinates.

    Args:
        knots: D-dimensional array of independent values over the square [-1.4, 1.4].
        points: (D, …) coordinates.
    """
    counts = np.array(knots.shape, dtype=np.float32) - 1.0
    positions = (points + _KNOT_REACH) * (_column(counts, points) / (2.0 * _KNOT_REACH))
    noise: np.ndarray = ndimage.map_coordinates(
        knots, positions, output=np.float32, order=3, prefilter=False, mode="nearest"
    )
    return noise


def _column(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(D,) as (D, 1, …), float32, to meet (D, …) points."""
    return np.asarray(values, dtype=np.float32).reshape(-1, *[1] * (points.ndim - 1))
