"""Files that a table names without their ending, their folder, or the zeros that a spreadsheet ate."""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from medgraft.data.cohort.pairs import stem_of
from medgraft.data.cohort.spelling import folded
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
    ways: dict[str, Callable[[str], str | None]] = {
        "in another folder": lambda name: name.rsplit("/", 1)[-1],
        "without their ending": lambda name: name.removesuffix("/").rsplit("/", 1)[-1],
        "without their zeros": lambda name: folded(name.rsplit("/", 1)[-1]),
    }
    keys: dict[str, Callable[[str], str | None]] = {
        "in another folder": lambda path: path.rsplit("/", 1)[-1],
        "without their ending": lambda path: stem_of(Path(path)),
        "without their zeros": lambda path: folded(stem_of(Path(path))),
    }
    for way, key_of in ways.items():
        by_key: dict[str | None, list[str]] = defaultdict(list)
        for path in paths:
            by_key[keys[way](path)].append(path)
        asked: dict[str | None, set[str]] = defaultdict(set)
        for number in lost:
            asked[key_of(names[number])].add(names[number])
        hits = {
            number: by_key[key][0]
            for number in lost
            if (key := key_of(names[number])) is not None and len(by_key[key]) == 1 and len(asked[key]) == 1
        }
        if hits:
            first = next(iter(hits))
            notes.append(f"{len(hits)} files are named {way} ({names[first]} is {hits[first]}).")
            for number, path in hits.items():
                found[number] = path
            lost = [number for number in lost if number not in hits]
    return found, tuple(notes)
