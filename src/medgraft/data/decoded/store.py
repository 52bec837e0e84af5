"""Decoded cohorts that are kept on this machine: found again by what was decoded, dropped when they fill too much."""

import contextlib
import dataclasses
import datetime
import functools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from medgraft.errors import RunError
from medgraft.files import lock_file, read_json
from medgraft.machine import home

__all__ = [
    "META",
    "SPARE_BYTES",
    "USED",
    "StoredCohort",
    "building",
    "drop",
    "hold",
    "make_room",
    "store_folder",
    "stored_cohorts",
]

META: Final = "meta.json"
"""Lies in every cohort of a store that is whole."""
USED: Final = "used"
"""Lies beside `META`; touched whenever the cohort is used."""
_LOCKS: Final = "locks"
SPARE_BYTES: Final = 64 * 2**20
"""Bytes of a disk that no decoded cohort may take."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredCohort:
    """A decoded cohort in a store.

    Args:
        folder: Its folder in the store.
        root: Where the images lay.
        num_images: Images that could be read.
        sides: Sides of the decoded images in px, of volumes in voxels.
        num_bytes: Bytes that it fills, with its masks.
        used: When it was last used.
    """

    folder: Path
    root: str
    num_images: int
    sides: tuple[int, ...]
    num_bytes: int
    used: datetime.datetime


def store_folder() -> Path:
    """Where decoded cohorts are kept unless the user names another place: below ``MEDGRAFT_HOME``."""
    return home() / "decoded"


def stored_cohorts(store: Path) -> list[StoredCohort]:
    """What a store holds, the most recently used first.

    Args:
        store: Its folder; one that is not there holds nothing.
    """
    cohorts = []
    for meta in store.glob(f"*/{META}"):
        # Another process may drop a cohort while this one looks.
        with contextlib.suppress(RunError, OSError):
            record = read_json(meta)
            cohorts.append(
                StoredCohort(
                    folder=meta.parent,
                    root=record["root"],
                    num_images=record["num_images"],
                    sides=tuple(record["sides"]),
                    num_bytes=_num_bytes(meta.parent),
                    used=datetime.datetime.fromtimestamp((meta.parent / USED).stat().st_mtime, datetime.timezone.utc),
                )
            )
    return sorted(cohorts, key=lambda cohort: cohort.used, reverse=True)


def hold(folder: Path) -> None:
    """Say that this process uses the decoded cohort in `folder`, now and until it ends: nobody drops it meanwhile.

    Args:
        folder: Folder of a cohort in a store, whether it is there already or not.

    Raises:
        RunError: The store cannot be written.
    """
    try:
        _held_until_the_end(_lock_of(folder))
        if folder.is_dir():
            (folder / USED).touch()
    except OSError as error:
        raise RunError(f"could not use {folder.parent}: {error.strerror or error}. Choose another --cache.") from error


@contextlib.contextmanager
def building(folder: Path) -> Iterator[None]:
    """One process at a time makes the decoded cohort of `folder`; another one waits, and finds it made.

    Raises:
        RunError: The store cannot be written.
    """
    lock = _lock_of(folder).with_suffix(".building")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        lock_file(handle, waits=True)
    except OSError as error:
        raise RunError(f"could not use {folder.parent}: {error.strerror or error}. Choose another --cache.") from error
    try:
        yield
    finally:
        os.close(handle)


def make_room(store: Path, num_bytes: int, limit: int) -> None:
    """Drop the cohorts that were not used for longest until another one has room; those in use stay.

    Args:
        store: Its folder.
        num_bytes: Bytes of what will be added; more than `limit` is not refused, but nothing else is kept.
        limit: Bytes that the store may fill.
    """
    cohorts = stored_cohorts(store)
    filled = sum(cohort.num_bytes for cohort in cohorts)
    for cohort in reversed(cohorts):
        if filled + num_bytes <= limit and shutil.disk_usage(store).free > num_bytes + SPARE_BYTES:
            break
        if drop(cohort):
            filled -= cohort.num_bytes


def drop(cohort: StoredCohort) -> bool:
    """Remove a decoded cohort; False, and nothing happens, where a process uses it.

    Raises:
        RunError: It cannot be removed.
    """
    lock = _lock_of(cohort.folder)
    aside = cohort.folder.with_name(f".dropped-{secrets.token_hex(4)}")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            lock_file(handle, waits=False)
            # Gone in one step: a process that is killed here leaves no half of a cohort under its name.
            cohort.folder.replace(aside)
            shutil.rmtree(aside)
        finally:
            os.close(handle)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True  # another process was faster
    except OSError as error:
        raise RunError(f"could not remove {cohort.folder}: {error.strerror or error}. Check its rights.") from error
    return True


def _lock_of(folder: Path) -> Path:
    return folder.parent / _LOCKS / f"{folder.name}.lock"


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@functools.cache
def _held_until_the_end(lock: Path) -> int:
    """A descriptor that shares `lock` until this process ends: what is mapped into memory is used till then."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    lock_file(handle, waits=True, is_shared=True)
    return handle
