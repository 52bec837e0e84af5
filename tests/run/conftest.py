"""A small phantom and a finished run on it, shared by the tests of whole jobs."""

from pathlib import Path

import pytest

from medgraft.phantom.phantom import write_phantom
from small_runs import SMALL, fit, small_config


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    return write_phantom(folder, SMALL, 0)


@pytest.fixture(scope="session")
def finished(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        # A ledger of its own: other tests open the test set of the same phantom.
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.mktemp("home-of-finished")))
        fit(small_config(phantom), folder, command="medgraft fit phantom --out finished")
    return folder
