"""Whether files of one kind lie on another intensity scale than the rest: what a model would learn instead."""

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from medgraft.data.audit.findings import Finding, finding_of
from medgraft.data.decoded.images import DecodedCohort
from medgraft.types import Cohort

__all__ = ["KIND", "scale_findings"]

KIND: Final = "intensity-scales"
_MIN_FILES: Final = 5
"""Files of a kind, and of the rest: of fewer nothing can be said."""
_APART: Final = 0.95
"""Share of pairs across two groups that are ordered alike, from which the groups are taken to be apart."""
_RATIO: Final = 2.0
"""How many times brighter a group is, from which it is taken to be on another scale and not another protocol."""
_MIDDLE: Final = 0.4
"""How much of its range the middle pixel of a group lies higher: about what a negative shows."""
_TWELVE_BITS: Final = 4095
_SHOWN: Final = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Apart:
    """A group of files that lies apart from the rest.

    Args:
        words: What the group has in common.
        rows: (N,) bool, its files.
        told: How it differs.
        size: How much, to choose the strongest.
    """

    words: str
    rows: np.ndarray
    told: str
    size: float


def scale_findings(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    """A warning where files of one device, depth, site or kind are brighter, darker or negative as a group.

    Args:
        cohort: The readable images.
        decoded: Their cache.
    """
    apart = [found for words, rows in _groups(cohort, decoded) if (found := _compared(decoded, words, rows))]
    if not apart:
        return []
    worst = max(apart, key=lambda found: found.size)
    inside, outside = np.flatnonzero(worst.rows), np.flatnonzero(~worst.rows)
    message = (
        f"Two groups of {cohort.noun} lie on different intensity scales: {len(inside)} {worst.words} are {worst.told} "
        f"the other {len(outside)}. A model learns the group. Store all alike, or scale each by its own values: "
        "--set data.scaling=percentile (DICOM)."
    )
    rows = [*inside[:_SHOWN], *outside[:_SHOWN]]
    return [finding_of(cohort, KIND, "warn", message, len(inside), rows)]


def _groups(cohort: Cohort, decoded: DecodedCohort) -> Iterator[tuple[str, np.ndarray]]:
    """Groups of files by what they have in common, each as words and rows; of two groups one."""
    facts = decoded.facts
    causes = {
        "of the device {}": pd.Series([name.decode(errors="replace") for name in facts["device"]], dtype=object),
        "of {} bits": pd.Series(facts["stored_bits"].astype(int)),
        "of the site {}": cohort.table["site"].reset_index(drop=True),
        "of the modality {}": pd.Series([name.decode(errors="replace") for name in facts["modality"]], dtype=object),
        "stored as {}": pd.Series([name.decode(errors="replace") for name in facts["mode"]], dtype=object),
    }
    for words, values in causes.items():
        names = [name for name in values.dropna().unique() if name not in ("", None)]
        for name in names[:-1] if len(names) == 2 else names[: 1 if len(names) < 2 else None]:
            rows = (values == name).to_numpy()
            if not rows.all():
                yield words.format(name), rows
    # Nothing but the numbers tells 12 bits in 16, once a device's files have become pictures.
    is_deep = (facts["bits"] == 16) & (facts["modality"] == b"")
    small = is_deep & (facts["high"] <= _TWELVE_BITS)
    large = is_deep & (facts["high"] > _TWELVE_BITS)
    if small.any() and large.any() and facts["high"][large].min() >= _RATIO * facts["high"][small].max():
        yield f"whose numbers end at {facts['high'][small].max()}", small


def _compared(decoded: DecodedCohort, words: str, rows: np.ndarray) -> _Apart | None:
    """How a group differs from the rest; None where it does not.

    Args:
        decoded: The cache of the images.
        words: What the group has in common.
        rows: (N,) bool, its files.
    """
    if min(rows.sum(), (~rows).sum()) < _MIN_FILES:
        return None
    low, middle, high = decoded.facts["quantiles"].astype(np.float64).T
    first, second = np.median(high[rows]), np.median(high[~rows])
    ratio = max(first, second) / max(min(first, second), 1.0)
    if ratio >= _RATIO and _separation(high[rows], high[~rows]) >= _APART:
        return _Apart(
            words=words,
            rows=rows,
            told=f"{ratio:.1f} times {'brighter' if first > second else 'darker'} than",
            size=ratio,
        )
    place = (middle - low) / np.maximum(high - low, 1.0)
    shift = float(np.median(place[rows]) - np.median(place[~rows]))
    if abs(shift) >= _MIDDLE and _separation(place[rows], place[~rows]) >= _APART:
        return _Apart(words=words, rows=rows, told="(by their middle) like negatives of", size=1 + abs(shift))
    return None


def _separation(first: np.ndarray, second: np.ndarray) -> float:
    """Share of pairs in which the one group is above the other, whichever is more often; ties count half."""
    ranks = pd.Series(np.concatenate([first, second])).rank().to_numpy()[: len(first)]
    above = (ranks.sum() - len(first) * (len(first) + 1) / 2) / (len(first) * len(second))
    return float(max(above, 1 - above))
