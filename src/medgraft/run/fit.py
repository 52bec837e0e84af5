"""The main job: search the cut on validation, train, open the test once, hand back model and report."""

import dataclasses
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medgraft.as_json import to_json
from medgraft.backbones.load_report import LoadReport
from medgraft.config import RunConfig, TrainConfig
from medgraft.data.split import write_splits
from medgraft.files import write_json, write_table
from medgraft.judge.pictures import write_pictures
from medgraft.judge.test import Tested, open_test_set
from medgraft.listener import Listener
from medgraft.prepare.material import Material
from medgraft.report import write_report
from medgraft.result.run import (
    AuditCounts,
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
from medgraft.run.folds import fit_folds
from medgraft.search.executor import Executor, open_executor
from medgraft.search.outcome import Searched, search_cut
from medgraft.search.plan import Recipe
from medgraft.search.tables import signal_table, trial_table
from medgraft.search.trainer import Trainer
from medgraft.search.trial import Trial, TrialContext, forget_weights
from medgraft.setup.begin import as_begun, begin
from medgraft.setup.folder import log_event, open_run
from medgraft.setup.opening import note_opening
from medgraft.setup.plan import RunPlan, context_of, judge_plan, material_of, on_this_machine, plan_run
from medgraft.setup.refusals import refuse_early
from medgraft.sources.layouts.published import layout_words
from medgraft.train.loop import late_gain
from medgraft.transfer.source import Source
from medgraft.types import SPLITS, Cohort
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
    listener = listener or Listener()
    config = as_begun(folder, config)
    refuse_early(config, "fit")
    with open_run(folder, config), open_executor(config.executor) as executor:
        if (folder / "results.json").is_file() and (folder / "report.html").is_file():
            listener.say(f"{folder} holds the finished run.")
            return read_result(folder)
        log_event(folder, "start", command=command or "", version=__version__)
        material = material_of(config, listener)
        config = begin(folder, config, material)
        job = functools.partial(fit_split, config, executor, command, listener)
        if config.data.folds > 1:
            return fit_folds(judge_plan(config), config.data.folds, folder, material, job, listener)
        return job(folder, material)


def fit_split(
    config: RunConfig, executor: Executor, command: str | None, listener: Listener, folder: Path, material: Material
) -> RunResult:
    """The result of the main job on one division: search, test, report.

    Args:
        config: Settings of the run.
        executor: Where trainings are computed.
        command: As the user typed it.
        listener: Told how things go.
        folder: The run's folder, or that of one of its folds.
        material: Divided.
    """
    dataset = material.dataset
    digest = write_splits(dataset.cohort, dataset.groups, folder / "splits.csv")
    audit = _write_audit(folder, material)
    plan, engine = on_this_machine(config, plan_run(config, material, listener), material, folder, listener)
    _say_source(material.source, listener)
    context = context_of(material, engine, folder)
    searched = search_cut(plan.search, _trainer(plan, context, executor, folder, listener))
    write_json(folder / "choice.json", searched.explored.choice)
    if searched.explored.signals:
        write_table(signal_table(searched.explored.signals, material.source.cuts), folder / "signals.csv")
    openings = note_opening(dataset, folder, listener)
    tested = open_test_set(plan.judge, folder, dataset, context, searched.by_role, listener)
    result = dataclasses.replace(
        _result(config.train, plan, material, searched, tested),
        splits=_split_facts(material, digest),
        audit=audit,
        ledger=Ledger(openings=openings),
        command=command or "",
    )
    if config.evaluate.thumbnails:
        write_pictures(folder, material, searched.chosen, context, tested.judged["chosen"][0])
    write_result(result, folder)
    write_report(folder)
    for trial in searched.trials:
        forget_weights(trial)
    shutil.rmtree(context.folder / "features", ignore_errors=True)
    log_event(folder, "done", verdict=result.test.comparison.verdict)
    return result


def _trainer(plan: RunPlan, context: TrialContext, executor: Executor, folder: Path, listener: Listener) -> Trainer:
    """A trainer that writes every new trial down in the run folder.

    Args:
        plan: Tells whether a depth is searched.
        context: Where trials run.
        executor: Where trainings are computed.
        folder: The run's folder.
        listener: Told how things go.
    """
    written: list[tuple[Trial, str]] = []

    def write(trial: Trial, role: str) -> None:
        written.append((trial, role))
        scores = {f"val_{name}": value for name, value in trial.scores.items()}
        log_event(folder, "trial", role=role, cut=trial.cut.index, seed=trial.spec.seed, **scores)
        write_table(trial_table(written), folder / "search.csv")

    return Trainer(context, listener, executor=executor, on_trial=write, is_detailed=not plan.search.is_searched)


def _say_source(source: Source, listener: Listener) -> None:
    backbone = source.backbone
    report = backbone.report
    if report.source == "none":
        listener.say(f"Network {backbone.spec.name}: random weights, as asked.")
        return
    text = f"Network {backbone.spec.name}: {report.matched_fraction:.0%} of its trunk pretrained from {_origin(report)}"
    if report.missing:
        last = report.last_pretrained_cut
        where = f"cut {last} {source.cuts[last - 1].name}" if last else "none"
        text += f"; missing: {', '.join(report.missing[:3])} … (last fully pretrained cut: {where})"
    text += f"; licence {report.licence}" if report.licence else ""
    listener.say(" ".join(part for part in (f"{text}.", report.proof, report.hint) if part))


def _origin(report: LoadReport) -> str:
    """Where weights came from: the file, the network in it, whose layout that is, and which published source."""
    origin = f"{report.source}#{report.key}" if report.key else report.source
    layout = layout_words(report.layout)
    facts = [
        " → ".join(step.name for step in report.lineage) if len(report.lineage) > 1 else "",
        layout,
        " or ".join(report.names) if report.names != (report.source,) else "",
        f"{len(report.dropped)} tensors of heads left out" if report.dropped else "",
        # In a layout that is known nothing else should be left.
        f"not understood: {', '.join(report.unexpected[:3])}" if report.unexpected and layout else "",
        f"beside it {', '.join(report.other_networks)}" if report.other_networks else "",
    ]
    told = "; ".join(fact for fact in facts if fact)
    return f"{origin} ({told})" if told else origin


def _write_audit(folder: Path, material: Material) -> AuditResult:
    audit = material.audit
    result = AuditResult(
        counts=AuditCounts(
            images=audit.num_images,
            unreadable=audit.num_broken,
            exact_duplicate_sets=len(audit.exact_duplicates),
            near_duplicate_pairs=len(audit.near_duplicates),
        ),
        findings=audit.findings,
    )
    write_json(folder / "audit.json", {**to_json(result), "broken": to_json(material.dataset.decoded.broken)})
    return result


def _result(train: TrainConfig, plan: RunPlan, material: Material, searched: Searched, tested: Tested) -> RunResult:
    """The result of a run; the caller fills in splits, audit, ledger and command.

    Args:
        train: Settings of the trainings.
        plan: Plan of the run.
        material: Material of the run.
        searched: What the search settled.
        tested: What the test set said.
    """
    dataset, backbone, cohort = material.dataset, material.source.backbone, material.dataset.cohort
    return RunResult(
        task=cohort.task,
        classes=cohort.classes,
        positive=cohort.positive,
        chosen=_chosen(material.source, searched),
        test=tested.test,
        efficiency=tested.efficiency,
        search=searched.cost,
        splits=_split_facts(material, ""),
        audit=AuditResult(),
        ledger=Ledger(openings=1),
        versions=installed_versions(),
        command="",
        backbone=BackboneFacts(name=backbone.spec.name, lift=backbone.spec.lift, load_report=backbone.report),
        preprocessing=dataset.preprocessing,
        plan=searched.plan,
        seeds=plan.search.seeds,
        seed=plan.search.seed,
        train=_filled(train, plan.search.recipe),
        engine=searched.engine,
        late_gain={"chosen": _late_gain(searched.chosen_seeds), "baseline": _late_gain(searched.baseline_seeds)},
        notes=cohort.notes,
        noun=cohort.noun,
        case_noun=cohort.case_noun,
        patch=dataset.patch,
        is_phantom=cohort.is_phantom,
        second_baseline=tested.further.get("second"),
        continued=tested.further.get("continued"),
    )


def _chosen(source: Source, searched: Searched) -> Chosen:
    spec = searched.chosen.spec
    return Chosen(
        strategy=spec.strategy,
        head=spec.head.kind,
        solver=spec.solver,
        settings=spec.settings,
        rule=searched.explored.choice.rule,
        init=_init(source, searched),
        cut=cut_facts(searched.chosen.cut),
        is_solved=spec.is_solved,
    )


def _filled(train: TrainConfig, recipe: Recipe) -> TrainConfig:
    """The settings of a training with what they leave open, and with the epochs that a time budget left."""
    settings = recipe.train
    update: dict[str, Any] = {"lr": recipe.lr, "batch_size": settings.batch_size, "epochs": settings.epochs}
    if settings.patches is not None:
        update["patches"] = settings.patches.per_image
    return train.model_copy(update=update)


def _split_facts(material: Material, digest: str) -> SplitFacts:
    cohort, groups = material.dataset.cohort, material.dataset.groups
    is_known = cohort.table["patient"].notna()
    return SplitFacts(
        sha256=digest,
        groups={split: len(np.unique(groups[cohort.rows(split)])) for split in SPLITS},
        group_kind="patient" if is_known.any() else cohort.case_noun,
        counts={split: _counts(cohort, cohort.rows(split)) for split in SPLITS},
        images={split: len(cohort.rows(split)) for split in SPLITS},
        tested=_counts(cohort, cohort.case_rows("test")),
        without_patient=int((~is_known).sum()) if is_known.any() else 0,
        are_leaks_dropped=material.are_leaks_dropped,
    )


def _late_gain(trials: Sequence[Trial]) -> float | None:
    """Mean late gain over seeds; None where nothing was trained by gradient, or for one epoch."""
    return mean_of_those_there([late_gain(trial.history) for trial in trials])


def _init(source: Source, searched: Searched) -> Literal["pretrained", "ftl", "none"]:
    is_random = source.backbone.report.source == "none" or searched.chosen.spec.strategy == "scratch"
    return "none" if is_random else "ftl" if searched.continued_seeds else "pretrained"


def _counts(cohort: Cohort, rows: np.ndarray) -> dict[str, int]:
    """How many of some rows have each class; with masks how many show it."""
    targets = cohort.targets[rows]
    per = (targets == 1).sum(0) if targets.ndim == 2 else np.bincount(targets, minlength=len(cohort.classes))
    return {name: int(count) for name, count in zip(cohort.classes, per, strict=True)}
