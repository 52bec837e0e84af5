"""Finding the cut: trials, the searches, what guides them, and the rule that decides."""

from medgraft.search.guided import Rung, affordable, cuts_to_try, halving, within_budget
from medgraft.search.incremental import incremental
from medgraft.search.overlap import overlap_share, overlapping_cut
from medgraft.search.rule import Candidate, Choice, choose, is_clearly_behind
from medgraft.search.signals import probe_cuts, reuse_at_cuts
from medgraft.search.trial import (
    Trial,
    TrialContext,
    TrialSpec,
    forget_weights,
    load_trial_model,
    probed_sample,
    run_trial,
)
from medgraft.search.two_stage import neighbours, stage_ends, two_stage

__all__ = [
    "Candidate",
    "Choice",
    "Rung",
    "Trial",
    "TrialContext",
    "TrialSpec",
    "affordable",
    "choose",
    "cuts_to_try",
    "forget_weights",
    "halving",
    "incremental",
    "is_clearly_behind",
    "load_trial_model",
    "neighbours",
    "overlap_share",
    "overlapping_cut",
    "probe_cuts",
    "probed_sample",
    "reuse_at_cuts",
    "run_trial",
    "stage_ends",
    "two_stage",
    "within_budget",
]
