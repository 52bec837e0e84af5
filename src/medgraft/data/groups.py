"""Which images must stay together when a cohort is divided."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd

from medgraft.data.audit.findings import NearPair
from medgraft.types import Cohort

__all__ = ["groups_of"]

MAX_SHARE: Final = 0.05
"""Largest share of the cohort that merging may put into one group."""


def groups_of(
    cohort: Cohort,
    exact_duplicates: Iterable[Sequence[int]],
    near_duplicates: Iterable[NearPair] = (),
) -> np.ndarray:
    """The group of each image: its patient when known, else its unit, its set of exact duplicates, or itself.

    Groups that share exact duplicates or confirmed near-duplicates are joined, the pairs in the given
    order, as long as the joined group stays within 5 % of the cohort (a pair of images may always join). A
    patient with more images than that stays whole.

    Args:
        cohort: N images.
        exact_duplicates: Sets of row numbers with equal pixels.
        near_duplicates: Pairs, most alike first.

    Returns:
        (N,) int64, numbered from 0 in order of first appearance.

    Examples:
        >>> from pathlib import Path
        >>> table = pd.DataFrame({"patient": ["p", "p", None, None, None]}, dtype=object)
        >>> cohort = Cohort(root=Path("."), layout="folder", task="binary", classes=("a", "b"), positive="b",
        ...                 table=table, targets=np.array([0, 1, 0, 1, 0]))
        >>> groups_of(cohort, [(2, 4)]).tolist()
        [0, 0, 1, 2, 1]
    """
    patients = cohort.table["patient"]
    codes = pd.factorize(patients)[0]
    alone = codes.max(initial=-1) + 1 + np.arange(len(cohort))
    forest = _Forest(np.where(codes >= 0, codes, alone))
    units = cohort.units(np.arange(len(cohort)))
    for row, first in enumerate(cohort.case_rows()[units]):
        forest.join(int(first), row, cap=len(cohort))
    cap = max(2, int(MAX_SHARE * len(cohort)))
    for rows in exact_duplicates:
        unknown = [int(row) for row in rows if codes[row] < 0]
        # Without patients the set of duplicates is the group by definition, however large.
        for other in unknown[1:]:
            forest.join(unknown[0], other, cap=len(cohort))
        for other in rows[1:]:
            forest.join(int(rows[0]), int(other), cap=cap)
    for pair in near_duplicates:
        forest.join(pair.first, pair.second, cap=cap)
    roots = np.array([forest.root(row) for row in range(len(cohort))], dtype=np.int64)
    return np.asarray(pd.factorize(roots)[0], dtype=np.int64)


class _Forest:
    """Disjoint sets of rows with sizes (union by size, path halving)."""

    def __init__(self, initial: np.ndarray) -> None:
        first: dict[int, int] = {}
        self.parent = [first.setdefault(int(code), row) for row, code in enumerate(initial)]
        self.size = np.bincount(self.parent, minlength=len(self.parent)).tolist()

    def root(self, row: int) -> int:
        while self.parent[row] != row:
            self.parent[row] = self.parent[self.parent[row]]
            row = self.parent[row]
        return row

    def join(self, first: int, second: int, *, cap: int) -> None:
        """Unite the sets of two rows, unless they would be too large together.

        Args:
            first: A row.
            second: Another row.
            cap: Most rows of a united set.
        """
        a, b = self.root(first), self.root(second)
        if a == b or self.size[a] + self.size[b] > cap:
            return
        if self.size[a] < self.size[b]:
            a, b = b, a
        self.parent[b] = a
        self.size[a] += self.size[b]
