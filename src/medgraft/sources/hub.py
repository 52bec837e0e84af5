"""Weights by what their network is called where they are published: a hub, a server, this package."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final

from torch import nn

from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.monai_models import MONAI_NAMES, medicalnet_file
from medgraft.backbones.packaged import PACKAGED_NAME, packaged_manifest, packaged_state, packaged_weights
from medgraft.backbones.spec import Backbone
from medgraft.backbones.timm_models import build_timm_from_hub, is_timm_name
from medgraft.backbones.torchvision_models import IMAGE_NAMES, VIDEO_NAMES, licence_of, published_file
from medgraft.errors import BackboneError, WeightsError
from medgraft.sources.load import fill_backbone
from medgraft.sources.weights_file import sha256_of

__all__ = ["published_weights"]

_FILES: Final[tuple[tuple[tuple[str, ...], Callable[..., tuple[Path, str]]], ...]] = (
    (MONAI_NAMES, medicalnet_file),
    (VIDEO_NAMES, published_file),
    (IMAGE_NAMES, published_file),
)
"""Networks whose published weights are a file, and who fetches it."""


def published_weights(backbone: Backbone) -> tuple[nn.Module, LoadReport]:
    """The network with the weights that belong to its name, and what loading them did.

    Args:
        backbone: Built with random weights; its specification asks for ``hub`` or ``packaged``.

    Raises:
        BackboneError: The arguments change what the weights were made for.
        WeightsError: There are none, or they cannot be reached.
    """
    spec, network = backbone.spec, backbone.network
    if spec.name == PACKAGED_NAME:
        return network, _load_packaged(network)
    if spec.weights == "packaged":
        raise WeightsError(f"expected --weights hub, none, NAME or PATH for {spec.name}, got 'packaged'.")
    for names, file_of in _FILES:
        if spec.name in names:
            file, source = file_of(spec.name, is_offline=spec.is_offline)
            report = fill_backbone(backbone, file)
            licence = licence_of(spec.name) if spec.name in IMAGE_NAMES else report.licence
            return network, dataclasses.replace(report, source=source, licence=licence)
    if not is_timm_name(spec.name):
        raise WeightsError(
            f"expected --weights NAME, PATH or none for {spec.name}, got 'hub': no hub knows its weights."
        )
    if spec.args.get("in_chans", 3) != 3:
        raise BackboneError(
            f"expected published weights to keep their three channels, got in_chans={spec.args['in_chans']}: timm "
            "would sum their filters. Leave in_chans out; a grey channel is replicated, which is exact."
        )
    side = spec.size if isinstance(spec.size, int) else None
    return build_timm_from_hub(spec.name, spec.args, side, is_offline=spec.is_offline)


def _load_packaged(network: nn.Module) -> LoadReport:
    state = packaged_state()
    network.load_state_dict(state)
    return LoadReport(
        source="packaged",
        licence=str(packaged_manifest()["licence"]),
        sha256=sha256_of(packaged_weights()),
        matched=sum(not name.endswith("num_batches_tracked") for name in state),
        matched_fraction=1.0,
    )
