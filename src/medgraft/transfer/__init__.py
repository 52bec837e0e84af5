"""Strategies: what is kept, what is trained, and how fast."""

from medgraft.transfer.heads import CLASSICAL, ClassicalHead, FlattenedHead, HeadSettings, PooledHead
from medgraft.transfer.model import Normalise, TransferModel
from medgraft.transfer.plan import ParameterGroup, lr_of, parameter_groups, phases_of, plan_table
from medgraft.transfer.source import BELOW_STEM, Source, prepare_source
from medgraft.transfer.strategies import STRATEGIES, Strategy, StrategySettings, apply_strategy

__all__ = [
    "ParameterGroup",
    "BELOW_STEM",
    "CLASSICAL",
    "STRATEGIES",
    "ClassicalHead",
    "FlattenedHead",
    "HeadSettings",
    "Normalise",
    "PooledHead",
    "Source",
    "Strategy",
    "StrategySettings",
    "TransferModel",
    "apply_strategy",
    "lr_of",
    "parameter_groups",
    "phases_of",
    "plan_table",
    "prepare_source",
]
