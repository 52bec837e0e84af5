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

from medgraft.config import RunConfig, to_yaml
from medgraft.errors import MedgraftError, RunError
from medgraft.files import locked, read_json, remove_leftovers, write_json, write_text
from medgraft.types import to_json

__all__ = [
    "demand_same_data",
    "log_event",
    "open_run",
    "output_folder",
    "run_id_of",
]

# These say nothing of what is learned: a run may go on with another cache, or with more processes.
_ELSEWHERE: Final = {"data.cache", "data.cache_gb", "executor"}


@contextlib.contextmanager
def open_run(folder: Path, config: RunConfig) -> Iterator[Path]:
    """Make or continue the run in `folder`; only one process may own it.

    Raises:
        RunError: Another process owns it, it holds a run with other settings or foreign files, or it cannot be
            written.
    """
    try:
        was_there = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [p.name for p in folder.iterdir()] if not (folder / "config.yaml").exists() else []
        if [name for name in foreign if name != "run.lock"]:
            raise RunError(
                f"expected a new or empty folder for --out, got {folder} with {foreign[0]} in it. Choose another."
            )
        is_new = not (folder / "config.yaml").exists()
        try:
            with locked(folder / "run.lock"):
                _check_config(folder, config)
                remove_leftovers(folder)
                if not (folder / "run.json").exists():
                    write_json(folder / "run.json", {"id": uuid.uuid4().hex, "started": _now()})
                yield folder
        except MedgraftError:
            # A refused call leaves nothing behind, so that the corrected one may use the same folder; what was trained
            # stays, of a run or of one of its folds.
            if is_new and not any(folder.glob("**/checkpoints")):
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                if not was_there:
                    folder.rmdir()
            raise
    except OSError as error:
        raise RunError(
            f"could not write the run folder {folder}: {error.strerror or error}. Check rights and free space."
        ) from error


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
        RunError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"could not write to {path}: {error.strerror or error}. Choose another --out.") from error
    return path


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
