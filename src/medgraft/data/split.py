"""Dividing a cohort by groups, stratified and repeatable, and writing down how."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from medgraft.data.cohort.labels import class_matrix
from medgraft.errors import ConfigError, DataError
from medgraft.files import replacing
from medgraft.types import SPLITS, Cohort

__all__ = ["MIN_GROUPS", "fold_splits", "split_cohort", "train_fractions", "undivided", "write_splits"]

MIN_GROUPS: Final = 20
"""Below this many groups in validation or test the user is told to use folds."""
RARE: Final = 20
"""Classes with fewer groups than this are dealt out first, so that no split goes without."""


def split_cohort(
    cohort: Cohort, groups: np.ndarray, seed: int, fractions: Sequence[float] = (0.64, 0.16, 0.2)
) -> Cohort:
    """The cohort with every row in train, val or test; groups stay whole, classes keep their shares.

    A given complete split is kept. Where only validation (or only test) is missing it is carved from the
    given training part; where only training images are given, everything is split.

    Args:
        cohort: N images; its notes grow by what was done.
        groups: (N,) from `groups_of`.
        seed: Seeds the shuffling; the same seed gives the same split.
        fractions: Shares of train, val and test, sum 1.

    Raises:
        DataError: A class is missing from a part, or the given split has no training images.
        ConfigError: The fractions make no sense.

    Examples:
        >>> table = pd.DataFrame({"path": list("abcdefghij"), "split": None}, dtype=object)
        >>> cohort = Cohort(root=Path("."), layout="folder", task="binary", classes=("a", "b"), positive="b",
        ...                 table=table, targets=np.arange(10) % 2)
        >>> split_cohort(cohort, np.arange(10), seed=0).table["split"].value_counts().to_dict()
        {'train': 6, 'val': 2, 'test': 2}
    """
    _check(cohort, groups)
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions must be three positive shares with sum 1, got {tuple(fractions)}.")
    splits = cohort.table["split"].to_numpy(dtype=object)
    present = {split for split in SPLITS if (splits == split).any()}
    parts = splits.copy()
    if present == set(SPLITS):
        how = "The given split was kept"
    elif present <= {"train"}:
        dealt = _deal(_strata(cohort), groups, fractions, seed)
        parts = np.array(SPLITS, dtype=object)[dealt]
        how = f"Split by group with seed {seed}"
    elif "train" in present:
        missing = next(split for split in SPLITS if split not in present)
        parts = _carve(cohort, groups, parts, missing, fractions, seed)
        how = f"The given split was kept; {missing} was carved from train by group with seed {seed}"
    else:
        raise DataError(f"{cohort.root}: the given split has {', '.join(sorted(present))} and no train. Add train.")
    table = cohort.table.assign(split=pd.Series(parts, dtype=object))
    note = f"{how}: {_counts(parts, groups, cohort.noun)}."
    divided = dataclasses.replace(cohort, table=table, notes=(*cohort.notes, note))
    _check_classes(divided)
    return dataclasses.replace(divided, notes=(*divided.notes, *_few_groups(parts, groups)))


def undivided(cohort: Cohort) -> Cohort:
    """The cohort without the split it was given; its notes say so where there was one."""
    if cohort.table["split"].isna().all():
        return cohort
    note = "The given split is not used: folds test every case once, and divide anew by group."
    return dataclasses.replace(
        cohort,
        table=cohort.table.assign(split=pd.Series([None] * len(cohort), dtype=object)),
        notes=(*cohort.notes, note),
    )


def fold_splits(cohort: Cohort, groups: np.ndarray, folds: int, seed: int) -> tuple[Cohort, ...]:
    """One divided cohort per outer fold: that fold is the test, the next one chooses, the rest trains.

    Every group is tested exactly once and never sits in two parts of one fold.

    Args:
        cohort: N images, in whatever split.
        groups: (N,) from `groups_of`.
        folds: Number of outer folds, at least 3.
        seed: Seeds the shuffling.

    Raises:
        ConfigError: Too few folds, or more folds than groups.
        DataError: A class is missing from a part.
    """
    _check(cohort, groups)
    num_groups = len(np.unique(groups))
    if not 3 <= folds <= num_groups:
        raise ConfigError(f"--folds must be 3 to {num_groups} (the number of groups), got {folds}. Typical: 5.")
    dealt = _deal(_strata(cohort), groups, [1 / folds] * folds, seed)
    cohorts = []
    for fold in range(folds):
        parts = np.full(len(cohort), "train", dtype=object)
        parts[dealt == (fold + 1) % folds] = "val"
        parts[dealt == fold] = "test"
        note = f"Fold {fold + 1} of {folds} by group with seed {seed}: {_counts(parts, groups, cohort.noun)}."
        table = cohort.table.assign(split=pd.Series(parts, dtype=object))
        divided = dataclasses.replace(cohort, table=table, notes=(*cohort.notes, note))
        _check_classes(divided)
        cohorts.append(divided)
    return tuple(cohorts)


def train_fractions(cohort: Cohort, groups: np.ndarray, fractions: Sequence[float], seed: int) -> tuple[Cohort, ...]:
    """One cohort per fraction of the training groups; validation and test stay whole.

    Groups are dealt by class, and a smaller fraction is part of every larger one, so that a learning curve rises by
    what was added and not by what was exchanged. Images left out have no split.

    Args:
        cohort: Divided.
        groups: (N,) from `groups_of`.
        fractions: Shares of the training groups, above 0 and at most 1, in any order.
        seed: Seeds the dealing.

    Raises:
        ConfigError: A fraction is outside that range, or leaves a class without training images.
    """
    bad = [fraction for fraction in fractions if not 0 < fraction <= 1]
    if bad or not fractions:
        raise ConfigError(f"fractions must be above 0 and at most 1, got {bad or 'none'}. Typical: 0.1,0.25,0.5,1.")
    rows = cohort.rows("train")
    matrix = class_matrix(cohort.task, cohort.targets, len(cohort.classes))
    steps = sorted({*fractions, 1.0})
    # The smallest fraction comes last, because rare classes are reserved for the last part first.
    shares = np.diff([0.0, *steps])[::-1]
    dealt = len(steps) - 1 - _deal(matrix[rows], groups[rows], list(shares), seed)
    names = list(cohort.classes)
    if cohort.task == "multilabel":
        names += [f"images without {name}" for name in cohort.classes]
    cohorts = []
    for fraction in fractions:
        parts = cohort.table["split"].to_numpy(dtype=object).copy()
        parts[rows[dealt > steps.index(fraction)]] = None
        kept = np.flatnonzero(parts == "train")
        empty = [name for name, has in zip(names, matrix[kept].sum(0), strict=True) if not has]
        if empty:
            raise ConfigError(
                f"expected training images of every class at fraction {fraction:g}, got none of {', '.join(empty)}. "
                "Use a larger fraction."
            )
        counts = f"{len(kept)} {cohort.noun}, {len(np.unique(groups[kept]))} groups"
        note = f"Fraction {fraction:g} of the training groups: {counts}."
        table = cohort.table.assign(split=pd.Series(parts, dtype=object))
        cohorts.append(dataclasses.replace(cohort, table=table, notes=(*cohort.notes, note)))
    return tuple(cohorts)


def write_splits(cohort: Cohort, groups: np.ndarray, path: str | Path) -> str:
    """The sha256 of ``splits.csv`` (columns path, group, split) as written to `path`.

    Args:
        cohort: Divided.
        groups: (N,) from `groups_of`.
        path: Where to write; replaced in one step.

    Raises:
        RunError: The file cannot be written.
    """
    path = Path(path)
    table = pd.DataFrame({"path": cohort.table["path"], "group": groups, "split": cohort.table["split"]})
    data = table.to_csv(index=False, lineterminator="\n").encode()
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _check(cohort: Cohort, groups: np.ndarray) -> None:
    if groups.shape != (len(cohort),):
        raise DataError(f"groups must have shape ({len(cohort)},), got {groups.shape}. Use groups_of(cohort, …).")


def _carve(
    cohort: Cohort, groups: np.ndarray, parts: np.ndarray, missing: str, fractions: Sequence[float], seed: int
) -> np.ndarray:
    """`parts` with a missing split carved from train by group.

    Args:
        cohort: N images.
        groups: (N,) from `groups_of`.
        parts: (N,) split of each row; changed in place.
        missing: ``val`` or ``test``.
        fractions: Shares of train, val and test.
        seed: Seeds the dealing.
    """
    rows = np.flatnonzero(parts == "train")
    share = fractions[SPLITS.index(missing)] / (fractions[0] + fractions[SPLITS.index(missing)])
    dealt = _deal(_strata(cohort)[rows], groups[rows], (1 - share, share), seed)
    parts[rows[dealt == 1]] = missing
    return parts


def _strata(cohort: Cohort) -> np.ndarray:
    """(N, K) bool: what every part gets its share of: classes, of masks also those that show nothing."""
    matrix = class_matrix(cohort.task, cohort.targets, len(cohort.classes))
    return np.column_stack([matrix, ~matrix.any(1)]) if cohort.task == "segmentation" else matrix


def _deal(matrix: np.ndarray, groups: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """(N,) part of each row: groups go one by one where their classes are shortest of the wanted share.

    The largest groups go first, equal ones in shuffled order, so that the small ones even out what those
    left.

    Args:
        matrix: (N, K) bool: which classes each row shows.
        groups: (N,) group of each row.
        fractions: Share of each part, sum 1.
        seed: Seeds the order of equal groups.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(inverse.max()) + 1, matrix.shape[1]))
    np.add.at(counts, inverse, matrix)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    wanted = np.outer(fractions, np.maximum(counts.sum(axis=0), 1))
    have = np.zeros_like(wanted)
    part_of = np.full(len(counts), -1)
    for group, part in _reserve(counts, order, len(wanted)):
        part_of[group] = part
        have[part] += counts[group]
    for group in order[part_of[order] < 0]:
        row = counts[group]
        # Growth of the chi-square distance between what each part has and what it should have.
        growth = (row * (2 * (have - wanted) + row) / wanted).sum(axis=1)
        part = int(np.argmin(growth))
        part_of[group] = part
        have[part] += row
    return np.asarray(part_of[inverse])


def _reserve(counts: np.ndarray, order: np.ndarray, num_parts: int) -> list[tuple[int, int]]:
    """One group of every rare class for every part, the smallest groups first, evaluation parts first.

    Args:
        counts: (G, K) rows of each group in each class.
        order: (G,) groups, the largest first.
        num_parts: Number of parts, those for evaluation last.
    """
    taken: dict[int, int] = {}
    per_class = (counts > 0).sum(axis=0)
    for column in np.argsort(per_class, kind="stable"):
        if not 0 < per_class[column] < RARE:
            continue
        having = [int(group) for group in order[::-1] if counts[group, column] > 0]
        served = {taken[group] for group in having if group in taken}
        free = [group for group in having if group not in taken]
        for part in range(num_parts - 1, -1, -1):
            if part not in served and free:
                taken[free.pop(0)] = part
    return sorted(taken.items())


def _check_classes(cohort: Cohort) -> None:
    matrix = class_matrix(cohort.task, cohort.targets, len(cohort.classes))
    names = [*cohort.classes, *(f"not {name}" for name in cohort.classes)]
    for split in SPLITS:
        rows = cohort.rows(split)
        for column, name in zip(matrix.T, names, strict=False):
            if not column[rows].any():
                message = f"class {name!r} has no image in {split} ({int(column.sum())} in all)"
                instead = (
                    "name the others: --set data.mask_classes=NAME=NUMBER,…"
                    if cohort.task == "segmentation"
                    else "leave this class out"
                )
                raise DataError(f"{cohort.root}: {message}. Add cases of more patients, or {instead}.")


def _counts(parts: np.ndarray, groups: np.ndarray, noun: str) -> str:
    """Rows and groups of each split, in words.

    Args:
        parts: (N,) split of each row.
        groups: (N,) group of each row.
        noun: What rows are called, e.g. ``images``.
    """
    texts = []
    for split in SPLITS:
        rows = parts == split
        texts.append(f"{split} {int(rows.sum())} {noun} in {len(np.unique(groups[rows]))} groups")
    return ", ".join(texts)


def _few_groups(parts: np.ndarray, groups: np.ndarray) -> list[str]:
    notes = []
    for split in ("val", "test"):
        count = len(np.unique(groups[parts == split]))
        if count < MIN_GROUPS:
            message = f"Warning: only {count} groups in {split}, so its scores are coarse"
            notes.append(f"{message}; --folds 5 uses every group for testing once.")
    return notes
