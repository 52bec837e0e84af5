"""One model's numbers with intervals, as a whole and site by site, whatever the truth is."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from medgraft.errors import ConfigError, DataError
from medgraft.evaluate.bootstrap import (
    as_seeds,
    bootstrap_interval,
    metric_replicates,
    smallest_class,
)
from medgraft.evaluate.calibration import apply_temperature, fit_temperature
from medgraft.evaluate.influence import has_influence, influence_interval
from medgraft.evaluate.intervals import clustered_proportion, logit_interval, wilson_interval
from medgraft.evaluate.operating_point import apply_thresholds, choose_thresholds, parse_operating_point
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.results import ClassScores, Estimate, ModelResult, Scaled, SiteResult
from medgraft.metrics.cases import one_vs_rest, predicted_targets
from medgraft.metrics.classification import brier, ece
from medgraft.metrics.measures import cases_of, measure_of, measured
from medgraft.types import Judged, Overlaps, Predictions

__all__ = [
    "estimate",
    "interval_of",
    "label_interval",
    "site_results",
    "summarise",
    "summarise_partial",
    "with_points",
]

_FEWEST_OF_A_SITE: Final = 10


def label_interval(pred: Predictions, metric: str, weights: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a metric of labels; nothing has width zero.

    AUROC by the influence of cases, summed over groups (DeLong's and Obuchowski's variance), and AUPRC by the
    bootstrap's standard error, both on the logit scale with Student's t; shares of cases by Wilson's interval, widened
    for groups; everything else by percentiles of the bootstrap over groups.

    Args:
        pred: One model's predictions.
        metric: Name of a metric of labels.
        weights: (R, N) counts from `bootstrap_weights`.

    Raises:
        ConfigError: No such metric.
        DataError: Unsound predictions, an absent class, or weights of other cases.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]),
        ...                    targets=np.array([0, 0, 1, 1]), groups=np.arange(4),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> low, high = label_interval(pred, "auroc", bootstrap_weights(pred, 100))
        >>> round(low, 3), round(high, 3)
        (0.001, 1.0)
    """
    value = measured(pred, metric)
    if metric == "auroc" and 0 < value < 1:
        return influence_interval(pred, metric, value) or (0.0, 1.0)
    if metric == "auprc" and 0 < value < 1:
        spread = float(metric_replicates(pred, metric, weights).std(ddof=1)) if len(weights) > 1 else 0.0
        return logit_interval(value, spread, max(1, min(smallest_class(pred)) - 1)) if spread > 0 else (0.0, 1.0)
    if metric in _SHARES and pred.task != "multilabel":
        _, ci95 = clustered_proportion(_SHARES[metric](pred), pred.groups)
        return ci95 or (0.0, 1.0)
    return _with_width(bootstrap_interval(pred, metric, weights), value, min(smallest_class(pred)))


_SHARES: Final[dict[str, Callable[[Predictions], np.ndarray]]] = {
    "accuracy": lambda pred: predicted_targets(pred) == pred.targets,
    "majority": lambda pred: pred.targets == np.bincount(pred.targets).argmax(),
}
"""Metrics that are shares of cases, as what is counted."""


def mask_interval(overlaps: Overlaps, metric: str, weights: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a metric of masks: t over groups for means over cases; nothing has width zero.

    Args:
        overlaps: One model's masks.
        metric: Name of a metric of masks.
        weights: (R, N) counts from `bootstrap_weights`.
    """
    value = measured(overlaps, metric)
    if has_influence(overlaps, metric) and (found := influence_interval(overlaps, metric, value)) is not None:
        return found
    return _with_width(bootstrap_interval(overlaps, metric, weights), value, len(np.unique(overlaps.groups)))


def _with_width(interval: tuple[float, float], value: float, num_groups: int) -> tuple[float, float]:
    """The interval of a metric, of a share that does not vary over replicates Wilson's.

    Args:
        interval: Its ends.
        value: The metric.
        num_groups: Groups that it hangs on.
    """
    is_flat = interval[0] == interval[1] and 0 <= value <= 1
    return wilson_interval(value * num_groups, num_groups) if is_flat else interval


INTERVALS: Final[dict[str, Callable[[Any, str, np.ndarray], tuple[float, float]]]] = {
    "labels": label_interval,
    "masks": mask_interval,
}
"""By kind of truth; where nothing better is known, the bootstrap over groups."""


def interval_of(judged: Judged, metric: str, weights: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a metric of one model.

    Args:
        judged: N cases.
        metric: Name of a metric that their measure has.
        weights: (R, N) counts from `bootstrap_weights`.
    """
    interval: Callable[[Any, str, np.ndarray], tuple[float, float]] = INTERVALS.get(judged.kind, bootstrap_interval)
    return interval(judged, metric, weights)


def estimate(seeds: Sequence[Judged], metric: str, weights: np.ndarray) -> Estimate:
    """Value and interval of the first seed (the saved model), mean and sd over the seeds where there are several.

    Args:
        seeds: One model's test cases, once per training seed, the saved model first.
        metric: Name of a metric that their measure has.
        weights: (R, N) counts from `bootstrap_weights`.
    """
    values = [measured(judged, metric) for judged in seeds]
    return Estimate(
        value=values[0],
        ci95=interval_of(seeds[0], metric, weights),
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def summarise(test: Judged | Sequence[Judged], weights: np.ndarray | None = None) -> ModelResult:
    """Every metric of one model with its interval, all classes together and each.

    Args:
        test: The test cases, once per seed, first seed first.
        weights: (R, N) counts from `bootstrap_weights`; drawn here with seed 0 if None.

    Raises:
        DataError: Unsound predictions, an absent class, or seeds with different cases.

    Examples:
        >>> from medgraft.types import Overlaps
        >>> masks = Overlaps(counts=np.array([[[2, 2, 1]], [[4, 4, 4]]]), groups=np.arange(2), classes=("vessel",))
        >>> summarise(masks, np.array([[1, 1], [2, 0], [0, 2]])).scores["dice"].value
        0.75
    """
    seeds = as_seeds(test)
    counts = bootstrap_weights(seeds[0]) if weights is None else weights
    measure = measure_of(seeds[0])
    per_class = {}
    for part in measure.classes(seeds[0]):
        names = [name for name in measure.metrics(part.judged) if name in measure.compared]
        scores = {name: estimate([part.judged], name, counts[:, part.rows]) for name in names}
        per_class[part.name] = ClassScores(num_cases=part.num_cases, scores=scores)
    return ModelResult(
        scores={name: estimate(seeds, name, counts) for name in measure.metrics(seeds[0])}, per_class=per_class
    )


def summarise_partial(pred: Predictions) -> ModelResult:
    """What cases of some classes alone say of a model: how often it is right on each, and nothing of how it ranks.

    Args:
        pred: One model's predictions of single labels.
    """
    is_right = predicted_targets(pred) == pred.targets
    per_class = {}
    for index in np.unique(pred.targets).tolist():
        shown = pred.targets == index
        value, ci95 = clustered_proportion(is_right[shown], pred.groups[shown])
        scores = {"accuracy": Estimate(value=value, ci95=ci95)}
        per_class[pred.classes[index]] = ClassScores(num_cases=int(shown.sum()), scores=scores)
    value, ci95 = clustered_proportion(is_right, pred.groups)
    return ModelResult(scores={"accuracy": Estimate(value=value, ci95=ci95)}, per_class=per_class)


def with_points(result: ModelResult, test: Predictions, val: Predictions, operating_point: str) -> ModelResult:
    """The result with operating points and a temperature, both fixed on validation.

    Args:
        result: Metrics of the model on `test`.
        test: Test predictions of the saved model.
        val: Its validation predictions.
        operating_point: ``youden`` or ``sensitivity=S``.

    Raises:
        ConfigError: No such operating point.
        DataError: Validation and test have other classes.
    """
    point = parse_operating_point(operating_point)
    if (val.classes, val.task, val.positive) != (test.classes, test.task, test.positive):
        raise DataError(
            f"validation and test must have the same classes, got {val.classes} and {test.classes}. "
            "Pass predictions of one model."
        )
    temperature = fit_temperature(val)
    scaled = apply_temperature(test, temperature)
    return dataclasses.replace(
        result,
        rule=operating_point,
        points=apply_thresholds(test, choose_thresholds(val, point)),
        scaled=Scaled(temperature=temperature, brier=brier(scaled), ece=ece(scaled)),
    )


def site_results(
    judged: Judged,
    sites: Sequence[str | None],
    minimum: int = _FEWEST_OF_A_SITE,
    num: int = 2000,
    seed: int = 0,
) -> dict[str, SiteResult]:
    """What is said of one model on each site with enough groups; for the others the reason why nothing is.

    Cases without a site are called ``(not stated)``.

    Args:
        judged: One model on a cohort.
        sites: (N,) site of each case, or None.
        minimum: Groups that a site needs; where there are labels, with and without each class (binary: of both
            classes).
        num: Bootstrap replicates per site.
        seed: Seeds the replicates.

    Raises:
        ConfigError: `minimum` below 2.
        DataError: Unsound predictions, or not one site per case.

    Examples:
        >>> pred = Predictions(probs=np.full((2, 2), 0.5), targets=np.array([0, 1]), groups=np.arange(2),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> site_results(pred, ["north", "north"])["north"].reason
        "fewer than 10 groups with and without 'sick': 1 and 1"
    """
    if minimum < 2:
        raise ConfigError(f"minimum must be at least 2, got {minimum}. 10 is the default.")
    names = np.array(["(not stated)" if site is None else site for site in sites], dtype=object)
    if names.shape != judged.groups.shape:
        raise DataError(f"expected one site for each of {len(judged.groups)} cases, got {len(names)}.")
    measure, results = measure_of(judged), {}
    measured(judged, measure.judges)  # an absent class is told of the whole, not of a site
    for name in sorted(set(names)):
        part = cases_of(judged, names == name)
        reason, scores = _too_few(part, minimum), {}
        if not reason:
            weights = bootstrap_weights(part, num, seed)
            scores = {
                metric: Estimate(value=measured(part, metric), ci95=interval_of(part, metric, weights))
                for metric in measure.metrics(part)
            }
        num_groups = len(np.unique(part.groups))
        results[name] = SiteResult(num_cases=len(part.groups), num_groups=num_groups, scores=scores, reason=reason)
    return results


def _too_few(judged: Judged, minimum: int) -> str:
    """Why the cases are too few for intervals; empty where they are not."""
    return TOO_FEW.get(judged.kind, too_few_groups)(judged, minimum)


def too_few_groups(judged: Judged, minimum: int) -> str:
    """Why the groups are too few for intervals; empty where they are not.

    Args:
        judged: Cases.
        minimum: Groups.
    """
    num_groups = len(np.unique(judged.groups))
    return f"fewer than {minimum} groups: {num_groups}" if num_groups < minimum else ""


def _too_few_of_a_class(judged: Predictions, minimum: int) -> str:
    columns = range(len(judged.classes)) if judged.positive is None else (judged.positive,)
    for column in columns:
        is_many = judged.task == "multilabel"
        truth = judged.targets[:, column] if is_many else (judged.targets == column).astype(float)
        counts = len(np.unique(judged.groups[truth == 1])), len(np.unique(judged.groups[truth == 0]))
        if min(counts) < minimum:
            name = judged.classes[column]
            return f"fewer than {minimum} groups with and without {name!r}: {counts[0]} and {counts[1]}"
    for part in one_vs_rest(judged, is_partial=True):
        if all(len(np.unique(part.labels[members])) < 2 for members in part.strata):
            return f"no fold tested cases with and without {part.name!r}"
    return ""


TOO_FEW: Final[dict[str, Callable[[Any, int], str]]] = {"labels": _too_few_of_a_class}
"""What a site must hold, by kind of truth; where nothing more is known, groups alone."""
