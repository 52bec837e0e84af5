"""What differs between kinds of truth when a test set is judged: one entry each."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from medgraft.evaluate.results import ModelResult
from medgraft.judge import labels, masks
from medgraft.judge.examples import example_pictures
from medgraft.judge.overlays import overlay_pictures
from medgraft.types import Kind

__all__ = ["JUDGES", "Judge"]


def _nothing_beside(*_: Any) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """How one kind of truth is judged.

    Args:
        call: What a model says of some rows.
        table: The table of cases that a run leaves behind.
        from_table: What such a table was made from.
        finished: A model's result with what validation fixes (operating points).
        artefact_facts: Fields of an `Artefact` that follow from a result.
        beside: Fields of a `TestResult` that only this kind has.
        pictures: Test cases with pictures for the report: of a folder, the dataset, a trial, its context, and what its
            model says.
        keeps_validation: Whether a table of the validation cases is left behind, too.
    """

    call: Callable[..., Any]
    table: Callable[[Any, np.ndarray, Any], pd.DataFrame]
    from_table: Callable[[pd.DataFrame, Any, np.ndarray], Any]
    finished: Callable[[ModelResult, Any, Any, Any], ModelResult]
    artefact_facts: Callable[[ModelResult, Any], dict[str, Any]]
    pictures: Callable[[Path, Any, Any, Any, Any], dict[str, Any]]
    beside: Callable[[Any, np.ndarray, Any, Any], dict[str, Any]] = _nothing_beside
    keeps_validation: bool = False


JUDGES: Final[dict[Kind, Judge]] = {
    "labels": Judge(
        call=labels.call,
        table=labels.table,
        from_table=labels.from_table,
        finished=labels.finished,
        artefact_facts=labels.artefact_facts,
        pictures=example_pictures,
        keeps_validation=True,
    ),
    "masks": Judge(
        call=masks.call,
        table=masks.table,
        from_table=masks.from_table,
        finished=masks.finished,
        artefact_facts=masks.artefact_facts,
        pictures=overlay_pictures,
        beside=masks.beside,
    ),
}
