"""A run on several processes is the run on one, to the bit, and may change between them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medgraft.errors import ConfigError
from medgraft.setup.refusals import refuse_early
from small_runs import fit, own_network, small_config

TIMES = {"seconds", "baseline_seconds", "cpu_ms", "val_seconds"}


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "home"))


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_a_run_on_two_processes_gives_the_same_model_to_the_bit(phantom: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "search": {"method": "two-stage", "seeds": 2, "max_trials": 1},
        "train": {"epochs": 1},
        "seeds": 2,
        "backbone": own_network(tmp_path / "net", 5),
    }
    one = fit(small_config(phantom, **options), tmp_path / "one")
    two = fit(small_config(phantom, executor="processes:2", **options), tmp_path / "two")
    one["ledger"] = two["ledger"]  # the second run opens the same cases again
    assert without_times(one) == without_times(two)
    models = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("one", "two")]
    assert models[0] == models[1]
    tables = [pd.read_csv(tmp_path / run / "search.csv").drop(columns="seconds") for run in ("one", "two")]
    pd.testing.assert_frame_equal(*tables)
    plans = [json.loads((tmp_path / run / "plan.json").read_text()) for run in ("one", "two")]
    assert plans[0] == plans[1]
    # Where it is computed says nothing of what is learned: the run may go on elsewhere.
    again = fit(small_config(phantom, **options), tmp_path / "two")
    assert again == two


def test_an_executor_that_does_not_exist_is_refused_before_anything_is_read(phantom: Path) -> None:
    for job in ("fit", "advise"):
        with pytest.raises(ConfigError, match="processes:N"):
            refuse_early(small_config(phantom, executor="threads"), job)
