"""Where weights start when they are not the pretrained ones: random, or drawn from the pretrained statistics."""

import dataclasses

import torch
from torch import nn

from medgraft.backbones.build import build_backbone
from medgraft.transfer.blocks import own_blocks
from medgraft.transfer.source import Source

__all__ = ["draw_from_statistics", "random_network", "reset_layers"]


def random_network(source: Source) -> nn.Module:
    """The source's network as its author initialises it, with the random numbers of the moment."""
    seed = int(torch.randint(2**31 - 1, ()).item())
    return build_backbone(dataclasses.replace(source.backbone.spec, weights="none", seed=seed)).network


def draw_from_statistics(network: nn.Module, source: Source, depth: int) -> None:
    """Draw every parameter above cut `depth` from N(mean, std) of its own pretrained values, in place.

    Kernels, norms, tokens, position and bias tables alike. Moving statistics above the cut begin anew; constant
    tables (index buffers) stay.

    Args:
        network: Holds the pretrained weights under the source's names.
        source: Says which block a parameter belongs to.
        depth: Cut whose blocks keep their weights, 0 for none.

    References:
        Matsoukas et al. What makes transfer learning work for medical images. CVPR 2022 (WT-ST).
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if source.block_of.get(name, 0) > depth:
                std, mean = torch.std_mean(parameter.double(), correction=0)
                parameter.copy_(torch.randn_like(parameter) * float(std) + float(mean))
    for path, module in network.named_modules():
        is_above = any(block > depth for block in own_blocks(source, path, module))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and is_above:
            module.reset_running_stats()


def reset_layers(network: nn.Module, source: Source, depth: int) -> None:
    """Initialise every layer above cut `depth` anew by its own rule, in place.

    Layers are convolutions, linear layers and norms; a slimmed layer has another fan-in than the one its random
    weights were drawn for.

    Args:
        network: Holds its parameters under the source's names.
        source: Says which block a layer belongs to.
        depth: Cut up to which nothing changes, 0 for none.
    """
    for path, module in network.named_modules():
        blocks = own_blocks(source, path, module)
        reset = getattr(module, "reset_parameters", None)
        if blocks and callable(reset) and min(blocks) > depth:
            reset()
