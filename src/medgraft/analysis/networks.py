"""Whole networks measured cut by cut: similarity of two, worth of frozen features, change, distance to a source."""

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch

from medgraft.analysis.change import LayerChange, block_importance, weight_changes
from medgraft.analysis.domains import (
    Distance,
    FeatureStatistics,
    fid_of_statistics,
    fid_with_interval,
    kid_with_interval,
)
from medgraft.analysis.layers import CutReader, features_at_cuts
from medgraft.analysis.reuse import SMALLEST_BATCH, CkaSums, add_cuts, most_components, reuse_of
from medgraft.analysis.similarity import Moments, area_between, linear_cka, procrustes_distance, pwcca
from medgraft.analysis.transferability import h_score, knn_probs, linear_probe, logme, nleep
from medgraft.listener import Listener
from medgraft.metrics.classification import auprc
from medgraft.study.study import Study
from medgraft.train.batches import ImageSet, iterate
from medgraft.train.classical import Labelled
from medgraft.train.engine import Engine, running
from medgraft.train.outputs import predict_probs
from medgraft.transfer.model import TransferModel
from medgraft.transfer.source import Source
from medgraft.types import Cut, Predictions

__all__ = [
    "Changes",
    "CutDistance",
    "CutSimilarity",
    "CutWorth",
    "Matrix",
    "PairSimilarity",
    "ProbedCuts",
    "changes",
    "distances",
    "probe_cuts",
    "similarity",
    "worth_of_cuts",
]

Matrix = tuple[tuple[float, ...], ...]
_BATCH: Final = 32
_GRID: Final = np.linspace(0, 1, 51)
_REPLICATES: Final = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CutSimilarity:
    """Features of two networks at one cut.

    Args:
        svcca: Coefficients, interpolated at 51 places from the first to the last.
        reference: Coefficients of random features of that size, at the same places.
        num_components: Coefficients before the interpolation.
        mean: Mean of the coefficients.
        area: Area between coefficients and reference.
        pwcca: Projection-weighted mean of the coefficients.
        cka: Linear CKA.
        procrustes: Distance after the best rotation.
    """

    svcca: tuple[float, ...]
    reference: tuple[float, ...]
    num_components: int
    mean: float
    area: float
    pwcca: float
    cka: float
    procrustes: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairSimilarity:
    """Two networks on the same images.

    Args:
        cuts: Index of the cut to its features in both.
        across: (cuts, cuts) CKA of the first with the second.
        within: (cuts, cuts) CKA of the second with itself.
    """

    cuts: dict[int, CutSimilarity]
    across: Matrix
    within: Matrix


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CutWorth:
    """What frozen features promise at one cut.

    Args:
        probe: Validation AUPRC of a logistic regression.
        knn: Validation AUPRC of the nearest training images.
        logme: Log evidence of a linear model.
        h_score: Variance between classes over that of the features; None for several labels.
        nleep: Log likelihood of a mixture model; None for several labels.
    """

    probe: float
    knn: float
    logme: float | None
    h_score: float | None = None
    nleep: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CutDistance:
    """Fréchet distance and, where the source has images and not only statistics, kernel distance at one cut."""

    fid: Distance
    kid: Distance | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How far each layer moved, and what validation AUPRC loses when a block is put back, by index of the cut."""

    weights: tuple[LayerChange, ...]
    importance: dict[int, float]


def similarity(
    first: TransferModel,
    second: TransferModel,
    cuts: tuple[Cut, ...],
    data: ImageSet,
    rows: np.ndarray,
    engine: Engine,
    listener: Listener,
) -> PairSimilarity:
    """Two networks on the same images: every cut against its counterpart, and every cut against every other one.

    Args:
        first: The first network.
        second: The second network, of the same architecture.
        cuts: Cuts that both have.
        data: Images.
        rows: (n,) which of them.
        engine: Device and arithmetic.
        listener: Told how far it is.

    Raises:
        DataError: Too few images, or features that cannot be compared.
    """
    names = {cut.index: cut.name for cut in cuts}
    readers = [CutReader(model.to(engine.device), cuts) for model in (first, second)]
    moments: dict[int, Moments] = {}
    across, within = CkaSums(), CkaSums()
    done = 0
    for images, _, _ in iterate(data, rows, _BATCH, torch.device(engine.device)):
        with running(engine):
            first_rows, second_rows = ({i: r.cpu().numpy() for i, r in reader(images).items()} for reader in readers)
        add_cuts(moments, first_rows, second_rows, names)
        if len(images) >= SMALLEST_BATCH:
            layers = list(second_rows.values())
            across.add(list(first_rows.values()), layers)
            within.add(layers, layers)
        done += len(images)
        listener.step("comparing features", done, len(rows))
    return PairSimilarity(
        cuts={index: _measures(pair) for index, pair in moments.items()},
        across=_rows(across.matrix()),
        within=_rows(within.matrix()),
    )


def _rows(matrix: np.ndarray) -> Matrix:
    return tuple(tuple(row) for row in matrix.tolist())


def _measures(pair: Moments) -> CutSimilarity:
    reuse = reuse_of(pair)
    return CutSimilarity(
        svcca=_on_grid(reuse.coefficients),
        reference=_on_grid(reuse.reference),
        num_components=len(reuse.coefficients),
        mean=float(reuse.coefficients.mean()),
        area=area_between(reuse.coefficients, reuse.reference),
        pwcca=pwcca(pair, max_components=most_components(pair)),
        cka=linear_cka(pair),
        procrustes=procrustes_distance(pair),
    )


def _on_grid(coefficients: np.ndarray) -> tuple[float, ...]:
    at = np.linspace(0, 1, len(coefficients))
    return tuple(round(float(value), 5) for value in np.interp(_GRID, at, coefficients))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbedCuts:
    """Linear probes on the features of every cut, by index of the cut.

    Args:
        train: Training features (N, d) that each was solved on.
        val: Validation features (M, d).
        said: What each says of the validation images.
    """

    train: dict[int, np.ndarray]
    val: dict[int, np.ndarray]
    said: dict[int, Predictions]


def probe_cuts(
    model: TransferModel, cuts: tuple[Cut, ...], study: Study, engine: Engine, seed: int, listener: Listener
) -> ProbedCuts:
    """A linear probe at every cut of a network.

    Args:
        model: Untruncated.
        cuts: Cuts of its source.
        study: Training images to solve on, validation images to score on.
        engine: Device and arithmetic.
        seed: Seeds the divisions that choose each probe's penalty.
        listener: Told how far it is.

    Raises:
        DataError: A class has too few groups for a division, or a feature is not finite.
    """
    train, val = (features_at_cuts(model, cuts, data, engine) for data in (study.train, study.val))
    said: dict[int, Predictions] = {}
    for done, cut in enumerate(cuts):
        listener.step("probing every cut", done, len(cuts))
        probs = linear_probe(study.labelled(train[cut.index]), val[cut.index], seed)
        said[cut.index] = study.val_predictions(probs)
    return ProbedCuts(train=train, val=val, said=said)


def worth_of_cuts(
    model: TransferModel, cuts: tuple[Cut, ...], study: Study, engine: Engine, seed: int, listener: Listener
) -> tuple[dict[int, CutWorth], dict[int, Predictions]]:
    """What frozen features promise at every cut, and the validation predictions of the probes, by index of the cut.

    Args:
        model: Untruncated.
        cuts: Cuts of its source.
        study: Training images to solve on, validation images to score on.
        engine: Device and arithmetic.
        seed: Seeds divisions and mixtures.
        listener: Told how far it is.

    Raises:
        DataError: A class has too few groups for a division, or a feature is not finite.
    """
    probed = probe_cuts(model, cuts, study, engine, seed, listener)
    worth: dict[int, CutWorth] = {}
    for index, predictions in probed.said.items():
        labelled = study.labelled(probed.train[index])
        features, truth = labelled.features, _truth(labelled)
        is_single = labelled.task != "multilabel"
        worth[index] = CutWorth(
            probe=auprc(predictions),
            knn=auprc(study.val_predictions(knn_probs(features, truth, probed.val[index]))),
            logme=logme(features, truth),
            h_score=h_score(features, labelled.targets) if is_single else None,
            nleep=nleep(features, labelled.targets, seed=seed) if is_single else None,
        )
    return worth, probed.said


def _truth(labelled: Labelled) -> np.ndarray:
    """(N, C): a label that is not known counts as its share among the known, which votes for nothing."""
    if labelled.task != "multilabel":
        return np.asarray(np.eye(labelled.num_classes)[labelled.targets])
    is_known = ~np.isnan(labelled.targets)
    shares = np.nansum(labelled.targets, 0) / is_known.sum(0).clip(1)
    return np.where(is_known, labelled.targets, shares)


def changes(
    before: TransferModel, after: TransferModel, source: Source, study: Study, engine: Engine, listener: Listener
) -> Changes:
    """How far each layer's weights moved, and what putting a block back costs on validation.

    Args:
        before: Pretrained.
        after: Trained; as before afterwards.
        source: What both were made from.
        study: Validation images to score on.
        engine: Device and arithmetic.
        listener: Told what is done.

    Raises:
        DataError: The two are not the same architecture.
    """
    after.to(engine.device)

    def score() -> float:
        return auprc(study.val_predictions(predict_probs(after, study.val, engine)))

    listener.say("Putting every block back to its pretrained state in turn.")
    initial = dict(before.trunk.network.state_dict())
    network = after.trunk.network
    return Changes(
        weights=tuple(weight_changes(before.trunk.network, network, source)),
        importance=block_importance(network, initial, source, score),
    )


def distances(
    model: TransferModel,
    cuts: tuple[Cut, ...],
    data: ImageSet,
    far: ImageSet | Mapping[int, FeatureStatistics],
    engine: Engine,
    listener: Listener,
) -> dict[int, CutDistance]:
    """Distance between the features of two sets of images, by index of the cut.

    Args:
        model: Whose features are compared, untruncated.
        cuts: Where to measure.
        data: Images.
        far: Other images, or statistics of their features by index of the cut.
        engine: Device and arithmetic.
        listener: Told how far it is.

    Raises:
        DataError: A feature is not finite.
    """
    near = features_at_cuts(model, cuts, data, engine)
    stored = far if isinstance(far, Mapping) else {}
    other = {} if isinstance(far, Mapping) else features_at_cuts(model, cuts, far, engine)
    measured: dict[int, CutDistance] = {}
    for done, cut in enumerate(cuts):
        listener.step("measuring the distance", done, len(cuts))
        if other:
            pair = near[cut.index], other[cut.index]
            measured[cut.index] = CutDistance(
                fid=fid_with_interval(*pair),
                kid=kid_with_interval(*pair, replicates=_REPLICATES),
            )
        else:
            fid = fid_of_statistics(near[cut.index], stored[cut.index])
            measured[cut.index] = CutDistance(fid=fid)
    return measured
