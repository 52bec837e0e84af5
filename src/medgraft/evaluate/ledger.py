"""How often the labels of a test set were opened on this machine.

Every look at a test set is a chance to choose by it; the report prints the count. A set that shares most of its cases
with an earlier one is the same set: one exchanged image starts no new count. Only hashes, a run number and the run's
folder are kept.
"""

import contextlib
import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from medgraft.errors import DataError, RunError
from medgraft.files import lock_file
from medgraft.machine import home

__all__ = ["ledger_path", "open_test"]

_SAMPLE: Final = 128
_DIGITS: Final = 16
_SHARED: Final = 0.5


def ledger_path() -> Path:
    """The ledger's file: in ``MEDGRAFT_HOME`` when that is set, else in the user's data folder.

    Examples:
        >>> ledger_path().name
        'ledger.jsonl'
    """
    return home() / "ledger.jsonl"


def open_test(case_hashes: Iterable[str], run_id: str, run_folder: Path, path: Path | None = None) -> int:
    """Write down that a run opens these test cases; the number of runs that opened most of them, up to this one.

    A run that continues gets the number of its first opening and is not counted again.

    Args:
        case_hashes: One hash per case (of its pixels and identity); the order does not matter.
        run_id: Names this run, new for each, the same when it continues. Not the folder: that is used again.
        run_folder: Where the run writes, for the reader of the ledger.
        path: The ledger, if not `ledger_path`.

    Raises:
        DataError: No case.
        RunError: The ledger cannot be written or holds a line that is not an opening.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     ledger = Path(home) / "ledger.jsonl"
        ...     [open_test(["a", "b"], run, Path("run"), ledger) for run in ("first", "second", "first")]
        [1, 2, 1]
    """
    hashes = sorted(case_hashes)
    if not hashes:
        raise DataError("expected the hashes of the test cases, got none. Pass one per case.")
    key = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    file = ledger_path() if path is None else path
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file) as handle:
            sketch = _sketch(hashes)
            runs = _runs(_lines(handle), key, sketch, file)
            if run_id not in runs:
                now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
                record = {"test": key, "cases": len(hashes), "sketch": sketch, "run": run_id, "when": now}
                _append(handle, record | {"folder": str(run_folder.absolute())}, file)
                runs.append(run_id)
    except OSError as error:
        raise RunError(
            f"the test ledger must be writable, got {error.strerror} for {file}. Free or open that place, "
            "or set MEDGRAFT_HOME to another folder."
        ) from error
    return runs.index(run_id) + 1


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[int]:
    """A descriptor of the file; on POSIX no other process has it, and a killed one lets it go."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        lock_file(handle, waits=True)
        yield handle
    finally:
        os.close(handle)


def _lines(handle: int) -> list[bytes]:
    """The whole lines; a tail without newline is cut off, its writer was stopped before the labels."""
    os.lseek(handle, 0, os.SEEK_SET)
    content = b""
    while block := os.read(handle, 2**20):
        content += block
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.ftruncate(handle, len(whole))
    return whole.splitlines()


def _sketch(hashes: Sequence[str]) -> list[str]:
    """The smallest hashes of a set's cases, as a fair sample of them that is the same for equal cases.

    Args:
        hashes: One per case.

    References:
        Broder, On the resemblance and containment of documents, 1997.
    """
    return sorted({hashlib.sha256(case.encode()).hexdigest()[:_DIGITS] for case in hashes})[:_SAMPLE]


def _is_same(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether the smaller of two sets lies for the most part in the other, as far as samples tell.

    Args:
        first: From `_sketch`.
        second: The same of another set.
    """
    # Beyond the last hash of a full sample its set may go on.
    ends = [sketch[-1] for sketch in (first, second) if len(sketch) == _SAMPLE]
    parts = [{case for case in sketch if not ends or case <= min(ends)} for sketch in (first, second)]
    fewest = min(len(part) for part in parts)
    return fewest > 0 and len(parts[0] & parts[1]) > _SHARED * fewest


def _runs(lines: list[bytes], key: str, sketch: Sequence[str], file: Path) -> list[str]:
    """The runs that opened the test set `key`, or most of its cases, each once, in order.

    Args:
        lines: Whole lines of the ledger.
        key: Hash of the test set.
        sketch: From `_sketch`; a line of an older version has none.
        file: Path of the ledger, for the message.
    """
    runs: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            test, run, other = record["test"], record["run"], record.get("sketch", [])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"expected an opening as JSON in line {number} of {file}, got {line[:60]!r}. "
                "Remove that line, or restore the file."
            ) from error
        if test == key or _is_same(sketch, other):
            runs[run] = None
    return list(runs)


def _append(handle: int, record: dict[str, Any], file: Path) -> None:
    """Write one line at the end of the ledger, as a whole.

    Args:
        handle: Descriptor of the ledger, open for appending.
        record: One opening.
        file: Path of the ledger, for the message.
    """
    line = json.dumps(record).encode() + b"\n"
    written = os.write(handle, line)
    if written < len(line):
        raise RunError(
            f"expected to write {len(line)} bytes to {file}, got {written} done. Is the disk full? Free some."
        )
