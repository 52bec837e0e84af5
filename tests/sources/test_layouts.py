"""Checkpoints in the layouts of their authors, and the features that their authors' networks compute.

The originals are written from the definitions of the authors' code and share nothing with the loader.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from medgraft.backbones import Backbone, BackboneSpec
from medgraft.errors import WeightsError
from medgraft.sources import open_backbone
from medgraft.sources.catalogue import SOURCES
from sources.originals.catalogue import ORIGINALS
from sources.originals.save import save
from sources.originals.value import Original

SEED = 1


def opened(original: Original, file: Path) -> Backbone:
    size = original.shape[-1] if len(original.shape) == 4 else None
    spec = BackboneSpec(name=original.network, args=original.args, weights=str(file), size=size, is_offline=True)
    return open_backbone(spec)


def features_of(network: nn.Module, where: str, x: torch.Tensor) -> torch.Tensor:
    run = getattr(network, where, None)
    if run is not None and not isinstance(run, nn.Module):
        with torch.inference_mode():
            return run(x)
    seen: list[torch.Tensor] = []
    handle = network.get_submodule(where).register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.inference_mode():
        network(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda original: original.name)
def test_features_are_those_of_the_authors(original: Original, tmp_path: Path) -> None:
    file = save(original, SEED, tmp_path)
    if original.refused:
        with pytest.raises(WeightsError):
            opened(original, file)
        return
    backbone = opened(original, file)
    x = torch.randn((2, *original.shape), generator=torch.Generator().manual_seed(SEED))
    # Weights that were shown blue first are turned when they are loaded.
    is_bgr = any(SOURCES[name].input.channels == "bgr" for name in backbone.report.names)
    assert original.features is not None
    expected = original.features(original.content(SEED), x.flip(1) if is_bgr else x)
    ours = features_of(backbone.network.eval(), original.where, x)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert backbone.report.missing == ()
    assert dataclasses.asdict(backbone.report)["layout"]
