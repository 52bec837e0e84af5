"""Every tensor learns at the rate of the plan, frozen does not move, and impossible wishes are refused."""

import copy

import pytest
import torch
from torch import nn

from families import EVERY_FAMILY
from medgraft.errors import ConfigError
from medgraft.transfer import STRATEGIES, HeadSettings, apply_strategy, lr_of, parameter_groups, plan_table

# Name and side: one small member of each family.
HEAD = HeadSettings(num_outputs=2)


class Net(nn.Module):
    """Blocks with names that are easily confused with those of a plan."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.top = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward_features(self, x):
        return self.top(self.head(self.stem(x)))

    def forward(self, x):
        return self.forward_features(x).mean((2, 3))


def build(name, source, cut, lr=0.01, seed=0, head=HEAD):
    return apply_strategy(name, source, cut, head, lr=lr, seed=seed)


def rates(model, plan, source):
    """Learning rate of every parameter as an optimiser would use it; 0 where it holds none."""
    found = dict.fromkeys(dict(model.named_parameters()), 0.0)
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in parameter_groups(model, plan, source, weight_decay=0.1):
        for parameter in group.params:
            found[by_id[id(parameter)]] += group.lr
    return found


def two_steps(model, source, images):
    plan_groups = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(plan_groups, lr=0.1)
    for _ in range(2):
        model.train()
        loss = nn.functional.cross_entropy(model(images), torch.arange(len(images)) % 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@EVERY_FAMILY
def test_every_tensor_learns_at_the_rate_of_the_plan(source_of, name, size):
    source = source_of(name, size)
    last, middle = source.cuts[-1], source.cuts[len(source.cuts) // 2]
    for strategy, cut, trunk in (("ttl", middle, 0.01), ("ftl", last, 0.01), ("frozen", middle, 0.0)):
        model, plan = build(strategy, source, cut)
        found = rates(model, plan, source)
        assert {n: r for n, r in found.items() if n.startswith("trunk.")}
        assert all(rate == (0.01 if n.startswith("head.") else trunk) for n, rate in found.items())
        assert found == {n: lr_of(plan, source, n) for n in found}


@EVERY_FAMILY
def test_the_plan_counts_every_parameter_in_its_block(source_of, name, size):
    source = source_of(name, size)
    cut = source.cuts[len(source.cuts) // 2]
    model, plan = build("ttl", source, cut)
    kept = [block for block in plan.blocks if block.treatment == "reused"]
    assert [block.name for block in kept] == [c.name for c in source.cuts[: cut.index]]
    assert sum(block.num_params for block in kept) == cut.num_params
    assert sum(block.num_params for block in kept) == sum(p.numel() for p in model.trunk.parameters())
    assert plan.blocks[-1].num_params == sum(p.numel() for p in model.head.parameters())
    removed = plan.blocks[cut.index : -1]
    assert all(block.treatment == "removed" and block.lr == 0 for block in removed)
    assert sum(b.num_params for b in removed) == source.cuts[-1].num_params - cut.num_params


@EVERY_FAMILY
def test_frozen_neither_learns_nor_moves(source_of, seeded, name, size):
    source = source_of(name, size)
    model, _ = build("frozen", source, source.cuts[-1])
    images = seeded(2, 3, size, size)
    before = copy.deepcopy(model.trunk.state_dict())
    head = copy.deepcopy(model.head.state_dict())
    with torch.no_grad():
        first = model.eval().features(images)
    two_steps(model, source, images)
    model.train()
    assert not any(module.training for module in model.trunk.modules())
    with torch.no_grad():
        # The trunk is in evaluation mode even while the model trains.
        assert torch.equal(model.features(images), first)
        assert torch.equal(model.eval().features(images), first)
    after = model.trunk.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not all(torch.equal(head[key], value) for key, value in model.head.state_dict().items())


@EVERY_FAMILY
def test_training_moves_every_tensor_of_ttl(source_of, seeded, name, size):
    source = source_of(name, size)
    model, _ = build("ttl", source, source.cuts[len(source.cuts) // 2])
    loss = nn.functional.cross_entropy(model(seeded(2, 3, size, size)), torch.tensor([0, 1]))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@EVERY_FAMILY
def test_ttl_at_the_last_cut_is_ftl(source_of, seeded, name, size):
    source = source_of(name, size)
    one, plan_one = build("ttl", source, source.cuts[-1])
    two, plan_two = build("ftl", source, source.cuts[-1])
    assert plan_one.blocks == plan_two.blocks
    images = seeded(2, 3, size, size)
    assert torch.equal(one.eval()(images), two.eval()(images))


def test_removed_blocks_are_gone_from_the_weights(source_of):
    source = source_of("resnet18", 64)
    cut = next(cut for cut in source.cuts if cut.name == "layer2.1")
    names = build("ttl", source, cut)[0].state_dict()
    assert any(name.startswith("trunk.network.layer2.1.") for name in names)
    assert not any(part in name for name in names for part in ("layer3", "layer4", ".fc."))


def test_applying_a_strategy_changes_neither_source_nor_global_generator(source_of, seeded):
    source = source_of("resnet18", 64)
    before = copy.deepcopy(source.backbone.network.state_dict())
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model, _ = build("ttl", source, source.cuts[3], seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    two_steps(model, source, seeded(2, 3, 64, 64))
    after = source.backbone.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_seed_decides_the_head_and_nothing_else(source_of):
    source = source_of("resnet18", 64)
    models = [build("ttl", source, source.cuts[3], seed=seed)[0] for seed in (1, 1, 2)]
    one, again, other = (model.state_dict() for model in models)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert {key for key in one if not torch.equal(one[key], other[key])} == {"head.linear.weight", "head.linear.bias"}


def test_decay_is_for_matrices_alone(source_of):
    source = source_of("resnet18", 64)
    model, plan = build("ttl", source, source.cuts[-1])
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, plan, source, weight_decay=0.1)
    assert sorted(name for group in groups for name in group.names) == sorted(shapes)
    for group in groups:
        assert {shapes[name] > 1 for name in group.names} == {group.weight_decay > 0}


def test_tokens_and_position_tables_carry_no_decay(source_of):
    source = source_of("vit_tiny_patch16_224", 224)
    model, plan = build("ttl", source, source.cuts[2])
    decayed = {n for g in parameter_groups(model, plan, source, 0.1) if g.weight_decay for n in g.names}
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    spared = {name.rpartition(".")[2] for name in shapes if shapes[name] > 1 and name not in decayed}
    assert spared == {"cls_token", "pos_embed"}
    assert all(shapes[name] > 1 for name in decayed)


@pytest.mark.parametrize("strategy", ["ttl", "frozen"])
def test_a_block_named_head_is_not_taken_for_the_new_head(own_source, strategy):
    source = own_source(Net())
    assert "head" in [cut.name.partition(".")[0] for cut in source.cuts]
    model, plan = build(strategy, source, source.cuts[-1])
    trunk = 0.01 if strategy == "ttl" else 0.0
    for name, rate in rates(model, plan, source).items():
        assert rate == (0.01 if name.startswith("head.") else trunk)


def test_what_the_weights_lack_is_said_to_be_random(own_source):
    missing = ("top.0.weight", "top.0.bias", *(f"top.1.{n}" for n in ("weight", "bias", "running_mean", "running_var")))
    source = own_source(Net(), missing=missing)
    for strategy, word in (("ttl", "reused"), ("frozen", "frozen")):
        treatments = [block.treatment for block in build(strategy, source, source.cuts[-1])[1].blocks]
        assert treatments == [word, word, "re-initialised", "new"]
    scratch = own_source(Net(), origin="none")
    treatments = [block.treatment for block in build("ttl", scratch, scratch.cuts[1])[1].blocks]
    assert treatments == ["re-initialised", "re-initialised", "removed", "new"]


def test_the_plan_table_joins_equal_neighbours(source_of):
    source = source_of("resnet18", 64)
    cut = next(cut for cut in source.cuts if cut.name == "layer2.1")
    rows = plan_table(build("ttl", source, cut, lr=1e-3)[1])
    assert [row[1:3] for row in rows] == [("reused", "1.0e-03"), ("removed", "–"), ("new", "1.0e-03")]
    assert rows[0][0] == f"{source.cuts[0].name} … layer2.1 ({cut.index})"
    assert rows[2][0] == "head"
    assert int(rows[0][3].replace(",", "")) == cut.num_params
    assert int(rows[2][3].replace(",", "")) == (cut.channels + 1) * 2


def test_a_parameter_outside_the_plan_is_refused(source_of):
    source = source_of("resnet18", 64)
    model, plan = build("ttl", source, source.cuts[2])
    model.trunk.network.extra = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"belong to a block of the plan, got trunk\.network\.extra\.weight"):
        parameter_groups(model, plan, source, 0.0)


def test_a_gradient_that_contradicts_the_plan_is_refused(source_of):
    source = source_of("resnet18", 64)
    model, plan = build("frozen", source, source.cuts[2])
    model.trunk.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"learning rate 0\.0, but its gradient is switched otherwise"):
        parameter_groups(model, plan, source, 0.0)


def test_an_unknown_strategy_lists_the_known(source_of):
    source = source_of("resnet18", 64)
    with pytest.raises(ConfigError, match=f"among {', '.join(STRATEGIES)}, got 'full'"):
        build("full", source, source.cuts[-1])


def test_a_depth_where_there_is_none_is_refused(source_of):
    source = source_of("resnet18", 64)
    with pytest.raises(ConfigError, match=r"ftl has no depth and takes no --cut, got layer1\.0"):
        build("ftl", source, next(cut for cut in source.cuts if cut.name == "layer1.0"))


@pytest.mark.parametrize("lr", [0.0, -0.1, float("nan")])
def test_an_impossible_learning_rate_is_refused(source_of, lr):
    source = source_of("resnet18", 64)
    with pytest.raises(ConfigError, match=r"lr must be positive, got .* Typical"):
        build("ttl", source, source.cuts[-1], lr=lr)
