"""Solved heads on images that they did not learn from."""

import dataclasses

import numpy as np
import pytest

from medgraft.metrics.classification import auprc
from medgraft.search import cross_fit, forget_weights, run_trial
from medgraft.search.cross_fit import choosing_judged, choosing_score
from medgraft.train.classical import Labelled, solvable_divisions


@pytest.fixture
def frozen(context, spec_of):
    """A context whose groups are numbered together, and a solved trial in it; groups of two images."""
    study = dataclasses.replace(context.study, train_groups=np.arange(32) // 2, val_groups=20 + np.arange(16) // 2)
    context = dataclasses.replace(context, study=study)
    return context, run_trial(spec_of(3, strategy="frozen"), context)


def test_every_image_is_judged_by_a_head_that_saw_none_of_its_group(frozen, monkeypatch):
    context, trial = frozen
    real, asked = cross_fit.solved_probs, []

    def watched(spec, context, model, data, features):
        asked.append((set(data.groups.tolist()), len(data.features), len(features)))
        return real(spec, context, model, data, features)

    monkeypatch.setattr(cross_fit, "solved_probs", watched)
    judged = choosing_judged(trial, context)
    assert judged.probs.shape == (48, 2)
    np.testing.assert_allclose(judged.probs.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(
        judged.targets, np.concatenate([context.study.train.targets, context.study.val.targets])
    )
    groups = set(judged.groups.tolist())
    left = [groups - seen for seen, _, _ in asked]
    assert len(asked) == 5
    assert sorted(group for part in left for group in part) == sorted(groups)
    assert all(solved + held == 48 for _, solved, held in asked)
    assert choosing_score(trial, context) == pytest.approx(auprc(judged))


def test_it_is_solved_once_and_needs_no_weights(frozen, monkeypatch):
    context, trial = frozen
    forget_weights(trial)
    first = choosing_judged(trial, context)
    monkeypatch.setattr(cross_fit, "solved_probs", None)
    np.testing.assert_array_equal(choosing_judged(trial, context).probs, first.probs)


def is_by_validation(trial, context):
    judged = choosing_judged(trial, context)
    np.testing.assert_array_equal(judged.probs, context.study.val_judged(trial.val_outputs).probs)
    return choosing_score(trial, context) == trial.score


def test_other_trials_and_what_cannot_be_crossed_are_chosen_by_validation(frozen, spec_of, monkeypatch):
    context, trial = frozen
    assert is_by_validation(run_trial(spec_of(2), context), context)
    units = dataclasses.replace(context, study=dataclasses.replace(context.study, val_units=np.arange(16) // 2))
    assert choosing_score(trial, units) == pytest.approx(auprc(units.study.val_judged(trial.val_outputs)))
    few = dataclasses.replace(context.study, train_groups=np.arange(32) % 2, val_groups=2 + np.arange(16) % 2)
    assert is_by_validation(trial, dataclasses.replace(context, study=few))
    monkeypatch.setattr(cross_fit, "MOST_IMAGES", 47)
    assert is_by_validation(trial, context)


@pytest.mark.parametrize("seed", range(3))
def test_divisions_of_several_labels_leave_each_of_them_to_learn(seed):
    rng = np.random.default_rng(seed)
    targets = (rng.random((120, 3)) < [0.5, 0.2, 0.08]).astype(float)
    targets[rng.random(targets.shape) < 0.1] = np.nan
    data = Labelled(
        features=np.zeros((120, 2)), targets=targets, groups=np.arange(120), task="multilabel", positive=None,
        num_classes=3,
    )  # fmt: skip
    divisions = solvable_divisions(data, seed)
    assert len(divisions) == 5
    assert sorted(np.concatenate([held for _, held in divisions])) == list(range(120))
    for rest, _ in divisions:
        assert all((targets[rest] == 1).sum(0) >= 2)
    rare = dataclasses.replace(data, targets=np.where(np.arange(120)[:, None] < 2, 1.0, [[0.0, 0.0, 1.0]]))
    assert solvable_divisions(rare, seed) == []


def test_a_share_that_is_taught_for_an_uncertain_label_is_not_known_when_judged(context):
    def part(images, num):
        targets = np.zeros((num, 3))
        targets[::2] = 1
        return dataclasses.replace(images, targets=targets, task="multilabel", positive=None, num_classes=3)

    study = dataclasses.replace(
        context.study, train=part(context.study.train, 32), val=part(context.study.val, 16), classes=("a", "b", "c")
    )
    study.train.targets[5, 1] = 0.6
    judged = study.cross_predictions(np.full((48, 3), 0.5))
    assert np.argwhere(np.isnan(judged.targets)).tolist() == [[5, 1]]
