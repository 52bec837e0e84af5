"""Order, balance and batches of an epoch."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medgraft.train.batches import epoch_order, iterate, seed_for

CPU = torch.device("cpu")


def test_every_epoch_has_an_order_of_its_own_that_can_be_drawn_again(make_images):
    data = make_images()
    orders = [epoch_order(data, 0, epoch, is_balanced=False) for epoch in range(3)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    np.testing.assert_array_equal(orders[2], epoch_order(data, 0, 2, is_balanced=False))


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_purposes_epochs_and_seeds_never_share_a_stream(seed, epoch):
    places = [(seed, "order", epoch), (seed, "augment", epoch), (seed, "dropout", epoch)]
    places += [(seed + 1, "order", epoch), (seed, "order", epoch + 1)]
    assert len({seed_for(*place) for place in places}) == len(places)
    assert all(0 <= seed_for(*place) < 2**32 for place in places)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_balanced_order_shows_all_classes_equally_often(make_images, task):
    data = make_images(task, num=60)
    drawn = np.concatenate([data.targets[epoch_order(data, 0, epoch, is_balanced=True)] for epoch in range(200)])
    shares = np.bincount(drawn) / len(drawn)
    # 12 000 draws: three standard errors are 0.014.
    np.testing.assert_allclose(shares, 1 / data.num_classes, atol=0.014)


def test_a_balanced_order_raises_rare_labels(make_images):
    data = make_images("multilabel", num=60)
    drawn = np.concatenate([data.targets[epoch_order(data, 0, epoch, is_balanced=True)] for epoch in range(100)])
    before, after = data.targets.mean(0), drawn.mean(0)
    assert after.max() / after.min() < before.max() / before.min()


def test_a_class_without_images_does_not_break_the_balance(make_images):
    data = dataclasses.replace(make_images("multiclass"), num_classes=5)
    assert len(epoch_order(data, 0, 0, is_balanced=True)) == 40


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535)])
def test_batches_are_the_images_on_the_scale_0_to_1(make_images, dtype, top):
    data = make_images()
    images = np.random.default_rng(0).integers(0, top + 1, data.images.shape).astype(dtype)
    data = dataclasses.replace(data, images=images, intensity_max=top)
    positions = np.random.default_rng(1).permutation(40)
    batches = list(iterate(data, positions, 16, CPU))
    assert [len(batch[0]) for batch in batches] == [16, 16, 8]
    found = torch.cat([batch[0] for batch in batches])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), images[data.rows[positions]] / top, rtol=1e-6)
    np.testing.assert_array_equal(torch.cat([batch[1] for batch in batches]).numpy(), data.targets[positions])
    np.testing.assert_array_equal(np.concatenate([batch[2] for batch in batches]), positions)


def test_batches_come_from_a_read_only_file_without_touching_it(make_images, tmp_path):
    data = make_images()
    np.save(tmp_path / "cache.npy", data.images)
    mapped = np.load(tmp_path / "cache.npy", mmap_mode="r")
    for images, _, _ in iterate(dataclasses.replace(data, images=mapped), np.arange(40), 16, CPU):
        images.zero_()
    np.testing.assert_array_equal(np.load(tmp_path / "cache.npy"), data.images)


@pytest.mark.parametrize(
    ("num", "drop", "sizes"),
    [(33, True, [16, 16]), (33, False, [16, 16, 1]), (1, True, [1]), (34, True, [16, 16, 2]), (0, True, [])],
)
def test_a_last_batch_of_one_image_is_left_out_for_training(make_images, num, drop, sizes):
    batches = iterate(make_images(), np.arange(num), 16, CPU, drop_single=drop)
    assert [len(batch[0]) for batch in batches] == sizes


def test_training_survives_a_last_batch_of_one(make_run, make_images):
    run = make_run(data=(make_images(num=33), make_images(num=24, seed=1)))
    _, found = run(epochs=1)
    assert found.images_seen == 32


def test_outputs_of_a_head_follow_the_task(make_images):
    assert [make_images(task).num_outputs for task in ("binary", "multiclass", "multilabel")] == [1, 3, 3]
