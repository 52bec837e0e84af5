"""The one opening of the test set: predictions, intervals, verdict, cost, and the files that hold them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from medgraft.config import RunConfig
from medgraft.data.identity import pseudonym
from medgraft.deploy.artefact import Artefact, save_artefact
from medgraft.deploy.predict import predictions_table
from medgraft.evaluate.efficiency import file_bytes, latency_ms
from medgraft.evaluate.ledger import open_test
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import compare, site_metrics, summarise
from medgraft.files import write_table
from medgraft.listener import Listener
from medgraft.metrics.cases import pooled
from medgraft.run.folder import log_event
from medgraft.run.prepare import Prepared, image_set
from medgraft.run.searching import Searched
from medgraft.search.trial import Trial, TrialContext, load_trial_model, slim_of
from medgraft.train.engine import exact_engine
from medgraft.train.outputs import predict_probs
from medgraft.transfer.model import TransferModel
from medgraft.types import Judged, Predictions

__all__ = [
    "Tested",
    "artefact_of",
    "compare_with_baseline",
    "count_opening",
    "further_model",
    "judged_name",
    "open_test_set",
    "predict_split",
    "say_opening",
    "store_models",
    "table_name",
    "training_history",
]

_MODEL_FOLDERS: Final = {"chosen": "model", "baseline": "baseline"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tested:
    """What the test set said.

    Args:
        summary: The `test` part of results.json.
        efficiency: The `efficiency` part.
        second_baseline: Full fine-tuning at the last fully pretrained cut, or None.
        continued: Full fine-tuning trained on for the cost of the search, where the chosen model started from it.
        openings: How often these test cases were opened on this machine, this run included.
        chosen: What the chosen model says of the test cases, one per seed.
        baseline: Likewise full fine-tuning.
    """

    summary: dict[str, Any]
    efficiency: dict[str, Any]
    second_baseline: dict[str, Any] | None
    continued: dict[str, Any] | None
    openings: int
    chosen: Sequence[Judged]
    baseline: Sequence[Judged]


def open_test_set(
    config: RunConfig,
    folder: Path,
    found: Prepared,
    context: TrialContext,
    searched: Searched,
    run_id: str,
    told: Listener,
) -> Tested:
    """Open the test set for the chosen model and the baselines, and write what was found."""
    rows = found.cohort.case_rows("test")
    openings = say_opening(folder, found, run_id, told)
    chosen = [predict_split(trial, found, context, "test") for trial in searched.chosen_seeds]
    baseline = [predict_split(trial, found, context, "test") for trial in searched.baseline_seeds]
    weights = bootstrap_weights(chosen[0], config.evaluate.replicates, config.seed)
    summary = _summary(config, searched, context, chosen, baseline, weights)
    summary["num_cases"], summary["num_groups"] = len(rows), len(np.unique(found.groups[rows]))
    sites = found.cohort.sites(rows)
    if any(sites):
        summary["sites"] = site_metrics(chosen[0], sites, num=config.evaluate.replicates, seed=config.seed)
    further = {
        name: [predict_split(trial, found, context, "test") for trial in trials]
        for name, trials in (("second", searched.second_seeds), ("continued", searched.continued_seeds))
        if trials
    }
    firsts = {name: predictions[0] for name, predictions in further.items()}
    _write_predictions(folder, found, searched, context, {"chosen": chosen[0], "baseline": baseline[0], **firsts})

    def beside(name: str, trials: Sequence[Trial]) -> dict[str, Any] | None:
        if not trials:
            return None
        val = context.val_predictions(trials[0].val_outputs)
        told = summarise(further[name], val, config.evaluate.operating_point, weights)
        return further_model(trials[0], told | compare(chosen, further[name], config.evaluate.margin, weights))

    return Tested(
        summary=summary,
        efficiency=store_models(
            folder, found, context, searched, {role: _points(summary[role]) for role in _MODEL_FOLDERS}
        ),
        second_baseline=beside("second", searched.second_seeds),
        continued=beside("continued", searched.continued_seeds),
        openings=openings,
        chosen=chosen,
        baseline=baseline,
    )


def say_opening(folder: Path, found: Prepared, run_id: str, told: Listener) -> int:
    """Count this opening of the test set and say so; how often these cases were opened on this machine."""
    openings = count_opening(folder, found, run_id)
    log_event(folder, "test opened", openings=openings)
    told.say(f"Opening the test set ({_cases_in_words(found)}); on this machine this is time {openings}.")
    return openings


def count_opening(folder: Path, found: Prepared, run_id: str) -> int:
    """How often the test cases were opened on this machine, this time included."""
    hashes = [str(found.decoded.facts["sha256"][row]) for row in found.rows[found.cohort.rows("test")]]
    return open_test(hashes, run_id, folder)


def judged_name(strategy: str) -> str:
    """What the chosen model is called in the verdict."""
    return "The compact model" if strategy == "ttl" else f"The {strategy} model"


def _summary(
    config: RunConfig,
    searched: Searched,
    context: TrialContext,
    chosen: list[Predictions],
    baseline: list[Predictions],
    weights: np.ndarray,
) -> dict[str, Any]:
    point, margin = config.evaluate.operating_point, config.evaluate.margin
    val = context.val_predictions(searched.chosen.val_outputs)
    val_baseline = context.val_predictions(searched.baseline_seeds[0].val_outputs)
    compared = compare_with_baseline(searched, chosen, baseline, margin, weights)
    return {
        "chosen": summarise(chosen, val, point, weights),
        "baseline": summarise(baseline, val_baseline, point, weights),
        **compared,
        "margin": margin,
        "replicates": config.evaluate.replicates,
    }


def compare_with_baseline(
    searched: Searched, chosen: Sequence[Judged], baseline: Sequence[Judged], margin: float, weights: np.ndarray
) -> dict[str, Any]:
    """The chosen model against full fine-tuning, in words of its own where they are one."""
    compared = compare(chosen, baseline, margin, weights, judged_name(searched.chosen.spec.strategy))
    if searched.chosen.spec == searched.baseline_seeds[0].spec:
        compared["sentence"] = "The search kept the whole network: the chosen model is full fine-tuning itself."
    return compared


def further_model(trial: Trial, judged: Mapping[str, Any]) -> dict[str, Any]:
    """A further model on the same cases (`judged`) with what it is."""
    return {
        "cut": {"index": trial.cut.index, "name": trial.cut.name},
        "num_params": trial.num_params,
        "macs": trial.macs,
        "epochs": len(trial.history),
        **judged,
    }


def table_name(role: str) -> str:
    """Of the test cases of a model: chosen, baseline, second, continued."""
    return f"predictions{'' if role == 'chosen' else f'_{role}'}.csv"


def predict_split(trial: Trial, found: Prepared, context: TrialContext, split: str) -> Predictions:
    """What a trained model says of a split, pooled by unit, in float32 whatever precision trained."""
    model, _ = load_trial_model(trial, context)
    engine = exact_engine(context.engine.device, is_deterministic=context.engine.is_deterministic)
    data = image_set(found, split)
    rows = found.cohort.rows(split)
    predictions = Predictions(
        probs=predict_probs(model.to(engine.device), data, engine),
        targets=data.targets,
        groups=found.groups[rows],
        classes=found.cohort.classes,
        task=data.task,
        positive=data.positive,
        is_ordinal=found.cohort.is_ordinal,
    )
    return pooled(predictions, found.cohort.units(rows))


def _cases_in_words(found: Prepared) -> str:
    images, cases = len(found.cohort.rows("test")), len(found.cohort.case_rows("test"))
    noun = found.cohort.noun
    return f"{images} {noun}" if images == cases else f"{cases} {found.cohort.case_noun} of {images} {noun}"


def _points(told: dict[str, Any]) -> dict[str, Any]:
    """Thresholds and temperature out of a model's part of the `test` results."""
    thresholds = {name: float(point["threshold"]) for name, point in told["operating_point"]["classes"].items()}
    return {"thresholds": thresholds, "temperature": float(told["temperature_scaled"]["temperature"])}


def store_models(
    folder: Path,
    found: Prepared,
    context: TrialContext,
    searched: Searched,
    points: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Cost of the chosen model and of the baseline, both stored: one to use, the other to analyse and compare with.

    Args:
        folder: Of the run.
        found: Its cohort.
        context: Of its trials.
        searched: The trials whose models are stored.
        points: What else `artefact_of` takes (operating point, temperature …) for ``chosen`` and ``baseline``.
    """
    trials = {"chosen": searched.chosen, "baseline": searched.baseline_seeds[0]}
    models = {role: load_trial_model(trial, context)[0] for role, trial in trials.items()}
    times = latency_ms(models, torch.rand(1, found.preprocessing.channels, *found.input_sides))
    costs: dict[str, Any] = {"cpu_threads": torch.get_num_threads()}
    for role, trial in trials.items():
        place = folder / _MODEL_FOLDERS[role]
        artefact = artefact_of(found, trial, models[role], **points[role])
        save_artefact(place, models[role], artefact, found.source.backbone)
        costs[role] = {
            "num_params": trial.num_params,
            "macs": trial.macs,
            "cpu_ms": times[role],
            "file_bytes": file_bytes(place / "model.safetensors"),
        }
    return costs


def artefact_of(
    found: Prepared,
    trial: Trial,
    model: TransferModel,
    thresholds: dict[str, float] | None = None,
    temperature: float = 1.0,
    tolerance_mm: float = 2.0,
) -> Artefact:
    """What is stored beside the tensors of a trial's model; without thresholds it has no operating point."""
    report = found.source.backbone.report
    return Artefact(
        task=found.cohort.task,
        classes=found.cohort.classes,
        positive=found.cohort.positive,
        is_ordinal=found.cohort.is_ordinal,
        judged_by=found.cohort.judged_by,
        strategy=trial.spec.strategy,
        cut=model.trunk.cut,
        head=trial.spec.head,
        preprocessing=found.preprocessing,
        thresholds=thresholds or {},
        temperature=temperature,
        weights={"source": report.source, "licence": report.licence, "sha256": report.sha256},
        frozen=model.frozen,
        slim=slim_of(trial.spec),
        patch=found.input_sides if found.masks is not None else (),
        mask_values=found.cohort.mask_values,
        tolerance_mm=tolerance_mm,
    )


def _write_predictions(
    folder: Path, found: Prepared, searched: Searched, context: TrialContext, tested: Mapping[str, Predictions]
) -> None:
    """A table of the test cases for every role, one of the validation cases, and the course of training."""
    val = context.val_predictions(searched.chosen.val_outputs)
    tables = {table_name(role): (predictions, "test") for role, predictions in tested.items()}
    for name, (predictions, split) in {**tables, "predictions_val.csv": (val, "val")}.items():
        table = found.cohort.table.iloc[found.cohort.case_rows(split)]
        patients = [pseudonym(str(p)) if isinstance(p, str) else "" for p in table["patient"]]
        write_table(predictions_table(predictions, list(table["path"]), patients), folder / name)
    write_table(training_history(searched.chosen_seeds, searched.baseline_seeds), folder / "history.csv")


def training_history(chosen: Sequence[Trial], baseline: Sequence[Trial]) -> pd.DataFrame:
    """One row for each epoch of each training."""
    rows = [
        {"role": role, "seed": trial.spec.seed, **row.columns()}
        for role, trials in (("chosen", chosen), ("baseline", baseline))
        for trial in trials
        for row in trial.history
    ]
    return pd.DataFrame(rows)
