"""A finished model on another cohort: the same metrics and intervals, per site when known."""

import dataclasses

import numpy as np

from medgraft.data.audit.findings import Finding
from medgraft.deploy.artefact import LoadedModel
from medgraft.evaluate.operating_point import apply_thresholds
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.results import ClassPoint
from medgraft.evaluate.summary import site_results, summarise, summarise_partial
from medgraft.judge.judges import JUDGES
from medgraft.judge.plan import JudgePlan
from medgraft.listener import Listener
from medgraft.result.external import ExternalResult
from medgraft.study.dataset import Dataset
from medgraft.train.engine import exact_engine
from medgraft.types import Judged, Predictions

__all__ = ["judge_external"]


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
        DataError: A label of several is shown by no case, or by all.
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
    absent = _absent(labelled)
    if absent and isinstance(labelled, Predictions):
        shown = ", ".join(name for name in labelled.classes if name not in absent)
        listener.say(
            f"The cohort shows {shown} alone: how well the model ranks cannot be told, but how often it is right can, "
            "and sensitivity or specificity at the thresholds that it brings."
        )
        result = summarise_partial(labelled)
    else:
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
        sites={} if absent or not any(sites) else site_results(labelled, sites, num=plan.replicates, seed=plan.seed),
        reference=judge.beside(dataset, rows, judged, plan),
    )
    return external, judged


def _absent(judged: Judged) -> tuple[str, ...]:
    """Classes of single labels that no case shows."""
    if not isinstance(judged, Predictions) or judged.task == "multilabel":
        return ()
    return tuple(name for index, name in enumerate(judged.classes) if not (judged.targets == index).any())


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
