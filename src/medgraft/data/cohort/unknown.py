"""Labels that are not known: uncertain ones and blanks, and what a training is told in the place of an uncertain one.

They never count as truth: on validation and test a label that is not known takes no part, whatever a training is told.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from medgraft.data.cohort.labels import nearest
from medgraft.errors import ConfigError
from medgraft.types import Cohort

__all__ = ["describe_unknown", "parse_policy", "retaught", "taught_targets"]

Range = tuple[float, float]
POLICIES: Final[dict[str, Range | None]] = {"ignore": None, "zeros": (0.0, 0.0), "ones": (1.0, 1.0)}
_SOFT: Final = re.compile(r"soft\(\s*([0-9.]+)\s*,\s*([0-9.]+)\s*\)")
_OUTSIDE_BRACKETS: Final = re.compile(r",(?![^(]*\))")


def parse_policy(text: str, classes: Sequence[str]) -> dict[str, Range | None]:
    """What a training is told of an uncertain label, for every class: a range to draw from, or None for nothing.

    Args:
        text: ``ignore``, ``zeros``, ``ones`` or ``soft(a,b)`` for all labels, and ``label=…`` for some, separated by
            commas, e.g. ``ignore,Edema=ones,Atelectasis=soft(0.55,0.85)``.
        classes: The labels.

    Raises:
        ConfigError: There is no such policy or label.

    References:
        Irvin et al. CheXpert: a large chest radiograph dataset with uncertainty labels. AAAI 2019 (U-Ignore, U-Zeros,
        U-Ones).
        Pham et al. Interpreting chest X-rays via CNNs that exploit hierarchical disease dependencies and uncertainty
        labels. Neurocomputing 2021 (label smoothing: 0.55 to 0.85 for ones, 0 to 0.3 for zeros).

    Examples:
        >>> parse_policy("ignore,b=soft(0.5,0.8)", ["a", "b"])
        {'a': None, 'b': (0.5, 0.8)}
    """
    ranges: dict[str, Range | None] = dict.fromkeys(classes)
    for part in _OUTSIDE_BRACKETS.split(text):
        label, equals, policy = part.rpartition("=")
        names = [label.strip()] if equals else list(classes)
        if equals and names[0] not in classes:
            raise ConfigError(f"--uncertain names no label {names[0]!r}. {nearest(names[0], classes)}")
        ranges |= dict.fromkeys(names, _range(policy.strip()))
    return ranges


def _range(policy: str) -> Range | None:
    if policy in POLICIES:
        return POLICIES[policy]
    match = _SOFT.fullmatch(policy)
    try:
        low, high = (float(match[1]), float(match[2])) if match else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise ConfigError(
            f"expected --uncertain ignore, zeros, ones or soft(a,b) with 0 <= a <= b <= 1, got {policy!r}."
        )
    return low, high


def taught_targets(
    targets: np.ndarray,
    is_uncertain: np.ndarray,
    policy: Mapping[str, Range | None],
    names: Sequence[str],
    seed: int,
) -> np.ndarray:
    """(N, C) float32: `targets` with what a training is told in the place of uncertain labels.

    Args:
        targets: (N, C) of 0 and 1, NaN where not known.
        is_uncertain: (N, C) bool.
        policy: From `parse_policy`, in the order of the columns.
        names: (N,) of the cases: the draw for a label depends on the case and the seed alone.
        seed: Seeds the draws.

    Examples:
        >>> targets = np.array([[np.nan, 1], [0, np.nan]], dtype=np.float32)
        >>> taught_targets(targets, np.isnan(targets), {"a": (1.0, 1.0), "b": None}, ["x", "y"], 0).tolist()
        [[1.0, 1.0], [0.0, nan]]
    """
    taught = targets.copy()
    ranges = list(policy.values())
    for row in np.flatnonzero(is_uncertain.any(1)).tolist():
        draws = np.random.default_rng([seed, zlib.crc32(names[row].encode(errors="surrogateescape"))])
        shares = draws.random(len(ranges))
        for column in np.flatnonzero(is_uncertain[row]):
            chosen = ranges[column]
            if chosen is not None:
                taught[row, column] = chosen[0] + (chosen[1] - chosen[0]) * shares[column]
    return taught


def retaught(cohort: Cohort, policy: str, seed: int) -> Cohort:
    """`cohort` with what a training is told of its uncertain labels by `policy`.

    Args:
        cohort: A cohort of several labels, with `is_uncertain`.
        policy: As `parse_policy` takes it.
        seed: Seeds the draws, which depend on the case's file, not on its pseudonym.

    Raises:
        ConfigError: The cohort has no such labels, or there is no such policy.
    """
    if cohort.is_uncertain is None:
        raise ConfigError("--uncertain is for several columns of 0 and 1, got one label. Use --label-column A,B,C.")
    names = [cohort.files.get(path, (path,))[0] for path in cohort.table["path"]]
    taught = taught_targets(cohort.targets, cohort.is_uncertain, parse_policy(policy, cohort.classes), names, seed)
    return dataclasses.replace(cohort, taught=taught)


def describe_unknown(
    targets: np.ndarray, is_uncertain: np.ndarray, classes: Sequence[str], policy: str | None
) -> str | None:
    """A sentence on how many labels are not known, or None where all are.

    Args:
        targets: (N, C), NaN where not known.
        is_uncertain: (N, C) bool.
        classes: The labels.
        policy: As given for uncertain ones.

    Examples:
        >>> targets = np.array([[np.nan, 1], [np.nan, np.nan]])
        >>> describe_unknown(targets, np.array([[True, False], [False, False]]), ["a", "b"], "ones")
        'Labels that are not known: a 1 uncertain, 1 blank; b 1 blank. Uncertain ones are taught as: ones.'
    """
    blank = np.isnan(targets) & ~is_uncertain
    parts = []
    for name, uncertain, empty in zip(classes, is_uncertain.sum(0), blank.sum(0), strict=True):
        counts = [f"{count} {kind}" for count, kind in ((uncertain, "uncertain"), (empty, "blank")) if count]
        if counts:
            parts.append(f"{name} {', '.join(counts)}")
    if not parts:
        return None
    taught = f" Uncertain ones are taught as: {policy}." if is_uncertain.any() else ""
    return f"Labels that are not known: {'; '.join(parts)}.{taught}"
