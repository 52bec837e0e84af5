"""Phases follow from the epoch alone, survive a kill, and the pull leads back to the source."""

import dataclasses

import pytest
import torch
from torch import nn

from medgraft.train import Engine, TrainSettings, train_model
from medgraft.train.course import Course, SourcePull, TrainPhase
from medgraft.transfer.plan import ParameterGroup


class Freezable(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.frozen = ()
        self.trail = []

    def freeze(self, modules, parameters):
        self.frozen = tuple(modules)
        self.trail.append(self.frozen)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in parameters)
        self.train(self.training)

    def train(self, mode=True):
        super().train(mode)
        for path in getattr(self, "frozen", ()):
            self.net.get_submodule(path).eval()
        return self

    def forward(self, images):
        return self.net(images)


class Killed(BaseException):
    pass


def setup(make_net, make_images):
    torch.manual_seed(0)
    model = Freezable(make_net())
    named = dict(model.named_parameters())
    blocks = [p for n, p in named.items() if "blocks" in n]
    head = [p for n, p in named.items() if "blocks" not in n]
    groups = [
        ParameterGroup(params=tuple(head), names=("head",), lr=0.02, lrs=(0.02, 0.02), weight_decay=0.0),
        ParameterGroup(params=tuple(blocks), names=("blocks",), lr=0.01, lrs=(0.0, 0.01), weight_decay=0.0),
    ]
    frozen = frozenset(n for n in named if "blocks" in n)
    phases = (
        TrainPhase(start=0.0, lrs=(0.02, 0.0), modules=("blocks",), parameters=frozen),
        TrainPhase(start=0.5, lrs=(0.02, 0.01), modules=(), parameters=frozenset()),
    )
    return model, groups, Course(phases=phases), (make_images(), make_images(num=24, seed=1))


def run(parts, folder, epochs=6, on_epoch=None):
    model, groups, course, data = parts
    engine = Engine(device="cpu", is_deterministic=True)
    settings = TrainSettings(epochs=epochs, batch_size=16, schedule="cosine", average=0.2)
    return model, train_model(model, groups, data, settings, engine, folder, on_epoch, course)


def test_a_block_is_still_while_frozen_and_learns_afterwards(tmp_path, make_net, make_images):
    parts = setup(make_net, make_images)
    before = {k: v.clone() for k, v in parts[0].state_dict().items()}
    states = []
    run(parts, tmp_path, on_epoch=lambda *_: states.append({k: v.clone() for k, v in parts[0].state_dict().items()}))
    for number, state in enumerate(states):
        moved = {k for k in state if "blocks" in k and not torch.equal(state[k], before[k])}
        assert bool(moved) == (number >= 3), (number, moved)
        assert not torch.equal(state["net.linear.weight"], before["net.linear.weight"])
    # Statistics of the normalisation stay as well, until the phase that frees them.
    assert torch.equal(states[2]["net.blocks.1.running_mean"], before["net.blocks.1.running_mean"])
    assert not torch.equal(states[-1]["net.blocks.1.running_mean"], before["net.blocks.1.running_mean"])


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 5])
@pytest.mark.usefixtures("writes_always")
def test_a_training_killed_in_any_phase_resumes_to_the_bit(tmp_path, make_net, make_images, killed_after):
    whole, found = run(setup(make_net, make_images), tmp_path / "whole")

    def kill(epoch, _):
        if epoch == killed_after:
            raise Killed

    with pytest.raises(Killed):
        run(setup(make_net, make_images), tmp_path / "killed", on_epoch=kill)
    parts = setup(make_net, make_images)
    resumed, again = run(parts, tmp_path / "killed")
    # The first thing the resumed training does is to freeze what its epoch freezes.
    assert parts[0].trail[0] == (("blocks",) if killed_after < 3 else ())
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert [dataclasses.replace(r, seconds=0, val_seconds=0) for r in found.history] == [
        dataclasses.replace(r, seconds=0, val_seconds=0) for r in again.history
    ]


def test_the_pull_shrinks_the_distance_to_the_source_and_the_head():
    torch.manual_seed(0)
    model = nn.ModuleDict({"trunk": nn.Linear(3, 3), "head": nn.Linear(3, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    source = model["trunk"].weight.detach().clone()
    pull = SourcePull(model, optimizer, (0.2, 0.4))
    with torch.no_grad():
        model["trunk"].weight.add_(1.0)
    head = model["head"].weight.detach().clone()
    pull.apply()
    torch.testing.assert_close(model["trunk"].weight - source, torch.full((3, 3), 0.9))
    torch.testing.assert_close(model["head"].weight, head * 0.8)


def test_a_strong_pull_keeps_a_training_near_its_source(tmp_path, make_net, make_images):
    distances = {}
    for strength in (0.0, 20.0):
        model, groups, _, data = setup(make_net, make_images)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        groups = [dataclasses.replace(group, lr=0.02) for group in groups]
        course = Course(l2sp=(strength, 0.0))
        run((model, groups, course, data), tmp_path / str(strength))
        distances[strength] = sum(float((p.detach() - before[n]).norm()) for n, p in model.named_parameters())
    assert distances[20.0] < 0.5 * distances[0.0]
