"""What is wrong with a cohort, before anything is trained on it."""

import numpy as np

from medgraft.data.audit.duplicates import NearDuplicates, exact_sets, near_duplicates
from medgraft.data.audit.findings import Audit, Finding, between, finding_of
from medgraft.data.audit.images import image_findings
from medgraft.data.audit.masks import mask_findings
from medgraft.data.audit.scales import scale_findings
from medgraft.data.audit.tables import table_findings
from medgraft.data.decoded.images import DecodedCohort
from medgraft.errors import DataError
from medgraft.types import Cohort

__all__ = ["audit_cohort"]


def audit_cohort(cohort: Cohort, decoded: DecodedCohort) -> Audit:
    """Findings on files, pixels, labels, patients and splits.

    Args:
        cohort: The readable images, ``cohort.select(decoded.rows)``; its split column is the given split.
        decoded: The cache of the same images.

    Raises:
        DataError: The two do not list the same images.
    """
    if not np.array_equal(cohort.table["path"].to_numpy(dtype=object), decoded.paths):
        message = f"cohort ({len(cohort)} images) and cache ({len(decoded)}) list different images"
        raise DataError(f"{message}. Audit cohort.select(decoded.rows).")
    sets = exact_sets(decoded.facts["sha256"])
    copies = np.array([row for equal in sets for row in equal[1:]], dtype=np.int64)
    is_constant = decoded.facts["low"] == decoded.facts["high"]
    compared = np.flatnonzero(~is_constant & ~np.isin(np.arange(len(cohort)), copies))
    near = near_duplicates(decoded.thumbs, compared, is_quartered=cohort.dims == 3)
    findings = [
        *image_findings(cohort, decoded),
        *_exact(cohort, sets),
        *_near(cohort, near),
        *table_findings(cohort, decoded),
        *scale_findings(cohort, decoded),
        *(mask_findings(cohort, decoded) if cohort.task == "segmentation" else ()),
    ]
    order = ("stop", "warn", "info")
    return Audit(
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        exact_duplicates=sets,
        near_duplicates=near.pairs,
        num_images=len(cohort),
        num_broken=len(decoded.broken),
    )


def _exact(cohort: Cohort, sets: tuple[tuple[int, ...], ...]) -> list[Finding]:
    splits = cohort.table["split"].to_numpy(dtype=object)
    findings, across = [], [equal for equal in sets if len({splits[row] for row in equal} - {None}) > 1]
    if across:
        spread = between({splits[row] for row in equal} for equal in across)
        message = f"{len(across)} {cohort.noun} occur with equal pixels in more than one split ({spread})."
        rows = [row for equal in across for row in equal]
        findings.append(finding_of(cohort, "duplicate-across-splits", "stop", message, len(across), rows))
    per_split: dict[str, int] = {}
    within = []
    for equal in sets:
        for split in {splits[row] for row in equal}:
            same = [row for row in equal if splits[row] == split]
            if len(same) > 1:
                per_split[str(split or "all")] = per_split.get(str(split or "all"), 0) + len(same) - 1
                within += same
    if within:
        counts = ", ".join(f"{count} in {split}" for split, count in sorted(per_split.items()))
        total = sum(per_split.values())
        message = f"{total} {cohort.noun} are redundant copies within their split ({counts})."
        findings.append(finding_of(cohort, "duplicate-within-split", "info", message, total, within))
    clashing = [
        equal for equal in sets if any(_differ(cohort.targets[equal[0]], cohort.targets[row]) for row in equal[1:])
    ]
    if clashing:
        message = f"{len(clashing)} {cohort.noun} have equal pixels and different labels; one label must be wrong."
        rows = [row for equal in clashing for row in equal]
        findings.append(finding_of(cohort, "duplicate-label-conflict", "warn", message, len(clashing), rows))
    return findings


def _differ(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two truths contradict each other; what is not known contradicts nothing."""
    left, right = np.atleast_1d(first).astype(np.float64), np.atleast_1d(second).astype(np.float64)
    return bool(np.any((left != right) & ~np.isnan(left) & ~np.isnan(right)))


def _near(cohort: Cohort, near: NearDuplicates) -> list[Finding]:
    """Findings on nearly equal images that are not known to show one patient.

    Args:
        cohort: The audited cohort.
        near: Confirmed pairs, and how they were searched.
    """
    findings = []
    patients = cohort.table["patient"].to_numpy(dtype=object)
    # Two views of one patient may well look alike; they share a group anyway.
    pairs = tuple(
        pair for pair in near.pairs if patients[pair.first] is None or patients[pair.first] != patients[pair.second]
    )
    if pairs:
        splits = cohort.table["split"].to_numpy(dtype=object)
        across = [pair for pair in pairs if splits[pair.first] != splits[pair.second]]
        clashing = sum(_differ(cohort.targets[pair.first], cohort.targets[pair.second]) for pair in pairs)
        images = len({row for pair in pairs for row in (pair.first, pair.second)})
        message = f"{len(pairs)} pairs ({images} images) of different cases are nearly the same picture"
        message += f", {len(across)} of them across splits" if across else ""
        message += f", {clashing} of them with different labels" if clashing else ""
        rows = [row for pair in (across or pairs) for row in (pair.first, pair.second)]
        findings.append(finding_of(cohort, "near-duplicate", "warn", f"{message}.", len(pairs), rows))
    if not near.is_complete:
        message = (
            f"So many {cohort.noun} look alike that near-duplicates were looked for among the {near.num_proposed} "
            "most promising pairs only."
        )
        findings.append(
            Finding(kind="near-duplicate-search", severity="info", message=message, count=near.num_proposed)
        )
    return findings
