"""The `test` part of results.json for masks: one model's overlaps with intervals, all classes together and each."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from medgraft.evaluate.bootstrap import as_seeds, bootstrap_interval
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.metrics.scores import MASK_METRICS, weighted_overlap
from medgraft.types import Overlaps

__all__ = ["FEWEST_GROUPS", "cases_of", "mask_metrics", "site_overlaps", "summarise_masks"]

FEWEST_GROUPS: Final = 6
"""Of a verdict: with fewer, even differences of one sign throughout have a p above .05 (a sign test)."""
_FEWEST_OF_A_SITE: Final = 10


def mask_metrics(found: Overlaps) -> tuple[str, ...]:
    """Names of what was measured, the deciding one first."""
    of_areas = ("dice", "pooled_dice", "jaccard")
    return tuple(name for name in MASK_METRICS if name in of_areas or found.surfaces is not None)


def summarise_masks(test: Overlaps | Sequence[Overlaps], weights: np.ndarray) -> dict[str, Any]:
    """One model's part of ``test`` in results.json, plain JSON types.

    Every metric is value, ci95, mean, sd: value and interval of the first seed (the saved model), mean and sd (None for
    one seed) over the seeds. A value is the mean over cases of the mean over classes, of ``pooled_dice`` over all
    pixels together; ``per_class`` has value and ci95 of each class.

    Args:
        test: Of the test cases, one per seed, first seed first.
        weights: (R, N) counts from `bootstrap_weights`.

    Raises:
        DataError: Seeds with different cases.

    Examples:
        >>> found = Overlaps(counts=np.array([[[2, 2, 1]], [[4, 4, 4]]]), groups=np.arange(2), classes=("vessel",))
        >>> summarise_masks(found, np.array([[1, 1], [2, 0], [0, 2]]))["dice"]["value"]
        0.75
    """
    seeds = as_seeds(test)
    metrics = mask_metrics(seeds[0])
    per_class = {}
    for index, name in enumerate(seeds[0].classes):
        one = _class(seeds[0], index)
        per_class[name] = {metric: _interval(one, metric, weights) for metric in metrics}
    return {**{metric: _over_seeds(seeds, metric, weights) for metric in metrics}, "per_class": per_class}


def site_overlaps(
    found: Overlaps, sites: Sequence[str | None], num: int = 2000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Site name to every metric with value and ci95, for sites with enough groups; else the reason.

    Args:
        found: One model's overlaps on a cohort.
        sites: (N,) site of each case, or None.
        num: Bootstrap replicates per site.
        seed: Of the replicates.
    """
    names = np.array(["(not stated)" if site is None else site for site in sites], dtype=object)
    out: dict[str, dict[str, Any]] = {}
    for name in sorted(set(names)):
        part = cases_of(found, names == name)
        groups = len(np.unique(part.groups))
        row: dict[str, Any] = {"num_cases": len(part.groups), "num_groups": groups}
        if groups < _FEWEST_OF_A_SITE:
            out[name] = row | {"reason": f"fewer than {_FEWEST_OF_A_SITE} groups: {groups}"}
            continue
        weights = bootstrap_weights(part, num, seed)
        out[name] = row | {metric: _interval(part, metric, weights) for metric in mask_metrics(part)}
    return out


def cases_of(found: Overlaps, keep: np.ndarray) -> Overlaps:
    """The same of some cases alone (numbers, or a mask of them)."""
    surfaces = None if found.surfaces is None else found.surfaces[keep]
    return dataclasses.replace(found, counts=found.counts[keep], groups=found.groups[keep], surfaces=surfaces)


def _class(found: Overlaps, index: int) -> Overlaps:
    part = slice(index, index + 1)
    surfaces = None if found.surfaces is None else found.surfaces[:, part]
    return dataclasses.replace(found, counts=found.counts[:, part], surfaces=surfaces, classes=(found.classes[index],))


def _value(found: Overlaps, metric: str) -> float:
    return float(weighted_overlap(found, metric, np.ones((1, len(found.groups))))[0])


def _interval(found: Overlaps, metric: str, weights: np.ndarray) -> dict[str, Any]:
    return {"value": _value(found, metric), "ci95": list(bootstrap_interval(found, metric, weights))}


def _over_seeds(seeds: Sequence[Overlaps], metric: str, weights: np.ndarray) -> dict[str, Any]:
    values = [_value(found, metric) for found in seeds]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {**_interval(seeds[0], metric, weights), "mean": float(np.mean(values)), "sd": spread}
