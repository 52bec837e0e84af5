"""A finished model on another cohort: the same metrics and intervals, per site when known."""

import dataclasses
from typing import Any

import numpy as np

from medgraft.data.audit.findings import Finding
from medgraft.deploy.artefact import LoadedModel
from medgraft.evaluate.operating_point import apply_thresholds
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.results import (
    ClassPoint,
    MaskReference,
    ModelResult,
    SiteResult,
    model_to_json,
    reference_to_json,
)
from medgraft.evaluate.summary import site_results, summarise
from medgraft.judge.judges import JUDGES
from medgraft.judge.plan import JudgePlan
from medgraft.listener import Listener
from medgraft.study.dataset import Dataset
from medgraft.train.engine import exact_engine
from medgraft.types import Judged, Predictions, to_json

__all__ = ["ExternalResult", "external_to_json", "judge_external"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExternalResult:
    """What another cohort says of a model.

    Args:
        result: Metrics with intervals; operating points keep the thresholds chosen on validation.
        classes: Classes that were judged.
        unlabelled: Labels of the model that the cohort does not have.
        judged_by: What was judged as one.
        num_images: Readable images.
        num_cases: Cases judged.
        num_above_training_range: Images with values above those of the training images.
        findings: Findings of the audit.
        sites: Results by name of the site, where the cohort tells them.
        reference: What stands beside masks.
    """

    result: ModelResult
    classes: tuple[str, ...]
    num_images: int
    num_cases: int
    num_above_training_range: int
    findings: tuple[Finding, ...]
    unlabelled: tuple[str, ...] = ()
    judged_by: str = "image"
    sites: dict[str, SiteResult] = dataclasses.field(default_factory=dict)
    reference: MaskReference = dataclasses.field(default_factory=MaskReference)


def judge_external(
    model: LoadedModel,
    dataset: Dataset,
    rows: np.ndarray,
    findings: tuple[Finding, ...],
    plan: JudgePlan,
    device: str,
    listener: Listener,
) -> tuple[ExternalResult, Judged]:
    """What the cases say of the model, and what it says of them.

    Args:
        model: A finished model.
        dataset: The other cohort, in terms of the model's classes.
        rows: Images that are judged, every one of each unit among them.
        findings: Findings of the cohort's audit.
        plan: Bootstrap and tolerance.
        device: From `medgraft.train.engine.pick_device`.
        listener: Told how far it is, and what is odd.

    Raises:
        DataError: A class is absent.
    """
    judge = JUDGES[dataset.cohort.kind]
    judged: Judged = judge.call(
        model.network, dataset, rows, plan, exact_engine(device), lambda done: listener.step("judging", done, len(rows))
    )
    labelled, unlabelled = _labelled(judged, dataset)
    if unlabelled:
        listener.say(f"The cohort has no label {', '.join(unlabelled)}: nothing is said of it.")
    above = int((dataset.decoded.facts["high"][dataset.rows[rows]] > dataset.preprocessing.intensity_max).sum())
    if above:
        limit = dataset.preprocessing.intensity_max
        listener.say(f"warn: {above} images hold values above the training range of {limit}.")
    result = summarise(labelled, bootstrap_weights(labelled, plan.replicates, plan.seed))
    cases = rows[np.unique(dataset.cohort.units(rows), return_index=True)[1]]
    sites = dataset.cohort.sites(cases)
    external = ExternalResult(
        result=dataclasses.replace(result, points=_points(labelled, model)),
        classes=labelled.classes,
        unlabelled=unlabelled,
        judged_by=dataset.cohort.judged_by,
        num_images=len(dataset.cohort),
        num_cases=len(cases),
        num_above_training_range=above,
        findings=findings,
        sites=site_results(labelled, sites, num=plan.replicates, seed=plan.seed) if any(sites) else {},
        reference=judge.beside(dataset, rows, judged, plan),
    )
    return external, judged


def external_to_json(result: ExternalResult) -> dict[str, Any]:
    """The content of `evaluation.json`."""
    facts: dict[str, Any] = to_json(result)
    model = model_to_json(result.result)
    del facts["result"], facts["findings"], facts["reference"]
    metrics = {name: to_json(score) for name, score in result.result.scores.items()}
    facts |= {"metrics": metrics, "audit": to_json(result.findings)}
    if result.result.per_class:
        facts["per_class"] = model["per_class"]
    if result.result.points:
        facts["operating_point"] = to_json(result.result.points)
    facts["sites"] = {key: part | part.pop("scores") for key, part in facts["sites"].items()}
    if result.reference.tolerance is not None:
        del facts["judged_by"]
        facts |= reference_to_json(result.reference)
    return facts


def _points(judged: Judged, model: LoadedModel) -> dict[str, ClassPoint]:
    """Operating points at the thresholds that the model brings, as far as it was given any."""
    thresholds = {name: value for name, value in model.artefact.thresholds.items() if name in judged.classes}
    return apply_thresholds(judged, thresholds) if isinstance(judged, Predictions) and thresholds else {}


def _labelled(judged: Judged, dataset: Dataset) -> tuple[Judged, tuple[str, ...]]:
    """What is said of the labels that the cohort has, and the names of the others; of single labels all are kept."""
    if not isinstance(judged, Predictions) or judged.task != "multilabel":
        return judged, ()
    has = ~np.isnan(dataset.cohort.targets).all(0)
    part = dataclasses.replace(
        judged,
        probs=judged.probs[:, has],
        targets=judged.targets[:, has],
        classes=tuple(name for name, there in zip(judged.classes, has, strict=True) if there),
    )
    return part, tuple(name for name, there in zip(judged.classes, has, strict=True) if not there)
