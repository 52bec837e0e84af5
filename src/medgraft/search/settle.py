"""The search that these images allow: guided where its probes can be solved and paid for, else two-stage."""

import dataclasses
from typing import Final

import numpy as np

from medgraft.data.cohort.labels import rarest_class
from medgraft.errors import ConfigError, DataError
from medgraft.listener import Listener
from medgraft.search.plan import SearchPlan
from medgraft.search.trial import PROBED_IMAGES
from medgraft.study.study import Study
from medgraft.transfer.source import Source

__all__ = ["settled"]

_MIN_GROUPS: Final = 2


def settled(
    plan: SearchPlan, source: Source, study: Study, listener: Listener, *, is_guided_asked: bool, fewest_epochs: int
) -> SearchPlan:
    """The plan with a search that is possible; decided and said before anything is trained.

    Args:
        plan: What is wished for.
        source: The network with its cuts.
        study: Training and validation images.
        listener: Told where another search takes the place of guided.
        is_guided_asked: Whether the user named guided, or settings of it, so that nothing else may take its place.
        fewest_epochs: Fewest epochs that a whole training may have once a time budget has lowered them.

    Raises:
        ConfigError: Guided was asked for and is not possible.
        DataError: Guided was asked for, and a class cannot be probed.
    """
    if plan.method != "guided" or not (obstacle := _obstacle(plan, source, study, fewest_epochs)):
        return plan
    kind, reason = obstacle
    if is_guided_asked:
        raise kind(f"{reason} Use --search two-stage.")
    listener.say(f"The search is two-stage, because guided is not possible here: {reason}")
    return dataclasses.replace(plan, method="two-stage")


def _obstacle(
    plan: SearchPlan, source: Source, study: Study, fewest_epochs: int
) -> tuple[type[ConfigError] | type[DataError], str] | None:
    """What stands in the way of a guided search: what could not be probed or paid for after the first training.

    Args:
        plan: What is wished for.
        source: The network with its cuts.
        study: Training and validation images.
        fewest_epochs: Fewest epochs that a whole training may have.
    """
    if plan.recipe.head.kind == "flattened":
        return ConfigError, "expected a pooled head to judge cuts by probes on pooled features, got --head flattened."
    if plan.start == "ftl" and plan.recipe.head.kind != "pooled":
        return ConfigError, (
            f"expected a pooled head for search.start=ftl, whose heads are probes, got --head {plan.recipe.head.kind}, "
            "the usual one of a network that reads slices. Leave search.start=source."
        )
    sample = study.sample(PROBED_IMAGES, plan.seed)
    train = sample.train
    # Probes are solved on labels that are 0 or 1; a share that is taught for an uncertain one is neither.
    targets = train.targets
    targets = np.where(np.isin(targets, (0, 1)), targets, np.nan) if targets.ndim == 2 else targets
    rare, fewest = rarest_class(train.task, targets, train.num_classes, sample.train_groups)
    if fewest < _MIN_GROUPS:
        return DataError, (
            f"expected at least {_MIN_GROUPS} training groups with and without {study.classes[rare]} to probe "
            f"features, got {fewest}."
        )
    needed = _least_extra(plan, source, study, fewest_epochs)
    if plan.extra < needed:
        return ConfigError, (
            f"expected search.extra to pay for signals and one training, at least {needed:.2f} in all, "
            f"got {plan.extra:g}: raise it or --epochs."
        )
    return None


def _least_extra(plan: SearchPlan, source: Source, study: Study, epochs: int) -> float:
    """What guided needs beyond full fine-tuning, in units of it: the pass for signals and the cheapest training.

    Args:
        plan: Tells where guided begins.
        source: The network with its cuts.
        study: Training and validation images.
        epochs: Fewest epochs that a whole training may have.
    """
    cuts, num_train = source.cuts, len(study.train)
    passes = (min(num_train, PROBED_IMAGES) + len(study.val)) / (3 * num_train * epochs)
    # The cheapest whole training, or one epoch of the dearest short one.
    least = cuts[0].macs if plan.start == "source" else cuts[-2 if len(cuts) > 1 else 0].macs / epochs
    return passes + least / cuts[-1].macs
