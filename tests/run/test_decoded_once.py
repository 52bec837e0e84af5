"""Images are decoded once on a machine, whatever job asks for them and however the job before ended."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import medgraft.data.decoded.images as cache
from medgraft.cli import app
from medgraft.config import DataConfig
from medgraft.data.decoded.store import stored_cohorts
from medgraft.errors import MedgraftError
from small_runs import evaluate, fit, small_config


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows as they are decoded."""
    rows: list[int] = []
    read = cache.decode_row

    def counted(cohort: Any, row: int, **rest: Any) -> Any:
        rows.append(row)
        return read(cohort, row, **rest)

    monkeypatch.setattr(cache, "decode_row", counted)
    return rows


def test_a_refusal_after_decoding_keeps_what_was_decoded(phantom: Path, tmp_path: Path, decoded: list[int]) -> None:
    config = small_config(phantom, transfer={"cut": "99"}, data={"cache": str(tmp_path / "store")})
    for _ in range(2):
        with pytest.raises(MedgraftError, match="99"):
            fit(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    assert sorted(decoded) == list(range(len(decoded)))  # each of them once
    assert len(stored_cohorts(tmp_path / "store")) == 1


def test_a_second_job_decodes_nothing(phantom: Path, tmp_path: Path, decoded: list[int]) -> None:
    config = small_config(phantom, transfer={"cut": "2"}, train={"epochs": 1}, data={"cache": str(tmp_path / "store")})
    fit(config, tmp_path / "first")
    assert decoded
    decoded.clear()
    fit(config, tmp_path / "second")
    assert decoded == []
    data = DataConfig(source=str(phantom), cache=str(tmp_path / "store"))
    evaluate(tmp_path / "first", data, replicates=100)
    decoded.clear()
    evaluate(tmp_path / "second", data, replicates=100)
    assert decoded == []


def test_a_run_goes_on_with_another_cache(phantom: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"transfer": {"cut": "2"}, "train": {"epochs": 1}}
    first = fit(small_config(phantom, data={"cache": str(tmp_path / "a")}, **options), tmp_path / "run")
    again = fit(small_config(phantom, data={"cache": str(tmp_path / "b"), "cache_gb": 1}, **options), tmp_path / "run")
    assert again == first


def test_what_is_kept_is_shown_and_removed(phantom: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    # Another process decodes: what this one uses would not be removed.
    arguments = ["advise", str(phantom), "--offline", "--size", "32", "--cache", str(store), "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "medgraft", *arguments], check=True, capture_output=True, env=os.environ)
    (kept,) = stored_cohorts(store)
    shown = CliRunner().invoke(app, ["cache", "--cache", str(store)])
    assert f"1 decoded cohort, {kept.num_bytes / 1e9:.2f} GB" in " ".join(shown.output.split())
    (told,) = json.loads(CliRunner().invoke(app, ["cache", "--cache", str(store), "--json"]).output)
    assert (told["root"], told["num_images"], told["sides"]) == (kept.root, kept.num_images, [32, 32])
    young = CliRunner().invoke(app, ["cache", "--cache", str(store), "--clear", "--unused-days", "1"])
    assert "Removed 0 decoded cohorts" in young.output
    assert stored_cohorts(store)
    gone = CliRunner().invoke(app, ["cache", "--cache", str(store), "--clear"])
    assert "Removed 1 decoded cohort," in gone.output
    assert stored_cohorts(store) == []
    empty = CliRunner().invoke(app, ["cache", "--cache", str(tmp_path / "nowhere")])
    assert empty.exit_code == 0
    assert "0 decoded cohorts" in empty.output
