"""What differs between kinds of truth when a test set is judged: one entry each."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from medgraft.deploy.artefact import Judging
from medgraft.evaluate.results import MaskReference, ModelResult
from medgraft.judge import labels, masks
from medgraft.judge.examples import example_pictures
from medgraft.judge.overlays import overlay_pictures
from medgraft.judge.plan import JudgePlan
from medgraft.result.pictures import Pictures
from medgraft.search.trial import Trial, TrialContext
from medgraft.study.dataset import Dataset
from medgraft.train.engine import Engine
from medgraft.transfer.model import TransferModel
from medgraft.types import Judged, Kind

__all__ = ["JUDGES", "Judge"]


def _nothing_beside(*_: Any) -> MaskReference:
    return MaskReference()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """How one kind of truth is judged.

    Args:
        call: What a model says of some rows.
        table: The table of cases that a run leaves behind.
        from_table: What such a table was made from.
        finished: A model's result with what validation fixes (operating points).
        judging_of: What a stored model needs to know of its judging.
        beside: What stands beside this kind of truth.
        pictures: Test cases with pictures for the report: of a folder, the dataset, a trial, its context, and what its
            model says.
        keeps_validation: Whether a table of the validation cases is left behind, too.
    """

    call: Callable[[TransferModel, Dataset, np.ndarray, JudgePlan, Engine, Callable[[int], None]], Judged]
    table: Callable[[Dataset, np.ndarray, Any], pd.DataFrame]
    from_table: Callable[[pd.DataFrame, Dataset, np.ndarray], Judged]
    finished: Callable[[ModelResult, Any, Any, JudgePlan], ModelResult]
    judging_of: Callable[[ModelResult, JudgePlan], Judging]
    pictures: Callable[[Path, Dataset, Trial, TrialContext, Any], Pictures]
    beside: Callable[[Dataset, np.ndarray, Any, JudgePlan], MaskReference] = _nothing_beside
    keeps_validation: bool = False


JUDGES: Final[dict[Kind, Judge]] = {
    "labels": Judge(
        call=labels.call,
        table=labels.table,
        from_table=labels.from_table,
        finished=labels.finished,
        judging_of=labels.judging_of,
        pictures=example_pictures,
        keeps_validation=True,
    ),
    "masks": Judge(
        call=masks.call,
        table=masks.table,
        from_table=masks.from_table,
        finished=masks.finished,
        judging_of=masks.judging_of,
        pictures=overlay_pictures,
        beside=masks.beside,
    ),
}
