"""The one opening of a test set with masks: overlaps at the images' own size, intervals, verdict, other observers."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from medgraft.config import RunConfig
from medgraft.data.cache import DecodedCohort
from medgraft.data.identity import pseudonym
from medgraft.data.mask_cache import stored_spacing
from medgraft.data.masks import mask_of, observed
from medgraft.deploy.predict import write_table
from medgraft.deploy.segment import segment_image
from medgraft.errors import DataError
from medgraft.evaluate.bootstrap import paired_difference
from medgraft.evaluate.masks import cases_of, mask_metrics, site_overlaps, summarise_masks
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import compare
from medgraft.metrics.overlap import dice, jaccard, overlap_counts, surface_scores
from medgraft.run.judging import Tested, compare_with_baseline, say_opening, store_models, training_history
from medgraft.run.prepare import Listener, Prepared
from medgraft.run.searching import Searched
from medgraft.search.trial import Trial, TrialContext, load_trial_model
from medgraft.train.engine import Engine
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
    "segment_rows",
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
    for name, overlaps in (("predictions.csv", chosen[0]), ("predictions_baseline.csv", baseline[0])):
        write_table(mask_table(images, rows, overlaps), folder / name)
    write_table(training_history(searched.chosen_seeds, searched.baseline_seeds), folder / "history.csv")
    facts = {"tolerance_mm": config.evaluate.tolerance_mm}
    return Tested(
        summary=summary,
        efficiency=store_models(folder, found, context, searched, {"chosen": facts, "baseline": facts}),
        second_baseline=_beside(config, searched.second_seeds, judged, chosen, weights),
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
    summary = {
        "chosen": summarise_masks(chosen, weights),
        "baseline": summarise_masks(baseline, weights),
        **compare_with_baseline(searched, chosen, baseline, config.evaluate.margin, weights),
        "margin": config.evaluate.margin,
        "tolerance": config.evaluate.tolerance_mm,
        "unit": images.unit,
        "observers": other_observers(config, images, rows, chosen[0]),
        "num_cases": len(rows),
        "num_groups": len(np.unique(images.groups[rows])),
    }
    sites = images.cohort.sites(rows)
    if any(sites):
        summary["sites"] = site_overlaps(chosen[0], sites, num=config.evaluate.replicates, seed=config.seed)
    return summary


def _of_trial(config: RunConfig, found: Prepared, context: TrialContext, trial: Trial, told: Listener) -> Overlaps:
    model, _ = load_trial_model(trial, context)
    # Reported numbers come from float32, whatever precision trained: that is what the artefact computes.
    engine = Engine(device=context.engine.device, is_deterministic=context.engine.is_deterministic)
    rows = found.cohort.rows("test")
    images = marked(found)
    masks = segment_rows(model, images, rows, engine)
    label = f"{trial.spec.strategy} at cut {trial.cut.index} on the test set"
    return judge_masks(
        images, rows, masks, config.evaluate.tolerance_mm, lambda done: told.step(label, done, len(rows))
    )


def segment_rows(model: TransferModel, found: Marked, rows: np.ndarray, engine: Engine) -> Iterator[np.ndarray]:
    """Of each row the class numbers that `model` calls, at the size of the file.

    Args:
        model: On the CPU; moved to the device of `engine`.
        found: The images.
        rows: Of the cohort.
        engine: Device and arithmetic.
    """
    network = model.to(engine.device)
    for row in rows:
        cached = int(found.rows[row])
        yield segment_image(
            network,
            np.asarray(found.decoded.images[cached]),
            mask_of(found.cohort, int(row)).shape,
            found.preprocessing,
            found.patch,
            engine,
            stored_spacing(found.decoded, cached),
        )


def judge_masks(
    found: Marked,
    rows: np.ndarray,
    called: Iterator[np.ndarray],
    tolerance: float,
    on_case: Callable[[int], None] = lambda _done: None,
) -> Overlaps:
    """Overlap and surfaces of masks with the truth, at the size of the files.

    Args:
        found: The images.
        rows: Of the cohort.
        called: Class numbers of each row.
        tolerance: Of surface Dice, in the unit of `found`.
        on_case: Called with the number of cases done.
    """
    is_spaced = found.unit == "mm"
    counts, surfaces = [], []
    classes = range(1, len(found.cohort.classes) + 1)
    for number, (row, mask) in enumerate(zip(rows, called, strict=True)):
        truth = mask_of(found.cohort, int(row))
        spacing = stored_spacing(found.decoded, int(found.rows[row])) if is_spaced else (1.0,) * truth.ndim
        counts.append(overlap_counts(mask, truth, len(found.cohort.classes)))
        surfaces.append([surface_scores(mask == c, truth == c, spacing, tolerance) for c in classes])
        on_case(number + 1)
    return Overlaps(
        counts=np.stack(counts),
        surfaces=np.array(surfaces, dtype=np.float64),
        groups=found.groups[rows],
        classes=found.cohort.classes,
    )


def other_observers(config: RunConfig, found: Marked, rows: np.ndarray, chosen: Overlaps) -> dict[str, Any]:
    """Every other observer against the truth on the same cases, and the model less the observer.

    Args:
        config: Of the run.
        found: The images.
        rows: Of the cohort.
        chosen: What the model says of these rows.
    """
    told: dict[str, Any] = {}
    for name in found.cohort.observers:
        places = [place for place, row in enumerate(rows) if _other(found, name, int(row)) is not None]
        if len(places) < _FEWEST:
            continue
        kept = rows[places]
        masks = (mask for row in kept if (mask := _other(found, name, int(row))) is not None)
        human = judge_masks(found, kept, masks, config.evaluate.tolerance_mm)
        model = cases_of(chosen, np.array(places))
        weights = bootstrap_weights(human, config.evaluate.replicates, config.seed)
        differences = {metric: paired_difference(model, human, metric, weights) for metric in mask_metrics(human)}
        told[name] = {
            **summarise_masks(human, weights), "num_cases": len(kept), "model_less_observer": to_json(differences)
        }  # fmt: skip
    return told


def _other(found: Marked, observer: str, row: int) -> np.ndarray | None:
    """Another observer's mask, where there is one that can be compared."""
    try:
        mask = observed(found.cohort, observer, row)
    except DataError:
        return None  # said by the audit of that observer
    return mask if mask is not None and mask.shape == mask_of(found.cohort, row).shape else None


def _beside(
    config: RunConfig,
    trials: Sequence[Trial],
    judged: Callable[[Trial], Overlaps],
    chosen: Sequence[Overlaps],
    weights: np.ndarray,
) -> dict[str, Any] | None:
    """A further model on the same cases, and the chosen one against it; None where there is no such model."""
    if not trials:
        return None
    others, first = [judged(trial) for trial in trials], trials[0]
    return {
        "cut": {"index": first.cut.index, "name": first.cut.name},
        "num_params": first.num_params,
        "macs": first.macs,
        "epochs": len(first.history),
        **summarise_masks(others, weights),
        **compare(chosen, others, config.evaluate.margin, weights),
    }


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
