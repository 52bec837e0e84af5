"""Settings of the small runs that tests of whole jobs share."""

import json
from pathlib import Path
from typing import Any

from medgraft.config import DataConfig, RunConfig, make_config
from medgraft.judge.external import external_to_json
from medgraft.phantom.phantom import PhantomSettings
from medgraft.result.run import result_to_json
from medgraft.run.compare import compare as run_compare
from medgraft.run.evaluate import evaluate as run_evaluate
from medgraft.run.fit import fit as run_fit
from medgraft.types import to_json

SMALL = PhantomSettings(
    shape=(32, 32), num_patients={"train": 60, "val": 45, "test": 60}, classes=("normal", "nodule", "mass")
)


def small_config(source: Path, **options: Any) -> RunConfig:
    """Two epochs at 32 px with the packaged network, reproducible to the bit."""
    base: dict[str, Any] = {
        "backbone": {"size": 32},
        "train": {"epochs": 2, "lr": 3e-3},
        "evaluate": {"replicates": 200},
        "deterministic": True,
        "offline": True,
        "device": "cpu",
    }
    for key, value in options.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and key in base else value
    return make_config(str(source), preset="fast", options=base)


def fit(config: RunConfig, out: str | Path, **options: Any) -> dict[str, Any]:
    """What stands in `results.json` after the main job."""
    return result_to_json(run_fit(config, out, **options))


def evaluate(run: str | Path, config: DataConfig, **options: Any) -> dict[str, Any]:
    """What stands in `evaluation.json` after a model was judged on another cohort."""
    return external_to_json(run_evaluate(run, config, **options))


def compare(config: RunConfig, out: str | Path, **options: Any) -> dict[str, Any]:
    """What stands in `comparison.json` after strategies were compared, but for the schema."""
    compared: dict[str, Any] = json.loads(json.dumps(to_json(run_compare(config, out, **options))))
    return compared
