"""Augmentation: switched off it is the identity, and each part does what its name says."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medgraft.errors import ConfigError
from medgraft.train.augment import AUGMENTATIONS, AugmentSettings, augment_batch


def waves(shape, seed=0, scale=1.0):
    """Smooth images (B, C, *spatial) on the scale 0 to 1, low frequencies only."""
    random = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(0, 1, side) for side in shape[2:]], indexing="ij")
    images = np.zeros(shape)
    for index in np.ndindex(*shape[:2]):
        for _ in range(3):
            k = random.uniform(-1, 1, len(grid)) * scale
            phase = random.uniform(0, 6)
            images[index] += np.sin(2 * np.pi * sum(a * g for a, g in zip(k, grid, strict=True)) + phase)
    return torch.tensor(0.5 + images / 8, dtype=torch.float32)


def draw(images, seed=0, **strength):
    return augment_batch(images, AugmentSettings(**strength), torch.Generator().manual_seed(seed))


def always(monkeypatch, share):
    """Every uniform draw is `share` of its range from the bottom, so that angles and shifts are known."""
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), share))


def inner(image, part=0.25):
    cut = [slice(round(side * part), side - round(side * part)) for side in image.shape]
    return image[tuple(cut)]


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 12, 20), (2, 1, 8, 10, 12)])
def test_zero_strength_returns_the_images_themselves(shape):
    images = waves(shape)
    assert augment_batch(images, AUGMENTATIONS["none"], torch.Generator()) is images


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
@pytest.mark.parametrize("shape", [(3, 1, 16, 16), (3, 3, 16, 16), (2, 1, 8, 8, 8)])
def test_augmentation_keeps_shape_and_type_and_depends_on_the_generator_alone(name, shape):
    images = waves(shape)
    before = images.clone()
    strength = dataclasses.replace(AUGMENTATIONS[name], flip="all")
    torch.manual_seed(1)
    first = augment_batch(images, strength, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    again = augment_batch(images, strength, torch.Generator().manual_seed(5))
    other = augment_batch(images, strength, torch.Generator().manual_seed(6))
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)


def test_augmentation_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    augment_batch(waves((2, 1, 8, 8)), AUGMENTATIONS["strong"], torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_every_image_draws_its_own_parameters():
    one = waves((1, 1, 16, 16))
    out = draw(one.expand(8, 1, 16, 16), rotate_deg=20.0, brightness=0.2)
    assert len({tuple(image.flatten().tolist()) for image in out}) == 8


# On one side odd, on the other even; the longer axis shows whether a rotation shears.
@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 1, 48, 81)])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_rotation_agrees_with_scipy(monkeypatch, shape, share):
    images = waves(shape)
    always(monkeypatch, share)
    rotated = draw(images, rotate_deg=20.0)[0, 0].numpy()
    degrees = 20.0 * (2 * share - 1)
    wanted = ndimage.rotate(images[0, 0].numpy(), degrees, reshape=False, order=1, mode="nearest")
    np.testing.assert_allclose(inner(rotated), inner(wanted), atol=2e-3)


def test_rotation_of_a_volume_about_one_axis_agrees_with_scipy(monkeypatch):
    images = waves((1, 1, 24, 32, 40))
    angles = iter([0.0, 0.0, 15.0])
    monkeypatch.setattr(
        "medgraft.train.augment._draw", lambda n, limit, _: torch.full((n,), next(angles) if limit == 20.0 else 0.0)
    )
    rotated = draw(images, rotate_deg=20.0)[0, 0].numpy()
    # The grid's axes are (x, y, z) = (2, 1, 0) of the array; the third pair is (y, z).
    wanted = ndimage.rotate(images[0, 0].numpy(), 15.0, axes=(1, 0), reshape=False, order=1, mode="nearest")
    np.testing.assert_allclose(inner(rotated), inner(wanted), atol=3e-3)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shift_moves_by_a_share_of_the_side(monkeypatch, share):
    images = waves((1, 1, 32, 64))
    always(monkeypatch, share)
    moved = draw(images, shift=0.125)[0, 0].numpy()
    step = (2 * share - 1) * 0.125
    wanted = ndimage.shift(images[0, 0].numpy(), (-step * 32, -step * 64), order=1, mode="nearest")
    np.testing.assert_allclose(moved, wanted, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_zoom_scales_about_the_centre(monkeypatch, share):
    images = waves((1, 1, 33, 33))
    always(monkeypatch, share)
    zoomed = draw(images, zoom=0.2)[0, 0].numpy()
    factor = 1 + 0.2 * (2 * share - 1)
    centre = np.array([16.0, 16.0])
    wanted = ndimage.affine_transform(
        images[0, 0].numpy(), np.eye(2) * factor, offset=centre - factor * centre, order=1, mode="nearest"
    )
    np.testing.assert_allclose(inner(zoomed), inner(wanted), atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 1, 6, 8), (64, 1, 4, 6, 8)])
def test_horizontal_flip_mirrors_the_last_axis_of_about_half_the_images(shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    out = draw(images, flip="horizontal")
    mirrored = torch.tensor([torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(out, images, strict=True)])
    kept = torch.tensor([torch.allclose(a, b, atol=1e-5) for a, b in zip(out, images, strict=True)])
    assert torch.all(mirrored ^ kept)
    assert 16 < int(mirrored.sum()) < 48


def test_flip_of_all_axes_reaches_every_combination():
    images = torch.rand((1, 1, 6, 8), generator=torch.Generator().manual_seed(0)).expand(64, 1, 6, 8)
    wanted = [images[0], images[0].flip(-1), images[0].flip(-2), images[0].flip(-1, -2)]
    found = [[torch.allclose(out, w, atol=1e-5) for w in wanted].index(True) for out in draw(images, flip="all")]
    assert set(found) == {0, 1, 2, 3}


@given(seed=st.integers(0, 2**31), contrast=st.floats(0, 0.5), brightness=st.floats(0, 0.5))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_intensity_changes_mean_and_spread_within_their_limits(seed, contrast, brightness):
    images = waves((4, 3, 8, 8), seed=1)
    out = draw(images, seed=seed, contrast=contrast, brightness=brightness)
    axes = (1, 2, 3)
    assert torch.all((out.mean(axes) - images.mean(axes)).abs() <= brightness + 1e-5)
    gain = out.std(axes) / images.std(axes)
    assert torch.all((gain - 1).abs() <= contrast + 1e-4)


def test_noise_is_centred_and_at_most_as_strong_as_asked():
    images = torch.full((200, 1, 16, 16), 0.5)
    out = draw(images, noise=0.1) - images
    spread = out.flatten(1).std(1)
    assert float(spread.max()) < 0.12
    assert 0.04 < float(spread.mean()) < 0.06
    assert abs(float(out.mean())) < 1e-3


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_moving_never_leaves_the_range_of_the_image(seed):
    images = torch.rand((2, 1, 12, 12), generator=torch.Generator().manual_seed(seed))
    out = draw(images, seed=seed, rotate_deg=180.0, zoom=0.9, shift=1.0, flip="all")
    assert float(out.min()) >= float(images.min()) - 1e-5
    assert float(out.max()) <= float(images.max()) + 1e-5


@pytest.mark.parametrize("name", ["rotate_deg", "zoom", "shift", "brightness", "contrast", "noise"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_an_impossible_strength_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be zero or positive, got"):
        AugmentSettings(**{name: value})


def test_a_zoom_to_nothing_is_refused():
    with pytest.raises(ConfigError, match="zoom must be below 1"):
        AugmentSettings(zoom=1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_the_device_has_no_effect():
    images = waves((4, 3, 16, 16))
    there = augment_batch(images.cuda(), AUGMENTATIONS["strong"], torch.Generator().manual_seed(0))
    here = augment_batch(images, AUGMENTATIONS["strong"], torch.Generator().manual_seed(0))
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=0)
