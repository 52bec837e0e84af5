"""Files that are there whole or not at all, in one place: every writer of the package goes through here."""

import contextlib
import csv
import json
import math
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medgraft.as_json import to_json
from medgraft.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "copy_whole",
    "is_elsewhere",
    "lock_file",
    "locked",
    "read_json",
    "remove_leftovers",
    "refuse_place",
    "replacing",
    "replacing_folder",
    "write_json",
    "write_once",
    "write_rows",
    "write_table",
    "write_text",
]

_UNFINISHED: Final = ".unfinished-"
_ABANDONED_SECONDS: Final = 24 * 3600.0
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def refuse_place(path: Path, *, is_folder: bool = False) -> None:
    """Refuse a place that cannot be written before anything is computed for it; missing folders above it are made.

    Args:
        path: The file, or folder, that will be written.
        is_folder: Which of the two.

    Raises:
        RunError: It is the other one, or the disk does not let one write there.
    """
    if path.is_dir() and not is_folder:
        raise RunError(f"expected a file for the result at {path}, got a folder. Name a file in it.")
    if path.is_file() and is_folder:
        raise RunError(f"expected a folder for the results at {path}, got a file. Name another place.")
    trial = _unfinished(path / "x" if is_folder else path)
    try:
        trial.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise RunError(_refusal(path, error)) from error


@contextlib.contextmanager
def replacing(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well, and is removed when it does not.

    Its name ends as `path` does and is new at every call, so that threads, processes and machines that write the same
    file side by side do not meet: the last one wins, whole. Missing parent folders are made.

    Args:
        path: The file that is written.
        mode: Permissions of the file; None leaves them to the system.

    Raises:
        RunError: The disk is full, or the place cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    temporary = _unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode is not None:
            os.close(os.open(temporary, _NEW, mode))
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if is_elsewhere(error, path.parent):
            raise
        raise RunError(_refusal(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder that takes the place of the folder `path` when the block ends well, and is removed when it does not.

    Raises:
        RunError: The disk is full, or the place cannot be written.
    """
    temporary = _unfinished(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        # A folder cannot be replaced in one step: the old one steps aside first.
        if path.exists():
            old = _unfinished(path)
            path.replace(old)
            temporary.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(path)
    except OSError as error:
        if is_elsewhere(error, path.parent):
            raise
        raise RunError(_refusal(path, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_whole(source: Path, path: Path) -> None:
    """Put a copy of a file or folder in the place `path`, whole or not at all.

    Args:
        source: What is copied, with all that is in it.
        path: What was there is gone.

    Raises:
        RunError: The disk is full, or the place cannot be written.
    """
    if source.is_dir():
        with replacing_folder(path) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
    else:
        with replacing(path) as temporary:
            shutil.copyfile(source, temporary)


@contextlib.contextmanager
def locked(path: Path, *, waits: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; one holder at a time, in whatever thread, process or machine.

    The system lets go of it when the holder dies, however suddenly; the file names the holder for whoever is refused.

    Args:
        path: The lock file; its folder is there.
        waits: Whether to wait for another holder instead of being refused.

    Raises:
        RunError: Somebody else holds it, or the disk cannot lock.
    """
    try:
        handle = _held(path, waits=waits)
    except BlockingIOError as error:
        holder = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise RunError(f"expected {path.parent} to be free, but {holder} is running in it. Wait or stop it.") from error
    except OSError as error:
        raise RunError(_refusal(path, error)) from error
    try:
        yield
    finally:
        # Removed before it is let go: whoever waits finds another file, or none, and tries again.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _held(path: Path, *, waits: bool) -> int:
    """A descriptor that holds the lock of the file that `path` names now."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock_file(handle, waits=waits)
            # A holder that ends removes its file: the lock may be that of a file nobody can find any more.
            if _is_named(path, handle):
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_named(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def lock_file(handle: int, *, waits: bool, is_shared: bool = False) -> None:
    """Lock an open file until it is closed.

    Args:
        handle: Its descriptor.
        waits: Whether to wait for another holder.
        is_shared: Whether others may hold it, too, as long as they all share it. Windows knows no such locks, and
            protects what a process has opened by itself: there nothing is locked.

    Raises:
        BlockingIOError: Another holds it, and waiting was not asked for.
    """
    if sys.platform == "win32":
        import msvcrt

        if is_shared:
            return
        try:
            msvcrt.locking(handle, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left unfinished below `folder` a day ago or earlier."""
    for path in folder.rglob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> Path:
    """`path`, after writing `text` to it as UTF-8 with plain line ends.

    Raises:
        RunError: It cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def write_once(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write `text` to `path` unless that is there: the first of several processes wins, and its file is whole.

    Args:
        path: The file.
        text: ASCII or UTF-8.
        mode: Permissions of the file; None leaves them to the system.

    Raises:
        RunError: It cannot be written.
    """
    temporary = _unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, _NEW, mode or 0o666), "w", encoding="utf-8") as file:
            file.write(text)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    except OSError as error:
        raise RunError(_refusal(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> Path:
    """`path`, after writing a value to it as JSON; a number that is not finite becomes null, as JSON has none.

    Args:
        path: The file.
        value: Whatever `medgraft.as_json.to_json` understands.

    Raises:
        RunError: It cannot be written.
    """
    return write_text(path, json.dumps(_finite(to_json(value)), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"could not read {path}: {error}. Run the step that wrote it again.") from error


def write_table(table: "pd.DataFrame", path: Path) -> Path:
    """`path`, after writing a table to it as CSV without row numbers.

    Raises:
        RunError: It cannot be written.
    """
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return path


def write_rows(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> Path:
    """`path`, after writing dictionaries with these `columns` to it as CSV.

    Args:
        path: The file.
        columns: Names of the columns, in order.
        rows: A dictionary for each row, with no other keys than `columns`.

    Raises:
        RunError: It cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{_UNFINISHED}{secrets.token_hex(4)}-{path.name}")


def is_elsewhere(error: OSError, folder: Path) -> bool:
    """Whether what failed is another file than those below `folder`, e.g. one that was read meanwhile."""
    name = error.filename
    return isinstance(name, str) and not Path(name).absolute().is_relative_to(folder.absolute())


def _refusal(path: Path, error: OSError) -> str:
    return f"could not write {path}: {error.strerror or error}. Free some space, check rights, or choose another place."
