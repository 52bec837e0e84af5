"""What every metric needs to know of a set of cases: are they sound, who is positive, what was predicted."""

import dataclasses

import numpy as np

from medgraft.errors import DataError
from medgraft.types import Predictions

__all__ = [
    "OneVsRest",
    "by_rarest",
    "check_predictions",
    "known_labels",
    "one_vs_rest",
    "pooled",
    "predicted_targets",
    "unit_means",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneVsRest:
    """One class against all others.

    Args:
        name: Name of the class.
        rows: (K,) int64: the cases of which it is known whether they have the class.
        scores: (K,) probability of the class, 0 to 1.
        labels: (K,) bool, True where the case has the class.
        strata: Parts of the K cases, as positions, within which scores can be ranked: those that one model judged.
    """

    name: str
    rows: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    strata: tuple[np.ndarray, ...]


def check_predictions(pred: Predictions) -> None:
    """Nothing, when shapes, probabilities and targets of `pred` fit together.

    Args:
        pred: The predictions to check.

    Raises:
        DataError: Shapes disagree, a probability is NaN or outside 0 to 1, the probabilities of a case do
            not sum to 1 (binary, multiclass), or a target is no class.
    """
    _check_shapes(pred)
    _check_probs(pred)
    if pred.task == "multilabel":
        wrong = known_labels(pred) & ~np.isin(pred.targets, (0, 1))
        expected = "0 or 1 (NaN: not known)"
    else:
        wrong = ~np.isin(pred.targets, np.arange(len(pred.classes)))
        expected = f"a class index from 0 to {len(pred.classes) - 1}"
    if wrong.any():
        where = np.argwhere(wrong)[0]
        raise DataError(
            f"targets must be {expected}, got {pred.targets[tuple(where)]} for case {where[0]}. "
            "Check the labels of this set."
        )


def known_labels(pred: Predictions) -> np.ndarray:
    """(N, C) bool for multilabel, else (N, 1) of True: where the truth is known.

    Args:
        pred: Not checked here.

    Examples:
        >>> pred = Predictions(probs=np.full((2, 2), 0.5), targets=np.array([[0, 1], [np.nan, 1]]),
        ...                    groups=np.arange(2), classes=("a", "b"), task="multilabel")
        >>> known_labels(pred).tolist()
        [[True, True], [False, True]]
    """
    if pred.task != "multilabel":
        return np.ones((len(pred.targets), 1), dtype=bool)
    return np.asarray(~np.isnan(pred.targets.astype(np.float64)))


def _check_shapes(pred: Predictions) -> None:
    num_cases, num_classes = len(pred.probs), len(pred.classes)
    targets = (num_cases, num_classes) if pred.task == "multilabel" else (num_cases,)
    expected = ((num_cases, num_classes), targets, (num_cases,))
    got = (pred.probs.shape, pred.targets.shape, pred.groups.shape)
    if expected != got:
        raise DataError(
            f"probs, targets and groups of a {pred.task} task must have the shapes {expected}, got {got}. "
            "Pass one row per case and one column per class."
        )
    if num_cases == 0:
        raise DataError("expected at least one case, got none. Check that the split or site is not empty.")
    if pred.task == "binary" and (num_classes != 2 or pred.positive not in (0, 1)):
        raise DataError(
            f"a binary task needs two classes and positive = 0 or 1, got {num_classes} classes "
            f"and positive = {pred.positive}. Name the positive class."
        )


def _check_probs(pred: Predictions) -> None:
    # Written so that NaN fails as well.
    wrong = ~((pred.probs >= 0) & (pred.probs <= 1))
    if wrong.any():
        case, column = np.argwhere(wrong)[0]
        raise DataError(
            f"probabilities must lie between 0 and 1, got {pred.probs[case, column]} for case {case}, class "
            f"{pred.classes[column]!r} ({int(wrong.sum())} such values). A network that diverged gives NaN: "
            "lower its learning rate."
        )
    if pred.task == "multilabel":
        return
    totals = pred.probs.sum(axis=1)
    # Half precision softmax is off by up to some 1e-3.
    off = np.abs(totals - 1) > 1e-2
    if off.any():
        case = int(np.flatnonzero(off)[0])
        raise DataError(
            f"the probabilities of a case must sum to 1, got {totals[case]:.4f} for case {case}. "
            "Pass softmax outputs, or call the task multilabel."
        )


def one_vs_rest(pred: Predictions, *, is_partial: bool = False) -> tuple[OneVsRest, ...]:
    """The two-class questions behind `pred`: the positive class (binary), every class, or every label.

    Args:
        pred: Checked here.
        is_partial: Whether a class may be absent.

    Raises:
        DataError: A class has no case, or (one-vs-rest) nothing but its cases; the message names it.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.array([0, 1]), classes=("normal", "sick"), task="binary", positive=1)
        >>> [(part.name, part.scores.tolist()) for part in one_vs_rest(pred)]
        [('sick', [0.1, 0.8])]
    """
    check_predictions(pred)
    columns = range(len(pred.classes)) if pred.positive is None else (pred.positive,)
    is_known = known_labels(pred)
    parts = []
    for column in columns:
        rows = np.flatnonzero(is_known[:, column if pred.task == "multilabel" else 0])
        labels = pred.targets[:, column] == 1 if pred.task == "multilabel" else pred.targets == column
        scores = pred.probs[rows, column].astype(np.float64)
        parts.append(
            OneVsRest(
                name=pred.classes[column], rows=rows, scores=scores, labels=labels[rows], strata=_strata(pred, rows)
            )
        )
    for part in parts:
        if is_partial or (part.labels.any() and not part.labels.all()):
            continue
        absent = part.name if not part.labels.any() else _rest_of(pred, part.name)
        raise DataError(
            f"expected cases of every class, got none of {absent!r} among {len(part.labels)}. "
            "Use a larger or stratified set, or leave the class out."
        )
    return tuple(parts)


def _strata(pred: Predictions, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    if pred.strata is None:
        return (np.arange(len(rows)),)
    strata = pred.strata[rows]
    return tuple(np.flatnonzero(strata == name) for name in np.unique(strata))


def _rest_of(pred: Predictions, name: str) -> str:
    rest = [other for other in pred.classes if other != name]
    return rest[0] if pred.task == "binary" else f"not {name}"


def predicted_targets(pred: Predictions) -> np.ndarray:
    """What is called: (N,) class indices, or (N, C) of 0 and 1 for multilabel.

    The largest probability wins (the first of equals); binary and multilabel call positive above 0.5,
    strictly.

    Args:
        pred: Not checked here.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.5, 0.5], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.array([0, 1]), classes=("normal", "sick"), task="binary", positive=1)
        >>> predicted_targets(pred).tolist()
        [0, 1]
    """
    if pred.task == "multilabel":
        return (pred.probs > 0.5).astype(np.int64)
    if pred.positive is not None:
        is_positive = pred.probs[:, pred.positive] > 0.5
        return np.where(is_positive, pred.positive, 1 - pred.positive).astype(np.int64)
    return np.asarray(pred.probs.argmax(axis=1), dtype=np.int64)


def by_rarest(has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) rank of the rarest column that each case has, C where it has none, and (C,) the columns by rarity.

    Args:
        has: (N, C) bool.

    Examples:
        >>> ranks, columns = by_rarest(np.array([[True, False], [True, True], [False, False]]))
        >>> ranks.tolist(), columns.tolist()
        ([1, 0, 2], [1, 0])
    """
    columns = np.argsort(has.sum(axis=0), kind="stable")
    # argmax finds the first True, that is the rarest column; the extra one stands for none.
    return np.column_stack((has[:, columns], np.ones(len(has), dtype=bool))).argmax(axis=1), columns


def pooled(pred: Predictions, units: np.ndarray) -> Predictions:
    """One case for each unit: the mean of its images' probabilities, the truth and group of its first.

    Args:
        pred: Predictions of images.
        units: (N,) number of each image's unit, counted from 0 in order of first appearance.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]), targets=np.array([0, 0, 1]),
        ...                    groups=np.array([4, 4, 7]), classes=("a", "b"), task="binary", positive=1)
        >>> pooled(pred, np.array([0, 0, 1])).probs.tolist()
        [[0.7, 0.3], [0.2, 0.8]]
    """
    if len(units) == 0 or units[-1] == len(units) - 1:
        return pred
    first = np.unique(units, return_index=True)[1]
    probs = unit_means(pred.probs, units)
    strata = None if pred.strata is None else pred.strata[first]
    return dataclasses.replace(pred, probs=probs, targets=pred.targets[first], groups=pred.groups[first], strata=strata)


def unit_means(probs: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(U, C) mean of the known rows of each unit; NaN where none is known.

    Args:
        probs: (N, C), NaN in the rows of images that could not be read.
        units: (N,) number of each image's unit, counted from 0.
    """
    is_known = np.isfinite(probs).all(1)
    count = np.bincount(units[is_known], minlength=int(units.max()) + 1)
    sums = np.zeros((len(count), probs.shape[1]))
    np.add.at(sums, units[is_known], probs[is_known])
    return sums / np.where(count, count, np.nan)[:, None]
