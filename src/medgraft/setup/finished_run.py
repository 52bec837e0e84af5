"""A finished run that another job goes on with: its settings on this machine, its images, a run to set beside it."""

from pathlib import Path

from medgraft.config import RunConfig, read_config
from medgraft.data.split import write_splits
from medgraft.deploy.artefact import LoadedModel, load_artefact
from medgraft.errors import RunError
from medgraft.prepare.material import Material
from medgraft.result.run import read_result

__all__ = ["config_of_run", "demand_same_split", "second_run"]


def config_of_run(folder: Path, cache: str | None = None) -> RunConfig:
    """Settings of a finished run on one division, whose data are read on this machine.

    Args:
        folder: The run.
        cache: Folder of the store of decoded images; None for the machine's own.

    Raises:
        RunError: It is no finished run, one in folds, or of another version.
    """
    if not (folder / "results.json").is_file():
        raise RunError(
            f"expected the folder of a finished `medgraft fit`, got {folder} without results.json. "
            "For a cohort give --out."
        )
    read_result(folder)  # refuses what another version wrote
    config = read_config(folder / "config.yaml") if (folder / "config.yaml").is_file() else None
    if config is None or config.data.folds > 1:
        what = "a fold, or a part of a run" if config is None else f"{config.data.folds} folds"
        raise RunError(f"expected a whole run on one division, got {what} in {folder}. Fit without --folds for that.")
    # Where decoded images lay when it was made says nothing about this machine.
    return config.model_copy(update={"data": config.data.model_copy(update={"cache": cache})})


def demand_same_split(folder: Path, material: Material, temporary: Path) -> None:
    """Refuse images or a split that the run was not made with.

    Args:
        folder: The run's folder.
        material: Cohort as it is read now.
        temporary: Folder that takes its table of splits.

    Raises:
        RunError: They are others.
    """
    digest = write_splits(material.dataset.cohort, material.dataset.groups, temporary / "splits.csv")
    if digest != read_result(folder).splits.sha256:
        raise RunError(
            f"expected the images and the split that the run in {folder} was made with, got others. "
            "Restore the data, or run fit again."
        )


def second_run(folder: Path, config: RunConfig, other: Path) -> tuple[str, LoadedModel]:
    """Name and fully fine-tuned network of the other run, which must be one of the same images and architecture.

    Args:
        folder: The run's folder.
        config: Settings of the run.
        other: Folder of the other run.

    Raises:
        RunError: It is of other images or another network.
    """
    second = config_of_run(other)
    if read_result(folder).splits.sha256 != read_result(other).splits.sha256:
        raise RunError(
            f"expected two runs on the same images and split, got others in {other}. Fit both on one cohort."
        )
    same = ("name", "args", "size", "lift")
    if any(getattr(config.backbone, key) != getattr(second.backbone, key) for key in same):
        raise RunError(
            f"expected two runs of one network, got {config.backbone.name} and {second.backbone.name} (name, "
            "arguments, size or lift differ). Compare runs of one architecture."
        )
    return other.name, load_artefact(other / "baseline")
