"""How far images lie from those whose statistics a network remembers in its batch normalisation."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from medgraft.train.batches import ImageSet, iterate
from medgraft.transfer.blocks import own_blocks
from medgraft.transfer.model import Normalise
from medgraft.transfer.source import Source

__all__ = ["domain_distance"]

_SAMPLE: Final = 256


def domain_distance(source: Source, train: ImageSet) -> float | None:
    """How far the cohort lies from the source, in standard deviations of the source's own channels.

    Batch normalisation remembers mean and variance of every channel over the source's images. The cohort's training
    images give their own; the distance is that of two Gaussians (2-Wasserstein), per channel, divided by the source's
    deviation, averaged over channels and layers up to the last pretrained cut. None where nothing is remembered
    (transformers, random weights).

    Args:
        source: The pretrained network.
        train: Images; a sample of them is looked at.
    """
    if source.backbone.report.source == "none":
        return None
    network = source.backbone.network.eval()
    pretrained = {cut.index for cut in source.cuts if cut.is_pretrained}
    layers = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and pretrained.issuperset(own_blocks(source, path, module))
    }
    backbone = source.backbone
    normalise = Normalise(backbone.in_channels, backbone.normalisation, backbone.mean, backbone.std)
    sums: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].float().transpose(0, 1).flatten(1)
            sums.setdefault(name, []).append(
                torch.stack([x.sum(1), x.square().sum(1), torch.full_like(x[:, 0], x.shape[1])])
            )

        return hook

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in layers.items()]
    try:
        rows = np.random.default_rng(0).permutation(len(train))[:_SAMPLE]
        with torch.inference_mode():
            for images, _, _ in iterate(train, rows, 32, torch.device("cpu")):
                network(normalise(images))
    finally:
        for handle in handles:
            handle.remove()
    gaps = [_gap(layers[name], parts) for name, parts in sums.items()]
    return float(np.mean(gaps)) if gaps else None


def _gap(layer: "nn.modules.batchnorm._BatchNorm", parts: Sequence[Tensor]) -> float:
    """Distance between what a layer sees and what it remembers, mean over its channels, in deviations of the latter.

    Args:
        layer: Batch normalisation.
        parts: (3, C) sum, sum of squares and count of each channel, one for each batch.
    """
    # Batches are summed, not averaged: the last one may be smaller.
    total, squares, count = torch.stack(tuple(parts)).double().sum(0)
    mean, square = (total / count).float(), (squares / count).float()
    spread = (square - mean.square()).clamp_min(0).sqrt()
    remembered = dict(layer.named_buffers())
    source_spread = (remembered["running_var"] + layer.eps).sqrt()
    gap = ((mean - remembered["running_mean"]).square() + (spread - source_spread).square()).sqrt() / source_spread
    return float(gap.mean())
