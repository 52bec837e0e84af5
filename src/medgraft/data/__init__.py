"""Cohorts: reading, auditing, dividing, and decoding them once."""

from medgraft.data.audit import audit_cohort
from medgraft.data.cache import DecodedCohort, build_cache
from medgraft.data.cohort import read_cohort
from medgraft.data.findings import Audit, Finding
from medgraft.data.groups import groups_of
from medgraft.data.leaks import apply_leaks
from medgraft.data.split import fold_splits, read_splits, split_cohort, write_splits

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
    "read_splits",
    "split_cohort",
    "write_splits",
]
