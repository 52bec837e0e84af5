"""Grouped nested cross-validation: every group is tested once, and each fold chooses its own cut."""

import collections
import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from medgraft.config import RunConfig
from medgraft.data.split import fold_splits
from medgraft.errors import RunError
from medgraft.evaluate.masks import mask_metrics, site_overlaps, summarise_masks
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import compare, metric_interval, site_metrics
from medgraft.files import read_json, write_json, write_table
from medgraft.listener import Listener
from medgraft.metrics.classification import metrics_of
from medgraft.report import write_report
from medgraft.report.measures import measure_of
from medgraft.run.judging import judged_name, table_name
from medgraft.run.judging_masks import marked, other_observers, overlaps_of_table
from medgraft.run.prepare import Prepared, preprocessing_of
from medgraft.types import Judged, Predictions

__all__ = ["fit_folds", "mean_of_known"]

_RANKING = ("auroc", "auprc")
# Baselines beside full fine-tuning, and where the results speak of them.
_FURTHER: Final = {"second": "second_baseline", "continued": "continued"}

RunSplit = Callable[[Path, Prepared], dict[str, Any]]


def fit_folds(config: RunConfig, folder: Path, found: Prepared, run_split: RunSplit, told: Listener) -> dict[str, Any]:
    """Run the job once per outer fold, pool the test predictions, and write one result for all.

    The saved model is that of the first fold; the figures are those of the procedure, not of that model.

    Args:
        config: With `data.folds` above 1.
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
            part = dataclasses.replace(
                found,
                cohort=cohort,
                preprocessing=preprocessing_of(found.source, found.decoded, found.rows[cohort.rows("train")]),
            )
            run_split(place, part)
        results.append(read_json(place / "results.json"))
    merged = _merged(config, folder, found, results)
    write_json(folder / "results.json", merged)
    write_report(folder)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return merged


def _merged(config: RunConfig, folder: Path, found: Prepared, results: list[dict[str, Any]]) -> dict[str, Any]:
    places = [folder / f"fold_{number}" for number in range(1, len(results) + 1)]
    pool = _pooled_test if found.masks is None else _pooled_masks
    pooled = pool(config, folder, places, found, results)
    picks = collections.Counter(r["chosen"]["cut"]["index"] for r in results)
    number = next(i for i, r in enumerate(results) if r["chosen"]["cut"]["index"] == picks.most_common(1)[0][0])
    typical = results[number]
    _merge_files(folder, places, results, typical=places[number])
    notes = [
        f"Nested cross-validation, {len(results)} folds by group; test figures are pooled over the folds.",
        "Cuts chosen per fold: " + ", ".join(r["chosen"]["cut"]["name"] for r in results) + ".",
        "The saved model is that of fold 1.",
        f"The table of the search is that of fold {number + 1}; in its figure the other folds are grey.",
        *_several_searches(results),
    ]
    return {
        **results[0],
        "ledger": {"openings": max(r["ledger"]["openings"] for r in results)},
        "chosen": typical["chosen"],
        "efficiency": typical["efficiency"],
        "plan": typical["plan"],
        "search": {**typical["search"], "fold": number + 1, **_cost_of_folds([r["search"] for r in results])},
        **pooled,
        "splits": results[0]["splits"] | {key: _tested(key, results) for key in ("groups", "counts", "images")},
        "late_gain": {
            role: mean_of_known([r.get("late_gain", {}).get(role) for r in results]) for role in ("chosen", "baseline")
        },
        "notes": [*found.cohort.notes, *notes],
        "folds": [{"fold": i} | _in_short(result) for i, result in enumerate(results, 1)],
    }


def _in_short(result: dict[str, Any]) -> dict[str, Any]:
    """What is shown of one fold."""
    metric = measure_of(result).test
    return {
        "cut": result["chosen"]["cut"],
        "num_params": result["efficiency"]["chosen"]["num_params"],
        "num_cases": result["test"]["num_cases"],
        metric: result["test"]["chosen"][metric],
        f"{metric}_baseline": result["test"]["baseline"][metric],
        "verdict": result["test"]["verdict"],
    }


def _tested(key: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """What all folds together tested, each case once; what trained and what chose differs from fold to fold."""
    parts = [result["splits"][key]["test"] for result in results]
    by_name = isinstance(parts[0], dict)
    return {"test": {name: sum(part[name] for part in parts) for name in parts[0]} if by_name else sum(parts)}


def _pooled_test(
    config: RunConfig, folder: Path, places: list[Path], found: Prepared, results: list[dict[str, Any]]
) -> dict[str, dict[str, Any] | None]:
    """What is said of the test cases of all folds, by its place in the results; their tables are written, too."""
    tables = _pooled_tables(folder, places)
    write_table(_concatenated(places, "predictions_val.csv"), folder / "predictions_val.csv")
    pooled = {role: _predictions(table, found) for role, table in tables.items()}
    chosen = pooled["chosen"]
    weights = bootstrap_weights(chosen, config.evaluate.replicates, config.seed)
    sites = found.cohort.sites(_rows(tables["chosen"], found))
    per_site = site_metrics(chosen, sites, num=config.evaluate.replicates, seed=config.seed) if any(sites) else None

    def summary(role: str) -> dict[str, Any]:
        return _summary(pooled[role], _of_folds(results, role), weights)

    test = {
        "chosen": summary("chosen"),
        "baseline": summary("baseline"),
        **compare(chosen, pooled["baseline"], config.evaluate.margin, weights, judged_name(config.transfer.strategy)),
        "margin": config.evaluate.margin,
        "replicates": config.evaluate.replicates,
        "num_cases": len(chosen.groups),
        "num_groups": len(np.unique(chosen.groups)),
        **({"sites": per_site} if per_site else {}),
    }
    return {"test": test, **_further(config, pooled, results, summary, weights)}


def _pooled_masks(
    config: RunConfig, folder: Path, places: list[Path], found: Prepared, results: list[dict[str, Any]]
) -> dict[str, dict[str, Any] | None]:
    """Likewise of masks; every image was tested once, so other observers are compared on all of them."""
    tables = _pooled_tables(folder, places)
    # The folds list their cases alike for every model.
    rows = _rows(tables["chosen"], found)
    pooled = {role: overlaps_of_table(table, marked(found), rows) for role, table in tables.items()}
    weights = bootstrap_weights(pooled["chosen"], config.evaluate.replicates, config.seed)

    def summary(role: str) -> dict[str, Any]:
        told: dict[str, Any] = summarise_masks(pooled[role], weights)
        for name in mask_metrics(pooled[role]):
            values = [part[name]["value"] for part in _of_folds(results, role)]
            told[name] |= {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
        return told

    name = judged_name(config.transfer.strategy)
    sites, draws = found.cohort.sites(rows), {"num": config.evaluate.replicates, "seed": config.seed}
    per_site = site_overlaps(pooled["chosen"], sites, **draws) if any(sites) else None
    test = {
        "chosen": summary("chosen"),
        "baseline": summary("baseline"),
        **compare(pooled["chosen"], pooled["baseline"], config.evaluate.margin, weights, name),
        "margin": config.evaluate.margin,
        "replicates": config.evaluate.replicates,
        "tolerance": config.evaluate.tolerance_mm,
        "unit": marked(found).unit,
        **other_observers(
            marked(found),
            rows,
            pooled["chosen"],
            tolerance=config.evaluate.tolerance_mm,
            replicates=config.evaluate.replicates,
            seed=config.seed,
        ),
        "num_cases": len(rows),
        "num_groups": len(np.unique(found.groups[rows])),
        **({"sites": per_site} if per_site else {}),
    }
    return {"test": test, **_further(config, pooled, results, summary, weights)}


def _further(
    config: RunConfig,
    pooled: Mapping[str, Judged],
    results: list[dict[str, Any]],
    summary: Callable[[str], dict[str, Any]],
    weights: np.ndarray,
) -> dict[str, dict[str, Any] | None]:
    """The further baselines on the test cases of all folds; None where there is none."""
    return {
        # The weights decide where it ends, alike in every fold; the rest of what a fold says is its own.
        place: {key: results[0][place][key] for key in ("cut", "num_params", "macs")}
        | summary(role)
        | compare(pooled["chosen"], pooled[role], config.evaluate.margin, weights)
        if role in pooled
        else None
        for role, place in _FURTHER.items()
    }


def _of_folds(results: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    """What each fold says of one model."""
    return [result[_FURTHER[role]] if role in _FURTHER else result["test"][role] for result in results]


def _pooled_tables(folder: Path, places: list[Path]) -> dict[str, pd.DataFrame]:
    """The test cases of all folds by model, as far as every fold has it; written for the whole, too."""
    tables = {}
    for role in ("chosen", "baseline", *_FURTHER):
        name = table_name(role)
        if all((place / name).is_file() for place in places):
            tables[role] = _concatenated(places, name)
            write_table(tables[role], folder / name)
    return tables


def _predictions(table: pd.DataFrame, found: Prepared) -> Predictions:
    cohort = found.cohort
    rows = _rows(table, found)
    return Predictions(
        probs=table[[f"prob_{name}" for name in cohort.classes]].to_numpy(np.float64),
        targets=cohort.targets[rows],
        groups=found.groups[rows],
        classes=cohort.classes,
        task=cohort.task,
        positive=cohort.classes.index(cohort.positive) if cohort.positive is not None else None,
        is_ordinal=cohort.is_ordinal,
    )


def _rows(table: pd.DataFrame, found: Prepared) -> np.ndarray:
    """Row of the cohort of each line of a table of predictions."""
    rows: np.ndarray = pd.Index(found.cohort.table["path"]).get_indexer(pd.Index(table["path"]))
    if (rows < 0).any():
        raise RunError(
            f"a fold tested {table['path'].iat[int(np.argmin(rows))]}, which the cohort lacks. Delete the run."
        )
    return rows


def _concatenated(places: Sequence[Path], name: str) -> pd.DataFrame:
    """A table of all folds; names that look like numbers stay names."""
    names = {"path": str, "patient": str, "label": str, "pred": str}
    return pd.concat([pd.read_csv(place / name, keep_default_na=False, dtype=names) for place in places])


def _summary(pooled: Predictions, folds: list[dict[str, Any]], weights: np.ndarray) -> dict[str, Any]:
    details: dict[str, Any] = {}
    for name, metric in metrics_of(pooled).items():
        values = [fold[name]["value"] if name in _RANKING else fold[name] for fold in folds]
        details[name] = {
            "value": metric(pooled),
            "ci95": list(metric_interval(pooled, name, weights)),
            "mean": float(np.mean(values)),
            "sd": float(np.std(values, ddof=1)),
        }
    plain = {name: found["value"] for name, found in details.items() if name not in _RANKING}
    return {**{name: details[name] for name in _RANKING}, **plain, "details": details}


def _several_searches(results: list[dict[str, Any]]) -> list[str]:
    """A rare class may forbid in one fold what others do."""
    methods = [r["search"]["method"] for r in results]
    return [f"Searches per fold: {', '.join(methods)}."] if len(set(methods)) > 1 else []


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Mean of those that are not None; None where there is none."""
    told = [value for value in values if value is not None]
    return float(np.mean(told)) if told else None


def _cost_of_folds(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Trials and seconds of all folds; in units of full fine-tuning, of which each fold has its own, their mean."""
    sums = {key: sum(cost[key] for cost in costs) for key in ("num_trials", "seconds", "baseline_seconds")}
    return sums | {key: float(np.mean([cost[key] for cost in costs])) for key in ("cost_in_ftl", "beyond_ftl")}


def _merge_files(folder: Path, places: list[Path], results: list[dict[str, Any]], *, typical: Path) -> None:
    for name in ("search.csv", "history.csv"):
        # The fold takes the place of the seed, so that curves show their spread over folds.
        tables = [pd.read_csv(place / name).assign(seed=i) for i, place in enumerate(places, 1)]
        write_table(pd.concat(tables), folder / name)
    if all((place / "signals.csv").exists() for place in places):
        signals = pd.concat([pd.read_csv(place / "signals.csv") for place in places])
        write_table(signals.groupby(["cut", "name"], as_index=False).mean(), folder / "signals.csv")
    shutil.copyfile(typical / "choice.json", folder / "choice.json")
    shutil.copyfile(places[0] / "audit.json", folder / "audit.json")
    write_table(
        pd.concat(
            [
                pd.read_csv(p / "splits.csv", dtype=str, keep_default_na=False).assign(fold=i)
                for i, p in enumerate(places, 1)
            ]
        ),
        folder / "splits.csv",
    )
    shutil.rmtree(folder / "model", ignore_errors=True)
    shutil.copytree(places[0] / "model", folder / "model")
    if (places[0] / "report_images").is_dir():
        shutil.copytree(places[0] / "report_images", folder / "report_images", dirs_exist_ok=True)
