"""Files that a table names without their ending, their folder, or the zeros that a spreadsheet ate."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from medgraft.data.cohort.pairs import stem_of
from medgraft.data.cohort.spelling import folded, only_matches
from medgraft.data.cohort.walk import tree_below
from medgraft.io.case import is_case
from medgraft.io.volume import is_volume_name

__all__ = ["located"]


def located(names: Sequence[str], root: Path) -> tuple[list[str], tuple[str, ...]]:
    """Each name as the path of its file, where that is there or can be found, and a note on what was found how.

    A file that is not there by its name is looked for below `root`: by its name in another folder, by its name without
    an ending, by its number without zeros. Each way is taken only where it leads to one file for one name.

    Args:
        names: Paths relative to `root`, as a table has them.
        root: Folder of the table.
    """
    lost = [number for number, name in enumerate(names) if not os.path.lexists(root / name)]
    if not lost:
        return list(names), ()
    files = [path for path in tree_below(root).files if is_case(path) or is_volume_name(path.name)]
    paths = [path.relative_to(root).as_posix() for path in files]
    found, notes = list(names), []
    for way, (of_name, of_path) in _WAYS.items():
        hits = only_matches((names[number] for number in lost), paths, of_name, of_path)
        places = {number: hits[names[number]] for number in lost if names[number] in hits}
        for number, path in places.items():
            found[number] = path
        if places:
            first = next(iter(places))
            notes.append(f"{len(places)} files are named {way} ({names[first]} is {places[first]}).")
        lost = [number for number in lost if number not in places]
    return found, tuple(notes)


def _last(name: str) -> str:
    return name.removesuffix("/").rsplit("/", 1)[-1]


def _stem(path: str) -> str:
    return stem_of(Path(path))


_WAYS: Final[dict[str, tuple[Callable[[str], str | None], Callable[[str], str | None]]]] = {
    "in another folder": (_last, _last),
    "without their ending": (_last, _stem),
    "without their zeros": (lambda name: folded(_last(name)), lambda path: folded(_stem(path))),
}
"""How names of a table may mean files, as what is compared of either; the surest way first."""
