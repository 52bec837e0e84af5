"""The one opening of a test set with masks: overlaps at the images' own size, intervals, verdict, other observers."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from medgraft.config import RunConfig
from medgraft.data.cache import DecodedCohort
from medgraft.data.identity import pseudonym
from medgraft.data.mask_cache import stored_spacing
from medgraft.data.masks import mask_of, with_truth
from medgraft.deploy.segment import segment_image
from medgraft.evaluate.bootstrap import paired_difference
from medgraft.evaluate.masks import cases_of, mask_metrics, site_overlaps, summarise_masks
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import compare
from medgraft.files import write_table
from medgraft.listener import Listener
from medgraft.metrics.overlap import dice, jaccard, overlap_counts, surface_scores
from medgraft.run.judging import (
    Tested,
    compare_with_baseline,
    further_model,
    say_opening,
    store_models,
    table_name,
    training_history,
)
from medgraft.run.prepare import Prepared
from medgraft.run.searching import Searched
from medgraft.search.trial import Trial, TrialContext, load_trial_model
from medgraft.train.engine import Engine, exact_engine
from medgraft.transfer.model import TransferModel
from medgraft.types import Cohort, Overlaps, Preprocessing, to_json

__all__ = [
    "Marked",
    "judge_masks",
    "marked",
    "mask_table",
    "open_mask_test",
    "other_observers",
    "overlaps_of_table",
    "segmenter",
]

_FEWEST: Final = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marked:
    """Images with masks, and how a model reads them.

    Args:
        cohort: N images.
        decoded: Their cache.
        rows: (N,) row of the cache of each.
        groups: (N,) group of each.
        preprocessing: From a file to the network's input.
        patch: Sides of what the network sees at once.
    """

    cohort: Cohort
    decoded: DecodedCohort
    rows: np.ndarray
    groups: np.ndarray
    preprocessing: Preprocessing
    patch: tuple[int, ...]

    @property
    def unit(self) -> str:
        """In which surfaces are measured: ``mm`` where every image of the cohort tells its spacing, else ``px``."""
        return "mm" if all(stored_spacing(self.decoded, int(row)) for row in self.rows) else "px"


def marked(found: Prepared) -> Marked:
    """Those of a run."""
    return Marked(
        cohort=found.cohort,
        decoded=found.decoded,
        rows=found.rows,
        groups=found.groups,
        preprocessing=found.preprocessing,
        patch=found.input_sides,
    )


def open_mask_test(
    config: RunConfig,
    folder: Path,
    found: Prepared,
    context: TrialContext,
    searched: Searched,
    run_id: str,
    told: Listener,
) -> Tested:
    """Open the test set for the chosen model and the baselines, and write what was found."""
    rows, images = found.cohort.rows("test"), marked(found)
    openings = say_opening(folder, found, run_id, told)

    def judged(trial: Trial) -> Overlaps:
        return _of_trial(config, found, context, trial, told)

    chosen = [judged(trial) for trial in searched.chosen_seeds]
    is_same = searched.chosen.spec == searched.baseline_seeds[0].spec
    baseline = chosen if is_same else [judged(trial) for trial in searched.baseline_seeds]
    weights = bootstrap_weights(chosen[0], config.evaluate.replicates, config.seed)
    summary = _summary(config, images, rows, searched, (chosen, baseline), weights)
    second = [judged(trial) for trial in searched.second_seeds]
    tested = {"chosen": chosen[0], "baseline": baseline[0]} | ({"second": second[0]} if second else {})
    for role, overlaps in tested.items():
        write_table(mask_table(images, rows, overlaps), folder / table_name(role))
    write_table(training_history(searched.chosen_seeds, searched.baseline_seeds), folder / "history.csv")
    facts = {"tolerance_mm": config.evaluate.tolerance_mm}
    return Tested(
        summary=summary,
        efficiency=store_models(folder, found, context, searched, {"chosen": facts, "baseline": facts}),
        second_baseline=further_model(
            searched.second_seeds[0],
            summarise_masks(second, weights) | compare(chosen, second, config.evaluate.margin, weights),
        )
        if second
        else None,
        continued=None,
        openings=openings,
        chosen=chosen,
        baseline=baseline,
    )


def _summary(
    config: RunConfig,
    images: Marked,
    rows: np.ndarray,
    searched: Searched,
    found: tuple[Sequence[Overlaps], Sequence[Overlaps]],
    weights: np.ndarray,
) -> dict[str, Any]:
    """The `test` part of results.json, of the chosen model and of full fine-tuning (`found`)."""
    chosen, baseline = found
    drawn: dict[str, Any] = {
        "tolerance": config.evaluate.tolerance_mm, "replicates": config.evaluate.replicates, "seed": config.seed
    }  # fmt: skip
    summary = {
        "chosen": summarise_masks(chosen, weights),
        "baseline": summarise_masks(baseline, weights),
        **compare_with_baseline(searched, chosen, baseline, config.evaluate.margin, weights),
        "margin": config.evaluate.margin,
        "replicates": config.evaluate.replicates,
        "tolerance": config.evaluate.tolerance_mm,
        "unit": images.unit,
        **other_observers(images, rows, chosen[0], **drawn),
        "num_cases": len(rows),
        "num_groups": len(np.unique(images.groups[rows])),
    }
    sites = images.cohort.sites(rows)
    if any(sites):
        summary["sites"] = site_overlaps(chosen[0], sites, num=config.evaluate.replicates, seed=config.seed)
    return summary


def _of_trial(config: RunConfig, found: Prepared, context: TrialContext, trial: Trial, told: Listener) -> Overlaps:
    model, _ = load_trial_model(trial, context)
    engine = exact_engine(context.engine.device, is_deterministic=context.engine.is_deterministic)
    rows = found.cohort.rows("test")
    images = marked(found)
    called = segmenter(model, images, engine)
    label = f"{trial.spec.strategy} at cut {trial.cut.index} on the test set"
    return judge_masks(
        images, rows, called, config.evaluate.tolerance_mm, lambda done: told.step(label, done, len(rows))
    )


def segmenter(model: TransferModel, found: Marked, engine: Engine) -> Callable[[int, tuple[int, ...]], np.ndarray]:
    """Of a row and the sides of its file the class numbers that `model` calls, at that size.

    Args:
        model: On the CPU; moved to the device of `engine`.
        found: The images.
        engine: Device and arithmetic.
    """
    network = model.to(engine.device)

    def call(row: int, sides: tuple[int, ...]) -> np.ndarray:
        cached = int(found.rows[row])
        return segment_image(
            network,
            np.asarray(found.decoded.images[cached]),
            sides,
            found.preprocessing,
            found.patch,
            engine,
            stored_spacing(found.decoded, cached),
        )

    return call


def judge_masks(
    found: Marked,
    rows: np.ndarray,
    call: Callable[[int, tuple[int, ...]], np.ndarray],
    tolerance: float,
    on_case: Callable[[int], None] = lambda _done: None,
) -> Overlaps:
    """Overlap and surfaces of masks with the truth, at the size of the files; the truth of each is read once.

    Args:
        found: The images.
        rows: Of the cohort.
        call: Of a row and the sides of its file the class numbers at that size, e.g. `segmenter`.
        tolerance: Of surface Dice, in the unit of `found`.
        on_case: Called with the number of cases done.
    """
    cases, is_spaced = [], found.unit == "mm"
    for row in rows.tolist():
        truth = mask_of(found.cohort, row)
        cases.append(_agreement(found, row, truth, call(row, truth.shape), tolerance, is_spaced=is_spaced))
        on_case(len(cases))
    return _overlaps(found, rows, cases)


def _agreement(
    found: Marked, row: int, truth: np.ndarray, called: np.ndarray, tolerance: float, *, is_spaced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(C, 3) counts and (C, 2) surfaces of one case."""
    classes = range(1, len(found.cohort.classes) + 1)
    spacing = stored_spacing(found.decoded, int(found.rows[row])) if is_spaced else (1.0,) * truth.ndim
    surfaces = [surface_scores(called == c, truth == c, spacing, tolerance) for c in classes]
    return overlap_counts(called, truth, len(classes)), np.array(surfaces, dtype=np.float64)


def _overlaps(found: Marked, rows: np.ndarray, cases: Sequence[tuple[np.ndarray, np.ndarray]]) -> Overlaps:
    counts, surfaces = (np.stack(parts) for parts in zip(*cases, strict=True))
    return Overlaps(counts=counts, surfaces=surfaces, groups=found.groups[rows], classes=found.cohort.classes)


def other_observers(
    found: Marked, rows: np.ndarray, chosen: Overlaps, *, tolerance: float, replicates: int, seed: int
) -> dict[str, Any]:
    """Every other observer against the truth on the same cases, and the model less the observer.

    `observers` holds those who could be compared, `observers_left_out` the others and why.

    Args:
        found: The images.
        rows: Of the cohort.
        chosen: What the model says of these rows.
        tolerance: Of surface Dice, in the unit of `found`.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.
    """
    told: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    is_spaced = found.unit == "mm"
    for name in found.cohort.observers:
        places, cases, reason = [], [], "too few of these cases have a mask of theirs"
        for place, row in enumerate(rows.tolist()):
            both = with_truth(found.cohort, name, row)
            if isinstance(both, str):
                reason = f"e.g. {found.cohort.table['path'].iat[row]}: {both}"
            elif both is not None:
                mask, truth = both
                places.append(place)
                cases.append(_agreement(found, row, truth, mask, tolerance, is_spaced=is_spaced))
        if len(places) < _FEWEST:
            left_out[name] = reason
            continue
        human, model = _overlaps(found, rows[places], cases), cases_of(chosen, np.array(places))
        weights = bootstrap_weights(human, replicates, seed)
        differences = {metric: paired_difference(model, human, metric, weights) for metric in mask_metrics(human)}
        told[name] = {
            **summarise_masks(human, weights), "num_cases": len(places), "model_less_observer": to_json(differences)
        }  # fmt: skip
    return {"observers": told, "observers_left_out": left_out}


def mask_table(found: Marked, rows: np.ndarray, overlaps: Overlaps) -> pd.DataFrame:
    """``path, patient`` and for every class ``dice_…, jaccard_…, hd95_…, surface_dice_…`` and its pixels."""
    table = found.cohort.table.iloc[rows]
    patients = [pseudonym(str(p)) if isinstance(p, str) else "" for p in table["patient"]]
    out = pd.DataFrame({"path": list(table["path"]), "patient": patients})
    for index, name in enumerate(overlaps.classes):
        counts = overlaps.counts[:, index]
        out[f"dice_{name}"], out[f"jaccard_{name}"] = dice(counts), jaccard(counts)
        if overlaps.surfaces is not None:
            out[f"hd95_{name}"], out[f"surface_dice_{name}"] = overlaps.surfaces[:, index].T
        out[f"called_{name}"], out[f"true_{name}"], out[f"both_{name}"] = counts.T
    return out


def overlaps_of_table(table: pd.DataFrame, found: Marked, rows: np.ndarray) -> Overlaps:
    """What `mask_table` was made from.

    Args:
        table: With surfaces.
        found: The images.
        rows: Of the cohort, one for each line of the table.
    """
    classes = found.cohort.classes
    counts = [table[[f"called_{name}", f"true_{name}", f"both_{name}"]].to_numpy(np.int64) for name in classes]
    surfaces = [table[[f"hd95_{name}", f"surface_dice_{name}"]].to_numpy(np.float64) for name in classes]
    return Overlaps(
        counts=np.stack(counts, 1), surfaces=np.stack(surfaces, 1), groups=found.groups[rows], classes=classes
    )
