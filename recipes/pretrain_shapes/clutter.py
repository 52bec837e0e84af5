"""Figures on clutter: the procedurally drawn source task of the packaged network.

A class is a shape × a fill style, drawn once per image at a random place, scale, stretch and rotation on
smooth noise, grain and stray lines. None of the shapes is a lesion shape of medgraft's phantom: there is no
disc, no smooth blob, no lobulated outline and nothing with spikes around a core.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

__all__ = ["CLASSES", "FILLS", "SHAPES", "clutter_image", "clutter_set"]

SignedDistance = Callable[[np.ndarray], np.ndarray]


def _polygon(*corners: tuple[float, float]) -> SignedDistance:
    """Signed distance to a simple polygon (negative inside), corners in unit coordinates."""
    start = np.array(corners, dtype=np.float32)
    edge = np.roll(start, -1, axis=0) - start

    def distance(points: np.ndarray) -> np.ndarray:
        nearest = _distance_to_segments(points, start, edge)
        inside = np.zeros(points.shape[1:], dtype=bool)
        for (y0, x0), (dy, dx) in zip(start, edge, strict=True):
            if dy == 0:
                continue
            crosses = (points[0] >= y0) != (points[0] >= y0 + dy)
            inside ^= crosses & (points[1] < x0 + (points[0] - y0) * (dx / dy))
        return np.where(inside, -nearest, nearest)

    return distance


def _strokes(*polylines: list[tuple[float, float]], half_width: float = 0.17) -> SignedDistance:
    """Signed distance to thick strokes along polylines, in unit coordinates."""
    lines = [np.array(line, dtype=np.float32) for line in polylines]
    start = np.concatenate([line[:-1] for line in lines])
    edge = np.concatenate([np.diff(line, axis=0) for line in lines])

    def distance(points: np.ndarray) -> np.ndarray:
        return _distance_to_segments(points, start, edge) - np.float32(half_width)

    return distance


def _distance_to_segments(points: np.ndarray, start: np.ndarray, edge: np.ndarray) -> np.ndarray:
    nearest: np.ndarray | None = None
    for (y0, x0), (dy, dx) in zip(start, edge, strict=True):
        py, px = points[0] - y0, points[1] - x0
        along = np.clip((py * dy + px * dx) / (dy * dy + dx * dx), 0.0, 1.0)
        squared = (py - along * dy) ** 2 + (px - along * dx) ** 2
        nearest = squared if nearest is None else np.minimum(nearest, squared)
    if nearest is None:
        raise ValueError("a figure needs at least one segment, got none; give two points or more.")
    return np.asarray(np.sqrt(nearest))


def _crescent(points: np.ndarray) -> np.ndarray:
    """Signed distance (a bound outside) to a moon: one circle less a shifted one."""
    outer = np.sqrt(points[0] ** 2 + points[1] ** 2) - 0.95
    inner = np.sqrt(points[0] ** 2 + (points[1] - 0.5) ** 2) - 0.80
    return np.asarray(np.maximum(outer, -inner))


def _arc(radius: float, start: float, stop: float, num_points: int) -> list[tuple[float, float]]:
    angles = np.linspace(start, stop, num_points)
    return [(float(radius * np.sin(a)), float(radius * np.cos(a))) for a in angles]


def _spiral_points(turns: float, num_points: int) -> list[tuple[float, float]]:
    t = np.linspace(0.0, 1.0, num_points)
    radius, angle = 0.12 + 0.8 * t, 2.0 * np.pi * turns * t
    return [(float(r * np.sin(a)), float(r * np.cos(a))) for r, a in zip(radius, angle, strict=True)]


SHAPES: Final[dict[str, SignedDistance]] = {
    "triangle": _polygon((-0.95, 0.0), (0.6, -0.9), (0.6, 0.9)),
    "square": _polygon((-0.7, -0.7), (-0.7, 0.7), (0.7, 0.7), (0.7, -0.7)),
    "bar": _polygon((-0.24, -1.0), (-0.24, 1.0), (0.24, 1.0), (0.24, -1.0)),
    "cross": _strokes([(-0.85, 0.0), (0.85, 0.0)], [(0.0, -0.85), (0.0, 0.85)], half_width=0.2),
    "crescent": _crescent,
    "ell": _strokes([(-0.85, -0.4), (0.7, -0.4), (0.7, 0.55)], half_width=0.2),
    "tee": _strokes([(-0.75, -0.75), (-0.75, 0.75)], [(-0.75, 0.0), (0.85, 0.0)], half_width=0.2),
    "zigzag": _strokes([(-0.75, -0.6), (-0.75, 0.6), (0.75, -0.6), (0.75, 0.6)]),
    "chevron": _strokes([(-0.7, -0.75), (0.6, 0.0), (-0.7, 0.75)], half_width=0.2),
    "spiral": _strokes(_spiral_points(1.9, 18), half_width=0.12),
    "grid": _strokes(
        [(-0.9, -0.35), (0.9, -0.35)],
        [(-0.9, 0.35), (0.9, 0.35)],
        [(-0.35, -0.9), (-0.35, 0.9)],
        [(0.35, -0.9), (0.35, 0.9)],
        half_width=0.13,
    ),
    "horseshoe": _strokes(_arc(0.75, 0.25 * np.pi, 1.75 * np.pi, 11)),
    "rails": _strokes(
        [(-0.65, -0.8), (-0.65, 0.8)], [(0.0, -0.8), (0.0, 0.8)], [(0.65, -0.8), (0.65, 0.8)], half_width=0.15
    ),
}


def _flat(sharp: np.ndarray, points: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    return _coverage(sharp)


def _outline(sharp: np.ndarray, points: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    return _coverage(np.abs(sharp) - rng.uniform(0.5, 0.9)) * np.float32(1.3)


def _gradient(sharp: np.ndarray, points: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0.0, 2.0 * np.pi)
    ramp = points[0] * np.float32(np.sin(angle)) + points[1] * np.float32(np.cos(angle))
    return np.asarray(_coverage(sharp) * np.clip(0.6 + 0.6 * ramp, 0.1, 1.2))


def _textured(sharp: np.ndarray, points: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    angle, phase = rng.uniform(0.0, 2.0 * np.pi, 2)
    period = rng.uniform(3.0, 5.0)
    along = points[0] * np.float32(np.sin(angle)) + points[1] * np.float32(np.cos(angle))
    wave = np.cos(along * np.float32(scale * 2.0 * np.pi / period) + np.float32(phase))
    return np.asarray(_coverage(sharp) * wave)


def _coverage(distance_px: np.ndarray) -> np.ndarray:
    """Share of each pixel that lies inside, from the signed distance in pixels."""
    return np.clip(0.5 - distance_px, 0.0, 1.0)


FILLS: Final = {"flat": _flat, "outline": _outline, "gradient": _gradient, "textured": _textured}

CLASSES: Final = tuple(f"{shape}-{fill}" for shape in SHAPES for fill in FILLS)


def clutter_image(rng: np.random.Generator, class_index: int, size: int) -> np.ndarray:
    """One figure of the class on clutter, (size, size) uint8.

    Args:
        rng: Draws everything that varies.
        class_index: Place in `CLASSES`.
        size: Side, px.

    Raises:
        ValueError: The class or the size does not exist.

    Examples:
        >>> clutter_image(np.random.default_rng(0), CLASSES.index("spiral-flat"), 64).shape
        (64, 64)
    """
    if not 0 <= class_index < len(CLASSES):
        raise ValueError(f"class_index must be 0 to {len(CLASSES) - 1}, got {class_index}. Pick one of CLASSES.")
    if size < 16:
        raise ValueError(f"size must be at least 16 px, got {size}. Figures vanish below; 64 is usual.")
    shape, fill = CLASSES[class_index].split("-")
    rows, columns = np.meshgrid(*[np.arange(size, dtype=np.float32)] * 2, indexing="ij")
    scale = rng.uniform(0.16, 0.34) * size
    centre = rng.uniform(0.8 * scale, size - 1 - 0.8 * scale, 2)
    angle, stretch = rng.uniform(0.0, 2.0 * np.pi), np.exp(rng.uniform(-0.2, 0.2))
    y, x = (rows - centre[0]) / scale, (columns - centre[1]) / scale
    cos, sin = np.cos(angle), np.sin(angle)
    points = np.stack([(cos * y + sin * x) * stretch, (cos * x - sin * y) / stretch]).astype(np.float32)
    figure = FILLS[fill](SHAPES[shape](points) * np.float32(scale), points, float(scale), rng)
    contrast = rng.uniform(0.45, 1.1) * rng.choice([-1.0, 1.0])
    image = _background(rng, rows, columns) + np.float32(contrast) * figure
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0.08, 0.22))
    low, high = rng.uniform(-1.9, -1.3), rng.uniform(1.3, 1.9)
    return np.asarray(np.clip((image - low) * (255.0 / (high - low)), 0.0, 255.0), dtype=np.uint8)


def _background(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Smooth noise of two scales and a few stray lines, about zero mean."""
    size = rows.shape[0]
    image = np.zeros_like(rows)
    for knots, amount in ((4, rng.uniform(0.1, 0.45)), (14, rng.uniform(0.05, 0.25))):
        weights = _interpolation(size, knots)
        grid = rng.standard_normal((knots, knots), dtype=np.float32)
        image += np.float32(amount) * (weights @ grid @ weights.T)
    for _ in range(rng.integers(2, 7)):
        angle, offset = rng.uniform(0.0, np.pi), rng.uniform(0.05, 0.95) * size
        width, amount = rng.uniform(0.4, 1.3), rng.uniform(-0.6, 0.6)
        turn = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        away = (rows - size / 2) * turn[0] + (columns - size / 2) * turn[1] + np.float32(size / 2 - offset)
        image += np.float32(amount) * _coverage(np.abs(away) - np.float32(width))
    return image


def _interpolation(size: int, knots: int) -> np.ndarray:
    """(size, knots) matrix that interpolates a row of knots smoothly (cosine weights)."""
    place = np.linspace(0.0, knots - 1.0, size)
    gap = np.clip(np.abs(place[:, None] - np.arange(knots)[None, :]), 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * gap)).astype(np.float32)


def clutter_set(num_images: int, seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, size, size) uint8 and classes (N,) int64, as balanced as N allows.

    Image i depends on `seed` and i alone; the order of the classes is shuffled.

    Args:
        num_images: How many.
        seed: Of everything random; sets of different seeds share no image.
        size: Side, px.

    Examples:
        >>> images, labels = clutter_set(4, seed=0, size=32)
        >>> images.shape, images.dtype, labels.shape
        ((4, 32, 32), dtype('uint8'), (4,))
    """
    if num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}. 40000 were used for the package.")
    labels = np.random.default_rng((seed, 0)).permutation(np.arange(num_images) % len(CLASSES))
    images = np.empty((num_images, size, size), dtype=np.uint8)
    for i, label in enumerate(labels):
        images[i] = clutter_image(np.random.default_rng((seed, 1, i)), int(label), size)
    return images, labels.astype(np.int64)
