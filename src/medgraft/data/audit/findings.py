"""What an audit hands on."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

from medgraft.types import SPLITS, Cohort

__all__ = [
    "Audit",
    "Finding",
    "NearPair",
    "between",
    "finding_of",
    "MAX_ROWS",
    "Topic",
]

MAX_ROWS: Final = 200
"""Most rows and paths a finding lists; its message counts all."""
Topic = Literal["leak", "near-duplicate", "conflict", "confounding", "doubtful-mask", "lost-mask"]
TOPICS: Final[dict[str, Topic]] = {
    "duplicate-across-splits": "leak",
    "patient-across-splits": "leak",
    "near-duplicate": "near-duplicate",
    "duplicate-label-conflict": "conflict",
    "site-confounding": "confounding",
    "size-confounding": "confounding",
    "spacing-confounding": "confounding",
    "device-confounding": "confounding",
    "intensity-scales": "confounding",
    "mask-affine": "doubtful-mask",
    "mask-shift": "doubtful-mask",
    "mask-label": "doubtful-mask",
    "mask-unreadable": "lost-mask",
    "mask-size": "lost-mask",
}
"""What kinds of findings are about, as far as somebody acts on it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know about a cohort.

    Args:
        kind: A stable word, e.g. ``duplicate-across-splits``.
        severity: ``stop`` (results would be wrong), ``warn`` (look at it) or ``info``.
        message: One sentence with counts.
        count: How many images, pairs, patients or labels it concerns.
        rows: Rows of the audited cohort, at most 200; two by two for near-duplicates.
        paths: Their paths, or those of files that have no row.
    """

    kind: str
    severity: Literal["stop", "warn", "info"]
    message: str
    count: int
    rows: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def topic(self) -> Topic | None:
        """What it is about, by `TOPICS`."""
        return TOPICS.get(self.kind)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NearPair:
    """Two rows that are nearly the same picture, and the correlation of their detail."""

    first: int
    second: int
    detail: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Everything found; rows are those of the audited cohort.

    Args:
        findings: Most severe first.
        exact_duplicates: Sets of rows with equal pixels.
        near_duplicates: Confirmed pairs, most alike first.
        num_images: Images that were audited.
        num_broken: Files that could not be read.
    """

    findings: tuple[Finding, ...]
    exact_duplicates: tuple[tuple[int, ...], ...]
    near_duplicates: tuple[NearPair, ...]
    num_images: int
    num_broken: int

    def of(self, kind: str) -> Finding | None:
        """The finding of one kind, or None."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Whatever a given split shares between its parts."""
        return tuple(finding for finding in self.findings if finding.topic == "leak")

    @property
    def has_leaks(self) -> bool:
        """Whether a given split shares patients or pixels between its parts."""
        return bool(self.leaks)


def finding_of(
    cohort: Cohort,
    kind: str,
    severity: Literal["stop", "warn", "info"],
    message: str,
    count: int,
    rows: Iterable[int],
) -> Finding:
    """A finding about some rows, with the first of them and their paths.

    Args:
        cohort: The audited cohort.
        kind: As in `Finding`.
        severity: As in `Finding`.
        message: As in `Finding`.
        count: As in `Finding`.
        rows: All rows concerned.
    """
    shown = tuple(int(row) for row in rows)[:MAX_ROWS]
    paths = tuple(cohort.table["path"].iloc[list(shown)])
    return Finding(kind=kind, severity=severity, message=message, count=count, rows=shown, paths=paths)


def between(groups: Iterable[set[str | None]]) -> str:
    """How many groups spread over which splits, in words.

    Args:
        groups: The splits that each group touches.

    Examples:
        >>> between([{"val", "train"}, {"test", "train"}, {"train", "val"}])
        '1 train–test, 2 train–val'
    """
    counts = Counter("–".join(split for split in SPLITS if split in group) for group in groups)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
