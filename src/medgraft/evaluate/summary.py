"""The `test` part of results.json: one model's numbers with intervals, and a comparison of two."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from medgraft.errors import ConfigError, DataError
from medgraft.evaluate.bootstrap import (
    as_seeds,
    bootstrap_interval,
    paired_difference,
    smallest_class,
)
from medgraft.evaluate.calibration import apply_temperature, fit_temperature
from medgraft.evaluate.delong import delong_interval
from medgraft.evaluate.masks import FEWEST_GROUPS, mask_metrics
from medgraft.evaluate.operating_point import apply_thresholds, choose_thresholds, parse_operating_point
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.verdict import verdict, verdict_sentence
from medgraft.metrics.cases import one_vs_rest
from medgraft.metrics.classification import auprc_per_class, auroc_per_class, brier, ece, metrics_of
from medgraft.types import Judged, Overlaps, Predictions, to_json

__all__ = ["compare", "metric_interval", "site_metrics", "summarise"]

_RANKING: Final = ("auroc", "auprc")


def metric_interval(pred: Predictions, metric: str, weights: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of one model's metric: DeLong for a binary AUROC with one image per group.

    Everything else, and a class with a single case, by the bootstrap over groups.

    Args:
        pred: One model's predictions.
        metric: A name in `medgraft.metrics.METRICS`.
        weights: (R, N) counts from `bootstrap_weights`.

    Raises:
        ConfigError: No such metric.
        DataError: Unsound predictions, an absent class, or weights of other cases.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]),
        ...                    targets=np.array([0, 0, 1, 1]), groups=np.arange(4),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> low, high = metric_interval(pred, "auroc", bootstrap_weights(pred, 100))
        >>> round(low, 3), round(high, 3)
        (0.069, 0.992)
    """
    is_single = len(np.unique(pred.groups)) == len(pred.groups)
    if metric == "auroc" and pred.task == "binary" and is_single and min(smallest_class(pred)) > 1:
        part = one_vs_rest(pred)[0]
        return delong_interval(part.scores, part.labels)
    return bootstrap_interval(pred, metric, weights)


def summarise(
    test: Predictions | Sequence[Predictions],
    val: Predictions,
    operating_point: str = "youden",
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """One model's part of ``test`` in results.json, plain JSON types.

    ``auroc`` and ``auprc`` are value, ci95, mean, sd; the other metrics are numbers, with the same four
    under ``details``. Value and interval are the first seed's (the saved model); mean and sd (None for one
    seed) go over the seeds. ``operating_point`` holds the rule and per class threshold, sensitivity,
    specificity, ppv, npv; ``temperature_scaled`` what scaling fitted on `val` would do.

    Args:
        test: Test predictions, one per seed, first seed first.
        val: Validation predictions of the first seed.
        operating_point: ``youden`` or ``sensitivity=S``.
        weights: (R, N) counts from `bootstrap_weights` of the test cases; drawn here with seed 0 if None.

    Raises:
        ConfigError: The operating point makes no sense.
        DataError: Unsound predictions, an absent class, or seeds with different cases.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]),
        ...                    targets=np.array([0, 0, 1, 1]), groups=np.arange(4),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> result = summarise([pred, pred], val=pred)
        >>> result["auroc"]["value"], result["auroc"]["sd"], result["accuracy"], result["majority"]
        (0.75, 0.0, 0.75, 0.5)
    """
    point = parse_operating_point(operating_point)
    seeds = as_seeds(test)
    if (val.classes, val.task, val.positive) != (seeds[0].classes, seeds[0].task, seeds[0].positive):
        raise DataError(
            f"validation and test must have the same classes, got {val.classes} and {seeds[0].classes}. "
            "Pass predictions of one model."
        )
    counts = bootstrap_weights(seeds[0]) if weights is None else weights
    details = {metric: _over_seeds(seeds, metric, counts) for metric in metrics_of(seeds[0])}
    thresholds = choose_thresholds(val, point)
    temperature = fit_temperature(val)
    scaled = apply_temperature(seeds[0], temperature)
    areas, precisions = auroc_per_class(seeds[0]), auprc_per_class(seeds[0])
    return {
        **{metric: details.pop(metric) for metric in _RANKING},
        **{metric: detail["value"] for metric, detail in details.items()},
        "operating_point": {"rule": operating_point, "classes": apply_thresholds(seeds[0], thresholds)},
        "details": details,
        "per_class": {name: {"auroc": areas[name], "auprc": precisions[name]} for name in areas},
        "temperature_scaled": {"temperature": temperature, "brier": brier(scaled), "ece": ece(scaled)},
    }


def compare(
    chosen: Judged | Sequence[Judged],
    baseline: Judged | Sequence[Judged],
    margin: float = 0.02,
    weights: np.ndarray | None = None,
    name: str = "The compact model",
) -> dict[str, Any]:
    """``difference`` (auroc and auprc; of masks all metrics: value, ci95, p), ``verdict`` and ``sentence``, plain JSON.

    Seeds are averaged inside each replicate, so with several seeds the difference is that of the means. The
    verdict is about AUROC, of masks about mean Dice.

    Args:
        chosen: Test predictions of the chosen model, one per seed.
        baseline: Those of the baseline, on the same cases in the same order.
        margin: The loss of AUROC, or of Dice, that is accepted, fixed beforehand.
        weights: (R, N) counts from `bootstrap_weights` of the test cases; drawn here with seed 0 if None.
        name: What is compared, as the start of a sentence.

    Raises:
        ConfigError: The margin makes no sense.
        DataError: Unsound predictions, an absent class, or other cases.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]),
        ...                    targets=np.array([0, 0, 1, 1]), groups=np.arange(4),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> compare(pred, pred)["verdict"]
        'non-inferior'
    """
    first = as_seeds(chosen)[0]
    counts = bootstrap_weights(first) if weights is None else weights
    metrics = mask_metrics(first) if isinstance(first, Overlaps) else _RANKING
    differences = {metric: paired_difference(chosen, baseline, metric, counts) for metric in metrics}
    judged = differences[metrics[0]]
    if not isinstance(first, Overlaps):
        found, sentence = verdict(judged, margin), verdict_sentence(judged, margin, name)
    elif (num := len(np.unique(first.groups))) < FEWEST_GROUPS and judged.ci95 != (0.0, 0.0):
        found = "inconclusive"
        sentence = (
            f"{name} compared with full fine-tuning is inconclusive: {num} patients or groups prove nothing (mean Dice "
            f"difference {judged.value:+.4f}); at least {FEWEST_GROUPS} are needed (--folds tests everyone once)."
        )
    else:
        found, sentence = verdict(judged, margin), verdict_sentence(judged, margin, name, metric="mean Dice")
    return {"difference": to_json(differences), "verdict": found, "sentence": sentence}


def site_metrics(
    pred: Predictions,
    sites: Sequence[str | None],
    minimum: int = 10,
    num: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Site name to every metric with value and ci95, for sites with enough groups; else the reason.

    Cases without a site are reported as ``(not stated)``.

    Args:
        pred: One model's predictions on a cohort.
        sites: (N,) site of each case, or None.
        minimum: Groups that a site needs with, and without, each class (binary: of both classes).
        num: Bootstrap replicates per site.
        seed: Of the replicates.

    Raises:
        ConfigError: `minimum` below 2.
        DataError: Unsound predictions, or not one site per case.

    Examples:
        >>> pred = Predictions(probs=np.full((2, 2), 0.5), targets=np.array([0, 1]), groups=np.arange(2),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> site_metrics(pred, ["north", "north"])["north"]["reason"]
        "fewer than 10 groups with and without 'sick': 1 and 1"
    """
    if minimum < 2:
        raise ConfigError(f"minimum must be at least 2, got {minimum}. 10 is the default.")
    one_vs_rest(pred)
    names = np.array(["(not stated)" if site is None else site for site in sites], dtype=object)
    if names.shape != pred.groups.shape:
        raise DataError(f"expected one site for each of {len(pred.groups)} cases, got {len(names)}.")
    out: dict[str, dict[str, Any]] = {}
    for name in sorted(set(names)):
        part = _subset(pred, names == name)
        row: dict[str, Any] = {"num_cases": len(part.groups), "num_groups": len(np.unique(part.groups))}
        reason = _too_few(part, minimum)
        if reason is None:
            weights = bootstrap_weights(part, num, seed)
            row |= {
                metric: {"value": score(part), "ci95": list(metric_interval(part, metric, weights))}
                for metric, score in metrics_of(part).items()
            }
        out[name] = row if reason is None else row | {"reason": reason}
    return out


def _over_seeds(seeds: Sequence[Predictions], metric: str, weights: np.ndarray) -> dict[str, Any]:
    values = [metrics_of(pred)[metric](pred) for pred in seeds]
    return {
        "value": values[0],
        "ci95": list(metric_interval(seeds[0], metric, weights)),
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def _subset(pred: Predictions, keep: np.ndarray) -> Predictions:
    return dataclasses.replace(pred, probs=pred.probs[keep], targets=pred.targets[keep], groups=pred.groups[keep])


def _too_few(pred: Predictions, minimum: int) -> str | None:
    columns = range(len(pred.classes)) if pred.positive is None else (pred.positive,)
    for column in columns:
        truth = pred.targets[:, column] if pred.task == "multilabel" else (pred.targets == column).astype(float)
        counts = len(np.unique(pred.groups[truth == 1])), len(np.unique(pred.groups[truth == 0]))
        if min(counts) < minimum:
            name = pred.classes[column]
            return f"fewer than {minimum} groups with and without {name!r}: {counts[0]} and {counts[1]}"
    return None
