"""Laws that every strategy keeps on every family of networks."""

import copy
import itertools

import pytest
import torch
from torch import nn

from families import EVERY_FAMILY, TRANSFORMERS
from medgraft.errors import BackboneError, ConfigError, CutError
from medgraft.search.trial import course_of
from medgraft.train.course import enter_phase
from medgraft.train.schedule import Schedule
from medgraft.transfer import (
    BELOW_STEM,
    STRATEGIES,
    HeadSettings,
    StrategySettings,
    apply_strategy,
    lr_of,
    parameter_groups,
    phases_of,
)

HEAD = HeadSettings(num_outputs=2)
GRADIENT = [name for name, strategy in STRATEGIES.items() if strategy.fitting == "gradient"]
EVERY_STRATEGY = pytest.mark.parametrize("strategy", GRADIENT)


def middle(source):
    return source.cuts[len(source.cuts) // 2]


def made(strategy, source, seed=0, lr=0.01):
    """Model and plan at a middle depth, or the last where the strategy has none; skipped where it makes no sense."""
    cut = middle(source) if STRATEGIES[strategy].has_depth else source.cuts[-1]
    head = HeadSettings(num_outputs=2, kind="svm") if strategy == "hybrid" else HEAD
    if strategy == "lora" and source.backbone.spec.name not in TRANSFORMERS:
        pytest.skip("adapters are for transformers")
    return apply_strategy(strategy, source, cut, head, lr=lr, seed=seed)


def wanted_rates(strategy, plan, source, lr=0.01):
    """Learning rate of block i (from 1; the head is 0) in the last phase, written out by hand."""
    num, cut, low = len(source.cuts), plan.cut, lr * 0.1
    by_block = {
        "scratch": lambda i: lr,
        "ftl": lambda i: lr,
        "ttl": lambda i: lr if i <= cut else None,
        "tf": lambda i: lr,
        "wtst": lambda i: lr,
        "l2sp": lambda i: lr,
        "lora": lambda i: lr,
        "lp-ft": lambda i: lr,
        "lwft": lambda i: 0.0 if i <= cut else low,
        "gradual": lambda i: 0.0 if i <= cut else low,
        "discriminative": lambda i: lr * 0.75 ** (num + 1 - i),
    }
    return by_block[strategy]


@EVERY_STRATEGY
@EVERY_FAMILY
def test_every_tensor_learns_at_its_rate_in_every_phase(source_of, strategy, name, size):
    source = source_of(name, size)
    model, plan = made(strategy, source)
    groups = parameter_groups(model, plan, source, weight_decay=0.05)
    optimizer = torch.optim.SGD([group.for_torch() for group in groups], lr=0.1)
    schedule = Schedule("constant", optimizer, 10, 5)
    course = course_of(model, plan, source, groups)
    names = {id(p): n for n, p in model.named_parameters()}
    wanted = wanted_rates(strategy, plan, source)
    for number in range(len(phases_of(plan))):
        if course.phases:
            enter_phase(course.phases[number], model, schedule)
        rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        for n, p in model.named_parameters():
            if n in model.never_trained:
                assert n not in rates
                assert not p.requires_grad
                continue
            expected = lr_of(plan, source, n, number)
            assert rates.get(n, 0.0) == pytest.approx(expected, rel=1e-12)
            assert p.requires_grad == (expected > 0)
    # After the last phase, against the definition itself.
    for n, _ in model.named_parameters():
        if n in model.never_trained:
            continue
        if n.startswith("head."):
            assert rates[n] == pytest.approx(0.01)
        else:
            block = source.block_of.get(n.removeprefix("trunk.network."))
            if block is not None:
                assert rates.get(n, 0.0) == pytest.approx(wanted(block))


@EVERY_STRATEGY
@EVERY_FAMILY
def test_frozen_neither_learns_nor_moves_and_evaluation_is_repeatable(source_of, seeded, strategy, name, size):
    source = source_of(name, size)
    model, plan = made(strategy, source)
    images = seeded(2, 3, size, size)
    before = copy.deepcopy(model.state_dict())
    frozen_parameters = {n for n, p in model.named_parameters() if not p.requires_grad}
    frozen_modules = {f"trunk.{path}" if path else "trunk" for path in model.frozen}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1])).backward()
        optimizer.step()
    after = model.state_dict()
    for key, value in before.items():
        owner = key.rpartition(".")[0]
        is_frozen = key in frozen_parameters or any(f"{owner}.".startswith(f"{path}.") for path in frozen_modules)
        assert not is_frozen or torch.equal(value, after[key]), key
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
    # What the first phase freezes is exactly what the plan says.
    rates = phases_of(plan)[0].lrs
    if not any(rates[:-1]):
        assert frozen_modules == {"trunk"}
    elif 0.0 in rates[: len(source.cuts)] and strategy != "ttl":
        assert frozen_modules


@EVERY_FAMILY
def test_normalisation_of_a_frozen_part_does_not_move_while_the_rest_learns(source_of, seeded, name, size):
    source = source_of(name, size)
    model, plan = made("lwft", source)
    model.train()
    modes = {n: m.training for n, m in model.trunk.network.named_modules()}
    for n, module in model.trunk.network.named_modules():
        own = [f"{n}.{t}" for t, _ in module.named_parameters(recurse=False)]
        blocks = {source.block_of[o] for o in own if o in source.block_of}
        if blocks and not list(module.children()):
            assert modes[n] == (min(blocks) > plan.cut), n


@EVERY_FAMILY
def test_slimmed_layers_carry_no_pretrained_value_and_kept_ones_all(source_of, seeded, name, size):
    source = source_of(name, size)
    cut = middle(source)
    model, plan = made("tf", source)
    pretrained = source.backbone.network.state_dict()
    found = model.trunk.network.state_dict()
    for key, value in found.items():
        block = source.block_of.get(key)
        if block is not None and block <= cut.index:
            assert torch.equal(value, pretrained[key]), key
        elif block is not None and value.ndim > 1 and value.shape == pretrained[key].shape:
            assert not torch.equal(value, pretrained[key]), key
        elif block is not None and value.ndim > 1:
            # A slice of the pretrained tensor would share all; two random tensors share a number now and then.
            assert torch.isin(value.flatten()[:50], pretrained[key].flatten()).sum() < 5, key
    for key, value in found.items():  # statistics of the kept part come along, those above it are new
        if key.endswith("running_mean"):
            block = source.block_of[key.replace("running_mean", "weight")]
            assert torch.equal(value, pretrained[key]) if block <= cut.index else not value.any()
    full = sum(p.numel() for p in made("ftl", source)[0].trunk.parameters())
    size_now = sum(p.numel() for p in model.trunk.parameters())
    assert cut.num_params < size_now < full
    assert size_now == model.trunk.cut.num_params == sum(block.num_params for block in plan.blocks[:-1])
    assert model.trunk.cut.macs < source.cuts[-1].macs
    assert model(seeded(2, 3, size, size)).shape == (2, 2)


@EVERY_FAMILY
def test_tensors_above_the_cut_follow_the_statistics_of_the_pretrained_ones(source_of, name, size):
    source = source_of(name, size)
    pretrained = source.backbone.network.state_dict()
    for depth in (BELOW_STEM, middle(source)):
        model, _ = apply_strategy("wtst", source, depth, HEAD, lr=0.01, seed=0)
        for key, value in model.trunk.network.state_dict().items():
            if key not in source.block_of or not value.is_floating_point() or "running_" in key:
                continue
            if source.block_of[key] <= depth.index:
                assert torch.equal(value, pretrained[key]), key
                continue
            std, mean = torch.std_mean(pretrained[key].double(), correction=0)
            if value.numel() > 500 and std > 0:
                # Position and bias tables, tokens and kernels alike.
                assert not torch.equal(value, pretrained[key]), key
                assert float(value.double().mean()) == pytest.approx(
                    float(mean), abs=6 * float(std) / value.numel() ** 0.5 + 1e-7
                )
                assert float(value.double().std()) == pytest.approx(float(std), rel=0.2, abs=1e-7)


def test_tokens_and_positions_are_drawn_too(source_of):
    source = source_of("vit_tiny_patch16_224", 224)
    network = source.backbone.network
    with torch.no_grad():
        network.pos_embed.normal_(0.3, 0.1)
    model, _ = apply_strategy("wtst", source, BELOW_STEM, HEAD, lr=0.01, seed=0)
    drawn = model.trunk.network.pos_embed
    assert not torch.equal(drawn, network.pos_embed)
    assert float(drawn.detach().mean()) == pytest.approx(0.3, abs=0.01)


@EVERY_STRATEGY
@EVERY_FAMILY
def test_equal_seeds_make_equal_models(source_of, strategy, name, size):
    source = source_of(name, size)
    one, two = (made(strategy, source, seed=1)[0].state_dict() for _ in range(2))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@EVERY_FAMILY
def test_scratch_has_no_pretrained_value(source_of, name, size):
    source = source_of(name, size)
    model, plan = made("scratch", source)
    pretrained = dict(source.backbone.network.named_parameters())
    for key, value in model.trunk.network.named_parameters():
        if value.ndim > 1 and float(value.detach().std()) > 0:
            assert not torch.equal(value, pretrained[key]), key
    assert {block.treatment for block in plan.blocks} == {"re-initialised", "new"}


def test_the_published_slim_resnet50(source_of):
    source = source_of("resnet50", 224)
    cut = next(c for c in source.cuts if c.name == "layer3.5")
    model, _ = apply_strategy("tf", source, cut, HEAD, lr=0.01, seed=0)
    assert sum(p.numel() for p in model.trunk.parameters()) / 1e6 == pytest.approx(12.95, rel=0.005)
    assert model.trunk.cut.macs / 1e9 == pytest.approx(3.56, rel=0.02)


def test_gradual_unfreezes_from_the_top_down_to_the_block_above_the_cut(source_of):
    source = source_of("resnet18", 64)
    cut = source.cuts[3]
    _, plan = apply_strategy("gradual", source, cut, HEAD, lr=0.01, seed=0)
    learning = [[i for i, lr in enumerate(phase.lrs[:-1], 1) if lr] for phase in plan.phases]
    assert learning[0] == []
    assert learning[-1] == list(range(5, 10))
    assert all(later == [before[0] - 1 if before else 9, *before] for before, later in itertools.pairwise(learning))
    assert [phase.start for phase in plan.phases] == pytest.approx([0.75 * k / 5 for k in range(6)])
    _, every = apply_strategy("gradual", source, BELOW_STEM, HEAD, lr=0.01, seed=0)
    assert all(every.phases[-1].lrs)


def test_adapters_are_merged_without_a_change_of_the_output(source_of, seeded):
    from medgraft.transfer.adapters import merge_lora

    source = source_of("vit_tiny_patch16_224", 224)
    model, _ = made("lora", source)
    names = set(dict(source.backbone.network.named_parameters()))
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_B" in n:
                p.normal_(0, 0.1)
    images = seeded(2, 3, 224, 224)
    with torch.no_grad():
        before = model.eval()(images)
        merge_lora(model.trunk.network)
        after = model.eval()(images)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)
    assert set(dict(model.trunk.network.named_parameters())) <= names
    trained = [n for n, p in made("lora", source)[0].named_parameters() if p.requires_grad]
    assert all("lora_" in n or n.startswith("head.") for n in trained)


@pytest.mark.parametrize(
    ("strategy", "index", "head", "message"),
    [
        ("ftl", 3, "pooled", "no depth"),
        ("scratch", 3, "pooled", "no depth"),
        ("ttl", 0, "pooled", "at least the stem"),
        ("frozen", 0, "pooled", "at least the stem"),
        ("ttl", 3, "svm", "Use hybrid"),
        ("hybrid", 3, "pooled", "svm, random-forest"),
    ],
)
def test_what_makes_no_sense_is_refused(source_of, strategy, index, head, message):
    source = source_of("resnet18", 64)
    with pytest.raises((ConfigError, CutError), match=message):
        apply_strategy(strategy, source, source.depth(index), HeadSettings(num_outputs=1, kind=head), lr=0.1, seed=0)


def test_adapters_need_attention(source_of):
    source = source_of("resnet18", 64)
    with pytest.raises(BackboneError, match="transformer's attention"):
        apply_strategy("lora", source, source.cuts[-1], HEAD, lr=0.1, seed=0)


def test_torchs_own_attention_takes_no_adapters(own_source):
    """It reads the weights of its layers without calling them: adapters there would never learn."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, 4)
            self.layers = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)))

        def forward(self, images):
            return self.layers(self.stem(images).flatten(2).transpose(1, 2)).mean(1)

    source = own_source(Tokens())
    with pytest.raises(BackboneError, match="that are called"):
        apply_strategy("lora", source, source.cuts[-1], HEAD, lr=0.1, seed=0)


def test_adapters_stand_beside_no_layer_of_torchvisions_swin_which_reads_their_weights(source_of):
    source = source_of("torchvision/swin_t", 32)
    with pytest.raises(BackboneError, match="that are called"):
        apply_strategy("lora", source, source.cuts[-1], HEAD, lr=0.1, seed=0)


@pytest.mark.parametrize("name", ["torchvision/swin_t", "torchvision/shufflenet_v2_x0_5"])
def test_what_cannot_be_followed_is_not_slimmed(source_of, name):
    source = source_of(name, 32)
    with pytest.raises(BackboneError, match=f"{name}.*cannot be followed.*Use ttl or ftl"):
        apply_strategy("tf", source, middle(source), HEAD, lr=0.1, seed=0)


def test_beside_adapters_no_statistic_moves(source_of, seeded):
    source = source_of("mobilevit_xxs", 64)
    model, _ = apply_strategy("lora", source, source.cuts[-1], HEAD, lr=0.1, seed=0)
    before = {n: b.clone() for n, b in model.named_buffers()}
    assert any(n.endswith("running_mean") for n in before)
    model.train()(seeded(4, 3, 64, 64))
    assert all(torch.equal(before[n], b) for n, b in model.named_buffers())


def test_settings_reach_the_plan(source_of):
    source = source_of("resnet18", 64)
    settings = StrategySettings(layer_decay=0.5, low_lr=0.2, l2sp=(0.3, 0.0))
    plans = {
        name: apply_strategy(name, source, source.cuts[-1], HEAD, lr=1.0, seed=0, settings=settings)[1]
        for name in ("discriminative", "l2sp")
    }
    assert [block.lr for block in plans["discriminative"].blocks[-3:]] == [0.25, 0.5, 1.0]
    assert plans["l2sp"].l2sp == (0.3, 0.0)
    assert (
        apply_strategy("lwft", source, source.cuts[2], HEAD, lr=1.0, seed=0, settings=settings)[1].blocks[4].lr == 0.2
    )
