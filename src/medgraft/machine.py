"""The machine a run is on: where its own things are kept, how its threads wait, and who else uses it."""

import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["bound_spinning", "busy_cores", "home"]

_SPINS: Final = 10_000
_LOOKED_SECONDS: Final = 0.3


def bound_spinning() -> None:
    """Let threads that wait for each other sleep soon; called before torch is loaded, later it changes nothing.

    GNU's OpenMP, which torch brings, spins for billions of rounds by default. That costs nothing on an idle machine;
    beside other processes the threads take the time from each other, and a training on two cores ran 70 times slower.
    Ten thousand rounds keep the idle speed to a few percent, and beside others about the speed of one thread
    (`benchmarks/busy_machine.py`). What the user has set stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)


def busy_cores() -> float:
    """How many cores other work keeps busy, from a look of a third of a second during which this thread sleeps."""
    import psutil

    share = psutil.cpu_percent(interval=_LOOKED_SECONDS) / 100
    return float(share * (psutil.cpu_count() or 1))


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
