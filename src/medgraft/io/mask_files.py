"""Masks written as the files of their images are: their size, orientation, place in the patient and format."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from PIL import Image

from medgraft.config import MaskFormat
from medgraft.errors import ConfigError, DataError
from medgraft.files import replacing
from medgraft.io.dicom_header import is_dicom, read_header
from medgraft.io.dicom_seg import demand_highdicom, write_seg
from medgraft.io.nifti import from_ras, is_nifti_name, nifti_affine, nifti_facts, ras_order, write_like, write_nifti
from medgraft.io.series import Stack, stacks_of

__all__ = ["cell_mm", "mask_format", "mask_path", "native_sides", "write_mask"]

Kind = Literal["picture", "array", "nifti", "dicom"]
_SUFFIXES: Final = {"png": ".png", "nifti": ".nii.gz", "npy": ".npy", "dicom-seg": ".dcm"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What a case is on disk: the affine of its voxels (column, row, slice) and its slices, as far as it has any."""

    kind: Kind
    affine: np.ndarray | None = None
    stack: Stack | None = None


def mask_format(files: Sequence[Path], dims: int, wanted: MaskFormat) -> str:
    """The format in which a mask of these files is written.

    ``auto``: DICOM-SEG of DICOM, NIfTI of NIfTI, PNG of other images, ``.npy`` of arrays and of folders of slices.

    Raises:
        ConfigError: No such format, the files have no place for it, or a library is missing.
    """
    if wanted not in get_args(MaskFormat):
        raise ConfigError(f"expected --format among {', '.join(get_args(MaskFormat))}, got {wanted!r}.")
    kind = _kind(files)
    # A model of images will not read NIfTI: that is told of the file, not of the call.
    usual = {"dicom": "dicom-seg", "nifti": "nifti" if dims == 3 else "png"}
    found = usual.get(kind, "npy" if dims == 3 else "png") if wanted == "auto" else wanted
    is_possible = {
        "png": dims == 2,
        "nifti": dims == 3 and kind in ("dicom", "nifti"),
        # Arrays do not tell how they are turned, which NIfTI and DICOM volumes do.
        "npy": dims == 2 or kind in ("array", "picture"),
        "dicom-seg": kind == "dicom",
    }
    if not is_possible[found]:
        raise ConfigError(f"{files[0]}: a mask of it cannot be written as {found}. Leave --format out.")
    if found == "dicom-seg":
        demand_highdicom()
    return found


def native_sides(files: Sequence[Path], pixels: np.ndarray, dims: int, *, is_resampled: bool) -> tuple[int, ...]:
    """(H, W) or (D, H, W) of a case in its files, turned as it is read.

    Args:
        files: Of the case.
        pixels: As they were read.
        dims: 2 or 3.
        is_resampled: Whether volumes were brought to a common spacing.
    """
    if not is_resampled:
        return tuple(pixels.shape[:dims])
    if is_nifti_name(files[0].name):
        return nifti_facts(files[0])[0]
    stack = _case(files, dims).stack
    if stack is None:
        return tuple(pixels.shape[:dims])
    header = read_header(stack.slices[0][0])
    sides = (header.columns, header.rows, len(stack.slices))
    return tuple(sides[axis] for axis in ras_order(stack.affine)[::-1])


def cell_mm(files: Sequence[Path], spacing_mm: Sequence[float], dims: int) -> float | None:
    """Area of a pixel in mm² or volume of a voxel in mm³ of a case in its files; None where it is unknown.

    A voxel of a tilted gantry is smaller than the product of its sides.

    Args:
        files: Of the case.
        spacing_mm: Of its pixels or voxels.
        dims: 2 or 3.
    """
    if len(spacing_mm) != dims:
        return None
    affine = _case(files, dims).affine if dims == 3 else None
    return float(np.prod(spacing_mm) if affine is None else abs(np.linalg.det(affine[:3, :3])))


def mask_path(stem: Path, kind: str) -> Path:
    """Where `write_mask` writes."""
    return stem.with_name(stem.name + _SUFFIXES[kind])


def write_mask(
    mask: np.ndarray,
    files: Sequence[Path],
    path: Path,
    *,
    kind: str,
    values: Sequence[int],
    classes: Sequence[str],
    version: str,
) -> Path:
    """Write a mask to `path`, which is returned; the file appears whole or not at all.

    Args:
        mask: (H, W) or (D, H, W) uint8 class numbers, as its image is read.
        files: Of the image.
        path: From `mask_path`.
        kind: From `mask_format`.
        values: Numbers that stand for the classes in the file; DICOM-SEG counts them from 1.
        classes: Their names.
        version: Of the program.

    Raises:
        ConfigError: A library is missing.
        DataError: The files cannot carry a mask.
        RunError: The place cannot be written.
    """
    numbers = np.array([0, *values], dtype=np.uint8 if max(values) < 256 else np.uint16)[mask]
    case = _case(files, mask.ndim)
    with replacing(path) as temporary:
        if kind == "png":
            Image.fromarray(numbers).save(temporary)
        elif kind == "npy":
            with temporary.open("wb") as stream:
                np.save(stream, numbers)
        elif kind == "nifti":
            _write_nifti(numbers, files[0], case, temporary)
        else:
            _write_seg(mask, files, case, temporary, classes, version)
    return path


def _write_nifti(numbers: np.ndarray, file: Path, case: _Case, path: Path) -> None:
    if case.affine is None:
        raise DataError(f"{file}: has no place in the patient, which NIfTI needs. Leave --format out.")
    values = from_ras(numbers.transpose(2, 1, 0), case.affine)
    if case.kind == "nifti":
        write_like(values, file, path)
    else:
        write_nifti(values, case.affine, path)


def _write_seg(
    mask: np.ndarray, files: Sequence[Path], case: _Case, path: Path, classes: Sequence[str], version: str
) -> None:
    if case.stack is None or case.affine is None:
        write_seg(mask[None], files, classes, path, version=version, slice_mm=None)
        return
    frames = from_ras(mask.transpose(2, 1, 0), case.affine).transpose(2, 1, 0)
    sources = [file for file, _ in case.stack.slices]
    if len(set(sources)) == 1:
        # One file of many frames: in their order there.
        frames, sources = frames[np.argsort([number for _, number in case.stack.slices])], sources[:1]
    slice_mm = float(np.linalg.norm(case.affine[:3, 2]))
    write_seg(np.ascontiguousarray(frames), sources, classes, path, version=version, slice_mm=slice_mm)


def _kind(files: Sequence[Path]) -> Kind:
    first = files[0]
    if is_nifti_name(first.name):
        return "nifti"
    if first.is_file() and is_dicom(first):
        return "dicom"
    return "array" if first.suffix.lower() in (".npy", ".npz") else "picture"


def _case(files: Sequence[Path], dims: int) -> _Case:
    kind = _kind(files)
    if kind == "nifti":
        return _Case(kind=kind, affine=nifti_affine(files[0]))
    if kind == "dicom" and dims == 3:
        (stack, *_) = stacks_of({path: read_header(path) for path in files})
        return _Case(kind=kind, affine=stack.affine, stack=stack)
    return _Case(kind=kind)
