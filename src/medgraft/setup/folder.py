"""The run folder: one owner at a time, files that appear whole, a log, and what identifies the run."""

import contextlib
import datetime
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from medgraft.as_json import to_json
from medgraft.config import RunConfig, to_yaml
from medgraft.errors import MedgraftError, RunError
from medgraft.files import is_elsewhere, locked, read_json, remove_leftovers, write_json, write_text

__all__ = [
    "demand_same_data",
    "log_event",
    "open_run",
    "output_folder",
    "refuse_run_folder",
    "run_id_of",
]

# These say nothing of what is learned: a run may go on with another cache, with more processes, or offline.
_ELSEWHERE: Final = {"data.cache", "data.cache_gb", "executor", "offline"}


@contextlib.contextmanager
def open_run(folder: Path, config: RunConfig) -> Iterator[Path]:
    """Make or continue the run in `folder`; only one process may own it.

    Raises:
        RunError: Another process owns it, it holds a run with other settings or foreign files, or it cannot be
            written.
    """
    was_there, is_emptied = folder.exists(), False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "run.lock"):
            names = sorted(path.name for path in folder.iterdir() if path.name != "run.lock")
            is_new = "config.yaml" not in names
            if is_new and names:
                raise RunError(
                    f"expected a new or empty folder for --out, got {folder} with {names[0]} in it. Choose another."
                )
            try:
                _check_config(folder, config)
                remove_leftovers(folder)
                if not (folder / "run.json").exists():
                    write_json(folder / "run.json", {"id": uuid.uuid4().hex, "started": _now()})
                yield folder
            except MedgraftError:
                # A refused call leaves nothing behind, so that the corrected one may use the same folder; what was
                # trained stays, of a run or of one of its folds.
                if is_new and not any(folder.glob("**/checkpoints")):
                    _empty(folder)
                    is_emptied = True
                raise
    except OSError as error:
        place = f"read or write {error.filename}" if is_elsewhere(error, folder) else f"write the run folder {folder}"
        raise RunError(f"could not {place}: {error.strerror or error}. Check rights and free space.") from error
    finally:
        if is_emptied and not was_there:
            # Another process may have begun a run there.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _empty(folder: Path) -> None:
    """Remove all that lies in a run folder but its lock."""
    for path in folder.iterdir():
        if path.name != "run.lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def demand_same_data(folder: Path, digest: str) -> None:
    """Refuse to continue a run with other data than it began with: its trials would speak of both.

    Args:
        folder: The run.
        digest: From `medgraft.prepare.material.digest_of`.

    Raises:
        RunError: It began with other data.
    """
    facts = read_json(folder / "run.json")
    if facts.get("data", digest) != digest:
        raise RunError(
            f"expected the images, labels, masks and patients that the run in {folder} was started with, got others. "
            "Choose another --out, or delete that folder."
        )
    if "data" not in facts:
        write_json(folder / "run.json", {**facts, "data": digest})


def output_folder(path: Path) -> Path:
    """A folder for results, made where there is none; called before anything is computed.

    Raises:
        RunError: It cannot be made, or holds a run, whose own files these results would replace.
    """
    refuse_run_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"could not write to {path}: {error.strerror or error}. Choose another --out.") from error
    return path


def refuse_run_folder(path: Path) -> None:
    """Refuse a folder of `fit`, `compare` or `analyze` as a place for other results.

    Raises:
        RunError: It is one.
    """
    if (path / "config.yaml").is_file() and (path / "run.json").is_file():
        raise RunError(f"expected another place for these results than the run in {path}. Choose another --out.")


def _check_config(folder: Path, config: RunConfig) -> None:
    text = to_yaml(config)
    path = folder / "config.yaml"
    if not path.exists():
        write_text(path, text)
        return
    before, now = yaml.safe_load(path.read_text(encoding="utf-8")), yaml.safe_load(text)
    changed = sorted(set(_differences(before, now)) - _ELSEWHERE)
    if changed:
        raise RunError(
            f"expected the settings that the run in {folder} was started with, got others for "
            f"{', '.join(changed)}. Choose another --out, or delete that folder."
        )


def _differences(before: Any, now: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings that differ.

    Args:
        before: Settings, or a part of them.
        now: Other settings, or the same part of them.
        prefix: Dotted name of the part; empty for the whole.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            yield from _differences(before.get(key), now.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif before != now:
        yield prefix


def run_id_of(folder: Path) -> str:
    """The run's own name, new for each run and the same when it continues."""
    return str(read_json(folder / "run.json")["id"])


def log_event(folder: Path, event: str, **facts: Any) -> None:
    """Append one line to the run's log.

    Args:
        folder: The run's folder.
        event: What happened.
        facts: What is told of it, by name.
    """
    line = json.dumps({"time": _now(), "event": event, **to_json(facts)}, ensure_ascii=False)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
