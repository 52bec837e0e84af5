"""The one opening of a test set: what every model says, intervals, verdict, and the files that hold them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medgraft.evaluate.comparison import compare
from medgraft.evaluate.ledger import open_test
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.results import Comparison, ModelResult, TestResult
from medgraft.evaluate.summary import site_results, summarise
from medgraft.files import write_table
from medgraft.judge.judges import JUDGES
from medgraft.judge.models import store_models
from medgraft.judge.plan import JudgePlan
from medgraft.listener import Listener
from medgraft.result.run import Efficiency, FurtherModel, Role, cut_facts
from medgraft.search.trial import Trial, TrialContext, load_trial_model
from medgraft.study.dataset import Dataset
from medgraft.train.engine import exact_engine
from medgraft.types import Judged

__all__ = [
    "Tested",
    "count_openings",
    "judged_by_trial",
    "judged_name",
    "open_test_set",
    "table_name",
    "test_result",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tested:
    """What the opening of a test set found out.

    Args:
        test: Result of the chosen model and of full fine-tuning.
        further: Results of further baselines, by role.
        efficiency: What the two stored models cost.
        judged: What every model says of the test cases, one per seed, by role.
    """

    test: TestResult
    further: dict[Role, FurtherModel]
    efficiency: Efficiency
    judged: dict[Role, list[Judged]]


def open_test_set(
    plan: JudgePlan,
    folder: Path,
    dataset: Dataset,
    context: TrialContext,
    trials: Mapping[Role, Sequence[Trial]],
    listener: Listener,
) -> Tested:
    """Judge every model on the test set, store the two that stay, and write the tables of cases.

    Args:
        plan: Fixed beforehand.
        folder: The run's folder.
        dataset: Its cohort.
        context: Context of its trials.
        trials: By role (`medgraft.result.run.Role`), one per seed, the first seed's first.
        listener: Told how far it is.

    Raises:
        DataError: A class is absent from the test set.
        RunError: A file cannot be written or read.
    """
    judge, rows = JUDGES[dataset.cohort.kind], dataset.cohort.case_rows("test")
    judged = _judged(plan, dataset, context, trials, "test", listener)
    weights = bootstrap_weights(judged["chosen"][0], plan.replicates, plan.seed)

    # What validation fixes is used with the arithmetic of the test and of the stored model, not that of the training.
    firsts = {role: trials[role][0] for role in judged}
    saved = {role: (trial,) for role, trial in firsts.items()} if judge.keeps_validation else {}
    vals = {role: said[0] for role, said in _judged(plan, dataset, context, saved, "val", listener).items()}

    def result(role: Role) -> ModelResult:
        return judge.finished(summarise(judged[role], weights), judged[role][0], vals.get(role), plan)

    results = {role: result(role) for role in judged}
    chosen = judged["chosen"]
    pair = (results["chosen"], results["baseline"])
    test = test_result(plan, dataset, rows, chosen[0], pair, _compared(plan, judged, trials, weights))
    further = {
        role: further_model(trials[role][0], results[role], compare(chosen, judged[role], plan.margin, weights))
        for role in judged
        if role not in ("chosen", "baseline")
    }
    _write_tables(folder, dataset, trials, judged, vals.get("chosen"))
    stored: tuple[Role, ...] = ("chosen", "baseline")
    judging = {role: judge.judging_of(results[role], plan) for role in stored}
    return Tested(
        test=test, further=further, judged=judged, efficiency=store_models(folder, dataset, context, firsts, judging)
    )


def test_result(
    plan: JudgePlan,
    dataset: Dataset,
    rows: np.ndarray,
    judged: Judged,
    results: tuple[ModelResult, ModelResult],
    comparison: Comparison,
) -> TestResult:
    """What the test cases say, with what stands beside the models: sites, and whatever this kind of truth has.

    Args:
        plan: Fixed beforehand.
        dataset: The cohort.
        rows: Rows of its test cases.
        judged: What the chosen model says of them.
        results: Results of the chosen model and of full fine-tuning.
        comparison: Comparison of the two.
    """
    sites = dataset.cohort.sites(rows)
    return TestResult(
        chosen=results[0],
        baseline=results[1],
        comparison=comparison,
        margin=plan.margin,
        replicates=plan.replicates,
        num_cases=len(rows),
        num_groups=len(np.unique(dataset.groups[rows])),
        sites=site_results(judged, sites, num=plan.replicates, seed=plan.seed) if any(sites) else {},
        reference=JUDGES[dataset.cohort.kind].beside(dataset, rows, judged, plan),
    )


def _judged(
    plan: JudgePlan,
    dataset: Dataset,
    context: TrialContext,
    trials: Mapping[Role, Sequence[Trial]],
    split: str,
    listener: Listener,
) -> dict[Role, list[Judged]]:
    """What every trained model says of a split, by role; a trial of two roles is asked once.

    Args:
        plan: Fixed beforehand.
        dataset: The cohort.
        context: Context of the trials.
        trials: Trials by role (`medgraft.result.run.Role`), one per seed.
        split: ``val`` or ``test``.
        listener: Told how far it is.
    """
    said: dict[str, Judged] = {}
    for trial in (trial for seeds in trials.values() for trial in seeds):
        if trial.spec.key() not in said:
            said[trial.spec.key()] = judged_by_trial(plan, trial, dataset, context, split, listener)
    return {role: [said[trial.spec.key()] for trial in seeds] for role, seeds in trials.items() if seeds}


def judged_by_trial(
    plan: JudgePlan, trial: Trial, dataset: Dataset, context: TrialContext, split: str, listener: Listener | None = None
) -> Judged:
    """What a trained model says of a split, in exact arithmetic whatever trained it.

    Args:
        plan: Fixed beforehand.
        trial: With its weights.
        dataset: The cohort.
        context: Context of the trial.
        split: ``val`` or ``test``.
        listener: Told how far it is.
    """
    engine = exact_engine(context.engine.device, is_deterministic=context.engine.is_deterministic)
    rows = dataset.cohort.rows(split)
    label = f"{trial.spec.strategy} at cut {trial.cut.index} on the {split} set"
    step = (listener or Listener()).step
    call = JUDGES[dataset.cohort.kind].call
    judged: Judged = call(
        load_trial_model(trial, context)[0], dataset, rows, plan, engine, lambda done: step(label, done, len(rows))
    )
    return judged


def _compared(
    plan: JudgePlan, judged: Mapping[Role, list[Judged]], trials: Mapping[Role, Sequence[Trial]], weights: np.ndarray
) -> Comparison:
    """The chosen model against full fine-tuning, in words of its own where they are one.

    Args:
        plan: Tells the margin.
        judged: What the models say of the test cases, by role, one per seed.
        trials: Trials by role (`medgraft.result.run.Role`), one per seed.
        weights: (replicates, N) bootstrap weights of the test cases.
    """
    first = trials["chosen"][0].spec
    name = judged_name(first.strategy)
    compared = compare(judged["chosen"], judged["baseline"], plan.margin, weights, name)
    if first != trials["baseline"][0].spec:
        return compared
    headline = "The search kept the whole network: the chosen model is full fine-tuning itself"
    return dataclasses.replace(compared, headline=headline, numbers="")


def further_model(trial: Trial, result: ModelResult, comparison: Comparison) -> FurtherModel:
    """A further baseline as a value: what it is, its result and its comparison.

    Args:
        trial: Training of the baseline with the first seed.
        result: What the test cases say of it.
        comparison: The chosen model less this baseline.
    """
    return FurtherModel(
        cut=cut_facts(trial.cut),
        result=result,
        comparison=comparison,
        num_params=trial.num_params,
        macs=trial.macs,
        epochs=len(trial.history),
    )


def judged_name(strategy: str) -> str:
    """What the chosen model is called in the verdict."""
    return "The compact model" if strategy == "ttl" else f"The {strategy} model"


def table_name(role: Role) -> str:
    """File of the test cases of a model of one role."""
    return f"predictions{'' if role == 'chosen' else f'_{role}'}.csv"


def count_openings(dataset: Dataset, run_id: str, folder: Path) -> int:
    """How often the test cases were opened on this machine, this time included; it is written down.

    Args:
        dataset: The cohort.
        run_id: Name of the run that opens them.
        folder: The run's folder.
    """
    rows = dataset.rows[dataset.cohort.rows("test")]
    return open_test([str(dataset.decoded.facts["sha256"][row]) for row in rows], run_id, folder)


def _write_tables(
    folder: Path,
    dataset: Dataset,
    trials: Mapping[Role, Sequence[Trial]],
    judged: Mapping[Role, list[Judged]],
    val: Judged | None,
) -> None:
    """A table of the test cases for every model, one of the validation cases, and the course of training.

    Args:
        folder: The run's folder.
        dataset: The cohort.
        trials: Trials by role (`medgraft.result.run.Role`), one per seed.
        judged: What the models say of the test cases, by role, one per seed.
        val: What the chosen model says of the validation cases; None where no table of them is kept.
    """
    judge = JUDGES[dataset.cohort.kind]
    rows = dataset.cohort.case_rows("test")
    for role, seeds in judged.items():
        write_table(judge.table(dataset, rows, seeds[0]), folder / table_name(role))
    if val is not None:
        write_table(judge.table(dataset, dataset.cohort.case_rows("val"), val), folder / "predictions_val.csv")
    history = [
        {"role": role, "seed": trial.spec.seed, **row.columns()}
        for role in ("chosen", "baseline")
        for trial in trials[role]
        for row in trial.history
    ]
    write_table(pd.DataFrame(history), folder / "history.csv")
