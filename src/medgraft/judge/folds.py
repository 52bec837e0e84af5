"""One result of many folds: every case was tested once, and each fold chose its own cut."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from medgraft.errors import RunError
from medgraft.evaluate.comparison import compare
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.results import Estimate, ModelResult, TestResult
from medgraft.evaluate.summary import summarise
from medgraft.files import copy_whole, write_table
from medgraft.judge.judges import JUDGES
from medgraft.judge.plan import JudgePlan
from medgraft.judge.test import judged_name, table_name, test_result
from medgraft.result.run import (
    ROLES,
    FoldResult,
    FurtherModel,
    Role,
    RunResult,
    SearchCost,
    SplitFacts,
    mean_of_those_there,
)
from medgraft.search.tables import SIGNAL_KEYS
from medgraft.study.dataset import Dataset
from medgraft.types import Judged, Predictions

__all__ = ["merge_folds"]

_TEXTS: Final = {"path": str, "patient": str, "label": str, "pred": str}


def merge_folds(plan: JudgePlan, folder: Path, dataset: Dataset, results: Sequence[RunResult]) -> RunResult:
    """One result for all folds, after their files were put together in `folder`.

    What describes a model (`chosen`, `efficiency`, `plan`) describes the one that is saved, that of the first fold; the
    figures of the test pool all folds and judge the procedure. The search that is shown is that of the first fold, too.

    Args:
        plan: How folds are judged.
        folder: The run's folder; fold k lies in ``fold_k`` below it.
        dataset: The cohort before any division.
        results: Results of the folds, in their order.

    Raises:
        RunError: A fold tested a case that the cohort lacks, or a file cannot be written.
    """
    places = [folder / f"fold_{number}" for number in range(1, len(results) + 1)]
    rows, judged = _pooled(folder, places, dataset)
    _merge_files(folder, places)
    weights = bootstrap_weights(judged["chosen"], plan.replicates, plan.seed)
    first = results[0]
    return dataclasses.replace(
        first,
        test=_test(plan, dataset, rows, judged, results, weights),
        second_baseline=_further(plan, "second", judged, [result.second_baseline for result in results], weights),
        continued=_further(plan, "continued", judged, [result.continued for result in results], weights),
        search=_search(results),
        splits=_tested_parts([result.splits for result in results]),
        ledger=max((result.ledger for result in results), key=lambda ledger: ledger.openings),
        late_gain={
            role: mean_of_those_there([result.late_gain.get(role) for result in results]) for role in first.late_gain
        },
        notes=(*dataset.cohort.notes, *_notes(results)),
        folds=tuple(_in_short(number, result) for number, result in enumerate(results, 1)),
    )


def _notes(results: Sequence[RunResult]) -> list[str]:
    methods = [result.search.method for result in results]
    return [
        f"Nested cross-validation, {len(results)} folds by group; test figures take the cases of all folds together.",
        "Cuts chosen per fold: " + ", ".join(result.chosen.cut.name for result in results) + ".",
        "The saved model, its size and its plan are those of fold 1.",
        "The table of the search is that of fold 1; in its figure the other folds are grey.",
        # A rare class may forbid in one fold what others do.
        *([f"Searches per fold: {', '.join(methods)}."] if len(set(methods)) > 1 else []),
    ]


def _in_short(number: int, result: RunResult) -> FoldResult:
    metric = result.measure.judges
    return FoldResult(
        fold=number,
        cut=result.chosen.cut,
        num_params=result.efficiency.chosen.num_params,
        num_cases=result.test.num_cases,
        chosen=result.test.chosen.scores[metric],
        baseline=result.test.baseline.scores[metric],
        verdict=result.test.comparison.verdict,
    )


def _search(results: Sequence[RunResult]) -> SearchCost:
    """Trials and seconds of all folds; in units of full fine-tuning, of which each fold has its own, their mean."""
    costs = [result.search for result in results]
    return dataclasses.replace(
        costs[0],
        fold=1,
        num_trials=sum(cost.num_trials for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        baseline_seconds=sum(cost.baseline_seconds for cost in costs),
        cost_in_ftl=float(np.mean([cost.cost_in_ftl for cost in costs])),
        beyond_ftl=float(np.mean([cost.beyond_ftl for cost in costs])),
    )


def _tested_parts(parts: Sequence[SplitFacts]) -> SplitFacts:
    """What all folds together tested, each case once; what trained and what chose differs from fold to fold."""
    counts = [part.counts["test"] for part in parts]
    tested = [part.tested for part in parts]
    return dataclasses.replace(
        parts[0],
        groups={"test": sum(part.groups["test"] for part in parts)},
        images={"test": sum(part.images["test"] for part in parts)},
        counts={"test": {name: sum(count[name] for count in counts) for name in counts[0]}},
        tested={name: sum(count[name] for count in tested) for name in tested[0]},
    )


def _test(
    plan: JudgePlan,
    dataset: Dataset,
    rows: np.ndarray,
    judged: Mapping[Role, Judged],
    results: Sequence[RunResult],
    weights: np.ndarray,
) -> TestResult:
    """What the test cases of all folds together say, with mean and sd over the folds.

    Args:
        plan: How folds are judged.
        dataset: The cohort before any division.
        rows: Row in the cohort of every test case.
        judged: What the models say of these cases, by role.
        results: Results of the folds, in their order.
        weights: (replicates, N) bootstrap weights of these cases.
    """
    chosen = judged["chosen"]
    pair = (
        _over_folds(summarise(chosen, weights), [result.test.chosen for result in results]),
        _over_folds(summarise(judged["baseline"], weights), [result.test.baseline for result in results]),
    )
    name = judged_name(results[0].chosen.strategy)
    comparison = compare(chosen, judged["baseline"], plan.margin, weights, name, len(results))
    return test_result(plan, dataset, rows, chosen, pair, comparison)


def _further(
    plan: JudgePlan,
    role: Role,
    judged: Mapping[Role, Judged],
    parts: Sequence[FurtherModel | None],
    weights: np.ndarray,
) -> FurtherModel | None:
    """A further baseline on the test cases of all folds; None where a fold has none.

    Args:
        plan: How folds are judged.
        role: One of `medgraft.result.run.Role`.
        judged: What the models say of the test cases, by role.
        parts: Each fold's own result of this baseline.
        weights: (replicates, N) bootstrap weights of these cases.
    """
    there = [part for part in parts if part is not None]
    if role not in judged or len(there) < len(parts):
        return None
    return dataclasses.replace(
        there[0],  # the weights decide where it ends, alike in every fold
        epochs=0,
        result=_over_folds(summarise(judged[role], weights), [part.result for part in there]),
        comparison=compare(judged["chosen"], judged[role], plan.margin, weights, num_folds=len(parts)),
    )


def _over_folds(pooled: ModelResult, parts: Sequence[ModelResult]) -> ModelResult:
    """The pooled result with mean and sd over the folds; operating points are each fold's own."""

    def spread(name: str, score: Estimate) -> Estimate:
        values = [value for part in parts if (value := part.scores[name].value) is not None]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return dataclasses.replace(score, mean=mean_of_those_there(values), sd=sd)

    return dataclasses.replace(pooled, scores={name: spread(name, score) for name, score in pooled.scores.items()})


def _pooled(folder: Path, places: Sequence[Path], dataset: Dataset) -> tuple[np.ndarray, dict[Role, Judged]]:
    """Cohort rows of the test cases of all folds, and what is said of them by role, as far as every fold has it.

    Their tables are written for the whole, too.

    Args:
        folder: The run's folder.
        places: Folders of the folds.
        dataset: The cohort before any division.
    """
    tables = {
        role: concatenated(places, table_name(role))
        for role in ROLES
        if all((path / table_name(role)).is_file() for path in places)
    }
    for role, table in tables.items():
        write_table(table, folder / table_name(role))
    # The folds list their cases alike for every model.
    rows = rows_in(tables["chosen"], dataset)
    from_table = JUDGES[dataset.cohort.kind].from_table
    judged = {role: from_table(table, dataset, rows) for role, table in tables.items()}
    return rows, {role: _by_fold(one, tables[role]["fold"].to_numpy(np.int64)) for role, one in judged.items()}


def _by_fold(judged: Judged, folds: np.ndarray) -> Judged:
    """The cases with the fold whose model judged each: masks have no ranks that this would matter to.

    Args:
        judged: The cases of all folds.
        folds: (N,) number of each case's fold.
    """
    return dataclasses.replace(judged, strata=folds) if isinstance(judged, Predictions) else judged


def rows_in(table: pd.DataFrame, dataset: Dataset) -> np.ndarray:
    """Row of the cohort of each line of a table of cases.

    Raises:
        RunError: The cohort lacks one of them.
    """
    rows: np.ndarray = pd.Index(dataset.cohort.table["path"]).get_indexer(pd.Index(table["path"]))
    if (rows < 0).any():
        raise RunError(
            f"a fold tested {table['path'].iat[int(np.argmin(rows))]}, which the cohort lacks. Delete the run."
        )
    return rows


def concatenated(places: Sequence[Path], name: str) -> pd.DataFrame:
    """A table of all folds, with a column of their numbers; names that look like numbers stay names."""
    return pd.concat(
        [
            pd.read_csv(path / name, keep_default_na=False, dtype=_TEXTS).assign(fold=number)
            for number, path in enumerate(places, 1)
        ]
    )


def _merge_files(folder: Path, places: Sequence[Path]) -> None:
    for name in ("search.csv", "history.csv"):
        # The fold takes the place of the seed, so that curves show their spread over folds.
        tables = [pd.read_csv(path / name).assign(seed=number) for number, path in enumerate(places, 1)]
        write_table(pd.concat(tables), folder / name)
    if all((path / "signals.csv").exists() for path in places):
        signals = pd.concat([pd.read_csv(path / "signals.csv") for path in places])
        write_table(signals.groupby(list(SIGNAL_KEYS), as_index=False).mean(), folder / "signals.csv")
    if all((path / "predictions_val.csv").exists() for path in places):
        write_table(concatenated(places, "predictions_val.csv"), folder / "predictions_val.csv")
    for name in ("choice.json", "audit.json"):
        copy_whole(places[0] / name, folder / name)
    splits = [
        pd.read_csv(path / "splits.csv", dtype=str, keep_default_na=False).assign(fold=number)
        for number, path in enumerate(places, 1)
    ]
    write_table(pd.concat(splits), folder / "splits.csv")
    copy_whole(places[0] / "model", folder / "model")
    if (places[0] / "report_images").is_dir():
        copy_whole(places[0] / "report_images", folder / "report_images")
