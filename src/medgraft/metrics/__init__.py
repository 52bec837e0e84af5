"""How good predictions are: plain functions on `Predictions`, and array kernels for the bootstrap."""

from medgraft.metrics.cases import OneVsRest, check_predictions, one_vs_rest, predicted_targets
from medgraft.metrics.classification import (
    METRICS,
    accuracy,
    auprc,
    auprc_per_class,
    auroc,
    auroc_per_class,
    balanced_accuracy,
    brier,
    confusion,
    ece,
    majority_rate,
)
from medgraft.metrics.ranking import pr_curve_points, roc_curve_points, weighted_auprc, weighted_auroc
from medgraft.metrics.reliability import ReliabilityCurve, reliability_curve, top_label
from medgraft.metrics.weighted import WEIGHTED, weighted_metric

__all__ = [
    "METRICS",
    "OneVsRest",
    "ReliabilityCurve",
    "WEIGHTED",
    "accuracy",
    "auprc",
    "auprc_per_class",
    "auroc",
    "auroc_per_class",
    "balanced_accuracy",
    "brier",
    "check_predictions",
    "confusion",
    "ece",
    "majority_rate",
    "one_vs_rest",
    "pr_curve_points",
    "predicted_targets",
    "reliability_curve",
    "roc_curve_points",
    "top_label",
    "weighted_auprc",
    "weighted_auroc",
    "weighted_metric",
]
