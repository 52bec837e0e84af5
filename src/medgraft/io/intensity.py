"""Real values to 16-bit integers: windows, ranges, percentiles, z-scores; one rule for training and prediction."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from medgraft.errors import ConfigError, DataError

__all__ = ["CT_WINDOWS", "FULL_SCALE", "Scaling", "ct_windows", "ends_of", "through_window", "to_sixteen_bits"]

Scaling = Literal["range", "percentile", "z-score"]
FULL_SCALE: Final = 65535
CT_WINDOWS: Final[dict[str, tuple[float, float]]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (40.0, 400.0),
    "bone": (400.0, 1800.0),
    "pe": (100.0, 700.0),
    "brain": (40.0, 80.0),
    "abdomen": (60.0, 400.0),
}
"""Centre and width of each window in Hounsfield units."""
_PERCENTILES: Final = (0.5, 99.5)
_DEVIATIONS: Final = 5.0
_ENOUGH: Final = 2**24
_BLOCK: Final = 2**22


def ct_windows(names: Sequence[str]) -> tuple[tuple[float, float], ...]:
    """Centre and width, HU, of each name.

    Raises:
        ConfigError: There is no such window.

    Examples:
        >>> ct_windows(["lung"])
        ((-600.0, 1500.0),)
    """
    for name in names:
        if name not in CT_WINDOWS:
            raise ConfigError(f"expected windows among file, none, {', '.join(CT_WINDOWS)}, got {name!r}.")
    return tuple(CT_WINDOWS[name] for name in names)


def ends_of(values: np.ndarray, low: float, high: float, scaling: Scaling) -> tuple[float, float]:
    """What becomes 0 and what 65535.

    Args:
        values: Finite numbers of any shape, at least one.
        low: The lower end where `scaling` is ``range``.
        high: The upper end there.
        scaling: ``range`` (between `low` and `high`), ``percentile`` (between the 0.5th and the 99.5th of these values)
            or ``z-score`` (five standard deviations either side of their mean).

    Examples:
        >>> ends_of(np.array([2.0, 4.0]), 0, 100, "z-score")
        (-2.0, 8.0)
    """
    if scaling == "percentile":
        # Every so-many-th voxel of a large volume tells as much.
        some = values.reshape(-1)[:: max(1, values.size // _ENOUGH)]
        low, high = (float(value) for value in np.percentile(some, _PERCENTILES))
    elif scaling == "z-score":
        middle, reach = float(values.mean(dtype=np.float64)), _DEVIATIONS * float(values.std(dtype=np.float64))
        low, high = middle - reach, middle + reach
    return low, high


def to_sixteen_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Integers 0 to 65535 of `values`; what lies outside is clipped.

    Args:
        values: Finite numbers of any shape.
        low: What becomes 0.
        high: What becomes 65535.

    Examples:
        >>> to_sixteen_bits(np.array([0.0, 50.0, 100.0]), 0, 100).tolist()
        [0, 32768, 65535]
    """
    integers = np.zeros(values.shape, dtype=np.uint16)
    if not high > low:
        return integers  # a constant image has no contrast to keep
    step = max(1, _BLOCK * len(values) // max(1, values.size))
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        shares = (values[part].astype(np.float64) - low) / (high - low)
        integers[part] = np.rint(shares.clip(0, 1) * FULL_SCALE)
    return integers


def through_window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """`values` through a window, 0 to 1, float64.

    Args:
        values: Numbers of any shape, in the unit of the window.
        centre: Centre of the window.
        width: Width of the window, above 0; below 1 LINEAR is taken as LINEAR_EXACT.
        function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.

    Raises:
        DataError: The width is not above 0, or there is no such function.

    References:
        DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.

    Examples:
        >>> through_window(np.array([-160.0, 39.5, 240.0]), 40, 400).tolist()
        [0.0, 0.5, 1.0]
    """
    if not width > 0:
        raise DataError(f"expected a window width above 0, got {width:g}. Read it with --set data.windows=none.")
    if function == "LINEAR" and width < 1:
        # Below 1 LINEAR has no meaning; values on so small a scale (an ADC map) mean the exact one.
        function = "LINEAR_EXACT"
    shifted = values.astype(np.float64) - centre
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * shifted / width, -700, 700))))
    if function == "LINEAR_EXACT":
        return np.asarray((shifted / width + 0.5).clip(0, 1))
    if function != "LINEAR":
        raise DataError(
            f"expected VOILUTFunction LINEAR, LINEAR_EXACT or SIGMOID, got {function!r}. "
            "Read it with --set data.windows=none."
        )
    if width == 1:
        return np.asarray(shifted > -0.5, dtype=np.float64)
    return np.asarray(((shifted + 0.5) / (width - 1) + 0.5).clip(0, 1))
