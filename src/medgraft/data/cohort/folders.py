"""Folders of images: which layout it is, which files count, which label each carries."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from medgraft.data.cohort.cases import files_by_path, is_volume_file, volumes_in
from medgraft.data.cohort.walk import is_run, is_visible, tree_below
from medgraft.errors import DataError
from medgraft.io.case import is_case

__all__ = ["COLUMNS", "SPLIT_NAMES", "TABLE_SUFFIXES", "Listing", "list_folder", "tables_in"]

COLUMNS: Final = ("path", "label", "patient", "site", "split", "mask", "unit")
TABLE_SUFFIXES: Final = frozenset({".csv", ".tsv", ".parquet"})
SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
MASK_STEM: Final = re.compile(r"(.+)_mask(_\d+)?")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listing:
    """What lies on disk, before labels become targets.

    Args:
        layout: How the images are stored.
        root: What relative paths start from.
        table: Columns ``path label patient site split mask``, text or None.
        flags: Label columns of 0 and 1, name to texts, where a table has several.
        files: ``path`` to its files, where there are several (DICOM slices of a volume).
        dims: 2 for images, 3 for volumes.
        where: The file or folder, for errors.
        notes: What was inferred, one sentence each.
    """

    layout: Literal["folder", "split-folder", "table"]
    root: Path
    table: pd.DataFrame
    where: str
    flags: dict[str, list[str | None]] | None = None
    files: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    dims: Literal[2, 3] = 2
    notes: tuple[str, ...] = ()


def tables_in(root: Path) -> list[Path]:
    """The CSV, TSV and Parquet files directly in a folder, sorted."""
    return sorted(
        entry for entry in root.iterdir() if entry.suffix.lower() in TABLE_SUFFIXES and is_visible(entry.name)
    )


def list_folder(root: Path, dims: Literal[2, 3] = 2) -> Listing | None:
    """Images by class folder, or by split folder and class folder; None when there are no class folders.

    Hidden files and files that are no images are skipped and counted; ``x_mask.png`` beside ``x.png`` is its
    mask, not an image.

    Args:
        root: An existing folder.
        dims: 3 to read volumes (`medgraft.data.cohort.cases`) instead of images.

    Raises:
        DataError: The folder cannot be listed, or holds images where volumes were expected.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a/1.png", "b/2.png"):
        ...         (Path(folder) / name).parent.mkdir()
        ...         (Path(folder) / name).touch()
        ...     list_folder(Path(folder)).table[["path", "label"]].values.tolist()
        [['a/1.png', 'a'], ['b/2.png', 'b']]
    """
    folders = _subfolders(root)
    parts = [folder for folder in folders if folder.name.casefold() in SPLIT_NAMES]
    skipped: Counter[str] = Counter()
    files: dict[str, tuple[str, ...]] = {}
    rows: list[tuple[str | None, ...]] = []

    def rows_of(folder: Path, split: str | None) -> list[tuple[str | None, ...]]:
        return _class_rows(root, folder, split, skipped) if dims == 2 else _volume_rows(root, folder, split, files)

    by_split = any(SPLIT_NAMES[part.name.casefold()] == "train" and _subfolders(part) for part in parts)
    if by_split:
        for part in parts:
            split = SPLIT_NAMES[part.name.casefold()]
            rows += [row for folder in _subfolders(part) for row in rows_of(folder, split)]
    else:
        rows = [row for folder in folders for row in rows_of(folder, None)]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    what = "images" if dims == 2 else "volumes"
    notes = [f"{len(table)} {what} in {'split and ' if by_split else ''}class folders; the folder is the label."]
    if by_split and table["split"].nunique() == 1:
        table["split"] = None
        notes.append("Only training images lie here, so the program splits them itself.")
    if by_split and len(parts) < len(folders):
        others = ", ".join(folder.name for folder in folders if folder not in parts)
        notes.append(f"Folders beside the splits were left out: {others}.")
    if skipped:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        notes.append(f"Skipped inside the class folders: {counts}.")
    loose = sum(is_case(entry) for entry in root.iterdir() if entry.is_file() and is_visible(entry.name))
    if loose:
        notes.append(f"{loose} images lie outside any class folder and have no label; they were left out.")
    layout: Literal["folder", "split-folder"] = "split-folder" if by_split else "folder"
    return Listing(layout=layout, root=root, table=table, where=str(root), files=files, dims=dims, notes=tuple(notes))


def _volume_rows(
    root: Path, folder: Path, split: str | None, files: dict[str, tuple[str, ...]]
) -> list[tuple[str | None, ...]]:
    """One tuple in the order of `COLUMNS` per volume; the files of those that have several are added to `files`.

    Args:
        root: Folder that paths start from.
        folder: Folder of a class, whose name is the label.
        split: ``train``, ``val`` or ``test``; None where folders name no split.
        files: Path to its files, where there are several; grows.
    """
    volumes = volumes_in([path for path in tree_below(folder).files if is_volume_file(path)])
    if (folder,) in volumes:
        raise DataError(
            f"{folder}: holds images side by side, expected volumes: a folder of slices for each, NIfTI, DICOM, .npy. "
            "Images need a network for images, and --set data.dims=2 where volumes lie beside them."
        )
    files.update(files_by_path(volumes, root))
    owners = _mask_owners([volume[0].relative_to(root).as_posix() for volume in volumes])
    rows: list[tuple[str | None, ...]] = []
    for volume in volumes:
        name = volume[0].relative_to(root).as_posix()
        if name in owners:
            continue
        rows.append((name, folder.name, None, None, split, None, None))
    return rows


def _class_rows(root: Path, folder: Path, split: str | None, skipped: Counter[str]) -> list[tuple[str | None, ...]]:
    """One tuple in the order of `COLUMNS` per image.

    Args:
        root: Folder that paths start from.
        folder: Folder of a class, whose name is the label.
        split: ``train``, ``val`` or ``test``; None where folders name no split.
        skipped: Number by kind of what is left out; grows.
    """
    rows: list[tuple[str | None, ...]] = []
    tree = tree_below(folder)
    skipped.update(tree.skipped)
    for parent, names in tree.folders:
        images = [name for name in names if is_case(parent / name)]
        others = set(names) - set(images)
        skipped.update(f"{Path(name).suffix.lower() or 'other'} files" for name in names if name in others)
        owners = _mask_owners(images)
        relative = parent.relative_to(root).as_posix()
        first_mask: dict[str, str] = {}
        for name, owner in owners.items():
            first_mask.setdefault(owner, name)
        skipped.update({"further masks": len(owners) - len(first_mask)} if len(owners) > len(first_mask) else {})
        for name in images:
            if name not in owners:
                mask = f"{relative}/{first_mask[name]}" if name in first_mask else None
                rows.append((f"{relative}/{name}", folder.name, None, None, split, mask, None))
    return rows


def _mask_owners(images: list[str]) -> dict[str, str]:
    """Name of each mask to the image it belongs to; `images` are the sorted names of one folder."""
    stems = {_stem(name): name for name in images}
    matches = {name: MASK_STEM.fullmatch(_stem(name)) for name in images}
    return {name: stems[match[1]] for name, match in matches.items() if match and match[1] in stems}


def _stem(name: str) -> str:
    """The name without its ending, of which ``.nii.gz`` is one."""
    return Path(name.removesuffix(".gz")).with_suffix("").as_posix()


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(
            entry for entry in folder.iterdir() if entry.is_dir() and is_visible(entry.name) and not is_run(entry)
        )
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}). Check its rights.") from error
