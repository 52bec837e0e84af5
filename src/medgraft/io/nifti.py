"""The adapter to nibabel: one NIfTI file to its voxels and their place in the patient."""

import contextlib
import gzip
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError, ImageDataError
from nibabel.wrapstruct import WrapStructError

from medgraft.errors import DataError

__all__ = [
    "MAX_VOXELS",
    "from_ras",
    "is_nifti_name",
    "nifti_affine",
    "nifti_facts",
    "nifti_shape",
    "ras_order",
    "read_nifti",
    "to_ras",
    "turned_affine",
    "write_like",
    "write_nifti",
    "NIFTI_SUFFIXES",
]

_NIFTI_2: Final = 540
"""Length of the header, with which such a file begins."""
_GZIP: Final = b"\x1f\x8b"
NIFTI_SUFFIXES: Final = (".nii", ".nii.gz")
MAX_VOXELS: Final = 2**28
"""A gigabyte as float32: 1 024 slices of 512 × 512."""
MAX_BYTES: Final = 2**30
BROKEN: Final = (
    ImageFileError,
    HeaderDataError,
    ImageDataError,
    WrapStructError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    zlib.error,
    gzip.BadGzipFile,
)


def _load(path: Path) -> Any:
    """A NIfTI file as nibabel opens it: by its name, or by its beginning where the name says otherwise of compression.

    Raises:
        OSError: It cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(4)
    is_packed = head[:2] == _GZIP
    if is_packed == path.name.lower().endswith(".gz"):
        return nibabel.load(path)
    with gzip.open(path) if is_packed else path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: holds more than a gigabyte. Call it {'x.nii.gz' if is_packed else 'x.nii'}.")
    lengths = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    return (nibabel.Nifti2Image if _NIFTI_2 in lengths else nibabel.Nifti1Image).from_bytes(content)


def is_nifti_name(name: str) -> bool:
    """Whether a file is called as NIfTI files are."""
    return name.lower().endswith(NIFTI_SUFFIXES)


def nifti_shape(path: Path) -> tuple[int, ...]:
    """(X, Y, Z) that the header declares.

    Raises:
        DataError: As in `read_nifti`, as far as the header shows it.
    """
    with _refusing(path):
        return _shape(_load(path), path)


def nifti_affine(path: Path) -> np.ndarray:
    """(4, 4) from voxel to millimetres that the header declares.

    Raises:
        DataError: As in `read_nifti`, as far as the header shows it.
    """
    with _refusing(path):
        image: Any = _load(path)
        return np.asarray(image.affine, dtype=np.float64)


def nifti_facts(path: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """(D, H, W) and the distances in millimetres along them that the header declares, of a volume turned by `to_ras`.

    Without a valid affine the axes are as in the file and the distances empty.

    Raises:
        DataError: As in `read_nifti`, as far as the header shows it.
    """
    shape, affine = nifti_shape(path), nifti_affine(path)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return shape[::-1], ()
    order = ras_order(affine)[::-1]
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    return tuple(shape[axis] for axis in order), tuple(round(float(steps[axis]), 6) for axis in order)


def read_nifti(
    path: Path, outside: float | None = None, *, is_magnitude: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The volume and its affine.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        outside: What voxels become that are no number, as programs mark what lies outside the scan. None: the smallest.
        is_magnitude: Whether complex voxels become their magnitude; else they are refused.

    Returns:
        (X, Y, Z) float32, scaled by slope and intercept of the header, and (4, 4) from voxel to millimetres, right,
        anterior, superior.

    Raises:
        DataError: It cannot be read, is no volume (a time series, a vector field), declares an absurd size, or holds
            colours, numbers beyond float32, or complex ones where no magnitude was asked for.
    """
    with _refusing(path):
        image: Any = _load(path)
        shape = _shape(image, path)
        values = _real(image, path, is_magnitude).reshape(shape)
        affine = np.asarray(image.affine, dtype=np.float64)
    is_known = np.isfinite(values)
    if not is_known.any():
        raise DataError(f"{path}: holds no finite voxel. Leave it out.")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path}: has no valid affine (voxels without extent). Correct its header.")
    if not is_known.all():
        values = np.where(is_known, values, values[is_known].min() if outside is None else np.float32(outside))
    return values, affine


def _real(image: Any, path: Path, is_magnitude: bool) -> np.ndarray:
    """Voxels as float32.

    Args:
        image: As nibabel opens it.
        path: The file, for errors.
        is_magnitude: Whether complex voxels become their magnitude.
    """
    kind = image.get_data_dtype()
    if kind.names is not None:
        raise DataError(
            f"{path}: holds colours ({', '.join(kind.names)}), expected one number a voxel. Export it grey."
        )
    if kind.kind == "c":
        if not is_magnitude:
            raise DataError(
                f"{path}: holds complex voxels, whose real part alone is no image. Read their magnitude with "
                "--set data.complex=magnitude, or export it."
            )
        return np.asarray(np.abs(np.asarray(image.dataobj)), dtype=np.float32)
    with np.errstate(over="ignore"):
        values = np.asarray(image.dataobj, dtype=np.float32)
    if np.isinf(values).any():
        # Infinite in the file, or only in float32?
        exact = np.asarray(image.dataobj, dtype=np.float64)
        if np.isfinite(exact[np.isinf(values)]).any():
            largest = np.abs(exact[np.isfinite(exact)]).max()
            raise DataError(f"{path}: holds numbers up to {largest:.3g}, beyond float32. Rescale it.")
    return values


def write_nifti(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write (X, Y, Z) voxels; the same bytes for the same voxels.

    Args:
        values: (X, Y, Z).
        affine: (4, 4) from voxel to millimetres, right, anterior, superior.
        path: ``.nii``, or ``.nii.gz`` to compress.

    Raises:
        OSError: The file cannot be written.
    """
    image = nibabel.Nifti1Image(np.ascontiguousarray(values), affine)
    content = image.to_bytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)


def write_like(values: np.ndarray, original: Path, path: Path) -> None:
    """Write whole numbers (X, Y, Z) with the place, the units and the codes of another file's header.

    Args:
        values: (X, Y, Z) in the order of the voxels of `original`.
        original: The NIfTI file whose header is taken.
        path: The file to write, gzip-compressed whatever it is called.

    Raises:
        OSError: The file cannot be written.
    """
    with _refusing(original):
        like: Any = _load(original)
    header = like.header.copy()
    header.set_data_dtype(values.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 0
    made = type(like)(np.ascontiguousarray(values), like.affine, header)
    # By content: a file is known by its name only when it is whole.
    path.write_bytes(gzip.compress(made.to_bytes(), mtime=0))


def to_ras(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`values` and `affine` with axes that run to the right, to the front and to the head, as nearly as they can.

    Voxels are only turned and mirrored, never interpolated.

    Args:
        values: (X, Y, Z) or (X, Y, Z, C).
        affine: (4, 4) from voxel to millimetres, right, anterior, superior.

    Examples:
        >>> turned, affine = to_ras(np.arange(8).reshape(2, 2, 2), np.diag([-1.0, 1, 1, 1]))
        >>> turned[:, 0, 0].tolist(), affine[0, 0].item()
        ([4, 0], 1.0)
    """
    orientation = io_orientation(affine)  # nibabel leaves it untyped
    turned = apply_orientation(values, orientation)
    return np.asarray(turned), turned_affine(values.shape[:3], affine)


def turned_affine(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """The affine that `to_ras` gives to voxels of this shape (X, Y, Z)."""
    orientation = io_orientation(affine)
    return np.asarray(affine @ inv_ornt_aff(orientation, tuple(shape)))


def ras_order(affine: np.ndarray) -> tuple[int, ...]:
    """Which axes of the voxels run, most nearly, to the right, to the front and to the head.

    Examples:
        >>> ras_order(np.eye(4)[[1, 0, 2, 3]])
        (1, 0, 2)
    """
    orientation = io_orientation(affine)
    return tuple(int(axis) for axis in np.argsort(orientation[:, 0]))


def from_ras(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """What `to_ras` made, back in the order of the file.

    Args:
        values: (X, Y, Z), turned.
        affine: (4, 4) of the file.

    Examples:
        >>> affine = np.diag([-1.0, 1, 1, 1])
        >>> voxels = np.arange(8).reshape(2, 2, 2)
        >>> bool((from_ras(to_ras(voxels, affine)[0], affine) == voxels).all())
        True
    """
    turned = np.array([[0, 1], [1, 1], [2, 1]])
    back = ornt_transform(turned, io_orientation(affine))
    return np.asarray(apply_orientation(values, back))


# It tells of repaired headers on its own; what matters becomes an error here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory for its voxels.") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"{path}: damaged or not readable as NIfTI ({reason}). Fetch it again or leave it out."
        ) from error


def _shape(image: Any, path: Path) -> tuple[int, ...]:
    shape = tuple(int(side) for side in image.shape)
    if len(shape) > 3 and set(shape[3:]) == {1}:
        shape = shape[:3]
    if len(shape) != 3 or min(shape) < 2:
        raise DataError(f"{path}: expected one volume (x, y, z), got shape {image.shape}. Split it, or leave it out.")
    voxels = np.prod(shape, dtype=np.float64)
    if voxels > MAX_VOXELS or voxels * image.get_data_dtype().itemsize > MAX_BYTES:
        raise DataError(f"{path}: declares {shape} voxels, over the limit of {MAX_VOXELS:,} or of a gigabyte.")
    return shape
