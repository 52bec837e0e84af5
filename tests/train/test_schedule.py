"""Schedules against NumPy and against torch's own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medgraft.train.schedule import SCHEDULES, Schedule, cosine_factor


def optimizer_of(*rates):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates])


def rates_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@given(total=st.integers(1, 400))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_cosine_agrees_with_numpy(total):
    steps = np.arange(total)
    warmup = max(1, round(total / 10))
    done = (steps - warmup) / max(1, total - warmup)
    wanted = np.where(steps < warmup, (steps + 1) / warmup, 0.01 + 0.495 * (1 + np.cos(np.pi * done)))
    found = [cosine_factor(step, total) for step in range(total)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert max(found) == 1
    assert min(found) > 0
    assert all(a >= b for a, b in zip(found[warmup:], found[warmup + 1 :], strict=False))


def test_cosine_is_applied_per_step_to_every_group():
    optimizer = optimizer_of(1.0, 0.1)
    schedule = Schedule("cosine", optimizer, total=20, patience=0)
    for step in range(25):
        factor = cosine_factor(min(step, 19), 20)
        assert rates_of(optimizer) == pytest.approx([factor, 0.1 * factor], rel=1e-12)
        assert schedule.lr == pytest.approx(factor)
        assert not schedule.is_finished
        schedule.step()
        if step % 5 == 4:
            # A score is not an epoch: it must not move a cosine.
            schedule.end_epoch(0.3)


def test_constant_stays():
    optimizer = optimizer_of(0.5)
    schedule = Schedule("constant", optimizer, total=3, patience=0)
    for _ in range(5):
        schedule.step()
        schedule.end_epoch(0.0)
    assert rates_of(optimizer) == [0.5]


@given(scores=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), max_size=40), patience=st.integers(0, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_plateau_agrees_with_torch(scores, patience):
    ours, theirs = optimizer_of(1.0, 0.1), optimizer_of(1.0, 0.1)
    schedule = Schedule("plateau", ours, total=100, patience=patience)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, mode="max", factor=0.5, patience=patience, threshold=0.0, eps=0.0
    )
    for score in scores:
        schedule.step()
        schedule.end_epoch(score)
        reference.step(score)
        assert rates_of(ours) == pytest.approx(rates_of(theirs), rel=1e-12)


def test_plateau_stops_below_its_floor():
    schedule = Schedule("plateau", optimizer_of(3e-7), total=10, patience=0)
    schedule.end_epoch(0.5)
    assert not schedule.is_finished
    schedule.end_epoch(0.5)
    assert not schedule.is_finished
    schedule.end_epoch(0.5)
    assert schedule.is_finished


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_stored_schedule_goes_on_as_it_would_have(kind):
    scores = [0.1, 0.3, 0.2, 0.2, 0.2, 0.4, 0.1, 0.1]
    whole, broken = optimizer_of(1.0, 0.1), optimizer_of(1.0, 0.1)
    one, two = (Schedule(kind, optimizer, 16, patience=1) for optimizer in (whole, broken))
    for index, score in enumerate(scores):
        for schedule in (one, two):
            schedule.step()
            schedule.step()
            schedule.end_epoch(score)
        if index == 4:
            state = two.state()
            broken = optimizer_of(1.0, 0.1)
            two = Schedule(kind, broken, 16, patience=1)
            two.restore(state)
        assert rates_of(whole) == rates_of(broken)
        assert one.state() == two.state()
