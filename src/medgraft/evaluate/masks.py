"""The `test` part of results.json for masks: one model's overlaps with intervals, all classes together and each."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from medgraft.evaluate.bootstrap import as_seeds, bootstrap_interval
from medgraft.metrics.scores import MASK_METRICS, weighted_overlap
from medgraft.types import Overlaps

__all__ = ["mask_metrics", "summarise_masks"]


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
