"""Names in the order in which people count."""

import re
from pathlib import Path
from typing import Any

__all__ = ["natural"]


def natural(path: Path) -> tuple[Any, ...]:
    """Sort key that puts ``slice_2`` before ``slice_10``."""
    parts = re.split(r"(\d+)", path.as_posix())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
