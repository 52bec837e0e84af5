"""Overlap of masks against sets of pixels, distances against geometry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medgraft.metrics.overlap import dice, jaccard, overlap_counts, pooled_dice, surface_scores


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_counts_are_those_of_sets(seed: int, num_classes: int) -> None:
    rng = np.random.default_rng(seed)
    called, truth = (rng.integers(0, num_classes + 1, (5, 6)).astype(np.uint8) for _ in range(2))
    counts = overlap_counts(called, truth, num_classes)
    for number in range(1, num_classes + 1):
        one, two = (set(np.flatnonzero(mask == number)) for mask in (called, truth))
        assert counts[number - 1].tolist() == [len(one), len(two), len(one & two)]
        if one | two:
            assert dice(counts)[number - 1] == pytest.approx(2 * len(one & two) / (len(one) + len(two)))
            assert jaccard(counts)[number - 1] == pytest.approx(len(one & two) / len(one | two))
        else:
            assert (dice(counts)[number - 1], jaccard(counts)[number - 1]) == (1, 1)


def test_what_is_empty_is_right_or_wrong() -> None:
    nothing, something = np.zeros((3, 4), np.uint8), np.eye(3, 4, dtype=np.uint8)
    assert dice(overlap_counts(nothing, something, 1)).tolist() == [0]
    assert jaccard(overlap_counts(something, nothing, 1)).tolist() == [0]
    assert surface_scores(nothing > 0, nothing > 0, (1, 1), 1) == (0, 1)
    assert surface_scores(nothing > 0, something > 0, (1, 1), 1) == (5, 0)
    assert surface_scores(something > 0, nothing > 0, (3, 3), 1) == (15, 0)


def test_pooled_dice_weighs_pixels_and_the_mean_weighs_cases() -> None:
    counts = np.array([[[100, 100, 100]], [[2, 2, 0]]])
    assert dice(counts).mean() == pytest.approx(0.5)
    assert pooled_dice(counts)[0] == pytest.approx(200 / 204)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_a_shift_is_the_distance_of_surfaces(spacing: tuple[float, float]) -> None:
    truth = np.zeros((40, 60), bool)
    truth[10:30, 10:30] = True
    called = np.roll(truth, 4, 1)
    distance, share = surface_scores(called, truth, spacing, 0.0)
    assert distance == pytest.approx(4 * spacing[1])
    assert 0 < share < 1
    assert surface_scores(called, truth, spacing, 4 * spacing[1])[1] == pytest.approx(1.0)
    assert surface_scores(truth, truth, spacing, 0.0) == (0, 1)


def test_distances_are_those_of_the_two_rims() -> None:
    rng = np.random.default_rng(0)
    called, truth = (ndimage.gaussian_filter(rng.normal(size=(48, 48)), 4) > 0.02 for _ in range(2))
    spacing = (0.7, 1.3)
    rims = [mask & ~ndimage.binary_erosion(mask) for mask in (called, truth)]
    to = [ndimage.distance_transform_edt(~rim, sampling=spacing) for rim in rims]
    one, two = to[1][rims[0]], to[0][rims[1]]
    distance, share = surface_scores(called, truth, spacing, 2.0)
    assert distance == pytest.approx(max(np.percentile(one, 95), np.percentile(two, 95)), abs=0.15)
    within = ((one <= 2).sum() + (two <= 2).sum()) / (len(one) + len(two))
    assert share == pytest.approx(within, abs=0.06)


def test_volumes_have_surfaces_too() -> None:
    truth = np.zeros((16, 16, 16), bool)
    truth[4:10, 4:10, 4:10] = True
    distance, share = surface_scores(np.roll(truth, 2, 0), truth, (3.0, 1.0, 1.0), 6.0)
    assert distance == pytest.approx(6.0)
    assert share == pytest.approx(1.0)


@pytest.mark.parametrize(("axis", "shift", "share"), [(0, 1, 0.8647), (2, 3, 0.6501)])
def test_surface_dice_weighs_area_as_its_paper_does(axis: int, shift: int, share: float) -> None:
    """Values of DeepMind's surface-distance; counting voxels of the border gives .674 and .761."""
    truth = np.zeros((16, 24, 24), bool)
    truth[3:11, 5:17, 5:17] = True
    for pair in ((truth, np.roll(truth, shift, axis)), (np.roll(truth, shift, axis), truth)):
        assert surface_scores(*pair, (5, 1, 1), 2)[1] == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 9)])
def test_surfaces_of_one_pixel_and_of_whole_images_are_measured(shape: tuple[int, ...]) -> None:
    dot, whole = np.zeros(shape, bool), np.ones(shape, bool)
    dot[(4,) * len(shape)] = True
    for mask in (dot, whole):
        assert surface_scores(mask, mask, (1.0,) * len(shape), 0.5) == (0.0, 1.0)
    assert 0 <= surface_scores(dot, whole, (1.0,) * len(shape), 1.0)[1] <= 1
