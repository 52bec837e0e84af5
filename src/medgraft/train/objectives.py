"""Objectives per task, and probabilities from logits."""

from collections.abc import Callable
from typing import Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medgraft.errors import ConfigError
from medgraft.train.batches import ImageSet

__all__ = ["IMBALANCE", "Imbalance", "make_objective", "probabilities"]

Imbalance = Literal["none", "weights", "sampler", "focal", "logit-adjust"]
IMBALANCE: Final = get_args(Imbalance)
_FOCAL_GAMMA: Final = 2.0

Objective = Callable[[Tensor, Tensor], Tensor]


def make_objective(data: ImageSet, imbalance: Imbalance, label_smoothing: float = 0.0) -> Objective:
    """The loss for logits (B, num_outputs) and targets of `data`; class frequencies come from `data` alone.

    Args:
        data: The training set.
        imbalance: ``none``; ``weights`` (inverse frequency, mean 1); ``sampler`` (the loss stays plain);
            ``focal`` (gamma 2); ``logit-adjust`` (log priors added while training).
        label_smoothing: 0 to below 1; above 0 for multiclass only, and not with ``focal``.

    Raises:
        ConfigError: Label smoothing where there is none.

    References:
        Lin et al. Focal loss for dense object detection. ICCV 2017.
        Menon et al. Long-tail learning via logit adjustment. ICLR 2021.
    """
    if label_smoothing and (data.task != "multiclass" or imbalance == "focal"):
        raise ConfigError(
            f"label_smoothing must be 0 for a {data.task} task with imbalance {imbalance!r}, got {label_smoothing}."
        )
    share = _shares(data)
    weight = torch.tensor(1 / share / np.mean(1 / share), dtype=torch.float32)
    prior = torch.tensor(np.log(share), dtype=torch.float32)
    if data.task == "multiclass":
        return _multiclass(imbalance, weight, prior, label_smoothing)
    positive = torch.tensor(share / (1 - share).clip(1e-6), dtype=torch.float32)
    if data.task == "binary":
        index = 1 if data.positive is None else data.positive
        return _sigmoid(imbalance, positive[index : index + 1], index)
    return _sigmoid(imbalance, positive, None)


def _shares(data: ImageSet) -> np.ndarray:
    if data.targets.ndim == 2:
        return np.asarray(data.known_shares().clip(1e-6, 1 - 1e-6), dtype=np.float64)
    counts = np.bincount(data.targets, minlength=data.num_classes).astype(np.float64)
    return np.asarray(counts.clip(1) / counts.sum(), dtype=np.float64)


def _multiclass(imbalance: Imbalance, weight: Tensor, prior: Tensor, smoothing: float) -> Objective:
    """Cross-entropy, or focal loss, of logits (B, C) against class indices.

    Args:
        imbalance: What is done about rare classes, see `make_objective`.
        weight: (C,) weight of each class, mean 1.
        prior: (C,) logarithm of each class's share.
        smoothing: Label smoothing, 0 to below 1.
    """

    def objective(logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        if imbalance == "logit-adjust":
            logits = logits + prior.to(logits)
        if imbalance == "focal":
            log_p = F.log_softmax(logits, 1).gather(1, targets[:, None]).squeeze(1)
            return (-((1 - log_p.exp()) ** _FOCAL_GAMMA) * log_p).mean()
        chosen = weight.to(logits) if imbalance == "weights" else None
        return F.cross_entropy(logits, targets, weight=chosen, label_smoothing=smoothing)

    return objective


def _sigmoid(imbalance: Imbalance, odds: Tensor, positive: int | None) -> Objective:
    """Binary cross-entropy, or focal loss, of each output, as a mean over the labels that are known.

    Args:
        imbalance: What is done about rare classes, see `make_objective`.
        odds: (outputs,) odds of each output, share / (1 - share).
        positive: Index of the positive class of a binary task; None for a multilabel task.
    """

    def objective(logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        truth = (targets == positive).float()[:, None] if positive is not None else targets.float()
        # A label that is not known neither costs nor teaches.
        is_known = ~truth.isnan()
        truth = truth.nan_to_num()
        if imbalance == "logit-adjust":
            logits = logits + odds.log().to(logits)
        weight = (1 / odds).to(logits) if imbalance == "weights" else None
        loss = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight, reduction="none")
        if imbalance == "focal":
            loss = loss * (1 - torch.exp(-loss)) ** _FOCAL_GAMMA
        return (loss * is_known).sum() / is_known.sum().clamp_min(1)

    return objective


def probabilities(logits: Tensor, data: ImageSet) -> np.ndarray:
    """(B, C) float64: softmax; sigmoid for multilabel and binary (a binary task has two columns).

    Args:
        logits: (B, num_outputs).
        data: Names the task.
    """
    values = logits.detach().double().cpu()
    if data.task == "multiclass":
        return values.softmax(1).numpy()
    probs = values.sigmoid().numpy()
    if data.task == "multilabel":
        return probs
    index = 1 if data.positive is None else data.positive
    columns = [1 - probs[:, 0], probs[:, 0]]
    return np.stack(columns if index == 1 else columns[::-1], 1)
