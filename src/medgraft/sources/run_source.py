"""The model of a finished run as a source: what it learned is transferred on."""

import json
from pathlib import Path
from typing import Any, Final

from medgraft.backbones.load_report import Ancestor
from medgraft.errors import WeightsError
from medgraft.sources.known import Input, KnownSource, Place
from medgraft.sources.layouts.published import PLAIN
from medgraft.sources.weights_file import sha256_of

__all__ = [
    "DESCRIPTION",
    "MODEL_KEY",
    "OWN_FILE",
    "WEIGHTS",
    "lineage_of_run",
    "model_folder",
    "network_name",
    "run_source",
]

MODEL_KEY: Final = "trunk.network"
"""Where the network lies among a stored model's tensors."""
DESCRIPTION, WEIGHTS, OWN_FILE = "model.json", "model.safetensors", "network.py"
"""Files of a stored model; the last is a user's own network."""


def model_folder(path: Path) -> Path | None:
    """The folder of a stored model: `path` itself, or the chosen model of the run in it; None where there is none."""
    folders = (path / "model", path)
    return next((folder for folder in folders if (folder / DESCRIPTION).is_file()), None)


def run_source(folder: Path) -> tuple[KnownSource, Path]:
    """What a stored model is as a source, and its weights file.

    Args:
        folder: Of the model; ``RUN/baseline`` holds the fully fine-tuned network, ``RUN/model`` what was chosen, which
            may end at a cut.

    Raises:
        WeightsError: Its description is damaged, its weights were changed, or it is one that cannot be transferred on:
            slimmed, with adapters, or a network for images that was lifted to volumes.
    """
    described, weights = _described(folder), folder / WEIGHTS
    if not weights.is_file() or sha256_of(weights) != described["sha256"]:
        raise WeightsError(
            f"expected the weights that {folder / DESCRIPTION} names, got others or none. Copy it again."
        )
    backbone, settings = described["backbone"], described["preprocessing"]
    strategy = str(described["strategy"])
    what = "slimmed above its cut" if described.get("slim") else "with adapters" if strategy == "lora" else ""
    if backbone.get("lift", "none") != "none":
        what = "of a network for images that was lifted to volumes"
    if backbone.get("input", "replicate") != "replicate":
        what = "of a network whose first layer was folded for grey images"
    if what:
        raise WeightsError(f"expected a model whose network can be filled from it, got one {what} in {folder}.")
    is_by_image = settings["normalisation"] == "image"
    mean, std = (() if is_by_image else tuple(settings[key]) for key in ("mean", "std"))
    sides = described.get("patch") or settings["sides"]
    source = KnownSource(
        name=_run_name(folder),
        network=network_name(folder, str(backbone["name"])),
        args=backbone["args"],
        layout=PLAIN,
        data=f"{described['task']}: {', '.join(described['classes'])}",
        objective=f"supervised ({strategy} at {described['cut']['name']})",
        input=Input(side=sides[0] if len(sides) == 2 else (sides[0], sides[1], sides[2]), mean=mean, std=std),
        size_mb=weights.stat().st_size / 1e6,
        licence=str(described["weights"].get("licence") or "not stated"),
        citation="a run of this machine's user",
        place=Place(kind="by-hand", name=str(folder), sha256=str(described["sha256"])),
    )
    return source, weights


def network_name(folder: Path, stored: str) -> str:
    """The name by which a stored model's network is built: a user's own is that of the file beside it.

    Args:
        folder: Of the model.
        stored: As its description has it.
    """
    return f"{folder / OWN_FILE}:{stored.partition(':')[2]}" if stored.startswith(f"{OWN_FILE}:") else stored


def lineage_of_run(folder: Path) -> tuple[Ancestor, ...]:
    """What the network of a stored model had learned before its own run, the first first.

    Raises:
        WeightsError: Its description is damaged.
    """
    weights = _described(folder)["weights"]
    return tuple(Ancestor(**ancestor) for ancestor in weights.get("lineage", ()))


def _run_name(folder: Path) -> str:
    """A run by its own folder, with the part of it that is not the chosen model."""
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name == "model" else f"{resolved.parent.name}/{resolved.name}"


def _described(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = [described[key] for key in ("sha256", "strategy", "task", "classes", "weights")]
        _ = [described["preprocessing"][key] for key in ("normalisation", "mean", "std", "sides")]
        _ = described["backbone"]["name"], described["backbone"]["args"], described["cut"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"expected the description of a model at {path}, got {error!r}. Copy the run again."
        ) from error
    return described
