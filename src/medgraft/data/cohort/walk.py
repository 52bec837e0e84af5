"""What lies below a folder: links followed once, what is hidden or left behind by a file server counted apart."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from medgraft.errors import DataError

__all__ = ["Tree", "is_run", "is_visible", "tree_below"]

LEFT_BEHIND: Final = frozenset(
    ("@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found", "system volume information",
     "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", ".thumbnails", ".ds_store")
)  # fmt: skip
"""What file servers and desktops leave between images, thumbnails of these among it."""
_HIDDEN: Final = "hidden files"
_SERVER: Final = "files that a file server left behind (thumbnails …)"
_AGAIN: Final = "links to what is read already"
_DEAD: Final = "links to nothing"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What lies below a folder.

    Args:
        folders: Each folder with the sorted names of its files, the upper one first.
        skipped: Number by kind of what is left out.
    """

    folders: tuple[tuple[Path, tuple[str, ...]], ...]
    skipped: Counter[str]

    @property
    def files(self) -> list[Path]:
        """All files, sorted."""
        return sorted(folder / name for folder, names in self.folders for name in names)


def tree_below(top: Path) -> Tree:
    """All files below a folder. Linked folders and files are read as if they lay there, each once; loops end.

    Hidden files, runs of this program, and what file servers leave behind are no part of it.

    Args:
        top: An existing folder.

    Raises:
        DataError: A folder cannot be listed.
    """
    found: dict[Path, list[str]] = {}
    skipped: Counter[str] = Counter()
    # A link to one of these would be read as a part of itself.
    entered = {_identity(folder) for folder in (top.absolute(), *top.absolute().parents)}
    read: set[tuple[int, int]] = set()
    links = [top]
    while links:
        # What really lies somewhere comes before what further links lead to.
        start = links.pop(0)
        further, files = _look(start, found, skipped, entered, read)
        for file in files:
            if (identity := _identity(file)) in read:
                skipped[_AGAIN] += 1
            else:
                read.add(identity)
                found[file.parent].append(file.name)
        for folder in further:
            if (identity := _identity(folder)) in entered:
                skipped[_AGAIN] += 1
            else:
                entered.add(identity)
                links.append(folder)
    return Tree(folders=tuple((folder, tuple(sorted(found[folder]))) for folder in sorted(found)), skipped=skipped)


def _look(
    start: Path,
    found: dict[Path, list[str]],
    skipped: Counter[str],
    entered: set[tuple[int, int]],
    read: set[tuple[int, int]],
) -> tuple[list[Path], list[Path]]:
    """Folders and files that links below `start` lead to; what really lies there is added to what was found.

    Args:
        start: A folder that was not looked at.
        found: Names of files by their folder; grows.
        skipped: As in `Tree`; grows.
        entered: Identities of folders that were looked at; grows.
        read: Identities of files that were found; grows.
    """
    waiting = [start]
    folders: list[Path] = []
    files: list[Path] = []
    while waiting:
        folder = waiting.pop()
        names = found.setdefault(folder, [])
        for entry in _entries(folder):
            path = folder / entry.name
            if entry.name.casefold() in LEFT_BEHIND:
                skipped[_SERVER] += _count(path)
            elif not is_visible(entry.name):
                skipped.update([] if entry.is_dir() else [_HIDDEN])
            elif entry.is_symlink():
                if not path.exists():
                    skipped[_DEAD] += 1
                else:
                    (folders if path.is_dir() else files).append(path)
            elif not entry.is_dir():
                names.append(entry.name)
                read.add(_identity(path))
            elif not is_run(path) and (identity := _identity(path)) not in entered:
                entered.add(identity)
                waiting.append(path)
    return folders, files


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror or error}). Check its rights.") from error


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file or folder, whatever leads to it."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _count(path: Path) -> int:
    """Files in a folder that is left out, or one for a file."""
    return sum(len(names) for _, _, names in os.walk(path)) if path.is_dir() else 1


def is_run(folder: Path) -> bool:
    """Whether a folder is a run of this program, which may well lie beside the images."""
    return (folder / "run.json").is_file()


def is_visible(name: str) -> bool:
    """Whether a file or folder is neither hidden nor left behind."""
    return not name.startswith((".", "__")) and name.casefold() not in LEFT_BEHIND
