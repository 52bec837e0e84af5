"""Whatever the skip connections, the tensor at a cut alone determines the output."""

import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medgraft.cuts import Trunk, cut_points, find_cuts, trace_network, truncate_traced

SHAPE = (2, 6, 6)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A chain of layers; `skips` (i, j) add what stands before layer i to what layer j makes."""

    widths: tuple[bool, ...]
    skips: frozenset[tuple[int, int]]
    is_in_place: bool
    seed: int

    def is_crossed(self, place: int) -> bool:
        """Whether a skip connection jumps over the tensor behind layer `place`."""
        return any(start <= place < end for start, end in self.skips)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    depth = draw(st.integers(2, 7))
    pair = st.tuples(st.integers(0, depth - 1), st.integers(0, depth - 1)).map(lambda p: (min(p), max(p)))
    return Plan(
        widths=tuple(draw(st.lists(st.booleans(), min_size=depth, max_size=depth))),
        skips=frozenset(draw(st.lists(pair, max_size=4))),
        is_in_place=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


class Layer(nn.Module):
    """One or two convolutions; the two have a shortcut of their own."""

    def __init__(self, *, is_wide: bool, is_in_place: bool) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 2, 3, padding=1)
        self.two = nn.Conv2d(2, 2, 3, padding=1) if is_wide else None
        self.act = nn.ReLU(inplace=is_in_place)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.one(x))
        return y if self.two is None else self.act(self.two(y) + x)


class Chain(nn.Module):
    """The network of a plan; `run_from` goes on behind a layer with that layer's tensor alone."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.layers = nn.ModuleList(Layer(is_wide=w, is_in_place=plan.is_in_place) for w in plan.widths)
        self.head = nn.Linear(2, 3)

    def run_from(self, place: int, x: Tensor) -> Tensor:
        before = {place + 1: x}
        for number in range(place + 1, len(self.layers)):
            x = self.layers[number](x)
            for start, end in sorted(self.plan.skips):
                if end == number:
                    # Without the layers below, a tensor from there is missing: a KeyError.
                    x = x.add_(before[start]) if self.plan.is_in_place else x + before[start]
            before[number + 1] = x
        return self.head(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.run_from(-1, x)


class Dense(nn.Module):
    """Each layer reads the concatenation of all before it; `run_from` takes that concatenation as one tensor."""

    def __init__(self, growths: list[int], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        widths = [3 + sum(growths[:number]) for number in range(len(growths) + 1)]
        self.layers = nn.ModuleList(nn.Conv2d(w, g, 1) for w, g in zip(widths, growths, strict=False))
        self.last = nn.Conv2d(widths[-1], 4, 1)

    def run_from(self, place: int, joined: Tensor) -> Tensor:
        features = [joined]
        for layer in self.layers[place:]:
            features.append(layer(torch.cat(features, 1)).relu())
        return self.last(torch.cat(features, 1)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.run_from(0, self.stem(x))


def trunks_of(network: nn.Module) -> list[Trunk]:
    trace = trace_network(network, SHAPE)
    return [truncate_traced(network, trace, cut).eval() for cut in find_cuts(trace, has_head=True)]


def images_of(seed: int) -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed))


def open_places(plan: Plan) -> list[int]:
    return [place for place in range(len(plan.widths)) if not plan.is_crossed(place)]


def due_places(plan: Plan) -> list[int]:
    # The last tensor leaves through no module when a skip ends there, so only places below it are due.
    return [place for place in open_places(plan) if place + 1 < len(plan.widths)]


@settings(deadline=None, max_examples=30)
@given(plan=plans())
def test_the_rest_of_a_network_needs_nothing_but_the_tensor_at_a_cut(plan: Plan) -> None:
    network = Chain(plan).eval()
    if not due_places(plan):
        return
    with torch.no_grad():
        expected = network(images_of(plan.seed))
        for trunk in trunks_of(network):
            place = int(trunk.cut.name.split(".")[1])
            features = trunk(images_of(plan.seed))
            torch.testing.assert_close(network.run_from(place, features), expected, rtol=0, atol=0)
            assert sum(p.numel() for p in trunk.parameters()) == trunk.cut.num_params


@settings(deadline=None, max_examples=30)
@given(plan=plans())
def test_every_layer_that_no_skip_connection_jumps_over_ends_in_a_cut(plan: Plan) -> None:
    network = Chain(plan)
    due = due_places(plan)
    if not due:
        return
    places = [int(cut.name.split(".")[1]) for cut in cut_points(network, SHAPE)]
    assert set(due) <= set(places)
    assert set(places) <= set(open_places(plan))
    assert places == sorted(set(places))


@settings(deadline=None, max_examples=25)
@given(growths=st.lists(st.integers(1, 3), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_the_joined_features_of_a_dense_network_carry_everything(growths: list[int], seed: int) -> None:
    network = Dense(growths, seed).eval()
    trunks = trunks_of(network)
    assert [trunk.cut.name for trunk in trunks] == ["stem", *(f"layers.{n}" for n in range(len(growths))), "last"]
    with torch.no_grad():
        expected = network(images_of(seed))
        for place, trunk in enumerate(trunks[:-1]):
            features = trunk(images_of(seed))
            assert features.shape[1] == 3 + sum(growths[:place])
            torch.testing.assert_close(network.run_from(place, features), expected)
