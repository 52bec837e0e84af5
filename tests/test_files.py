"""Files that are whole or not there: for every writer of the package, and for several processes at once."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medgraft import files
from medgraft.errors import RunError
from medgraft.files import (
    copy_whole,
    locked,
    read_json,
    refuse_place,
    remove_leftovers,
    replacing,
    replacing_folder,
    write_json,
    write_once,
    write_rows,
    write_table,
    write_text,
)
from medgraft.train.features import keep_features


def half(manager, name=""):
    with manager as temporary:
        (temporary / name if name else temporary).write_text("half")
        raise ZeroDivisionError


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        half(replacing(path))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("write", [replacing, replacing_folder])
def test_what_was_read_meanwhile_is_not_called_a_file_that_could_not_be_written(write, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError, match="gone"), write(tmp_path / "out" / "a"):
        (tmp_path / "gone").read_text()
    assert not list((tmp_path / "out").iterdir())


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    with replacing_folder(tmp_path / "model") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError):
        half(replacing_folder(tmp_path / "model"), "a")
    assert (tmp_path / "model" / "a").read_text() == "old"
    with replacing_folder(tmp_path / "model") as folder:
        (folder / "b").write_text("new")
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "b"]


@pytest.mark.parametrize("write", [
    lambda path: write_text(path, "x"),
    lambda path: write_json(path, {}),
    lambda path: write_table(pd.DataFrame({"a": [1]}), path),
    lambda path: write_rows(path, ["a"], [{"a": 1}]),
    lambda path: write_once(path, "x"),
])  # fmt: skip
def test_a_place_that_cannot_be_written_is_one_kind_of_error(write, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="could not write"):
        write(tmp_path / "file" / "inside.csv")


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write_json(
        tmp_path / "a.json", {"cosine": float("nan"), "rows": [np.float64("inf"), 1.5], "array": np.array([np.nan])}
    )
    text = (tmp_path / "a.json").read_text()

    def refuse(word):
        raise AssertionError(word)

    assert json.loads(text, parse_constant=refuse) == {"cosine": None, "rows": [None, 1.5], "array": [None]}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(RunError, match=r"could not read .*a\.json"):
        read_json(tmp_path / "a.json")


def test_what_is_written_once_is_never_changed(tmp_path):
    write_once(tmp_path / "key", "first", mode=0o600)
    write_once(tmp_path / "key", "second", mode=0o600)
    assert (tmp_path / "key").read_text() == "first"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_leftovers_of_a_kill_go_after_a_day(tmp_path):
    old, new = tmp_path / ".unfinished-1-a", tmp_path / "sub" / ".unfinished-2-b"
    (tmp_path / "sub").mkdir()
    for path in (old, new):
        path.write_text("half")
    past = time.time() - 2 * 24 * 3600
    os.utime(old, (past, past))
    remove_leftovers(tmp_path)
    assert not old.exists()
    assert new.exists()


def _keep_often(path: Path) -> None:
    for number in range(300):
        keep_features(path, np.full((4, 4), number))


def test_two_processes_write_the_same_features_side_by_side(tmp_path):
    # Forked, because a new process needs seconds to import what keeps features.
    fork = multiprocessing.get_context("fork")
    running = [fork.Process(target=_keep_often, args=(tmp_path / "features.npy",)) for _ in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    assert np.load(tmp_path / "features.npy").shape == (4, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["features.npy"]


def test_one_holder_at_a_time_in_threads_and_processes(tmp_path):
    path = tmp_path / "run.lock"
    with locked(path):
        with pytest.raises(RunError, match=f"process {os.getpid()} on .* is running in it"), locked(path):
            pass
        with ThreadPoolExecutor(1) as pool, pytest.raises(RunError, match="is running in it"):
            pool.submit(lambda: locked(path).__enter__()).result()
        code = "import sys; from pathlib import Path; from medgraft.files import locked\nwith locked(Path(sys.argv[1])): pass"
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
        assert "is running in it" in done.stderr
    assert list(tmp_path.iterdir()) == []
    with locked(path):
        assert path.is_file()


@pytest.mark.parametrize("content", ["", "12345 1.5", "process 4194304 on elsewhere"])
def test_a_lock_that_was_left_behind_holds_nobody_up(tmp_path, content):
    """Whatever it says: of a process that is gone, of another host, of an older version."""
    (tmp_path / "run.lock").write_text(content)
    with locked(tmp_path / "run.lock"):
        assert f"process {os.getpid()}" in (tmp_path / "run.lock").read_text()


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    path, calls = tmp_path / "run.lock", []
    lock = files.lock_file

    def removing(handle, *, waits):
        lock(handle, waits=waits)
        calls.append(handle)
        if len(calls) == 1:
            path.unlink()

    monkeypatch.setattr(files, "lock_file", removing)
    with locked(path):
        assert path.is_file()
    assert len(calls) == 2


def test_a_copy_is_whole_or_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.txt").write_text("new")
    for target, name in ((tmp_path / "folder", "deep/a.txt"), (tmp_path / "file.txt", "")):
        origin = source if name else source / "deep" / "a.txt"
        copy_whole(origin, target)
        assert (target / name if name else target).read_text() == "new"

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    (source / "deep" / "a.txt").write_text("newer")
    for name in ("copytree", "copyfile"):
        monkeypatch.setattr(files.shutil, name, fails)
    for origin, target in ((source, tmp_path / "folder"), (source / "deep" / "a.txt", tmp_path / "file.txt")):
        with pytest.raises(RunError, match="No space left"):
            copy_whole(origin, target)
    assert (tmp_path / "folder" / "deep" / "a.txt").read_text() == (tmp_path / "file.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder", "source"]


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"expected a file for the result at .*folder, got a folder"):
        refuse_place(tmp_path / "folder")
    with pytest.raises(RunError, match=r"expected a folder for the results at .*file, got a file"):
        refuse_place(tmp_path / "file", is_folder=True)
    with pytest.raises(RunError):
        refuse_place(tmp_path / "file" / "below.csv")
    refuse_place(tmp_path / "new" / "x.csv")
    refuse_place(tmp_path / "masks", is_folder=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "masks", "new"]
