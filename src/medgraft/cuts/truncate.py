"""Real truncation: the network runs up to the cut, and everything behind it is gone.

The kept part stays the original network object with the original names, in training and in evaluation mode;
its forward pass ends where the cut's tensor appears.
"""

import copy
from typing import Any, Final, NoReturn

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from medgraft.cuts.points import find_cuts
from medgraft.cuts.positions import ops_until
from medgraft.cuts.trace import Trace, trace_network
from medgraft.errors import CutError
from medgraft.types import Cut

__all__ = ["Trunk", "cut_points", "entry_of", "leave", "resolve_cut", "truncate", "truncate_traced"]

_CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """Carries the features out of the network's own forward pass."""

    def __init__(self, carrier: Any) -> None:
        super().__init__()
        # A block may be given, or give back, more than the tensor (a size, a mask that is None).
        self.features: torch.Tensor = next(t for t in tree_leaves(carrier) if isinstance(t, torch.Tensor))


class _Exit(nn.Module):
    """Stands in for the first module behind the cut; reaching it ends the forward pass."""

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _Reached((args, kwargs))


class _Removed(nn.Module):
    """Holds the place of a member behind the cut in a Sequential, ModuleList or ModuleDict."""


def leave(_module: nn.Module, _args: Any, output: Any) -> NoReturn:
    """The hook that ends the forward pass behind a cut.

    Args:
        _module: The module at the cut, not used.
        _args: What entered the module, not used.
        output: What leaves the module; its first tensor is the features.
    """
    raise _Reached(output)


class Trunk(nn.Module):
    """The kept bottom of a network: images (B, C, *spatial) to the features at its cut.

    Args:
        network: Already pruned behind the cut (`truncate` does that).
        entry: The method of `network` that is run.
        cut: Where it ends.
    """

    def __init__(self, network: nn.Module, entry: str, cut: Cut) -> None:
        super().__init__()
        self.network = network
        self.entry = entry
        self.cut = cut
        if cut.tap_side == "input":
            _replace(network, cut.tap, _Exit())
        else:
            network.get_submodule(cut.tap).register_forward_hook(leave)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features at the cut.

        Args:
            images: (B, C, *spatial).
        """
        try:
            getattr(self.network, self.entry)(images)
        except _Reached as reached:
            return reached.features
        raise CutError(
            f"expected the forward pass to reach cut {self.cut.name}, but it ended before. "
            "The network's path depends on its input; choose another cut."
        )


def entry_of(network: nn.Module) -> str:
    """The method that computes features without a head: ``forward_features`` where a network has it."""
    return "forward_features" if callable(getattr(network, "forward_features", None)) else "forward"


def cut_points(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[Cut, ...]:
    """All cuts of `network`, stem first; parameters and MACs count up to each cut.

    Args:
        network: Any network; neither changed nor run on data.
        input_shape: (C, *spatial) of one input.

    Raises:
        BackboneError: When the network cannot process such an input.
        CutError: When it has no cut.

    Examples:
        >>> layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
        >>> [(cut.name, cut.num_params) for cut in cut_points(nn.Sequential(*layers), (3, 16, 16))]
        [('0', 224), ('2', 808)]
    """
    entry = entry_of(network)
    return find_cuts(trace_network(network, input_shape, entry=entry), has_head=entry == "forward")


def truncate(network: nn.Module, cut: int | str | Cut, input_shape: tuple[int, ...]) -> Trunk:
    """A new network that ends at `cut`; what lies behind it is removed. `network` is left as it was.

    Args:
        network: Any network.
        cut: Index from 1, the network's own name, or a `Cut` of `cut_points`.
        input_shape: (C, *spatial) of one input.

    Raises:
        CutError: When there is no such cut; the message lists the cuts.
    """
    entry = entry_of(network)
    trace = trace_network(network, input_shape, entry=entry)
    cuts = find_cuts(trace, has_head=entry == "forward")
    return truncate_traced(network, trace, resolve_cut(cuts, cut))


def truncate_traced(network: nn.Module, trace: Trace, cut: Cut) -> Trunk:
    """A new network that ends at `cut`, as `truncate` makes it, from a trace that is at hand.

    Args:
        network: Left as it was.
        trace: Trace of `network` through the method that `entry_of` names.
        cut: One of the trace's cuts.
    """
    kept = copy.deepcopy(network)
    _prune(kept, trace, cut)
    return Trunk(kept, entry_of(network), cut)


def resolve_cut(cuts: tuple[Cut, ...], wanted: int | str | Cut) -> Cut:
    """The cut that `wanted` means: an index (digits), a cut's name, or a stage's name (its last cut).

    Raises:
        CutError: When there is none; the message lists all.
    """
    if isinstance(wanted, Cut):
        return wanted
    text = str(wanted).strip()
    if text.isdigit():
        matches = [cut for cut in cuts if cut.index == int(text)]
    else:
        matches = [cut for cut in cuts if text in (cut.name, cut.tap)]
        matches = matches or [cut for cut in cuts if cut.name.startswith(text + ".")][-1:]
    if not matches:
        listing = ", ".join(f"{cut.index} {cut.name}" for cut in cuts)
        raise CutError(f"expected a cut of this network, got {text!r}. Its cuts: {listing}.")
    return matches[-1]


def _prune(network: nn.Module, trace: Trace, cut: Cut) -> None:
    """Remove the modules and parameters that a forward pass up to `cut` does not need.

    Args:
        network: Changed in place.
        trace: Trace of the whole network.
        cut: Where the network will end.
    """
    tap = trace.calls[cut.tap][0]
    event = tap.left if cut.tap_side == "output" else tap.entered
    executed = trace.ops[: ops_until(trace, cut.tap, cut.tap_side)]
    used = {name for op in executed for name in op.tensors}
    keep = {path for path, calls in trace.calls.items() if calls[0].entered < event}
    keep |= {name.rpartition(".")[0] for name in used} | {cut.tap}
    for path in list(keep):
        while path:
            keep.add(path)
            path = path.rpartition(".")[0]
    keep.add("")
    # One module or parameter may stand under several names, of which the trace knows the first.
    named = network.named_modules(remove_duplicate=False)
    kept_modules = {id(module) for path, module in named if path in keep}
    parameters = network.named_parameters(remove_duplicate=False)
    used_parameters = {id(parameter) for name, parameter in parameters if name in used}
    for path, module in list(network.named_modules()):
        if path not in keep:
            continue
        prefix = f"{path}." if path else ""
        for name in list(module._modules):
            child = module._modules[name]
            if prefix + name not in keep and child is not None:
                _drop(module, name, child, kept_modules)
        if path == cut.tap and cut.tap_side == "input":
            continue
        for name, parameter in list(module._parameters.items()):
            if id(parameter) not in used_parameters:
                # Kept as an attribute: forward passes may ask whether it is None.
                module._parameters[name] = None


def _drop(parent: nn.Module, name: str, child: nn.Module, kept: set[int]) -> None:
    """Empty the place `name` of `parent`, without changing the length of any container.

    A forward pass may zip several containers or count on positions in them (Twins, HRNet), ask a module
    whether it is None, and ask an idle dropout for its rate.

    Args:
        parent: The module that holds the member; changed in place.
        name: Name of the member in `parent`.
        child: The member.
        kept: Ids of the modules that stay.
    """
    if id(child) in kept:
        return
    if isinstance(child, _CONTAINERS):
        for inner, grandchild in list(child._modules.items()):
            if grandchild is not None:
                _drop(child, inner, grandchild, kept)
        # A subclass of a container may own tensors itself.
        child._parameters.update(dict.fromkeys(child._parameters))
        child._buffers.update(dict.fromkeys(child._buffers))
    elif any(True for _ in child.parameters()) or any(True for _ in child.buffers()):
        parent._modules[name] = _Removed() if isinstance(parent, _CONTAINERS) else None


def _replace(network: nn.Module, path: str, new: nn.Module) -> None:
    """Put `new` wherever the module at `path` stands, also under other names.

    Args:
        network: Changed in place.
        path: Path of the module that goes.
        new: The module that takes every place of it.
    """
    old = network.get_submodule(path)
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
