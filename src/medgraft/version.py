"""Which program this is, and what its numbers depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["__version__", "installed_versions"]

__version__ = "0.1.0"

_PACKAGES: Final = ("torch", "torchvision", "timm", "monai", "numpy", "scikit-learn", "pillow", "safetensors")


def installed_versions() -> dict[str, str]:
    """Version by name of this program, of Python, and of the libraries that decide its numbers.

    Examples:
        >>> installed_versions()["medgraft"] == __version__
        True
    """
    versions = {"medgraft": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions
