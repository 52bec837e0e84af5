"""How large the network's input is where nobody says; of images with masks, how large they are and their patches."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from medgraft.config import DataConfig
from medgraft.data.decoded.rows import header_row
from medgraft.errors import ConfigError
from medgraft.types import Cohort

__all__ = ["image_and_patch_sides", "patches_per_image", "typical_sides"]

_SAMPLE: Final = 32
_STEPS: Final = {2: 32, 3: 8}
_LARGEST_DEFAULT: Final = {2: 224, 3: 64}
"""By number of axes; 64³ voxels are five times as many as 224² px."""
_LONGEST: Final = {2: 1024, 3: 192}
_PATCH: Final = {2: 256, 3: 64}
_HALVINGS: Final = 32
"""Sides of patches are multiples of it: what most networks halve, decoders can double back."""
_MOST_PATCHES: Final = 16


def typical_sides(cohort: Cohort) -> tuple[int, ...]:
    """The sides of the input of a network that names none, from those of the images.

    Images get the median longer side on both axes, rounded up to 32 px, at most 224. Volumes get the median of each
    side, rounded up to 8 voxels, at most 64.

    Raises:
        ConfigError: No image is readable.
    """
    sizes = _sampled_sides(cohort)
    lengths = np.full(2, np.median(sizes.max(1))) if cohort.dims == 2 else np.median(sizes, axis=0)
    multiple, largest = _STEPS[cohort.dims], _LARGEST_DEFAULT[cohort.dims]
    return tuple(min(largest, math.ceil(length / multiple) * multiple) for length in lengths)


def image_and_patch_sides(
    data: DataConfig, cohort: Cohort, asked: Sequence[int] | None, *, is_fixed: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The size at which images with masks are kept, and that of the patches which the network sees at once.

    Images keep the median size of the cohort, reduced to ``data.longest``. A patch is 256 px (64 voxels) wide; where an
    image is not larger, all of it, enlarged to a multiple of 32 (or to what the network demands).

    Args:
        data: How the cohort is read.
        cohort: With masks.
        asked: Sides of patches where the user or the network names them.
        is_fixed: Whether the network takes no other.

    Raises:
        ConfigError: No image is readable.
    """
    dims = cohort.dims
    lengths = np.median(_sampled_sides(cohort, data.spacing_mm), axis=0)
    shrink = min(1.0, (data.longest or _LONGEST[dims]) / float(max(lengths)))
    images, patches = [], []
    for length, most in zip(lengths, asked or (_PATCH[dims],) * dims, strict=True):
        side = max(1, round(length * shrink))
        patch = most if is_fixed else min(most, math.ceil(side / _HALVINGS) * _HALVINGS)
        patches.append(patch)
        images.append(max(side, patch))
    return tuple(images), tuple(patches)


def patches_per_image(image: Sequence[int], patch: Sequence[int]) -> int:
    """How many patches of an image are drawn in an epoch where nobody says: half of what covers it, 1 to 16.

    Args:
        image: Its sides, px or voxels.
        patch: Sides of a patch.
    """
    return max(1, min(_MOST_PATCHES, math.ceil(math.prod(image) / math.prod(patch) / 2)))


def _sampled_sides(cohort: Cohort, spacing_mm: Sequence[float] = ()) -> np.ndarray:
    """(n, axes) declared sides of some of the images; of volumes as resampling to `spacing_mm` makes them."""
    step = max(1, len(cohort) // _SAMPLE)
    headers = (header_row(cohort, row, is_spaced=bool(spacing_mm)) for row in range(0, len(cohort), step))
    facts = [header for header in headers if header is not None]
    if not facts:
        raise ConfigError("expected --size or a readable image to infer the input size from, got neither.")
    axes = ("depth", "height", "width")[-cohort.dims :]
    sizes = np.array([[getattr(fact, axis) for axis in axes] for fact in facts], dtype=np.float64)
    for row, fact in enumerate(facts):
        stored = fact.stored_mm or fact.spacing_mm
        if cohort.dims == 3 and len(spacing_mm) == len(stored) == len(axes):
            sizes[row] *= np.array(stored) / spacing_mm
    return sizes
