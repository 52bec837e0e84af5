"""The machine a run is on: where its own things are kept."""

import os
import sys
from pathlib import Path

__all__ = ["home"]


def home() -> Path:
    """Where medgraft keeps what belongs to the machine, not to a run: ``MEDGRAFT_HOME``, else the data folder."""
    named = os.environ.get("MEDGRAFT_HOME")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "medgraft"
