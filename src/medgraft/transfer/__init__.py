"""Strategies: what is kept, what is trained, and how fast."""

from medgraft.transfer.model import FlattenedHead, Normalise, PooledHead, TransferModel
from medgraft.transfer.plan import lr_of, parameter_groups, plan_table
from medgraft.transfer.source import Source, prepare_source
from medgraft.transfer.strategies import STRATEGIES, HeadSettings, Strategy, apply_strategy

__all__ = [
    "STRATEGIES",
    "FlattenedHead",
    "HeadSettings",
    "Normalise",
    "PooledHead",
    "Source",
    "Strategy",
    "TransferModel",
    "apply_strategy",
    "lr_of",
    "parameter_groups",
    "plan_table",
    "prepare_source",
]
