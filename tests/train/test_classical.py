"""Classical heads: the tensors say what scikit-learn says, calibrated on cases not seen, divided by group."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import medgraft.train.classical as room
from medgraft.errors import DataError
from medgraft.train.classical import Labelled, fit_classical, fit_linear
from medgraft.transfer.heads import CLASSICAL


def labelled(task="binary", num=120, dims=6, seed=0, signal=1.5, per_group=1):
    random = np.random.default_rng(seed)
    num_classes = 2 if task == "binary" else 3
    if task == "multilabel":
        targets = random.integers(0, 2, (num, num_classes)).astype(np.float32)
        shift = targets
    else:
        targets = np.arange(num) % num_classes
        shift = np.eye(num_classes)[targets]
    features = random.normal(size=(num, dims)).astype(np.float32) * 3 + 5
    features[:, :num_classes] += signal * 3 * shift
    return Labelled(
        features=features,
        targets=targets,
        groups=np.arange(num) // per_group,
        task=task,
        positive=1 if task == "binary" else None,
        num_classes=num_classes,
    )


def sklearn_scores(kind, data, monkeypatch, seed=0):
    """The head and, for each output, the classifier that it was made from."""
    kept = []
    tensors = room._TENSORS[kind]

    def spy(models, x, given):
        kept.extend(models)
        return tensors(models, x, given)

    monkeypatch.setitem(room._TENSORS, kind, spy)
    return fit_classical(kind, data, 1, seed), kept


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("kind", CLASSICAL)
def test_the_tensors_give_the_scores_of_the_classifier(kind, task, monkeypatch):
    monkeypatch.setattr(room, "_NUM_TREES", 20)
    data = labelled(task)
    head, models = sklearn_scores(kind, data, monkeypatch)
    new = labelled(task, seed=1).features
    mean, scale = data.features.mean(0, dtype=np.float64), data.features.std(0, dtype=np.float64)
    x = ((new - mean) / scale).astype(np.float32)
    wanted = np.stack([room._raw(kind, model, x) for model in models], 1)
    found = head.scores(torch.from_numpy(new)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)
    logits = head(torch.from_numpy(new)[:, :, None, None])
    assert logits.shape == (len(new), 1 if task == "binary" else 3)
    truth = labelled(task, seed=1)
    column = truth.columns()[0]
    assert roc_auc_score(column, logits[:, 0].numpy()) > 0.7


@pytest.mark.parametrize("kind", CLASSICAL)
def test_probabilities_are_calibrated(kind, monkeypatch):
    monkeypatch.setattr(room, "_NUM_TREES", 50)
    head = fit_classical(kind, labelled(num=400, signal=0.5), 1, 0)
    new = labelled(num=4000, signal=0.5, seed=5)
    probs = head(torch.from_numpy(new.features)[:, :, None, None]).sigmoid().numpy()[:, 0]
    edges = np.quantile(probs, [0, 0.33, 0.66, 1])
    for low, high in itertools.pairwise(edges):
        inside = (probs >= low) & (probs <= high)
        assert abs(probs[inside].mean() - new.targets[inside].mean()) < 0.12


def test_multiclass_probabilities_are_the_calibrated_ones_divided_by_their_sum():
    data = labelled("multiclass")
    head = fit_classical("logistic", data, 1, 0)
    x = torch.from_numpy(data.features)
    one = torch.sigmoid(head.slope * head.scores(x) + head.offset)
    torch.testing.assert_close(head.from_pooled(x).softmax(1), one / one.sum(1, keepdim=True))


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_exact_probe_is_the_optimum_of_its_problem(task):
    data = labelled(task, num=90)
    weight, bias = fit_linear(data, 0)
    mean, scale = data.features.mean(0, dtype=np.float64), data.features.std(0, dtype=np.float64)
    x = (data.features - mean) / scale
    truths = [data.targets] if task == "multiclass" else data.columns()
    logits = data.features @ weight.numpy().T + bias.numpy()
    strengths = np.logspace(-4, 2, 7) * 10 / len(x)
    for column, truth in enumerate(truths):
        fits = [LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(x, truth) for c in strengths]
        mine = logits if task == "multiclass" else logits[:, column]
        gaps = [np.abs(model.decision_function(x) - mine).max() for model in fits]
        assert min(gaps) < 2e-2


def test_groups_are_never_on_both_sides(monkeypatch):
    data = labelled(num=120, per_group=4)
    seen = []
    original = room._divisions

    def spy(truth, groups, seed):
        for rest, held in original(truth, groups, seed):
            seen.append(set(groups[rest]) & set(groups[held]))
            yield rest, held

    monkeypatch.setattr(room, "_divisions", spy)
    fit_linear(data, 0)
    fit_classical("svm", data, 1, 0)
    assert len(seen) == 10
    assert not any(seen)


def test_too_few_groups_are_told():
    data = labelled(num=12, per_group=12)
    with pytest.raises(DataError, match="at least two groups of every class"):
        fit_linear(data, 0)
