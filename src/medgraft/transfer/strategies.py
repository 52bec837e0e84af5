"""Strategies: one small function each, from a source and a cut to a plan and a model."""

import dataclasses
from collections.abc import Callable
from typing import Final, Literal

import torch

from medgraft.cuts.truncate import truncate_traced
from medgraft.errors import ConfigError
from medgraft.transfer.model import FlattenedHead, Normalise, PooledHead, TransferModel
from medgraft.transfer.plan import block_sizes
from medgraft.transfer.source import Source
from medgraft.types import BlockPlan, Cut, TransferPlan

__all__ = ["STRATEGIES", "HeadSettings", "Strategy", "apply_strategy", "build_head", "frozen", "ftl", "ttl"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """The new head: `num_outputs` logits; ``pooled`` or ``flattened``; dropout from 0 to 1."""

    num_outputs: int
    kind: Literal["pooled", "flattened"] = "pooled"
    dropout: float = 0.0


def ttl(source: Source, cut: Cut, head: HeadSettings, lr: float) -> tuple[TransferModel, TransferPlan]:
    """Truncated transfer learning: keep the bottom up to `cut`, remove the rest, train all that is kept.

    References:
        Peng, Liang, Luo, Li, Sun. Rethinking transfer learning for medical image classification. BMVC 2023.
    """
    plan = _truncating_plan("ttl", source, cut, head, lr, treatment="reused")
    return _model(source, cut, head), plan


def ftl(source: Source, cut: Cut, head: HeadSettings, lr: float) -> tuple[TransferModel, TransferPlan]:
    """Full transfer learning: everything up to the last cut, trained at one learning rate."""
    model, plan = ttl(source, cut, head, lr)
    return model, dataclasses.replace(plan, strategy="ftl")


def frozen(source: Source, cut: Cut, head: HeadSettings, lr: float) -> tuple[TransferModel, TransferPlan]:
    """Linear probe: the layers up to `cut` neither learn nor move; only the new head is trained."""
    plan = _truncating_plan("frozen", source, cut, head, lr, treatment="frozen")
    return _model(source, cut, head, frozen_paths=("",)), plan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a strategy is applied, whether it has a depth, and where it starts without one."""

    apply: Callable[[Source, Cut, HeadSettings, float], tuple[TransferModel, TransferPlan]]
    has_depth: bool
    is_searched: bool


STRATEGIES: Final[dict[str, Strategy]] = {
    "ttl": Strategy(apply=ttl, has_depth=True, is_searched=True),
    "ftl": Strategy(apply=ftl, has_depth=False, is_searched=False),
    "frozen": Strategy(apply=frozen, has_depth=True, is_searched=False),
}


def apply_strategy(
    name: str, source: Source, cut: Cut, head: HeadSettings, *, lr: float, seed: int
) -> tuple[TransferModel, TransferPlan]:
    """The model and plan of strategy `name` at `cut`.

    Args:
        name: A key of `STRATEGIES`.
        source: Where the pretrained part comes from.
        cut: Of `source`; strategies without a depth take the last.
        head: The new head.
        lr: Learning rate of the head and of whatever the strategy trains at full speed, > 0.
        seed: Of the new head's initialisation.

    Raises:
        ConfigError: An unknown strategy, a depth where there is none, or an impossible learning rate.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"expected a strategy among {', '.join(STRATEGIES)}, got {name!r}.")
    if not STRATEGIES[name].has_depth and cut.index != source.cuts[-1].index:
        raise ConfigError(f"{name} has no depth and takes no --cut, got {cut.name}. Use ttl to keep less.")
    if not lr > 0:
        raise ConfigError(f"lr must be positive, got {lr}. Typical for fine-tuning: 1e-4 to 3e-3.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return STRATEGIES[name].apply(source, cut, head, lr)


def _model(source: Source, cut: Cut, head: HeadSettings, frozen_paths: tuple[str, ...] = ()) -> TransferModel:
    backbone = source.backbone
    normalise = Normalise(backbone.in_channels, backbone.normalisation, backbone.mean, backbone.std)
    trunk = truncate_traced(backbone.network, source.trace, cut)
    trunk.requires_grad_(True)
    return TransferModel(normalise, trunk, build_head(cut, head), frozen_paths)


def build_head(cut: Cut, head: HeadSettings) -> PooledHead | FlattenedHead:
    """A new head with random weights for the features at `cut`."""
    kinds: dict[str, type[PooledHead] | type[FlattenedHead]] = {"pooled": PooledHead, "flattened": FlattenedHead}
    return kinds[head.kind](cut, head.num_outputs, head.dropout)


def _truncating_plan(
    name: str,
    source: Source,
    cut: Cut,
    head: HeadSettings,
    lr: float,
    *,
    treatment: Literal["reused", "frozen"],
) -> TransferPlan:
    sizes = block_sizes(source)
    blocks = []
    for c in source.cuts:
        if c.index > cut.index:
            blocks.append(BlockPlan(name=c.name, treatment="removed", lr=0.0, num_params=sizes.get(c.index, 0)))
            continue
        # A block behind the last pretrained cut keeps its place but has random weights.
        here = treatment if c.is_pretrained else "re-initialised"
        rate = 0.0 if treatment == "frozen" else lr
        blocks.append(BlockPlan(name=c.name, treatment=here, lr=rate, num_params=sizes.get(c.index, 0)))
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in build_head(cut, head).parameters())
    blocks.append(BlockPlan(name="head", treatment="new", lr=lr, num_params=size))
    return TransferPlan(strategy=name, cut=cut.index, blocks=tuple(blocks))
