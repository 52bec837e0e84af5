"""A user's own network: `package.module:callable` or `file.py:callable`."""

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from torch import nn

from medgraft.errors import BackboneError

__all__ = ["build_own", "dims_of", "first_channels", "is_own_name", "source_file"]

_SHOWN: Final = 10


def is_own_name(name: str) -> bool:
    """Whether `name` has the form ``module:callable`` or ``file.py:callable``."""
    return ":" in name


def build_own(name: str, args: dict[str, Any]) -> nn.Module:
    """The network that the named callable returns.

    Args:
        name: ``package.module:callable`` or ``path/file.py:callable``.
        args: Passed on as keywords.

    Raises:
        BackboneError: No such module, file or callable; or it returns no `torch.nn.Module`.
    """
    source, _, attribute = name.rpartition(":")
    module = _load_file(Path(source)) if source.endswith(".py") else _import(source)
    function: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(function):
        names = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        near = difflib.get_close_matches(attribute, names, n=_SHOWN, cutoff=0.3) or names[:_SHOWN]
        raise BackboneError(
            f"expected a callable {attribute!r} in {source}, got none. Nearest of its {len(names)}: {', '.join(near)}."
        )
    try:
        network = function(**args)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise BackboneError(
            f"expected {name} to take {args}, got {type(error).__name__}: {reason}. See --backbone-arg."
        ) from error
    if not isinstance(network, nn.Module):
        raise BackboneError(f"expected {name} to return a torch.nn.Module, got {type(network).__name__}.")
    return network


def source_file(name: str) -> Path | None:
    """The file behind ``file.py:callable``, so that an artefact can carry it; None for installed modules."""
    source = name.rpartition(":")[0]
    return Path(source) if source.endswith(".py") else None


def first_channels(network: nn.Module) -> int:
    """Input channels of the first convolution, else 3."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return int(module.in_channels)
    return 3


def dims_of(network: nn.Module) -> Literal[2, 3]:
    """3 for a network whose first convolution reads volumes, else 2."""
    kinds = (type(module) for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)))
    return 3 if issubclass(next(kinds, nn.Conv2d), nn.Conv3d) else 2


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BackboneError(f"expected a Python file at {path}, got nothing. Give FILE.py:CALLABLE.")
    tag = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"medgraft_own_{path.stem}_{tag}", path)
    if spec is None or spec.loader is None:
        raise BackboneError(f"expected a Python file at {path}, got one that cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # classes find their module by name
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise BackboneError(
            f"expected importable Python in {path}, got {type(error).__name__}: {error}. Correct the file."
        ) from error
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, ValueError, TypeError) as error:  # TypeError: a relative name
        raise BackboneError(
            f"expected an importable module, got {name!r}: {error}. For a file write FILE.py:CALLABLE."
        ) from error
