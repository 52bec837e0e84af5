"""A finished run is analysed: what transfer changed and what each cut is worth, with the test set shut."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medgraft.errors import RunError
from medgraft.run.analyzing import analyze


@pytest.fixture(scope="module")
def analysed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    run = tmp_path_factory.mktemp("analysed") / "run"
    shutil.copytree(finished, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medgraft.evaluate.ledger.open_test", None)
        return run, analyze(run, num_images=60)


def test_every_cut_has_similarities_and_signals(analysed: tuple[Path, dict]) -> None:
    run, results = analysed
    assert results == json.loads((run / "analysis.json").read_text())
    indices = [str(cut["index"]) for cut in results["cuts"]]
    assert indices == [str(i) for i in range(1, 10)]
    for key in ("after", "random"):
        for index in indices:
            found = results["similarity"][key][index]
            assert 0 <= min(found["svcca"]) <= max(found["svcca"]) <= 1
            assert found["svcca"] == sorted(found["svcca"], reverse=True)
            assert 0 <= found["pwcca"] <= 1
            assert found["cka"] <= 1 + 1e-9
            assert 0 <= found["procrustes"] <= 1
    for key in ("before", "after"):
        assert set(results["signals"][key]) == set(indices)
        assert all({"probe", "knn", "logme", "h_score", "nleep"} == set(e) for e in results["signals"][key].values())
    matrix = np.array(results["similarity"]["cka_after"])
    np.testing.assert_allclose(np.diag(matrix), 1)
    np.testing.assert_allclose(matrix, matrix.T)


def test_two_epochs_leave_the_network_nearer_to_its_source_than_to_chance(analysed: tuple[Path, dict]) -> None:
    _, results = analysed
    after, random = results["similarity"]["after"], results["similarity"]["random"]
    assert np.mean([after[i]["cka"] for i in after]) > np.mean([random[i]["cka"] for i in after])
    assert all(change["l2"] > 0 for change in results["weights"] if change["block"])
    assert set(results["importance"]) == {str(i) for i in range(1, 10)}


def test_the_report_shows_it(analysed: tuple[Path, dict]) -> None:
    run, _ = analysed
    page = (run / "report.html").read_text()
    assert "Feature reuse" in page
    assert page.count('aria-label="SVCCA coefficients of every cut beside chance"') == 1


def test_the_same_run_gives_the_same_analysis(analysed: tuple[Path, dict]) -> None:
    run, results = analysed
    assert analyze(run, num_images=60) == results


def test_other_data_or_no_run_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected the folder of a finished"):
        analyze(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    results = json.loads((run / "results.json").read_text())
    results["splits"]["sha256"] = "0" * 64
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(RunError, match="got others"):
        analyze(run)
    shutil.rmtree(run / "baseline")
    (run / "results.json").write_text((finished / "results.json").read_text())
    with pytest.raises(RunError, match=r"without model\.json"):
        analyze(run)
