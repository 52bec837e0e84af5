"""The artefact: `model.safetensors` and `model.json`, enough to predict anywhere, and no pickle."""

import dataclasses
import json
import platform
import shutil
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medgraft.as_json import from_json, to_json
from medgraft.backbones.build import build_backbone
from medgraft.backbones.load_report import Ancestor
from medgraft.backbones.own import is_own_name, source_file
from medgraft.backbones.spec import Backbone, BackboneSpec
from medgraft.config import Unit
from medgraft.cuts.truncate import Trunk, truncate_traced
from medgraft.errors import RunError
from medgraft.files import replacing_folder, write_json
from medgraft.sources.run_source import DESCRIPTION, OWN_FILE, WEIGHTS, model_folder, network_name
from medgraft.sources.weights_file import sha256_of
from medgraft.transfer.heads import CLASSICAL, HeadSettings, empty_classical
from medgraft.transfer.model import Head, Normalise, TransferModel
from medgraft.transfer.slim import Slim, slim_above
from medgraft.transfer.source import Source, prepare_source
from medgraft.transfer.strategies import with_head
from medgraft.types import Cut, Preprocessing, Task
from medgraft.version import __version__

__all__ = ["Artefact", "Judging", "LoadedModel", "WeightsOrigin", "load_artefact", "save_artefact"]

_FORMAT: Final = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """What a stored model needs to know of its judging.

    Args:
        thresholds: Class name to the operating point chosen on validation.
        temperature: Fitted on validation; reported beside, never applied to `prob_*`.
        tolerance_mm: For a segmentation, the tolerance of surface Dice.
    """

    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0
    tolerance_mm: float = 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WeightsOrigin:
    """Where pretrained weights came from.

    Args:
        source: A file, or the name of a source or of a hub's model.
        licence: As far as known, else an empty string.
        sha256: Of the file, else an empty string.
        lineage: What they learned, step by step, the first first.
    """

    source: str = ""
    licence: str = ""
    sha256: str = ""
    lineage: tuple[Ancestor, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """Everything about a deployed model but its tensors.

    Args:
        task: What it predicts.
        classes: In the order of the probabilities.
        positive: Positive class of a binary task.
        is_ordinal: Whether the classes are grades, from the lowest to the highest.
        strategy: How it was made.
        cut: Where its trunk ends.
        head: Its head.
        preprocessing: From a file to the network's input.
        thresholds: Class name to the operating point chosen on validation.
        temperature: Fitted on validation; reported beside, never applied to `prob_*`.
        weights: Where the pretrained weights came from.
        frozen: Frozen module paths.
        slim: Where a slimmed network is slim; None for others.
        judged_by: What was judged as one: the probabilities of its images are averaged.
        patch: For a segmentation, sides of what its network sees at once; for others empty.
        mask_values: For a segmentation, the numbers that stand for `classes` in masks.
        tolerance_mm: For a segmentation, the tolerance of surface Dice.
    """

    task: Task
    classes: tuple[str, ...]
    positive: str | None
    strategy: str
    cut: Cut
    head: HeadSettings
    preprocessing: Preprocessing
    thresholds: dict[str, float]
    temperature: float
    weights: WeightsOrigin
    frozen: tuple[str, ...] = ()
    slim: Slim | None = None
    is_ordinal: bool = False
    judged_by: Unit = "image"
    patch: tuple[int, ...] = ()
    mask_values: tuple[int, ...] = ()
    tolerance_mm: float = 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A deployed model in memory: `network` returns logits of images on the scale 0 to 1.

    For a segmentation it takes patches of `medgraft.train.batches.whole_input`.
    """

    artefact: Artefact
    network: TransferModel
    folder: Path


def save_artefact(folder: Path, model: TransferModel, artefact: Artefact, backbone: Backbone) -> Path:
    """Write the model to `folder` (replaced in one step) and return it.

    A user's own network from a file is copied beside the weights, so that the artefact is whole.

    Args:
        folder: Where the model goes.
        model: Its tensors are written.
        artefact: Everything else about the model.
        backbone: Network that the model was made from.

    Raises:
        RunError: The folder cannot be written.
    """
    with replacing_folder(folder) as partial:
        try:
            # Clones, because tied weights share memory, which safetensors refuses.
            tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
            save_file(tensors, partial / WEIGHTS)
        except SafetensorError as error:
            raise RunError(f"could not write the model to {folder}: {error}. Free space or check rights.") from error
        (partial / WEIGHTS).chmod(0o644)
        name = backbone.spec.name
        if is_own_name(name) and (file := source_file(name)) is not None:
            shutil.copyfile(file, partial / OWN_FILE)
            name = f"{OWN_FILE}:{name.rpartition(':')[2]}"
        described = {
            "format": _FORMAT,
            **to_json(artefact),
            "backbone": {
                "name": name,
                "args": to_json(backbone.spec.args),
                "in_channels": backbone.in_channels,
                "lift": backbone.spec.lift,
                "input": backbone.spec.input,
            },
            "sha256": sha256_of(partial / WEIGHTS),
            "versions": {
                "medgraft": __version__,
                "torch": torch.__version__,
                "safetensors": safetensors.__version__,
                "python": platform.python_version(),
            },
        }
        write_json(partial / DESCRIPTION, described)
    return folder


def load_artefact(path: Path) -> LoadedModel:
    """The model in a run folder or in its `model` folder, on the CPU, in evaluation mode.

    Raises:
        RunError: There is none, it is of a newer format, or its weights are not those it was saved with.
    """
    folder = model_folder(path) or path
    described = _describe(folder)
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256_of(weights) != described["sha256"]:
        raise RunError(
            f"expected the weights that {folder}/model.json names, got others or none. Copy the folder again."
        )
    # Networks that are not slim were once stored with an empty entry.
    artefact: Artefact = from_json(Artefact, {**described, "slim": described.get("slim") or None})
    backbone = described["backbone"]
    name = network_name(folder, str(backbone["name"]))
    settings = artefact.preprocessing
    sides = artefact.patch or settings.sides
    size = sides if len(sides) == 3 else sides[0]
    lift = backbone.get("lift", "none")
    spec = BackboneSpec(name=name, args=backbone["args"], weights="none", size=size, lift=lift)
    entry = backbone.get("input", "replicate")
    # Folded, mean and deviation are part of the first layer, whose numbers are stored.
    if entry == "replicate":
        spec = dataclasses.replace(spec, mean=settings.mean, std=settings.std)
    built = build_backbone(dataclasses.replace(spec, input=entry))
    source = prepare_source(built, sides)
    trunk = truncate_traced(built.network, source.trace, artefact.cut)
    if artefact.slim is not None:
        slim_above(trunk, source, artefact.slim.depth, artefact.slim.width)
    network = _network(artefact, source, trunk, load_file(weights), backbone["in_channels"])
    return LoadedModel(artefact=artefact, network=network.eval(), folder=folder)


def _network(
    artefact: Artefact, source: Source, trunk: Trunk, tensors: dict[str, Tensor], in_channels: int
) -> TransferModel:
    """The deployed model with its weights.

    Args:
        artefact: Everything about the model but its tensors.
        source: Untrained network that the trunk was cut from.
        trunk: The layers that the model keeps.
        tensors: Weights by name.
        in_channels: Channels that the network takes.
    """
    settings = artefact.preprocessing
    normalise = Normalise(in_channels, settings.normalisation, settings.mean, settings.std)
    if artefact.head.kind in CLASSICAL:
        head: Head = empty_classical(artefact.head, artefact.task, artefact.cut, tensors)
        network = TransferModel(normalise, trunk, head, artefact.frozen)
    else:
        network = with_head(normalise, source, trunk, artefact.head, artefact.frozen)
    network.load_state_dict(tensors)
    return network


def _describe(folder: Path) -> dict[str, Any]:
    file = folder / DESCRIPTION
    if not file.is_file():
        raise RunError(f"expected a finished run or its model folder, got {folder} without model.json.")
    try:
        described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = int(described["format"])
        _ = described["sha256"], [described["backbone"][name] for name in ("name", "args", "in_channels")]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"could not read {file}: {error}. Copy the model folder again.") from error
    if version > _FORMAT:
        raise RunError(f"expected model format {_FORMAT} or older, got {version}. Update medgraft.")
    return described
