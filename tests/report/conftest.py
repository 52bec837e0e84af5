"""Finished runs as the jobs leave them; a test changes what stands in `results.json` where it needs another fact."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import figures
from kinds import KINDS

DROP = object()


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished run per task, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.mktemp("home")))
        with figures.left_out():
            return {kind: KINDS[kind](tmp_path_factory.mktemp(kind)) for kind in ("binary", "multiclass", "multilabel")}


@pytest.fixture
def make_run(tmp_path: Path, finished_runs: dict[str, Path]) -> Callable[..., Path]:
    """A private copy of a finished run with some of its results changed (dotted path to value, or DROP)."""

    def make(task: str = "binary", changes: dict[str, Any] | None = None) -> Path:
        run = tmp_path / ("run" if not (tmp_path / "run").exists() else f"run_{len(list(tmp_path.iterdir()))}")
        left = shutil.ignore_patterns("report.html", "*.md", "checkpoints", "model", "baseline")
        shutil.copytree(finished_runs[task], run, ignore=left)
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        for path, value in (changes or {}).items():
            put(results, path, value)
        (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
        return run

    return make


@pytest.fixture
def drop() -> object:
    """The mark for "leave this key out"."""
    return DROP


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        tree = tree[key]
    if value is DROP:
        del tree[last]
    else:
        tree[last] = value
