"""The loop on masks: it learns, keeps the best epoch by mean Dice, resumes to the bit, and never varies validation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import medgraft.train.checkpoint as checkpoint
import medgraft.train.loop as loop
import medgraft.train.teaching as teaching
from medgraft.errors import ConfigError, RunError
from medgraft.metrics.overlap import overlap_counts
from medgraft.train.augment import AUGMENTATIONS
from medgraft.train.batches import MaskSet
from medgraft.train.engine import Engine
from medgraft.train.loop import TrainResult, train_model
from medgraft.train.outputs import call_masks, mask_overlaps, predict_masks
from medgraft.train.patches import PatchSettings
from medgraft.train.settings import TrainSettings
from medgraft.train.teaching import Share, teach
from medgraft.transfer.plan import ParameterGroup

ENGINE = Engine(device="cpu")


def masks_of(num: int, seed: int, num_classes: int = 1) -> MaskSet:
    """Noise in which squares of a class are brighter by it."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (num, 1, 24, 20)).astype(np.uint8)
    masks = np.zeros((num, 24, 20), np.uint8)
    for row in range(num):
        for name in range(1, num_classes + 1):
            top, left = rng.integers(0, 16), rng.integers(0, 12)
            masks[row, top : top + 7, left : left + 7] = name
    images[:, 0] += 70 * masks
    return MaskSet(images=images, masks=masks, rows=np.arange(num), intensity_max=255, num_classes=num_classes)


class Net(nn.Module):
    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(8, num_outputs, 1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def settings(**options: Any) -> TrainSettings:
    base: dict[str, Any] = {
        "epochs": 5, "batch_size": 4, "patches": PatchSettings(sides=(16, 16), per_image=3),
        "augment": AUGMENTATIONS["standard"], "average": 0.2,
    }  # fmt: skip
    return TrainSettings(**{**base, **options})


def trained(folder: Path, num_classes: int = 1, **options: Any) -> tuple[Net, TrainResult, MaskSet]:
    train, val = masks_of(12, 0, num_classes), masks_of(5, 1, num_classes)
    net = Net(train.num_outputs)
    groups = [ParameterGroup(params=tuple(net.parameters()), names=(), lr=0.03, weight_decay=0.0)]
    return net, train_model(net, groups, (train, val), settings(**options), ENGINE, folder), val


@pytest.mark.parametrize("num_classes", [1, 2])
def test_it_learns_and_keeps_the_epoch_with_the_best_dice(tmp_path: Path, num_classes: int) -> None:
    net, found, val = trained(tmp_path, num_classes, epochs=12)
    scores = [row.scores["dice"] for row in found.history]
    assert max(scores) > 0.7
    assert found.best_epoch == int(np.argmax(scores)) + 1
    assert found.images_seen == 12 * 12 * 3
    assert found.val_outputs.shape == (5, num_classes, 3)
    # The model holds the weights of that epoch, and its outputs are what was kept.
    np.testing.assert_array_equal(mask_overlaps(net, val, (16, 16), ENGINE), found.val_outputs)
    image = torch.from_numpy(val.images[0].astype(np.float32) / 255)
    called = call_masks(predict_masks(net, image, (16, 16), ENGINE, overlap=0.25))
    np.testing.assert_array_equal(overlap_counts(called, val.masks[0], num_classes), found.val_outputs[0])


def test_a_killed_training_resumes_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", 1e9)
    _, whole, _ = trained(tmp_path / "whole")
    forward, calls = loop.forward, []

    class KilledError(Exception):
        pass

    def dying(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 25:
            raise KilledError
        return forward(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "forward", dying)
        with pytest.raises(KilledError):
            trained(tmp_path / "killed")
    _, again, _ = trained(tmp_path / "killed")
    assert [row.scores for row in again.history] == [row.scores for row in whole.history]
    assert [row.train_loss for row in again.history] == [row.train_loss for row in whole.history]
    np.testing.assert_array_equal(again.val_outputs, whole.val_outputs)


def test_validation_is_never_varied_and_masks_move_with_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, augment = [], teaching.augment_pair

    def spy(images: Any, masks: Any, *rest: Any) -> Any:
        moved, truth = augment(images, masks, *rest)
        seen.append(len(images))
        # Squares are far brighter than the noise around them, and stay so.
        inside, outside = moved[:, 0][truth > 0].mean(), moved[:, 0][truth == 0].mean()
        assert inside > outside + 0.1
        return moved, truth

    monkeypatch.setattr(teaching, "augment_pair", spy)
    net, found, val = trained(tmp_path, epochs=2)
    assert sum(seen) == 2 * 12 * 3
    # What chose the epoch are the overlaps of the images as they are stored.
    plain = [
        call_masks(predict_masks(net, torch.from_numpy(val.images[row] / 255).float(), (16, 16), ENGINE, overlap=0.25))
        for row in val.rows
    ]
    wanted = [overlap_counts(mask, val.masks[row], 1) for mask, row in zip(plain, val.rows, strict=True)]
    np.testing.assert_array_equal(found.val_outputs, np.stack(wanted))


def test_patches_have_to_be_known_and_one_process_is_enough() -> None:
    train = masks_of(4, 0)
    with pytest.raises(ConfigError, match="size of patches"):
        teach(train, train, TrainSettings(epochs=1, batch_size=2), ENGINE)
    found = teach(train, train, settings(), ENGINE)
    assert found.num_items == 12
    with pytest.raises(ConfigError, match="one process"):
        next(found.batches(0, Share(process=1, num_processes=2)))


@pytest.mark.parametrize("loss", ["dice", "focal", "tversky"])
def test_every_loss_teaches(tmp_path: Path, loss: str) -> None:
    _, found, _ = trained(tmp_path, loss=loss, epochs=8)
    assert max(row.scores["dice"] for row in found.history) > 0.5
    with pytest.raises(ConfigError, match="loss must be one of"):
        settings(loss="hinge")


def test_outputs_that_became_nan_are_told(tmp_path: Path) -> None:
    val = masks_of(2, 0)
    net = Net(1)
    torch.nn.init.constant_(net.layers[-1].bias, float("nan"))
    with pytest.raises(RunError, match="became NaN"):
        mask_overlaps(net, val, (16, 16), ENGINE)
