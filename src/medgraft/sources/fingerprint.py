"""Which network a set of tensors belongs to, told by how many numbers its trunk holds."""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

__all__ = ["size_of", "without_wrappers"]

# Heads, and what another input size, another release or a tool changes.
_NOT_COUNTED: Final = re.compile(
    r"num_batches_tracked$|relative_position_index$|relative_position_bias_table$|attn_mask$|total_(?:ops|params)$"
    r"|(?:^|\.)pos_embed$|^embeddings\.position_embeddings$|^positional_embedding$"
    r"|^(?:fc|head|head_dist|classifier|last_linear|logits|_fc|attnpool|pre_logits)\."
)


def size_of(state: Mapping[str, Tensor]) -> int:
    """Numbers in a trunk, without its head and without tables that depend on the size of the input.

    Renaming, transposing and joining tensors leaves it as it is, so that it tells a network whatever its file calls its
    parts.

    Args:
        state: Tensors by name.
    """
    return sum(value.numel() for name, value in state.items() if not _NOT_COUNTED.search(name))


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without the prefixes that all their names share, such as ``module.`` or ``model.backbone.``."""
    bare = dict(state)
    while bare and len({name.partition(".")[0] for name in bare}) == 1 and all("." in name for name in bare):
        bare = {name.partition(".")[2]: value for name, value in bare.items()}
    return bare
