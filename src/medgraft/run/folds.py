"""Grouped nested cross-validation: every group is tested once, and each fold chooses its own cut."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from medgraft.config import RunConfig
from medgraft.data.split import fold_splits
from medgraft.judge.folds import merge_folds
from medgraft.judge.plan import JudgePlan
from medgraft.listener import Listener
from medgraft.report import write_report
from medgraft.result import RunResult, read_result, write_result
from medgraft.run.prepare import Prepared, preprocessing_of

__all__ = ["fit_folds"]

RunSplit = Callable[[Path, Prepared], RunResult]


def fit_folds(
    config: RunConfig, plan: JudgePlan, folder: Path, found: Prepared, run_split: RunSplit, told: Listener
) -> RunResult:
    """Run the job once per outer fold, pool the test cases, and write one result for all.

    Args:
        config: With `data.folds` above 1.
        plan: How folds are judged.
        folder: The run; each fold has a subfolder.
        found: The cohort before any division.
        run_split: The job on one division.
        told: Told how things go.
    """
    results = []
    cohorts = fold_splits(found.cohort, found.groups, config.data.folds, config.seed)
    for number, cohort in enumerate(cohorts, 1):
        place = folder / f"fold_{number}"
        told.say(cohort.notes[-1])
        # As in `fit`: killed before its report a fold is not done.
        if not ((place / "results.json").is_file() and (place / "report.html").is_file()):
            place.mkdir(exist_ok=True)
            shutil.copyfile(folder / "run.json", place / "run.json")
            train_rows = found.rows[cohort.rows("train")]
            preprocessing = preprocessing_of(found.source, found.decoded, train_rows)
            run_split(place, dataclasses.replace(found, cohort=cohort, preprocessing=preprocessing))
        results.append(read_result(place))
    merged = merge_folds(plan, folder, found.study, results)
    write_result(merged, folder)
    write_report(folder)
    return merged
