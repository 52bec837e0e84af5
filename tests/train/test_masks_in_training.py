"""Patches, losses and augmentation of masks: in step with their images, reproducible, around what is marked."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medgraft.errors import ConfigError
from medgraft.train.augment import AUGMENTATIONS, AugmentSettings, augment_batch, augment_pair
from medgraft.train.batches import MaskSet, whole_input
from medgraft.train.engine import Engine
from medgraft.train.mask_losses import MASK_LOSSES, make_mask_loss
from medgraft.train.outputs import mask_overlaps, predict_masks
from medgraft.train.patches import PatchSettings, draw_patches
from medgraft.train.settings import TrainSettings
from medgraft.train.teaching import Share, teach
from medgraft.transfer.model import Normalise

STRONG = AugmentSettings(rotate_deg=30, zoom=0.2, shift=0.1, flip="all", brightness=0.2, contrast=0.2, noise=0.05)


def data(num_classes: int = 1, sides: tuple[int, ...] = (40, 50), count: int = 6) -> MaskSet:
    """Images whose pixels are ten times their class, with little marked."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, *sides), np.uint8)
    for number in range(count):
        for name in range(1, num_classes + 1):
            at = tuple(rng.integers(0, side - 4) for side in sides)
            masks[(number, *(slice(low, low + 4) for low in at))] = name
    return MaskSet(
        images=(masks * 10)[:, None], masks=masks, rows=np.arange(count)[1:], intensity_max=10, num_classes=num_classes
    )


def epoch(found: MaskSet, number: int = 0, **settings: Any) -> list[tuple[Tensor, Tensor]]:
    drawn = draw_patches(found, PatchSettings(**{"sides": (16, 16), **settings}), 4, seed=3, epoch=number)
    return [(images, masks) for images, masks, _ in drawn]


def test_patches_hold_image_and_mask_of_one_place() -> None:
    found = epoch(data(2))
    assert sum(len(images) for images, _ in found) == 20
    for images, masks in found:
        assert images.shape[1:] == (1, 16, 16)
        assert (images.dtype, masks.dtype) == (torch.float32, torch.int64)
        assert torch.equal(images[:, 0], masks.float())


def test_patches_of_a_network_for_z_scores_have_that_of_their_whole_image() -> None:
    found = dataclasses.replace(data(), is_standardised=True)
    whole = [whole_input(found.images[row], 10, is_standardised=True) for row in found.rows]
    assert all(abs(float(one.mean())) < 1e-6 and float(one.std(correction=0)) == pytest.approx(1) for one in whole)
    settings = TrainSettings(
        epochs=1, batch_size=4, patches=PatchSettings(sides=(16, 16), foreground=0.0), augment=AUGMENTATIONS["none"]
    )
    batches = teach(found, found, settings, Engine(device="cpu")).batches(0, Share())
    drawn = torch.cat([images for images, _ in batches]).flatten(1)
    # Most patches are of air alone: as dark as their image makes them, and not stretched to a deviation of one.
    dark = [float(one.min()) for one in whole]
    is_air = drawn.amax(1) < 0
    assert is_air.sum() > 4
    assert all(min(abs(float(value) - one) for one in dark) < 1e-5 for value in drawn[is_air].amin(1))
    assert drawn[is_air].std(1).max() < 1e-6
    model = Normalise(1, "before", (0.5,), (0.5,))
    torch.testing.assert_close(model(whole[0][None]), whole[0][None])


def test_an_epoch_is_drawn_again_and_the_next_one_is_another() -> None:
    first, again, later = epoch(data()), epoch(data()), epoch(data(), 1)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(first, later, strict=True))


@pytest.mark.parametrize(("foreground", "least", "most"), [(1.0, 1.0, 1.0), (0.5, 0.5, 0.8), (0.0, 0.0, 0.5)])
def test_the_share_around_what_is_marked_is_kept(foreground: float, least: float, most: float) -> None:
    masks = torch.cat([masks for _, masks in epoch(data(), per_image=40, foreground=foreground)])
    assert least <= float((masks > 0).flatten(1).any(1).float().mean()) <= most


def test_every_class_is_looked_for_and_small_images_are_taken_whole() -> None:
    masks = torch.cat([masks for _, masks in epoch(data(3, (200, 200)), per_image=60, foreground=1.0)])
    shares = [float((masks == name).flatten(1).any(1).float().mean()) for name in (1, 2, 3)]
    assert min(shares) > 0.2
    images, masks = epoch(data(), sides=(64, 32))[0]
    assert images.shape[2:] == (40, 32)
    assert next(iter(epoch(data(1, (12, 20, 20)), sides=(8, 8, 8))))[0].shape == (4, 1, 8, 8, 8)


def test_patches_of_one_and_classes_that_are_not_there() -> None:
    assert len(list(draw_patches(data(), PatchSettings(sides=(8, 8)), 1, 0, 0))) == 20
    found = data()
    rare = MaskSet(images=found.images, masks=found.masks, rows=found.rows, intensity_max=10, num_classes=5)
    masks = torch.cat([masks for _, masks in epoch(rare, per_image=40, foreground=1.0)])
    assert (masks == 1).flatten(1).any(1).all()


@pytest.mark.parametrize("wrong", [{"sides": (0, 8)}, {"per_image": 0}, {"foreground": 1.5}])
def test_impossible_patches_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected patches"):
        epoch(data(), **wrong)


@pytest.mark.parametrize("dims", [2, 3])
def test_masks_move_with_their_images_and_stay_whole(dims: int) -> None:
    masks = torch.zeros(6, *(24,) * dims, dtype=torch.long)
    masks[(slice(None), *(slice(6, 16),) * dims)] = 2
    images = masks[:, None].float()
    geometry = AugmentSettings(rotate_deg=30, zoom=0.2, shift=0.1, flip="all")
    moved, followed = augment_pair(images, masks, geometry, torch.Generator().manual_seed(0))
    assert followed is not None
    assert followed.unique().tolist() == [0, 2]
    # Linear and nearest sampling of one grid: on either side of the middle they agree, up to a tie between voxels.
    bright, marked = moved[:, 0] > 1.02, followed == 2
    assert (bright & ~marked).sum() == 0
    assert (marked & (moved[:, 0] < 0.5)).sum() == 0
    assert abs(int(bright.sum()) - int(marked.sum())) < 0.08 * int(marked.sum())
    assert not torch.equal(followed, masks)


def test_draws_do_not_depend_on_masks_and_brightness_leaves_them_alone() -> None:
    images = torch.rand(4, 1, 16, 16)
    masks = (images[:, 0] > 0.5).long()
    alone = augment_batch(images, STRONG, torch.Generator().manual_seed(1))
    together, _ = augment_pair(images, masks, STRONG, torch.Generator().manual_seed(1))
    assert torch.equal(alone, together)
    _, same = augment_pair(images, masks, AugmentSettings(brightness=0.5, contrast=0.5), torch.Generator())
    assert same is not None
    assert torch.equal(same, masks)


@pytest.mark.parametrize("name", MASK_LOSSES)
@pytest.mark.parametrize("num_outputs", [1, 3])
def test_losses_fall_towards_the_truth(name: str, num_outputs: int) -> None:
    masks = torch.zeros(2, 16, 16, dtype=torch.long)
    masks[:, 4:12, 4:12] = 1
    if num_outputs == 3:
        masks[:, 6:9, 6:9] = 2
    right = (2.0 * masks[:, None] - 1) if num_outputs == 1 else nn.functional.one_hot(masks, 3).movedim(-1, 1) * 2.0 - 1
    loss = make_mask_loss(name, num_outputs)
    values = [float(loss(scale * right, masks)) for scale in (-8.0, 0.0, 8.0)]
    assert values[0] > values[1] > values[2]
    assert values[2] < 0.02
    logits = torch.zeros(2, num_outputs, 16, 16, requires_grad=True)
    loss(logits, masks).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_what_a_softmax_does_not_see_costs_nothing_and_background_is_learnt(name: str) -> None:
    masks = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    loss = make_mask_loss(name, 3)
    assert float(loss(logits - 10, masks)) == pytest.approx(float(loss(logits, masks)), abs=1e-5)
    louder = logits + torch.tensor([3.0, 0, 0]).view(1, 3, 1, 1)
    assert float(loss(louder, masks)) > float(loss(logits, masks))


@pytest.mark.parametrize("name", ["dice-ce", "dice-bce"])
def test_what_is_surely_wrong_is_still_corrected(name: str) -> None:
    masks = torch.ones(1, 8, 8, dtype=torch.long)
    logits = torch.zeros(1, 3, 8, 8)
    logits[:, 0] = 30
    logits.requires_grad_()
    make_mask_loss(name, 3)(logits, masks).backward()
    assert logits.grad is not None
    assert float(logits.grad[:, 1].sum()) < -0.2
    # The binary cross-entropies themselves, where probabilities are far from 0 and 1.
    soft = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    numbers = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    truth = nn.functional.one_hot(numbers, 3).movedim(-1, 1).float()
    wanted = nn.functional.binary_cross_entropy(soft.softmax(1), truth)
    found = make_mask_loss("dice-bce", 3)(soft, numbers) - make_mask_loss("dice", 3)(soft, numbers)
    torch.testing.assert_close(found, wanted)


def test_losses_of_one_class_are_their_formulas() -> None:
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.randint(0, 2, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    probs, truth = logits[:, 0].sigmoid(), masks.float()
    both, wrong, missed = (probs * truth).sum(), (probs * (1 - truth)).sum(), ((1 - probs) * truth).sum()
    right = torch.where(masks > 0, probs, 1 - probs)
    wanted = {
        "dice": 1 - 2 * both / (2 * both + wrong + missed),
        "dice-ce": 1 - 2 * both / (2 * both + wrong + missed) - right.log().mean(),
        "dice-bce": 1 - 2 * both / (2 * both + wrong + missed) - right.log().mean(),
        "focal": 1 - 2 * both / (2 * both + wrong + missed) - ((1 - right) ** 2 * right.log()).mean(),
        # A pixel missed costs more than one marked wrongly.
        "tversky": 1 - both / (both + 0.3 * wrong + 0.7 * missed),
    }
    assert set(wanted) == set(MASK_LOSSES)
    for name, value in wanted.items():
        torch.testing.assert_close(make_mask_loss(name, 1)(logits, masks), value, atol=1e-4, rtol=1e-4, msg=name)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a loss among dice-ce, dice-bce, dice, focal, tversky, got 'bce'"):
        make_mask_loss("bce", 1)


class Bright(nn.Module):
    """A logit for every pixel: its brightness."""

    def forward(self, images: Tensor) -> Tensor:
        return 20 * images[:, :1] - 10


@pytest.mark.parametrize("sides", [(40, 50), (12, 9), (64, 16)])
def test_patches_laid_together_are_the_image(sides: tuple[int, int]) -> None:
    image = (torch.rand(1, *sides) > 0.5).float()
    found = predict_masks(Bright(), image, (16, 16), Engine(device="cpu"))
    assert found.shape == (1, *sides)
    assert torch.equal(found > 0.5, image > 0.5)


def test_windows_overlap_by_half_at_the_test_and_by_a_quarter_between_epochs() -> None:
    class Counted(Bright):
        seen = 0

        def forward(self, images: Tensor) -> Tensor:
            self.seen += len(images)
            return super().forward(images)

    # Every 16 px seven windows of 32 px begin along 128 px, every 24 px five.
    model, found = Counted(), data(sides=(128, 128), count=2)
    predict_masks(model, torch.rand(1, 128, 128), (32, 32), Engine(device="cpu"))
    assert model.seen == 7 * 7
    mask_overlaps(model, found, (32, 32), Engine(device="cpu"))
    assert model.seen == 7 * 7 + 5 * 5


def test_several_classes_are_a_softmax() -> None:
    class Two(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([1 - images, images, images * 0], 1)

    found = predict_masks(Two(), torch.rand(1, 8, 20, 20), (8, 16, 16), Engine(device="cpu"))
    assert found.shape == (3, 8, 20, 20)
    assert torch.allclose(found.sum(0), torch.ones(8, 20, 20), atol=1e-5)
