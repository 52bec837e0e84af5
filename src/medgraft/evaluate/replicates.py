"""Bootstrap replicates as counts: whole groups (patients) drawn again, stratified by class.

They are drawn once per set of cases and used for every model, seed and metric: that is what makes
differences paired.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from medgraft.errors import ConfigError, DataError
from medgraft.metrics.cases import OneVsRest, by_rarest, check_predictions, one_vs_rest
from medgraft.metrics.ranking import replicate_chunks
from medgraft.types import Judged, Kind, Predictions

__all__ = ["RESAMPLED", "bootstrap_weights", "group_strata", "in_one_stratum", "replicate_weights"]

_REDRAWS = 100


def group_strata(pred: Predictions) -> np.ndarray:
    """(N,) stratum of each case: the rarest class (by cases in `pred`) that any case of its group has.

    For groups of one class that is the class. For mixed groups the rarest counts, because its number of
    groups is then the same in every replicate. Multilabel cases without any label form a stratum of their
    own, numbered C.

    Args:
        pred: Checked here.

    Raises:
        DataError: Unsound predictions.

    Examples:
        >>> pred = Predictions(probs=np.full((4, 2), 0.5), targets=np.array([0, 0, 0, 1]),
        ...                    groups=np.array([7, 8, 9, 9]),
        ...                    classes=("no", "yes"), task="binary", positive=1)
        >>> group_strata(pred).tolist()
        [0, 0, 1, 1]
    """
    check_predictions(pred)
    num_classes = len(pred.classes)
    has = pred.targets == 1 if pred.task == "multilabel" else pred.targets[:, None] == np.arange(num_classes)
    ranks, columns = by_rarest(has)
    _, inverse = np.unique(pred.groups, return_inverse=True)
    rarest = np.full(inverse.max() + 1, num_classes)
    np.minimum.at(rarest, inverse, ranks)
    return np.append(columns, num_classes)[rarest][inverse]


def replicate_weights(groups: np.ndarray, strata: np.ndarray, num: int = 2000, seed: int = 0) -> np.ndarray:
    """(num, N) uint8: how often each case is in each bootstrap replicate.

    In every stratum as many groups as there are, drawn with replacement; a case counts as often as its
    group. So a stratum is never empty.

    Args:
        groups: (N,) integers, equal for the cases of one patient.
        strata: (N,) integers, the same for all cases of a group.
        num: Replicates.
        seed: Seeds the draws.

    Raises:
        ConfigError: `num` below 1.
        DataError: Shapes disagree, or a group lies in two strata.

    References:
        Field and Welsh, Bootstrapping clustered data, JRSS B, 2007.

    Examples:
        >>> weights = replicate_weights(np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1]), num=100)
        >>> bool((weights[:, 0] == weights[:, 1]).all()), np.unique(weights[:, 3]).tolist()
        (True, [1])
    """
    if num < 1:
        raise ConfigError(f"num must be at least 1, got {num}. 2000 is usual.")
    if groups.ndim != 1 or groups.shape != strata.shape or len(groups) == 0:
        raise DataError(
            f"groups and strata must both have the shape (N,) with N of at least 1, got {groups.shape} and "
            f"{strata.shape}. Pass one row per case."
        )
    names, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    stratum_of = strata[first]
    if (strata != stratum_of[inverse]).any():
        case = int(np.flatnonzero(strata != stratum_of[inverse])[0])
        raise DataError(
            f"a group must lie in one stratum, got group {groups[case]} in {stratum_of[inverse[case]]} and "
            f"{strata[case]}. Take the strata from `group_strata`."
        )
    rng = np.random.default_rng(seed)
    out = np.empty((num, len(groups)), dtype=np.uint8)
    for rows in replicate_chunks(num, len(groups)):
        height = rows.stop - rows.start
        # A count is about Poisson(1), so 255 is never passed.
        counts = np.empty((height, len(names)), dtype=np.uint8)
        for stratum in np.unique(stratum_of):
            members = np.flatnonzero(stratum_of == stratum)
            size = len(members)
            draws = rng.integers(0, size, (height, size)) + size * np.arange(height)[:, None]
            counts[:, members] = np.bincount(draws.ravel(), minlength=height * size).reshape(height, size)
        out[rows] = counts[:, inverse]
    return out


def bootstrap_weights(pred: Judged, num: int = 2000, seed: int = 0) -> np.ndarray:
    """(num, N) uint8 replicates of the cases of `pred`, each with every class present.

    Groups are resampled within `group_strata`. Where groups hold several classes or labels a replicate can
    still miss one; such replicates are drawn again. Cases with masks form one stratum.

    Args:
        pred: Predictions of any model; probabilities do not matter, so all models of one set share the replicates.
        num: Replicates.
        seed: Seeds the draws.

    Raises:
        ConfigError: `num` below 1.
        DataError: A class is absent, or hangs on so few groups that replicates keep missing it.

    Examples:
        >>> pred = Predictions(probs=np.full((4, 2), 0.5), targets=np.array([0, 0, 1, 1]),
        ...                    groups=np.arange(4), classes=("no", "yes"), task="binary", positive=1)
        >>> bootstrap_weights(pred, num=50)[:, 2:].sum(axis=1).tolist() == [2] * 50
        True
    """
    return RESAMPLED[pred.kind](pred, num, seed)


def _within_strata(pred: Predictions, num: int, seed: int) -> np.ndarray:
    """(num, N) uint8 replicates with every class present; those that miss one are drawn again.

    Args:
        pred: Predictions of labels.
        num: Replicates.
        seed: Seeds the draws.
    """
    parts = one_vs_rest(pred)
    strata = group_strata(pred)
    weights = replicate_weights(pred.groups, strata, num, seed)
    rows = np.arange(num)
    for attempt in range(_REDRAWS):
        lacking = {part.name: _lacks(weights, rows, part) for part in parts}
        rows = rows[np.any(list(lacking.values()), axis=0)]
        if len(rows) == 0:
            return weights
        # Not seed + attempt: replicates of neighbouring seeds would repeat each other.
        fresh = int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
        weights[rows] = replicate_weights(pred.groups, strata, len(rows), fresh)
    worst = max(lacking, key=lambda name: int(lacking[name].sum()))
    raise DataError(
        f"expected replicates with and without {worst!r} cases, but after {_REDRAWS} draws {len(rows)} of "
        f"{num} still miss one. It hangs on too few groups: use a larger set, or leave the class out."
    )


def in_one_stratum(judged: Judged, num: int, seed: int) -> np.ndarray:
    """(num, N) uint8 replicates of cases that have no classes to be kept apart.

    Args:
        judged: N cases.
        num: Replicates.
        seed: Seeds the draws.
    """
    return replicate_weights(judged.groups, np.zeros(len(judged.groups), dtype=np.int64), num, seed)


def _lacks(weights: np.ndarray, rows: np.ndarray, question: OneVsRest) -> np.ndarray:
    """(len(rows),) bool: whether a replicate is without positive or without negative cases.

    Args:
        weights: (R, N) counts.
        rows: Which of the replicates are asked about.
        question: One class against all others.
    """
    out = np.empty(len(rows), dtype=bool)
    positive, negative = question.rows[question.labels], question.rows[~question.labels]
    for part in replicate_chunks(len(rows), weights.shape[1]):
        drawn = weights[rows[part]] > 0
        out[part] = ~(drawn[:, positive].any(axis=1) & drawn[:, negative].any(axis=1))
    return out


RESAMPLED: Final[dict[Kind, Callable[[Any, int, int], np.ndarray]]] = {
    "labels": _within_strata,
    "masks": in_one_stratum,
}
"""How cases are drawn again, by kind of truth."""
