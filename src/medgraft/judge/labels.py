"""Judging of labels: probabilities pooled by unit, their tables, operating points."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from medgraft.data.cohort.identity import pseudonym
from medgraft.deploy.artefact import Judging
from medgraft.deploy.predict import predictions_table
from medgraft.evaluate.results import ModelResult
from medgraft.evaluate.summary import with_points
from medgraft.judge.plan import JudgePlan
from medgraft.metrics.cases import pooled
from medgraft.study.dataset import Dataset
from medgraft.train.batches import ImageSet
from medgraft.train.engine import Engine
from medgraft.train.outputs import predict_probs
from medgraft.transfer.model import TransferModel
from medgraft.types import Predictions

__all__ = ["call", "finished", "from_table", "judging_of", "pseudonyms", "table"]


def call(
    model: TransferModel,
    dataset: Dataset,
    rows: np.ndarray,
    plan: JudgePlan,
    engine: Engine,
    on_case: Callable[[int], None] = lambda _done: None,
) -> Predictions:
    """What a model says of some images, pooled by unit.

    Args:
        model: Moved to the device of `engine`.
        dataset: The images.
        rows: Rows of the cohort, every image of each unit among them.
        plan: Not needed for labels.
        engine: Device and arithmetic.
        on_case: Called with the number of images done.
    """
    data = ImageSet(
        images=dataset.decoded.images,
        rows=dataset.rows[rows],
        targets=dataset.cohort.targets[rows],
        intensity_max=dataset.preprocessing.intensity_max,
        task=dataset.cohort.task,
        positive=dataset.positive,
        num_classes=len(dataset.cohort.classes),
    )
    predictions = Predictions(
        probs=predict_probs(model.to(engine.device), data, engine, on_case),
        targets=data.targets,
        groups=dataset.groups[rows],
        classes=dataset.cohort.classes,
        task=data.task,
        positive=data.positive,
        is_ordinal=dataset.cohort.is_ordinal,
    )
    return pooled(predictions, dataset.cohort.units(rows))


def table(dataset: Dataset, rows: np.ndarray, judged: Predictions) -> pd.DataFrame:
    """``path, patient, label, prob_<class>…, pred, status`` of the cases `rows`.

    Args:
        dataset: The cohort.
        rows: Rows of the cohort, one per case.
        judged: What a model says of these cases.
    """
    cases = dataset.cohort.table.iloc[rows]
    return predictions_table(judged, list(cases["path"]), pseudonyms(cases))


def from_table(stored: pd.DataFrame, dataset: Dataset, rows: np.ndarray) -> Predictions:
    """What a model says of some cases, read back from what `table` made of it.

    Args:
        stored: The table.
        dataset: The cohort of its cases.
        rows: Rows of the cohort, one per line of the table.
    """
    cohort = dataset.cohort
    return Predictions(
        probs=stored[[f"prob_{name}" for name in cohort.classes]].to_numpy(np.float64),
        targets=cohort.targets[rows],
        groups=dataset.groups[rows],
        classes=cohort.classes,
        task=cohort.task,
        positive=dataset.positive,
        is_ordinal=cohort.is_ordinal,
    )


def finished(result: ModelResult, judged: Predictions, val: Predictions, plan: JudgePlan) -> ModelResult:
    """The result with operating points and temperature, which validation fixes.

    Args:
        result: Metrics on the test cases.
        judged: What the model says of the test cases.
        val: What it says of the validation cases.
        plan: Tells the rule of operating points.
    """
    return with_points(result, judged, val, plan.operating_point)


def judging_of(result: ModelResult, plan: JudgePlan) -> Judging:
    """What a stored model needs to know of its judging."""
    return Judging(
        thresholds={name: point.threshold for name, point in result.points.items()},
        temperature=1.0 if result.scaled is None else result.scaled.temperature,
    )


def pseudonyms(cases: pd.DataFrame) -> list[str]:
    """A keyed pseudonym of each case's patient; empty where none is known."""
    return [pseudonym(str(patient)) if isinstance(patient, str) else "" for patient in cases["patient"]]
