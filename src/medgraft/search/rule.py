"""Which of the tried cuts to keep: the best, or the smallest that probably loses next to nothing against it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np

from medgraft.evaluate.bootstrap import metric_replicates
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.metrics.measures import measure_of, measured
from medgraft.search.smoothed import loss_probabilities
from medgraft.types import Cut, Judged

__all__ = ["SURE", "Candidate", "Choice", "choose", "is_clearly_behind"]

SURE: Final = 0.65
"""Probability of losing at most the tolerance that compact asks for."""
_FEWEST_OF_A_CURVE: Final = 5
"""Cuts; fewer make no curve."""
_CLEAR_SDS: Final = 3.0
_CLEAR_LOSS: Final = 0.05


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A tried cut against the best: mean and SD of the paired bootstrap difference, best minus this.

    `probability` that it loses at most the tolerance against the best of all tried is None where the rule does not ask.
    """

    cut: int
    name: str
    score: float
    mean_difference: float
    sd_difference: float
    num_params: int
    macs: int
    eligible: bool
    probability: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen and the best cut (indices), everything that was compared, and what compact could give up.

    `rule` is ``overlap`` where feature similarity chose and the comparison decided nothing. `sure` is the probability
    that compact asks for; None where it goes by the mean difference.
    """

    rule: Literal["compact", "best", "overlap"]
    tolerance: float
    chosen: int
    best: int
    candidates: tuple[Candidate, ...]
    sure: float | None = None


def choose(
    tried: Mapping[int, Sequence[Judged]],
    cuts: tuple[Cut, ...],
    num_params: Mapping[int, int],
    rule: Literal["compact", "best"],
    *,
    macs: Mapping[int, int] | None = None,
    tolerance: float = 0.01,
    replicates: int = 2000,
    seed: int = 0,
) -> Choice:
    """The cut that `rule` picks from validation predictions alone.

    ``best`` takes the highest score (validation AUPRC, of masks mean Dice; mean over seeds). ``compact`` takes the
    fewest deployed parameters among the cuts that lose at most `tolerance` against the best of all with a probability
    of at least `SURE` (`medgraft.search.smoothed`; where none does, of the highest there is); ties go to fewer MACs.
    Where cuts of the network are missing, so that nothing tells how the curve runs between, and for masks it takes
    those whose paired difference to the best has a mean of at most `tolerance` and, of labels, one bootstrap SD
    (`medgraft.metrics.measures.Measure`). All cuts and seeds see the same replicates: groups resampled, where there are
    labels stratified by class.

    Args:
        tried: Cut index to validation predictions, one per seed.
        cuts: All cuts of the network, or at least those tried.
        num_params: Cut index to parameters of the deployed model.
        rule: ``compact`` or ``best``. Where all cuts deploy the same parameters, ``compact`` is ``best``.
        macs: Cut index to multiply–accumulates of the deployed model; None where it ends at the cut.
        tolerance: Loss of that score which ``compact`` accepts at most.
        replicates: Replicates of the bootstrap.
        seed: Seeds the bootstrap.
    """
    scores = {index: float(np.mean([_score(judged) for judged in predictions])) for index, predictions in tried.items()}
    best = max(scores, key=lambda index: (scores[index], -num_params[index]))
    first = next(iter(tried.values()))[0]
    weights = bootstrap_weights(first, num=replicates, seed=seed)
    measure = measure_of(first)
    values = {index: metric_replicates(list(tried[index]), measure.chooses, weights) for index in tried}
    by_index = {cut.index: cut for cut in cuts}
    is_curve = not measure.tolerance_alone and _is_curve(tried, cuts)
    known = _probabilities(tried, scores, values, tolerance, seed) if is_curve else {}
    enough = min(SURE, max(known.values(), default=SURE))
    candidates = []
    for index in sorted(tried):
        difference = values[best] - values[index]
        mean, sd = float(difference.mean()), float(difference.std(ddof=1))
        candidates.append(
            Candidate(
                cut=index,
                name=by_index[index].name,
                score=scores[index],
                mean_difference=mean,
                sd_difference=sd,
                num_params=num_params[index],
                macs=by_index[index].macs if macs is None else macs[index],
                eligible=known[index] >= enough
                if known
                else index == best or mean <= min(tolerance, np.inf if measure.tolerance_alone else sd),
                probability=known.get(index),
            )
        )
    is_flat = len({num_params[index] for index in tried}) == 1
    smallest = min((c for c in candidates if c.eligible), key=lambda c: (c.num_params, c.macs, c.cut)).cut
    chosen = smallest if rule == "compact" and not is_flat else best
    return Choice(
        rule="best" if is_flat else rule,
        tolerance=tolerance,
        chosen=chosen,
        best=best,
        candidates=tuple(candidates),
        sure=SURE if known else None,
    )


def _is_curve(tried: Mapping[int, Sequence[Judged]], cuts: tuple[Cut, ...]) -> bool:
    """Whether every cut was tried, full fine-tuning among them."""
    return len(tried) >= _FEWEST_OF_A_CURVE and {cut.index for cut in cuts if cut.index > 0} <= set(tried)


def _probabilities(
    tried: Mapping[int, Sequence[Judged]],
    scores: Mapping[int, float],
    values: Mapping[int, np.ndarray],
    tolerance: float,
    seed: int,
) -> dict[int, float]:
    """By cut, how likely it loses at most the tolerance.

    Args:
        tried: Cut index to validation predictions, one per seed.
        scores: By cut.
        values: By cut, (R,) its score in each replicate.
        tolerance: In units of the score.
        seed: Seeds the draws.
    """
    order = sorted(tried)
    found = loss_probabilities(
        np.array(order),
        np.array([scores[index] for index in order]),
        np.stack([values[index] for index in order], axis=1),
        np.array([len(tried[index]) for index in order]),
        tolerance,
        seed,
    )
    return dict(zip(order, found.tolist(), strict=True))


def _score(judged: Judged) -> float:
    return measured(judged, measure_of(judged).chooses)


def is_clearly_behind(judged: Judged, best: Judged, *, replicates: int = 2000, seed: int = 0) -> bool:
    """Whether further seeds could hardly bring `judged` up to `best`, by the validation score.

    Its paired bootstrap difference exceeds three of its SDs and 0.05: several times what another seed changes.

    Args:
        judged: Validation predictions of one training.
        best: Validation predictions of another training, on the same cases.
        replicates: Replicates of the bootstrap.
        seed: Seeds the bootstrap.
    """
    weights = bootstrap_weights(judged, num=replicates, seed=seed)
    metric = measure_of(judged).chooses
    difference = metric_replicates([best], metric, weights) - metric_replicates([judged], metric, weights)
    mean, sd = float(difference.mean()), float(difference.std(ddof=1))
    return mean > max(_CLEAR_SDS * sd, _CLEAR_LOSS)
