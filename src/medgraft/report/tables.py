"""The report's tables as plain rows of text, ready for a template of any format."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from medgraft.as_json import to_json
from medgraft.backbones.load_report import Ancestor, LoadReport
from medgraft.evaluate.results import ClassScores, Estimate, ModelResult
from medgraft.evaluate.verdict import spread_words
from medgraft.report import formatting as fmt
from medgraft.report.run_files import RunFiles
from medgraft.result.analysis import AnalysisResult
from medgraft.result.run import RunResult
from medgraft.sources.layouts.published import layout_words
from medgraft.types import SPLITS, BlockPlan, kind_of

__all__ = [
    "case_counts",
    "class_columns",
    "class_rows",
    "cut_rows",
    "distance_rows",
    "fold_rows",
    "headline",
    "load_report_rows",
    "metric_rows",
    "observer_columns",
    "observer_rows",
    "operating_rows",
    "plan_rows",
    "reproduction_rows",
    "reuse_rows",
    "site_columns",
    "site_rows",
]

METRICS: Final = (
    ("dice", "Mean Dice", "over cases, then classes; higher is better"),
    ("pooled_dice", "Pooled Dice", "all pixels together: large regions count more"),
    ("jaccard", "Mean Jaccard", "intersection over union; higher is better"),
    ("hd95", "HD95", "95th percentile of the distance of surfaces; lower is better"),
    ("surface_dice", "Surface Dice", "share of the surfaces within the tolerance; higher is better"),
    ("auroc", "AUROC", "higher is better"),
    ("auprc", "AUPRC", "average precision; higher is better"),
    ("accuracy", "Accuracy", "beside the majority rate below"),
    ("majority", "Majority rate", "accuracy of always naming the commonest class"),
    ("balanced_accuracy", "Balanced accuracy", "mean of the classes' sensitivities"),
    ("kappa", "Weighted kappa", "agreement of grades, quadratic; 0 is chance"),
    ("brier", "Brier score", "lower is better"),
    ("ece", "ECE", "calibration error, 15 bins; lower is better, of few cases never 0"),
    ("temperature", "Temperature", "fitted on validation; 1 = already calibrated"),
)
HEADINGS: Final = {key: name for key, name, _ in METRICS}
SITE_METRICS: Final = {
    "labels": ("auroc", "auprc", "balanced_accuracy", "ece"),
    "masks": ("dice", "pooled_dice", "hd95", "surface_dice"),
}
CLASS_METRICS: Final = {
    "labels": ("auroc", "auprc"),
    "masks": ("dice", "pooled_dice", "jaccard", "hd95", "surface_dice"),
}
"""Metrics told of each class, by kind of truth; further kinds show what their measure compares."""
OBSERVER_METRICS: Final = ("dice", "pooled_dice", "hd95", "surface_dice")
SIZES: Final = (
    ("num_params", "parameters", fmt.si),
    ("macs", "MACs", fmt.si),
    ("cpu_ms", "CPU latency", fmt.milliseconds),
    ("file_bytes", "file size", fmt.file_size),
)
MODELS: Final = (("chosen", "chosen"), ("baseline", "full fine-tuning"))


def headline(result: RunResult) -> list[dict[str, Any]]:
    """The costs of the chosen model as shares of full fine-tuning's, as far as both are known."""
    rows = []
    for key, name, written in SIZES:
        chosen, baseline = (getattr(getattr(result.efficiency, role), key) for role, _ in MODELS)
        fraction = fmt.share(chosen, baseline)
        if fraction is not None:
            rows.append(
                {
                    "name": name if key != "macs" else f"MACs per {_seen_at_once(result)}",
                    "share": fmt.percent(fraction),
                    "fraction": fraction,
                    "bar": min(100.0, round(100 * fraction, 1)),
                    "chosen": written(chosen),
                    "baseline": written(baseline),
                }
            )
    return rows


def _seen_at_once(result: RunResult) -> str:
    """What a network sees at once: ``image``, ``volume``, or for masks its patch."""
    return f"patch of {fmt.sides(result.patch)}" if result.patch else result.noun.removesuffix("s")


def class_columns(result: RunResult) -> list[str]:
    """Headings of the metrics that are told of every class."""
    points = ["Sensitivity", "Specificity"] if result.test.chosen.points else []
    return [HEADINGS.get(key, key) for key in _class_metrics(result)] + points


def _class_metrics(result: RunResult) -> tuple[str, ...]:
    from_measure = CLASS_METRICS.get(kind_of(result.task), result.measure.compared)
    there = {name for part in result.test.chosen.per_class.values() for name in part.scores}
    return tuple(name for name in from_measure if name in there)


def class_rows(result: RunResult) -> list[dict[str, Any]]:
    """One row per class and model, where there are several classes: cases, metrics, and its operating point."""
    if len(result.test.chosen.per_class) < 2:
        return []
    return [
        {
            "class": name,
            "model": title,
            "num_cases": fmt.integer(part.num_cases),
            "cells": _class_cells(result, model, part, name),
        }
        for name in result.test.chosen.per_class
        for role, title in MODELS
        for model in [getattr(result.test, role)]
        for part in [model.per_class[name]]
    ]


def _class_cells(result: RunResult, model: ModelResult, part: ClassScores, name: str) -> list[str]:
    """Metrics of one class with their intervals, then sensitivity and specificity where it has an operating point.

    Args:
        result: Tells which metrics are shown.
        model: Has the operating points.
        part: Scores of the class.
        name: Name of the class.
    """
    cells = [fmt.with_interval(part.scores[key]) for key in _class_metrics(result)]
    point = model.points.get(name)
    return cells + ([fmt.with_interval(point.sensitivity), fmt.with_interval(point.specificity)] if point else [])


def observer_columns() -> list[str]:
    """Headings of the metrics that are told of other observers."""
    return [HEADINGS[key] for key in OBSERVER_METRICS]


def observer_rows(result: RunResult) -> list[dict[str, Any]]:
    """One row for each other observer of masks: how well they agree with the truth, and the model less them."""
    return [
        {
            "name": name,
            "num_cases": fmt.integer(observer.num_cases),
            "cells": [fmt.with_interval(observer.scores[key]) for key in OBSERVER_METRICS],
            "difference": fmt.signed_with_interval(observer.model_less_observer["dice"]),
            "p": fmt.p_value(observer.model_less_observer["dice"]),
        }
        for name, observer in result.test.reference.observers.items()
    ]


def metric_rows(result: RunResult) -> list[dict[str, str]]:
    """One row per metric: chosen, full fine-tuning, further baselines (if any), the difference."""
    test = result.test
    further = {name: getattr(result, name) for name in ("second_baseline", "continued")}
    rows = []
    for key, name, meaning in METRICS:
        chosen, baseline = _metric(test.chosen, key), _metric(test.baseline, key)
        if chosen is None and baseline is None:
            continue
        difference = test.comparison.difference.get(key)
        further_values = {role: _metric(model.result, key) if model else None for role, model in further.items()}
        rows.append(
            {
                "name": name,
                "meaning": meaning,
                "chosen": fmt.with_interval(chosen),
                "chosen_seeds": fmt.sd_over_seeds(chosen),
                "baseline": fmt.with_interval(baseline),
                "baseline_seeds": fmt.sd_over_seeds(baseline),
                "second": fmt.with_interval(further_values["second_baseline"]) if further["second_baseline"] else "",
                "continued": fmt.with_interval(further_values["continued"]) if further["continued"] else "",
                "difference": fmt.signed_with_interval(difference) if difference else "",
                "spread": spread_words(difference.spread) if difference and difference.spread else "",
                "p": fmt.p_value(difference) if difference else "",
            }
        )
    return rows


def _metric(model: ModelResult, key: str) -> Estimate | float | None:
    """A metric of one model with its interval, as far as it has one."""
    if key == "temperature":
        return None if model.scaled is None else model.scaled.temperature
    score = model.scores.get(key)
    # The majority rate is a property of the test set, not of a model: its interval would say nothing.
    return score.value if score is not None and key == "majority" else score


def operating_rows(result: RunResult) -> list[dict[str, str]]:
    """One row per class and model: threshold and what it gives on test."""
    rows = []
    for role, title in MODELS:
        for name, point in getattr(result.test, role).points.items():
            row = {"model": title, "class": name, "threshold": fmt.number(point.threshold)}
            for key in ("sensitivity", "specificity", "ppv", "npv"):
                row[key] = fmt.with_interval(getattr(point, key))
            rows.append(row)
    return sorted(rows, key=lambda row: result.classes.index(row["class"]))


def fold_rows(result: RunResult) -> list[dict[str, str]]:
    """One row per outer fold: what it chose and what its own test cases said; empty without cross-validation."""
    return [
        {
            "fold": str(fold.fold),
            "cut": f"{fold.cut.index} {fold.cut.name}",
            "num_params": fmt.si(fold.num_params),
            "num_cases": fmt.integer(fold.num_cases),
            "chosen": fmt.with_interval(fold.chosen),
            "baseline": fmt.with_interval(fold.baseline),
            "verdict": fold.verdict,
        }
        for fold in result.folds
    ]


def site_columns(result: RunResult) -> list[str]:
    """Headings of the metrics that are told of every site."""
    return [HEADINGS.get(key, key) for key in _site_metrics(result)]


def _site_metrics(result: RunResult) -> tuple[str, ...]:
    return SITE_METRICS.get(kind_of(result.task), result.measure.compared)


def site_rows(result: RunResult) -> list[dict[str, Any]]:
    """One row per site with the chosen model's metrics, or the reason why there are none."""
    return [
        {
            "site": name,
            "num_cases": fmt.integer(site.num_cases),
            "num_groups": fmt.integer(site.num_groups),
            "reason": site.reason,
            "cells": [] if site.reason else [fmt.with_interval(site.scores[key]) for key in _site_metrics(result)],
        }
        for name, site in result.test.sites.items()
    ]


def cut_rows(run: RunFiles) -> list[dict[str, Any]]:
    """One row per cut that was tried: score, paired difference to the best, size, and the rule's view.

    Args:
        run: The run folder's content.
    """
    choice = run.choice
    if choice is None:
        return []
    rows = []
    for candidate in sorted(choice.candidates, key=lambda entry: entry.cut):
        marks = [mark for mark in ("chosen", "best") if candidate.cut == getattr(choice, mark)]
        behind = f"{fmt.number(candidate.mean_difference)} ± {fmt.number(candidate.sd_difference)}"
        rows.append(
            {
                "cut": candidate.cut,
                "name": candidate.name,
                "score": fmt.number(candidate.score),
                "behind": fmt.ABSENT if "best" in marks else behind,
                "probability": "" if candidate.probability is None else fmt.number(candidate.probability, 2),
                "num_params": fmt.si(candidate.num_params),
                "macs": fmt.si(candidate.macs),
                "is_eligible": candidate.eligible,
                "is_chosen": "chosen" in marks,
                "marks": ", ".join(marks),
            }
        )
    return rows


def distance_rows(analysis: AnalysisResult) -> list[dict[str, str]]:
    """One row per cut at which the distance to the source was measured.

    Args:
        analysis: A run's analysis, or a cohort's.
    """
    measured = analysis.distance.cuts if analysis.distance else {}
    return [
        {
            "cut": f"{index} {analysis.names.get(index, '')}".strip(),
            "fid": fmt.with_interval(row.fid, fmt.digits_of(row.fid.ci95)),
            "kid": fmt.with_interval(row.kid, fmt.digits_of(row.kid.ci95)) if row.kid else fmt.ABSENT,
            "warning": row.fid.warning,
        }
        for index, row in measured.items()
    ]


def reuse_rows(analysis: AnalysisResult) -> list[dict[str, Any]]:
    """One row per cut: similarity before and after transfer (or to random weights), and what frozen features promise.

    Args:
        analysis: A run's analysis, or a cohort's.
    """
    alike = analysis.after or analysis.random
    worths = {"after": analysis.worth_after, "random": analysis.worth_random}
    return [
        {
            "cut": f"{cut.index} {cut.name}",
            **{
                {"mean": "svcca"}.get(key, key): fmt.number(getattr(alike[cut.index], key))
                for key in ("mean", "area", "cka", "procrustes")
            },
            **{
                f"{key}_before": fmt.number(getattr(analysis.worth[cut.index], key))
                for key in ("probe", "knn", "logme", "h_score", "nleep")
            },
            **{f"probe_{key}": fmt.number(worth[cut.index].probe) for key, worth in worths.items() if worth},
        }
        for cut in analysis.cuts
    ]


def plan_rows(blocks: Sequence[BlockPlan]) -> list[dict[str, Any]]:
    """Runs of neighbouring blocks with one treatment and learning rate, as one row each.

    Args:
        blocks: From stem to head.

    Examples:
        >>> blocks = [BlockPlan(name=name, treatment="reused", lr=0.1, num_params=5) for name in ("stem", "layer1")]
        >>> [(row["names"], row["num_params"]) for row in plan_rows(blocks)]
        [('stem … layer1', '10')]
    """
    rows = []
    for (treatment, lr), alike in groupby(blocks, key=lambda block: (block.treatment, block.lr)):
        members = list(alike)
        first, last = members[0].name, members[-1].name
        rows.append(
            {
                "names": first if len(members) == 1 else f"{first} … {last}",
                "num_blocks": len(members),
                "treatment": treatment,
                "lr": fmt.learning_rate(lr),
                "num_params": fmt.si(sum(block.num_params for block in members)),
            }
        )
    return rows


def load_report_rows(report: LoadReport) -> list[tuple[str, str]]:
    """What loading the pretrained weights did, as name and value."""
    rows = [
        ("source", report.source or "none"),
        *([("layout of the file", layout)] if (layout := layout_words(report.layout)) else []),
        *([("network in the file", report.key)] if report.key else []),
        *([("others in the file", ", ".join(report.other_networks))] if report.other_networks else []),
        *([("published as", " or ".join(report.names))] if report.names not in ((), (report.source,)) else []),
        ("licence", report.licence or "not stated"),
        *([("sha256", report.sha256)] if report.sha256 else []),
        ("parameters filled", fmt.percent(report.matched_fraction)),
        ("tensors matched", fmt.integer(report.matched)),
    ]
    for names, title in (
        (report.missing, "missing"),
        (report.dropped, "left out (heads)"),
        (report.unexpected, "unexpected"),
        (report.wrong_shape, "wrong shape"),
    ):
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        rows.append((title, f"{len(names)}: {shown}" if names else "none"))
    if len(report.lineage) > 1:
        rows += [(f"step {number}", _step(step)) for number, step in enumerate(report.lineage, start=1)]
    return [*rows, *([("preprocessing", report.proof)] if report.proof else [])]


def _step(step: Ancestor) -> str:
    """One step of what weights learned, in words."""
    facts = (f"licence {step.licence}" if step.licence else "", f"sha256 {step.sha256[:12]}…" if step.sha256 else "")
    return "; ".join([f"{step.name}: {step.learned}", *(fact for fact in facts if fact)])


def case_counts(result: RunResult) -> dict[str, Any]:
    """Images per class and split with their totals."""
    counts = result.splits.counts
    splits = [split for split in SPLITS if split in counts]
    rows = []
    for name in result.classes:
        cells = [counts[split].get(name, 0) for split in splits]
        rows.append({"name": name, "cells": [fmt.integer(cell) for cell in cells], "total": fmt.integer(sum(cells))})
    sums = [sum(counts[split].values()) for split in splits]
    # An image is counted once per label it has, or class its mask shows: sums over classes would not be images.
    is_sum = result.task not in ("multilabel", "segmentation")
    totals = [fmt.integer(total) for total in (*sums, sum(sums))] if is_sum else []
    return {"splits": splits, "rows": rows, "totals": totals}


def reproduction_rows(result: RunResult) -> list[tuple[str, str]]:
    """What someone else needs to get the same result, as name and value."""
    rows = [
        ("seeds", ", ".join(str(seed) for seed in result.seeds)),
        ("split sha256", result.splits.sha256),
        ("weights sha256", result.backbone.load_report.sha256),
        ("test labels opened", f"{result.ledger.openings} × on this machine, this run included"),
        ("preprocessing", _plain(to_json(result.preprocessing))),
        ("search", f"{result.search.num_trials} trials, {fmt.duration(result.search.seconds)}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
    ]
    return [(name, value) for name, value in rows if value]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items() if item != [])
    if isinstance(value, (list, tuple)):
        return " ".join(_plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
