"""Networks written in ways that trip a cutter: in-place work, views, shared modules, functional code, dead branches."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medgraft.cuts import cut_points, resolve_cut, truncate
from medgraft.types import Cut

SHAPE = (3, 16, 16)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def images_of(count: int = 2) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(3))


def check_exact(network: nn.Module, cut: Cut, expected: Tensor) -> None:
    """The trunk gives `expected`, holds what the cut says, and trains."""
    trunk = truncate(network, cut, SHAPE).eval()
    with torch.no_grad():
        torch.testing.assert_close(trunk(images_of()), expected, rtol=0, atol=0)
    assert sum(p.numel() for p in trunk.parameters()) == cut.num_params
    with torch.enable_grad():
        trunk.train()(images_of()).square().mean().backward()
    assert sum(p.grad is not None for p in trunk.parameters()) > 0


class InPlaceResidual(nn.Module):
    """Residuals added and rectified in place, on the very tensor a later shortcut reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4)
        self.one, self.two, self.three = conv(4, 4), conv(4, 4), conv(4, 4)
        self.head = nn.Linear(4, 2)

    def body(self, x: Tensor, blocks: int) -> Tensor:
        x = self.stem(x).relu_()
        for block in (self.one, self.two, self.three)[:blocks]:
            y = block(x)
            y += x
            x = y.relu_()
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x, 3).mean((2, 3)))


def test_in_place_residuals_are_seen() -> None:
    network = InPlaceResidual().eval()
    cuts = cut_points(network, SHAPE)
    assert [cut.name for cut in cuts][:3] == ["stem", "one", "two"]
    with torch.no_grad():
        for blocks, cut in enumerate(cuts[:3]):
            check_exact(network, cut, network.body(images_of(), blocks))


def test_a_tensor_that_is_still_to_be_overwritten_by_a_view_is_no_cut() -> None:
    class Ghost(nn.Module):
        """Writes half of its output through a view, as ghost modules with slices do."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.ghost, self.last = conv(3, 4), conv(4, 2), conv(4, 4)

        def body(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            view = x[:, 2:]
            view += self.ghost(x.clone())
            return x

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.body(x)).mean((2, 3))

    network = Ghost().eval()
    cuts = cut_points(network, SHAPE)
    with torch.no_grad():
        written = network.body(images_of())
        check_exact(network, resolve_cut(cuts, "ghost"), written)
        assert resolve_cut(cuts, "ghost").tap == "last"
        for cut in cuts:
            trunk = truncate(network, cut, SHAPE).eval()
            rest = {"stem": None, "ghost": network.last}.get(cut.name)
            if rest is not None:
                torch.testing.assert_close(rest(trunk(images_of())).mean((2, 3)), network(images_of()))


class Shared(nn.Module):
    """One convolution used twice and one under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4)
        self.again = conv(4, 4)
        self.alias = self.again
        self.end = conv(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.again(x))
        x = F.relu(self.alias(x))
        return self.head(F.relu(self.end(x)).mean((2, 3)))


def test_a_module_used_twice_counts_its_parameters_once_and_its_work_twice() -> None:
    network = Shared().eval()
    cuts = cut_points(network, SHAPE)
    assert [cut.name for cut in cuts] == ["stem", "end"]
    modules = (network.stem, network.again, network.end)
    assert cuts[1].num_params == sum(p.numel() for module in modules for p in module.parameters())
    assert cuts[1].macs == 16 * 16 * 9 * (3 * 4 + 3 * 4 * 4)
    with torch.no_grad():
        x = F.relu(network.again(F.relu(network.again(F.relu(network.stem(images_of()))))))
        check_exact(network, cuts[1], network.end(x))
    kept = truncate(network, "end", SHAPE).network
    assert kept.alias is kept.again
    assert kept.head is None


def test_parameters_tied_between_modules_survive_the_cut() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two, self.end = conv(3, 4), conv(4, 4), conv(4, 4), conv(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.two(self.one(self.stem(x)).relu()).relu())

    network = Tied().eval()
    cut = resolve_cut(cut_points(network, SHAPE), "two")
    weights, biases = 4 * 3 * 9 + 4 * 4 * 9, 3 * 4
    assert cut.num_params == weights + biases
    with torch.no_grad():
        check_exact(network, cut, network.two(network.one(network.stem(images_of())).relu()).relu())


def test_a_network_of_functions_is_cut_where_a_module_can_be_tapped() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([conv(3, 4), conv(4, 8), conv(8, 8)])
            self.weight = nn.Parameter(torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)))
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            for module in self.convs:
                x = F.max_pool2d(F.relu(module(x)), 2)
            x = F.relu(F.conv2d(x, self.weight, padding=1))
            return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))

    network = Functional().eval()
    cuts = cut_points(network, SHAPE)
    assert [cut.name for cut in cuts] == ["convs.0", "convs.1", "convs.2"]
    assert [cut.shape for cut in cuts] == [(4, 8, 8), (8, 8, 8), (8, 4, 4)]
    with torch.no_grad():
        x = F.max_pool2d(F.relu(network.convs[0](images_of())), 2)
        check_exact(network, cuts[0], x)
        assert "weight" not in truncate(network, 2, SHAPE).network.state_dict()


def test_a_branch_that_leads_nowhere_runs_and_is_counted() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.side, self.one, self.never = conv(3, 4), conv(4, 4), conv(4, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            self.side(x)
            return self.one(x).relu()

    network = Dead().eval()
    cuts = cut_points(network, SHAPE)
    assert [cut.name for cut in cuts] == ["stem", "one"]
    with torch.no_grad():
        check_exact(network, cuts[1], network.one(network.stem(images_of()).relu()))
    kept = truncate(network, 2, SHAPE).network
    assert kept.side is not None
    assert kept.never is None
    assert "never.weight" in network.state_dict()


def test_an_auxiliary_head_of_training_mode_goes_with_the_cut() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = conv(3, 4), conv(4, 4), conv(4, 4)
            self.aux: nn.Module | None = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(self.stem(x).relu()).relu()
            if self.training and self.aux is not None:
                self.aux(x.mean((2, 3)))
            return self.two(x)

    network = Auxiliary().eval()
    trunk = truncate(network, "one", SHAPE).train()
    assert trunk.network.aux is None
    assert trunk(images_of()).shape == (2, 4, 16, 16)


def test_a_block_called_by_keyword_or_returning_a_size_too_gives_the_tensor_alone() -> None:
    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = conv(3, 4)

        def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
            x = self.proj(image).relu()
            return x, (x.shape[2], x.shape[3])

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = conv(4, 4), conv(4, 4)

        def forward(self, *, x: Tensor, size: tuple[int, int]) -> Tensor:
            return x + self.two(self.one(x).relu()).reshape(-1, 4, *size)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block, self.last = Embed(), Block(), Block()

        def forward(self, image: Tensor) -> Tensor:
            x, size = self.embed(image=image)
            x = 2 * self.block(x=x, size=size)
            return self.last(x=x, size=size)

    network = Network().eval()
    cuts = cut_points(network, SHAPE)
    assert [cut.name for cut in cuts] == ["embed", "block", "last"]
    with torch.no_grad():
        x, size = network.embed(images_of())
        check_exact(network, cuts[0], x)
        check_exact(
            network,
            cuts[1],
            2 * network.block(x=x, size=size) if cuts[1].tap == "last" else network.block(x=x, size=size),
        )


def test_a_bare_parameter_given_first_to_a_module_is_not_taken_for_the_features() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Linear(4, 4)

        def forward(self, query: Tensor, x: Tensor) -> Tensor:
            weights = (query @ x.transpose(1, 2)).softmax(-1)
            return weights @ self.value(x)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.query = conv(3, 4), nn.Parameter(torch.ones(1, 1, 4))
            self.one, self.pool = conv(4, 4), Attend()

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(self.stem(x).relu()).flatten(2).transpose(1, 2)
            return self.pool(self.query, x)[:, 0]

    network = Network().eval()
    for cut in cut_points(network, SHAPE):
        trunk = truncate(network, cut, SHAPE).eval()
        with torch.no_grad():
            assert tuple(trunk(images_of()).shape) == (2, *cut.shape)


def test_containers_walked_side_by_side_or_by_position_keep_their_length() -> None:
    class Twins(nn.Module):
        """As Twins and HRNet do: containers are zipped and indexed, unused members come before used ones."""

        def __init__(self) -> None:
            super().__init__()
            self.embeds = nn.ModuleList([conv(3, 4), conv(4, 8)])
            self.blocks = nn.ModuleList([nn.ModuleList([conv(4, 4)]), nn.ModuleList([conv(8, 8)])])
            self.last = nn.ModuleList([conv(8, 8), nn.Identity(), conv(8, 8)])

        def forward(self, x: Tensor) -> Tensor:
            for embed, blocks in zip(self.embeds, self.blocks, strict=True):
                x = embed(x).relu()
                for block in blocks:
                    x = block(x).relu()
            return self.last[2](x)

    network = Twins().eval()
    cuts = cut_points(network, SHAPE)
    assert [cut.name for cut in cuts] == ["embeds.0", "blocks.0.0", "embeds.1", "blocks.1.0", "last.2"]
    with torch.no_grad():
        x = images_of()
        for cut, module in zip(
            cuts[:4], (network.embeds[0], network.blocks[0][0], network.embeds[1], network.blocks[1][0]), strict=True
        ):
            x = module(x).relu()
            check_exact(network, cut, x)
        check_exact(network, cuts[4], network.last[2](x))
    kept = set(truncate(network, "last.2", SHAPE).network.state_dict())
    assert not any(name.startswith("last.0") for name in kept)


def test_standardised_weights_are_weighted_layers() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std(
                (1, 2, 3), keepdim=True
            )
            return F.conv2d(x, weight, self.bias, padding=1)

    network = nn.Sequential(Standardised(3, 4, 3), nn.ReLU(), Standardised(4, 4, 3), nn.ReLU()).eval()
    cuts = cut_points(network, SHAPE)
    assert [cut.name for cut in cuts] == ["0", "2"]
    assert cuts[1].macs == 16 * 16 * 9 * (3 * 4 + 4 * 4)
    with torch.no_grad():
        check_exact(network, cuts[0], network[:2](images_of()))


def test_a_network_that_reads_values_is_traced_on_real_numbers_alike() -> None:
    class Peeking(InPlaceResidual):
        def forward(self, x: Tensor) -> Tensor:
            if float(x.sum()) > 1e9:
                x = x / 2
            return super().forward(x)

    assert cut_points(Peeking(), SHAPE) == cut_points(InPlaceResidual(), SHAPE)


def test_tracing_leaves_the_network_and_the_random_numbers_alone() -> None:
    network = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.Dropout(), conv(4, 4)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    cut_points(network, SHAPE)
    assert torch.equal(state, torch.get_rng_state())
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_spatial_dimensions_are_read_from_the_input(dims: int) -> None:
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    network = nn.Sequential(kind(1, 4, 3, padding=1), nn.ReLU(), kind(4, 6, 3, stride=2, padding=1), nn.ReLU())
    cuts = cut_points(network, (1, *[8] * dims))
    assert [cut.shape for cut in cuts] == [(4, *[8] * dims), (6, *[4] * dims)]
    assert [cut.stride for cut in cuts] == [1, 2]
    assert [cut.channel_axis for cut in cuts] == [1, 1]
    assert cuts[0].macs == 8**dims * 3**dims * 4
