"""A patient of the phantom: what a film of a chest shows when nothing is wrong.

Lungs, heart, mediastinum, spine, ribs, clavicles, vessels and tissue texture are drawn once per patient and
then evaluated at any coordinates, so several films of one patient show the same body. Vessels seen end-on
are small bright dots: the honest reason to doubt a nodule.
"""

import dataclasses

import numpy as np

from medgraft.phantom.fields import between, ellipsoid, inside, near_segments, smooth_noise, spot

__all__ = ["Anatomy", "attenuation", "draw_anatomy", "lung_field"]

_VESSELS_PER_LUNG = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anatomy:
    """What differs between patients, in image coordinates (-1 to 1), D axes.

    Args:
        lung_centres: (2, D), the lung on the image's left first.
        lung_radii: (2, D).
        domes: (2,) height of the diaphragm under each lung.
        heart_centre: (D,).
        heart_radii: (D,).
        mediastinum: Half-width of the middle shadow.
        torso_radii: (D,).
        rib_spacing: Distance between two ribs.
        rib_phase: Where the first rib lies, as a share of the spacing.
        rib_curve: How far a rib drops towards its side.
        rib_amount: Attenuation of a rib.
        vessel_start: (K, D).
        vessel_end: (K, D).
        vessel_width: (K,).
        dots: (M, D) vessels seen end-on.
        dot_radius: (M,).
        coarse: Knots of the slow tissue texture.
        fine: Knots of the lung's fine texture.
    """

    lung_centres: np.ndarray
    lung_radii: np.ndarray
    domes: np.ndarray
    heart_centre: np.ndarray
    heart_radii: np.ndarray
    mediastinum: float
    torso_radii: np.ndarray
    rib_spacing: float
    rib_phase: float
    rib_curve: float
    rib_amount: float
    vessel_start: np.ndarray
    vessel_end: np.ndarray
    vessel_width: np.ndarray
    dots: np.ndarray
    dot_radius: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray


def draw_anatomy(rng: np.random.Generator, ndim: int) -> Anatomy:
    """A new patient.

    Args:
        rng: Draws everything.
        ndim: Number of axes, 2 or more.

    Examples:
        >>> draw_anatomy(np.random.default_rng(0), 2).lung_centres.shape
        (2, 2)
    """
    build, tall = between(rng, 0.92, 1.06), between(rng, 0.92, 1.06)
    side = np.array([-1.0, 1.0])
    centres = np.stack([_place(ndim, between(rng, -0.12, -0.02), s * 0.44 * build) for s in side])
    radii = np.stack([_extent(ndim, tall * between(rng, 0.76, 0.86), build * between(rng, 0.33, 0.39)) for _ in side])
    vessels = [_draw_vessels(rng, centre, radius) for centre, radius in zip(centres, radii, strict=True)]
    start, end, width = (np.concatenate(parts) for parts in zip(*vessels, strict=True))
    num_dots = int(rng.integers(2, 6))
    lung = rng.integers(0, 2, num_dots)
    return Anatomy(
        lung_centres=centres,
        lung_radii=radii,
        # The liver pushes the dome on the image's left up.
        domes=np.array([between(rng, 0.42, 0.56), between(rng, 0.50, 0.64)]) * tall,
        heart_centre=_place(ndim, between(rng, 0.28, 0.40), between(rng, 0.10, 0.18)),
        heart_radii=_extent(ndim, between(rng, 0.28, 0.36), build * between(rng, 0.28, 0.40)),
        mediastinum=between(rng, 0.10, 0.16),
        torso_radii=_extent(ndim, 1.35, build * between(rng, 0.93, 1.02)),
        rib_spacing=tall * between(rng, 0.20, 0.25),
        rib_phase=between(rng, 0.0, 1.0),
        rib_curve=between(rng, 0.25, 0.45),
        rib_amount=between(rng, 0.05, 0.10),
        vessel_start=start,
        vessel_end=end,
        vessel_width=width,
        dots=centres[lung] + rng.uniform(-0.6, 0.6, (num_dots, ndim)) * radii[lung],
        dot_radius=rng.uniform(0.018, 0.034, num_dots),
        coarse=rng.standard_normal((9,) * ndim).astype(np.float32),
        fine=rng.standard_normal((34,) * ndim).astype(np.float32),
    )


def _draw_vessels(
    rng: np.random.Generator, centre: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends and widths of one lung's vessels, fanning out from its hilum.

    Args:
        rng: Draws everything.
        centre: (D,) centre of the lung.
        radii: (D,) radii of the lung.
    """
    hilum = centre.copy()
    hilum[-2], hilum[-1] = hilum[-2] + 0.08, hilum[-1] * 0.45
    num = _VESSELS_PER_LUNG
    reach = np.linspace(-0.8, 0.75, num) + rng.uniform(-0.15, 0.15, num)
    end = centre + rng.uniform(-0.3, 0.3, (num, len(centre))) * radii
    end[:, -2] = centre[-2] + reach * radii[-2]
    end[:, -1] = centre[-1] + np.sign(centre[-1]) * rng.uniform(0.0, 0.6, num) * radii[-1]
    return np.tile(hilum, (num, 1)), end, rng.uniform(0.016, 0.032, num)


def lung_field(anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    """Share of aerated lung at each point, 0 to 1: inside a lung, off the heart and above the diaphragm.

    Args:
        anatomy: The patient.
        points: (D, …) coordinates in the patient's frame.
    """
    row, column = points[-2], points[-1]
    lungs = np.zeros(points.shape[1:], dtype=np.float32)
    for centre, radii, dome in zip(anatomy.lung_centres, anatomy.lung_radii, anatomy.domes, strict=True):
        # Towards the apex a lung leans to the middle and gets narrower.
        lean = np.clip(float(centre[-2]) - row, 0.0, None)
        leaned = points.copy()
        leaned[-1] = column + float(np.sign(centre[-1])) * 0.16 * lean
        level = ellipsoid(leaned, centre, radii, 2.6) - 0.10 * lean
        bow = np.square((column - float(centre[-1])) / float(radii[-1]))
        floor = float(dome) - row + 0.14 * bow - 0.05
        lungs = np.maximum(lungs, inside(level, 0.09) * inside(floor, 0.035))
    free: np.ndarray = lungs * (1.0 - _heart(anatomy, points)) * (1.0 - _middle(anatomy, points))
    return free


def _heart(anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    return inside(ellipsoid(points, anatomy.heart_centre, anatomy.heart_radii), 0.10)


def _middle(anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    # The shadow of the great vessels widens below the aortic arch.
    half_width = anatomy.mediastinum + 0.05 * np.clip(points[-2] + 0.3, 0.0, 1.0)
    return inside(half_width - np.abs(points[-1]), 0.045)


def attenuation(anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    """What the beam loses at each point, about 0 (air) to 1 (dense bone on soft tissue).

    Args:
        anatomy: The patient.
        points: (D, …) coordinates in the patient's frame.
    """
    lungs = lung_field(anatomy, points)
    top = _place(len(points), 0.45, 0.0)
    torso = inside(ellipsoid(points, top, anatomy.torso_radii, 3.2), 0.05)
    neck = inside(0.30 + 0.9 * np.clip(points[-2] + 0.88, 0.0, 1.0) - np.abs(points[-1]), 0.06)
    body = np.maximum(torso, neck * inside(-0.5 - points[-2], 0.2))
    coarse = smooth_noise(anatomy.coarse, points)
    result = body * (0.60 + 0.10 * _middle(anatomy, points) + 0.06 * _heart(anatomy, points) + 0.035 * coarse)
    result -= lungs * 0.40
    result += lungs * 0.05 * smooth_noise(anatomy.fine, points)
    vessels = near_segments(points, anatomy.vessel_start, anatomy.vessel_end, anatomy.vessel_width)
    for centre, radius in zip(anatomy.dots, anatomy.dot_radius, strict=True):
        vessels = np.maximum(vessels, spot(points, centre, float(radius)))
    result += (0.3 + 0.7 * lungs) * 0.08 * np.minimum(vessels, 1.5)
    result += body * _bones(anatomy, points)
    seen: np.ndarray = np.clip(result, 0.02, None)
    return seen


def _bones(anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    """Attenuation of ribs (behind, and fainter in front), spine and clavicles."""
    row, column = points[-2], points[-1]
    out = np.abs(column)
    squared = np.square(out)
    back = (row - anatomy.rib_curve * squared) / anatomy.rib_spacing - anatomy.rib_phase
    front = (row - 0.45 * (1.0 - out)) / (1.15 * anatomy.rib_spacing) + anatomy.rib_phase
    ribs = _rib_profile(back) + 0.45 * _rib_profile(front) * inside(out - 0.25, 0.1)
    cage = inside(0.97 - out, 0.06) * inside(out - 0.10, 0.05) * inside(0.70 - row, 0.15)
    spine = inside(0.085 - out, 0.03) * (0.05 + 0.025 * np.cos(row * (2.0 * np.pi / 0.21)))
    clavicle = np.exp(np.square(row + 0.66 + 0.22 * (out - 0.15)) * (-0.5 / 0.032**2))
    clavicle *= inside(0.85 - out, 0.1) * inside(out - 0.08, 0.04)
    bones: np.ndarray = anatomy.rib_amount * (ribs * cage + 1.1 * clavicle) + spine
    return bones


def _rib_profile(phase: np.ndarray) -> np.ndarray:
    """One rib per unit of phase: a band whose edges (cortex) are brighter than its middle."""
    away = np.abs(phase - np.floor(phase) - 0.5)
    return inside(0.21 - away, 0.06) - 0.45 * inside(0.10 - away, 0.06)


def _place(ndim: int, row: float, column: float) -> np.ndarray:
    """(D,) position; axes before the last two are depth, centred.

    Args:
        ndim: Number of axes, 2 or more.
        row: From head (-1) to foot (1).
        column: From the image's left (-1) to its right (1).
    """
    return np.array([0.0] * (ndim - 2) + [row, column])


def _extent(ndim: int, row: float, column: float) -> np.ndarray:
    """(D,) radii; along depth a chest reaches less far than across.

    Args:
        ndim: Number of axes, 2 or more.
        row: Radius from head to foot, 2 = the whole image.
        column: Radius from left to right, 2 = the whole image.
    """
    return np.array([0.8] * (ndim - 2) + [row, column])
