"""Normalisation against NumPy, exact replication of one channel, and heads on every layout."""

import numpy as np
import pytest
import torch
from torch import nn

from medgraft.transfer import FlattenedHead, HeadSettings, Normalise, PooledHead, apply_strategy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 4, 5, 6), (2, 1, 8, 8)])
def test_normalise_by_weights_agrees_with_numpy(seeded, shape):
    images = seeded(*shape)
    found = Normalise(3, "weights", MEAN, STD)(images).numpy()
    values = np.repeat(images.numpy().astype(np.float64), 3 // shape[1], axis=1)
    axes = (1, 3) + (1,) * (len(shape) - 2)
    wanted = (values - np.reshape(MEAN, axes)) / np.reshape(STD, axes)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "in_channels"), [((3, 1, 8, 8), 1), ((3, 1, 8, 8), 3), ((3, 3, 4, 5, 6), 3)])
def test_normalise_by_image_gives_zero_mean_and_unit_spread(seeded, shape, in_channels):
    images = seeded(*shape) * torch.tensor([0.1, 1.0, 5.0]).view(-1, *[1] * (len(shape) - 1))
    found = Normalise(in_channels, "image", (0.0,) * in_channels, (1.0,) * in_channels)(images)
    values = images.numpy().astype(np.float64).reshape(3, -1)
    wanted = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    np.testing.assert_allclose(found.numpy()[:, : shape[1]].reshape(3, -1), wanted, rtol=1e-3, atol=1e-4)


def test_a_constant_image_stays_finite():
    found = Normalise(1, "image", (0.0,), (1.0,))(torch.full((1, 1, 4, 4), 0.3))
    assert float(found.abs().max()) < 0.1


def test_normalise_adds_nothing_to_the_weights():
    assert Normalise(3, "weights", MEAN, STD).state_dict() == {}


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("vit_tiny_patch16_224", 224)])
def test_one_channel_equals_three_equal_channels(source_of, seeded, name, size):
    source = source_of(name, size)
    model = apply_strategy("ttl", source, source.cuts[2], HeadSettings(num_outputs=2), lr=0.1, seed=0)[0].eval()
    grey = seeded(2, 1, size, size)
    with torch.no_grad():
        assert torch.equal(model(grey), model(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("shape", "channel_axis"),
    [((6, 5, 4), 1), ((6, 3, 4, 5), 1), ((5, 4, 6), -1), ((3, 4, 5, 6), -1), ((7, 6), -1)],
)
def test_pooled_head_is_the_mean_over_positions(cut_with, seeded, shape, channel_axis):
    torch.manual_seed(0)
    head = PooledHead(cut_with(6, shape, channel_axis), 2).eval()
    features = seeded(3, *shape)
    axes = tuple(range(2, features.ndim)) if channel_axis == 1 else tuple(range(1, features.ndim - 1))
    pooled = features.numpy().astype(np.float64).mean(axes)
    np.testing.assert_allclose(head.pool(features).numpy(), pooled, rtol=1e-5)
    if channel_axis == -1:
        pooled = (pooled - pooled.mean(1, keepdims=True)) / np.sqrt(pooled.var(1, keepdims=True) + 1e-5)
    weight, bias = (value.detach().numpy().astype(np.float64) for value in (head.linear.weight, head.linear.bias))
    np.testing.assert_allclose(head(features).detach().numpy(), pooled @ weight.T + bias, rtol=1e-3, atol=1e-5)
    assert isinstance(head.norm, nn.LayerNorm) == (channel_axis == -1)


def test_pooling_is_done_in_float32(cut_with):
    features = torch.full((1, 2, 64, 64), 0.1, dtype=torch.bfloat16)
    assert PooledHead(cut_with(2, (2, 64, 64), 1), 1).pool(features).dtype == torch.float32


@pytest.mark.parametrize(("shape", "channel_axis"), [((6, 5, 4), 1), ((5, 4, 6), -1), ((7, 6), -1)])
def test_flattened_head_sees_every_position(cut_with, seeded, shape, channel_axis):
    torch.manual_seed(0)
    head = FlattenedHead(cut_with(6, shape, channel_axis), 2).eval()
    features = seeded(3, *shape)
    weight, bias = (value.detach().numpy().astype(np.float64) for value in (head.linear.weight, head.linear.bias))
    wanted = features.numpy().astype(np.float64).reshape(3, -1) @ weight.T + bias
    np.testing.assert_allclose(head(features).detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert head.linear.in_features == int(np.prod(shape))


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
@pytest.mark.parametrize("kind", ["pooled", "flattened"])
def test_either_head_fits_every_cut(source_of, seeded, name, kind):
    source = source_of(name, 64)
    head = HeadSettings(num_outputs=4, kind=kind)
    for cut in source.cuts[::3]:
        model, plan = apply_strategy("ttl", source, cut, head, lr=0.1, seed=0)
        with torch.no_grad():
            assert model.eval()(seeded(2, 3, 64, 64)).shape == (2, 4)
        assert plan.blocks[-1].num_params == sum(p.numel() for p in model.head.parameters())


def test_dropout_acts_while_training_alone(cut_with, seeded):
    head = PooledHead(cut_with(64, (64, 4, 4), 1), 2, dropout=0.5)
    features = seeded(2, 64, 4, 4)
    assert not torch.equal(head.train()(features), head(features))
    assert torch.equal(head.eval()(features), head(features))
