"""Cases of several models: only those that one model judged are ranked against each other."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medgraft.errors import DataError
from medgraft.evaluate.influence import auroc_influence, influence_variance
from medgraft.evaluate.summary import site_results
from medgraft.metrics import auprc, auroc, weighted_metric
from medgraft.metrics.classification import auprc_per_class, auroc_per_class
from medgraft.metrics.measures import cases_of, measure_of

TASKS = ("binary", "multiclass", "multilabel")


def in_folds(pred, num=4):
    return dataclasses.replace(pred, strata=np.arange(len(pred.probs)) % num)


def shifted(pred):
    """The same ranks within a stratum, other ones across: what a model of another fold says."""
    probs = 0.01 + 0.98 * pred.probs
    odds = np.log(probs / (1 - probs)) + 0.7 * pred.strata[:, None] * np.array([-1.0, 1.0])
    return dataclasses.replace(pred, probs=1 / (1 + np.exp(-odds)))


def test_a_shift_between_folds_changes_no_rank(make_predictions):
    pred = in_folds(make_predictions("binary", num_cases=120))
    for metric in (auroc, auprc):
        assert metric(shifted(pred)) == pytest.approx(metric(pred), abs=1e-12)
        assert metric(dataclasses.replace(shifted(pred), strata=None)) < metric(pred)
    assert influence_variance([shifted(pred)], "auroc") == pytest.approx(influence_variance([pred], "auroc"))


@pytest.mark.parametrize("task", TASKS)
def test_it_is_the_mean_of_the_folds_by_what_they_count(task, make_predictions):
    pred = in_folds(make_predictions(task, num_cases=120))
    columns = [pred.positive] if task == "binary" else range(len(pred.classes))
    truth = pred.targets == 1 if task == "multilabel" else pred.targets[:, None] == np.arange(len(pred.classes))
    for metric, area, counted, each in (
        ("auroc", roc_auc_score, lambda labels: labels.sum() * (~labels).sum(), auroc_per_class),
        ("auprc", average_precision_score, lambda labels: labels.sum(), auprc_per_class),
    ):
        expected = []
        for column in columns:
            parts = [(truth[pred.strata == s, column], pred.probs[pred.strata == s, column]) for s in range(4)]
            counts = [counted(labels) for labels, _ in parts]
            areas = [
                area(labels, scores) if count else 0 for (labels, scores), count in zip(parts, counts, strict=True)
            ]
            expected.append(np.average(areas, weights=counts))
        assert weighted_metric(pred, metric, np.ones((1, 120)))[0] == pytest.approx(np.mean(expected), abs=1e-12)
        assert list(each(pred).values()) == pytest.approx(expected, abs=1e-12)
        # Weights count as copies of a case.
        weights = np.random.default_rng(0).integers(0, 3, (1, 120))
        copies = cases_of(pred, np.repeat(np.arange(120), weights[0]))
        again = weighted_metric(copies, metric, np.ones((1, int(weights.sum()))))
        assert weighted_metric(pred, metric, weights) == pytest.approx(again, abs=1e-12)


def test_classes_apart_keep_the_folds(make_predictions):
    pred = in_folds(make_predictions("multiclass", num_cases=120))
    for part in measure_of(pred).classes(pred):
        assert auroc(part.judged) == pytest.approx(auroc_per_class(pred)[part.name], abs=1e-12)


def test_influences_foretell_what_leaving_a_case_out_changes(make_predictions):
    pred = in_folds(make_predictions("binary", num_cases=160), num=2)
    influence = auroc_influence(pred)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    for case in range(0, 160, 17):
        left = auroc(cases_of(pred, np.arange(160) != case))
        # What the case itself added, less how it moves the shares of its fold: of the second order.
        assert auroc(pred) - left == pytest.approx(influence[case], abs=1.5e-3)


def test_one_fold_is_no_folds(make_predictions):
    pred = make_predictions("binary", num_cases=60)
    same = dataclasses.replace(pred, strata=np.zeros(60, int))
    assert auroc(same) == auroc(pred)
    np.testing.assert_array_equal(auroc_influence(same), auroc_influence(pred))


def test_a_fold_without_a_class_ranks_nothing_and_all_of_them_are_refused(make_predictions):
    pred = make_predictions("binary", num_cases=60)
    apart = dataclasses.replace(pred, strata=pred.targets)
    with pytest.raises(DataError, match="that one model judged, got none"):
        auroc(apart)
    some = dataclasses.replace(pred, strata=np.where(np.arange(60) < 40, 0, 1 + pred.targets))
    assert auroc(some) == pytest.approx(auroc(cases_of(pred, np.arange(40))), abs=1e-12)


def test_sites_of_few_cases_have_intervals_whatever_replicates_draw(make_predictions):
    """Of two cases of each class in each of five folds some replicate has no fold with both."""
    pred = make_predictions("binary", num_cases=400)
    rows = np.concatenate([np.flatnonzero(pred.targets == name)[:10] for name in (0, 1)])
    few = dataclasses.replace(cases_of(pred, rows), strata=np.arange(20) % 5)
    weights = np.zeros((2, 20))
    weights[0], weights[1, [0, 11]] = 1, 1
    whole = weighted_metric(dataclasses.replace(few, strata=None), "auroc", weights)
    found = weighted_metric(few, "auroc", weights)
    assert found[1] == whole[1]
    assert 0 <= found[0] <= 1
    site = site_results(few, ["north"] * 20, num=2000)["north"]
    assert site.scores["auprc"].ci95 is not None


def test_a_site_whose_cases_no_fold_compares_says_so(make_predictions):
    pred = make_predictions("binary", num_cases=120)
    is_north = np.arange(120) < 60
    split = dataclasses.replace(pred, strata=np.where(is_north, pred.targets, 2))
    found = site_results(split, ["north" if north else "south" for north in is_north], num=50)
    assert found["north"].reason == f"no fold tested cases with and without {pred.classes[pred.positive]!r}"
    assert found["south"].reason == ""
