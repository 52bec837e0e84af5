"""The moving average of the weights."""

import numpy as np
import pytest
import torch
from torch import nn

from medgraft.train.average import WeightAverage


def test_the_average_follows_its_formula() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, window=5)
    expected = model.weight.detach().double().numpy().copy()
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 30):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=generator))
        average.update(model)
        share = 1 / min(5.0, 1 + step / 10)
        expected += share * (model.weight.detach().double().numpy() - expected)
    np.testing.assert_allclose(average.model.weight.numpy(), expected, atol=1e-5)


def test_what_does_not_move_stays_equal_to_the_bit() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = WeightAverage(model, window=7)
    for _ in range(20):
        average.update(model)
    assert all(torch.equal(value, before[name]) for name, value in average.model.state_dict().items())


def test_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, window=3)
    for _ in range(4):
        model(torch.randn(16, 2) + 5)
        average.update(model)
    assert average.model.num_batches_tracked == 4
    assert 0 < float(average.model.running_mean.mean()) < 5
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())


def test_a_restored_average_goes_on_as_if_nothing_happened() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    whole, first = WeightAverage(model, 6), WeightAverage(model, 6)
    weights = [torch.randn(4, 4) for _ in range(10)]
    second = WeightAverage(nn.Linear(4, 4), 6)
    for step, weight in enumerate(weights):
        with torch.no_grad():
            model.weight.copy_(weight)
        whole.update(model)
        if step == 5:
            second.restore(first.state())
        (first if step < 5 else second).update(model)
    assert torch.equal(whole.model.weight, second.model.weight)


@pytest.mark.parametrize("window", [0.0, 0.5])
def test_a_window_below_one_step_follows_the_model(window: float) -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, window)
    with torch.no_grad():
        model.weight.fill_(3.0)
    average.update(model)
    assert torch.equal(average.model.weight, model.weight)
