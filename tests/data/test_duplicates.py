import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, shift, zoom

from medgraft.data.audit import duplicates
from medgraft.data.audit.duplicates import exact_sets, near_duplicates
from medgraft.data.decoded.fingerprint import pixel_digest, thumbnail


def test_exact_sets_compare_whole_digests_even_with_trailing_zeros():
    raw = np.zeros(5, dtype="V32")
    for row, text in enumerate((b"a", b"", b"a", b"b", b"")):
        raw[row] = np.void(text.ljust(32, b"\0"))
    assert exact_sets(raw) == ((0, 2), (1, 4))
    assert exact_sets(raw[:0]) == ()


def test_the_digest_covers_shape_type_and_values():
    zeros = np.zeros((2, 6), np.uint8)
    digests = {
        pixel_digest(zeros),
        pixel_digest(zeros.reshape(3, 4)),
        pixel_digest(zeros.astype(np.uint16)[:, :3]),
    }
    assert len(digests) == 3
    expected = hashlib.sha256(b"(2, 6) |u1" + bytes(12)).digest()
    assert pixel_digest(zeros) == expected
    assert pixel_digest(np.asfortranarray(np.arange(6).reshape(2, 3))) == pixel_digest(np.arange(6).reshape(2, 3))


def test_brightness_and_contrast_do_not_matter_to_thumbnails(picture):
    image = picture(0)
    dimmer = (image // 2 + 20).astype(np.uint16) * 16
    assert abs(thumbnail(image).astype(int) - thumbnail(dimmer)).max() <= 4


def compressed(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


EDITS = {
    "brighter": lambda image: np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8),
    "cropped": lambda image: image[len(image) // 40 :, len(image) // 20 :],
    "shifted": lambda image: shift(image, (len(image) // 32, -len(image) // 32), order=0),
    "turned": np.rot90,
    "mirrored": lambda image: image[:, ::-1],
    "compressed": compressed,
}


def fundus(seed, side=128):
    """A bright disc on black with a bright spot, of which all people's look alike, and vessels of one's own."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:side, :side] / side - 0.5
    vessels = np.zeros((side, side))
    for _ in range(10):
        angle, place = rng.uniform(0, 2 * np.pi), np.array([0.5, 0.35]) * side
        for _ in range(side):
            angle += rng.normal(0, 0.15)
            place = np.clip(place + np.array([np.sin(angle), np.cos(angle)]), 0, side - 1)
            vessels[tuple(place.astype(int))] = 1
    light = 120 + 80 * np.exp(-(down**2 + (right + 0.15) ** 2) / 0.01) - 90 * gaussian_filter(vessels, 1)
    return np.clip(np.where(down**2 + right**2 < 0.2, light, 0), 0, 255).astype(np.uint8)


def slices(seed, side=128):
    """A body with lungs, a spine and texture; the people differ in the texture alone."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:side, :side] / side - 0.5
    image = 130.0 * ((down / 0.35) ** 2 + (right / 0.45) ** 2 < 1)
    for middle in (-0.2, 0.2):
        image[(down / 0.2) ** 2 + ((right - middle) / 0.14) ** 2 < 1] = 40
    image[((down - 0.25) / 0.06) ** 2 + (right / 0.06) ** 2 < 1] = 220
    texture = gaussian_filter(rng.standard_normal((side, side)), 3)
    return np.clip(image + 6 * texture / texture.std() + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("draw", [fundus, slices])
@pytest.mark.parametrize("num", [24, 120])
def test_edited_copies_are_found_and_what_all_have_in_common_does_not_count(draw, num):
    images = [draw(seed) for seed in range(num)]
    images += [edit(images[number]) for number, edit in enumerate(EDITS.values())]
    found = near_duplicates(np.stack([thumbnail(image) for image in images]), np.arange(len(images)))
    assert {(pair.first, pair.second) for pair in found.pairs} == {(i, num + i) for i in range(len(EDITS))}
    assert list(found.pairs) == sorted(found.pairs, key=lambda pair: -pair.detail)
    assert found.is_complete


def test_pictures_of_their_own_are_found_turned_and_edited_at_once(picture):
    images = [picture(seed, 96) for seed in range(60)]
    images += [EDITS["brighter"](np.rot90(images[3][:, ::-1])[1:, 3:]), images[9][::2, ::2], zoom(images[11], 1.7)]
    found = near_duplicates(np.stack([thumbnail(image) for image in images]), np.arange(len(images)))
    assert {(pair.first, pair.second) for pair in found.pairs} == {(3, 60), (9, 61), (11, 62)}


def test_rows_that_are_not_asked_about_are_in_no_pair(picture):
    thumbs = np.stack([thumbnail(picture(seed % 4)) for seed in range(8)])
    found = near_duplicates(thumbs, np.array([0, 1, 5, 7]))
    assert [(pair.first, pair.second) for pair in found.pairs] == [(1, 5)]
    assert near_duplicates(thumbs, np.array([2])).pairs == ()


@pytest.mark.parametrize(("copies", "is_complete"), [(3, True), (60, False)])
def test_only_where_the_least_promising_pairs_are_confirmed_there_may_be_more(
    picture, monkeypatch, copies, is_complete
):
    monkeypatch.setattr(duplicates, "_LIMIT", 40)
    images = [picture(seed, 96) for seed in range(200)]
    images += [image[1:, 1:] for image in images[:copies]]
    found = near_duplicates(np.stack([thumbnail(image) for image in images]), np.arange(len(images)))
    assert found.num_proposed == 40
    assert len(found.pairs) == min(copies, 40)
    assert found.is_complete == is_complete
