"""The audit alone: is this cohort fit to learn from?"""

import tempfile
from pathlib import Path

from medgraft.config import DataConfig
from medgraft.data.findings import Audit
from medgraft.data.groups import groups_of
from medgraft.data.split import split_cohort
from medgraft.run.prepare import Listener, audited, open_cohort
from medgraft.types import Cohort

__all__ = ["check"]

_SIDES = {2: (64, 64), 3: (32, 64, 64)}


def check(config: DataConfig, *, seed: int = 0, listener: Listener | None = None) -> tuple[Audit, Cohort]:
    """The audit of a cohort and the cohort as `fit` would divide it; nothing is kept on disk.

    Args:
        config: Where the cohort is.
        seed: Of the split.
        listener: Told what is found.

    Raises:
        DataError: The cohort cannot be used at all.
    """
    told = listener or Listener()
    cohort = open_cohort(config, told)
    with tempfile.TemporaryDirectory(prefix="medgraft-check-") as folder:
        readable, _, audit = audited(cohort, Path(folder), config, _SIDES[cohort.dims], None, told)
    groups = groups_of(readable, audit.exact_duplicates, audit.near_duplicates)
    divided = split_cohort(readable, groups, seed)
    for note in divided.notes[len(readable.notes) :]:
        told.say(note)
    return audit, divided
