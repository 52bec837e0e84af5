"""A moving average of the weights: what is judged on validation and kept."""

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """The exponential moving average of a model's weights and statistics over about `window` steps.

    On a validation set of a hundred patients the score of one epoch is luck to a large part, and the best of thirty
    epochs mostly luck. Averaged weights move slowly, so their best epoch is a plateau and not a spike. Frozen tensors
    stay what they are, to the bit.

    Args:
        model: Copied; the copy is in evaluation mode and has no gradients.
        window: Steps over which is averaged, at least 1; shorter at the start of training.

    References:
        Polyak, Juditsky. Acceleration of stochastic approximation by averaging. SIAM J. Control Optim. 1992.
    """

    def __init__(self, model: nn.Module, window: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.window = max(1.0, window)
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Call after each step of the optimiser."""
        self.steps += 1
        share = 1 / min(self.window, 1 + self.steps / 10)
        mine, theirs = [], []
        for ours, other in zip(_tensors(self.model), _tensors(model), strict=True):
            if ours.is_floating_point():
                mine.append(ours)
                theirs.append(other.detach())
            else:
                ours.copy_(other)
        torch._foreach_lerp_(mine, theirs, share)

    def state(self) -> dict[str, Any]:
        """The averaged weights and the number of steps, for a checkpoint."""
        return {"model": self.model.state_dict(), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.model.load_state_dict(state["model"])
        self.steps = state["steps"]


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
