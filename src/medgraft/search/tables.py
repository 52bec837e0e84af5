"""What a search leaves behind as tables: every trial, and what features said of every cut."""

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from medgraft.search.trial import Trial
from medgraft.types import Cut

__all__ = ["SIGNAL_KEYS", "is_searched", "signal_table", "trial_table"]

SIGNAL_KEYS: Final = ("cut", "name", "stage", "num_params", "macs", "is_pretrained")
"""Columns of `signals.csv` that tell of the cut itself."""


# Trainings that repeat, judge or go on with what was found; every other role names a step of a search.
_FOUND: Final = ("given", "baseline", "second baseline", "chosen", "continued")


def is_searched(role: str) -> bool:
    """Whether a training of this role looked for the depth.

    Examples:
        >>> is_searched("stage"), is_searched("rung 2"), is_searched("final chosen"), is_searched("baseline")
        (True, True, False, False)
    """
    return role.removeprefix("final ") not in _FOUND


def trial_table(trials: Sequence[tuple[Trial, str]]) -> pd.DataFrame:
    """One row for each trial, with its depth, validation scores, cost and role: `search.csv`.

    Args:
        trials: Trials with their roles.
    """
    return pd.DataFrame(
        [
            {
                "cut": trial.cut.index,
                "name": trial.cut.name,
                "stage": trial.cut.stage,
                "seed": trial.spec.seed,
                "strategy": trial.spec.strategy,
                **{f"val_{name}": value for name, value in trial.scores.items()},
                "seconds": round(trial.seconds, 3),
                "train_macs": trial.train_macs,
                "num_params": trial.num_params,
                "macs": trial.macs,
                "is_pretrained": trial.cut.is_pretrained,
                "role": role,
                "epochs": trial.spec.train.epochs,
                "best_epoch": trial.best_epoch,
            }
            for trial, role in trials
        ]
    )


def signal_table(signals: Mapping[int, Mapping[str, float]], cuts: Sequence[Cut]) -> pd.DataFrame:
    """One row for each cut with what its features said before it was trained: `signals.csv`.

    Args:
        signals: Cut index to values by name.
        cuts: The cuts of the network.
    """
    rows = [
        {
            "cut": index,
            **{name: getattr(cuts[index - 1], name) for name in SIGNAL_KEYS[1:]},
            **values,
        }
        for index, values in sorted(signals.items())
    ]
    return pd.DataFrame(rows)
