"""Half-width layers above a cut, along the network's own dependency graph."""

import dataclasses
import warnings
from typing import Final

import torch
import torch_pruning  # type: ignore[import-untyped]
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medgraft.cuts.truncate import Trunk, leave
from medgraft.errors import BackboneError
from medgraft.transfer.blocks import own_blocks
from medgraft.transfer.source import Source
from medgraft.types import Cut

__all__ = ["Slim", "slim_above"]

_PRUNED: Final = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# What torch_pruning stumbles over where it loses a layer; in a ShuffleNet it divides by zero.
_NOT_FOLLOWED: Final = (
    *(RuntimeError, ValueError, AssertionError, KeyError, TypeError, IndexError, AttributeError),
    ZeroDivisionError,
)
# Attention whose windows torch_pruning multiplies with each other: it would not come back for hours.
_ENDLESS: Final = (
    "torchvision.models.swin_transformer.ShiftedWindowAttention",
    "torchvision.models.video.swin_transformer.ShiftedWindowAttention3d",
    "torchvision.models.maxvit.RelativePositionalMultiHeadAttention",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slim:
    """Where a slimmed network is slim: the cut above which, and the share of the channels that stays there."""

    depth: int
    width: float


def slim_above(trunk: Trunk, source: Source, depth: int, width: float) -> None:
    """Keep the share `width` of the channels of every layer above cut `depth`, in place.

    Channels that the kept part shares through skip connections stay; heads of attention stay in number and become
    narrower. Which channels go is irrelevant: what is slimmed is initialised anew.

    Args:
        trunk: The whole network up to its last cut.
        source: Says which block a layer belongs to.
        depth: Cut up to which nothing changes.
        width: Share of the channels that stays, above 0 and below 1.

    Raises:
        BackboneError: The network's layers cannot be followed.

    References:
        Raghu et al. Transfusion: understanding transfer learning for medical imaging. NeurIPS 2019.
        Fang et al. DepGraph: towards any structural pruning. CVPR 2023.
    """
    network = trunk.network
    if endless := next((kind for module in network.modules() for kind in _kinds(module) if kind in _ENDLESS), None):
        raise BackboneError(
            f"expected a network whose layers above a cut can be slimmed, got {source.backbone.spec.name} with "
            f"{endless}, which cannot be followed. Use ttl or ftl."
        )
    kept: list[nn.Module | nn.Parameter] = []
    for path, module in network.named_modules():
        if min(own_blocks(source, path, module), default=depth + 1) <= depth:
            # Naming a module that has children would keep all of these, so its own tensors are named.
            kept.extend(module.parameters(recurse=False) if any(module.children()) else [module])
    attention = [m for m in network.modules() if isinstance(getattr(m, "qkv", None), nn.Linear)]
    example = torch.zeros(1, source.backbone.in_channels, *_spatial(source))
    was = trunk.training
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.BasePruner(
                trunk.eval(),
                example,
                importance=_first_go,
                pruning_ratio=1 - width,
                ignored_layers=kept,
                root_module_types=list(_PRUNED),
                num_heads={m.qkv: m.num_heads for m in attention},
                prune_num_heads=False,
                prune_head_dims=True,
                forward_fn=_watched,
            ).step()
            for module in attention:
                _fit_heads(module)
            trunk.cut = _measured(trunk, example)
    except _NOT_FOLLOWED as error:
        name = source.backbone.spec.name
        raise BackboneError(
            f"expected a network whose layers above a cut can be slimmed, but {name} cannot be followed "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). Use ttl or ftl."
        ) from error
    trunk.train(was)


def _kinds(module: nn.Module) -> list[str]:
    """The full names of its class and of those it inherits from."""
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__]


def _watched(trunk: Trunk, images: torch.Tensor) -> torch.Tensor:
    """A forward pass in which the hooks of an onlooker at the last module come before the one that ends the pass."""
    if trunk.cut.tap_side == "output":
        hooks = trunk.network.get_submodule(trunk.cut.tap)._forward_hooks
        for key in [key for key, hook in hooks.items() if hook is leave]:
            hooks[key] = hooks.pop(key)
    features: torch.Tensor = trunk(images)
    return features


def _first_go(group: object, **_: object) -> torch.Tensor:
    """Importance by the position of a channel alone: the first ones go, which is as good a choice as any."""
    layer, indices = group[0].dep.target.module, group[0].idxs  # type: ignore[index]
    del layer
    return torch.arange(len(indices), dtype=torch.float32)


def _fit_heads(module: nn.Module) -> None:
    """Tell an attention what its heads measure now."""
    heads, inner = int(module.num_heads), module.qkv.out_features // 3  # type: ignore[arg-type, union-attr, operator]
    head_dim = inner // heads
    for name, value in (("head_dim", head_dim), ("attn_dim", inner), ("scale", head_dim**-0.5)):
        if hasattr(module, name):
            setattr(module, name, value)


def _measured(trunk: Trunk, example: torch.Tensor) -> Cut:
    """The trunk's last cut with the sizes it has now."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        features = trunk(example)
    cut = trunk.cut
    return dataclasses.replace(
        cut,
        channels=features.shape[cut.channel_axis],
        shape=tuple(features.shape[1:]),
        num_params=sum(parameter.numel() for parameter in trunk.parameters()),
        macs=counter.get_total_flops() // 2,
    )


def _spatial(source: Source) -> tuple[int, ...]:
    return tuple(source.trace.shapes[source.trace.input][2:])
