"""What changes while a model trains: phases with learning rates and frozen parts of their own, and a pull."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from medgraft.train.schedule import Schedule
from medgraft.types import Phase

__all__ = ["Course", "SourcePull", "TrainPhase", "enter_phase", "phase_at"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainPhase:
    """A part of the training.

    Args:
        start: Share of the epochs at which it begins, 0 to 1.
        lrs: Learning rate of every parameter group in it; 0 where nothing learns.
        modules: Paths of the trunk's modules that are in evaluation mode meanwhile.
        parameters: Names of the model's parameters that have no gradient meanwhile.
    """

    start: float
    lrs: tuple[float, ...]
    modules: tuple[str, ...]
    parameters: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The phases of a training (none: one phase as the model stands), and how strongly weights are pulled.

    Args:
        phases: In order, the first from 0.
        l2sp: Pull of the trunk towards the weights it starts from and of the head towards zero.
    """

    phases: tuple[TrainPhase, ...] = ()
    l2sp: tuple[float, float] = (0.0, 0.0)


AnyPhase = TypeVar("AnyPhase", Phase, TrainPhase)


def phase_at(phases: Sequence[AnyPhase], epoch: int, epochs: int) -> AnyPhase:
    """The phase of `epoch` (from 0) of `epochs`; it follows from the epoch alone, so a resumed training is in it too.

    Args:
        phases: In order, the first from 0.
        epoch: From 0.
        epochs: Epochs of the whole training.

    Examples:
        >>> parts = [TrainPhase(start=s, lrs=(), modules=(), parameters=frozenset()) for s in (0.0, 0.3, 0.5)]
        >>> [phase_at(parts, epoch, 10).start for epoch in (0, 2, 3, 4, 5, 9)]
        [0.0, 0.0, 0.3, 0.3, 0.5, 0.5]
    """
    return [phase for phase in phases if phase.start * epochs <= epoch + 1e-9][-1]


def enter_phase(phase: TrainPhase, model: nn.Module, schedule: Schedule) -> None:
    """Freeze what `phase` freezes and set its learning rates.

    Args:
        phase: What begins.
        model: A `medgraft.transfer.model.TransferModel`.
        schedule: Gets the learning rates of the phase as its full ones.
    """
    model.freeze(phase.modules, phase.parameters)  # type: ignore[operator]
    schedule.set_full(phase.lrs)


class SourcePull:
    """After each step, weights move back towards where they started, like decoupled weight decay towards zero.

    Args:
        model: At its source weights; a copy of what is trained is kept.
        optimizer: Its groups tell the learning rates.
        l2sp: Strengths for the trunk and for the head.

    References:
        Li, Grandvalet, Davoine. Explicit inductive bias for transfer learning with convolutional networks. ICML 2018.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, l2sp: tuple[float, float]) -> None:
        self.optimizer = optimizer
        # By number: a restored optimiser has new dictionaries for its groups.
        self.strengths: list[tuple[int, list[Tensor], list[Tensor], float]] = []
        heads = {id(p) for name, p in model.named_parameters() if name.startswith("head.")}
        for number, group in enumerate(optimizer.param_groups):
            for is_head, strength in ((False, l2sp[0]), (True, l2sp[1])):
                mine = [p for p in group["params"] if (id(p) in heads) == is_head]
                start = [torch.zeros_like(p) if is_head else p.detach().clone() for p in mine]
                if mine:
                    self.strengths.append((number, mine, start, strength))

    @torch.no_grad()
    def apply(self) -> None:
        """Call after each step of the optimiser."""
        for number, mine, start, strength in self.strengths:
            rate = float(self.optimizer.param_groups[number]["lr"])
            torch._foreach_lerp_([p.data for p in mine], start, rate * strength)
