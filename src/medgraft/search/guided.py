"""Guided search: what full fine-tuning learned says which truncated networks are worth a training.

Full fine-tuning, the baseline, is trained anyway. One pass over the images with its weights gives the features at
every cut, and a linear probe at each says where the task can be read off. What the probes name is trained as far as a
budget in units of the baseline goes: from the source's weights, with all epochs; or, by halving, from the fine-tuned
trunk for a share of the epochs, the better ones twice. The rule decides among them and full fine-tuning.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

from medgraft.errors import ConfigError
from medgraft.search.proposals import Search
from medgraft.search.rule import Choice

__all__ = ["Rung", "ShortTraining", "affordable", "cuts_to_try", "halving", "within_budget"]

# Halving: the first rung's share of the budget; what is left goes to the second.
_FIRST_SHARE: Final = 0.5
_MOST: Final = 4
_KEPT: Final = 2

Rung = tuple[tuple[int, ...], int]
"""Cut indices, and the epochs that each is trained."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShortTraining:
    """Some epochs at a cut: which cut, how many, and which rung of the halving, from 1."""

    cut: int
    epochs: int
    rung: int


def cuts_to_try(choice: Choice, num_cuts: int) -> list[int]:
    """Cut indices in the order in which they are worth a training, from the rule on the probes of every cut.

    The rule's own choice first. Training lifts shallow cuts more than a probe shows, so the cut a step below it is
    next, then the one halfway to the best probe, then a further step below and one above. The last cut is full
    fine-tuning, which is trained already.

    Args:
        choice: The rule's choice among the probes.
        num_cuts: Number of the network's cuts.

    Examples:
        >>> from medgraft.search.rule import Choice
        >>> cuts_to_try(Choice(rule="compact", tolerance=0.01, chosen=8, best=12, candidates=()), 16)
        [8, 6, 10, 4, 12]
    """
    step = max(1, round(num_cuts / 10))
    start = min(choice.chosen, num_cuts - 1)
    middle = (start + min(choice.best, num_cuts - 1) + 1) // 2
    wanted = [start, start - step, middle if middle != start else start + step, start - 2 * step, choice.best]
    return [cut for number, cut in enumerate(wanted) if 1 <= cut < num_cuts and cut not in wanted[:number]]


def within_budget(wanted: Sequence[int], cost: Mapping[int, float], budget: float) -> list[int]:
    """The wanted cuts, in their order, as far as the budget pays; where it pays for none, the largest below the first.

    Args:
        wanted: Cut indices, the most wanted first.
        cost: Cost of a whole training at each cut, in any unit.
        budget: What may be spent, in the same unit.

    Raises:
        ConfigError: The budget pays for no cut below the first.

    Examples:
        >>> cost = {1: 0.2, 2: 0.5, 3: 0.7, 4: 0.9}
        >>> within_budget([3, 2, 1], cost, 1.0), within_budget([4], cost, 0.8)
        ([3, 1], [3])
    """
    if not wanted:
        return []
    cuts: list[int] = []
    for cut in wanted:
        if sum(cost[index] for index in (*cuts, cut)) <= budget:
            cuts.append(cut)
    fallback = [cut for cut in cost if cut < wanted[0] and cost[cut] <= budget]
    if not cuts and not fallback:
        raise ConfigError(
            f"expected a budget for the training of one truncated network, got {max(0.0, budget):.3g} against "
            f"{min(cost.values()):.3g}. Raise search.extra, or use --search two-stage."
        )
    return cuts or [max(fallback)]


def affordable(wanted: Sequence[int], epoch_cost: Mapping[int, float], budget: float) -> Rung:
    """As many of the wanted cuts, in their order, and epochs of each, as the budget pays.

    Args:
        wanted: Cut indices, the most wanted first; at most four are taken.
        epoch_cost: Cost of one epoch at each cut, in any unit.
        budget: What may be spent, in the same unit.

    Examples:
        >>> affordable([3, 2, 4], {2: 1.0, 3: 2.0, 4: 3.0}, 7.0), affordable([3, 2, 4], {2: 1.0, 3: 2.0, 4: 3.0}, 4.0)
        (((3, 2, 4), 1), ((3, 2), 1))
    """
    for num in range(min(_MOST, len(wanted)), 0, -1):
        epochs = math.floor(budget / sum(epoch_cost[cut] for cut in wanted[:num]) + 1e-9)
        if epochs >= 1:
            return tuple(wanted[:num]), epochs
    return (), 0


def halving(
    wanted: Sequence[int], epoch_cost: Mapping[int, float], budget: float
) -> Search[ShortTraining, Choice, tuple[Choice, tuple[Rung, ...]]]:
    """Propose the wanted cuts for a while, then the better ones again; returns the rule's last word and the rungs.

    It proposes short trainings, each going on where its cut's last one ended, and wants the rule's choice among the
    cuts trained so far and full fine-tuning, by their newest predictions.

    Args:
        wanted: From `cuts_to_try`.
        epoch_cost: Cost of one epoch at each cut.
        budget: What all of it may cost, in the same unit.

    Raises:
        ConfigError: The budget pays for no epoch of any cut.
    """
    rungs: list[Rung] = []
    if not wanted:
        return (yield []), ()
    first = affordable(wanted, epoch_cost, _FIRST_SHARE * budget)
    if not first[1]:
        first = affordable(wanted[:1], epoch_cost, budget)
    if not first[1]:
        raise ConfigError(
            f"expected a budget for one epoch at cut {wanted[0]}, got {max(0.0, budget / epoch_cost[wanted[0]]):.2f} "
            "of one. Raise search.extra or --epochs, or use --search two-stage."
        )
    choice = yield [ShortTraining(cut=cut, epochs=first[1], rung=1) for cut in first[0]]
    rungs.append(first)
    left = budget - first[1] * sum(epoch_cost[cut] for cut in first[0])
    second = affordable(_best_of(choice, first[0]), epoch_cost, left)
    if second[1]:
        choice = yield [ShortTraining(cut=cut, epochs=second[1], rung=2) for cut in second[0]]
        rungs.append(second)
    return choice, tuple(rungs)


def _best_of(choice: Choice, cuts: Sequence[int]) -> list[int]:
    """The rule's choice, then the others by score, as many as go on."""
    scores = {candidate.cut: candidate.score for candidate in choice.candidates}
    ordered = sorted(cuts, key=lambda cut: (cut != choice.chosen, -scores[cut]))
    return ordered[: min(_KEPT, max(1, len(cuts) // 2))]
