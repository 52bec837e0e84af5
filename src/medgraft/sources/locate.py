"""From what ``--weights`` says to a file on this machine: a path, or the name of a source."""

import dataclasses
from pathlib import Path

from medgraft.errors import WeightsError
from medgraft.sources.catalogue import SOURCES, nearest_sources
from medgraft.sources.known import KnownSource
from medgraft.sources.load import file_and_key
from medgraft.sources.package import is_installed, package_file
from medgraft.sources.run_source import MODEL_KEY, model_folder, run_source
from medgraft.sources.vault import stored, stored_names, verified

__all__ = ["Located", "is_here", "locate", "source_named"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A weights file on this machine.

    Args:
        path: The file.
        key: The network in it where the user named one, else None.
        source: What it is where the user named that, else None.
        run: Folder of the stored model where it is one, else None.
    """

    path: Path
    key: str | None = None
    source: KnownSource | None = None
    run: Path | None = None


def source_named(name: str) -> KnownSource | None:
    """The source of that name in the catalogue or the vault, or None."""
    record = None if name in SOURCES else stored(name)
    return SOURCES.get(name) or (record.source if record else None)


def is_here(source: KnownSource) -> bool:
    """Whether the file of a source is on this machine: in the vault, or in an installed package."""
    return stored(source.name) is not None or is_installed(source)


def locate(weights: str) -> Located:
    """The file that ``--weights`` means, its digest checked where one is known.

    Args:
        weights: A path, the folder of a finished run or of its model, or the name of a source; with ``#key``.

    Raises:
        WeightsError: There is no such file or source, or it is not on this machine, or its file was changed.
    """
    path, key = file_and_key(weights)
    if (folder := model_folder(path)) is not None:
        model, file = run_source(folder)
        return Located(path=file, key=MODEL_KEY, source=model, run=folder)
    if path.exists():
        return Located(path=path, key=key)
    source = source_named(str(path))
    if source is not None:
        return Located(path=_file_of(source), key=key, source=source)
    if path.name != str(path) or path.suffix:
        raise WeightsError(
            f"expected a weights file at {path}, got nothing. Give its path, or a name of medgraft weights list."
        )
    near = ", ".join([*nearest_sources(str(path)), *(name for name in stored_names() if name not in SOURCES)])
    raise WeightsError(
        f"expected hub, none, packaged, the path of a weights file or the name of a source, got {str(path)!r}. "
        f"Nearest: {near or 'none'}. medgraft weights list shows all."
    )


def _file_of(source: KnownSource) -> Path:
    if stored(source.name) is not None:
        return verified(source.name)[1]
    if source.place.kind == "package":
        return package_file(source)
    raise WeightsError(
        f"expected the weights {source.name} on this machine, got none. With internet: medgraft weights fetch "
        f"{source.name}; from a file: medgraft weights import FILE --as {source.name}."
    )
