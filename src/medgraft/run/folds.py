"""Grouped nested cross-validation: every group is tested once, and each fold chooses its own cut."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final

from medgraft.data.split import fold_splits
from medgraft.files import copy_whole
from medgraft.judge.folds import merge_folds
from medgraft.judge.plan import JudgePlan
from medgraft.listener import Listener
from medgraft.prepare.material import Material, preprocessing_of
from medgraft.report import write_report
from medgraft.result.run import RunResult, read_result, write_result

__all__ = ["fit_folds"]

# Models of other arithmetic or other epochs are not pooled: what the first fold measured holds for all.
_MEASURED_ONCE: Final = ("engine.json", "budget.json")


def fit_folds(
    plan: JudgePlan,
    num_folds: int,
    folder: Path,
    material: Material,
    fit_split: Callable[[Path, Material], RunResult],
    listener: Listener,
) -> RunResult:
    """Run the job once per outer fold, pool the test cases, and write one result for all.

    Args:
        plan: How folds are judged.
        num_folds: At least 3.
        folder: The run; each fold has a subfolder.
        material: Before any division.
        fit_split: The job on one division.
        listener: Told how things go.

    Raises:
        ConfigError: There are fewer groups than folds.
        MedgraftError: A fold failed.
    """
    results = []
    whole = material.dataset
    for number, cohort in enumerate(fold_splits(whole.cohort, whole.groups, num_folds, plan.seed), 1):
        fold = folder / f"fold_{number}"
        for note in cohort.notes_since(whole.cohort):
            listener.say(note)
        # As in `fit`: killed before its report a fold is not done.
        if not ((fold / "results.json").is_file() and (fold / "report.html").is_file()):
            fold.mkdir(exist_ok=True)
            copy_whole(folder / "run.json", fold / "run.json")
            _carry_over(folder / "fold_1", fold)
            train_rows = whole.rows[cohort.rows("train")]
            preprocessing = preprocessing_of(material.source, whole.decoded, train_rows)
            dataset = dataclasses.replace(whole, cohort=cohort, preprocessing=preprocessing)
            fit_split(fold, dataclasses.replace(material, dataset=dataset))
        results.append(read_result(fold))
    merged = merge_folds(plan, folder, whole, results)
    write_result(merged, folder)
    write_report(folder)
    return merged


def _carry_over(first: Path, fold: Path) -> None:
    """Have a fold use what was measured in the first one.

    Args:
        first: Folder of the first fold.
        fold: Folder of the fold that begins or goes on.
    """
    for name in _MEASURED_ONCE:
        if (first / name).exists() and not (fold / name).exists():
            copy_whole(first / name, fold / name)
