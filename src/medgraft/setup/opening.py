"""The moment a job opens the test set: counted on this machine, logged in the run, and said."""

from pathlib import Path

from medgraft.judge.test import count_openings
from medgraft.listener import Listener
from medgraft.setup.folder import log_event, run_id_of
from medgraft.study.dataset import Dataset
from medgraft.types import Cohort

__all__ = ["note_opening"]


def note_opening(dataset: Dataset, folder: Path, listener: Listener) -> int:
    """How often these test cases were opened on this machine, this time included.

    Args:
        dataset: The cohort.
        folder: Folder of the run or comparison, where it is logged.
        listener: Told so.

    Raises:
        RunError: The ledger or the log cannot be written.
    """
    openings = count_openings(dataset, run_id_of(folder), folder)
    log_event(folder, "test opened", openings=openings)
    listener.say(f"Opening the test set ({_in_words(dataset.cohort)}); on this machine this is time {openings}.")
    return openings


def _in_words(cohort: Cohort) -> str:
    images, cases = len(cohort.rows("test")), len(cohort.case_rows("test"))
    return f"{images} {cohort.noun}" if images == cases else f"{cases} {cohort.case_noun} of {images} {cohort.noun}"
