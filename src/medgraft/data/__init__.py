"""Cohorts: reading, auditing, dividing, and decoding them once."""

from medgraft.data.audit.audit import audit_cohort
from medgraft.data.audit.findings import Audit, Finding
from medgraft.data.audit.leaks import apply_leaks
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.decoded.images import DecodedCohort, build_cache
from medgraft.data.groups import groups_of
from medgraft.data.split import fold_splits, split_cohort, write_splits

__all__ = [
    "Audit",
    "DecodedCohort",
    "Finding",
    "apply_leaks",
    "audit_cohort",
    "build_cache",
    "fold_splits",
    "groups_of",
    "read_cohort",
    "split_cohort",
    "write_splits",
]
