"""Findings on the table: patients, classes, spellings, and causes that give the label away."""

from typing import Final

import numpy as np
import pandas as pd

from medgraft.data.audit.findings import Finding, between, finding_of
from medgraft.data.cohort.labels import class_matrix, spelling_variants
from medgraft.data.decoded.images import DecodedCohort
from medgraft.types import SPLITS, Cohort

__all__ = ["cramers_v", "table_findings"]

CONFOUNDED: Final = 0.5
"""Cramér's V from which a class can be told from its site or image size alone."""
MAX_CATEGORIES: Final = 50


def table_findings(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    """Patients in two splits, missing classes, spelling variants, confounding by site, size or spacing.

    Args:
        cohort: The readable images; its split column is the given split.
        decoded: Their cache.
    """
    return [
        *_patients(cohort),
        *_missing_classes(cohort),
        *_spellings(cohort),
        *_unknown(cohort),
        *_confounded(cohort, decoded),
    ]


def _patients(cohort: Cohort) -> list[Finding]:
    table = cohort.table[cohort.table["patient"].notna() & cohort.table["split"].notna()]
    if table.empty:
        return []
    num_splits = table.groupby("patient")["split"].nunique()
    shared = set(num_splits.index[num_splits > 1])
    if not shared:
        counts = "/".join(str(table.loc[table["split"] == split, "patient"].nunique()) for split in SPLITS)
        message = f"0 patients are shared between the given splits ({counts} in train/val/test)."
        return [Finding(kind="patients-disjoint", severity="info", message=message, count=0)]
    rows = table.index[table["patient"].isin(shared)]
    spread = between(set(splits) for _, splits in table.loc[rows].groupby("patient")["split"])
    message = f"{len(shared)} patients have {cohort.noun} in more than one split ({spread})."
    return [finding_of(cohort, "patient-across-splits", "stop", message, len(shared), rows)]


def _missing_classes(cohort: Cohort) -> list[Finding]:
    if cohort.table["split"].isna().all():
        return []
    matrix = class_matrix(cohort.task, cohort.targets, len(cohort.classes))
    names = [*cohort.classes, *(f"not {name}" for name in cohort.classes)]
    splits = [split for split in SPLITS if len(cohort.rows(split))]
    absent = [
        f"{name} in {split}"
        for split in splits
        for name, column in zip(names, matrix[cohort.rows(split)].T, strict=False)
        if not column.any()
    ]
    message = f"Classes are missing from given splits: {', '.join(absent)}."
    return [Finding(kind="class-missing", severity="stop", message=message, count=len(absent))] if absent else []


def _spellings(cohort: Cohort) -> list[Finding]:
    texts = (label for label in cohort.table["label"] if label is not None)
    parts = [part for text in texts for part in (text.split("|") if cohort.task == "multilabel" else [text])]
    variants = spelling_variants(parts)
    if not variants:
        return []
    shown = "; ".join(f"{', '.join(map(repr, forms))} as {name!r}" for name, forms in variants.items())
    message = f"Labels with several spellings were read as one class each: {shown}."
    return [Finding(kind="label-spelling", severity="warn", message=message, count=len(variants))]


def _unknown(cohort: Cohort) -> list[Finding]:
    """Labels that are not known, by split."""
    if cohort.task != "multilabel" or not np.isnan(cohort.targets).any():
        return []
    is_uncertain = np.zeros(cohort.targets.shape, dtype=bool) if cohort.is_uncertain is None else cohort.is_uncertain
    count = int(np.isnan(cohort.targets).sum())
    share = count / cohort.targets.size
    worst = int(np.isnan(cohort.targets).sum(0).argmax())
    message = (
        f"{count} of {cohort.targets.size} labels are not known ({share:.0%}): {int(is_uncertain.sum())} uncertain, "
        f"{count - int(is_uncertain.sum())} blank; most of {cohort.classes[worst]}. They take no part in any score."
    )
    rows = np.flatnonzero(np.isnan(cohort.targets).any(1))
    return [finding_of(cohort, "unknown-labels", "info", message, len(rows), rows)]


def _confounded(cohort: Cohort, decoded: DecodedCohort) -> list[Finding]:
    sizes = decoded.facts["height"].astype(np.int64) << 32 | decoded.facts["width"].astype(np.int64)
    has_site = cohort.table["site"].notna().to_numpy()
    causes = {
        "site": (pd.factorize(cohort.table["site"])[0][has_site], cohort.targets[has_site]),
        "size": (pd.factorize(sizes)[0], cohort.targets),
        "device": (pd.factorize(decoded.facts["device"])[0], cohort.targets),
        "spacing": (pd.factorize(pd.Series(map(tuple, decoded.facts["spacing_mm"].round(2))))[0], cohort.targets),
    }
    nouns = {
        "site": "the site",
        "size": "the size of the image file",
        "device": "the device",
        "spacing": "the distance of pixels or slices",
    }
    findings = []
    for cause, (codes, targets) in causes.items():
        columns = targets.T if targets.ndim == 2 else [targets]
        strengths = [_association(codes, column) for column in columns]
        worst = max(strengths, default=0.0)
        if worst >= CONFOUNDED:
            message = f"The label can largely be guessed from {nouns[cause]} alone (Cramér's V {worst:.2f})."
            findings.append(Finding(kind=f"{cause}-confounding", severity="warn", message=message, count=1))
    return findings


def _association(codes: np.ndarray, column: np.ndarray) -> float:
    is_labelled = ~np.isnan(column.astype(np.float64))
    return cramers_v(codes[is_labelled], column[is_labelled].astype(np.int64))


def cramers_v(first: np.ndarray, second: np.ndarray) -> float:
    """Association of two categories, 0 to 1, corrected for chance; 0 beyond 50 categories.

    Args:
        first: (N,) integers.
        second: (N,) integers.

    References:
        Bergsma, A bias-correction for Cramér's V and Tschuprow's T, Journal of the Korean Statistical
        Society, 2013.

    Examples:
        >>> round(cramers_v(np.array([0, 1] * 50), np.array([1, 0] * 50)), 3)
        1.0
    """
    if len(first) < 2 or len(np.unique(first)) < 2 or len(np.unique(second)) < 2:
        return 0.0
    if len(np.unique(first)) > MAX_CATEGORIES:
        return 0.0
    table = pd.crosstab(first, second).to_numpy(dtype=float)
    n, (rows, columns) = table.sum(), table.shape
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi2 = ((table - expected) ** 2 / expected).sum() / n
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    side = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(phi2 / side)) if side > 0 else 0.0
