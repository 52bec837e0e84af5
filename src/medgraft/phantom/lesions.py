"""What can be wrong in the phantom: a smooth blob, a spiculated shape, a patch of texture.

All lesions lie in a lung field and share their ranges of size and contrast, so that only the margin or the
texture tells the classes apart, not the brightness.
"""

import dataclasses
from collections.abc import Callable
from typing import Final

import numpy as np

from medgraft.phantom.anatomy import Anatomy, lung_field
from medgraft.phantom.fields import between, inside, smooth_noise

__all__ = ["LESIONS", "Lesion", "draw_lesion", "lesion_profile"]

Drawing = Callable[["Lesion", np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_NUM_CANDIDATES = 96


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesion:
    """One lesion in the patient's frame.

    Args:
        kind: Key of `LESIONS`.
        centre: (D,).
        radius: Radius of the core, 2 = the whole image.
        strength: Multiplies the contrast, about 1.
        stretch: (D,) stretch of the core along each axis, about 1.
        spikes: (K, D) unit vectors.
        reach: (K,) length of each spike in core radii.
        knots: Knots of the lesion's own texture.
    """

    kind: str
    centre: np.ndarray
    radius: float
    strength: float
    stretch: np.ndarray
    spikes: np.ndarray
    reach: np.ndarray
    knots: np.ndarray


def draw_lesion(rng: np.random.Generator, kind: str, anatomy: Anatomy) -> Lesion:
    """A lesion of the kind, its core inside a lung field.

    Args:
        rng: Draws everything.
        kind: Key of `LESIONS`.
        anatomy: The patient.
    """
    ndim = len(anatomy.heart_centre)
    radius = between(rng, 0.10, 0.17)
    num_spikes = int(rng.integers(9, 15))
    spikes = rng.standard_normal((num_spikes, ndim))
    return Lesion(
        kind=kind,
        centre=_place_in_lung(rng, anatomy, radius),
        radius=radius,
        strength=between(rng, 0.75, 1.25),
        stretch=np.exp(rng.uniform(-0.15, 0.15, ndim)),
        spikes=spikes / np.linalg.norm(spikes, axis=1, keepdims=True),
        reach=rng.uniform(1.5, 2.5, num_spikes),
        knots=rng.standard_normal((40,) * ndim).astype(np.float32),
    )


def _place_in_lung(rng: np.random.Generator, anatomy: Anatomy, radius: float) -> np.ndarray:
    """The first random position whose core lies in the lung, else the one that comes nearest to it.

    Args:
        rng: Draws the positions.
        anatomy: The patient.
        radius: Radius of the core, 2 = the whole image.
    """
    ndim = len(anatomy.heart_centre)
    lung = rng.integers(0, 2, _NUM_CANDIDATES)
    spread = rng.uniform(-1.0, 1.0, (_NUM_CANDIDATES, ndim)) * anatomy.lung_radii[lung]
    centres = anatomy.lung_centres[lung] + spread
    offsets = np.concatenate([np.zeros((1, ndim)), np.eye(ndim), -np.eye(ndim)]) * (0.8 * radius)
    points = (centres[:, None, :] + offsets[None, :, :]).astype(np.float32)
    aerated = lung_field(anatomy, np.moveaxis(points, -1, 0)).min(axis=1)
    chosen = int(np.argmax(aerated > 0.8)) if (aerated > 0.8).any() else int(np.argmax(aerated))
    centre: np.ndarray = centres[chosen]
    return centre


def lesion_profile(lesion: Lesion, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the lesion adds at each point and how far it extends, both as shares of the peak, 0 to 1.

    The two differ for a texture only, which extends over its gaps.

    Args:
        lesion: The lesion.
        points: (D, …) coordinates in the patient's frame.
    """
    shape = (-1, *[1] * (points.ndim - 1))
    local = (points - lesion.centre.astype(np.float32).reshape(shape)) / lesion.radius
    return LESIONS[lesion.kind](lesion, local, points)


def _smooth(lesion: Lesion, local: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A smooth blob, which extends as far as it is seen.

    Args:
        lesion: The lesion.
        local: (D, …) coordinates from its centre, in radii of the core.
        points: Not used; the same points in the patient's frame.
    """
    profile = _core(lesion, local, 1.0)
    return profile, profile


def _spiculated(lesion: Lesion, local: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A core with thin straight spikes that taper outwards and pull its margin out.

    Args:
        lesion: The lesion.
        local: (D, …) coordinates from its centre, in radii of the core.
        points: Not used; the same points in the patient's frame.
    """
    shape = (-1, *[1] * (local.ndim - 1))
    squared = np.square(local).sum(axis=0)
    spikes = np.zeros_like(squared)
    for direction, reach in zip(lesion.spikes.astype(np.float32), lesion.reach, strict=True):
        along = (direction.reshape(shape) * local).sum(axis=0)
        away = np.maximum(squared - np.square(along), 0.0)
        taper = np.clip(1.0 - along / float(reach), 0.0, 1.0) * inside(along, 0.2)
        spikes = np.maximum(spikes, taper * np.exp(away * (-0.5 / 0.13**2)))
    profile = np.maximum(_core(lesion, local, 0.8), np.sqrt(spikes))
    return profile, profile


def _reticular(lesion: Lesion, local: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A net: ridges where smooth noise crosses zero, inside a soft round window.

    Args:
        lesion: The lesion.
        local: (D, …) coordinates from its centre, in radii of the core.
        points: (D, …) the same points in the patient's frame.
    """
    noise = smooth_noise(lesion.knots, points)
    window = inside(2.0 - np.sqrt(np.square(local).sum(axis=0)), 0.6)
    # A net covers more than a nodule does, so each of its threads is fainter.
    return 0.7 * window * np.exp(np.square(noise) * (-0.5 / 0.14**2)), window


def _core(lesion: Lesion, local: np.ndarray, size: float) -> np.ndarray:
    """A hill of height 1 with a soft margin around the centre of a lesion.

    Args:
        lesion: The lesion.
        local: (D, …) coordinates from its centre, in radii of the core.
        size: Multiplies the radius.
    """
    shape = (-1, *[1] * (local.ndim - 1))
    stretched = local / (size * lesion.stretch).astype(np.float32).reshape(shape)
    core: np.ndarray = np.exp(-1.1 * np.power(np.square(stretched).sum(axis=0), 1.3))
    return core


LESIONS: Final[dict[str, Drawing]] = {
    "nodule": _smooth,
    "mass": _spiculated,
    "reticular": _reticular,
}
