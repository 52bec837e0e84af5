"""What solved heads say of training and validation images that they did not learn from.

Frozen features do not see labels, so a head that is solved on some of the images says of the others what it would say
of new ones: training and validation images together are several times the cases to choose a depth by, for a few more
solutions and no further training.
"""

import dataclasses
from typing import Final

import numpy as np

from medgraft.files import replacing
from medgraft.metrics.measures import scores_of
from medgraft.search.trial import Trial, TrialContext, build_model, frozen_features, solved_probs
from medgraft.study.study import Study
from medgraft.train.classical import solvable_divisions
from medgraft.types import Judged

__all__ = ["MOST_IMAGES", "choosing_judged", "choosing_score"]

MOST_IMAGES: Final = 2000
"""With more of them validation alone says enough, and each solution takes long."""
_OUTPUTS: Final = "cross_outputs.npy"


def choosing_judged(trial: Trial, context: TrialContext) -> Judged:
    """What a trial says of the cases that depths are chosen by.

    Of a solved head these are the training and validation images, each judged by a head that is solved without its fold
    (five, by groups); of other trials, of more than `MOST_IMAGES` images, of units of several images and where a class
    has too few groups the validation cases.

    Args:
        trial: A finished one.
        context: What all trials share.
    """
    study = context.study
    outputs = _cross_outputs(trial, context) if trial.spec.is_solved and _is_possible(study) else None
    return study.val_judged(trial.val_outputs) if outputs is None else study.cross_predictions(outputs)


def choosing_score(trial: Trial, context: TrialContext) -> float:
    """The deciding score over the cases of `choosing_judged`."""
    return next(iter(scores_of(choosing_judged(trial, context)).values()))


def _is_possible(study: Study) -> bool:
    units = study.val_units
    is_alone = units is None or len(np.unique(units)) == len(units)
    return is_alone and len(study.train) + len(study.val) <= MOST_IMAGES


def _cross_outputs(trial: Trial, context: TrialContext) -> np.ndarray | None:
    """(n + m, C) of the training and the validation images, kept; None where a class has too few groups."""
    path = trial.folder / _OUTPUTS
    if path.is_file():
        kept: np.ndarray = np.load(path, allow_pickle=False)
        return kept
    model, _ = build_model(trial.spec, context)
    features = frozen_features(trial.spec, context, model)
    both = context.study.with_validation(np.concatenate([features["train"], features["val"]]))
    found = None
    for rest, held in solvable_divisions(both, trial.spec.seed):
        part = dataclasses.replace(
            both, features=both.features[rest], targets=both.targets[rest], groups=both.groups[rest]
        )
        said = solved_probs(trial.spec, context, model, part, both.features[held])
        found = np.zeros((len(both.features), said.shape[1])) if found is None else found
        found[held] = said
    if found is not None:
        with replacing(path) as temporary, temporary.open("wb") as binary:
            np.save(binary, found)
    return found
