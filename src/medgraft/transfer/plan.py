"""Plans: what happens to each block, and the optimiser's parameter groups that make it so."""

import collections
import dataclasses
import itertools
from typing import Any

from torch import nn

from medgraft.errors import ConfigError
from medgraft.transfer.blocks import block_index
from medgraft.transfer.model import TransferModel
from medgraft.transfer.source import Source
from medgraft.types import BlockPlan, Phase, TransferPlan

__all__ = ["ParameterGroup", "block_sizes", "lr_of", "parameter_groups", "phases_of", "plan_line", "plan_table"]


def block_sizes(source: Source) -> dict[int, int]:
    """Parameters that each cut adds to the one below it."""
    sizes: collections.Counter[int] = collections.Counter()
    for name, index in source.block_of.items():
        sizes[index] += source.trace.num_elements.get(name, 0)
    return dict(sizes)


def lr_of(plan: TransferPlan, source: Source, name: str, phase: int = 0) -> float:
    """The learning rate the plan gives to a parameter of the model (0 when frozen).

    Args:
        plan: Plan of the model.
        source: What the model was made from.
        name: As in the model, e.g. ``trunk.network.layer1.0.conv1.weight`` or ``head.linear.weight``.
        phase: Which of the plan's phases; 0 where it has none.
    """
    return phases_of(plan)[phase].lrs[block_index(source, name, len(plan.blocks))]


def phases_of(plan: TransferPlan) -> tuple[Phase, ...]:
    """The plan's phases; a plan without any is one phase."""
    return plan.phases or (Phase(start=0.0, lrs=tuple(block.lr for block in plan.blocks)),)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParameterGroup:
    """Parameters that an optimiser treats alike.

    Args:
        params: The parameters.
        names: Their names in the model.
        lr: Highest learning rate of all phases.
        weight_decay: Weight decay, 0 or more.
        lrs: Learning rate in each phase; empty where there is one.
    """

    params: tuple[nn.Parameter, ...]
    names: tuple[str, ...]
    lr: float
    weight_decay: float
    lrs: tuple[float, ...] = ()

    def for_torch(self) -> dict[str, Any]:
        """The group as optimisers of `torch.optim` take it."""
        return {"params": list(self.params), "lr": self.lr, "weight_decay": self.weight_decay}


def parameter_groups(
    model: TransferModel, plan: TransferPlan, source: Source, weight_decay: float
) -> tuple[ParameterGroup, ...]:
    """Groups for an optimiser, one per (learning rates, decay); built before any wrapper renames parameters.

    Weight decay acts on the matrices and kernels of layers alone, not on vectors (biases, norms, scales), tokens and
    position tables; under L2-SP the pull towards the source takes its place.

    Args:
        model: What is trained; its gradients are switched as the plan's first phase says.
        plan: Plan of the model.
        source: What the model was made from.
        weight_decay: Decay of matrices and kernels, 0 or more.
    """
    phases = phases_of(plan)
    decay_of_layers = 0.0 if any(plan.l2sp) else weight_decay
    groups: dict[tuple[tuple[float, ...], float], dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        lrs = tuple(lr_of(plan, source, name, phase) for phase in range(len(phases)))
        if name in model.never_trained:
            continue
        if (lrs[0] > 0) != parameter.requires_grad:
            raise ConfigError(
                f"the plan gives {name} the learning rate {lrs[0]}, but its gradient is switched otherwise."
            )
        if not any(lrs):
            continue
        # Layers call it "weight" (or "in_proj_weight"); `cls_token`, `pos_embed` and bias tables are called otherwise.
        decay = decay_of_layers if parameter.ndim > 1 and name.endswith("weight") else 0.0
        groups.setdefault((lrs, decay), {})[name] = parameter
    return tuple(
        ParameterGroup(params=tuple(part.values()), names=tuple(part), lr=max(lrs), weight_decay=decay, lrs=lrs)
        for (lrs, decay), part in groups.items()
    )


def plan_line(plan: TransferPlan) -> str:
    """The plan in one line: runs of blocks that are treated alike, with treatment and rate.

    Examples:
        >>> from medgraft.types import BlockPlan
        >>> blocks = [BlockPlan(name=n, treatment=t, lr=lr, num_params=1) for n, t, lr in
        ...           (("stem", "frozen", 0.0), ("a", "frozen", 0.0), ("b", "reused", 1e-4), ("head", "new", 1e-3))]
        >>> plan_line(TransferPlan(strategy="lwft", cut=2, blocks=tuple(blocks)))
        'stem … a frozen, b reused 1.0e-04, head new 1.0e-03'
    """
    parts = []
    for (treatment, lr), run in itertools.groupby(plan.blocks, key=lambda block: (block.treatment, block.lr)):
        names = [block.name for block in run]
        span = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        parts.append(f"{span} {treatment}" + (f" {lr:.1e}" if lr else ""))
    # Rates that fall from block to block would fill the screen.
    if len(parts) > 6:
        parts = [*parts[:2], "…", *parts[-3:]]
    phases = f"; {len(plan.phases)} phases" if len(plan.phases) > 1 else ""
    return ", ".join(parts) + phases


def plan_table(plan: TransferPlan) -> list[tuple[str, str, str, str]]:
    """Rows (block, treatment, learning rate, parameters) for printing; equal neighbours are joined."""
    rows: list[tuple[str, str, str, str]] = []
    run: list[BlockPlan] = []
    for block in (*plan.blocks, None):
        if block is not None and (not run or (block.treatment, block.lr) == (run[-1].treatment, run[-1].lr)):
            run.append(block)
            continue
        name = run[0].name if len(run) == 1 else f"{run[0].name} … {run[-1].name} ({len(run)})"
        lr = f"{run[0].lr:.1e}" if run[0].lr else "–"
        rows.append((name, run[0].treatment, lr, f"{sum(b.num_params for b in run):,}"))
        run = [block] if block is not None else []
    return rows
