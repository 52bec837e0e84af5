"""The cache of masks beside that of images: class numbers at the size of the images, memory-mapped."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgraft.data.cohort.marked import mask_files_of, mask_of, mask_readers
from medgraft.data.decoded.images import DecodedCohort, rows_file, stamp_of
from medgraft.errors import DataError, RunError, reason_of
from medgraft.files import read_json, replacing_folder, write_json
from medgraft.io.in_order import in_order
from medgraft.io.preprocess import prepare_mask
from medgraft.io.resample import resampled_sides
from medgraft.types import Cohort, Preprocessing

__all__ = ["DecodedMasks", "build_mask_cache", "misfit", "stored_spacing"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedMasks:
    """The masks of a decoded cohort.

    Args:
        masks: (M, *sides) uint8 class numbers, 0 the background, memory-mapped, a row for each of the cohort; zeros
            where there is a reason in `unusable`.
        unusable: Rows without a mask that could teach, to the reason.
    """

    masks: np.ndarray
    unusable: dict[int, str]


def build_mask_cache(cohort: Cohort, decoded: DecodedCohort) -> DecodedMasks:
    """The masks of the readable images, resized as these were, from the cache's folder or from one pass over all files.

    A mask that cannot be read, or is of another size than its image, teaches nothing and is named.

    Args:
        cohort: The readable rows of a cohort with masks.
        decoded: Their cache.

    Raises:
        RunError: The folder cannot be written.
    """
    settings = Preprocessing(
        sides=decoded.sides, channels=1, intensity_max=1, resize=decoded.resize, reading=decoded.reading
    )
    folder = decoded.folder / f"masks-{_key(cohort)}"
    if not folder.is_dir():
        with replacing_folder(folder) as partial:
            _write(cohort, decoded, settings, partial)
    return _open(folder)


def _open(folder: Path) -> DecodedMasks:
    try:
        unusable = read_json(folder / "unusable.json")
        masks = np.load(folder / "masks.npy", mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise RunError(
            f"{folder}: the cache of masks is damaged ({error}). Remove this folder and run again."
        ) from error
    return DecodedMasks(masks=masks, unusable={int(row): str(reason) for row, reason in unusable.items()})


def _write(cohort: Cohort, decoded: DecodedCohort, settings: Preprocessing, folder: Path) -> None:
    """Resize all masks into the files of a cache, with the reasons for those that cannot be used.

    Args:
        cohort: The readable rows of a cohort with masks.
        decoded: The cache of their images.
        settings: Sides, reading and way of resizing of these images.
        folder: The new cache.
    """
    unusable: dict[int, str] = {}

    def prepared(row: int) -> np.ndarray | str:
        mask = _usable(cohort, decoded, row)
        return mask if isinstance(mask, str) else prepare_mask(mask, settings, stored_spacing(decoded, row))

    with (
        rows_file(folder / "masks.npy", np.dtype(np.uint8), (len(cohort), *decoded.sides)) as masks,
        contextlib.closing(in_order(prepared, range(len(cohort)), mask_readers(cohort.dims == 3))) as results,
    ):
        for row, mask in enumerate(results):
            if isinstance(mask, str):
                unusable[row] = mask
                mask = np.zeros(decoded.sides, dtype=np.uint8)
            masks.write(mask.tobytes())
    write_json(folder / "unusable.json", unusable)


def stored_spacing(decoded: DecodedCohort, row: int) -> tuple[float, ...]:
    """Distance of the pixels in the file along each axis, mm; empty where it is unknown."""
    spacing = tuple(float(step) for step in decoded.facts["spacing_mm"][row][-len(decoded.sides) :])
    return spacing if all(step > 0 for step in spacing) else ()


def misfit(decoded: DecodedCohort, row: int, shape: Sequence[int]) -> str:
    """In words, sides from width to depth, why a mask is not on the grid of its image; empty where it is.

    Args:
        decoded: The cache of the images.
        row: Row of the image.
        shape: Sides of its mask as it lies on disk, ([D,] H, W).
    """
    size = tuple(int(decoded.facts[axis][row]) for axis in ("depth", "height", "width"))[-len(decoded.sides) :]
    common, stored = decoded.reading.spacing_mm, stored_spacing(decoded, row)
    is_resampled = len(common) == len(stored) == len(shape) == 3
    read = resampled_sides(shape, stored, common) if is_resampled else tuple(shape)
    # As the image, which was resampled when it was read. A rounding apart is one voxel; more is another grid: of fewer
    # slices, or sheared (the tilted gantry of a CT), which resampling sets upright.
    slack = 1 if is_resampled else 0
    if len(read) == len(size) and all(abs(side - other) <= slack for side, other in zip(read, size, strict=True)):
        return ""
    has, wants = ("×".join(map(str, sides[::-1])) for sides in (read, size))
    at = " voxels at the common spacing" if is_resampled else ""
    return f"{has}{at} for the {wants} of {decoded.paths[row]}"


def _usable(cohort: Cohort, decoded: DecodedCohort, row: int) -> np.ndarray | str:
    """Class numbers of a mask on the grid of its image, or the reason why it cannot be used.

    Args:
        cohort: The readable rows of a cohort with masks.
        decoded: The cache of their images.
        row: Row number.
    """
    try:
        mask = mask_of(cohort, row)
    except DataError as error:
        return reason_of(error, mask_files_of(cohort, row))
    reason = misfit(decoded, row, mask.shape)
    return f"mask of {reason}" if reason else mask


def _key(cohort: Cohort) -> str:
    """Name of the cache: another choice of observers, or other files, make another one."""
    digest = hashlib.sha256(f"{cohort.mask_values} {cohort.mask_reading}\n".encode())
    for voters in cohort.masks:
        for file in (file for files in voters for file in files):
            digest.update(f"{file} {stamp_of(cohort.root / file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
