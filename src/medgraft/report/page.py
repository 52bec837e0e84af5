"""The HTML report and the model card: collect, render, write whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

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
from medgraft.report.caveats import find_caveats, is_phantom
from medgraft.report.checklist import GUIDELINES, checklist
from medgraft.report.curves import MAX_NAMED_CLASSES, confusion_figure, ranking_figure, reliability_figure
from medgraft.report.figures import answer_figure, history_figure, plan_figure
from medgraft.report.mask_figures import cases_figure
from medgraft.report.measures import LABELS, measure_of
from medgraft.report.prose import citation, decision_sentence, methods, summary_sentence
from medgraft.report.reading import RunFiles, image_data_uri, look_up, read_predictions, read_run, was_searched
from medgraft.report.rendering import environment
from medgraft.report.search_figure import USUAL_TOLERANCE, cut_figure
from medgraft.report.wording import chosen_name, depth_sentence
from medgraft.types import Predictions

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
    results = run.results
    paragraphs, references = methods(run)
    return {
        **_answer(run),
        "caveats": find_caveats(run),
        "reuse": tables.reuse_rows(run.analysis) if run.analysis else [],
        "num_compared": look_up(run.analysis, "num_images", 0),
        "decision": decision_sentence(run.analysis or {}),
        "distances": tables.distance_rows(run.analysis or {}),
        "source": look_up(run.analysis, "distance.source", ""),
        "other_run": look_up(run.analysis, "other.run", ""),
        "cuts": tables.cut_rows(run) if was_searched(run) else [],
        "tolerance": fmt.number((run.choice or {}).get("tolerance", USUAL_TOLERANCE)),
        "search_cost": _search_cost(run) if was_searched(run) else "",
        "metrics": tables.metric_rows(run),
        "class_rows": tables.class_rows(run),
        "observers": tables.observer_rows(run),
        "mask_unit": look_up(results, "test.unit", ""),
        "tolerance_of_surfaces": fmt.number(look_up(results, "test.tolerance"), 1),
        "has_second": bool(results.get("second_baseline")),
        "has_continued": bool(results.get("continued")),
        "second_cut": look_up(results, "second_baseline.cut.name", ""),
        "folds": tables.fold_rows(run),
        "sites": tables.site_rows(run),
        "site_columns": [{key: name for key, name, _ in tables.METRICS}[key] for key in tables.site_columns(run)],
        "points": tables.operating_rows(run),
        "point_rule": str(look_up(results, "test.chosen.operating_point.rule", "")),
        "plan": tables.plan_rows(look_up(results, "plan.blocks", [])),
        "load_report": tables.load_report_rows(look_up(results, "backbone.load_report", {})),
        "counts": tables.case_counts(run),
        "findings": _findings(run),
        "reproduction": tables.reproduction_rows(run),
        "command": str(results.get("command") or ""),
        "notes": [str(note) for note in results.get("notes") or ()],
        "methods": paragraphs,
        "references": references,
        "checklist": checklist(run),
        "guidelines": GUIDELINES,
        "citation": citation(run.results),
    }


def _answer(run: RunFiles) -> dict[str, Any]:
    results = run.results
    verdict = look_up(results, "test.verdict", "")
    sentence = summary_sentence(run)
    headline, _, numbers = sentence.partition(": ")
    chosen = look_up(results, "chosen", {})
    return {
        "name": look_up(results, "backbone.name", "network"),
        "classes": run.classes,
        "task": results.get("task", ""),
        "positive": results.get("positive"),
        "is_phantom": is_phantom(run),
        "noun": run.noun,
        "case_noun": run.case_noun,
        "strategy": chosen_name(chosen),
        "rule": chosen.get("rule", "") if was_searched(run) else "",
        "is_truncated": chosen.get("strategy") == "ttl",
        "depth": depth_sentence(chosen, is_searched=was_searched(run)),
        "verdict": verdict,
        "tone": VERDICT_TONES.get(verdict, "open"),
        "sentence": sentence,
        "headline": headline.removesuffix(".") + ".",
        "numbers": numbers[:1].upper() + numbers[1:],
        "has_seeds": len(results.get("seeds") or ()) > 1,
        "test_size": _test_size(run),
        "main": _big_metric(run, measure_of(results).test),
        "measure": measure_of(results),
        "costs": tables.headline(run),
    }


def _figures(run: RunFiles) -> dict[str, Any]:
    measure = measure_of(run.results)
    is_labels = measure is LABELS
    chosen, baseline = (read_predictions(run, role) if is_labels else None for role in ("test", "baseline"))
    test = look_up(run.results, "test", {})
    blocks = look_up(run.results, "plan.blocks", [])
    difference = look_up(test, f"difference.{measure.test}", {})
    fold = look_up(run.results, "search.fold")
    names = (f"chosen: {chosen_name(look_up(run.results, 'chosen', {})) or 'model'}", "full fine-tuning")
    drawn = {
        "answer_svg": answer_figure(
            look_up(test, f"chosen.{measure.test}", {}),
            look_up(test, f"baseline.{measure.test}", {}),
            difference,
            margin=fmt.value_of(test.get("margin")),
            names=names,
            metric=measure.test_name,
        )
        if difference
        else "",
        "cut_svg": cut_figure(run.search, run.choice, signals=run.signals, measure=measure, fold=fold)
        if run.search is not None and was_searched(run)
        else "",
        "ranking_svg": ranking_figure(chosen, baseline) if chosen is not None else "",
        "reliability_svg": reliability_figure(chosen, baseline) if chosen is not None else "",
        "confusion_svg": _confusions(chosen, baseline),
        "history_svg": history_figure(run.history, measure) if run.history is not None and len(run.history) else "",
        "plan_svg": plan_figure(blocks) if blocks else "",
        "cases_svg": _cases(run) if not is_labels else "",
    }
    if run.analysis is not None:
        drawn |= _reuse(run, run.analysis)
    return {
        **{key: Markup(svg) for key, svg in drawn.items()},
        "is_solved": run.history is not None and "chosen" not in set(run.history["role"]),
        "has_named_curves": len(run.classes) <= MAX_NAMED_CLASSES,
        "label_counts": _label_counts(run, chosen),
        **_pictures(run),
    }


def _label_counts(run: RunFiles, chosen: Predictions | None) -> list[tuple[Any, ...]]:
    if chosen is None or chosen.task != "multilabel":
        return []
    return [(name, *counts.ravel().tolist()) for name, counts in zip(run.classes, confusion(chosen), strict=True)]


def _reuse(run: RunFiles, analysis: Mapping[str, Any]) -> dict[str, str]:
    scores = {candidate["cut"]: candidate["score"] for candidate in (run.choice or {}).get("candidates") or ()}
    return {
        "reuse_svg": reuse_figure(analysis, scores),
        "curves_svg": curves_figure(analysis),
        "heat_svg": heat_figure(analysis),
        "change_svg": change_figure(analysis),
        "gain_svg": gain_figure(analysis["gain"]) if "gain" in analysis else "",
        "points_svg": distance_figure(analysis["points"]) if "points" in analysis else "",
        "other_svg": other_figure(analysis["other"], analysis["cuts"]) if "other" in analysis else "",
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
        return {"has_pictures": False, "pairs": [], "hits": [], "misses": [], "overlays": [], "num_pairs": 0}
    pairs = list(run.images.get("duplicates") or ())
    return {
        "has_pictures": True,
        "num_pairs": len(pairs),
        "pairs": [
            {
                "a": image_data_uri(run.root, str(pair.get("a", ""))),
                "b": image_data_uri(run.root, str(pair.get("b", ""))),
                "a_path": str(pair.get("a_path", "")),
                "b_path": str(pair.get("b_path", "")),
                "kind": str(pair.get("kind", "")),
                "similarity": fmt.number(pair.get("similarity")),
            }
            for pair in pairs[:MAX_PAIRS]
        ],
        "overlays": [_overlay(run, item) for item in run.images.get("overlays") or ()],
        "hits": [_example(run, item) for item in (run.images.get("hits") or ())[:MAX_EXAMPLES]],
        "misses": [_example(run, item) for item in (run.images.get("misses") or ())[:MAX_EXAMPLES]],
    }


def _example(run: RunFiles, item: Mapping[str, Any]) -> dict[str, str]:
    return {
        "image": image_data_uri(run.root, str(item.get("image", ""))),
        "path": str(item.get("path", "")),
        "label": str(item.get("label", "")),
        "pred": str(item.get("pred", "")),
        "prob": fmt.number(item.get("prob"), 2),
    }


def _overlay(run: RunFiles, item: Mapping[str, Any]) -> dict[str, str]:
    return {
        "kind": str(item.get("kind", "")),
        "path": str(item.get("path", "")),
        "dice": fmt.number(item.get("dice")),
        "image": image_data_uri(run.root, str(item.get("image", ""))),
        "overlay": image_data_uri(run.root, str(item.get("overlay", ""))),
    }


def _findings(run: RunFiles) -> list[dict[str, Any]]:
    told = (run.audit or look_up(run.results, "audit", {})).get("findings") or ()
    rows = []
    for finding in told:
        paths = [
            " = ".join(str(part) for part in entry) if isinstance(entry, (list, tuple)) else str(entry)
            for entry in finding.get("paths") or ()
        ]
        rows.append(
            {
                "kind": str(finding.get("kind", "")).replace("_", " "),
                "severity": str(finding.get("severity", "")),
                "message": str(finding.get("message", "")),
                "paths": paths[:MAX_PATHS],
                "num_more": max(0, len(paths) - MAX_PATHS),
            }
        )
    return rows


def _big_metric(run: RunFiles, key: str) -> dict[str, str]:
    chosen, baseline = (
        look_up(run.results, f"test.chosen.{key}"),
        look_up(run.results, f"test.baseline.{key}"),
    )
    return {
        "value": fmt.number(chosen),
        "interval": fmt.interval(chosen),
        "baseline": fmt.with_interval(baseline) if baseline is not None else "",
    }


def _test_size(run: RunFiles) -> str:
    cases, groups = look_up(run.results, "test.num_cases"), look_up(run.results, "test.num_groups")
    if cases is None:
        return ""
    images = f"{fmt.integer(cases)} test {run.case_noun}"
    return f"{images} from {fmt.integer(groups)} patients or groups" if groups not in (None, cases) else images


def _search_cost(run: RunFiles) -> str:
    cost = look_up(run.results, "search", {})
    parts = []
    if cost.get("num_trials"):
        parts.append(f"{fmt.integer(cost['num_trials'])} trials")
    if cost.get("seconds") is not None:
        parts.append(
            f"{fmt.duration(cost['seconds'])} (full fine-tuning alone: {fmt.duration(cost.get('baseline_seconds'))})"
        )
    if cost.get("cost_in_ftl") is not None:
        parts.append(f"{fmt.number(cost['cost_in_ftl'], 1)} × the training computation of one full fine-tuning")
    if cost.get("beyond_ftl") is not None:
        parts[-1] += f" ({fmt.number(cost['beyond_ftl'], 2)} beyond the full fine-tuning itself)"
    return ", ".join(parts)
