"""From a paired difference to one of four words, and to a sentence with the numbers."""

from typing import Final, Literal

from scipy.stats import t

from medgraft.errors import ConfigError
from medgraft.evaluate.intervals import FEWEST_TRAININGS, Z95, Difference, Spread

__all__ = ["Verdict", "adjusted_verdict", "loss_p", "spread_words", "verdict", "verdict_words"]

Verdict = Literal["better", "worse", "non-inferior", "inconclusive"]
_LEVEL: Final = 0.05


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


def loss_p(difference: Difference, margin: float) -> float:
    """One-sided p of a loss of the margin or more: small where chosen is non-inferior.

    Args:
        difference: Chosen minus baseline, higher is better.
        margin: The loss that is accepted, above 0.

    Examples:
        >>> round(loss_p(Difference(value=0.0, ci95=(-0.0196, 0.0196), p=1.0), margin=0.02), 3)
        0.023
    """
    spread, (low, high) = difference.spread, difference.ci95
    # Where only the interval is known, it is taken to be that of a normal distribution.
    error = spread.error if spread is not None else (high - low) / (2 * Z95)
    if error == 0:
        return 0.0 if difference.value > -margin else 1.0
    return float(t.sf((difference.value + margin) / error, spread.freedom if spread is not None else float("inf")))


def adjusted_verdict(difference: Difference, margin: float, p: float, p_loss: float) -> Verdict:
    """As `verdict`, of one of several questions: only what outlives the adjustment for all of them is said.

    Args:
        difference: Chosen minus baseline, higher is better.
        margin: The loss that is accepted, fixed beforehand, above 0, in units of the metric.
        p: Two-sided p of the difference, adjusted.
        p_loss: `loss_p`, adjusted.

    Raises:
        ConfigError: As `verdict`.
    """
    word = verdict(difference, margin)
    if word == "better" and p < _LEVEL:
        return word
    if p_loss < _LEVEL / 2:
        return "non-inferior"
    return "worse" if word == "worse" and p < _LEVEL else "inconclusive"


def verdict_words(
    difference: Difference,
    margin: float,
    chosen: str = "The compact model",
    baseline: str = "full fine-tuning",
    metric: str = "AUROC",
    num_trainings: int = 1,
) -> tuple[str, str]:
    """The verdict as plain English, and what it rests on (value, interval and p); says "proven" only where it is.

    Few trainings of a method say what these trained models are worth on these cases, and nothing of the next training.

    Args:
        difference: Chosen minus baseline, higher is better.
        margin: The loss that is accepted, fixed beforehand, above 0, in units of the metric.
        chosen: What is judged, as the start of a sentence.
        baseline: What it is compared with.
        metric: What the numbers are.
        num_trainings: Trainings of each of the two that the difference averages.

    Raises:
        ConfigError: As `verdict`.

    Examples:
        >>> difference = Difference(value=-0.001, ci95=(-0.012, 0.01), p=0.8)
        >>> verdict_words(difference, 0.02)[0]
        'The compact model as trained here is non-inferior to full fine-tuning on these cases'
        >>> headline, numbers = verdict_words(difference, 0.02, num_trainings=3)
        >>> headline
        'The compact model is proven non-inferior to full fine-tuning'
        >>> numbers
        'AUROC difference -0.0010 (95 % interval -0.0120 to +0.0100, p = 0.800); a loss of 0.02 or more is excluded'
    """
    word = verdict(difference, margin)
    low, high = difference.ci95
    p = f"p = {difference.p:.3f}" if difference.p >= 0.001 else "p < 0.001"
    numbers = f"{metric} difference {difference.value:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, {p}"
    numbers += f"; {spread_words(difference.spread)})" if difference.spread else ")"
    if word == "inconclusive":
        more = f"; neither equality nor a loss of {margin:g} or more is excluded"
        return f"{chosen} compared with {baseline} is inconclusive", numbers + more
    if word == "non-inferior":
        numbers += f"; a loss of {margin:g} or more is excluded"
        numbers += ". The small loss itself is statistically significant" if high < 0 else ""
    said = f"{word} {'to' if word == 'non-inferior' else 'than'} {baseline}"
    if num_trainings < FEWEST_TRAININGS:
        numbers += "; another training may change the verdict"
        return f"{chosen} as trained here is {said} on these cases", numbers
    return f"{chosen} is {'' if word == 'worse' else 'proven '}{said}", numbers


def spread_words(spread: Spread) -> str:
    """What an interval is made of, for brackets.

    Args:
        spread: Its standard errors.

    Examples:
        >>> spread_words(Spread(cases=0.012, trainings=0.0141, freedom=40))
        'standard error 0.0120 over cases, 0.0141 assumed over trainings'
    """
    words = f"standard error {spread.cases:.4f} over cases"
    if spread.trainings == 0:
        return words
    return f"{words}, {spread.trainings:.4f}{'' if spread.is_measured else ' assumed'} over trainings"
