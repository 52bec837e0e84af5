"""Feature reuse of a finished run: what transfer changed at every cut, what each cut is worth, and where to cut."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from torch import Tensor

from medgraft.analysis import (
    SMALLEST_BATCH,
    CkaSums,
    CutReader,
    Moments,
    add_cuts,
    area_between,
    block_importance,
    h_score,
    knn_probs,
    linear_cka,
    linear_probe,
    logme,
    nleep,
    procrustes_distance,
    pwcca,
    random_reference,
    svcca,
    weight_changes,
)
from medgraft.config import RunConfig
from medgraft.data.split import write_splits
from medgraft.deploy.artefact import load_artefact
from medgraft.errors import RunError
from medgraft.metrics.classification import auprc
from medgraft.report import write_report
from medgraft.run.folder import read_json, write_json
from medgraft.run.prepare import Listener, Prepared, image_set, prepared
from medgraft.train.batches import ImageSet, iterate
from medgraft.train.classical import Labelled
from medgraft.train.engine import Engine
from medgraft.train.loop import predict_probs
from medgraft.transfer.heads import HeadSettings
from medgraft.transfer.model import TransferModel
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import Cut, Predictions, to_json

__all__ = ["analyze"]

SCHEMA: Final = 1
_BATCH: Final = 32
_GRID: Final = np.linspace(0, 1, 51)
# A direction of CCA estimated from fewer images than this is mostly chance.
_IMAGES_PER_COMPONENT: Final = 10
# Probes need more images than similarities, but features of all cuts are held in memory for them.
_PROBED_PER_COMPARED: Final = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Models:
    """Three states of one architecture: before transfer, after full fine-tuning, and with random weights."""

    before: TransferModel
    after: TransferModel
    random: TransferModel


def analyze(run: str | Path, *, num_images: int = 1000, listener: Listener | None = None) -> dict[str, Any]:
    """Analyse a finished run and return what stands in its `analysis.json`; the test set stays shut.

    Args:
        run: A folder of `medgraft fit`, whose data and weights are still where they were.
        num_images: At most so many training images, drawn with the run's seed.
        listener: Told how things go.

    Raises:
        RunError: It is no finished run, or its data or weights are not those it was made with.
        DataError: Too few images, or features that cannot be compared.
    """
    folder, told = Path(run), listener or Listener()
    config = _config_of(folder)
    with tempfile.TemporaryDirectory(prefix="medgraft-analyze-") as place:
        found = prepared(config, Path(place), told)
        _check_same(folder, found, Path(place))
        models = _models(config, folder, found)
        train, val = image_set(found, "train"), image_set(found, "val")
        order = np.random.default_rng(config.seed).permutation(len(train))
        compared, probed = np.sort(order[:num_images]), np.sort(order[: _PROBED_PER_COMPARED * num_images])
        told.say(f"Comparing {len(found.source.cuts)} cuts before and after transfer on {len(compared)} images.")
        results = {
            "schema": SCHEMA,
            "num_images": len(compared),
            "num_probed": len(probed),
            "cuts": [_cut_facts(cut) for cut in found.source.cuts],
            "similarity": _similarity(models, found, train, compared, told),
            "signals": _signals(models, found, probed, config.seed, told),
            **_changes(models, found, val, told),
        }
    write_json(folder / "analysis.json", results)
    write_report(folder)
    return results


def _config_of(folder: Path) -> RunConfig:
    if not (folder / "results.json").is_file() or not (folder / "config.yaml").is_file():
        raise RunError(f"expected the folder of a finished `medgraft fit`, got {folder} without results.json.")
    config = RunConfig.model_validate(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    if config.data.folds > 1:
        raise RunError(f"expected a run on one division, got {config.data.folds} folds. Give {folder}/fold_1.")
    return config


def _check_same(folder: Path, found: Prepared, place: Path) -> None:
    digest = write_splits(found.cohort, found.groups, place / "splits.csv")
    if digest != read_json(folder / "results.json")["splits"]["sha256"]:
        raise RunError(
            f"expected the images and the split that the run in {folder} was made with, got others. "
            "Restore the data, or run fit again."
        )


def _models(config: RunConfig, folder: Path, found: Prepared) -> _Models:
    artefact = load_artefact(folder / "baseline")
    after = artefact.network
    head = HeadSettings(num_outputs=1)
    last = found.source.cuts[-1]
    before, random = (
        apply_strategy(name, found.source, last, head, lr=1.0, seed=config.seed)[0] for name in ("ftl", "scratch")
    )
    return _Models(before=before, after=after, random=random)


def _cut_facts(cut: Cut) -> dict[str, Any]:
    return {"index": cut.index, "name": cut.name, "stage": cut.stage, "num_params": cut.num_params, "macs": cut.macs}


def _images(data: ImageSet, rows: np.ndarray) -> Iterator[Tensor]:
    for images, _, _ in iterate(data, rows, _BATCH, torch.device("cpu")):
        yield images


def _similarity(models: _Models, found: Prepared, train: ImageSet, rows: np.ndarray, told: Listener) -> dict[str, Any]:
    """Vertical: pretrained against fine-tuned and against random; horizontal: every cut against every other one."""
    cuts = found.source.cuts
    names = {cut.index: cut.name for cut in cuts}
    readers = [CutReader(model, cuts) for model in (models.before, models.after, models.random)]
    tuned: dict[int, Moments] = {}
    random: dict[int, Moments] = {}
    across, within = CkaSums(), CkaSums()
    done = 0
    for images in _images(train, rows):
        before, after, other = ({i: r.numpy() for i, r in reader.read(images).items()} for reader in readers)
        add_cuts(tuned, before, after, names)
        add_cuts(random, before, other, names)
        if len(images) >= SMALLEST_BATCH:
            across.add(list(before.values()), list(after.values()))
            within.add(list(after.values()), list(after.values()))
        done += len(images)
        told.step("comparing features", done, len(rows))
    return {
        "after": {str(index): _measures(pair) for index, pair in tuned.items()},
        "random": {str(index): _measures(pair) for index, pair in random.items()},
        "cka_before_after": across.matrix().tolist(),
        "cka_after": within.matrix().tolist(),
    }


def _measures(pair: Moments) -> dict[str, Any]:
    most = max(1, pair.num_rows // _IMAGES_PER_COMPONENT)
    coefficients = svcca(pair, max_components=most)
    reference = random_reference(pair.num_rows, *pair.widths, max_components=most)
    return {
        "svcca": _on_grid(coefficients),
        "reference": _on_grid(reference),
        "num_components": len(coefficients),
        "mean": float(coefficients.mean()),
        "area": area_between(coefficients, reference),
        "pwcca": pwcca(pair, max_components=most),
        "cka": linear_cka(pair),
        "procrustes": procrustes_distance(pair),
    }


def _on_grid(coefficients: np.ndarray) -> list[float]:
    places = np.linspace(0, 1, len(coefficients))
    return [round(float(value), 5) for value in np.interp(_GRID, places, coefficients)]


def _signals(models: _Models, found: Prepared, rows: np.ndarray, seed: int, told: Listener) -> dict[str, Any]:
    """What frozen features are worth at every cut before and after transfer: probes on validation, LogME and kin."""
    cuts, val = found.source.cuts, image_set(found, "val")
    whole = image_set(found, "train")
    train = dataclasses.replace(whole, rows=whole.rows[rows], targets=whole.targets[rows])
    groups = found.groups[found.cohort.rows("train")][rows]
    results: dict[str, Any] = {}
    for name, model in (("before", models.before), ("after", models.after)):
        reader = CutReader(model, cuts)
        features, queries = _all_features(reader, train), _all_features(reader, val)
        results[name] = {}
        for done, cut in enumerate(cuts):
            told.step(f"probing features {name} transfer", done, len(cuts))
            labelled = Labelled(
                features=features[cut.index], targets=train.targets, groups=groups, task=train.task,
                positive=train.positive, num_classes=train.num_classes,
            )  # fmt: skip
            results[name][str(cut.index)] = _worth(found, labelled, queries[cut.index], seed)
    return results


def _worth(found: Prepared, train: Labelled, queries: np.ndarray, seed: int) -> dict[str, float]:
    truth = train.targets if train.task == "multilabel" else np.eye(train.num_classes)[train.targets]
    worth = {
        "probe": _val_auprc(found, linear_probe(train, queries, seed)),
        "knn": _val_auprc(found, knn_probs(train.features, truth, queries)),
        "logme": logme(train.features, truth),
    }
    if train.task != "multilabel":
        worth["h_score"] = h_score(train.features, train.targets)
        worth["nleep"] = nleep(train.features, train.targets, seed=seed)
    return worth


def _val_auprc(found: Prepared, probs: np.ndarray) -> float:
    val = image_set(found, "val")
    return auprc(
        Predictions(
            probs=probs,
            targets=val.targets,
            groups=found.groups[found.cohort.rows("val")],
            classes=found.cohort.classes,
            task=val.task,
            positive=val.positive,
        )
    )


def _all_features(reader: CutReader, data: ImageSet) -> dict[int, np.ndarray]:
    parts = [reader.read(images) for images in _images(data, np.arange(len(data)))]
    return {index: np.concatenate([part[index].numpy() for part in parts]) for index in parts[0]}


def _changes(models: _Models, found: Prepared, val: ImageSet, told: Listener) -> dict[str, Any]:
    """How far each layer's weights moved, and what putting a block back costs on validation."""
    source, after = found.source, models.after

    def score() -> float:
        return _val_auprc(found, predict_probs(after, val, Engine(device="cpu")))

    told.say("Putting every block back to its pretrained state in turn.")
    initial = dict(models.before.trunk.network.state_dict())
    network = after.trunk.network
    return {
        "weights": to_json(weight_changes(models.before.trunk.network, network, source)),
        "importance": {str(k): v for k, v in block_importance(network, initial, source, score).items()},
    }
