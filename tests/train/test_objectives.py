"""Objectives against scikit-learn and plain formulas, for every task and every way with imbalance."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from medgraft.errors import ConfigError
from medgraft.train.objectives import IMBALANCE, make_objective, probabilities

POSITIVES = pytest.mark.parametrize("positive", [0, 1])


def loss_of(data, logits, targets, imbalance, smoothing=0.0):
    objective = make_objective(data, imbalance, smoothing)
    return float(objective(torch.tensor(logits, dtype=torch.float32), torch.as_tensor(targets)))


@pytest.fixture
def batch():
    def make(data, seed=0):
        random = np.random.default_rng(seed)
        targets = data.targets[random.permutation(len(data))[:12]]
        return random.normal(0, 2, (12, data.num_outputs)), targets

    return make


def binary_cross_entropy(logits, truth, weight=1.0):
    return -(weight * truth * log_expit(logits) + (1 - truth) * log_expit(-logits))


@pytest.mark.parametrize("imbalance", ["none", "sampler"])
def test_multiclass_agrees_with_sklearn(make_images, batch, imbalance):
    data = make_images("multiclass")
    logits, targets = batch(data)
    wanted = log_loss(targets, softmax(logits, 1), labels=[0, 1, 2])
    assert loss_of(data, logits, targets, imbalance) == pytest.approx(wanted, rel=1e-5)


def test_multiclass_weights_are_those_of_sklearn(make_images, batch):
    data = make_images("multiclass")
    logits, targets = batch(data)
    weight = compute_class_weight("balanced", classes=np.arange(3), y=data.targets)
    wanted = log_loss(targets, softmax(logits, 1), labels=[0, 1, 2], sample_weight=weight[targets])
    assert loss_of(data, logits, targets, "weights") == pytest.approx(wanted, rel=1e-5)
    # The rarest class weighs most.
    assert np.argmax(weight) == np.argmin(np.bincount(data.targets)) == 2


def test_multiclass_focal_agrees_with_its_formula(make_images, batch):
    data = make_images("multiclass")
    logits, targets = batch(data)
    log_p = log_softmax(logits, 1)[np.arange(12), targets]
    wanted = -((1 - np.exp(log_p)) ** 2 * log_p).mean()
    assert loss_of(data, logits, targets, "focal") == pytest.approx(wanted, rel=1e-5)


def test_multiclass_logit_adjustment_adds_the_log_priors(make_images, batch):
    data = make_images("multiclass")
    logits, targets = batch(data)
    prior = np.bincount(data.targets) / len(data)
    wanted = log_loss(targets, softmax(logits + np.log(prior), 1), labels=[0, 1, 2])
    assert loss_of(data, logits, targets, "logit-adjust") == pytest.approx(wanted, rel=1e-5)


def test_label_smoothing_mixes_in_the_uniform_distribution(make_images, batch):
    data = make_images("multiclass")
    logits, targets = batch(data)
    wished = 0.8 * np.eye(3)[targets] + 0.2 / 3
    wanted = -(wished * log_softmax(logits, 1)).sum(1).mean()
    assert loss_of(data, logits, targets, "none", 0.2) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("task", "imbalance"), [("binary", "none"), ("multilabel", "none"), ("multiclass", "focal")])
def test_label_smoothing_that_would_be_ignored_is_refused(make_images, task, imbalance):
    with pytest.raises(ConfigError, match=rf"label_smoothing must be 0 for a {task} task .* got 0\.1"):
        make_objective(make_images(task), imbalance, 0.1)


@POSITIVES
def test_binary_agrees_with_formulas(make_images, batch, positive):
    data = make_images("binary", positive=positive)
    logits, targets = batch(data)
    truth = (targets == positive).astype(float)
    share = (data.targets == positive).mean()
    z = logits[:, 0]
    plain = binary_cross_entropy(z, truth)
    p_true = np.where(truth == 1, expit(z), expit(-z))
    wanted = {
        "none": log_loss(truth, expit(z)),
        "sampler": plain.mean(),
        "weights": binary_cross_entropy(z, truth, (1 - share) / share).mean(),
        "focal": ((1 - p_true) ** 2 * plain).mean(),
        "logit-adjust": binary_cross_entropy(z + np.log(share / (1 - share)), truth).mean(),
    }
    assert set(wanted) == set(IMBALANCE)
    for imbalance, value in wanted.items():
        assert loss_of(data, logits, targets, imbalance) == pytest.approx(value, rel=1e-5), imbalance


def test_multilabel_agrees_with_formulas(make_images, batch):
    data = make_images("multilabel")
    logits, targets = batch(data)
    share = data.targets.mean(0)
    plain = binary_cross_entropy(logits, targets)
    p_true = np.where(targets == 1, expit(logits), expit(-logits))
    wanted = {
        "none": plain.mean(),
        "sampler": plain.mean(),
        "weights": binary_cross_entropy(logits, targets, (1 - share) / share).mean(),
        "focal": ((1 - p_true) ** 2 * plain).mean(),
        "logit-adjust": binary_cross_entropy(logits + np.log(share / (1 - share)), targets).mean(),
    }
    for imbalance, value in wanted.items():
        assert loss_of(data, logits, targets, imbalance) == pytest.approx(value, rel=1e-5), imbalance


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("imbalance", IMBALANCE)
def test_gradients_stay_finite_for_extreme_logits(make_images, task, imbalance):
    data = make_images(task)
    logits = torch.tensor([[100.0], [-100.0]]).repeat(1, data.num_outputs).requires_grad_()
    make_objective(data, imbalance)(logits, torch.as_tensor(data.targets[:2])).backward()
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_judged_in_float32(make_images):
    data = make_images("binary")
    loss = make_objective(data, "none")(torch.zeros(4, 1, dtype=torch.bfloat16), torch.tensor([0, 1, 0, 1]))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(np.log(2))


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_probabilities_agree_with_scipy(make_images, batch, task):
    data = make_images(task)
    logits, _ = batch(data)
    found = probabilities(torch.tensor(logits), data)
    p = expit(logits)
    wanted = {"multiclass": softmax(logits, 1), "multilabel": p, "binary": np.concatenate([1 - p, p], 1)}[task]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert found.dtype == np.float64


def test_the_positive_class_of_a_binary_task_takes_its_own_column(make_images):
    probs = probabilities(torch.tensor([[3.0]]), make_images("binary", positive=0))
    np.testing.assert_allclose(probs, [[expit(3), 1 - expit(3)]])
