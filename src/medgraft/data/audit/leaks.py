"""What to do when a given split shares patients or pixels between its parts."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd

from medgraft.data.audit.findings import Audit
from medgraft.errors import ConfigError, LeakError
from medgraft.types import Cohort

__all__ = ["LeakPolicy", "apply_leaks"]

LeakPolicy = Literal["stop", "drop", "allow"]


def apply_leaks(cohort: Cohort, audit: Audit, policy: LeakPolicy) -> Cohort:
    """The cohort as the policy leaves it: refused, cleaned, or untouched with a note.

    ``drop`` removes from validation what test also has, then from train what test or the remaining
    validation also has. The test split always stays whole, so that scores remain comparable with those of
    others.

    Args:
        cohort: The audited cohort.
        audit: The audit of this cohort.
        policy: ``stop``, ``drop`` or ``allow``.

    Raises:
        LeakError: There are leaks and the policy is ``stop``.
        ConfigError: Unknown policy.
    """
    if policy not in get_args(LeakPolicy):
        raise ConfigError(f"--leaks must be stop, drop or allow, got {policy!r}.")
    leaks = audit.leaks
    if not leaks:
        return cohort
    message = " ".join(finding.message for finding in leaks)
    if policy == "stop":
        raise LeakError(f"{cohort.root}: {message} Use --leaks drop to remove them from train and val, or allow.")
    if policy == "allow":
        note = f"Warning: leaks were allowed, so scores flatter the model. {message}"
        return dataclasses.replace(cohort, notes=(*cohort.notes, note))
    leaking = _leaking_rows(cohort, audit)
    lost = cohort.table["split"].iloc[leaking].value_counts()
    counts = ", ".join(f"{lost.get(split, 0)} from {split}" for split in ("train", "val"))
    keep = np.setdiff1d(np.arange(len(cohort)), leaking)
    note = f"Leaks were dropped: {counts}; the test split is whole. {message}"
    return dataclasses.replace(cohort.select(keep), notes=(*cohort.notes, note))


def _leaking_rows(cohort: Cohort, audit: Audit) -> np.ndarray:
    splits = cohort.table["split"].to_numpy(dtype=object)
    gone = np.zeros(len(cohort), dtype=bool)
    for loser, keepers in (("val", {"test"}), ("train", {"test", "val"})):
        for rows in _units(cohort, audit):
            if any(splits[row] in keepers and not gone[row] for row in rows):
                mine = [row for row in rows if splits[row] == loser]
                gone[mine] = True
    return np.flatnonzero(gone)


def _units(cohort: Cohort, audit: Audit) -> Iterator[Sequence[int]]:
    """Rows that must not be spread: each set of duplicates, each patient."""
    yield from audit.exact_duplicates
    codes = pd.factorize(cohort.table["patient"])[0]
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    for part in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        if len(part) > 1:
            yield part.tolist()
