"""Metrics of several labels of which some are not known: as if each label's unknown cases were not there."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from torch.nn import functional as F

from medgraft.evaluate.bootstrap import paired_difference, smallest_class
from medgraft.evaluate.calibration import fit_temperature
from medgraft.evaluate.operating_point import OperatingPoint, apply_thresholds, choose_thresholds
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.metrics.classification import METRICS, auprc_per_class, auroc_per_class, confusion
from medgraft.metrics.reliability import ReliabilityCurve, reliability_curve
from medgraft.report.curves import reliability_figure
from medgraft.train.batches import ImageSet, epoch_order
from medgraft.train.objectives import make_objective
from medgraft.types import Predictions


def masked(seed: int = 0, share: float = 0.3) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (200, 3)).astype(np.float32)
    probs = np.clip(0.5 + 0.2 * (truth - 0.5) + rng.normal(0, 0.2, truth.shape), 0.01, 0.99)
    truth[rng.random(truth.shape) < share] = np.nan
    return Predictions(
        probs=probs, targets=truth, groups=np.arange(200) // 2, classes=("a", "b", "c"), task="multilabel"
    )


def test_ranking_is_that_of_the_known_cases() -> None:
    pred = masked()
    for column, name in enumerate(pred.classes):
        known = ~np.isnan(pred.targets[:, column])
        truth, scores = pred.targets[known, column], pred.probs[known, column]
        assert auroc_per_class(pred)[name] == pytest.approx(roc_auc_score(truth, scores))
        assert auprc_per_class(pred)[name] == pytest.approx(average_precision_score(truth, scores))


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_is_the_mean_over_labels_of_the_known_cases(metric: str) -> None:
    pred, parts = masked(), []
    for column in range(3):
        known = ~np.isnan(pred.targets[:, column])
        one = dataclasses.replace(
            pred,
            probs=pred.probs[known][:, [column]],
            targets=pred.targets[known][:, [column]],
            groups=pred.groups[known],
            classes=(pred.classes[column],),
        )
        parts.append(METRICS[metric](one))
    # The Brier score of several labels is a sum.
    expected = np.sum(parts) if metric == "brier" else np.mean(parts)
    assert METRICS[metric](pred) == pytest.approx(expected)


def test_brier_agrees_with_scikit_learn() -> None:
    pred = masked()
    known = [~np.isnan(column) for column in pred.targets.T]
    expected = sum(
        brier_score_loss(pred.targets[rows, column], pred.probs[rows, column]) for column, rows in enumerate(known)
    )
    assert METRICS["brier"](pred) == pytest.approx(expected)


def test_what_is_not_known_changes_nothing() -> None:
    pred = masked()
    probs = np.where(np.isnan(pred.targets), 1 - pred.probs, pred.probs)
    other = dataclasses.replace(pred, probs=probs)
    for metric, function in METRICS.items():
        assert function(other) == pytest.approx(function(pred)), metric
    assert fit_temperature(other) == pytest.approx(fit_temperature(pred))
    np.testing.assert_array_equal(confusion(other), confusion(pred))
    assert confusion(pred).sum() == np.sum(~np.isnan(pred.targets))
    weights = bootstrap_weights(pred, 50)
    assert paired_difference(other, pred, "auroc", weights).value == pytest.approx(0)
    point = OperatingPoint(rule="youden")
    thresholds = choose_thresholds(pred, point)
    assert choose_thresholds(other, point) == thresholds
    assert apply_thresholds(other, thresholds) == apply_thresholds(pred, thresholds)
    assert smallest_class(pred) == smallest_class(other)


def image_set(targets: np.ndarray) -> ImageSet:
    return ImageSet(
        images=np.zeros((len(targets), 1, 2, 2), np.uint8),
        rows=np.arange(len(targets)),
        targets=targets,
        intensity_max=255,
        task="multilabel",
        positive=None,
        num_classes=targets.shape[1],
    )


@pytest.mark.parametrize("imbalance", ["none", "weights", "focal", "logit-adjust", "sampler"])
def test_the_loss_is_that_of_the_known_labels(imbalance: str) -> None:
    pred = masked()
    targets = pred.targets
    data = image_set(targets)
    objective = make_objective(data, imbalance)  # type: ignore[arg-type]
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = objective(logits, torch.from_numpy(targets))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    is_known = torch.from_numpy(~np.isnan(targets))
    assert (logits.grad[~is_known] == 0).all()
    assert (logits.grad[is_known] != 0).all()
    if imbalance == "none":
        expected = F.binary_cross_entropy_with_logits(logits[is_known], torch.from_numpy(targets)[is_known])
        torch.testing.assert_close(loss, expected)
    assert len(epoch_order(data, 0, 0, is_balanced=imbalance == "sampler")) == 200


def test_a_batch_in_which_nothing_is_known_costs_nothing() -> None:
    objective = make_objective(image_set(masked().targets), "none")
    logits = torch.randn(4, 3, requires_grad=True)
    loss = objective(logits, torch.full((4, 3), torch.nan))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_shares_are_those_of_the_known() -> None:
    data = image_set(np.array([[1, np.nan], [0, np.nan], [np.nan, 1], [1, 0]], dtype=np.float32))
    np.testing.assert_allclose(data.known_shares(), [2 / 3, 1 / 2])


def test_the_calibration_figure_shows_the_known_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pred, seen = masked(), []

    def watched(probs: np.ndarray, events: np.ndarray) -> ReliabilityCurve:
        seen.append((probs, events))
        return reliability_curve(probs, events)

    monkeypatch.setattr("medgraft.report.curves.reliability_curve", watched)
    reliability_figure(pred, None)
    ((probs, events),) = seen
    known = ~np.isnan(pred.targets)
    assert len(probs) == known.sum()
    assert events.mean() == pytest.approx(((pred.probs > 0.5) == (pred.targets == 1))[known].mean())
