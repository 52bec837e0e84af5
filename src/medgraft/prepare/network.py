"""From what the user asks for to a network that reads the cohort: its weights, lifted to volumes where needed."""

import dataclasses
from typing import Final, Literal

from medgraft.backbones.build import check_size, lifted
from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.backbones.spec import Backbone, BackboneSpec, Lift
from medgraft.config import BackboneConfig
from medgraft.errors import BackboneError
from medgraft.prepare.sides import typical_sides
from medgraft.sources.choose import NamedNetwork, default_network, network_of_weights
from medgraft.sources.open import open_backbone
from medgraft.types import Cohort

__all__ = ["fitted", "named_network", "network_for", "network_of", "wanted_dims"]

_USUAL_LIFT: Final[Lift] = "slices"


def network_for(config: BackboneConfig, dims: int) -> NamedNetwork:
    """The network and weights for a cohort, which decides where the user leaves them open.

    Args:
        config: What the user says of it.
        dims: Of the cohort: 2 images, 3 volumes.

    Raises:
        WeightsError: There are no such weights, or they do not tell their network.
    """
    if (named := named_network(config)) is not None:
        return named
    usual = default_network(dims, "none" if config.weights == "none" else None)
    return dataclasses.replace(usual, args={**usual.args, **config.args})


def named_network(config: BackboneConfig) -> NamedNetwork | None:
    """Which network and weights the user means; None where that is left to what the cohort is.

    Args:
        config: What the user says of it.

    Raises:
        WeightsError: There are no such weights, or they do not tell their network.
    """
    if config.name is not None:
        return NamedNetwork(name=config.name, args=config.args, weights=config.weights or "hub")
    if config.weights == "packaged":
        return NamedNetwork(name=PACKAGED_NAME, args=config.args, weights="packaged")
    if config.weights not in (None, "none", "hub"):
        named = network_of_weights(config.weights)
        return dataclasses.replace(named, args={**named.args, **config.args})
    return None


def network_of(config: BackboneConfig, named: NamedNetwork, *, seed: int, is_offline: bool) -> Backbone:
    """The network with its weights, as it is published; `fitted` makes it read volumes.

    Args:
        config: Size, mean and deviation.
        named: The network and its weights.
        seed: Seeds weights that are random.
        is_offline: Forbid any attempt to reach a hub.

    Raises:
        BackboneError: There is no such network, or it takes neither one nor three channels.
        WeightsError: The weights cannot be read or do not fit.
    """
    spec = BackboneSpec(
        name=named.name,
        args=named.args,
        weights=named.weights,
        size=config.size if config.size is not None else named.size,
        mean=config.mean,
        std=config.std,
        input=config.input,
        proof=config.proof,
        is_offline=is_offline,
        seed=seed,
    )
    backbone = open_backbone(spec, named.located)
    if backbone.in_channels not in (1, 3):
        raise BackboneError(f"expected a network for 1 or 3 channels, got {backbone.in_channels}.")
    return backbone


def wanted_dims(lift: str, backbone: Backbone | None) -> Literal["auto", 2, 3]:
    """What a cohort has to be for this network: volumes where it reads them or is told to, else whatever it is.

    Args:
        lift: ``auto`` or a key of `medgraft.backbones.spec.LIFTS`.
        backbone: The network; None for one that is chosen by what the cohort is, and reads images.
    """
    return 3 if (backbone is not None and backbone.dims == 3) or lift not in ("auto", "none") else "auto"


def fitted(backbone: Backbone, cohort: Cohort, lift: "Lift | Literal['auto']") -> tuple[Backbone, tuple[int, ...]]:
    """The network as it reads `cohort`, lifted where needed, and the sides of its input in px or voxels.

    Args:
        backbone: The network.
        cohort: What it shall read.
        lift: ``auto`` or a key of `medgraft.backbones.spec.LIFTS`.

    Raises:
        BackboneError: It cannot read volumes, or may not be made to; or it reads nothing else.
        ConfigError: The size asked for has other axes than the network reads.
    """
    if cohort.dims < backbone.dims:
        raise BackboneError(
            f"expected a network for images, got {backbone.spec.name}, which reads volumes. Choose another --backbone, "
            "or --set data.dims=3 where the files are slices of volumes."
        )
    if cohort.dims > backbone.dims:
        if lift == "none":
            raise BackboneError(
                f"{backbone.spec.name} reads images and the cohort is volumes. Use another --lift (acs, i3d …), or a "
                "network for volumes such as monai/resnet10."
            )
        usual: Lift = "acs" if cohort.task == "segmentation" else _USUAL_LIFT
        backbone = lifted(backbone, usual if lift == "auto" else lift)
    check_size(backbone)
    return backbone, backbone.sides or typical_sides(cohort)
