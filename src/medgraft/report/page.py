"""The HTML report and the model card: collect, render, write whole or not at all."""

from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from medgraft.evaluate.intervals import FEWEST_TRAININGS
from medgraft.evaluate.over_seeds import USUAL_SD
from medgraft.files import write_text
from medgraft.metrics.classification import confusion
from medgraft.report import formatting as fmt
from medgraft.report import tables
from medgraft.report.analysis_figures import (
    change_figure,
    curves_figure,
    distance_figure,
    gain_figure,
    heat_figure,
    other_figure,
    reuse_figure,
)
from medgraft.report.caveats import find_caveats
from medgraft.report.checklist import GUIDELINES, checklist
from medgraft.report.curves import MAX_NAMED_CLASSES, confusion_figure, ranking_figure, reliability_figure
from medgraft.report.environment import environment
from medgraft.report.figures import answer_figure, history_figure, plan_figure
from medgraft.report.mask_figures import cases_figure
from medgraft.report.prose import citation, decision_sentence, methods, with_minus
from medgraft.report.run_files import RunFiles, image_data_uri, read_predictions, read_run, was_searched
from medgraft.report.search_figure import cut_figure
from medgraft.report.words import SURFACE_UNITS, chosen_name, depth_sentence
from medgraft.result.analysis import AnalysisResult
from medgraft.result.pictures import ExamplePicture, OverlayPicture
from medgraft.result.run import AuditResult, RunResult, SearchCost
from medgraft.search.rule import Choice
from medgraft.types import Predictions, kind_of

__all__ = ["write_model_card", "write_report"]

MAX_EXAMPLES: Final = 12
MAX_PAIRS: Final = 12
MAX_PATHS: Final = 5
VERDICT_TONES: Final = {"better": "good", "non-inferior": "good", "worse": "bad", "inconclusive": "open"}


def write_report(run: Path) -> Path:
    """The path of ``report.html``, written into the run folder beside ``MODEL_CARD.md``.

    Both are made from the run folder alone; the page needs no network and runs no script.

    Args:
        run: The folder that `medgraft fit` wrote.

    Raises:
        RunError: The folder holds no finished run, a file in it is broken, or it cannot be written to.
    """
    files = read_run(run)
    page = environment(is_html=True).get_template("report.html.j2").render(**_context(files), **_figures(files))
    write_text(run / "MODEL_CARD.md", _model_card(files))
    return write_text(run / "report.html", page)


def write_model_card(run: Path) -> Path:
    """The path of ``MODEL_CARD.md``, written into the run folder.

    Args:
        run: The folder that `medgraft fit` wrote.

    Raises:
        RunError: The folder holds no finished run, a file in it is broken, or it cannot be written to.

    References:
        Mitchell et al., Model cards for model reporting, FAT*, 2019.
    """
    return write_text(run / "MODEL_CARD.md", _model_card(read_run(run)))


def _model_card(run: RunFiles) -> str:
    return environment(is_html=False).get_template("model_card.md.j2").render(**_context(run))


def _context(run: RunFiles) -> dict[str, Any]:
    result = run.result
    paragraphs, references = methods(run)
    test = result.test
    return {
        **_answer(run),
        "caveats": find_caveats(run),
        **_analysed(run.analysis),
        "cuts": tables.cut_rows(run) if was_searched(run) else [],
        "tolerance": fmt.number(run.choice.tolerance if run.choice else None),
        "sure": fmt.number(run.choice.sure, 2) if run.choice and run.choice.sure is not None else "",
        "chosen_probability": _chosen_probability(run.choice),
        "search_cost": _search_cost(result.search) if was_searched(run) else "",
        "metrics": tables.metric_rows(result),
        "class_rows": tables.class_rows(result),
        "class_columns": tables.class_columns(result),
        "observers": tables.observer_rows(result),
        "observer_columns": tables.observer_columns(),
        "mask_unit": SURFACE_UNITS.get(test.reference.unit, ""),
        "tolerance_of_surfaces": fmt.number(test.reference.tolerance, 1),
        "has_second": result.second_baseline is not None,
        "has_continued": result.continued is not None,
        "second_cut": result.second_baseline.cut.name if result.second_baseline else "",
        "folds": tables.fold_rows(result),
        "sites": tables.site_rows(result),
        "site_columns": tables.site_columns(result),
        "points": tables.operating_rows(result),
        "point_rule": test.chosen.rule,
        "plan": tables.plan_rows(result.plan.blocks),
        "load_report": tables.load_report_rows(result.backbone.load_report),
        "counts": tables.case_counts(result),
        "findings": _findings(result.audit),
        "reproduction": tables.reproduction_rows(result),
        "command": result.command,
        "notes": result.notes,
        "methods": paragraphs,
        "references": references,
        "checklist": checklist(run),
        "guidelines": GUIDELINES,
        "citation": citation(result.versions),
    }


def _analysed(analysis: AnalysisResult | None) -> dict[str, Any]:
    """What `medgraft analyze` adds; empty parts where it was not called."""
    return {
        "reuse": tables.reuse_rows(analysis) if analysis else [],
        "num_compared": analysis.num_images if analysis else 0,
        "decision": decision_sentence(analysis),
        "distances": tables.distance_rows(analysis) if analysis else [],
        "source": analysis.distance.source if analysis and analysis.distance else "",
        "other_run": analysis.other.run if analysis and analysis.other else "",
    }


def _answer(run: RunFiles) -> dict[str, Any]:
    result, test = run.result, run.result.test
    numbers = with_minus(test.comparison.numbers)
    main, baseline = (model.scores[run.measure.judges] for model in (test.chosen, test.baseline))
    return {
        "name": result.backbone.name,
        "classes": run.classes,
        "task": result.task,
        "positive": result.positive,
        "is_phantom": result.is_phantom,
        "noun": result.noun,
        "case_noun": result.case_noun,
        "strategy": chosen_name(result.chosen),
        "rule": result.chosen.rule if was_searched(run) else "",
        "is_truncated": result.chosen.strategy == "ttl",
        "depth": depth_sentence(result.chosen, is_searched=was_searched(run)),
        "verdict": test.comparison.verdict,
        "tone": VERDICT_TONES[test.comparison.verdict],
        "sentence": with_minus(test.comparison.sentence),
        "headline": f"{with_minus(test.comparison.headline)}.",
        "numbers": f"{numbers[:1].upper()}{numbers[1:]}." if numbers else "",
        "has_seeds": len(result.seeds) > 1,
        "fewest_trainings": FEWEST_TRAININGS,
        "usual_sd": USUAL_SD,
        "test_size": _test_size(result),
        "main": {
            "value": fmt.number(main),
            "interval": fmt.interval(main),
            "baseline": fmt.with_interval(baseline),
        },
        "measure_name": run.measure.judges_name,
        "choosing_name": run.measure.chooses_name,
        "costs": tables.headline(result),
    }


def _chosen_probability(choice: Choice | None) -> str:
    """How likely the chosen cut loses at most the tolerance; empty where nobody asked."""
    found = [one.probability for one in choice.candidates if one.cut == choice.chosen] if choice else []
    return fmt.number(found[0], 2) if found and found[0] is not None else ""


def _figures(run: RunFiles) -> dict[str, Any]:
    measure, test = run.measure, run.result.test
    is_labels = kind_of(run.result.task) == "labels"
    chosen, baseline = (read_predictions(run, role) if is_labels else None for role in ("test", "baseline"))
    drawn = {
        "answer_svg": answer_figure(
            test.chosen.scores[measure.judges],
            test.baseline.scores[measure.judges],
            test.comparison.difference[measure.judges],
            margin=test.margin,
            names=(f"chosen: {chosen_name(run.result.chosen)}", "full fine-tuning"),
            metric=measure.judges_name,
        ),
        "cut_svg": cut_figure(run.search, run.choice, signals=run.signals, measure=measure, fold=run.result.search.fold)
        if run.search is not None and was_searched(run)
        else "",
        "ranking_svg": ranking_figure(chosen, baseline) if chosen is not None else "",
        "reliability_svg": reliability_figure(chosen, baseline) if chosen is not None else "",
        "confusion_svg": _confusions(chosen, baseline),
        "history_svg": history_figure(run.history, measure) if run.history is not None and len(run.history) else "",
        "plan_svg": plan_figure(run.result.plan.blocks),
        "cases_svg": "" if is_labels else _cases(run),
    }
    if run.analysis is not None:
        drawn |= _reuse(run, run.analysis)
    return {
        **{key: Markup(svg) for key, svg in drawn.items()},
        "is_solved": run.result.chosen.is_solved,
        "has_named_curves": len(run.classes) <= MAX_NAMED_CLASSES,
        "label_counts": _label_counts(run, chosen),
        **_pictures(run),
    }


def _label_counts(run: RunFiles, chosen: Predictions | None) -> list[tuple[Any, ...]]:
    if chosen is None or chosen.task != "multilabel":
        return []
    return [(name, *counts.ravel().tolist()) for name, counts in zip(run.classes, confusion(chosen), strict=True)]


def _reuse(run: RunFiles, analysis: AnalysisResult) -> dict[str, str]:
    scores = {candidate.cut: candidate.score for candidate in run.choice.candidates} if run.choice else {}
    return {
        "reuse_svg": reuse_figure(analysis, scores),
        "curves_svg": curves_figure(analysis),
        "heat_svg": heat_figure(analysis),
        "change_svg": change_figure(analysis),
        "gain_svg": gain_figure(analysis.gain) if analysis.gain else "",
        "points_svg": distance_figure(analysis.points) if analysis.points else "",
        "other_svg": other_figure(analysis.other, analysis.cuts) if analysis.other else "",
    }


def _confusions(chosen: Predictions | None, baseline: Predictions | None) -> str:
    pairs = ((chosen, "Confusion, chosen"), (baseline, "Confusion, full fine-tuning"))
    return "".join(
        confusion_figure(pred, title=title) for pred, title in pairs if pred is not None and pred.task != "multilabel"
    )


def _cases(run: RunFiles) -> str:
    table = run.predictions.get("test")
    return cases_figure(table, run.predictions.get("baseline"), run.classes) if table is not None else ""


def _pictures(run: RunFiles) -> dict[str, Any]:
    if run.images is None:
        return {
            "has_pictures": False,
            "pairs": [],
            "scales": [],
            "hits": [],
            "misses": [],
            "overlays": [],
            "num_pairs": 0,
        }
    pictures = run.images
    return {
        "has_pictures": True,
        "num_pairs": len(pictures.duplicates),
        "pairs": [
            {
                "a": image_data_uri(run.root, pair.a),
                "b": image_data_uri(run.root, pair.b),
                "a_path": pair.a_path,
                "b_path": pair.b_path,
                "kind": pair.kind,
                "similarity": fmt.number(pair.similarity),
            }
            for pair in pictures.duplicates[:MAX_PAIRS]
        ],
        "scales": [
            {"image": image_data_uri(run.root, shown.image), "path": shown.path, "is_apart": shown.is_apart}
            for shown in pictures.scales
        ],
        "overlays": [_overlay(run, shown) for shown in pictures.overlays],
        "hits": [_example(run, shown) for shown in pictures.hits[:MAX_EXAMPLES]],
        "misses": [_example(run, shown) for shown in pictures.misses[:MAX_EXAMPLES]],
    }


def _example(run: RunFiles, shown: ExamplePicture) -> dict[str, str]:
    return {
        "image": image_data_uri(run.root, shown.image),
        "path": shown.path,
        "label": shown.label,
        "pred": shown.pred,
        "prob": fmt.number(shown.prob, 2),
    }


def _overlay(run: RunFiles, shown: OverlayPicture) -> dict[str, str]:
    return {
        "kind": shown.kind,
        "path": shown.path,
        "dice": fmt.number(shown.dice),
        "image": image_data_uri(run.root, shown.image),
        "overlay": image_data_uri(run.root, shown.overlay),
    }


def _findings(audit: AuditResult) -> list[dict[str, Any]]:
    return [
        {
            "kind": finding.kind,
            "severity": finding.severity,
            "message": finding.message,
            "paths": finding.paths[:MAX_PATHS],
            "num_more": max(0, len(finding.paths) - MAX_PATHS),
        }
        for finding in audit.findings
    ]


def _test_size(result: RunResult) -> str:
    cases, groups = result.test.num_cases, result.test.num_groups
    images = f"{fmt.integer(cases)} test {result.case_noun}"
    return f"{images} from {fmt.integer(groups)} patients or groups" if groups != cases else images


def _search_cost(cost: SearchCost) -> str:
    alone = f"full fine-tuning alone: {fmt.duration(cost.baseline_seconds)}"
    return (
        f"{fmt.integer(cost.num_trials)} trials, {fmt.duration(cost.seconds)} ({alone}), "
        f"{fmt.number(cost.cost_in_ftl, 1)} × the training computation of one full fine-tuning "
        f"({fmt.number(cost.beyond_ftl, 2)} beyond the full fine-tuning itself)"
    )
