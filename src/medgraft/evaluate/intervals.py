"""95 % intervals that need no resampling, and the value that a paired comparison returns."""

import dataclasses
from typing import Final

import numpy as np
from scipy.integrate import trapezoid
from scipy.optimize import brentq
from scipy.stats import norm, t

from medgraft.errors import DataError

__all__ = [
    "FEWEST_TRAININGS",
    "Difference",
    "Spread",
    "Z95",
    "clustered_proportion",
    "logit_interval",
    "perfect_auprc_interval",
    "perfect_auroc_interval",
    "student_difference",
    "wilson_interval",
]

Z95: Final = float(norm.ppf(0.975))
FEWEST_TRAININGS: Final = 3
"""Trainings of each method from which on their spread is measured; fewer say nothing of a method, and prove nothing."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What the interval of a difference is made of.

    Args:
        cases: Standard error over cases (groups of them).
        trainings: Standard error over trainings; 0 where the difference is that of two trained models.
        freedom: Degrees of freedom of both together.
        is_measured: Whether `trainings` comes from trainings that were made, not from what is usual.
    """

    cases: float
    trainings: float
    freedom: float
    is_measured: bool = False

    @property
    def error(self) -> float:
        """Standard error of both together."""
        return float(np.hypot(self.cases, self.trainings))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired difference, first model minus second.

    Args:
        value: The difference, in units of the metric.
        ci95: Lower and upper end of its 95 % interval.
        p: Two-sided, 0 to 1.
        spread: What the interval is made of; None where it comes from replicates or from nothing that varies.
    """

    value: float
    ci95: tuple[float, float]
    p: float
    spread: Spread | None = None


def student_difference(value: float, spread: Spread) -> Difference:
    """A difference with Student's interval and two-sided p.

    Args:
        value: The difference.
        spread: Its standard errors and degrees of freedom.

    Examples:
        >>> found = student_difference(0.03, Spread(cases=0.012, trainings=0.005, freedom=20))
        >>> [round(end, 4) for end in found.ci95], round(found.p, 3)
        ([0.0029, 0.0571], 0.032)
    """
    half = float(t.ppf(0.975, spread.freedom)) * spread.error
    p = float(2 * t.sf(abs(value) / spread.error, spread.freedom))
    return Difference(value=value, ci95=(value - half, value + half), p=p, spread=spread)


def wilson_interval(successes: float, total: float) -> tuple[float, float]:
    """The 95 % score interval of a proportion, inside 0 to 1.

    Args:
        successes: 0 to `total`; need not be whole (effective sample sizes).
        total: Above 0.

    Raises:
        DataError: `total` is not positive or `successes` outside 0 to `total`.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference, JASA, 1927.

    Examples:
        >>> [round(end, 4) for end in wilson_interval(8, 10)]
        [0.4902, 0.9433]
    """
    if not 0 <= successes <= total or total <= 0:
        raise DataError(
            f"expected 0 to `total` successes of a positive total, got {successes} of {total}. Count the cases again."
        )
    share = successes / total
    z2 = Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * np.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def clustered_proportion(events: np.ndarray, groups: np.ndarray) -> tuple[float | None, tuple[float, float] | None]:
    """A proportion and its 95 % interval when cases of one group are not independent.

    Wilson's interval at the effective number of cases: their number divided by the design effect (the ratio
    estimator's variance over groups against the binomial one, at least 1). With one case per group it is
    Wilson's own; at 0 or 1, where that variance says nothing, each group counts once.

    Args:
        events: (N,) bool, whether each case counts as a success.
        groups: (N,) integers, equal for the cases of one patient.

    Returns:
        Value and interval, both None when there is no case (the proportion is undefined).

    Raises:
        DataError: Shapes disagree.

    References:
        Rao and Scott, A simple method for the analysis of clustered binary data, Biometrics, 1992.

    Examples:
        >>> value, ci95 = clustered_proportion(np.array([True, True, True, False]), np.array([0, 0, 1, 1]))
        >>> value, [round(end, 3) for end in ci95]
        (0.75, [0.256, 0.963])
    """
    if events.ndim != 1 or events.shape != groups.shape:
        raise DataError(
            f"events and groups must both have the shape (N,), got {events.shape} and {groups.shape}. "
            "Pass one row per case."
        )
    num_cases = len(events)
    if num_cases == 0:
        return None, None
    share = float(events.mean())
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    num_groups = len(sizes)
    if num_groups == num_cases:
        effective = float(num_cases)
    elif share in (0.0, 1.0) or num_groups == 1:
        effective = float(num_groups)
    else:
        successes = np.bincount(inverse, weights=events)
        squares = float(((successes - share * sizes) ** 2).sum())
        variance = squares * num_groups / (num_groups - 1) / num_cases**2
        effective = num_cases / max(1.0, variance * num_cases / (share * (1 - share)))
    return share, wilson_interval(share * effective, effective)


def logit_interval(value: float, deviation: float, freedom: float) -> tuple[float, float]:
    """The 95 % interval of a share, symmetric on the logit scale and so inside 0 to 1.

    Args:
        value: Above 0 and below 1.
        deviation: Its standard error.
        freedom: Degrees of freedom of that, at least 1.

    Examples:
        >>> [round(end, 3) for end in logit_interval(0.9, 0.05, 30)]
        [0.743, 0.966]
    """
    logit, half = np.log(value / (1 - value)), float(t.ppf(0.975, freedom)) * deviation / (value * (1 - value))
    return float(1 / (1 + np.exp(half - logit))), float(1 / (1 + np.exp(-half - logit)))


def perfect_auprc_interval(num_positives: int, num_negatives: int) -> tuple[float, float]:
    """The 95 % interval of an AUPRC that was measured as exactly 1: what the one of AUROC leaves possible.

    The lower end is the AUPRC of two normal distributions of equal width whose AUROC is the lower end of
    `perfect_auroc_interval`, at the prevalence of the cases.

    Args:
        num_positives: Independent positive cases (or groups), at least 1.
        num_negatives: Independent negative cases (or groups), at least 1.

    Raises:
        DataError: A count below 1.

    Examples:
        >>> [round(end, 3) for end in perfect_auprc_interval(20, 20)]
        [0.899, 1.0]
    """
    distance = np.sqrt(2) * norm.ppf(perfect_auroc_interval(num_positives, num_negatives)[0])
    thresholds = np.linspace(distance + 8, -8, 4001)
    recall, fallout = norm.sf(thresholds - distance), norm.sf(thresholds)
    precision = num_positives * recall / (num_positives * recall + num_negatives * fallout)
    return float(trapezoid(precision, recall)), 1.0


def perfect_auroc_interval(num_positives: int, num_negatives: int) -> tuple[float, float]:
    """The 95 % interval of an AUROC that was measured as exactly 1.

    Both DeLong's variance and the bootstrap's spread are 0 there, however few the cases. This is the score
    interval with the variance of Hanley and McNeil at the true value, not at the estimate.

    Args:
        num_positives: Independent positive cases (or groups), at least 1.
        num_negatives: Independent negative cases (or groups), at least 1.

    Raises:
        DataError: A count below 1.

    References:
        Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
        part 2, Statistics in Medicine, 2006 (method 5).

    Examples:
        >>> [round(end, 3) for end in perfect_auroc_interval(20, 20)]
        [0.899, 1.0]
    """
    if min(num_positives, num_negatives) < 1:
        raise DataError(
            f"expected at least one case of each class, got {num_positives} positive and {num_negatives} "
            "negative. Use a set with both classes."
        )
    mean_count = (num_positives + num_negatives) / 2

    def gap(area: float) -> float:
        inflation = 1 + (mean_count - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        # (1 - area)^2 = z^2 var(area), divided by (1 - area), which removes the useless root at 1.
        return (1 - area) - Z95**2 * area * inflation / (num_positives * num_negatives)

    return float(brentq(gap, 0.0, 1.0)), 1.0
