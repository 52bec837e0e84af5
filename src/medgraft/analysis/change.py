"""What training changed in the weights, layer by layer, and which blocks the result depends on."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from medgraft.errors import DataError
from medgraft.transfer.blocks import tensor_block
from medgraft.transfer.source import Source

__all__ = ["LayerChange", "block_importance", "weight_changes"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """How far one module's own parameters moved.

    Args:
        layer: Path of the module, as in the network.
        block: Index of the cut that first needs it; 0 where none does.
        length: Length of its parameters before, as one vector.
        l2: Length of the difference.
        cosine: Cosine between before and after, 1 for no turn; None where one of them is zero.
    """

    layer: str
    block: int
    length: float
    l2: float
    cosine: float | None


def weight_changes(before: nn.Module, after: nn.Module, source: Source) -> list[LayerChange]:
    """Change of every module that has parameters of its own, in the order of the network.

    Modules are told apart by their whole path, so ``layer3.1`` never takes up ``layer3.10``; members that `after`
    lacks (truncated) are left out.

    Args:
        before: The network before training.
        after: The network after it, whole or truncated.
        source: Says which block a parameter belongs to.

    Raises:
        DataError: The two are not the same architecture.
    """
    changed = dict(after.named_modules())
    changes = []
    for path, module in before.named_modules():
        own = dict(module.named_parameters(recurse=False))
        other = dict(changed[path].named_parameters(recurse=False)) if path in changed else {}
        if not own or not other:
            continue
        if {name: p.shape for name, p in own.items()} != {name: p.shape for name, p in other.items()}:
            raise DataError(
                f"expected two networks of one architecture, but {path} differs. Compare runs of one backbone."
            )
        initial, trained = (
            torch.cat([tensors[name].detach().double().flatten().cpu() for name in own]).numpy()
            for tensors in (own, other)
        )
        lengths = np.linalg.norm(initial), np.linalg.norm(trained)
        blocks = {
            source.block_of[f"{path}.{name}".lstrip(".")]
            for name in own
            if f"{path}.{name}".lstrip(".") in source.block_of
        }
        changes.append(
            LayerChange(
                layer=path,
                block=min(blocks, default=0),
                length=float(lengths[0]),
                l2=float(np.linalg.norm(trained - initial)),
                cosine=float(initial @ trained / (lengths[0] * lengths[1])) if all(lengths) else None,
            )
        )
    if not changes:
        raise DataError("expected two networks of one architecture, got none of the layers in common.")
    return changes


def block_importance(
    network: nn.Module, initial: Mapping[str, Tensor], source: Source, score: Callable[[], float]
) -> dict[int, float]:
    """What the score loses when one block at a time is put back to its initial state, by cut index.

    Parameters and moving statistics of the block go back, everything else stays; the network is as before afterwards.

    Args:
        network: Trained; its state is exchanged in place.
        initial: State before training, under the same names.
        source: Says which block a tensor belongs to.
        score: Evaluates the model that holds `network`; higher is better.

    References:
        Zhang, Bengio, Singer. Are all layers created equal? JMLR 2022; as in Matsoukas et al., CVPR 2022.
    """
    state = network.state_dict()
    whole = score()
    lost = {}
    present = {block for name, block in source.block_of.items() if name in state}
    for block in sorted(present):
        names = [name for name in state if tensor_block(source, network, name) == block and name in initial]
        kept = {name: state[name].clone() for name in names}
        try:
            with torch.no_grad():
                for name in names:
                    state[name].copy_(initial[name])
            lost[block] = whole - score()
        finally:
            with torch.no_grad():
                for name in names:
                    state[name].copy_(kept[name])
    return lost
