"""Feature reuse of a finished run: what transfer changed at every cut, what each cut is worth, and where to cut."""

import dataclasses
import functools
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
    features_at_cuts,
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
from medgraft.run.prepare import Listener, Prepared, prepared
from medgraft.run.trials import trial_context
from medgraft.search.trial import TrialContext
from medgraft.train.batches import ImageSet, iterate
from medgraft.train.engine import Engine
from medgraft.train.loop import predict_probs
from medgraft.transfer.heads import HeadSettings
from medgraft.transfer.model import TransferModel
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import Cut, to_json

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
        context = trial_context(Path(place), found, Engine(device="cpu"))
        order = np.random.default_rng(config.seed).permutation(len(context.train))
        compared, probed = np.sort(order[:num_images]), np.sort(order[: _PROBED_PER_COMPARED * num_images])
        told.say(f"Comparing {len(found.source.cuts)} cuts before and after transfer on {len(compared)} images.")
        results = {
            "schema": SCHEMA,
            "num_images": len(compared),
            "num_probed": len(probed),
            "cuts": [_cut_facts(cut) for cut in found.source.cuts],
            "similarity": _similarity(models, context, compared, told),
            "signals": _signals(models, context, probed, config.seed, told),
            **_changes(models, context, told),
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


def _similarity(models: _Models, context: TrialContext, rows: np.ndarray, told: Listener) -> dict[str, Any]:
    """Vertical: pretrained against fine-tuned and against random; horizontal: every cut against every other one."""
    cuts = context.source.cuts
    names = {cut.index: cut.name for cut in cuts}
    readers = [CutReader(model, cuts) for model in (models.before, models.after, models.random)]
    tuned: dict[int, Moments] = {}
    random: dict[int, Moments] = {}
    across, within = CkaSums(), CkaSums()
    done = 0
    for images in _images(context.train, rows):
        before, after, other = ({i: r.numpy() for i, r in reader(images).items()} for reader in readers)
        add_cuts(tuned, before, after, names)
        add_cuts(random, before, other, names)
        if len(images) >= SMALLEST_BATCH:
            layers = list(after.values())
            across.add(list(before.values()), layers)
            within.add(layers, layers)
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
    reference = _reference(pair.num_rows, *pair.widths, most)
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


@functools.cache
def _reference(num_rows: int, num_x: int, num_y: int, most: int) -> np.ndarray:
    # Chance depends on sizes alone, and several cuts and both comparisons share these.
    return random_reference(num_rows, num_x, num_y, max_components=most)


def _on_grid(coefficients: np.ndarray) -> list[float]:
    places = np.linspace(0, 1, len(coefficients))
    return [round(float(value), 5) for value in np.interp(_GRID, places, coefficients)]


def _signals(models: _Models, context: TrialContext, rows: np.ndarray, seed: int, told: Listener) -> dict[str, Any]:
    """What frozen features are worth at every cut before and after transfer: probes on validation, LogME and kin."""
    cuts, whole = context.source.cuts, context.train
    train = dataclasses.replace(whole, rows=whole.rows[rows], targets=whole.targets[rows])
    part = dataclasses.replace(context, train=train, train_groups=context.train_groups[rows])
    results: dict[str, Any] = {}
    for name, model in (("before", models.before), ("after", models.after)):
        features, queries = (features_at_cuts(model, cuts, data, part.engine) for data in (part.train, part.val))
        results[name] = {}
        for done, cut in enumerate(cuts):
            told.step(f"probing features {name} transfer", done, len(cuts))
            results[name][str(cut.index)] = _worth(part, features[cut.index], queries[cut.index], seed)
    return results


def _worth(context: TrialContext, features: np.ndarray, queries: np.ndarray, seed: int) -> dict[str, float]:
    train = context.labelled(features)
    truth = train.targets if train.task == "multilabel" else np.eye(train.num_classes)[train.targets]
    worth = {
        "probe": auprc(context.val_predictions(linear_probe(train, queries, seed))),
        "knn": auprc(context.val_predictions(knn_probs(features, truth, queries))),
        "logme": logme(features, truth),
    }
    if train.task != "multilabel":
        worth["h_score"] = h_score(features, train.targets)
        worth["nleep"] = nleep(features, train.targets, seed=seed)
    return worth


def _changes(models: _Models, context: TrialContext, told: Listener) -> dict[str, Any]:
    """How far each layer's weights moved, and what putting a block back costs on validation."""
    source, after = context.source, models.after

    def score() -> float:
        return auprc(context.val_predictions(predict_probs(after, context.val, context.engine)))

    told.say("Putting every block back to its pretrained state in turn.")
    initial = dict(models.before.trunk.network.state_dict())
    network = after.trunk.network
    return {
        "weights": to_json(weight_changes(models.before.trunk.network, network, source)),
        "importance": {str(k): v for k, v in block_importance(network, initial, source, score).items()},
    }
