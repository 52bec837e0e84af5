import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

import medgraft.data.audit.duplicates as duplicates
from medgraft.data.audit.duplicates import exact_sets, hash_pairs, near_duplicates, similarity
from medgraft.data.decoded.fingerprint import perceptual_hash, pixel_digest, thumbnail


def all_pairs(hashes, max_bits):
    """Every pair, compared one by one."""
    found = []
    for i in range(len(hashes)):
        for j in range(i + 1, len(hashes)):
            bits = (int(hashes[i]) ^ int(hashes[j])).bit_count()
            if bits <= max_bits:
                found.append((bits, i, j))
    return [(i, j) for _, i, j in sorted(found)]


@settings(max_examples=60, deadline=None)
@given(
    base=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    flips=st.lists(st.lists(st.integers(0, 63), max_size=8), max_size=40),
    max_bits=st.integers(0, 10),
)
def test_hash_pairs_are_those_of_comparing_all_with_all(base, flips, max_bits):
    hashes = list(base)
    for number, bits in enumerate(flips):
        word = base[number % len(base)]
        for bit in bits:
            word ^= 1 << bit
        hashes.append(word)
    pairs, bound = hash_pairs(np.array(hashes, np.uint64), max_bits)
    assert [tuple(pair) for pair in pairs.tolist()] == all_pairs(hashes, max_bits)
    assert bound == max_bits


def test_too_many_pairs_lower_the_bound_and_keep_the_closest():
    random = np.random.default_rng(0)
    hashes = np.array([int(random.integers(0, 2**12)) for _ in range(300)], np.uint64)
    pairs, bound = hash_pairs(hashes, 8, limit=500)
    assert len(pairs) <= 500
    assert bound < 8
    assert [tuple(pair) for pair in pairs.tolist()] == all_pairs(hashes, bound)
    equal, bound = hash_pairs(np.zeros(200, np.uint64), 8, limit=100)
    assert (len(equal), bound) == (100, -1)


def test_small_blocks_change_nothing(monkeypatch):
    hashes = np.random.default_rng(1).integers(0, 2**10, 200).astype(np.uint64)
    expected = hash_pairs(hashes, 3)[0]
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    np.testing.assert_array_equal(hash_pairs(hashes, 3)[0], expected)


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


def test_the_hash_is_the_sign_of_low_dct_coefficients_about_their_median(picture):
    thumb = thumbnail(picture(3))
    small = thumb.astype(np.float64).reshape(32, 2, 32, 2).mean(axis=(1, 3))
    low = dctn(small, norm="ortho")[:8, :8].ravel()
    expected = "".join("1" if value > np.median(low[1:]) else "0" for value in low)
    assert perceptual_hash(thumb) == int(expected, 2)


def test_brightness_and_contrast_do_not_matter_to_thumbnails(picture):
    image = picture(0)
    dimmer = (image // 2 + 20).astype(np.uint16) * 16
    assert abs(thumbnail(image).astype(int) - thumbnail(dimmer)).max() <= 4


def reference(a, b):
    """Correlation as a whole and in detail, at the best of 25 shifts, one pair, float64."""
    detail_a, detail_b = (image - gaussian_filter(image, 3.0) for image in (a.astype(float), b.astype(float)))
    scores = []
    for down in range(5):
        for right in range(5):
            window = np.s_[down : down + 60, right : right + 60]
            shape = np.corrcoef(a[2:62, 2:62].ravel(), b[window].ravel())[0, 1]
            scores.append((shape, np.corrcoef(detail_a[2:62, 2:62].ravel(), detail_b[window].ravel())[0, 1]))
    return max(scores)


def test_similarity_is_the_correlation_at_the_best_shift(picture):
    first = thumbnail(picture(1))
    others = [np.roll(first, (1, -2), axis=(0, 1)), (first * 0.8).astype(np.uint8), 255 - first]
    noisy = np.clip(first + np.random.default_rng(0).normal(0, 12, first.shape), 0, 255).astype(np.uint8)
    stack = np.stack([*others, noisy])
    shape, detail = similarity(np.stack([first] * 4), stack)
    for index in (1, 3):
        expected = reference(first, stack[index])
        assert (shape[index], detail[index]) == pytest.approx(expected, abs=1e-4)
    assert shape[2] == pytest.approx(-1, abs=1e-3)
    assert detail[2] == -1


def test_edited_copies_are_found_and_other_pictures_are_not(picture):
    images = [picture(seed, 96) for seed in range(60)]
    images += [
        images[3][1:, 1:],
        np.clip(images[7].astype(int) + 9, 0, 255).astype(np.uint8),
        images[9][::2, ::2],
    ]
    thumbs = np.stack([thumbnail(image) for image in images])
    hashes = np.array([perceptual_hash(thumb) for thumb in thumbs], np.uint64)
    found = near_duplicates(hashes, thumbs, np.arange(len(images)))
    assert {(pair.first, pair.second) for pair in found.pairs} == {(3, 60), (7, 61), (9, 62)}
    assert list(found.pairs) == sorted(found.pairs, key=lambda pair: -pair.detail)
    assert found.num_proposed >= 3


def test_a_close_hash_alone_is_no_near_duplicate(picture):
    thumbs = np.stack([thumbnail(picture(seed)) for seed in range(2)])
    found = near_duplicates(np.zeros(2, np.uint64), thumbs, np.arange(2))
    assert (found.num_proposed, found.pairs) == (1, ())
