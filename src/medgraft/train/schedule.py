"""Learning-rate schedules that multiply each group's own learning rate and can be stored."""

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import torch

__all__ = ["SCHEDULES", "Schedule", "ScheduleKind", "cosine_factor"]

ScheduleKind = Literal["cosine", "plateau", "constant"]
SCHEDULES: Final = get_args(ScheduleKind)
_WARMUP: Final = 0.1
_FLOOR: Final = 0.01
_PLATEAU_FACTOR: Final = 0.5
_PLATEAU_STOP: Final = 1e-7


def cosine_factor(step: int, total: int) -> float:
    """Share of the learning rate at `step` of `total`: linear warm-up over a tenth, then cosine to 1 %.

    Examples:
        >>> [round(cosine_factor(step, 100), 3) for step in (0, 9, 10, 55, 99)]
        [0.1, 1.0, 1.0, 0.505, 0.01]
    """
    warmup = max(1, round(_WARMUP * total))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


class Schedule:
    """Sets the learning rate of every group before each step; ``plateau`` also decides when to stop.

    Args:
        kind: ``cosine``, ``plateau`` or ``constant``.
        optimizer: Its groups' learning rates at construction are the full ones.
        total: Steps of the whole training.
        patience: Epochs without a better score before ``plateau`` halves the rate.
    """

    def __init__(
        self,
        kind: ScheduleKind,
        optimizer: torch.optim.Optimizer,
        total: int,
        patience: int,
    ) -> None:
        self.kind = kind
        self.optimizer = optimizer
        self.total = total
        self.patience = patience
        self.full = [float(group["lr"]) for group in optimizer.param_groups]
        self.steps = 0
        self.factor = 1.0
        self.best = -math.inf
        self.waited = 0
        self._apply()

    @property
    def lr(self) -> float:
        """The highest learning rate of the next step."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    @property
    def is_finished(self) -> bool:
        """Whether the plateau schedule has fallen below its floor."""
        return self.kind == "plateau" and max(self.full) * self.factor < _PLATEAU_STOP

    def step(self) -> None:
        """Call after each optimiser step."""
        self.steps += 1
        self._apply()

    def end_epoch(self, score: float) -> None:
        """Call after each epoch with the validation score, higher is better."""
        if score > self.best:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.kind == "plateau" and self.waited > self.patience:
            self.factor *= _PLATEAU_FACTOR
            self.waited = 0
            self._apply()

    def set_full(self, lrs: Sequence[float]) -> None:
        """Another phase begins: these are the groups' full learning rates from now on."""
        self.full = [float(lr) for lr in lrs]
        self._apply()

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"steps": self.steps, "factor": self.factor, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.steps, self.factor = state["steps"], state["factor"]
        self.best, self.waited = state["best"], state["waited"]
        self._apply()

    def _apply(self) -> None:
        factor = cosine_factor(min(self.steps, self.total - 1), self.total) if self.kind == "cosine" else self.factor
        for group, full in zip(self.optimizer.param_groups, self.full, strict=True):
            group["lr"] = full * factor
