"""Scores of a task: those of masks against arithmetic by hand, case by case, pooled, and per replicate."""

import numpy as np
import pytest

from medgraft.errors import ConfigError, DataError
from medgraft.metrics.classification import auprc, auroc
from medgraft.metrics.measures import measure_of, scores_of
from medgraft.metrics.overlap import MASK_METRICS, overlap_counts, weighted_overlap
from medgraft.types import Overlaps, Predictions


def overlaps(num: int = 5, num_classes: int = 2, *, has_surfaces: bool = True) -> tuple[Overlaps, list, list]:
    rng = np.random.default_rng(0)
    called, truth = ([rng.integers(0, num_classes + 1, (8, 9)) for _ in range(num)] for _ in range(2))
    found = Overlaps(
        counts=np.stack([overlap_counts(a, b, num_classes) for a, b in zip(called, truth, strict=True)]),
        groups=np.arange(num),
        classes=tuple("abc"[:num_classes]),
        surfaces=rng.random((num, num_classes, 2)) if has_surfaces else None,
    )
    return found, called, truth


def dice_of(called: np.ndarray, truth: np.ndarray, name: int) -> float:
    both, total = ((called == name) & (truth == name)).sum(), (called == name).sum() + (truth == name).sum()
    return float(2 * both / total) if total else 1.0


def test_the_mean_goes_over_cases_of_the_mean_over_classes_and_pooling_over_all_pixels():
    found, called, truth = overlaps()
    by_hand = [np.mean([dice_of(a, b, c) for c in (1, 2)]) for a, b in zip(called, truth, strict=True)]
    pooled = np.mean([dice_of(np.stack(called), np.stack(truth), c) for c in (1, 2)])
    assert scores_of(found) == pytest.approx({"dice": np.mean(by_hand), "pooled_dice": pooled})
    assert measure_of(found).chooses == "dice"


def test_a_weighted_case_counts_as_often():
    found, *_ = overlaps()
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 0, 3, 0]])
    again = [0, 0, 3, 3, 3]
    repeated = Overlaps(
        counts=found.counts[again], groups=np.arange(5), classes=found.classes, surfaces=found.surfaces[again]
    )
    for metric in MASK_METRICS:
        values = weighted_overlap(found, metric, weights)
        assert values[0] == pytest.approx(weighted_overlap(found, metric, np.ones((1, 5)))[0])
        assert values[1] == pytest.approx(weighted_overlap(repeated, metric, np.ones((1, 5)))[0]), metric


def test_surfaces_that_were_not_measured_and_weights_of_other_cases_are_refused():
    found, *_ = overlaps(has_surfaces=False)
    with pytest.raises(ConfigError, match="hd95"):
        weighted_overlap(found, "hd95", np.ones((1, 5)))
    with pytest.raises(ConfigError, match="auroc"):
        weighted_overlap(found, "auroc", np.ones((1, 5)))
    for weights in (np.ones((1, 4)), np.zeros((1, 5)), np.ones(5)):
        with pytest.raises(DataError, match="expected weights"):
            weighted_overlap(found, "dice", weights)


def test_labels_keep_their_scores():
    found = Predictions(
        probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]), targets=np.array([0, 0, 1, 1]),
        groups=np.arange(4), classes=("normal", "sick"), task="binary", positive=1,
    )  # fmt: skip
    assert scores_of(found) == {"auprc": auprc(found), "auroc": auroc(found)}
    assert measure_of(found).chooses == "auprc"
