"""Judging of masks: overlap and surfaces at the images' own size, their tables, other observers."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pandas as pd

from medgraft.data.cohort.marked import mask_of, with_truth
from medgraft.data.decoded.masks import stored_spacing
from medgraft.deploy.artefact import Judging
from medgraft.deploy.segment import segment_image
from medgraft.evaluate.bootstrap import paired_difference
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.results import MaskReference, ModelResult, ObserverResult
from medgraft.evaluate.summary import summarise
from medgraft.judge.labels import pseudonyms
from medgraft.judge.plan import JudgePlan
from medgraft.metrics.measures import cases_of, measure_of
from medgraft.metrics.overlap import dice, jaccard, overlap_counts, surface_scores, without_void
from medgraft.study.dataset import Dataset
from medgraft.train.engine import Engine
from medgraft.transfer.model import TransferModel
from medgraft.types import Overlaps

__all__ = ["beside", "call", "finished", "from_table", "judging_of", "segmenter", "table"]

_FEWEST: Final = 2


def segmenter(model: TransferModel, dataset: Dataset, engine: Engine) -> Callable[[int, tuple[int, ...]], np.ndarray]:
    """A function of a row and the sides of its file: the class numbers that `model` calls, at that size.

    Args:
        model: Moved to the device of `engine`.
        dataset: The images.
        engine: Device and arithmetic.
    """
    network = model.to(engine.device)

    def marked(row: int, sides: tuple[int, ...]) -> np.ndarray:
        cached = int(dataset.rows[row])
        return segment_image(
            network,
            np.asarray(dataset.decoded.images[cached]),
            sides,
            dataset.preprocessing,
            dataset.patch,
            engine,
            stored_spacing(dataset.decoded, cached),
        )

    return marked


def call(
    model: TransferModel,
    dataset: Dataset,
    rows: np.ndarray,
    plan: JudgePlan,
    engine: Engine,
    on_case: Callable[[int], None] = lambda _done: None,
) -> Overlaps:
    """Overlap and surfaces of a model's masks with the truth, at the size of the files; each truth is read once.

    Args:
        model: Moved to the device of `engine`.
        dataset: The images.
        rows: Rows of the cohort.
        plan: Tells the tolerance of surface Dice.
        engine: Device and arithmetic.
        on_case: Called with the number of cases done.
    """
    marked, cases, is_spaced = segmenter(model, dataset, engine), [], dataset.surface_unit != "px"
    for row in rows.tolist():
        truth = mask_of(dataset.cohort, row)
        cases.append(_agreement(dataset, row, truth, marked(row, truth.shape), plan.tolerance, is_spaced=is_spaced))
        on_case(len(cases))
    return _overlaps(dataset, rows, cases)


def _agreement(
    dataset: Dataset, row: int, truth: np.ndarray, called: np.ndarray, tolerance: float, *, is_spaced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(C, 3) counts and (C, 2) surfaces of one case.

    Args:
        dataset: The images.
        row: Row of the cohort.
        truth: (*sides) class numbers, 0 the background.
        called: (*sides) class numbers that are judged.
        tolerance: Tolerance of surface Dice: mm, or px without spacing.
        is_spaced: Whether surfaces are measured in mm.
    """
    classes = range(1, len(dataset.cohort.classes) + 1)
    spacing = stored_spacing(dataset.decoded, int(dataset.rows[row])) if is_spaced else (1.0,) * truth.ndim
    called, truth = without_void(called, truth)
    surfaces = [surface_scores(called == c, truth == c, spacing, tolerance) for c in classes]
    return overlap_counts(called, truth, len(classes)), np.array(surfaces, dtype=np.float64)


def _overlaps(dataset: Dataset, rows: np.ndarray, cases: Sequence[tuple[np.ndarray, np.ndarray]]) -> Overlaps:
    """Counts and surfaces of several cases as one value.

    Args:
        dataset: The cohort.
        rows: Rows of the cohort, one per case.
        cases: (C, 3) counts and (C, 2) surfaces of each case.
    """
    counts, surfaces = (np.stack(parts) for parts in zip(*cases, strict=True))
    return Overlaps(counts=counts, surfaces=surfaces, groups=dataset.groups[rows], classes=dataset.cohort.classes)


def table(dataset: Dataset, rows: np.ndarray, judged: Overlaps) -> pd.DataFrame:
    """``path, patient`` and for every class ``dice_…, jaccard_…, hd95_…, surface_dice_…`` and its pixels.

    Args:
        dataset: The cohort.
        rows: Rows of the cohort, one per case.
        judged: What a model says of these cases.
    """
    cases = dataset.cohort.table.iloc[rows]
    out = pd.DataFrame({"path": list(cases["path"]), "patient": pseudonyms(cases)})
    for index, name in enumerate(judged.classes):
        counts = judged.counts[:, index]
        out[f"dice_{name}"], out[f"jaccard_{name}"] = dice(counts), jaccard(counts)
        if judged.surfaces is not None:
            out[f"hd95_{name}"], out[f"surface_dice_{name}"] = judged.surfaces[:, index].T
        out[f"called_{name}"], out[f"true_{name}"], out[f"both_{name}"] = counts.T
    return out


def from_table(stored: pd.DataFrame, dataset: Dataset, rows: np.ndarray) -> Overlaps:
    """What a model says of some cases, surfaces included, read back from what `table` made of it.

    Args:
        stored: The table.
        dataset: The cohort of its cases.
        rows: Rows of the cohort, one per line of the table.
    """
    classes = dataset.cohort.classes
    counts = [stored[[f"called_{name}", f"true_{name}", f"both_{name}"]].to_numpy(np.int64) for name in classes]
    surfaces = [stored[[f"hd95_{name}", f"surface_dice_{name}"]].to_numpy(np.float64) for name in classes]
    return Overlaps(
        counts=np.stack(counts, 1), surfaces=np.stack(surfaces, 1), groups=dataset.groups[rows], classes=classes
    )


def finished(result: ModelResult, judged: Overlaps, val: Overlaps, plan: JudgePlan) -> ModelResult:
    """The result as it is: masks have no operating point.

    Args:
        result: Metrics on the test cases.
        judged: Not needed for masks.
        val: Not needed for masks.
        plan: Not needed for masks.
    """
    return result


def judging_of(result: ModelResult, plan: JudgePlan) -> Judging:
    """What a stored model needs to know of its judging."""
    return Judging(tolerance_mm=plan.tolerance)


def beside(dataset: Dataset, rows: np.ndarray, chosen: Overlaps, plan: JudgePlan) -> MaskReference:
    """What stands beside masks: unit, tolerance, and every other observer on the same cases.

    Args:
        dataset: The images.
        rows: Rows of the cohort.
        chosen: What the model says of these rows.
        plan: Tolerance and bootstrap.
    """
    observers: dict[str, ObserverResult] = {}
    left_out: dict[str, str] = {}
    is_spaced = dataset.surface_unit != "px"
    for name in dataset.cohort.observers:
        places, cases, reason = [], [], "too few of these cases have a mask of theirs"
        for position, row in enumerate(rows.tolist()):
            both = with_truth(dataset.cohort, name, row)
            if isinstance(both, str):
                reason = f"e.g. {dataset.cohort.table['path'].iat[row]}: {both}"
            elif both is not None:
                mask, truth = both
                places.append(position)
                cases.append(_agreement(dataset, row, truth, mask, plan.tolerance, is_spaced=is_spaced))
        if len(places) < _FEWEST:
            left_out[name] = reason
            continue
        human, model = _overlaps(dataset, rows[places], cases), cases_of(chosen, np.array(places))
        weights = bootstrap_weights(human, plan.replicates, plan.seed)
        observers[name] = ObserverResult(
            num_cases=len(places),
            scores=summarise(human, weights).scores,
            model_less_observer={
                metric: paired_difference(model, human, metric, weights) for metric in measure_of(human).metrics(human)
            },
        )
    return MaskReference(
        unit=dataset.surface_unit, tolerance=plan.tolerance, observers=observers, observers_left_out=left_out
    )
