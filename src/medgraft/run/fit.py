"""The main job: search the cut on validation, train, open the test once, hand back model and report."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from medgraft.config import RunConfig
from medgraft.data.split import write_splits
from medgraft.files import write_json
from medgraft.judge.plan import JudgePlan
from medgraft.judge.test import Tested, count_openings, open_test_set
from medgraft.listener import Listener
from medgraft.report import write_report
from medgraft.result import (
    AuditResult,
    BackboneFacts,
    Chosen,
    Ledger,
    RunResult,
    SplitFacts,
    cut_facts,
    mean_of_those_there,
    read_result,
    write_result,
)
from medgraft.run.budget import fit_budget
from medgraft.run.examples import write_examples
from medgraft.run.exploring import settled_search
from medgraft.run.folder import demand_same_data, log_event, open_run, run_id_of
from medgraft.run.folds import fit_folds
from medgraft.run.overlays import write_overlays
from medgraft.run.prepare import Prepared, digest_of, prepared
from medgraft.run.refusals import refuse_early
from medgraft.run.searching import Searched, search_cut
from medgraft.run.trials import engine_for, trial_context
from medgraft.search.trial import Trial, TrialContext, forget_weights
from medgraft.train.loop import late_gain
from medgraft.types import SPLITS, Cohort, Overlaps, Predictions, to_json
from medgraft.version import __version__, installed_versions

__all__ = ["fit"]


def fit(
    config: RunConfig, out: str | Path, *, listener: Listener | None = None, command: str | None = None
) -> RunResult:
    """The result of the main job, run into the folder `out`; it stands in `results.json` there, too.

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
            return read_result(folder)
        log_event(folder, "start", command=command or "", version=__version__)
        found = prepared(config, told)
        demand_same_data(folder, digest_of(found))
        if config.data.folds > 1:
            return fit_folds(
                config,
                _judge_plan(config),
                folder,
                found,
                lambda place, part: run_split(config, place, part, told, command),
                told,
            )
        return run_split(config, folder, found, told, command)


def run_split(config: RunConfig, folder: Path, found: Prepared, listener: Listener, command: str | None) -> RunResult:
    """The job on a prepared split: search, test, report."""
    digest = write_splits(found.cohort, found.groups, folder / "splits.csv")
    audit = _write_audit(folder, found)
    engine = engine_for(config, folder, found, listener)
    context = trial_context(folder, found, engine)
    config = fit_budget(settled_search(config, context, listener), folder, found, engine, listener)
    _say_source(found, listener)
    searched = search_cut(config, folder, found, context, listener)
    study = found.study
    openings = count_openings(study, run_id_of(folder), folder)
    log_event(folder, "test opened", openings=openings)
    listener.say(f"Opening the test set ({_cases_in_words(study.cohort)}); on this machine this is time {openings}.")
    tested = open_test_set(_judge_plan(config), folder, study, context, searched.by_role, listener)
    result = dataclasses.replace(
        _result(config, found, searched, tested, command),
        splits=_split_facts(found, digest),
        audit=audit,
        ledger=Ledger(openings=openings),
    )
    _write_pictures(config, folder, found, searched, context, tested)
    write_result(result, folder)
    write_report(folder)
    for trial in searched.trials:
        forget_weights(trial)
    shutil.rmtree(context.folder / "features", ignore_errors=True)
    log_event(folder, "done", verdict=result.test.comparison.verdict)
    return result


def _judge_plan(config: RunConfig) -> JudgePlan:
    settings = config.evaluate
    return JudgePlan(
        margin=settings.margin,
        replicates=settings.replicates,
        seed=config.seed,
        operating_point=settings.operating_point,
        tolerance=settings.tolerance_mm,
    )


def _write_pictures(
    config: RunConfig, folder: Path, found: Prepared, searched: Searched, context: TrialContext, tested: Tested
) -> None:
    shown = tested.judged["chosen"][0]
    if isinstance(shown, Overlaps):
        write_overlays(folder, found, searched, context, shown, is_wanted=config.evaluate.thumbnails)
    elif isinstance(shown, Predictions):
        write_examples(folder, found, shown, is_wanted=config.evaluate.thumbnails)


def _cases_in_words(cohort: Cohort) -> str:
    images, cases = len(cohort.rows("test")), len(cohort.case_rows("test"))
    return f"{images} {cohort.noun}" if images == cases else f"{cases} {cohort.case_noun} of {images} {cohort.noun}"


def _say_source(found: Prepared, listener: Listener) -> None:
    backbone = found.source.backbone
    report = backbone.report
    if report.source == "none":
        listener.say(f"Network {backbone.spec.name}: random weights, as asked.")
        return
    source = f"{report.source}#{report.key}" if report.key else report.source
    text = f"Network {backbone.spec.name}: {report.matched_fraction:.0%} of its trunk pretrained from {source}"
    if report.missing:
        last = report.last_pretrained_cut
        where = f"cut {last} {found.source.cuts[last - 1].name}" if last else "none"
        text += f"; missing: {', '.join(report.missing[:3])} … (last fully pretrained cut: {where})"
    listener.say(text + ".")


def _write_audit(folder: Path, found: Prepared) -> AuditResult:
    audit = found.audit
    result = AuditResult(
        counts={
            "images": audit.num_images,
            "unreadable": audit.num_broken,
            "exact_duplicate_sets": len(audit.exact_duplicates),
            "near_duplicate_pairs": len(audit.near_duplicates),
        },
        findings=audit.findings,
    )
    write_json(folder / "audit.json", {**to_json(result), "broken": to_json(found.decoded.broken)})
    return result


def _result(config: RunConfig, found: Prepared, searched: Searched, tested: Tested, command: str | None) -> RunResult:
    cohort, spec, backbone = found.cohort, searched.chosen.spec, found.source.backbone
    patches = {"patches": spec.train.patches.per_image} if spec.train.patches is not None else {}
    filled = {"lr": spec.lr, "batch_size": spec.train.batch_size, **patches}
    return RunResult(
        task=cohort.task,
        classes=cohort.classes,
        positive=cohort.positive,
        chosen=Chosen(
            strategy=spec.strategy,
            head=spec.head.kind,
            solver=spec.solver,
            settings=spec.settings,
            rule=searched.rule,
            init=_init(found, searched),
            cut=cut_facts(searched.chosen.cut),
        ),
        test=tested.test,
        efficiency=tested.efficiency,
        search=searched.cost,
        splits=_split_facts(found, ""),
        audit=AuditResult(),
        ledger=Ledger(openings=1),
        versions=installed_versions(),
        command=command or "",
        backbone=BackboneFacts(name=backbone.spec.name, lift=backbone.spec.lift, load_report=backbone.report),
        preprocessing=found.preprocessing,
        plan=searched.plan,
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        seed=config.seed,
        train=config.train.model_copy(update=filled),
        engine=searched.engine,
        late_gain={"chosen": _late_gain(searched.chosen_seeds), "baseline": _late_gain(searched.baseline_seeds)},
        notes=cohort.notes,
        noun=cohort.noun,
        case_noun=cohort.case_noun,
        patch=found.study.patch,
        is_phantom=cohort.is_phantom,
        second_baseline=tested.further.get("second"),
        continued=tested.further.get("continued"),
    )


def _split_facts(found: Prepared, digest: str) -> SplitFacts:
    cohort = found.cohort
    return SplitFacts(
        sha256=digest,
        groups={split: len(np.unique(found.groups[cohort.rows(split)])) for split in SPLITS},
        group_kind="patient" if cohort.table["patient"].notna().any() else cohort.case_noun,
        counts={split: _counts(cohort, split) for split in SPLITS},
        images={split: len(cohort.rows(split)) for split in SPLITS},
        are_leaks_dropped=len(found.given) > len(cohort) and found.audit.has_leaks,
    )


def _late_gain(trials: Sequence[Trial]) -> float | None:
    """Mean over seeds; None where nothing was trained by gradient, or for one epoch."""
    return mean_of_those_there([late_gain(trial.history) for trial in trials])


def _init(found: Prepared, searched: Searched) -> Literal["pretrained", "ftl", "none"]:
    is_random = found.source.backbone.report.source == "none" or searched.chosen.spec.strategy == "scratch"
    return "none" if is_random else "ftl" if searched.continued_seeds else "pretrained"


def _counts(cohort: Cohort, split: str) -> dict[str, int]:
    """Images of a split with each class; with masks those that show it."""
    targets = cohort.targets[cohort.rows(split)]
    per = (targets == 1).sum(0) if targets.ndim == 2 else np.bincount(targets, minlength=len(cohort.classes))
    return {name: int(count) for name, count in zip(cohort.classes, per, strict=True)}
