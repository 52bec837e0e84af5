"""What of a cohort a job works with, where the split that was given shares patients between its parts."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medgraft.config import make_config
from medgraft.errors import LeakError
from medgraft.listener import Listener
from medgraft.phantom.phantom import PhantomSettings, write_phantom
from medgraft.prepare.material import Material
from medgraft.setup.plan import material_of


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of drawn chests in which a patient of the test set has an image in training, too."""
    settings = PhantomSettings(shape=(32, 32), num_patients={"train": 12, "val": 12, "test": 12})
    table = write_phantom(tmp_path_factory.mktemp("leaking"), settings, 0)
    cases = pd.read_csv(table)
    tested = cases.index[cases["split"] == "test"]
    cases.loc[cases.index[cases["split"] == "train"][0], "patient"] = cases.loc[tested[0], "patient"]
    cases.to_csv(table, index=False)
    return table


def material(source: Path, said: list[str] | None = None, **data: Any) -> Material:
    options = {"data": data, "backbone": {"size": 32, "weights": "none"}, "offline": True}
    said = [] if said is None else said
    return material_of(make_config(str(source), options=options), Listener(say=said.append))


def test_a_given_split_that_leaks_is_refused_or_cleaned_and_that_is_told(leaking: Path) -> None:
    with pytest.raises(LeakError, match="--leaks drop"):
        material(leaking)
    dropped, allowed = material(leaking, leaks="drop"), material(leaking, leaks="allow")
    assert len(dropped.dataset.cohort) < len(dropped.given) == len(allowed.dataset.cohort)
    assert dropped.are_leaks_dropped
    assert not allowed.are_leaks_dropped


def test_folds_divide_anew_whatever_the_given_split_shares(leaking: Path) -> None:
    said: list[str] = []
    found = material(leaking, said, folds=3)
    assert any("The given split is not used" in line for line in said)
    assert not found.audit.has_leaks
    assert not found.are_leaks_dropped
    assert len(found.dataset.cohort) == len(found.given)
