"""What a run begins with stays: its data, and the network that was chosen where the user named none."""

from pathlib import Path
from typing import Final

from medgraft.config import RunConfig, read_config, to_yaml
from medgraft.files import write_text
from medgraft.prepare.material import Material, digest_of
from medgraft.setup.folder import demand_same_data

__all__ = ["as_begun", "begin"]

_OPEN: Final = ("name", "weights")
_KEPT: Final = (*_OPEN, "args", "size")


def as_begun(folder: Path, config: RunConfig) -> RunConfig:
    """The settings with the network that the run in `folder` was begun with, where the user leaves that open.

    What is installed in the meantime changes what a new run takes, not how an old one goes on.

    Args:
        folder: Folder of the run, which may be new.
        config: As the user gave it.

    Raises:
        RunError: The settings in the folder are damaged, or of another version.
    """
    path = folder / "config.yaml"
    if not path.is_file() or all(getattr(config.backbone, key) is not None for key in _OPEN):
        return config
    before = read_config(path).backbone
    given = {key: value for key in _KEPT if (value := getattr(config.backbone, key))}
    backbone = before.model_copy(update=given)
    kept = {key: getattr(backbone, key) for key in _KEPT}
    return config.model_copy(update={"backbone": config.backbone.model_copy(update=kept)})


def begin(folder: Path, config: RunConfig, material: Material) -> RunConfig:
    """The settings with the network that is used, which the folder keeps.

    Args:
        folder: Folder of the run.
        config: As the user gave it.
        material: What the run works with.

    Raises:
        RunError: The run was begun with other data.
    """
    demand_same_data(folder, digest_of(material))
    spec = material.source.backbone.spec
    used = {"name": spec.name, "args": spec.args, "weights": spec.weights, "size": spec.size}
    settled = config.model_copy(update={"backbone": config.backbone.model_copy(update=used)})
    if settled != config:
        write_text(folder / "config.yaml", to_yaml(settled))
    return settled
