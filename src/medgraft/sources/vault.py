"""Weights that are kept on this machine by name, each with what is known of it; packed into one file for a stick."""

import contextlib
import dataclasses
import datetime
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from medgraft.as_json import from_json
from medgraft.errors import MedgraftError, RunError, WeightsError
from medgraft.files import locked, read_json, remove_leftovers, replacing, replacing_folder, write_json
from medgraft.machine import home
from medgraft.sources.known import KnownSource
from medgraft.sources.weights_file import demand_sha256, sha256_of
from medgraft.version import __version__

__all__ = ["StoredWeights", "pack", "remove", "store", "stored", "stored_names", "unpack", "vault_folder", "verified"]

_MANIFEST: Final = "manifest.json"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_LARGEST_MANIFEST: Final = 1 << 20
_PIECE: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """A weights file in the vault, and what is known of it.

    Args:
        source: What it is; its name is that of the folder in the vault.
        file: Name of the weights file in that folder.
        sha256: Of the file.
        origin: Where the file came from, in words.
        is_licence_accepted: Whether the user agreed to the licence, where one has to.
        date: When it was stored, ISO 8601, UTC.
        version: Of medgraft that stored it.
    """

    source: KnownSource
    file: str
    sha256: str
    origin: str
    is_licence_accepted: bool
    date: str
    version: str


def vault_folder() -> Path:
    """Where weights are kept by name: below ``MEDGRAFT_HOME``."""
    return home() / "weights"


def stored_names() -> list[str]:
    """The names of all weights in the vault, sorted."""
    return sorted(path.parent.name for path in vault_folder().glob(f"*/{_MANIFEST}"))


def stored(name: str) -> StoredWeights | None:
    """What the vault knows of a name, or None where it holds none of it.

    Raises:
        WeightsError: Its manifest is damaged.
    """
    manifest = vault_folder() / name / _MANIFEST
    return _read_manifest(manifest) if _NAME.fullmatch(name) and manifest.is_file() else None


def _read_manifest(path: Path) -> StoredWeights:
    try:
        record: StoredWeights = from_json(StoredWeights, read_json(path))
    except RunError as error:
        raise WeightsError(
            f"expected a manifest of weights at {path}, got: {error}. Bring the weights again."
        ) from error
    if Path(record.file).name != record.file or record.file in ("", "..", _MANIFEST):
        raise WeightsError(f"expected a file beside {path}, got the name {record.file!r}. Do not use it.")
    return record


def verified(name: str) -> tuple[StoredWeights, Path]:
    """What the vault knows of a name and the path of its file, after its digest was checked.

    Raises:
        WeightsError: The vault has none of that name, or its file was changed.
    """
    record = stored(name)
    if record is None:
        raise WeightsError(f"expected weights {name!r} in {vault_folder()}, got none. See medgraft weights list.")
    path = vault_folder() / name / record.file
    demand_sha256(path, record.sha256, f"Say medgraft weights remove {name} and bring it again.")
    return record, path


def store(source: KnownSource, file: Path, *, origin: str, is_licence_accepted: bool) -> StoredWeights:
    """Put a copy of a weights file into the vault under the name of its source, whole or not at all.

    Args:
        source: What it is.
        file: Copied; its name stays.
        origin: Where it came from, in words.
        is_licence_accepted: Whether the user agreed to the licence.

    Raises:
        WeightsError: The name is none a folder may have, or the file's digest is not the published one.
        RunError: The disk is full or cannot be written.
    """
    if not _NAME.fullmatch(source.name):
        raise WeightsError(
            f"expected a name of small letters, digits, hyphens and dots, at most 100, got {source.name!r}."
        )
    digest = sha256_of(file)
    if not digest.startswith(source.place.sha256):
        raise WeightsError(
            f"expected sha256 {source.place.sha256} of {source.name}, got {digest} in {file}. Fetch it again, or "
            "import it under a name of its own."
        )
    record = StoredWeights(
        source=source,
        file=file.name,
        sha256=digest,
        origin=origin,
        is_licence_accepted=is_licence_accepted,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        version=__version__,
    )
    with _alone(), replacing_folder(vault_folder() / source.name) as folder:
        shutil.copyfile(file, folder / file.name)
        write_json(folder / _MANIFEST, record)
    return record


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Within the block no other process changes the vault; whoever comes second waits."""
    folder = vault_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"could not write to {folder}: {error.strerror or error}. Set MEDGRAFT_HOME.") from error
    with locked(folder / ".lock", waits=True):
        remove_leftovers(folder)
        yield


def remove(name: str) -> None:
    """Remove weights from the vault.

    Raises:
        WeightsError: There are none of that name.
    """
    folder = vault_folder() / name
    if not _NAME.fullmatch(name) or not (folder / _MANIFEST).is_file():
        raise WeightsError(f"expected a name among {', '.join(stored_names()) or 'none'} to remove, got {name!r}.")
    with _alone():
        shutil.rmtree(folder)


def pack(names: Sequence[str], out: Path) -> None:
    """Put weights with their manifests into one file, for a machine without a network.

    Args:
        names: In the vault.
        out: Written whole or not at all.

    Raises:
        WeightsError: The vault has none of a name, or a file was changed.
        RunError: The disk is full or cannot be written.
    """
    records = [verified(name) for name in dict.fromkeys(names)]
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for record, path in records:
            archive.write(path.parent / _MANIFEST, f"{record.source.name}/{_MANIFEST}")
            archive.write(path, f"{record.source.name}/{record.file}")


def unpack(file: Path) -> list[StoredWeights]:
    """Put the weights of a pack into the vault, after all of them were checked; returns what was stored.

    Raises:
        WeightsError: It is no pack, a member would lie outside of the vault, or one was changed.
        RunError: The disk is full or cannot be written.
    """
    vault_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=vault_folder(), prefix=".unpacking-") as temporary:
        folder = Path(temporary)
        records = _unpacked(file, folder)
        for record in records:
            demand_sha256(folder / record.source.name / record.file, record.sha256, "Pack the weights again.")
        for record in records:
            with _alone(), replacing_folder(vault_folder() / record.source.name) as place:
                for name in (record.file, _MANIFEST):
                    (folder / record.source.name / name).replace(place / name)
    return records


def _unpacked(file: Path, folder: Path) -> list[StoredWeights]:
    """The weights of a pack, written into `folder` as they lie in a vault, their digests not checked yet."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in members:
                _refuse_outside(name, file)
            records = []
            for name in sorted(member for member in members if member.endswith(f"/{_MANIFEST}")):
                records.append(_unpack_one(archive, members, PurePosixPath(name).parts[0], folder))
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, MedgraftError):
            raise
        raise WeightsError(
            f"expected a pack of weights at {file}, got: {error}. Make it by medgraft weights pack."
        ) from error
    if not records:
        raise WeightsError(f"expected a pack of weights at {file}, got an archive without a manifest.")
    return records


def _refuse_outside(name: str, file: Path) -> None:
    parts = PurePosixPath(name).parts
    if len(parts) != 2 or not _NAME.fullmatch(parts[0]) or parts[1] in ("..", ".") or "\\" in name or ":" in name:
        raise WeightsError(f"expected members NAME/FILE in the pack {file}, got {name!r}. Do not use it.")


def _unpack_one(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str, folder: Path
) -> StoredWeights:
    """One of the weights of a pack, written into `folder`.

    Args:
        archive: The pack.
        members: Its members by name.
        name: Of the weights.
        folder: Gets a folder of that name.
    """
    manifest = members[f"{name}/{_MANIFEST}"]
    if manifest.file_size > _LARGEST_MANIFEST:
        raise WeightsError(f"expected a manifest of a few kB in the pack, got {manifest.file_size} bytes of {name}.")
    (folder / name).mkdir()
    with archive.open(manifest) as content:
        (folder / name / _MANIFEST).write_bytes(content.read(_LARGEST_MANIFEST))
    record = _read_manifest(folder / name / _MANIFEST)
    if record.source.name != name or f"{name}/{record.file}" not in members:
        raise WeightsError(f"expected the file that the manifest of {name} names in the pack, got none. Pack it again.")
    with archive.open(members[f"{name}/{record.file}"]) as content, (folder / name / record.file).open("wb") as target:
        shutil.copyfileobj(content, target, _PIECE)
    return record
