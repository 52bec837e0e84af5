"""From a paired difference to one of four words, and to a sentence with the numbers."""

from typing import Literal

from medgraft.errors import ConfigError
from medgraft.evaluate.intervals import Difference

__all__ = ["Verdict", "verdict", "verdict_words"]

Verdict = Literal["better", "worse", "non-inferior", "inconclusive"]


def verdict(difference: Difference, margin: float) -> Verdict:
    """What the 95 % interval of chosen minus baseline allows to say.

    ``better``: all above 0. ``non-inferior``: all above -margin. ``worse``: all below 0 and not
    non-inferior. Else ``inconclusive``. An interval between -margin and 0 is non-inferior, as the margin
    says beforehand which loss does not matter; the sentence then names the loss.

    Args:
        difference: Chosen minus baseline, higher is better.
        margin: The loss that is accepted, fixed beforehand, above 0, in units of the metric.

    Raises:
        ConfigError: `margin` is not above 0 and below 1.

    References:
        Piaggio et al., Reporting of noninferiority and equivalence randomized trials (CONSORT), JAMA, 2012.

    Examples:
        >>> verdict(Difference(value=-0.001, ci95=(-0.012, 0.01), p=0.8), margin=0.02)
        'non-inferior'
    """
    if not 0 < margin < 1:
        raise ConfigError(f"margin must be above 0 and below 1, got {margin}. Typical for AUROC: 0.02.")
    low, high = difference.ci95
    if low > 0:
        return "better"
    if low > -margin:
        return "non-inferior"
    return "worse" if high < 0 else "inconclusive"


def verdict_words(
    difference: Difference,
    margin: float,
    chosen: str = "The compact model",
    baseline: str = "full fine-tuning",
    metric: str = "AUROC",
) -> tuple[str, str]:
    """The verdict as plain English, and what it rests on (value, interval and p); says "proven" only where it is.

    Args:
        difference: Chosen minus baseline, higher is better.
        margin: The loss that is accepted, fixed beforehand, above 0, in units of the metric.
        chosen: What is judged, as the start of a sentence.
        baseline: What it is compared with.
        metric: What the numbers are.

    Raises:
        ConfigError: As `verdict`.

    Examples:
        >>> headline, numbers = verdict_words(Difference(value=-0.001, ci95=(-0.012, 0.01), p=0.8), margin=0.02)
        >>> headline
        'The compact model is proven non-inferior to full fine-tuning'
        >>> numbers
        'AUROC difference -0.0010 (95 % interval -0.0120 to +0.0100, p = 0.800); a loss of 0.02 or more is excluded'
    """
    word = verdict(difference, margin)
    low, high = difference.ci95
    p = f"p = {difference.p:.3f}" if difference.p >= 0.001 else "p < 0.001"
    numbers = f"{metric} difference {difference.value:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, {p})"
    if word == "better":
        return f"{chosen} is proven better than {baseline}", numbers
    if word == "worse":
        return f"{chosen} is worse than {baseline}", numbers
    if word == "inconclusive":
        more = f"; neither equality nor a loss of {margin:g} or more is excluded"
        return f"{chosen} compared with {baseline} is inconclusive", numbers + more
    numbers += f"; a loss of {margin:g} or more is excluded"
    loss = ". The small loss itself is statistically significant" if high < 0 else ""
    return f"{chosen} is proven non-inferior to {baseline}", numbers + loss
