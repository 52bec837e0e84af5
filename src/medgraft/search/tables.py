"""What a search leaves behind as tables: every trial, and what features said of every cut."""

from collections.abc import Mapping, Sequence

import pandas as pd

from medgraft.search.trial import Trial
from medgraft.types import Cut

__all__ = ["signal_table", "trial_table"]


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
            "name": cuts[index - 1].name,
            "stage": cuts[index - 1].stage,
            "num_params": cuts[index - 1].num_params,
            "macs": cuts[index - 1].macs,
            "is_pretrained": cuts[index - 1].is_pretrained,
            **values,
        }
        for index, values in sorted(signals.items())
    ]
    return pd.DataFrame(rows)
