"""Settings of the small runs that tests of whole jobs share."""

from pathlib import Path
from typing import Any

from medgraft.config import RunConfig, make_config
from medgraft.data.phantom import PhantomSettings

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
