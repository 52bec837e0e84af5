import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medgraft.errors import ConfigError, DataError
from medgraft.io import intensity_scale, prepare, prepare_mask, restore
from medgraft.types import USUAL_READING, Preprocessing


def setting(size=8, channels=1, resize="squash"):
    return Preprocessing(sides=(size, size), channels=channels, intensity_max=255, resize=resize)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def triangle_weights(length, target):
    """Antialiased bilinear resampling as a matrix, in float64."""
    scale = length / target
    reach = max(scale, 1.0)
    matrix = np.zeros((target, length))
    for row in range(target):
        centre = (row + 0.5) * scale
        low, high = max(0, int(centre - reach + 0.5)), min(length, int(centre + reach + 0.5))
        places = np.arange(low, high)
        weights = np.maximum(0, 1 - np.abs((places + 0.5 - centre) / reach))
        matrix[row, places] = weights / weights.sum()
    return matrix


def reference(pixels, height, width):
    rows, columns = triangle_weights(pixels.shape[0], height), triangle_weights(pixels.shape[1], width)
    return rows @ pixels.astype(np.float64) @ columns.T


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(37, 53), (5, 90), (3, 3)])
def test_resizing_is_antialiased_bilinear(dtype, shape):
    pixels = noise(*shape, dtype=dtype)
    result = prepare(pixels, setting(size=11))
    assert result.dtype == dtype
    np.testing.assert_allclose(result[0], reference(pixels, 11, 11), atol=1.01)


def test_the_right_size_is_left_untouched():
    pixels = noise(8, 8, dtype=np.uint16)
    np.testing.assert_array_equal(prepare(pixels, setting())[0], pixels)


def test_padding_keeps_the_aspect_and_fills_with_the_minimum():
    pixels = noise(10, 20) // 2 + 50
    result = prepare(pixels, setting(size=10, resize="pad"))[0]
    inner = np.asarray(Image.fromarray(pixels).resize((10, 5), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(result[2:7], inner)
    assert set(result[:2].ravel()) | set(result[7:].ravel()) == {inner.min()}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_becomes_grey_by_luminance_and_grey_becomes_colour_by_repetition(dtype):
    pixels = noise(8, 8, 3, dtype=dtype)
    expected = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(prepare(pixels, setting())[0], expected, atol=1.01)
    repeated = prepare(pixels[..., 0], setting(channels=3))
    assert all(np.array_equal(channel, pixels[..., 0]) for channel in repeated)
    np.testing.assert_array_equal(prepare(pixels, setting(channels=3)), pixels.transpose(2, 0, 1))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    colour=st.booleans(),
    deep=st.booleans(),
    size=st.integers(1, 24),
    channels=st.sampled_from([1, 3]),
    resize=st.sampled_from(["squash", "pad"]),
)
def test_output_has_the_asked_shape_and_stays_within_the_inputs_range(
    height, width, colour, deep, size, channels, resize
):
    dtype = np.uint16 if deep else np.uint8
    pixels = noise(height, width, *([3] if colour else []), dtype=dtype, seed=height * 41 + width)
    result = prepare(pixels, setting(size, channels, resize))
    assert result.shape == (channels, size, size)
    assert result.dtype == dtype
    assert pixels.min() <= result.min() <= result.max() <= pixels.max()


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (np.zeros((3, 3)), "uint8 or uint16"),
        (np.zeros((3, 3, 4), np.uint8), "shape"),
        (np.zeros((0, 3), np.uint8), "0, 3"),
    ],
)
def test_other_arrays_are_refused(pixels, error):
    with pytest.raises(DataError, match=error):
        prepare(pixels, setting())


def test_impossible_settings_are_refused():
    for bad, words in (
        (setting(size=0), "sides"),
        (setting(channels=2), "channels"),
        (setting(resize="fit"), "resize"),
    ):
        with pytest.raises(ConfigError, match=words):
            prepare(noise(3, 3), bad)


def test_the_intensity_scale_is_the_smallest_that_covers():
    for bits in (8, 10, 12, 14, 16):
        assert intensity_scale(2**bits - 1) == 2**bits - 1
    assert [intensity_scale(value) for value in (0, 256, 1024, 4096, 16384)] == [
        255,
        1023,
        4095,
        16383,
        65535,
    ]
    with pytest.raises(DataError, match="got 65536"):
        intensity_scale(65536)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(20, 30), (40, 16), (8, 8), (9, 20, 14)])
def test_a_mask_lies_where_its_image_lies(resize, shape):
    setting = Preprocessing(sides=(16, 12, 24)[-len(shape) :], channels=1, intensity_max=255, resize=resize)
    image = np.zeros(shape, np.uint8)
    middle = tuple(slice(side // 4, 3 * side // 4) for side in shape)
    image[middle] = 200
    found, mask = prepare(image, setting)[0], prepare_mask((image > 0).astype(np.uint8), setting)
    assert mask.shape == setting.sides
    assert mask.dtype == np.uint8
    overlap = (found > 100) & (mask > 0)
    assert 2 * overlap.sum() / ((found > 100).sum() + (mask > 0).sum()) > 0.85


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(48, 60), (64, 40), (12, 10), (18, 24, 20)])
def test_what_was_prepared_comes_back_at_its_own_size(resize, shape):
    setting = Preprocessing(sides=(32, 32, 32)[-len(shape) :], channels=1, intensity_max=255, resize=resize)
    mask = np.zeros(shape, np.uint8)
    # Near the middle, so that cropping keeps it.
    mask[tuple(slice(side // 2 - max(3, side // 5), side // 2 + max(3, side // 5)) for side in shape)] = 1
    found = restore(prepare_mask(mask, setting).astype(np.float32), shape, setting)
    assert found.shape == shape
    assert 2 * ((found > 0.5) & (mask > 0)).sum() / ((found > 0.5).sum() + mask.sum()) > 0.8


def test_what_was_cut_off_is_filled():
    setting_ = setting(4, resize="crop")
    found = restore(np.zeros((4, 4), np.float32), (8, 2), setting_, fill=1.0)
    np.testing.assert_array_equal(found[:, 0], [1, 1, 0, 0, 0, 0, 1, 1])


def test_a_mask_of_equal_size_is_not_touched_and_a_crop_is_padded_with_background():
    mask = np.arange(16, dtype=np.uint8).reshape(4, 4)
    np.testing.assert_array_equal(prepare_mask(mask, setting(4)), mask)
    padded = prepare_mask(np.full((2, 2), 7, np.uint8), setting(4, resize="crop"))
    assert padded.sum() == 28
    assert (padded[[0, -1]] == 0).all()


def test_masks_of_resampled_volumes_are_cropped_at_the_common_spacing():
    reading = dataclasses.replace(USUAL_READING, spacing_mm=(2.0, 1.0, 1.0))
    one = Preprocessing(sides=(4, 8, 8), channels=1, intensity_max=255, resize="crop", reading=reading)
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    # Slices of 1 mm become half as many of 2 mm; nothing is cut off.
    prepared = prepare_mask(mask, one, (1.0, 1.0, 1.0))
    assert prepared.sum() == 2 * 4 * 4
    back = restore(prepared.astype(np.float32), (8, 8, 8), one, (1.0, 1.0, 1.0))
    assert (back[2:5, 2:6, 2:6] > 0.99).all()
    assert (back[[0, 7]] == 0).all()


def test_a_map_comes_back_from_the_common_spacing_in_its_place():
    reading = dataclasses.replace(USUAL_READING, spacing_mm=(1.0, 1.0, 1.0))
    one = Preprocessing(sides=(37, 15, 8), channels=1, intensity_max=255, resize="squash", reading=reading)
    # Slices of 4 mm become 37 of 1 mm (from the first centre to the last), rows of 2 mm 15, columns stay.
    ramp = np.broadcast_to(np.arange(37, dtype=np.float32)[:, None, None], (37, 15, 8))
    found = restore(ramp, (10, 8, 8), one, (4.0, 2.0, 1.0))
    np.testing.assert_allclose(found[:, 3, 3], 4 * np.arange(10), atol=1e-4)
