"""The tree of everything medgraft raises on purpose.

A message says what was expected, what was got (value, shape, file) and what to do. Each class is also a
builtin, so that code which knows nothing of medgraft can catch it. The command line alone turns these into
one printed line and exit code 2.
"""

from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "BackboneError",
    "ConfigError",
    "CutError",
    "DataError",
    "LeakError",
    "MedgraftError",
    "RunError",
    "WeightsError",
    "reason_of",
]


def reason_of(error: Exception, files: Iterable[Path]) -> str:
    """The message of an error about one of `files`, without the path that it begins with.

    Args:
        error: Raised while a file was read.
        files: Those that were being read; no other path is taken away.

    Examples:
        >>> reason_of(DataError("study: A/m.png: a JPEG changes the numbers"), [Path("study: A/m.png")])
        'a JPEG changes the numbers'
    """
    message = str(error)
    for file in files:
        if message.startswith(f"{file}: "):
            return message.removeprefix(f"{file}: ")
    return message


class MedgraftError(Exception):
    """Base of all errors that medgraft raises on purpose."""


class ConfigError(MedgraftError, ValueError):
    """An option or a value in a configuration makes no sense."""


class DataError(MedgraftError, ValueError):
    """An image, a table or a cohort cannot be used as it is."""


class LeakError(DataError):
    """A given split shares patients or pixels between its parts."""


class BackboneError(MedgraftError, ValueError):
    """A network is unknown or cannot be built as asked."""


class WeightsError(MedgraftError, ValueError):
    """A weights file is unsafe, unreadable or does not fit the network."""


class CutError(MedgraftError, ValueError):
    """A network has no such cut, or cannot be cut there."""


class RunError(MedgraftError, RuntimeError):
    """A run folder cannot be written, continued or read."""
