"""From what the user asks for to a network that reads the cohort: its weights, lifted to volumes where needed."""

from typing import Final, Literal

from medgraft.backbones.build import build_backbone, check_size, lifted
from medgraft.backbones.spec import Backbone, BackboneSpec, Lift
from medgraft.config import BackboneConfig
from medgraft.errors import BackboneError
from medgraft.prepare.sides import typical_sides
from medgraft.types import Cohort

__all__ = ["fitted", "network_of", "wanted_dims"]

_USUAL_LIFT: Final[Lift] = "slices"


def network_of(config: BackboneConfig, *, seed: int, is_offline: bool) -> Backbone:
    """The network with its weights, as it is published; `fitted` makes it read volumes.

    Args:
        config: Which network.
        seed: Seeds weights that are random.
        is_offline: Forbid any attempt to reach a hub.

    Raises:
        BackboneError: There is no such network, or it takes neither one nor three channels.
        WeightsError: The weights cannot be read or do not fit.
    """
    spec = BackboneSpec(
        name=config.name,
        args=config.args,
        weights=config.weights,
        size=config.size,
        mean=config.mean,
        std=config.std,
        is_offline=is_offline,
        seed=seed,
    )
    backbone = build_backbone(spec)
    if backbone.in_channels not in (1, 3):
        raise BackboneError(f"expected a network for 1 or 3 channels, got {backbone.in_channels}.")
    return backbone


def wanted_dims(lift: str, backbone: Backbone) -> Literal["auto", 2, 3]:
    """What a cohort has to be for this network: volumes where it reads them or is told to, else whatever it is.

    Args:
        lift: ``auto`` or a key of `medgraft.backbones.spec.LIFTS`.
        backbone: The network.
    """
    return 3 if backbone.dims == 3 or lift not in ("auto", "none") else "auto"


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
