"""The audit alone: is this cohort fit to learn from?"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medgraft.config import DataConfig
from medgraft.data.audit.findings import Audit
from medgraft.data.cohort.marked import with_truth
from medgraft.data.split import split_cohort
from medgraft.listener import Listener
from medgraft.metrics.overlap import dice, overlap_counts, pooled_dice
from medgraft.prepare.cohort import audited, open_cohort
from medgraft.types import Cohort

__all__ = ["check"]

_SIDES = {2: (64, 64), 3: (32, 64, 64)}


def check(config: DataConfig, *, seed: int = 0, listener: Listener | None = None) -> tuple[Audit, Cohort]:
    """The audit of a cohort and the cohort as `fit` would divide it; nothing is kept on disk.

    Args:
        config: Where the cohort is.
        seed: Seeds the split.
        listener: Told what is found.

    Raises:
        DataError: The cohort cannot be used at all.
    """
    listener = listener or Listener()
    cohort = open_cohort(config, listener)
    with tempfile.TemporaryDirectory(prefix="medgraft-check-") as folder:
        looked = audited(cohort, config, _SIDES[cohort.dims], None, listener, folder=Path(folder))
    for words in _agreement(looked.cohort):
        listener.say(words)
    divided = split_cohort(looked.cohort, looked.groups, seed)
    for note in divided.notes_since(looked.cohort):
        listener.say(note)
    return looked.audit, divided


def _agreement(cohort: Cohort) -> Iterator[str]:
    """How well other observers' masks agree with the truth: what a model can at most be expected to reach."""
    for observer in cohort.observers:
        counts, reason = [], ""
        for row in range(len(cohort)):
            both = with_truth(cohort, observer, row)
            if isinstance(both, str):
                reason = both
            elif both is not None:
                counts.append(overlap_counts(*both, len(cohort.classes)))
        if counts:
            cases = np.stack(counts)
            per_class = ", ".join(
                f"{name} {mean:.3f} (pooled {pooled:.3f})"
                for name, mean, pooled in zip(cohort.classes, dice(cases).mean(0), pooled_dice(cases), strict=True)
            )
            yield f"{observer} against the truth, mean Dice of {len(cases)} images: {per_class}."
        if reason:
            yield f"Masks of {observer} that cannot be compared were left out, e.g.: {reason}"
