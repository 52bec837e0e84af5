"""The metrics of a classifier, one number each.

Labels that are not known (multilabel, NaN) take no part. All take `Predictions` and raise `DataError` on NaN among the
probabilities; AUROC, AUPRC and balanced accuracy also when a class is absent, because a mean over the remaining classes
would be another number under the same name.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from medgraft.metrics.cases import check_predictions, known_labels, one_vs_rest, predicted_targets
from medgraft.metrics.weighted import part_auprc, part_auroc, weighted_metric
from medgraft.types import Predictions

__all__ = [
    "METRICS",
    "accuracy",
    "auprc",
    "auprc_per_class",
    "auroc",
    "auroc_per_class",
    "balanced_accuracy",
    "brier",
    "confusion",
    "ece",
    "majority_rate",
    "quadratic_kappa",
]


def auroc(pred: Predictions) -> float:
    """Area under the ROC curve, 0 to 1: positive class (binary), else the unweighted mean one-vs-rest.

    Args:
        pred: With every class present.

    Raises:
        DataError: Unsound predictions or an absent class.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]),
        ...                    targets=np.array([0, 1, 1]), groups=np.arange(3),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> auroc(pred)
        1.0
    """
    return _once(pred, "auroc")


def auprc(pred: Predictions) -> float:
    """Step-wise average precision, 0 to 1: positive class (binary), else the mean one-vs-rest.

    Args:
        pred: With every class present.

    Raises:
        DataError: Unsound predictions or an absent class.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]),
        ...                    targets=np.array([1, 0, 1]), groups=np.arange(3),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> round(auprc(pred), 4)
        0.8333
    """
    return _once(pred, "auprc")


def auroc_per_class(pred: Predictions) -> dict[str, float]:
    """AUROC of each class against the rest; binary: of the positive class alone.

    Args:
        pred: With every class present.

    Raises:
        DataError: Unsound predictions or an absent class.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.arange(2), classes=("normal", "sick"), task="binary", positive=1)
        >>> auroc_per_class(pred)
        {'sick': 1.0}
    """
    parts = one_vs_rest(pred)
    return {part.name: float(part_auroc(part, np.ones((1, len(part.rows))))[0]) for part in parts}


def auprc_per_class(pred: Predictions) -> dict[str, float]:
    """Average precision of each class against the rest; binary: of the positive class alone.

    Args:
        pred: With every class present.

    Raises:
        DataError: Unsound predictions or an absent class.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.2, 0.8]]), targets=np.array([0, 1]),
        ...                    groups=np.arange(2), classes=("normal", "sick"), task="binary", positive=1)
        >>> auprc_per_class(pred)
        {'sick': 1.0}
    """
    parts = one_vs_rest(pred)
    return {part.name: float(part_auprc(part, np.ones((1, len(part.rows))))[0]) for part in parts}


def accuracy(pred: Predictions) -> float:
    """Share of cases called rightly (largest probability; binary > 0.5), 0 to 1.

    Multilabel: each label called at > 0.5, mean over labels.

    Args:
        pred: Any non-empty set.

    Raises:
        DataError: Unsound predictions.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.5, 0.5], [0.2, 0.8]]), targets=np.array([0, 0]),
        ...                    groups=np.arange(2), classes=("normal", "sick"), task="binary", positive=1)
        >>> accuracy(pred)
        0.5
    """
    return _once(pred, "accuracy")


def majority_rate(pred: Predictions) -> float:
    """The accuracy of always calling the most frequent class; belongs beside every accuracy.

    Multilabel: of always calling each label's more frequent state, mean over labels.

    Args:
        pred: Any non-empty set.

    Raises:
        DataError: Unsound predictions.

    Examples:
        >>> pred = Predictions(probs=np.full((4, 2), 0.5), targets=np.array([0, 0, 0, 1]),
        ...                    groups=np.arange(4), classes=("normal", "sick"), task="binary", positive=1)
        >>> majority_rate(pred)
        0.75
    """
    return _once(pred, "majority")


def balanced_accuracy(pred: Predictions) -> float:
    """Mean over classes of the share of their cases called rightly, 0 to 1.

    Multilabel: the mean of sensitivity and specificity at 0.5, mean over labels.

    Args:
        pred: With every class present.

    Raises:
        DataError: Unsound predictions or an absent class.

    Examples:
        >>> pred = Predictions(probs=np.tile([0.9, 0.1], (4, 1)), targets=np.array([0, 0, 0, 1]),
        ...                    groups=np.arange(4), classes=("normal", "sick"), task="binary", positive=1)
        >>> balanced_accuracy(pred)
        0.5
    """
    return _once(pred, "balanced_accuracy")


def brier(pred: Predictions) -> float:
    """Mean squared error of the probabilities, lower is better.

    Binary: of the positive class, 0 to 1. Multiclass and multilabel: summed over the classes.

    Args:
        pred: Any non-empty set.

    Raises:
        DataError: Unsound predictions.

    References:
        Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review, 1950.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.5, 0.5], [0.0, 1.0]]), targets=np.array([0, 1]),
        ...                    groups=np.arange(2), classes=("normal", "sick"), task="binary", positive=1)
        >>> brier(pred)
        0.125
    """
    return _once(pred, "brier")


def ece(pred: Predictions) -> float:
    """Expected calibration error of what was called, 0 to 1, over 15 equal-width bins.

    The confidence is that of the called class, for binary max(p, 1 - p); its distance to the share called
    rightly is averaged over bins by their cases. Multilabel: each label as a binary task, mean over labels.
    Upward biased in small sets.

    Args:
        pred: Any non-empty set.

    Raises:
        DataError: Unsound predictions.

    References:
        Guo et al., On calibration of modern neural networks, ICML, 2017.

    Examples:
        >>> pred = Predictions(probs=np.tile([0.25, 0.75], (4, 1)), targets=np.array([1, 1, 1, 0]),
        ...                    groups=np.arange(4), classes=("normal", "sick"), task="binary", positive=1)
        >>> ece(pred)
        0.0
    """
    return _once(pred, "ece")


def quadratic_kappa(pred: Predictions) -> float:
    """Agreement of grades beyond chance, quadratically weighted: 1 is perfect, 0 is chance.

    Args:
        pred: Multiclass; the classes are grades in their order.

    Raises:
        ConfigError: Another task.
        DataError: Unsound predictions.

    References:
        Cohen, Weighted kappa: nominal scale agreement with provision for scaled disagreement or partial credit,
        Psychological Bulletin, 1968.

    Examples:
        >>> pred = Predictions(probs=np.eye(3), targets=np.array([0, 1, 1]), groups=np.arange(3),
        ...                    classes=("none", "mild", "severe"), task="multiclass", is_ordinal=True)
        >>> round(quadratic_kappa(pred), 3)
        0.667
    """
    return _once(pred, "kappa")


def confusion(pred: Predictions) -> np.ndarray:
    """Counts of true class (row) by called class (column): (C, C), or (C, 2, 2) for multilabel.

    Args:
        pred: Any non-empty set.

    Raises:
        DataError: Unsound predictions.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.8, 0.2]]), targets=np.array([0, 1]),
        ...                    groups=np.arange(2), classes=("normal", "sick"), task="binary", positive=1)
        >>> confusion(pred).tolist()
        [[1, 0], [1, 0]]
    """
    check_predictions(pred)
    called = predicted_targets(pred)
    if pred.task == "multilabel":
        pairs = zip(pred.targets.T, called.T, known_labels(pred).T, strict=True)
        return np.stack([_crossed(truth[is_known], calls[is_known], 2) for truth, calls, is_known in pairs])
    return _crossed(pred.targets, called, len(pred.classes))


def _crossed(targets: np.ndarray, called: np.ndarray, num_classes: int) -> np.ndarray:
    """(C, C) counts of true class (row) by called class (column).

    Args:
        targets: (N,) true class indices.
        called: (N,) called class indices.
        num_classes: C.
    """
    cells = np.bincount(targets.astype(np.int64) * num_classes + called, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def _once(pred: Predictions, metric: str) -> float:
    return float(weighted_metric(pred, metric, np.ones((1, len(pred.probs))))[0])


METRICS: Final[dict[str, Callable[[Predictions], float]]] = {
    "auroc": auroc,
    "auprc": auprc,
    "accuracy": accuracy,
    "majority": majority_rate,
    "balanced_accuracy": balanced_accuracy,
    "brier": brier,
    "ece": ece,
}
