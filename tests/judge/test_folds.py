"""Tables of folds, put together."""

from types import SimpleNamespace

import pandas as pd
import pytest

from medgraft.errors import RunError
from medgraft.judge.folds import concatenated, rows_in


def test_names_that_look_like_numbers_stay_the_names_of_their_cases(tmp_path):
    for number, paths in enumerate((["001", "002"], ["1e5", "NA"]), 1):
        (tmp_path / f"fold_{number}").mkdir()
        table = pd.DataFrame({"path": paths, "patient": ["07", ""], "prob_a": [0.25, 0.75]})
        table.to_csv(tmp_path / f"fold_{number}" / "predictions.csv", index=False)
    table = concatenated([tmp_path / "fold_1", tmp_path / "fold_2"], "predictions.csv")
    assert table["path"].tolist() == ["001", "002", "1e5", "NA"]
    assert table["patient"].tolist() == ["07", "", "07", ""]
    assert table["prob_a"].tolist() == [0.25, 0.75] * 2
    assert table["fold"].tolist() == [1, 1, 2, 2]
    cohort = SimpleNamespace(table=pd.DataFrame({"path": ["NA", "1e5", "002", "001"]}))
    assert rows_in(table, SimpleNamespace(cohort=cohort)).tolist() == [3, 2, 1, 0]
    cohort.table = cohort.table.iloc[:3]
    with pytest.raises(RunError, match="a fold tested 001, which the cohort lacks"):
        rows_in(table, SimpleNamespace(cohort=cohort))
