"""What a published checkpoint is: how its authors write it, and what the network in it computes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Weights = dict[str, Tensor]
Features = Callable[[Any, Tensor], Tensor]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A checkpoint in the layout of its authors, with the features that they mean.

    Attributes:
        name: Of the checkpoint, unique.
        network: Of timm, MONAI or medgraft, that is to be filled.
        args: Arguments of that network's constructor.
        layout: Whose layout it is.
        suffix: Of the file; what `save` goes by.
        content: From a seed to the object that is saved.
        features: From the object and a normalised batch (B, *shape) to the features, eval mode; None where `refused`.
        where: The method of the network, or its submodule, that gives the same features.
        shape: Of one case, channels first.
        refused: Why no faithful network exists, where none does.
    """

    name: str
    network: str
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    layout: str
    suffix: str = ".pth"
    content: Callable[[int], Any]
    features: Features | None = None
    where: str = "forward_features"
    shape: tuple[int, ...]
    refused: str = ""


def under(name: str, weights: Mapping[str, Tensor]) -> Weights:
    """The weights as those of a submodule called `name`."""
    return {f"{name}.{key}": value for key, value in weights.items()}


def within(prefix: str, weights: Mapping[str, Any]) -> Weights:
    """The weights whose names start with `prefix`, which is taken off."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def stack(*parts: Mapping[str, Tensor] | None) -> Weights:
    """The weights of parts in a row, by number; None is a part without weights."""
    return {f"{index}.{key}": value for index, part in enumerate(parts) for key, value in (part or {}).items()}


def turned(content: dict[str, Any]) -> dict[str, Any]:
    """The same entries in the opposite order."""
    return dict(reversed(content.items()))
