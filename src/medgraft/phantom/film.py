"""How one film of a phantom patient is taken: position, scatter, sharpness, exposure, grain, markers, wires.

Nothing here depends on what is wrong with the patient, so a network that reads these learns nothing.
"""

import dataclasses
import itertools
from typing import Final

import numpy as np
from scipy import ndimage

from medgraft.phantom.fields import between, near_segments

__all__ = ["SITES", "Acquisition", "Site", "draw_acquisition", "expose"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A hospital's X-ray system.

    Args:
        grain: Standard deviation of the noise at mid-grey, share of the full range.
        blur: Standard deviation of its sharpness, share of the image side.
        gamma: Exponent of its display curve.
        marker_rate: Share of films with a side marker, 0 to 1.
    """

    grain: float
    blur: float
    gamma: float
    marker_rate: float


SITES: Final[dict[str, Site]] = {
    "north": Site(grain=0.018, blur=0.006, gamma=1.0, marker_rate=0.3),
    "south": Site(grain=0.026, blur=0.009, gamma=0.85, marker_rate=0.1),
    "harbour": Site(grain=0.022, blur=0.007, gamma=1.2, marker_rate=0.5),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Acquisition:
    """Everything random about one film.

    Args:
        shift: (D,) shift of the patient, 2 = the whole image.
        angle: Turn of the patient, radians.
        scale: Scale of the patient; 1.1 shows the body 10 % larger.
        gamma: Exponent of the film's display curve.
        exposure: Brightness added, share of the full range.
        latitude: Range of attenuation that the film shows.
        scatter: Share of the beam that is scattered, 0 to 1.
        grain: Standard deviation of the noise at mid-grey.
        blur: Standard deviation of the sharpness, share of the image side.
        wire_start: (K, D) segments of tubes, wires and markers, in image coordinates.
        wire_end: (K, D).
        wire_width: (K,).
        wire_amount: Attenuation of a wire.
        seed: Seeds the grain.
    """

    shift: np.ndarray
    angle: float
    scale: float
    gamma: float
    exposure: float
    latitude: float
    scatter: float
    grain: float
    blur: float
    wire_start: np.ndarray
    wire_end: np.ndarray
    wire_width: np.ndarray
    wire_amount: float
    seed: int


def draw_acquisition(rng: np.random.Generator, site: Site, ndim: int) -> Acquisition:
    """How the next film is taken.

    Args:
        rng: Draws everything.
        site: Where it is taken.
        ndim: Number of axes, 2 or more.
    """
    lines: list[tuple[list[float], list[float]]] = []
    widths: list[float] = []
    if rng.random() < 0.18:
        tube = _tube(rng)
        lines += itertools.pairwise(tube)
        widths += [between(rng, 0.010, 0.018)] * (len(tube) - 1)
    if rng.random() < site.marker_rate:
        marker = _marker(rng)
        lines += itertools.pairwise(marker)
        widths += [0.022] * (len(marker) - 1)
    depth = [0.0] * (ndim - 2)
    return Acquisition(
        shift=rng.uniform(-0.06, 0.06, ndim),
        angle=float(np.deg2rad(rng.normal(0.0, 3.0))),
        scale=between(rng, 0.94, 1.08),
        gamma=site.gamma * float(np.exp(rng.normal(0.0, 0.10))),
        exposure=float(rng.normal(0.0, 0.04)),
        latitude=between(rng, 0.85, 1.10),
        scatter=between(rng, 0.10, 0.30),
        grain=site.grain * between(rng, 0.8, 1.3),
        blur=site.blur * between(rng, 0.8, 1.2),
        wire_start=np.array([depth + a for a, _ in lines]).reshape(-1, ndim),
        wire_end=np.array([depth + b for _, b in lines]).reshape(-1, ndim),
        wire_width=np.array(widths),
        wire_amount=between(rng, 0.15, 0.35),
        seed=int(rng.integers(2**63)),
    )


def _tube(rng: np.random.Generator) -> list[list[float]]:
    """A tube or wire that hangs from the upper edge, as (row, column) corners."""
    rows = np.linspace(-1.05, between(rng, -0.1, 0.6), 6)
    drift = np.cumsum(rng.normal(0.0, 0.09, 6))
    columns = between(rng, -0.6, 0.6) + drift
    return [[float(row), float(column)] for row, column in zip(rows, columns, strict=True)]


def _marker(rng: np.random.Generator) -> list[list[float]]:
    """The letter L of a side marker in an upper corner."""
    side = float(rng.choice([-1.0, 1.0]))
    row, column = between(rng, -0.92, -0.78), side * between(rng, 0.78, 0.90)
    return [[row, column], [row + 0.13, column], [row + 0.13, column + 0.07]]


def expose(attenuation: np.ndarray, points: np.ndarray, film: Acquisition) -> np.ndarray:
    """The film of what the beam lost, uint8, dense tissue bright.

    Args:
        attenuation: What the patient takes out of the beam, about 0 to 1.
        points: (D, …) image coordinates, not the patient's.
        film: How it is taken.
    """
    beam = attenuation
    if len(film.wire_width):
        beam = beam + film.wire_amount * near_segments(points, film.wire_start, film.wire_end, film.wire_width)
    veil = ndimage.gaussian_filter(beam, [0.14 * n for n in beam.shape], mode="nearest", truncate=2.0)
    beam = beam * (1.0 - film.scatter) + veil * film.scatter
    beam = ndimage.gaussian_filter(beam, [film.blur * n for n in beam.shape], mode="nearest", truncate=3.0)
    shown = np.clip(beam / film.latitude + film.exposure, 0.0, 1.2)
    noise = np.random.default_rng(film.seed).standard_normal(shown.shape, dtype=np.float32)
    # Dense tissue lets fewer photons through, so its grain is coarser.
    shown = shown + noise * (film.grain * (0.6 + 0.8 * shown))
    shown = np.power(np.clip(shown, 0.0, 1.0), film.gamma)
    pixels: np.ndarray = np.round(shown * 255.0).astype(np.uint8)
    return pixels
