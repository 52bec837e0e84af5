import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medgraft.errors import DataError, RunError
from medgraft.evaluate.ledger import ledger_path, open_test


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "ledger.jsonl"


def test_openings_of_one_test_set_are_counted(ledger: Path) -> None:
    assert open_test(["a", "b"], "run 1", Path("out")) == 1
    assert open_test(["b", "a"], "run 2", Path("out")) == 2
    assert open_test(["a", "c"], "run 3", Path("out")) == 1
    assert open_test(["a", "b", "b"], "run 4", Path("out")) == 3


def test_a_continued_run_counts_once_and_keeps_its_number(ledger: Path) -> None:
    assert [open_test(["a"], run, Path("out")) for run in ("1", "2", "1", "3", "2")] == [1, 2, 1, 3, 2]
    assert len(ledger.read_text().splitlines()) == 3


def test_a_line_says_when_and_where_but_not_which_patients(ledger: Path, tmp_path: Path) -> None:
    open_test(["hash-of-a-case"], "run 1", tmp_path / "out")
    record = json.loads(ledger.read_text())
    assert record["folder"] == str(tmp_path / "out")
    assert record["when"].endswith("+00:00")
    assert (record["run"], record["cases"], len(record["test"])) == ("run 1", 1, 64)
    assert "hash-of-a-case" not in ledger.read_text()


def test_many_at_once_lose_no_opening(ledger: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda k: open_test(["a"], f"run {k}", Path("out")), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    assert len(ledger.read_text().splitlines()) == 40


def test_a_line_cut_off_by_a_kill_is_healed(ledger: Path) -> None:
    open_test(["a"], "run 1", Path("out"))
    with ledger.open("ab") as file:
        file.write(b'{"test": "ab')
    assert open_test(["a"], "run 2", Path("out")) == 2
    assert [json.loads(line)["run"] for line in ledger.read_text().splitlines()] == ["run 1", "run 2"]


def test_a_foreign_line_is_named_and_left_alone(ledger: Path) -> None:
    open_test(["a"], "run 1", Path("out"))
    before = ledger.read_text() + "no json\n"
    ledger.write_text(before)
    with pytest.raises(RunError, match=r"JSON in line 2 of .*ledger\.jsonl, got b'no json'"):
        open_test(["a"], "run 2", Path("out"))
    assert ledger.read_text() == before


def test_the_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path))
    assert ledger_path() == tmp_path / "ledger.jsonl"
    monkeypatch.delenv("MEDGRAFT_HOME")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        assert ledger_path() == tmp_path / "medgraft" / "ledger.jsonl"
        monkeypatch.delenv("XDG_DATA_HOME")
        assert ledger_path().parts[-4:] == (".local", "share", "medgraft", "ledger.jsonl")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"must be writable, got .* set MEDGRAFT_HOME"):
        open_test(["a"], "run 1", Path("out"), tmp_path / "file" / "ledger.jsonl")


def test_a_full_disk_is_said_and_not_counted(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("medgraft.evaluate.ledger.os.write", lambda handle, line: write(handle, line[:9]))
    with pytest.raises(RunError, match=r"got 9 done\. Is the disk full"):
        open_test(["a"], "run 1", Path("out"))
    monkeypatch.undo()
    assert open_test(["a"], "run 2", Path("out"), ledger) == 1


def test_no_cases_are_refused(ledger: Path) -> None:
    with pytest.raises(DataError, match="hashes of the test cases, got none"):
        open_test([], "run 1", Path("out"))


@pytest.mark.parametrize("size", [6, 60, 900])
def test_a_set_that_shares_most_cases_counts_on(size: int, ledger: Path) -> None:
    cases = [f"case {number}" for number in range(size)]
    assert open_test(cases, "first", Path("run"), ledger) == 1
    others = {
        "a subset": cases[: 2 * size // 3],
        "a superset": [*cases, "another"],
        "one exchanged": [*cases[1:], "another"],
        "one twice": [*cases, cases[0]],
    }
    for number, (name, hashes) in enumerate(others.items(), start=2):
        assert open_test(hashes, name, Path("run"), ledger) == number
    strangers = [f"stranger {number}" for number in range(size)]
    assert open_test([*strangers, *cases[: size // 5]], "others", Path("run"), ledger) == 1


def test_a_line_of_an_older_version_still_counts(ledger: Path) -> None:
    open_test(["a", "b"], "first", Path("run"), ledger)
    record = json.loads(ledger.read_text())
    del record["sketch"]
    ledger.write_text(json.dumps(record) + "\n")
    assert open_test(["a", "b"], "second", Path("run"), ledger) == 2
