"""One ``.npy`` file to its numbers, mapped and not loaded."""

import tokenize
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.errors import DataError

__all__ = ["read_array"]

# NumPy reads the header of an array as Python.
_BROKEN: Final = (OSError, ValueError, EOFError, TypeError, SyntaxError, OverflowError, tokenize.TokenError)


def read_array(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, memory-mapped and read-only.

    Raises:
        DataError: It cannot be read, or holds Python objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except _BROKEN as error:
        raise DataError(f"{path}: damaged or not readable as an array ({error}). Fetch it again.") from error
