"""Pages without their figures, which would be most of the time of a small run."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def left_out() -> Iterator[None]:
    """Inside, pages show an empty picture in the place of every figure."""
    pages = [room for name, room in sys.modules.items() if re.fullmatch(r"medgraft\.report\.(\w+_)?page", name)]
    with pytest.MonkeyPatch.context() as patch:
        for room in pages:
            for name in [name for name in vars(room) if name.endswith("_figure")]:
                patch.setattr(room, name, lambda *_, **__: "<svg></svg>")
        yield
