"""Strategies: one small function each, from a source and a depth to the trunk that is kept and its plan.

All take the source, a cut, the learning rate at full speed (> 0) and the settings, which some ignore.
"""

import dataclasses
from collections.abc import Callable
from typing import Final, Literal

import torch

from medgraft.cuts.levels import Pyramid, levels_of
from medgraft.cuts.truncate import Trunk, truncate_traced
from medgraft.errors import ConfigError, CutError
from medgraft.transfer.adapters import add_lora, base_weights
from medgraft.transfer.blocks import block_sizes_of, frozen_under, tensor_block
from medgraft.transfer.decoders import DECODERS, MaskHead
from medgraft.transfer.heads import CLASSICAL, HeadSettings, build_head
from medgraft.transfer.initial import draw_from_statistics, random_network, reset_layers
from medgraft.transfer.model import Normalise, TransferModel
from medgraft.transfer.plan import block_sizes, phases_of
from medgraft.transfer.slim import slim_above
from medgraft.transfer.source import Source
from medgraft.types import BlockPlan, Cut, Phase, TransferPlan

__all__ = ["STRATEGIES", "WITH_DECODER", "Strategy", "StrategySettings", "apply_strategy", "with_head"]

Treatment = Literal["reused", "frozen", "slimmed", "re-initialised", "removed", "new"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StrategySettings:
    """What strategies need besides a depth and a learning rate.

    Args:
        low_lr: Share of the learning rate for blocks that are tuned carefully (`lwft`, `gradual`).
        layer_decay: Factor of the learning rate from each block to the one below it (`discriminative`).
        probe_share: Share of the epochs in which `lp-ft` trains the head alone.
        unfreeze_share: Share of the epochs after which `gradual` has unfrozen all it will.
        width: Share of the channels that `tf` leaves above the cut.
        l2sp: Pull towards the source weights, and of the head towards zero (`l2sp`).
        lora_rank: Rank of the adapters (`lora`).
    """

    low_lr: float = 0.1
    layer_decay: float = 0.75
    probe_share: float = 0.3
    unfreeze_share: float = 0.75
    width: float = 0.5
    l2sp: tuple[float, float] = (0.1, 0.01)
    lora_rank: int = 8


Made = tuple[Trunk, TransferPlan]


def ttl(source: Source, cut: Cut, lr: float, _: StrategySettings) -> Made:
    """Truncated transfer learning: keep the bottom up to `cut`, remove the rest, train all that is kept.

    Args:
        source: The network with its weights and cuts.
        cut: Where the trunk ends.
        lr: Learning rate of all that is kept, > 0.
        _: No setting matters.

    References:
        Peng, Liang, Luo, Li, Sun. Rethinking transfer learning for medical image classification. BMVC 2023.
    """
    plan = _plan("ttl", source, cut, lambda c: ("reused", lr) if c.index <= cut.index else ("removed", 0.0))
    return _trunk(source, cut), plan


def ftl(source: Source, cut: Cut, lr: float, _: StrategySettings) -> Made:
    """Full transfer learning: everything up to the last cut, trained at one learning rate.

    Args:
        source: The network with its weights and cuts.
        cut: The last cut.
        lr: Learning rate, > 0.
        _: No setting matters.
    """
    return _trunk(source, cut), _plan("ftl", source, cut, lambda _: ("reused", lr))


def scratch(source: Source, cut: Cut, lr: float, _: StrategySettings) -> Made:
    """Training from scratch: the network of the source with random weights, everything trained.

    Args:
        source: The network with its weights and cuts.
        cut: The last cut.
        lr: Learning rate, > 0.
        _: No setting matters.
    """
    plan = _plan("scratch", source, cut, lambda _: ("re-initialised", lr))
    return truncate_traced(random_network(source), source.trace, cut), plan


def frozen(source: Source, cut: Cut, lr: float, _: StrategySettings) -> Made:
    """Linear probe: the layers up to `cut` neither learn nor move; only the new head is trained.

    Args:
        source: The network with its weights and cuts.
        cut: Where the trunk ends.
        lr: Not used here: only the head learns.
        _: No setting matters.
    """
    plan = _plan("frozen", source, cut, lambda c: ("frozen" if c.index <= cut.index else "removed", 0.0))
    return _trunk(source, cut), plan


def hybrid(source: Source, cut: Cut, lr: float, settings: StrategySettings) -> Made:
    """Frozen layers up to `cut` and a classical classifier on their pooled features.

    Args:
        source: The network with its weights and cuts.
        cut: Where the trunk ends.
        lr: Not used here: nothing of the trunk learns.
        settings: No setting matters.

    References:
        Kim et al. Transfer learning for medical image classification: a literature review. BMC Med Imaging 2022.
    """
    trunk, plan = frozen(source, cut, lr, settings)
    return trunk, dataclasses.replace(plan, strategy="hybrid")


def lwft(source: Source, cut: Cut, lr: float, settings: StrategySettings) -> Made:
    """Layer-wise fine-tuning: frozen up to `cut`, a tenth of the learning rate above it, the head at full rate.

    Args:
        source: The network with its weights and cuts.
        cut: Last frozen cut, 0 for none.
        lr: Learning rate of the head, > 0; blocks above `cut` get a share of it.
        settings: `low_lr` matters.

    References:
        Tajbakhsh et al. Convolutional neural networks for medical image analysis: full training or fine tuning?
        IEEE TMI 2016; the rates as in Peng et al., BMVC 2023.
    """
    low = lr * settings.low_lr
    plan = _plan("lwft", source, cut, lambda c: ("frozen", 0.0) if c.index <= cut.index else ("reused", low))
    return _trunk(source, source.cuts[-1]), plan


def tf(source: Source, cut: Cut, lr: float, settings: StrategySettings) -> Made:
    """TransFusion: pretrained up to `cut`, above it layers of half the width with random weights; all is trained.

    Args:
        source: The network with its weights and cuts.
        cut: Last pretrained cut, 0 for none.
        lr: Learning rate, > 0.
        settings: `width` matters.

    References:
        Raghu et al. Transfusion: understanding transfer learning for medical imaging. NeurIPS 2019.
    """
    trunk = truncate_traced(random_network(source), source.trace, source.cuts[-1])
    slim_above(trunk, source, cut.index, settings.width)
    reset_layers(trunk.network, source, cut.index)
    kept = {
        name: value
        for name, value in source.backbone.network.state_dict().items()
        if 0 < tensor_block(source, source.backbone.network, name) <= cut.index
    }
    trunk.network.load_state_dict(kept, strict=False)
    plan = _plan("tf", source, cut, lambda c: ("reused" if c.index <= cut.index else "slimmed", lr))
    sizes = block_sizes_of(trunk.network, source)
    blocks = tuple(
        dataclasses.replace(block, num_params=sizes.get(c.index, 0))
        for c, block in zip(source.cuts, plan.blocks, strict=True)
    )
    return trunk, dataclasses.replace(plan, blocks=blocks)


def wtst(source: Source, cut: Cut, lr: float, _: StrategySettings) -> Made:
    """Weights transferred up to `cut`; above it every tensor drawn from its pretrained mean and deviation.

    Args:
        source: The network with its weights and cuts.
        cut: Last cut whose weights are kept, 0 for none.
        lr: Learning rate, > 0.
        _: No setting matters.

    References:
        Matsoukas et al. What makes transfer learning work for medical images. CVPR 2022.
    """
    trunk = _trunk(source, source.cuts[-1])
    draw_from_statistics(trunk.network, source, cut.index)
    plan = _plan("wtst", source, cut, lambda c: ("reused" if c.index <= cut.index else "re-initialised", lr))
    return trunk, plan


def gradual(source: Source, cut: Cut, lr: float, settings: StrategySettings) -> Made:
    """Gradual unfreezing: the head first, then block after block from the top down to the one above `cut`.

    Args:
        source: The network with its weights and cuts.
        cut: Last cut that is never unfrozen, 0 for none.
        lr: Learning rate of the head, > 0; blocks above `cut` get a share of it.
        settings: `low_lr` and `unfreeze_share` matter.

    References:
        Kim et al., BMC Med Imaging 2022 (recommended); Howard, Ruder. ULMFiT. ACL 2018.
    """
    low, num = lr * settings.low_lr, len(source.cuts)
    plan = _plan("gradual", source, cut, lambda c: ("frozen", 0.0) if c.index <= cut.index else ("reused", low))
    steps = num - cut.index
    phases = tuple(
        Phase(
            start=settings.unfreeze_share * step / steps if steps else 0.0,
            lrs=tuple(low if c.index > num - step else 0.0 for c in source.cuts),
        )
        for step in range(steps + 1)
    )
    return _trunk(source, source.cuts[-1]), dataclasses.replace(plan, phases=phases)


def lp_ft(source: Source, cut: Cut, lr: float, settings: StrategySettings) -> Made:
    """Probe, then tune: the head alone first, then everything, so that a random head distorts no feature.

    Args:
        source: The network with its weights and cuts.
        cut: The last cut.
        lr: Learning rate, > 0.
        settings: `probe_share` matters.

    References:
        Kumar et al. Fine-tuning can distort pretrained features and underperform out-of-distribution. ICLR 2022.
    """
    plan = _plan("lp-ft", source, cut, lambda _: ("reused", lr))
    every = tuple(block.lr for block in plan.blocks)
    probe = Phase(start=0.0, lrs=(0.0,) * len(source.cuts))
    return _trunk(source, cut), dataclasses.replace(plan, phases=(probe, Phase(start=settings.probe_share, lrs=every)))


def discriminative(source: Source, cut: Cut, lr: float, settings: StrategySettings) -> Made:
    """Everything is trained, each block slower than the one above it.

    Args:
        source: The network with its weights and cuts.
        cut: The last cut.
        lr: Learning rate of the head, > 0; every block below has less.
        settings: `layer_decay` matters.

    References:
        Howard, Ruder. ULMFiT. ACL 2018; layer-wise decay as in Bao et al., BEiT, ICLR 2022.
    """
    num = len(source.cuts)
    rate = {c.index: lr * settings.layer_decay ** (num + 1 - c.index) for c in source.cuts}
    return _trunk(source, cut), _plan("discriminative", source, cut, lambda c: ("reused", rate[c.index]))


def l2sp(source: Source, cut: Cut, lr: float, settings: StrategySettings) -> Made:
    """Full fine-tuning that is pulled towards the source weights instead of towards zero.

    Args:
        source: The network with its weights and cuts.
        cut: The last cut.
        lr: Learning rate, > 0.
        settings: `l2sp` matters.

    References:
        Li, Grandvalet, Davoine. Explicit inductive bias for transfer learning. ICML 2018.
    """
    plan = _plan("l2sp", source, cut, lambda _: ("reused", lr))
    return _trunk(source, cut), dataclasses.replace(plan, l2sp=settings.l2sp)


def lora(source: Source, cut: Cut, lr: float, settings: StrategySettings) -> Made:
    """Low-rank adapters beside the frozen linear layers of a transformer; merged when the model is stored.

    Args:
        source: The network with its weights and cuts.
        cut: The last cut.
        lr: Learning rate of the adapters and the head, > 0.
        settings: `lora_rank` matters.

    References:
        Hu et al. LoRA: low-rank adaptation of large language models. ICLR 2022.
    """
    trunk = _trunk(source, cut)
    add_lora(trunk.network, source.backbone.spec.name, settings.lora_rank, source.trace.calls)
    return trunk, _plan("lora", source, cut, lambda _: ("reused", lr))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a strategy is applied and what it can be asked.

    Args:
        apply: (source, cut, learning rate, settings) to trunk and plan.
        has_depth: Whether a cut means something; without it the last cut is used.
        is_searched: Whether the cut is searched unless one is given.
        fitting: Whether the head is trained by ``gradient`` or solved on cached ``features``.
        has_zero: Whether depth 0 says something: nothing is kept (tf, wtst), or nothing stays frozen (lwft, gradual).
        usual: Depth where none is given: the last cut, or 0.
        is_ftl_whole: Whether it is full fine-tuning at the last cut, so that one trial serves both.
        takes_decoder: Whether it says what becomes of an encoder; a decoder is always new.
    """

    apply: Callable[[Source, Cut, float, StrategySettings], Made]
    has_depth: bool = True
    is_searched: bool = False
    fitting: Literal["gradient", "features"] = "gradient"
    has_zero: bool = False
    usual: Literal["last", "zero"] = "last"
    is_ftl_whole: bool = False
    takes_decoder: bool = False


STRATEGIES: Final[dict[str, Strategy]] = {
    "scratch": Strategy(apply=scratch, has_depth=False, takes_decoder=True),
    "frozen": Strategy(apply=frozen, fitting="features", takes_decoder=True),
    "hybrid": Strategy(apply=hybrid, fitting="features"),
    "ftl": Strategy(apply=ftl, has_depth=False, takes_decoder=True),
    "lwft": Strategy(apply=lwft, is_searched=True, has_zero=True, takes_decoder=True),
    "tf": Strategy(apply=tf, is_searched=True, has_zero=True, is_ftl_whole=True),
    "ttl": Strategy(apply=ttl, is_searched=True, is_ftl_whole=True, takes_decoder=True),
    "gradual": Strategy(apply=gradual, has_zero=True, usual="zero"),
    "lp-ft": Strategy(apply=lp_ft, has_depth=False),
    "discriminative": Strategy(apply=discriminative, has_depth=False),
    "wtst": Strategy(apply=wtst, is_searched=True, has_zero=True, is_ftl_whole=True, takes_decoder=True),
    "l2sp": Strategy(apply=l2sp, has_depth=False),
    "lora": Strategy(apply=lora, has_depth=False),
}
WITH_DECODER: Final = tuple(name for name, strategy in STRATEGIES.items() if strategy.takes_decoder)


def apply_strategy(
    name: str,
    source: Source,
    cut: Cut,
    head: HeadSettings,
    *,
    lr: float,
    seed: int,
    settings: StrategySettings | None = None,
) -> tuple[TransferModel, TransferPlan]:
    """The model and plan of strategy `name` at `cut`; frozen is what the plan's first phase freezes.

    Args:
        name: A key of `STRATEGIES`.
        source: Where the pretrained part comes from.
        cut: A cut of `source`; strategies without a depth take the last.
        head: The new head.
        lr: Learning rate of the head and of whatever the strategy trains at full speed, > 0.
        seed: Seeds everything that is initialised anew.
        settings: Settings of the strategy; None for the usual ones.

    Raises:
        ConfigError: An unknown strategy, a depth where there is none, or an impossible learning rate.
        BackboneError: The strategy makes no sense for this network.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"expected a strategy among {', '.join(STRATEGIES)}, got {name!r}.")
    if not STRATEGIES[name].has_depth and cut.index != source.cuts[-1].index:
        raise ConfigError(f"{name} has no depth and takes no --cut, got {cut.name}. Use ttl to keep less.")
    if cut.index == 0 and not STRATEGIES[name].has_zero:
        raise CutError(f"{name} keeps at least the stem: expected a cut from 1 to {len(source.cuts)}, got 0.")
    if not lr > 0:
        raise ConfigError(f"lr must be positive, got {lr}. Typical for fine-tuning: 1e-4 to 3e-3.")
    if STRATEGIES[name].fitting == "gradient" and head.kind in CLASSICAL:
        raise ConfigError(f"{name} trains its head by gradient, got --head {head.kind}. Use hybrid, or a pooled head.")
    if head.kind in DECODERS and name not in WITH_DECODER:
        raise ConfigError(f"expected a strategy among {', '.join(WITH_DECODER)} for a decoder, got {name}.")
    if name == "hybrid" and head.kind not in CLASSICAL:
        raise ConfigError(
            f"hybrid takes --head {', '.join(CLASSICAL)}, got {head.kind}. For a linear probe use frozen."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk, plan = STRATEGIES[name].apply(source, cut, lr, settings or StrategySettings())
        # Again, so that equal seeds give equal heads whatever the strategy has drawn.
        torch.manual_seed(seed)
        model = _model(source, trunk, head)
    plan = _with_head(plan, model, lr)
    frozen_now = frozen_under(model, source, phases_of(plan)[0].lrs)
    model.freeze((*frozen_now.modules, *_still_statistics(model)), frozen_now.parameters)
    return model, plan


def _model(source: Source, trunk: Trunk, head: HeadSettings) -> TransferModel:
    """The model of a trunk with a new head; weights that adapters stand beside are never trained.

    Args:
        source: What the trunk was taken from.
        trunk: The kept part.
        head: The new head; in the place of a classical one stands a linear one.
    """
    backbone = source.backbone
    normalise = Normalise(backbone.in_channels, backbone.normalisation, backbone.mean, backbone.std)
    never = frozenset(f"trunk.network.{name}" for name in base_weights(trunk.network))
    # A classical head is fitted on features later; until then a linear one holds its place.
    linear = dataclasses.replace(head, kind="pooled") if head.kind in CLASSICAL else head
    return with_head(normalise, source, trunk, linear, never_trained=never)


def with_head(
    normalise: Normalise,
    source: Source,
    trunk: Trunk,
    head: HeadSettings,
    frozen: tuple[str, ...] = (),
    never_trained: frozenset[str] = frozenset(),
) -> TransferModel:
    """`trunk` with a new linear head, or with a decoder and skip connections to it.

    Args:
        normalise: First step; before a decoder whole images are normalised by the caller where each is by itself.
        source: What the trunk was taken from; its trace tells the levels of a decoder.
        trunk: The kept part.
        head: No classical one.
        frozen: Paths of frozen modules inside `trunk`, see `TransferModel`.
        never_trained: Names of parameters that stay as they are, see `TransferModel`.
    """
    if head.kind not in DECODERS:
        return TransferModel(normalise, trunk, build_head(trunk.cut, head), frozen, never_trained)
    if normalise.kind == "image":
        # A patch of air alone has no contrast to be stretched.
        normalise = Normalise(normalise.in_channels, "before", normalise.mean.tolist(), normalise.std.tolist())
    levels = levels_of(source.trace, source.cuts, trunk.cut)
    decoder = MaskHead(head.kind, levels, source.trace.shapes[source.trace.input][1:], head.num_outputs)
    return TransferModel(normalise, Pyramid(trunk, levels), decoder, frozen, never_trained)


def _still_statistics(model: TransferModel) -> list[str]:
    """Beside adapters nothing of the network moves: its moving statistics are frozen like its weights."""
    if not model.never_trained:
        return []
    return [
        f"network.{path}" for path, module in model.trunk.network.named_modules() if hasattr(module, "running_mean")
    ]


def _trunk(source: Source, cut: Cut) -> Trunk:
    return truncate_traced(source.backbone.network, source.trace, cut)


def _plan(name: str, source: Source, cut: Cut, treat: Callable[[Cut], tuple[Treatment, float]]) -> TransferPlan:
    """A plan without its head: what `treat` says of each block, as far as its weights are pretrained at all.

    Args:
        name: Name of the strategy.
        source: The network and its cuts.
        cut: Depth of the strategy.
        treat: Cut to treatment and learning rate of the block that ends there.
    """
    sizes = block_sizes(source)
    blocks = []
    for c in source.cuts:
        treatment, lr = treat(c)
        # A block behind the last pretrained cut keeps its place but has random weights.
        here = treatment if c.is_pretrained or treatment in ("removed", "slimmed") else "re-initialised"
        blocks.append(BlockPlan(name=c.name, treatment=here, lr=lr, num_params=sizes.get(c.index, 0)))
    return TransferPlan(strategy=name, cut=cut.index, blocks=tuple(blocks))


def _with_head(plan: TransferPlan, model: TransferModel, lr: float) -> TransferPlan:
    """The plan with the new head as its last block.

    Args:
        plan: A plan of the blocks of the trunk alone.
        model: Its head gives the number of parameters.
        lr: Learning rate of the head in every phase, > 0.
    """
    size = sum(parameter.numel() for parameter in model.head.parameters())
    head = BlockPlan(name="head", treatment="new", lr=lr, num_params=size)
    phases = tuple(dataclasses.replace(phase, lrs=(*phase.lrs, lr)) for phase in plan.phases)
    return dataclasses.replace(plan, blocks=(*plan.blocks, head), phases=phases)
