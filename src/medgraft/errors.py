"""The tree of everything medgraft raises on purpose.

A message says what was expected, what was got (value, shape, file) and what to do. Each class is also a
builtin, so that code which knows nothing of medgraft can catch it. The command line alone turns these into
one printed line and exit code 2.
"""

__all__ = [
    "BackboneError",
    "ConfigError",
    "CutError",
    "DataError",
    "LeakError",
    "MedgraftError",
    "RunError",
    "WeightsError",
]


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
