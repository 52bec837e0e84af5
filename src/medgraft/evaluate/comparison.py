"""Two models on the same cases: differences, and the verdict on the one that judges."""

from collections.abc import Sequence

import numpy as np

from medgraft.evaluate.bootstrap import as_seeds, smallest_class
from medgraft.evaluate.over_seeds import difference_over_seeds
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.results import Comparison
from medgraft.evaluate.verdict import verdict, verdict_words
from medgraft.metrics.measures import measure_of
from medgraft.types import Judged, Predictions

__all__ = ["compare", "too_few_for_a_verdict"]


def compare(
    chosen: Judged | Sequence[Judged],
    baseline: Judged | Sequence[Judged],
    margin: float = 0.02,
    weights: np.ndarray | None = None,
    name: str = "The compact model",
    num_folds: int = 1,
) -> Comparison:
    """Paired differences of two models with a verdict on the metric that judges.

    With several seeds the difference is that of the means, and their spread is in its interval; with few of them what
    is usual (`medgraft.evaluate.over_seeds.difference_over_seeds`).

    Args:
        chosen: Test cases of the chosen model, once per seed.
        baseline: Test cases of the baseline: the same ones in the same order, once per seed.
        margin: The loss of the metric that is accepted, fixed beforehand.
        weights: (R, N) counts from `bootstrap_weights` of the test cases; drawn here with seed 0 if None.
        name: What is compared, as the start of a sentence.
        num_folds: Trainings that each seed stands for: of folds every one has its own.

    Raises:
        ConfigError: The margin makes no sense.
        DataError: Unsound predictions, an absent class, or other cases.

    Examples:
        >>> pred = Predictions(probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]),
        ...                    targets=np.array([0, 0, 1, 1]), groups=np.arange(4),
        ...                    classes=("normal", "sick"), task="binary", positive=1)
        >>> compare(pred, pred).verdict
        'non-inferior'
    """
    seeds = as_seeds(chosen)
    first = seeds[0]
    measure = measure_of(first)
    counts = bootstrap_weights(first) if weights is None else weights
    there = measure.metrics(first)
    differences = {
        metric: difference_over_seeds(seeds, as_seeds(baseline), metric, counts, num_folds)
        for metric in measure.compared
        if metric in there
    }
    judged = differences[measure.judges]
    if (few := too_few_for_a_verdict(first)) and judged.ci95 != (0.0, 0.0):
        return Comparison(
            difference=differences,
            verdict="inconclusive",
            headline=f"{name} compared with full fine-tuning is inconclusive",
            numbers=f"{few[0]} nothing ({measure.judges_name} difference {judged.value:+.4f}); "
            f"at least {few[1]} are needed (--folds tests everyone once)",
        )
    headline, numbers = verdict_words(judged, margin, name, metric=measure.judges_name, num_trainings=len(seeds))
    return Comparison(difference=differences, verdict=verdict(judged, margin), headline=headline, numbers=numbers)


def too_few_for_a_verdict(judged: Judged) -> tuple[str, int] | None:
    """Which groups are too few and prove nothing, as the start of a sentence, and how many are needed; None for enough.

    Args:
        judged: The test cases.
    """
    measure = measure_of(judged)
    num = len(np.unique(judged.groups))
    if num < measure.fewest_groups:
        return _proving(num, ""), measure.fewest_groups
    if isinstance(judged, Predictions) and min(smallest_class(judged)) < measure.fewest_of_a_class:
        return _proving(min(smallest_class(judged)), " of the rarest class"), measure.fewest_of_a_class
    return None


def _proving(num: int, of: str) -> str:
    return f"1 patient or group{of} proves" if num == 1 else f"{num} patients or groups{of} prove"
