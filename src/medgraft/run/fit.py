"""The main job: search the cut on validation, train, open the test once, hand back model and report."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.config import RunConfig
from medgraft.data.split import write_splits
from medgraft.files import read_json, write_json
from medgraft.listener import Listener
from medgraft.report import write_report
from medgraft.run.budget import fit_budget
from medgraft.run.examples import write_examples
from medgraft.run.exploring import settled_search
from medgraft.run.folder import demand_same_data, log_event, open_run, run_id_of
from medgraft.run.folds import fit_folds, mean_of_known
from medgraft.run.judging import Tested, open_test_set
from medgraft.run.judging_masks import open_mask_test
from medgraft.run.overlays import write_overlays
from medgraft.run.prepare import Prepared, digest_of, prepared
from medgraft.run.refusals import refuse_early
from medgraft.run.searching import Searched, search_cut
from medgraft.run.trials import engine_for, trial_context
from medgraft.search.trial import Trial, TrialContext, forget_weights
from medgraft.train.loop import late_gain
from medgraft.types import Overlaps, to_json
from medgraft.version import __version__, installed_versions

__all__ = ["fit"]

SCHEMA: Final = 1


def fit(
    config: RunConfig, out: str | Path, *, listener: Listener | None = None, command: str | None = None
) -> dict[str, Any]:
    """Run the main job into the folder `out` and return what stands in its `results.json`.

    The same call continues an interrupted run; on a finished run it only reads the result back.

    Args:
        config: From `medgraft.config.make_config`.
        out: New, empty, or the folder of the same run.
        listener: Told how things go.
        command: As the user typed it, for the report.

    Raises:
        MedgraftError: Whatever is wrong with data, weights, options or the folder.
    """
    folder = Path(out)
    told = listener or Listener()
    refuse_early(config, "fit")
    with open_run(folder, config):
        if (folder / "results.json").is_file() and (folder / "report.html").is_file():
            told.say(f"{folder} holds the finished run.")
            results: dict[str, Any] = read_json(folder / "results.json")
            return results
        log_event(folder, "start", command=command or "", version=__version__)
        found = prepared(config, folder, told)
        demand_same_data(folder, digest_of(found))
        if config.data.folds > 1:
            return fit_folds(
                config, folder, found, lambda place, part: run_split(config, place, part, told, command), told
            )
        results = run_split(config, folder, found, told, command)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return results


def run_split(config: RunConfig, folder: Path, found: Prepared, told: Listener, command: str | None) -> dict[str, Any]:
    """The job on a prepared split: search, test, report."""
    digest = write_splits(found.cohort, found.groups, folder / "splits.csv")
    _write_audit(folder, found)
    engine = engine_for(config, folder, found, told)
    context = trial_context(folder, found, engine)
    config = fit_budget(settled_search(config, context, told), folder, found, engine, told)
    _say_source(found, told)
    searched = search_cut(config, folder, found, context, told)
    judge = open_test_set if found.masks is None else open_mask_test
    tested = judge(config, folder, found, context, searched, run_id_of(folder), told)
    results = _results(config, folder, found, searched, tested, digest, command)
    _write_pictures(config, folder, found, searched, context, tested)
    write_json(folder / "results.json", results)
    write_report(folder)
    for trial in searched.trials:
        forget_weights(trial)
    shutil.rmtree(context.folder / "features", ignore_errors=True)
    log_event(folder, "done", verdict=results["test"]["verdict"])
    return results


def _write_pictures(
    config: RunConfig, folder: Path, found: Prepared, searched: Searched, context: TrialContext, tested: Tested
) -> None:
    shown = tested.chosen[0]
    if isinstance(shown, Overlaps):
        write_overlays(folder, found, searched, context, shown, is_wanted=config.evaluate.thumbnails)
    else:
        write_examples(folder, found, shown, is_wanted=config.evaluate.thumbnails)


def _say_source(found: Prepared, told: Listener) -> None:
    backbone = found.source.backbone
    report = backbone.report
    if report.source == "none":
        told.say(f"Network {backbone.spec.name}: random weights, as asked.")
        return
    text = f"Network {backbone.spec.name}: {report.matched_fraction:.0%} of its trunk pretrained from {report.source}"
    if report.missing:
        last = report.last_pretrained_cut
        where = f"cut {last} {found.source.cuts[last - 1].name}" if last else "none"
        text += f"; missing: {', '.join(report.missing[:3])} … (last fully pretrained cut: {where})"
    told.say(text + ".")


def _write_audit(folder: Path, found: Prepared) -> None:
    audit = found.audit
    findings = [
        {**to_json(finding), "paths": list(finding.paths), "rows": list(finding.rows)} for finding in audit.findings
    ]
    counts = {
        "images": audit.num_images,
        "unreadable": audit.num_broken,
        "exact_duplicate_sets": len(audit.exact_duplicates),
        "near_duplicate_pairs": len(audit.near_duplicates),
    }
    broken = [to_json(image) for image in found.decoded.broken]
    write_json(folder / "audit.json", {"counts": counts, "findings": findings, "broken": broken})


def _results(
    config: RunConfig,
    folder: Path,
    found: Prepared,
    searched: Searched,
    tested: Tested,
    digest: str,
    command: str | None,
) -> dict[str, Any]:
    cohort, cut = found.cohort, searched.chosen.cut
    audit = read_json(folder / "audit.json")
    return {
        "schema": SCHEMA,
        "task": cohort.task,
        "classes": list(cohort.classes),
        "positive": cohort.positive,
        "chosen": {
            "strategy": searched.chosen.spec.strategy,
            "head": searched.chosen.spec.head.kind,
            "solver": searched.chosen.spec.solver,
            "settings": to_json(searched.chosen.spec.settings),
            "rule": read_json(folder / "choice.json")["rule"],
            "init": _init(found, searched),
            "cut": {"index": cut.index, "name": cut.name, "num_params": cut.num_params, "macs": cut.macs},
        },
        "test": tested.summary,
        "efficiency": tested.efficiency,
        "search": searched.cost,
        "splits": {
            "sha256": digest,
            "groups": {s: len(np.unique(found.groups[cohort.rows(s)])) for s in ("train", "val", "test")},
            "group_kind": "patient" if cohort.table["patient"].notna().any() else cohort.case_noun,
            "counts": _counts(found),
            "images": {split: len(cohort.rows(split)) for split in ("train", "val", "test")},
        },
        "audit": {"counts": audit["counts"], "findings": audit["findings"]},
        "ledger": {"openings": tested.openings},
        "versions": installed_versions(),
        "command": command or "",
        "backbone": {
            "name": found.source.backbone.spec.name,
            "lift": found.source.backbone.spec.lift,
            "load_report": to_json(found.source.backbone.report),
        },
        "preprocessing": to_json(found.preprocessing),
        "plan": to_json(searched.plan),
        "seeds": list(range(config.seed, config.seed + config.seeds)),
        "seed": config.seed,
        "train": {
            **config.train.model_dump(mode="json"),
            "lr": searched.chosen.spec.lr,
            "batch_size": searched.chosen.spec.train.batch_size,
            **({"patches": patches.per_image} if (patches := searched.chosen.spec.train.patches) is not None else {}),
        },
        "late_gain": {
            "chosen": _late_gain(searched.chosen_seeds),
            "baseline": _late_gain(searched.baseline_seeds),
        },
        "engine": to_json(searched.engine),
        "notes": list(cohort.notes),
        "noun": cohort.noun,
        "case_noun": cohort.case_noun,
        "patch": list(found.input_sides) if found.masks is not None else [],
        "is_phantom": (Path(config.data.source).parent / "phantom.json").is_file(),
        "second_baseline": tested.second_baseline,
        "continued": tested.continued,
    }


def _late_gain(trials: Sequence[Trial]) -> float | None:
    """Mean over seeds; None where nothing was trained by gradient, or for one epoch."""
    return mean_of_known([late_gain(trial.history) for trial in trials])


def _init(found: Prepared, searched: Searched) -> str:
    is_random = found.source.backbone.report.source == "none" or searched.chosen.spec.strategy == "scratch"
    return "none" if is_random else "ftl" if searched.continued_seeds else "pretrained"


def _counts(found: Prepared) -> dict[str, dict[str, int]]:
    cohort = found.cohort
    counts = {}
    for split in ("train", "val", "test"):
        targets = cohort.targets[cohort.rows(split)]
        # Of masks: images that show a class.
        per = (targets == 1).sum(0) if targets.ndim == 2 else np.bincount(targets, minlength=len(cohort.classes))
        counts[split] = {name: int(n) for name, n in zip(cohort.classes, per, strict=True)}
    return counts
