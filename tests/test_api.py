"""The public functions do what the command line does."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import medgraft
from medgraft.errors import ConfigError, RunError
from small_runs import SMALL


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from medgraft.phantom.phantom import write_phantom

    folder = tmp_path_factory.mktemp("api")
    write_phantom(folder / "phantom", SMALL, 0)
    results = medgraft.fit(
        folder / "phantom" / "cases.csv",
        folder / "run",
        preset="fast",
        sets=["train.epochs=1"],
        data={"leaks": "drop"},
        backbone={"size": 32},
        transfer={"cut": "2"},
        evaluate={"replicates": 200},
        deterministic=True,
        offline=True,
    )
    return folder, results


def test_fit_takes_sections_as_keywords_and_returns_the_results(finished):
    folder, results = finished
    assert results["chosen"]["cut"]["index"] == 2
    assert (folder / "run" / "report.html").is_file()
    # The same call only reads the finished run.
    assert medgraft.load(folder / "run").artefact.cut.index == 2


def test_predict_takes_a_run_or_a_model_in_memory(finished):
    folder, _ = finished
    images = folder / "phantom" / "images"
    some = sorted(images.iterdir())[:3]
    table = medgraft.predict(folder / "run", some)
    pd.testing.assert_frame_equal(table, medgraft.predict(medgraft.load(folder / "run"), some))
    assert table["status"].tolist() == ["ok"] * 3
    columns = [f"prob_{name}" for name in SMALL.classes]
    probs = table[columns].to_numpy()
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-6)
    one = medgraft.predict(folder / "run", some[0])
    np.testing.assert_allclose(one[columns].to_numpy()[0], probs[0], atol=1e-5)


def test_predict_reads_any_size_and_colour(finished, tmp_path):
    Image.fromarray(np.zeros((9, 70, 3), np.uint8)).save(tmp_path / "wide.png")
    assert medgraft.predict(finished[0] / "run", tmp_path / "wide.png")["pred"].notna().all()


def test_cuts_and_truncation_work_on_any_network():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3), torch.nn.ReLU())
    cuts = medgraft.cut_points(network, (3, 16, 16))
    assert [cut.channels for cut in cuts] == [8, 4]
    trunk = medgraft.truncate(network, 1, (3, 16, 16))
    assert trunk(torch.zeros(2, 3, 16, 16)).shape == (2, 8, 14, 14)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match="trainn"):
        medgraft.fit(tmp_path, tmp_path / "run", trainn={"epochs": 1})
    with pytest.raises(RunError, match="expected a finished run"):
        medgraft.load(tmp_path)
