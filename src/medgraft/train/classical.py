"""Heads that are solved instead of trained: classical classifiers on features, as plain tensors (scikit-learn)."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import Tensor

from medgraft.errors import ConfigError, DataError
from medgraft.metrics.cases import by_rarest
from medgraft.transfer.heads import CLASSICAL, AttentionHead, ClassicalHead, HeadSettings
from medgraft.transfer.model import Head, TransferModel
from medgraft.types import Task

__all__ = ["Labelled", "fit_classical", "fit_linear", "solvable_divisions", "solve_head"]

_FOLDS: Final = 5
_NUM_TREES: Final = 300


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Features with their truth.

    Args:
        features: (n, d) float32.
        targets: (n,) class indices or (n, C) 0/1.
        groups: (n,); cases of one group are never on both sides of a division.
        task: Task of the cohort.
        positive: Index of the positive class of a binary task.
        num_classes: C.
    """

    features: np.ndarray
    targets: np.ndarray
    groups: np.ndarray
    task: Task
    positive: int | None
    num_classes: int

    def columns(self) -> list[np.ndarray]:
        """One 0/1 truth per output: the positive class, each class, or each label; -1 where it is not known."""
        if self.task == "binary":
            return [(self.targets == (1 if self.positive is None else self.positive)).astype(np.int64)]
        if self.task == "multilabel":
            # What a training is told of an uncertain label may be a share: solvers know 0, 1, and nothing (-1).
            is_known = np.isin(self.targets, (0, 1))
            return list(np.where(is_known, self.targets, -1).astype(np.int64).T)
        return [(self.targets == column).astype(np.int64) for column in range(self.num_classes)]


def solve_head(model: TransferModel, head: HeadSettings, data: Labelled, seed: int) -> Head:
    """The head of `model`, solved on `data`: its own linear one, or a classical one in its place.

    Args:
        model: Its own head is solved in place where it is linear.
        head: Its kind decides between a linear head and a classical one.
        data: Training features as the head pools them, with their truth.
        seed: Seeds divisions and forests.

    Raises:
        DataError: A class has too few groups for a division.
    """
    if head.kind in CLASSICAL:
        return fit_classical(head.kind, data, model.trunk.cut.channel_axis, seed)
    solved = model.label_head.cpu()
    if isinstance(solved, (ClassicalHead, AttentionHead)):
        raise ConfigError(f"expected a linear head to solve, got {head.kind}. Use another head or solver.")
    with torch.no_grad():
        x = solved.norm(torch.from_numpy(data.features)).numpy()
        weight, bias = fit_linear(dataclasses.replace(data, features=x), seed)
        solved.linear.weight.copy_(weight)
        solved.linear.bias.copy_(bias)
    return solved


def fit_linear(data: Labelled, seed: int) -> tuple[Tensor, Tensor]:
    """Weight (outputs, d) and bias (outputs,) of a logistic regression solved to convergence.

    Features are standardised while it is solved, which is folded into the weights. The strength of the L2 penalty
    is chosen by grouped cross-validation (log loss). Multiclass is multinomial, multilabel one per label.

    Raises:
        DataError: A class has too few groups for a division.
    """
    mean, scale = _standardisation(data.features)
    x = (data.features - mean) / scale
    truths = [data.targets] if data.task == "multiclass" else data.columns()
    weights, biases = [], []
    for truth in truths:
        is_known = truth >= 0
        model = _best_logistic(x[is_known], truth[is_known], data.groups[is_known], seed)
        coef = model.coef_ if data.task == "multiclass" else model.coef_[:1]
        weights.append(coef / scale)
        biases.append(model.intercept_ - coef @ (mean / scale))
    return torch.tensor(np.concatenate(weights)).float(), torch.tensor(np.concatenate(biases)).float()


def _best_logistic(x: np.ndarray, truth: np.ndarray, groups: np.ndarray, seed: int) -> LogisticRegression:
    """A logistic regression on all cases, its penalty chosen by grouped cross-validation (log loss).

    Args:
        x: (n, d) standardised features.
        truth: (n,) class indices.
        groups: (n,) group of each case.
        seed: Seeds the divisions.
    """
    divisions = list(_divisions(truth, groups, seed))
    labels = np.unique(truth)

    def loss(strength: float) -> float:
        losses = []
        for rest, held in divisions:
            model = _logistic(strength).fit(x[rest], truth[rest])
            losses.append(log_loss(truth[held], model.predict_proba(x[held]), labels=labels))
        return float(np.mean(losses))

    strengths = np.logspace(-4, 2, 7) * 10 / len(x)
    return _logistic(min(strengths, key=loss)).fit(x, truth)


def _logistic(strength: float) -> LogisticRegression:
    return LogisticRegression(C=float(strength), max_iter=2000, tol=1e-6)


def fit_classical(kind: str, data: Labelled, channel_axis: int, seed: int) -> ClassicalHead:
    """A calibrated classical head: one-vs-rest, settings and calibration from grouped out-of-fold scores.

    Args:
        kind: A kind of `medgraft.transfer.heads.CLASSICAL`.
        data: The training features.
        channel_axis: Where the channels of the features lie that the head will see: 1 or -1.
        seed: Seeds divisions and forests.

    Raises:
        DataError: A class has too few groups for a division.
    """
    mean, scale = _standardisation(data.features)
    x = ((data.features - mean) / scale).astype(np.float32)
    truths = data.columns()
    if any((truth < 0).any() for truth in truths):
        raise DataError(
            f"expected every training label to be known for --head {kind}, got uncertain or blank ones. Use a linear "
            "head (ttl, ftl, frozen), or --uncertain zeros|ones with --blank negative."
        )
    divisions = [list(_divisions(truth, data.groups, seed)) for truth in truths]
    tried = []
    for make in _CANDIDATES[kind](len(x), x.shape[1], seed):
        unseen = [_unseen_scores(kind, make, x, truth, parts) for truth, parts in zip(truths, divisions, strict=True)]
        precision = [
            average_precision_score(truth[held], scores) for truth, (held, scores) in zip(truths, unseen, strict=True)
        ]
        tried.append((float(np.mean(precision)), make, unseen))
    _, make, unseen = max(tried, key=lambda entry: entry[0])
    # Platt: one logistic curve through scores that the classifier gave to cases it had not seen.
    curves = [
        LogisticRegression(C=1e6, max_iter=1000).fit(scores[:, None], truth[held])
        for truth, (held, scores) in zip(truths, unseen, strict=True)
    ]
    outputs = [make().fit(x, truth) for truth in truths]
    shared = {
        "mean": torch.tensor(mean).float(),
        "scale": torch.tensor(scale).float(),
        "slope": torch.tensor([float(curve.coef_[0, 0]) for curve in curves]),
        "offset": torch.tensor([float(curve.intercept_[0]) for curve in curves]),
    }
    return ClassicalHead(kind, data.task, channel_axis, {**shared, **_TENSORS[kind](outputs, x, data)})


def _standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, scale = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    return mean, np.where(scale > 1e-8, scale, 1.0)


def _divisions(truth: np.ndarray, groups: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit on and rows held out, in up to five divisions that keep groups whole and classes balanced.

    Args:
        truth: (n,) class indices.
        groups: (n,) group of each case.
        seed: Seeds the divisions.
    """
    least = min(len(np.unique(groups[truth == value])) for value in np.unique(truth))
    if least < 2 or len(np.unique(truth)) < 2:
        raise DataError(
            f"expected at least two groups of every class in training to choose a head by cross-validation, got {least}"
            ". Label more, or use ttl or ftl."
        )
    splitter = StratifiedGroupKFold(min(_FOLDS, least), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for rest, held in splitter.split(truth, truth, groups):
            if len(np.unique(truth[rest])) == len(np.unique(truth)):
                yield rest, held


def solvable_divisions(data: Labelled, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to solve a head on and rows held out, five times, so that each is held out once; none where some cannot be.

    Groups stay whole, classes (of several labels the rarest of each case) balanced.

    Args:
        data: The cases.
        seed: Seeds the divisions.
    """
    truth, columns = data.targets, data.columns()
    if data.task == "multilabel":
        truth, _ = by_rarest(np.stack([column == 1 for column in columns], axis=1))
    if len(np.unique(data.groups)) < _FOLDS:
        return []
    splitter = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class in fewer groups than folds: what matters is asked below.
        warnings.simplefilter("ignore", UserWarning)
        divisions = list(splitter.split(truth, truth, data.groups))
    fewest = min(
        len(np.unique(data.groups[rest][column[rest] == value]))
        for rest, _ in divisions
        for column in columns
        for value in (0, 1)
    )
    # Heads choose their penalty by a division of their own.
    return divisions if fewest >= 2 and all(len(held) for _, held in divisions) else []


def _unseen_scores(
    kind: str, make: "Make", x: np.ndarray, truth: np.ndarray, divisions: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that were held out of some division, and their raw scores from it.

    Args:
        kind: A kind of `medgraft.transfer.heads.CLASSICAL`.
        make: Makes a new classifier.
        x: (n, d) standardised features.
        truth: (n,) 0 and 1.
        divisions: Rows to fit on and rows held out.
    """
    held = np.concatenate([rows for _, rows in divisions])
    scores = [_raw(kind, make().fit(x[rest], truth[rest]), x[rows]) for rest, rows in divisions]
    return held, np.concatenate(scores)


def _raw(kind: str, model: Any, x: np.ndarray) -> np.ndarray:
    """(n,) raw scores of the positive class: a probability from neighbours and forests, else a decision value.

    Args:
        kind: A kind of `medgraft.transfer.heads.CLASSICAL`.
        model: A fitted classifier of two classes.
        x: (n, d) standardised features.
    """
    if kind in ("knn", "random-forest"):
        return np.asarray(model.predict_proba(x)[:, 1])
    return np.asarray(model.decision_function(x))


Make = Callable[[], Any]


def _svm(_num: int, num_features: int, _seed: int) -> list[Make]:
    """Support vector machines with an RBF kernel, with a penalty C from 0.1 to 100.

    Args:
        _num: Training cases, not used.
        num_features: Features of a case.
        _seed: Not used: nothing is drawn.
    """
    return [functools.partial(SVC, C=c, gamma=1 / num_features) for c in (0.1, 1.0, 10.0, 100.0)]


def _forest(_num: int, _num_features: int, seed: int) -> list[Make]:
    """One random forest.

    Args:
        _num: Training cases, not used.
        _num_features: Features of a case, not used.
        seed: Seeds what is drawn while fitting.
    """
    return [lambda: RandomForestClassifier(_NUM_TREES, min_samples_leaf=2, random_state=seed)]


def _regression(num: int, _num_features: int, _seed: int) -> list[Make]:
    """Logistic regressions with L2 penalties over six decades.

    Args:
        num: Training cases.
        _num_features: Features of a case, not used.
        _seed: Not used: nothing is drawn.
    """
    return [functools.partial(_logistic, float(c)) for c in np.logspace(-4, 2, 7) * 10 / num]


def _nearest(num: int, _num_features: int, _seed: int) -> list[Make]:
    """Nearest neighbours, 5 to 100 but at most a third of the cases; 1 where there are fewer than 15 cases.

    Args:
        num: Training cases.
        _num_features: Features of a case, not used.
        _seed: Not used: nothing is drawn.
    """
    sizes = [k for k in (5, 10, 20, 50, 100) if k <= num // 3] or [1]
    return [functools.partial(_CosineNeighbours, k) for k in sizes]


def _boosting(_num: int, _num_features: int, seed: int) -> list[Make]:
    """One gradient boosting.

    Args:
        _num: Training cases, not used.
        _num_features: Features of a case, not used.
        seed: Seeds what is drawn while fitting.
    """
    return [lambda: GradientBoostingClassifier(subsample=0.8, random_state=seed)]


class _CosineNeighbours(KNeighborsClassifier):  # type: ignore[misc]
    def __init__(self, n_neighbors: int) -> None:
        super().__init__(n_neighbors, metric="cosine", algorithm="brute")


_CANDIDATES: Final[dict[str, Callable[[int, int, int], list[Make]]]] = {
    "svm": _svm,
    "random-forest": _forest,
    "logistic": _regression,
    "knn": _nearest,
    "gradient-boosting": _boosting,
}


def _svm_tensors(models: list[Any], x: np.ndarray, _: Labelled) -> dict[str, Tensor]:
    """Support vectors of all outputs together, and the weight of each in each output.

    Args:
        models: A fitted classifier for each output.
        x: (n, d) standardised training features.
        _: Training cases, not used.
    """
    support = np.unique(np.concatenate([model.support_ for model in models]))
    dual = np.zeros((len(models), len(support)))
    for row, model in enumerate(models):
        dual[row, np.searchsorted(support, model.support_)] = model.dual_coef_[0]
    return {
        "support": torch.tensor(x[support]),
        "dual": torch.tensor(dual).float(),
        "intercept": torch.tensor([float(model.intercept_[0]) for model in models]),
        "gamma": torch.tensor(1 / x.shape[1]),
    }


def _linear_tensors(models: list[Any], _x: np.ndarray, _: Labelled) -> dict[str, Tensor]:
    """Weights and intercepts of the outputs.

    Args:
        models: A fitted classifier for each output.
        _x: Training features, not used.
        _: Training cases, not used.
    """
    return {
        "weight": torch.tensor(np.concatenate([model.coef_ for model in models])).float(),
        "intercept": torch.tensor(np.concatenate([model.intercept_ for model in models])).float(),
    }


def _neighbour_tensors(models: list[Any], x: np.ndarray, data: Labelled) -> dict[str, Tensor]:
    """The training cases at unit length with their truth, and how many neighbours vote.

    Args:
        models: A fitted classifier for each output.
        x: (n, d) standardised training features.
        data: The training cases with their truth.
    """
    norm = np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    return {
        "neighbours": torch.tensor(x / norm),
        "truth": torch.tensor(np.stack(data.columns(), 1)).float(),
        "num_neighbours": torch.tensor(models[0].n_neighbors),
    }


def _forest_tensors(models: list[Any], _x: np.ndarray, _: Labelled) -> dict[str, Tensor]:
    """All outputs' trees as tensors; a leaf holds its share of the positive class over the number of trees.

    Args:
        models: A fitted classifier for each output.
        _x: Training features, not used.
        _: Training cases, not used.
    """
    trees, outputs = [], []
    for output, model in enumerate(models):
        for estimator in model.estimators_:
            value = estimator.tree_.value[:, 0, :]
            trees.append((estimator.tree_, value[:, 1] / value.sum(1) / len(model.estimators_)))
            outputs.append(output)
    return _packed(trees, outputs, np.zeros(len(models)))


def _boosting_tensors(models: list[Any], _x: np.ndarray, _: Labelled) -> dict[str, Tensor]:
    """All outputs' trees as tensors; a leaf holds its value times the learning rate.

    Args:
        models: A fitted classifier for each output.
        _x: Training features, not used.
        _: Training cases, not used.
    """
    trees, outputs, base = [], [], []
    for output, model in enumerate(models):
        share = model.init_.class_prior_[1]
        base.append(float(np.log(share / (1 - share))))
        for estimator in model.estimators_[:, 0]:
            trees.append((estimator.tree_, estimator.tree_.value[:, 0, 0] * model.learning_rate))
            outputs.append(output)
    return _packed(trees, outputs, np.array(base))


def _packed(trees: list[tuple[Any, np.ndarray]], outputs: list[int], base: np.ndarray) -> dict[str, Tensor]:
    """Trees of different sizes as rectangular tensors; -1 marks a leaf.

    Args:
        trees: Structure of each tree, and a value for each of its nodes.
        outputs: Which output each tree adds to.
        base: (outputs,) where the sum of each output begins.
    """
    size = max(tree.node_count for tree, _ in trees)
    shape = (len(trees), size)
    feature, threshold = np.full(shape, -1, np.int64), np.zeros(shape)
    left, right, leaf = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
    for row, (tree, value) in enumerate(trees):
        num = tree.node_count
        inner = tree.children_left >= 0
        feature[row, :num] = np.where(inner, tree.feature, -1)
        threshold[row, :num] = tree.threshold
        left[row, :num], right[row, :num] = tree.children_left.clip(0), tree.children_right.clip(0)
        leaf[row, :num] = value
    return {
        "feature": torch.tensor(feature),
        "threshold": torch.tensor(threshold),
        "left": torch.tensor(left),
        "right": torch.tensor(right),
        "leaf": torch.tensor(leaf),
        "output": torch.tensor(outputs),
        "base": torch.tensor(base),
        "depth": torch.tensor(max(tree.max_depth for tree, _ in trees)),
    }


_TENSORS: Final[dict[str, Callable[[list[Any], np.ndarray, Labelled], dict[str, Tensor]]]] = {
    "svm": _svm_tensors,
    "random-forest": _forest_tensors,
    "logistic": _linear_tensors,
    "knn": _neighbour_tensors,
    "gradient-boosting": _boosting_tensors,
}
