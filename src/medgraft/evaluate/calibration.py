"""Temperature scaling, fitted on validation and reported beside the model's own probabilities."""

import dataclasses
from typing import Final

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from medgraft.errors import ConfigError
from medgraft.metrics.cases import check_predictions, known_labels
from medgraft.types import Predictions

__all__ = ["apply_temperature", "fit_temperature"]

# Probabilities of exactly 0 have no logit.
_TINY: Final = 1e-12
_RANGE: Final = (0.05, 20.0)


def fit_temperature(val: Predictions) -> float:
    """The temperature that makes the validation probabilities most likely; above 1 means over-confident.

    Searched between 0.05 and 20: on perfectly separated cases the likelihood grows without end towards 0,
    and a value at either end says that validation could not tell.

    Args:
        val: Validation predictions.

    Raises:
        DataError: Unsound predictions.

    References:
        Guo et al., On calibration of modern neural networks, ICML, 2017.

    Examples:
        >>> probs = np.tile([0.01, 0.99], (4, 1))
        >>> pred = Predictions(probs=probs, targets=np.array([1, 1, 1, 0]), groups=np.arange(4),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> temperature = fit_temperature(pred)
        >>> apply_temperature(pred, temperature).probs[0].round(3).tolist()
        [0.25, 0.75]
    """
    check_predictions(val)
    logits, is_known = _logits(val), known_labels(val)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if val.task == "multilabel":
            signs = np.where(val.targets == 1, 1.0, -1.0)
            return float(np.logaddexp(0.0, -signs * scaled)[is_known].mean())
        log_probs = log_softmax(scaled, axis=1)
        return float(-log_probs[np.arange(len(log_probs)), val.targets].mean())

    bounds = (np.log(_RANGE[0]), np.log(_RANGE[1]))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x))


def apply_temperature(pred: Predictions, temperature: float) -> Predictions:
    """New predictions with logits divided by `temperature`; the order of classes never changes.

    Args:
        pred: Predictions of the same model.
        temperature: Above 0, from `fit_temperature`.

    Raises:
        ConfigError: `temperature` is not above 0.
        DataError: Unsound predictions.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.2, 0.8]]), targets=np.array([1]), groups=np.array([0]),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> apply_temperature(pred, 2.0).probs.round(3).tolist()
        [[0.333, 0.667]]
    """
    if not (temperature > 0 and np.isfinite(temperature)):
        raise ConfigError(f"temperature must be above 0, got {temperature}. Fit it on validation.")
    check_predictions(pred)
    scaled = _logits(pred) / temperature
    probs = expit(scaled) if pred.task == "multilabel" else softmax(scaled, axis=1)
    return dataclasses.replace(pred, probs=probs)


def _logits(pred: Predictions) -> np.ndarray:
    log_probs = np.log(np.clip(pred.probs, _TINY, 1.0))
    if pred.task != "multilabel":
        return np.asarray(log_probs)
    return np.asarray(log_probs - np.log(np.clip(1 - pred.probs, _TINY, 1.0)))
