"""What medgraft knows about a published set of weights, as a value."""

import dataclasses
from typing import Any, Final, Literal

__all__ = ["IMAGENET", "PLUS_MINUS_ONE", "Acceptance", "Input", "KnownSource", "Place", "PlaceKind"]

PlaceKind = Literal["timm", "huggingface", "url", "package", "by-hand"]
"""Who hands out weights: timm's published configuration, a file of the Hugging Face hub, a server, the package index,
or a page with a form."""

Acceptance = Literal["", "non-commercial", "agreement"]
"""What a user has to agree to before the weights are used: nothing, no commercial use, or terms of their own."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What the weights saw in their own training.

    Args:
        side: Side of the input, px; of volumes (D, H, W) in voxels.
        mean: Per channel on the scale 0 to 1, subtracted first; empty where every image has its own.
        std: Per channel on the scale 0 to 1; empty where every image has its own. An input of -1 to 1 is mean .5 and
            std .5; one of 0 to 255 without more is mean 0 and std 1/255.
        channels: As the published network reads them; `bgr` is turned into RGB when the weights are loaded.
    """

    side: int | tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Literal["rgb", "bgr", "grey"] = "rgb"


IMAGENET: Final = Input(side=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""How most networks were shown ImageNet."""
PLUS_MINUS_ONE: Final = Input(side=224, mean=(0.5,) * 3, std=(0.5,) * 3)
"""How TensorFlow's networks were shown ImageNet: from -1 to 1."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where weights come from.

    Args:
        kind: Who hands them out.
        name: What they are called there: timm's name with its tag, ``owner/repository/file``, an address, or
            the distribution in the package index; of a form the address of its page.
        sha256: Of the file, or the first digits of it; empty where nobody published it.
    """

    kind: PlaceKind
    name: str
    sha256: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnownSource:
    """A published set of weights.

    Args:
        name: As ``--weights`` names it.
        network: As ``--backbone`` names the network that it fills.
        args: Arguments of that network's constructor.
        layout: Key of `medgraft.sources.layouts.published.LAYOUTS`: how its file names the tensors, and
            which of several networks in it is meant.
        data: What it learned from.
        objective: What it learned: ``supervised``, or the name of the self-supervised method.
        input: What it saw.
        size_mb: Size of the file, MB.
        licence: SPDX identifier where there is one, else its name; ``not stated`` where the authors say nothing.
        licence_text: Address of its text; empty where there is none.
        acceptance: What a user has to agree to.
        citation: Authors, title, venue, year.
        place: Where it comes from.
        note: A trap, or what else a user should know.
    """

    name: str
    network: str
    layout: str
    data: str
    objective: str
    input: Input
    size_mb: float
    licence: str
    citation: str
    place: Place
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    licence_text: str = ""
    acceptance: Acceptance = ""
    note: str = ""
