"""Look at what a network computes without leaving a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within the block `network` is in evaluation mode and nothing is recorded; then its mode is as it was.

    Examples:
        >>> network = nn.Dropout().train()
        >>> with evaluating(network):
        ...     network.training
        False
        >>> network.training
        True
    """
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)
