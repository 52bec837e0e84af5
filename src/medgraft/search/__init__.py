"""Finding the cut: plans, trials and where they run, the searches, what guides them, and the rule that decides."""

from medgraft.search.executor import Executor, Watch, here, open_executor
from medgraft.search.explore import Explored, choose_probe
from medgraft.search.fair import FairChoice, depths_to_try, fair_search
from medgraft.search.guided import Rung, ShortTraining, affordable, cuts_to_try, halving, within_budget
from medgraft.search.incremental import incremental
from medgraft.search.outcome import Searched, best_trial, search_cut
from medgraft.search.plan import AFTER_FTL, Recipe, SearchPlan
from medgraft.search.proposals import Search, drive
from medgraft.search.rule import Candidate, Choice, choose, is_clearly_behind
from medgraft.search.svcca import overlap_share, overlapping_cut, reuse_at_cuts
from medgraft.search.trainer import Trainer
from medgraft.search.trial import (
    Trial,
    TrialContext,
    TrialSpec,
    forget_weights,
    load_trial_model,
    probed_sample,
    run_trial,
)
from medgraft.search.two_stage import exhaustive, neighbours, stage_ends, two_stage

__all__ = [
    "AFTER_FTL",
    "Candidate",
    "Choice",
    "Executor",
    "Explored",
    "FairChoice",
    "Recipe",
    "Rung",
    "Search",
    "SearchPlan",
    "Searched",
    "ShortTraining",
    "Trainer",
    "Trial",
    "TrialContext",
    "TrialSpec",
    "Watch",
    "affordable",
    "best_trial",
    "choose",
    "choose_probe",
    "cuts_to_try",
    "depths_to_try",
    "drive",
    "exhaustive",
    "fair_search",
    "forget_weights",
    "halving",
    "here",
    "incremental",
    "is_clearly_behind",
    "load_trial_model",
    "neighbours",
    "open_executor",
    "overlap_share",
    "overlapping_cut",
    "probed_sample",
    "reuse_at_cuts",
    "run_trial",
    "search_cut",
    "stage_ends",
    "two_stage",
    "within_budget",
]
