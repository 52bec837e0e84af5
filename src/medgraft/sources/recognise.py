"""Which published layout a weights file has, told by the names and shapes of its tensors, never by its own name."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from torch import Tensor

from medgraft.errors import WeightsError
from medgraft.sources.layouts.published import LAYOUTS
from medgraft.sources.weights_file import StateDict

__all__ = ["COUNTER", "NetworkInFile", "flat", "layout_of", "network_in_file"]

COUNTER: Final = "num_batches_tracked"
"""How PyTorch counts batches; a number that no feature depends on."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkInFile:
    """A network in a file of a known layout.

    Args:
        layout: Key of `medgraft.sources.layouts.published.LAYOUTS`.
        path: Dictionaries and prefixes that lead to it, joined by dots.
        state: Its tensors below that path, renamed as the layout says, without what the layout drops.
        dropped: Names below that path that are known to belong to no trunk.
        others: Paths of the other networks in the file.
    """

    layout: str
    path: str
    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    others: tuple[str, ...] = ()


def flat(contents: Sequence[StateDict]) -> dict[str, Tensor]:
    """All tensors of a file by the dictionaries and the name that lead to them, joined by dots."""
    return {
        f"{content.key}.{name}" if content.key else name: value
        for content in contents
        for name, value in content.tensors.items()
    }


def layout_of(contents: Sequence[StateDict]) -> str | None:
    """The key of the file's layout in `LAYOUTS`, or None where it is none of them.

    Args:
        contents: Every dictionary of tensors in the file.
    """
    lines = "\n".join(f"{name} {tuple(value.shape)}" for name, value in flat(contents).items())
    for key, layout in LAYOUTS.items():
        has_marks = all(re.search(mark, lines, re.MULTILINE) for mark in layout.marks)
        if has_marks and not any(re.search(mark, lines, re.MULTILINE) for mark in layout.lacks):
            return key
    return None


def network_in_file(contents: Sequence[StateDict], layout: str, path: str | None, file: Path) -> NetworkInFile:
    """The network that the authors of a layout mean, or the one that the user names.

    Args:
        contents: Every dictionary of tensors in the file.
        layout: Its layout.
        path: What follows ``#``: the path of a network, or its beginning; None for the authors' choice.
        file: For errors.

    Raises:
        WeightsError: No network of that path; or the layout's network is one that medgraft does not have.
    """
    rules = LAYOUTS[layout]
    tensors = {_renamed(name, rules.joins): value for name, value in flat(contents).items()}
    if rules.refusal:
        raise WeightsError(
            f"expected weights of a network that medgraft has, got {rules.words} in {file}: {rules.refusal}."
        )
    found = _networks(tensors, rules.networks)
    if not found:
        raise WeightsError(f"expected a network in {file}, which has the marks of {rules.words}, got none.")
    chosen = [name for name in found if path is None or _is_at(name, path)]
    if not chosen:
        names = " or ".join(f"{file}#{name}" for name in found)
        raise WeightsError(f"expected a network {path!r} in {file}, got none of that name. Say {names}.")
    state, dropped = {}, []
    for name, value in found[chosen[0]].items():
        if any(re.search(pattern, name) for pattern in rules.drops):
            dropped.append(name)
            continue
        state[_renamed(name, rules.renames)] = value
    return NetworkInFile(
        layout=layout,
        path=chosen[0],
        state=state,
        dropped=tuple(dropped),
        others=tuple(name for name in found if name != chosen[0]),
    )


def _networks(tensors: Mapping[str, Tensor], patterns: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Networks of a file by the path that leads to them, without its last separator; the one that is meant comes first.

    Args:
        tensors: All of the file, by path and name.
        patterns: Of the paths, the authors' choice first.
    """
    networks: dict[str, dict[str, Tensor]] = {}
    for pattern in patterns:
        by_path: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if match := re.match(pattern, name):
                by_path.setdefault(match[0], {})[name[match.end() :]] = value
        # What lies beside a network, such as the state of an optimiser, matches the widest patterns too.
        for found in sorted(by_path, key=lambda place: -sum(value.numel() for value in by_path[place].values()))[:1]:
            networks.setdefault(found.rstrip("./~"), by_path[found])
    return networks


def _renamed(name: str, renames: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _is_at(found: str, path: str) -> bool:
    """Whether a network's path is the one the user gave, or begins with it."""
    return f"{found}.".startswith(f"{path.rstrip('./')}.")
