"""What every function of this room takes: rows of finite numbers, in float64."""

import numpy as np

from medgraft.errors import DataError

__all__ = ["finite_rows"]


def finite_rows(features: np.ndarray, layer: str = "the features") -> np.ndarray:
    """`features` as (N, d) float64.

    Args:
        features: One row per image.
        layer: Name of the layer, for the error.

    Raises:
        DataError: Another shape, NaN or infinity.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2:
        raise DataError(f"expected features of shape (N, d) at {layer}, got {x.shape}.")
    if not np.isfinite(x).all():
        raise DataError(f"expected finite activations at {layer}, got NaN or infinity. Check the weights.")
    return x
