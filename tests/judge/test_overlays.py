"""Pictures of masks: every pixel has the colour of what it is, and of a volume the slice with most to see is shown."""

import numpy as np
import pytest

from medgraft.judge.overlays import overlay

RIGHT, MISSED, WRONG = 1, 2, 0
"""Channel in which green, blue and red are strongest."""


def test_right_missed_and_wrong_have_a_colour_each_and_the_rest_none() -> None:
    pixels = np.tile(np.arange(40, dtype=np.uint8), (40, 1))
    called, truth = np.zeros((2, 40, 40), np.uint8)
    called[0:20, 0:10], truth[10:30, 0:10] = 1, 1
    called[0:5, 20:25], truth[0:5, 20:25] = 1, 2  # another class is missed
    plain, tinted = (np.asarray(picture).astype(int) for picture in overlay(pixels, called, truth))
    for rows, columns, channel in ((slice(10, 20), 5, RIGHT), (slice(20, 30), 5, MISSED), (slice(0, 10), 5, WRONG)):
        change = (tinted - plain)[rows, columns]
        assert (change.argmax(-1) == channel).all()
    assert ((tinted - plain)[0:5, 22].argmax(-1) == MISSED).all()
    np.testing.assert_array_equal(tinted[30:], plain[30:])


@pytest.mark.parametrize("num_slices", [6, 12])
def test_of_a_volume_the_slice_that_shows_most_is_seen_from_the_feet(num_slices: int) -> None:
    truth = np.zeros((6, 20, 30), np.uint8)
    truth[4, 2:6, 3:9] = 1
    pixels = np.zeros((num_slices, 20, 30), np.uint16)
    pixels[4 * num_slices // 6 : 5 * num_slices // 6, 2:6, 3:9] = 500
    plain, tinted = (np.asarray(picture) for picture in overlay(pixels, truth, truth))
    assert plain.shape == (20, 30, 3)
    # The front above, the right of the patient on the left.
    assert (plain[14:18, 21:27] == 255).all()
    assert (tinted[14:18, 21:27].argmax(-1) == RIGHT).all()


def test_large_colour_images_are_made_smaller() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (900, 1200, 3)).astype(np.uint8)
    plain, tinted = overlay(pixels, np.zeros((900, 1200), np.uint8), np.zeros((900, 1200), np.uint8))
    assert plain.size == tinted.size == (560, 420)
