"""Which block of the network a parameter or a module belongs to, and what freezing a block means."""

import bisect
import collections
import dataclasses
from collections.abc import Sequence

from torch import nn

from medgraft.errors import ConfigError
from medgraft.transfer.source import Source

__all__ = ["Frozen", "block_index", "block_sizes_of", "frozen_under", "own_blocks", "tensor_block"]

_TRUNK = "trunk.network."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What neither learns nor moves.

    Args:
        modules: Paths inside the trunk (``""`` for all of it) that stay in evaluation mode.
        parameters: Names of the model's parameters that have no gradient.
    """

    modules: tuple[str, ...] = ()
    parameters: frozenset[str] = frozenset()


def block_index(source: Source, name: str, num_blocks: int) -> int:
    """The position in a plan of `num_blocks` blocks (the head last) of the model's parameter `name`.

    Args:
        source: What the model was made from.
        name: As in the model, e.g. ``trunk.network.layer1.0.conv1.weight``.
        num_blocks: Blocks of the plan, the head among them.

    Raises:
        ConfigError: The parameter belongs to no block.
    """
    # By position: a block of the network may be called "head" as well.
    if name.startswith("head."):
        return num_blocks - 1
    path = name.removeprefix(_TRUNK)
    if path in source.block_of:
        return source.block_of[path] - 1
    # Adapters stand inside the module whose weight they change.
    while path:
        path = path.rpartition(".")[0]
        inside = [index for parameter, index in source.block_of.items() if path and parameter.startswith(f"{path}.")]
        if inside:
            return min(inside) - 1
    raise ConfigError(f"expected every parameter to belong to a block of the plan, got {name}.")


def own_blocks(source: Source, path: str, module: nn.Module) -> list[int]:
    """Which cuts first need the parameters that the module at `path` itself holds; 0 for one that none needs.

    Args:
        source: Says which block a parameter belongs to.
        path: Path of the module in the network; empty for the network itself.
        module: The module that stands there.
    """
    names = [f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)]
    return [source.block_of.get(name, 0) for name in names]


def tensor_block(source: Source, network: nn.Module, tensor: str) -> int:
    """Which cut first needs a parameter or a buffer, or the module that a buffer belongs to; 0 where none does.

    Args:
        source: Says which block a parameter belongs to.
        network: A network with the source's names.
        tensor: Name of a parameter or a buffer in it.
    """
    if tensor in source.block_of:
        return source.block_of[tensor]
    owner = tensor.rpartition(".")[0]
    return min((block for block in own_blocks(source, owner, network.get_submodule(owner)) if block), default=0)


def block_sizes_of(network: nn.Module, source: Source) -> dict[int, int]:
    """Parameters of `network`, which has the source's names, by the index of the cut that first needs them."""
    sizes: collections.Counter[int] = collections.Counter()
    for name, parameter in network.named_parameters():
        if name in source.block_of:
            sizes[source.block_of[name]] += parameter.numel()
    return dict(sizes)


def frozen_under(model: nn.Module, source: Source, lrs: Sequence[float]) -> Frozen:
    """What a model must freeze when its blocks have these learning rates (the head's last; 0 is frozen).

    A module stays in evaluation mode when every block it runs in is frozen. Frozen means no gradient *and* no
    moving statistics, so a gradient switched off alone is not enough.

    Args:
        model: A `TransferModel` of `source`.
        source: What the model was made from.
        lrs: One per block of the plan.
    """
    if not any(lrs[:-1]):
        everything = frozenset(name for name, _ in model.named_parameters() if not name.startswith("head."))
        return Frozen(modules=("",), parameters=everything)
    parameters = frozenset(
        name for name, _ in model.named_parameters() if lrs[block_index(source, name, len(lrs))] == 0
    )
    trace = source.trace
    ends = []
    for cut in source.cuts:
        tap = trace.calls[cut.tap][0]
        ends.append(tap.left if cut.tap_side == "output" else tap.entered)
    inside = {name.removeprefix(_TRUNK) for name, _ in model.named_modules() if name.startswith(_TRUNK)}
    modules = []
    for path, calls in trace.calls.items():
        spans = [(bisect.bisect_right(ends, call.entered), bisect.bisect_left(ends, call.left)) for call in calls]
        blocks = {block for first, last in spans for block in range(first, last + 1)}
        if path in inside and all(block < len(ends) and lrs[block] == 0 for block in blocks):
            modules.append(f"network.{path}")
    return Frozen(modules=tuple(modules), parameters=parameters)
