"""Which files make which image or volume."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from medgraft.data.cohort.walk import tree_below
from medgraft.errors import DataError
from medgraft.io.case import is_case
from medgraft.io.dicom_header import DicomFile, header_if_dicom
from medgraft.io.formats import names_of_formats
from medgraft.io.image import IMAGE_SUFFIXES
from medgraft.io.in_order import in_order
from medgraft.io.natural import natural
from medgraft.io.series import stacks_of
from medgraft.io.volume import is_volume_name

__all__ = ["cases_in", "files_by_path", "files_of", "find_cases", "is_volume_file", "volume_of", "volumes_in"]


def is_volume_file(path: Path) -> bool:
    """Whether a file is a volume or a part of one, by its name or, of DICOM, its beginning.

    Args:
        path: An existing file.
    """
    return is_volume_name(path.name) or is_case(path)


def volumes_in(files: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The volumes among `files`, each as `medgraft.io.volume.read_volume` takes it, in the order of their first file.

    NIfTI files, arrays and multi-frame DICOM files are one volume each; single DICOM frames belong together by their
    SeriesInstanceUID, and apart by time point or b-value where several lie at one place; pictures by their folder,
    which stands for them; one alone beside other files of volumes is left out.

    Args:
        files: Existing files for which `is_volume_file` holds.
    """
    volumes: list[tuple[Path, ...]] = []
    folders: Counter[Path] = Counter()
    series: dict[str, dict[Path, DicomFile]] = defaultdict(dict)
    for path, header in zip(files, in_order(_header, files), strict=True):
        if is_volume_name(path.name):
            volumes.append((path,))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            folders[path.parent] += 1
        elif header is None or len(header.frames) > 1:
            volumes.append((path,))  # a broken one is named where it is read
        else:
            series[header.series_uid or str(path)][path] = header
    for members in series.values():
        # A series of scouts alone is no case of anybody.
        if not all(header.is_localizer for header in members.values()):
            volumes += _stacks(members)
    beside = {volume[0].parent for volume in volumes}
    # A picture by itself beside a volume is a preview of it.
    volumes += [(folder,) for folder, count in folders.items() if count > 1 or folder not in beside]
    return sorted(volumes, key=lambda volume: natural(volume[0]))


def cases_in(files: Sequence[Path], dims: int) -> list[tuple[Path, ...]]:
    """The files of each image (`dims` 2) or volume (3) among `files`; what is neither is left out.

    Args:
        files: Existing files.
        dims: 2 or 3.
    """
    if dims == 2:
        return [(path,) for path in files if is_case(path)]
    return volumes_in([path for path in files if is_volume_file(path)])


def find_cases(inputs: Iterable[Path], dims: int = 2) -> list[tuple[Path, ...]]:
    """The files of each image, or volume, among `inputs` and below its folders, sorted; hidden files are left out.

    Args:
        inputs: Files and folders.
        dims: 2 for images, 3 for volumes.

    Raises:
        DataError: An input does not exist, or a folder holds nothing to read.
    """
    all_cases: list[tuple[Path, ...]] = []
    for path in inputs:
        if path.is_dir():
            cases = cases_in(tree_below(path).files, dims)
            if not cases:
                what = "images" if dims == 2 else "volumes"
                raise DataError(f"expected {what} ({names_of_formats(dims)}) in {path}, got none.")
            all_cases += cases
        elif path.is_file():
            all_cases.append((path,))
        else:
            raise DataError(f"expected a file or folder at {path}, got nothing.")
    return all_cases


def files_by_path(volumes: Sequence[tuple[Path, ...]], root: Path) -> dict[str, tuple[str, ...]]:
    """Paths of the volumes that have several files, relative to `root`, each to all of its files."""
    named = (tuple(path.relative_to(root).as_posix() for path in volume) for volume in volumes if len(volume) > 1)
    return {names[0]: names for names in named}


def volume_of(path: Path) -> tuple[Path, ...]:
    """The files of the one volume that `path` names: a file, or a folder of slices.

    Raises:
        DataError: The folder holds none, or several.
    """
    volumes = _volumes_below(path)
    if len(volumes) != 1:
        shown = ", ".join(volume[0].name for volume in volumes[:3])
        raise DataError(f"{path}: expected the slices of one volume, got {len(volumes)} volumes ({shown}). Name one.")
    return volumes[0]


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of all volumes that `path` names, else `path` itself; reading tells why these are not one volume."""
    volumes = _volumes_below(path)
    return tuple(file for volume in volumes for file in volume) or (path,)


def _volumes_below(path: Path) -> list[tuple[Path, ...]]:
    if not path.is_dir():
        return [(path,)]
    return cases_in(tree_below(path).files, 3)


def _header(path: Path) -> DicomFile | None:
    is_other = is_volume_name(path.name) or path.suffix.lower() in IMAGE_SUFFIXES
    return None if is_other else header_if_dicom(path)


def _stacks(members: dict[Path, DicomFile]) -> list[tuple[Path, ...]]:
    try:
        stacks = stacks_of(members)
    except DataError:
        return [tuple(sorted(members))]  # reading it tells why it is no volume
    return [tuple(dict.fromkeys(path for path, _ in stack.slices)) for stack in stacks]
