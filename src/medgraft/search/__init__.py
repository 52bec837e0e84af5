"""Finding the cut: trials, the two-stage search, and the rule that decides."""

from medgraft.search.incremental import incremental
from medgraft.search.rule import Candidate, Choice, choose, is_clearly_behind
from medgraft.search.trial import (
    Trial,
    TrialContext,
    TrialSpec,
    forget_weights,
    load_trial_model,
    run_trial,
)
from medgraft.search.two_stage import neighbours, stage_ends, two_stage

__all__ = [
    "Candidate",
    "Choice",
    "Trial",
    "TrialContext",
    "TrialSpec",
    "choose",
    "forget_weights",
    "incremental",
    "is_clearly_behind",
    "load_trial_model",
    "neighbours",
    "run_trial",
    "stage_ends",
    "two_stage",
]
