"""Statistics of features on disk: enough for somebody else to measure a distance without the images."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medgraft.analysis.domains import FeatureStatistics
from medgraft.errors import DataError, RunError
from medgraft.files import replacing

__all__ = ["read_statistics", "write_statistics"]


def write_statistics(path: Path, statistics: Mapping[int, FeatureStatistics], network: str) -> None:
    """Write statistics of features.

    Args:
        path: Ends in ``.npz``.
        statistics: Statistics by index of the cut.
        network: Name of the network with its weights, whose features they are.

    Raises:
        RunError: The file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {"network": np.array(network)}
    for index, at_cut in statistics.items():
        arrays["num_images"] = np.array(at_cut.num_images)
        arrays |= {f"mean_{index}": at_cut.mean, f"covariance_{index}": at_cut.covariance}
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise RunError(f"could not write {path}: {error.strerror or error}. Check rights and free space.") from error


def read_statistics(path: Path, network: str) -> dict[int, FeatureStatistics]:
    """Statistics of features by index of the cut; empty where the archive holds something else.

    Args:
        path: An ``.npz`` file.
        network: Name with weights, whose features they must be.

    Raises:
        DataError: They are of another network, or the file is broken.
    """
    try:
        # Opened here: of a broken archive numpy leaves its own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if "network" not in stored:
                return {}
            if str(stored["network"]) != network:
                raise DataError(
                    f"expected statistics of the features of {network}, got those of {stored['network']}. "
                    "Make them with the same network, weights and size."
                )
            indices = [int(name.removeprefix("mean_")) for name in stored if name.startswith("mean_")]
            return {
                i: FeatureStatistics(
                    mean=stored[f"mean_{i}"], covariance=stored[f"covariance_{i}"], num_images=int(stored["num_images"])
                )
                for i in indices
            }
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"could not read {path}: {error}. Expected images or stored statistics.") from error
