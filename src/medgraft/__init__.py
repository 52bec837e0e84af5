"""medgraft: find how much of a pretrained network a medical task needs, keep that, prove it."""

from typing import TYPE_CHECKING, Any

from medgraft.machine import bound_spinning
from medgraft.version import __version__

if TYPE_CHECKING:
    from medgraft.api import TransferClassifier, cut_points, fit, load, predict, segment, truncate

# Before torch is loaded, or it has no effect.
bound_spinning()

__all__ = ["TransferClassifier", "__version__", "cut_points", "fit", "load", "predict", "segment", "truncate"]


def __getattr__(name: str) -> Any:
    # Torch and its friends take seconds to import; they load when something is used.
    if name in __all__:
        from medgraft import api

        return getattr(api, name)
    raise AttributeError(f"module 'medgraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
