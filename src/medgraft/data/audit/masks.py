"""Findings on masks: unreadable, of another size than their image, empty, perhaps of another image."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import ndimage

from medgraft.data.audit.findings import Finding, finding_of
from medgraft.data.cohort.marked import mask_of, mask_readers
from medgraft.data.decoded.images import DecodedCohort
from medgraft.data.decoded.masks import misfit
from medgraft.errors import DataError
from medgraft.io.in_order import in_order
from medgraft.io.nifti import is_nifti_name, nifti_affine, nifti_shape, turned_affine
from medgraft.types import VOID, Cohort

__all__ = ["mask_findings"]

_FEWEST: Final = 10
_SAME_PLACE: Final = 1e-2
_RARE: Final = 10
_COARSE: Final = 32
_OTHERS: Final = 20
"""With how many other masks an image is compared."""
_FOLLOWS: Final = 2.0
"""Where the median mask is so many deviations ahead of others on its image's edges, masks can be told apart by them."""


def mask_findings(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    """What is odd about the masks of a cohort; each is opened once.

    Args:
        cohort: From `medgraft.data.cohort.marked.read_mask_cohort`, the readable images.
        decoded: Their cache.
    """
    reasons, odd, empty = [], [], []
    thumbs = np.zeros((len(cohort), *_coarse_sides(decoded)), dtype=bool)
    for row, mask in enumerate(
        in_order(lambda row: _mask(cohort, row), range(len(cohort)), mask_readers(cohort.dims == 3))
    ):
        if isinstance(mask, str):
            reasons.append((row, mask))
            continue
        reason = misfit(decoded, row, mask.shape)
        if reason:
            odd.append((row, reason))
        if not mask.any():
            empty.append(row)
        if not reason:
            thumbs[row] = _coarse(mask != 0, thumbs.shape[1:])
    unusable = {row for row, _ in (*reasons, *odd)}
    left = np.array([row for row in range(len(cohort)) if row not in unusable and thumbs[row].any()])
    return [
        *_unreadable(cohort, reasons),
        *_odd_sizes(cohort, odd),
        *_elsewhere(cohort, decoded),
        *_rare_numbers(cohort),
        *_empty(cohort, empty),
        # Padded and cropped volumes lie otherwise in their cache than their masks do on disk.
        *(_shifted(cohort, decoded, _strangers(decoded, thumbs, left)) if _is_comparable(decoded) else ()),
    ]


def _unreadable(cohort: Cohort, reasons: list[tuple[int, str]]) -> list[Finding]:
    if not reasons:
        return []
    message = f"{len(reasons)} masks cannot be read. First: {reasons[0][1]}"
    return [finding_of(cohort, "mask-unreadable", "warn", message, len(reasons), [row for row, _ in reasons])]


def _odd_sizes(cohort: Cohort, odd: list[tuple[int, str]]) -> list[Finding]:
    if not odd:
        return []
    message = f"{len(odd)} masks are of another size than their image, e.g. {odd[0][1]}."
    return [finding_of(cohort, "mask-size", "warn", message, len(odd), [row for row, _ in odd])]


def _elsewhere(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    moved = [row for row in range(len(cohort)) if _is_elsewhere(cohort, row)]
    if not moved:
        return []
    message = (
        f"{len(moved)} masks lie elsewhere in the patient than their image (affines differ), e.g. of "
        f"{decoded.paths[moved[0]]}. Resample them to the image, or correct the header."
    )
    return [finding_of(cohort, "mask-affine", "warn", message, len(moved), moved)]


def _rare_numbers(cohort: Cohort) -> list[Finding]:
    """Numbers without a name that hardly any mask holds: a slip of the pen, traces of smoothing, or a rare class."""
    shown = (cohort.targets == 1).sum(0)
    rare = [
        column for column, name in enumerate(cohort.classes)
        if name == f"label {cohort.mask_values[column]}" and 0 < shown[column] * _RARE <= len(cohort)
    ]  # fmt: skip
    if not rare or len(cohort) < _FEWEST:
        return []
    rows = np.flatnonzero((cohort.targets[:, rare] == 1).any(1))
    numbers = ", ".join(str(cohort.mask_values[column]) for column in rare)
    message = (
        f"The numbers {numbers} stand in {len(rows)} of {len(cohort)} masks alone, e.g. of "
        f"{cohort.table['path'].iat[rows[0]]}: rare classes, or slips? Name the classes, and masks with other numbers "
        "are left out: --set data.mask_classes=NAME=NUMBER,…"
    )
    return [finding_of(cohort, "mask-label", "warn", message, len(rows), rows)]


def _empty(cohort: Cohort, empty: list[int]) -> list[Finding]:
    message = f"{len(empty)} of {len(cohort)} masks are empty: there a model is right where it marks nothing."
    return [finding_of(cohort, "mask-empty", "info", message, len(empty), empty)] if empty else []


def _shifted(cohort: Cohort, decoded: DecodedCohort, strange: list[int]) -> list[Finding]:
    """A finding on masks that follow the edges of their image no better than others' masks do, if there are any.

    Args:
        cohort: The audited cohort.
        decoded: The cache of its images.
        strange: Rows of such masks.
    """
    if not strange:
        return []
    message = (
        f"{len(strange)} masks follow the edges of their image no better than others' masks do (shifted, or of "
        f"another image?), e.g. of {decoded.paths[strange[0]]}. Look at them."
    )
    return [finding_of(cohort, "mask-shift", "warn", message, len(strange), strange)]


def _mask(cohort: Cohort, row: int) -> np.ndarray | str:
    try:
        mask = mask_of(cohort, row)
        return np.where(mask == VOID, 0, mask)
    except DataError as error:
        # Masks are called as their images, and those of DICOM images bear pseudonyms.
        reason = str(error)
        for file in (file for files in cohort.masks[row] for file in files):
            reason = reason.replace(str(cohort.root / file), f"mask of {cohort.table['path'].iat[row]}")
        return reason


def _is_elsewhere(cohort: Cohort, row: int) -> bool:
    """Whether a NIfTI mask, turned as its NIfTI image is, lies elsewhere by more than a hundredth of a millimetre."""
    files = [*cohort.files_of(row), *(cohort.root / file for files in cohort.masks[row] for file in files)]
    if not all(is_nifti_name(file.name) for file in files):
        return False
    try:
        affines = [turned_affine(nifti_shape(file), nifti_affine(file)) for file in files]
    except DataError:
        return False  # told where it is read
    return any(np.abs(affine - affines[0]).max() > _SAME_PLACE for affine in affines)


def _is_comparable(decoded: DecodedCohort) -> bool:
    return len(decoded.sides) == 2 or decoded.resize == "squash"


def _coarse_sides(decoded: DecodedCohort) -> tuple[int, ...]:
    """Sides of what is compared: the thumbnail of an image, at most 32 voxels along each side of a volume."""
    if len(decoded.sides) == 2:
        return decoded.thumbs.shape[1:]
    return tuple(min(side, _COARSE) for side in decoded.sides)


def _coarse_image(decoded: DecodedCohort, row: int) -> np.ndarray:
    if len(decoded.sides) == 2:
        return np.asarray(decoded.thumbs[row])
    return _coarse(decoded.images[row, 0], _coarse_sides(decoded))


def _coarse(values: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """A regular sample of the values, (*sides)."""
    return np.asarray(
        values[np.ix_(*(np.arange(few) * many // few for few, many in zip(sides, values.shape, strict=True)))]
    )


def _strangers(decoded: DecodedCohort, masks: np.ndarray, rows: np.ndarray) -> list[int]:
    """Rows whose mask lies worse on the edges of its image than those of others do, where masks lie on edges at all.

    Args:
        decoded: The cache of the images.
        masks: (N, *sides) bool: where each mask marks anything, as coarse as the images are compared.
        rows: Rows whose mask can be compared and marks something.
    """
    if len(rows) < _FEWEST:
        return []
    rims = {row: masks[row] ^ ndimage.binary_erosion(masks[row]) for row in rows}
    rng = np.random.default_rng(0)
    ahead = []
    for row in rows:
        image = _coarse_image(decoded, row).astype(np.float32)
        edges = np.sqrt(sum(ndimage.sobel(image, axis) ** 2 for axis in range(image.ndim)))
        others = [other for other in rng.permutation(rows)[: _OTHERS + 1] if other != row][:_OTHERS]
        scores = np.array([edges[rims[other]].mean() for other in others])
        ahead.append((edges[rims[row]].mean() - scores.mean()) / max(float(scores.std()), 1e-6))
    follow = np.array(ahead)
    if np.median(follow) < _FOLLOWS:
        return []
    return [int(row) for row, score in zip(rows, follow, strict=True) if score < 0]
