"""The report's tables as plain rows of text, ready for a template of any format."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from medgraft.report import formatting as fmt
from medgraft.report.measures import measure_of
from medgraft.report.reading import RunFiles, look_up

__all__ = [
    "case_counts",
    "class_rows",
    "cut_rows",
    "fold_rows",
    "headline",
    "load_report_rows",
    "metric_rows",
    "observer_rows",
    "operating_rows",
    "plan_rows",
    "reuse_rows",
    "reproduction_rows",
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
    ("ece", "ECE", "calibration error, 15 bins; lower is better"),
    ("temperature", "Temperature", "fitted on validation; 1 = already calibrated"),
)
SITE_METRICS: Final = {
    "auroc": ("auroc", "auprc", "balanced_accuracy", "ece"),
    "dice": ("dice", "pooled_dice", "hd95", "surface_dice"),
}
SIZES: Final = (
    ("num_params", "parameters", fmt.si),
    ("macs", "MACs", fmt.si),
    ("cpu_ms", "CPU latency", fmt.milliseconds),
    ("file_bytes", "file size", fmt.file_size),
)
SPLITS: Final = ("train", "val", "test")


def headline(run: RunFiles) -> list[dict[str, Any]]:
    """The costs of the chosen model as shares of full fine-tuning's.

    Args:
        run: The run folder's content.

    Examples:
        >>> from pathlib import Path
        >>> sizes = {"chosen": {"num_params": 1000}, "baseline": {"num_params": 4000}}
        >>> row = headline(RunFiles(root=Path("run"), results={"efficiency": sizes}))[0]
        >>> row["name"], row["share"].replace("\u202f", " "), row["fraction"]
        ('parameters', '25 %', 0.25)
    """
    rows = []
    for key, name, written in SIZES:
        chosen = look_up(run.results, f"efficiency.chosen.{key}")
        baseline = look_up(run.results, f"efficiency.baseline.{key}")
        fraction = fmt.share(chosen, baseline)
        if fraction is not None:
            rows.append(
                {
                    "name": name if key != "macs" else f"MACs per {_seen_at_once(run)}",
                    "share": fmt.percent(fraction),
                    "fraction": fraction,
                    "bar": min(100.0, round(100 * fraction, 1)),
                    "chosen": written(chosen),
                    "baseline": written(baseline),
                }
            )
    return rows


def _seen_at_once(run: RunFiles) -> str:
    """``image``, ``volume``, or of a segmentation its patch."""
    patch = run.results.get("patch")
    return f"patch of {fmt.sides(patch)}" if patch else run.noun.removesuffix("s")


def class_rows(run: RunFiles) -> list[dict[str, str]]:
    """Of a segmentation one row per class and model; empty for one class, which the table above tells of.

    Args:
        run: The run folder's content.
    """
    names = run.classes if len(run.classes) > 1 else ()
    return [
        {"class": name, "model": model, **_overlap_cells(look_up(run.results, f"test.{role}.per_class", {}).get(name))}
        for name in names
        for role, model in (("chosen", "chosen"), ("baseline", "full fine-tuning"))
    ]


def observer_rows(run: RunFiles) -> list[dict[str, str]]:
    """Of a segmentation one row for each other observer: how well they agree with the truth, and the model less them.

    Args:
        run: The run folder's content.
    """
    return [
        {
            "name": name,
            "num_cases": fmt.integer(told.get("num_cases")),
            **_overlap_cells(told),
            "difference": fmt.signed_with_interval(look_up(told, "model_less_observer.dice")),
            "p": fmt.p_value(look_up(told, "model_less_observer.dice")),
        }
        for name, told in look_up(run.results, "test.observers", {}).items()
    ]


def _overlap_cells(told: Any) -> dict[str, str]:
    keys = ("dice", "pooled_dice", "jaccard", "hd95", "surface_dice")
    return {key: fmt.with_interval(look_up(told, key)) if look_up(told, key) else fmt.ABSENT for key in keys}


def metric_rows(run: RunFiles) -> list[dict[str, str]]:
    """One row per metric: chosen, full fine-tuning, further baselines (if any), the difference.

    Args:
        run: The run folder's content.
    """
    test = look_up(run.results, "test", {})
    second, continued = (look_up(run.results, name, {}) for name in ("second_baseline", "continued"))
    rows = []
    for key, name, meaning in METRICS:
        chosen, baseline = _metric(test.get("chosen"), key), _metric(test.get("baseline"), key)
        if chosen is None and baseline is None:
            continue
        difference = look_up(test, f"difference.{key}")
        rows.append(
            {
                "name": name,
                "meaning": meaning,
                "chosen": fmt.with_interval(chosen),
                "chosen_seeds": fmt.sd_over_seeds(chosen),
                "baseline": fmt.with_interval(baseline),
                "baseline_seeds": fmt.sd_over_seeds(baseline),
                "second": fmt.with_interval(_metric(second, key)) if second else "",
                "continued": fmt.with_interval(_metric(continued, key)) if continued else "",
                "difference": fmt.signed_with_interval(difference) if difference else "",
                "p": fmt.p_value(difference) if difference else "",
            }
        )
    return rows


def operating_rows(run: RunFiles) -> list[dict[str, str]]:
    """One row per class and model: threshold and what it gives on test.

    Args:
        run: The run folder's content.
    """
    rows = []
    for role, model in (("chosen", "chosen"), ("baseline", "full fine-tuning")):
        for point in _points(look_up(run.results, f"test.{role}.operating_point", {})):
            row = {
                "model": model,
                "class": str(point.get("class", "")),
                "threshold": fmt.number(point.get("threshold")),
            }
            for key in ("sensitivity", "specificity", "ppv", "npv"):
                row[key] = fmt.with_interval(point.get(key))
            rows.append(row)
    return sorted(rows, key=lambda row: run.classes.index(row["class"]) if row["class"] in run.classes else -1)


def fold_rows(run: RunFiles) -> list[dict[str, str]]:
    """One row per outer fold: what it chose and what its own test cases said; empty without cross-validation.

    Args:
        run: The run folder's content.
    """
    return [
        {
            "fold": str(fold.get("fold", "")),
            "cut": f"{look_up(fold, 'cut.index', '')} {look_up(fold, 'cut.name', '')}".strip(),
            "num_params": fmt.si(fold.get("num_params")),
            "num_cases": fmt.integer(fold.get("num_cases")),
            "chosen": fmt.with_interval(fold.get(measure_of(run.results).test)),
            "baseline": fmt.with_interval(fold.get(f"{measure_of(run.results).test}_baseline")),
            "verdict": str(fold.get("verdict", "")),
        }
        for fold in run.results.get("folds") or ()
    ]


def site_columns(run: RunFiles) -> tuple[str, ...]:
    """Keys of the metrics that are told of every site.

    Args:
        run: The run folder's content.
    """
    return SITE_METRICS[measure_of(run.results).test]


def site_rows(run: RunFiles) -> list[dict[str, Any]]:
    """One row per site with the chosen model's metrics, or the reason why there are none.

    Args:
        run: The run folder's content.
    """
    return [
        {
            "site": name,
            "num_cases": fmt.integer(row.get("num_cases")),
            "num_groups": fmt.integer(row.get("num_groups")),
            "reason": str(row.get("reason", "")),
            "cells": [fmt.with_interval(row.get(key)) for key in site_columns(run)],
        }
        for name, row in look_up(run.results, "test.sites", {}).items()
    ]


def cut_rows(run: RunFiles) -> list[dict[str, Any]]:
    """One row per cut that was tried: score, paired difference to the best, size, and the rule's view.

    Args:
        run: The run folder's content.
    """
    choice = run.choice or {}
    rows = []
    for candidate in choice.get("candidates") or ():
        cut, sd = candidate.get("cut"), fmt.value_of(candidate.get("sd_difference"))
        is_best = cut == choice.get("best")
        marks = [mark for mark in ("chosen", "best") if cut == choice.get(mark)]
        behind = fmt.number(candidate.get("mean_difference"))
        rows.append(
            {
                "cut": cut,
                "name": str(candidate.get("name", "")),
                "score": fmt.number(candidate.get("score")),
                "behind": fmt.ABSENT if is_best else behind + (f" ± {fmt.number(sd)}" if sd is not None else ""),
                "num_params": fmt.si(candidate.get("num_params")),
                "macs": fmt.si(candidate.get("macs")),
                "is_eligible": bool(candidate.get("eligible")),
                "is_chosen": "chosen" in marks,
                "marks": ", ".join(marks),
            }
        )
    return sorted(rows, key=lambda row: (row["cut"] is None, row["cut"]))


def distance_rows(analysis: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per cut at which the distance to the source was measured.

    Args:
        analysis: ``analysis.json``.
    """
    measured = look_up(analysis, "distance.cuts", {})
    names = {str(cut["index"]): cut["name"] for cut in analysis.get("cuts", ())}
    return [
        {
            "cut": f"{index} {names.get(index, '')}".strip(),
            "fid": fmt.with_interval(row["fid"]),
            "kid": fmt.with_interval(row["kid"]) if "kid" in row else fmt.ABSENT,
            "warning": str(row["fid"].get("warning", "")),
        }
        for index, row in measured.items()
    ]


def reuse_rows(analysis: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per cut: similarity before and after transfer (or to random weights), and what frozen features promise.

    Args:
        analysis: ``analysis.json``.
    """
    rows = []
    for cut in analysis["cuts"]:
        index = str(cut["index"])
        similarity, signals = analysis["similarity"], analysis["signals"]
        alike = (similarity.get("after") or similarity["random"])[index]
        before = signals["before"][index]
        rows.append(
            {
                "cut": f"{index} {cut['name']}",
                "svcca": fmt.number(alike["mean"]),
                "area": fmt.number(alike["area"]),
                "cka": fmt.number(alike["cka"]),
                "procrustes": fmt.number(alike["procrustes"]),
                **{
                    f"{key}_before": fmt.number(before.get(key))
                    for key in ("probe", "knn", "logme", "h_score", "nleep")
                },
                **{
                    f"probe_{key}": fmt.number(signals[key][index]["probe"])
                    for key in ("after", "random")
                    if key in signals
                },
            }
        )
    return rows


def plan_rows(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs of neighbouring blocks with one treatment and learning rate, as one row each.

    Args:
        blocks: From stem to head: name, treatment, lr, num_params.

    Examples:
        >>> block = {"treatment": "reused", "lr": 0.1, "num_params": 5}
        >>> blocks = [{"name": "stem", **block}, {"name": "layer1", **block}]
        >>> [(row["names"], row["num_params"]) for row in plan_rows(blocks)]
        [('stem … layer1', '10')]
    """
    rows = []
    for (treatment, lr), run_of_blocks in groupby(blocks, key=lambda block: (block.get("treatment"), block.get("lr"))):
        members = list(run_of_blocks)
        first, last = str(members[0].get("name")), str(members[-1].get("name"))
        rows.append(
            {
                "names": first if len(members) == 1 else f"{first} … {last}",
                "num_blocks": len(members),
                "treatment": str(treatment),
                "lr": fmt.learning_rate(lr),
                "num_params": fmt.si(sum(fmt.value_of(block.get("num_params")) or 0 for block in members)),
            }
        )
    return rows


def load_report_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What loading the pretrained weights did, as name and value.

    Args:
        report: ``backbone.load_report`` of the results.
    """
    rows = [
        ("source", str(report.get("source") or "none")),
        ("licence", str(report.get("licence") or "not stated")),
        ("sha256", str(report.get("sha256") or fmt.ABSENT)),
        ("parameters filled", fmt.percent(report.get("matched_fraction"))),
        ("tensors matched", fmt.integer(report.get("matched"))),
    ]
    for key, name in (("missing", "missing"), ("unexpected", "unexpected"), ("wrong_shape", "wrong shape")):
        names = [str(item) for item in report.get(key) or ()]
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        rows.append((name, f"{len(names)}: {shown}" if names else "none"))
    return rows


def case_counts(run: RunFiles) -> dict[str, Any]:
    """Images per class and split with their totals, or an empty dictionary where the run does not tell.

    Args:
        run: The run folder's content.
    """
    counts = look_up(run.results, "splits.counts", {})
    splits = [split for split in SPLITS if isinstance(counts.get(split), Mapping)]
    classes = list(run.classes) or sorted({name for split in splits for name in counts[split]})
    if not splits:
        return {}
    rows = []
    for name in classes:
        cells = [counts[split].get(name, 0) for split in splits]
        rows.append({"name": name, "cells": [fmt.integer(cell) for cell in cells], "total": fmt.integer(sum(cells))})
    sums = [sum(counts[split].values()) for split in splits]
    # An image is counted once per label it has, or class its mask shows: sums over classes would not be images.
    is_sum = run.results.get("task") not in ("multilabel", "segmentation")
    totals = [fmt.integer(total) for total in (*sums, sum(sums))] if is_sum else []
    return {"splits": splits, "rows": rows, "totals": totals}


def reproduction_rows(run: RunFiles) -> list[tuple[str, str]]:
    """What someone else needs to get the same result, as name and value.

    Args:
        run: The run folder's content.
    """
    results = run.results
    seeds = results.get("seeds") or []
    openings = look_up(results, "ledger.openings")
    search = look_up(results, "search", {})
    preprocessing = look_up(results, "preprocessing", {})
    rows = [
        ("seeds", ", ".join(str(seed) for seed in seeds)),
        ("split sha256", str(look_up(results, "splits.sha256", ""))),
        ("weights sha256", str(look_up(results, "backbone.load_report.sha256", ""))),
        ("test labels opened", f"{openings} × on this machine, this run included" if openings else ""),
        (
            "preprocessing",
            _plain(preprocessing),
        ),
        (
            "search",
            f"{search['num_trials']} trials, {fmt.duration(search.get('seconds'))}" if search.get("num_trials") else "",
        ),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in look_up(results, "versions", {}).items()),
        ),
        ("results schema", str(results.get("schema", ""))),
    ]
    return [(name, value) for name, value in rows if value]


def _metric(model: Any, key: str) -> Any:
    """A metric of one model, with its interval wherever the run has stored it."""
    if key == "majority":
        # A property of the test set, not of a model: its interval would say nothing.
        return look_up(model, key)
    if key == "temperature":
        return look_up(model, "temperature", look_up(model, "temperature_scaled.temperature"))
    return look_up(model, f"details.{key}", look_up(model, key))


def _points(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Operating points as a list, also where the run stored them by class."""
    by_class = told.get("classes") or {}
    return list(told.get("points") or ({"class": name, **point} for name, point in by_class.items()))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items() if item != [])
    if isinstance(value, (list, tuple)):
        return " ".join(_plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
