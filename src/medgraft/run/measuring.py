"""What networks are measured by in an analysis: similarity of features, worth of every cut, changes, distances."""

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from medgraft.analysis import (
    SMALLEST_BATCH,
    CkaSums,
    CutReader,
    FeatureStatistics,
    Moments,
    add_cuts,
    area_between,
    block_importance,
    features_at_cuts,
    fid_of_statistics,
    fid_with_interval,
    h_score,
    kid_with_interval,
    knn_probs,
    linear_cka,
    linear_probe,
    logme,
    most_components,
    nleep,
    procrustes_distance,
    pwcca,
    reuse_of,
    weight_changes,
)
from medgraft.config import DataConfig
from medgraft.data.cache import build_cache
from medgraft.data.decode import read_files
from medgraft.deploy.predict import find_cases
from medgraft.errors import DataError, MedgraftError
from medgraft.io.preprocess import intensity_scale, prepare
from medgraft.listener import Listener
from medgraft.metrics.classification import auprc
from medgraft.run.prepare import open_cohort
from medgraft.search.trial import TrialContext
from medgraft.train.batches import ImageSet, iterate
from medgraft.train.classical import Labelled
from medgraft.train.engine import running
from medgraft.train.outputs import predict_probs
from medgraft.transfer.model import TransferModel
from medgraft.types import Cut, Predictions, Preprocessing, to_json

__all__ = ["changes", "distances", "read_source", "similarity", "worth_of_cuts"]

_BATCH: Final = 32
_GRID: Final = np.linspace(0, 1, 51)
_REPLICATES: Final = 100
_FEWEST: Final = 20


def similarity(
    first: TransferModel, second: TransferModel, context: TrialContext, rows: np.ndarray, told: Listener
) -> dict[str, Any]:
    """Two networks on the same images: every cut against its counterpart, and every cut against every other one.

    Args:
        first: Of one architecture.
        second: Of the same.
        context: Training images, and the cuts that both networks have.
        rows: Which of the images.
        told: How far it is.

    Returns:
        ``cuts`` (index to measures), ``across`` (CKA first × second), ``within`` (CKA of the second with itself).
    """
    cuts, engine = context.source.cuts, context.engine
    names = {cut.index: cut.name for cut in cuts}
    readers = [CutReader(model.to(engine.device), cuts) for model in (first, second)]
    moments: dict[int, Moments] = {}
    across, within = CkaSums(), CkaSums()
    done = 0
    for images, _, _ in iterate(context.train, rows, _BATCH, torch.device(engine.device)):
        with running(engine):
            one, two = ({i: r.cpu().numpy() for i, r in reader(images).items()} for reader in readers)
        add_cuts(moments, one, two, names)
        if len(images) >= SMALLEST_BATCH:
            layers = list(two.values())
            across.add(list(one.values()), layers)
            within.add(layers, layers)
        done += len(images)
        told.step("comparing features", done, len(rows))
    return {
        "cuts": {str(index): _measures(pair) for index, pair in moments.items()},
        "across": across.matrix().tolist(),
        "within": within.matrix().tolist(),
    }


def _measures(pair: Moments) -> dict[str, Any]:
    reuse = reuse_of(pair)
    return {
        "svcca": _on_grid(reuse.coefficients),
        "reference": _on_grid(reuse.reference),
        "num_components": len(reuse.coefficients),
        "mean": float(reuse.coefficients.mean()),
        "area": area_between(reuse.coefficients, reuse.reference),
        "pwcca": pwcca(pair, max_components=most_components(pair)),
        "cka": linear_cka(pair),
        "procrustes": procrustes_distance(pair),
    }


def _on_grid(coefficients: np.ndarray) -> list[float]:
    places = np.linspace(0, 1, len(coefficients))
    return [round(float(value), 5) for value in np.interp(_GRID, places, coefficients)]


def worth_of_cuts(
    model: TransferModel, context: TrialContext, seed: int, told: Listener
) -> tuple[dict[str, dict[str, float]], dict[int, Predictions]]:
    """What frozen features promise at every cut: probes on validation, LogME and kin; and the probes' predictions.

    Args:
        model: Untruncated.
        context: Training images to solve on, validation images to score on.
        seed: Of divisions and mixtures.
        told: How far it is.
    """
    cuts = context.source.cuts
    train, val = (features_at_cuts(model, cuts, data, context.engine) for data in (context.train, context.val))
    worth, probes = {}, {}
    for done, cut in enumerate(cuts):
        told.step("probing every cut", done, len(cuts))
        labelled, queries = context.labelled(train[cut.index]), val[cut.index]
        features = labelled.features
        truth = _truth(labelled)
        probes[cut.index] = context.val_predictions(linear_probe(labelled, queries, seed))
        found = {
            "probe": auprc(probes[cut.index]),
            "knn": auprc(context.val_predictions(knn_probs(features, truth, queries))),
            "logme": logme(features, truth),
        }
        if labelled.task != "multilabel":
            found["h_score"] = h_score(features, labelled.targets)
            found["nleep"] = nleep(features, labelled.targets, seed=seed)
        worth[str(cut.index)] = found
    return worth, probes


def _truth(labelled: Labelled) -> np.ndarray:
    """(N, C): a label that is not known counts as its share among the known, which votes for nothing."""
    if labelled.task != "multilabel":
        return np.asarray(np.eye(labelled.num_classes)[labelled.targets])
    known = ~np.isnan(labelled.targets)
    shares = np.nansum(labelled.targets, 0) / known.sum(0).clip(1)
    return np.where(known, labelled.targets, shares)


def changes(before: TransferModel, after: TransferModel, context: TrialContext, told: Listener) -> dict[str, Any]:
    """How far each layer's weights moved, and what putting a block back costs on validation."""
    after.to(context.engine.device)

    def score() -> float:
        return auprc(context.val_predictions(predict_probs(after, context.val, context.engine)))

    told.say("Putting every block back to its pretrained state in turn.")
    initial = dict(before.trunk.network.state_dict())
    network = after.trunk.network
    return {
        "weights": to_json(weight_changes(before.trunk.network, network, context.source)),
        "importance": {str(k): v for k, v in block_importance(network, initial, context.source, score).items()},
    }


def read_source(
    path: Path, preprocessing: Preprocessing, network: str, num_images: int, seed: int, told: Listener
) -> ImageSet | dict[int, FeatureStatistics]:
    """A second cohort, as the network sees it, or the stored statistics of one.

    Args:
        path: Folder of images (labels do not matter), table or ``.npz`` as for a cohort, or ``statistics.npz`` that an
            analysis of a cohort leaves.
        preprocessing: Of the network that will look at them.
        network: Its name with weights, which stored statistics must be of.
        num_images: At most so many, drawn with `seed`.
        seed: Of the draw.
        told: What was found.

    Raises:
        DataError: Nothing readable, too few images, or statistics of another network.
    """
    if path.suffix == ".npz" and path.is_file() and (stored := _stored_statistics(path, network)):
        return stored
    rng = np.random.default_rng(seed)
    if path.is_dir():
        files = find_cases([path], preprocessing.dims)
        drawn = [files[i] for i in np.sort(rng.permutation(len(files))[:num_images])]
        images = _read(drawn, preprocessing, told)
    else:
        cohort = open_cohort(DataConfig(source=str(path), resize=preprocessing.resize, dims=preprocessing.dims), told)
        with tempfile.TemporaryDirectory(prefix="medgraft-source-") as place:
            decoded = build_cache(
                cohort,
                Path(place),
                sides=preprocessing.sides,
                channels=preprocessing.channels,
                resize=preprocessing.resize,
                reading=preprocessing.reading,
            )
            rows = np.sort(rng.permutation(len(decoded.images))[:num_images])
            images = np.asarray(decoded.images[rows])
    told.say(f"{len(images)} images of {path} to measure the distance to.")
    return ImageSet(
        images=images,
        rows=np.arange(len(images)),
        targets=np.zeros(len(images), dtype=np.int64),
        intensity_max=intensity_scale(int(images.max())),
        task="binary",
        positive=None,
        num_classes=2,
    )


def _read(files: Sequence[tuple[Path, ...]], preprocessing: Preprocessing, told: Listener) -> np.ndarray:
    found = []
    for done, file in enumerate(files):
        told.step("reading the source", done, len(files))
        try:
            pixels, facts = read_files(file, preprocessing.dims, preprocessing.reading)
            found.append(prepare(pixels, preprocessing, facts.spacing_mm).astype(np.uint16))
        except MedgraftError as error:
            told.say(f"warn: {file[0].name} is left out: {error}")
    if len(found) < _FEWEST:
        raise DataError(f"expected at least {_FEWEST} readable images of the source, got {len(found)}.")
    return np.stack(found)


def _stored_statistics(path: Path, network: str) -> dict[int, FeatureStatistics]:
    try:
        # Opened here: of a broken archive numpy leaves its own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if "network" not in stored:
                return {}
            if str(stored["network"]) != network:
                raise DataError(
                    f"expected statistics of the features of {network}, got those of {stored['network']}. "
                    "Make them with the same network, weights and size."
                )
            indices = [int(name.removeprefix("mean_")) for name in stored if name.startswith("mean_")]
            return {
                i: FeatureStatistics(
                    mean=stored[f"mean_{i}"], covariance=stored[f"covariance_{i}"], num_images=int(stored["num_images"])
                )
                for i in indices
            }
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"could not read {path}: {error}. Expected images or stored statistics.") from error


def distances(
    model: TransferModel,
    context: TrialContext,
    cuts: tuple[Cut, ...],
    source: ImageSet | Mapping[int, FeatureStatistics],
    told: Listener,
) -> dict[str, Any]:
    """Cut index to Fréchet and, where the source has images, kernel distance between it and the training images.

    Args:
        model: Whose features are compared, untruncated.
        context: Training images.
        cuts: Where to measure.
        source: From `read_source`.
        told: How far it is.
    """
    target = features_at_cuts(model, cuts, context.train, context.engine)
    found: dict[str, Any] = {}
    stored = source if isinstance(source, Mapping) else {}
    other = {} if isinstance(source, Mapping) else features_at_cuts(model, cuts, source, context.engine)
    for done, cut in enumerate(cuts):
        told.step("measuring the distance", done, len(cuts))
        if other:
            pair = target[cut.index], other[cut.index]
            measured = {
                "fid": to_json(fid_with_interval(*pair, replicates=_REPLICATES)),
                "kid": to_json(kid_with_interval(*pair, replicates=_REPLICATES)),
            }
        else:
            measured = {"fid": to_json(fid_of_statistics(target[cut.index], stored[cut.index], replicates=_REPLICATES))}
        found[str(cut.index)] = measured
    return found
