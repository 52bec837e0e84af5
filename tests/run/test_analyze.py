"""A finished run is analysed: what transfer changed and what each cut is worth, with the test set shut."""

import dataclasses
import html
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import medgraft.run.analyze as analyze_module
from medgraft.analysis.networks import similarity
from medgraft.analysis.source_images import read_source
from medgraft.config import read_config
from medgraft.deploy.artefact import load_artefact
from medgraft.errors import DataError, RunError
from medgraft.files import locked
from medgraft.listener import Listener
from medgraft.report.prose import decision_sentence
from medgraft.result.analysis import AnalysisResult, CutDecision, read_analysis
from medgraft.result.run import CutFacts
from medgraft.run.analyze import Question, analyze, analyze_cohort, analyze_runs
from medgraft.setup.plan import material_of
from medgraft.train import Engine, ImageSet
from medgraft.transfer import HeadSettings, apply_strategy
from medgraft.types import Preprocessing
from small_runs import fit, own_network, small_config

LOOKS_AT_FIGURES = True

NUM_CUTS = 4


@pytest.fixture(scope="module")
def quick(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network that is quickly probed."""
    folder = tmp_path_factory.mktemp("quick")
    backbone = own_network(folder / "net", NUM_CUTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home"))
        fit(small_config(phantom, backbone=backbone), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def analysed(quick: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AnalysisResult]:
    run = tmp_path_factory.mktemp("analysed") / "run"
    shutil.copytree(quick, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medgraft.evaluate.ledger.open_test", None)
        return run, analyze(run, Question(num_images=60))


def test_every_cut_has_similarities_and_signals(analysed: tuple[Path, AnalysisResult]) -> None:
    run, result = analysed
    assert result == read_analysis(run)
    indices = [cut.index for cut in result.cuts]
    assert indices == list(range(1, NUM_CUTS + 1))
    for measures in (result.after, result.random):
        for index in indices:
            pair = measures[index]
            assert 0 <= min(pair.svcca) <= max(pair.svcca) <= 1
            assert list(pair.svcca) == sorted(pair.svcca, reverse=True)
            assert 0 <= pair.pwcca <= 1
            assert pair.cka <= 1 + 1e-9
            assert 0 <= pair.procrustes <= 1
    for worth in (result.worth, result.worth_after):
        assert set(worth) == set(indices)
        assert None not in {value for one in worth.values() for value in (one.logme, one.h_score, one.nleep)}
    matrix = np.array(result.cka_after)
    np.testing.assert_allclose(np.diag(matrix), 1)
    np.testing.assert_allclose(matrix, matrix.T)


def test_every_layer_and_every_block_has_moved(analysed: tuple[Path, AnalysisResult]) -> None:
    _, result = analysed
    assert all(change.l2 > 0 for change in result.weights if change.block)
    assert set(result.importance) == set(range(1, NUM_CUTS + 1))


def test_two_epochs_leave_the_network_nearer_to_its_source_than_to_chance(finished: Path) -> None:
    material = material_of(read_config(finished / "config.yaml"), Listener())
    source, study = material.source, material.dataset.study
    head = HeadSettings(num_outputs=3)
    before, random = (
        apply_strategy(name, source, source.cuts[-1], head, lr=1.0, seed=0)[0] for name in ("ftl", "scratch")
    )
    after = load_artefact(finished / "baseline").network
    options = source.cuts, study.train, np.arange(60), Engine(device="cpu"), Listener()
    tuned, chance = (similarity(before, other, *options).cuts for other in (after, random))
    assert np.mean([pair.cka for pair in tuned.values()]) > np.mean([pair.cka for pair in chance.values()])


def test_the_report_shows_it(analysed: tuple[Path, AnalysisResult]) -> None:
    run, _ = analysed
    page = (run / "report.html").read_text()
    assert "Feature reuse" in page
    assert page.count('aria-label="SVCCA coefficients of every cut beside chance"') == 1


def test_the_same_run_gives_the_same_analysis(analysed: tuple[Path, AnalysisResult], tmp_path: Path) -> None:
    run, results = analysed
    assert analyze(run, Question(num_images=60, cache=str(tmp_path / "store"))) == results
    assert list((tmp_path / "store").glob("*/meta.json"))
    with locked(run / "run.lock"), pytest.raises(RunError, match="is running in it"):
        analyze(run)


def test_other_data_or_no_run_are_refused(quick: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected the folder of a finished"):
        analyze(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(quick, run)
    results = json.loads((run / "results.json").read_text())
    results["splits"]["sha256"] = "0" * 64
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(RunError, match="got others"):
        analyze(run)
    shutil.rmtree(run / "baseline")
    (run / "results.json").write_text((quick / "results.json").read_text())
    with pytest.raises(RunError, match=r"without model\.json"):
        analyze(run)


def test_the_decision_is_said_with_how_right_it_was(analysed: tuple[Path, AnalysisResult]) -> None:
    run, result = analysed
    decision = result.decision
    assert decision is not None
    probes = {index: worth.probe for index, worth in result.worth_after.items()}
    assert decision.probe == pytest.approx(probes[decision.cut.index])
    assert decision.best_probe == pytest.approx(max(probes.values()))
    trained = {one["cut"]: one["score"] for one in json.loads((run / "choice.json").read_text())["candidates"]}
    assert decision.trained == trained.get(decision.cut.index)
    sentence = decision_sentence(result)
    assert sentence in html.unescape((run / "report.html").read_text())
    assert f"keep cut {decision.cut.index} ({decision.cut.name})" in sentence


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trained": 0.8, "chosen": 2}, "Trained there, validation AUPRC is 0.800, 0.100 below the best"),
        ({"trained": 0.9, "chosen": 1}, "the best of those compared; so did the search"),
        ({"trained": 0.8997, "chosen": 2}, "is 0.900, as good as the best; the search chose cut 2 (two)"),
        ({"trained": None, "chosen": 2}, "The search did not train there; it chose cut 2 (two)"),
    ],
)
def test_the_sentence_tells_every_case(change: dict, told: str) -> None:
    one, two = (CutFacts(index=i, name=name, num_params=1, macs=1) for i, name in ((1, "one"), (2, "two")))
    decision = CutDecision(
        cut=one, rule="best", is_truncated=True, probe=0.7, best=2, best_probe=0.71, best_trained=0.9, num_trained=2,
        **change,
    )  # fmt: skip
    result = AnalysisResult(num_images=1, num_probed=1, cuts=(one, two), random={}, worth={}, decision=decision)
    assert told in decision_sentence(result)
    assert decision_sentence(dataclasses.replace(result, decision=None)) == decision_sentence(None) == ""
    other = dataclasses.replace(result, decision=dataclasses.replace(decision, is_truncated=False))
    assert decision_sentence(other).endswith("(AUPRC 0.700).")


def test_a_second_run_a_source_and_the_gain_are_shown(analysed: tuple[Path, AnalysisResult], tmp_path: Path) -> None:
    run, _ = analysed
    images = Path(pd.read_csv(run / "predictions.csv")["path"].iloc[0])
    source = next(p for p in Path(yaml.safe_load((run / "config.yaml").read_text())["data"]["source"]).parents)
    assert (source / images).is_file()
    source = source / images.parts[0]
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    (first, second) = analyze_runs([run, twin], Question(num_images=60, source=source, other=twin, is_gain_wanted=True))
    # The same network on both sides: every cut equals itself, and the images lie at no distance from themselves.
    for measures in first.other.cuts.values():
        np.testing.assert_allclose(measures.svcca, 1, atol=1e-4)
        assert measures.cka == pytest.approx(1)
    ends = [cut for cut in first.cuts if cut.index in first.distance.cuts]
    assert ends[-1].index == NUM_CUTS
    for row in first.distance.cuts.values():
        assert row.fid.ci95[0] <= row.fid.value <= row.fid.ci95[1]
        assert row.kid.ci95[0] <= row.kid.value <= row.kid.ci95[1]
    # The source holds these very images and the other splits: nearer than another cohort could be.
    assert first.distance.cuts[NUM_CUTS].kid.value < 0.05
    depths = [row.depth for row in first.gain]
    assert depths[0] == 0
    assert depths[-1] == NUM_CUTS
    assert first.gain[0].gain == 0
    assert all(0 <= row.val_auprc <= 1 for row in first.gain)
    assert [point.run for point in first.points] == [run.name, "twin"]
    assert first.points == second.points
    page = (run / "report.html").read_text()
    for text in ("How deep pretrained weights matter", "Distance to the source", "Against the run twin"):
        assert text in page
    assert 'aria-label="gain of pretrained weights against the distance to their source"' in page


def test_runs_of_other_images_or_networks_are_refused(analysed: tuple[Path, AnalysisResult], tmp_path: Path) -> None:
    run, _ = analysed
    for name, change, told in (
        ("images", lambda r, c: r["splits"].update(sha256="0" * 64), "same images and split"),
        ("network", lambda r, c: c["backbone"].update(size=48), "of one network"),
    ):
        other = tmp_path / name
        shutil.copytree(run, other)
        results = json.loads((other / "results.json").read_text())
        config = yaml.safe_load((other / "config.yaml").read_text())
        change(results, config)
        (other / "results.json").write_text(json.dumps(results))
        (other / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(RunError, match=told):
            analyze(run, Question(num_images=60, other=other))


def test_a_cohort_is_analysed_before_any_training(phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medgraft.evaluate.ledger.open_test", None)
        config = small_config(phantom, backbone=own_network(tmp_path / "net", NUM_CUTS))
        results = analyze_cohort(config, out, num_images=60)
        again = analyze_cohort(config, tmp_path / "again", num_images=60, source=out / "statistics.npz")
    assert set(results.worth) == set(results.worth_random)
    assert not results.worth_after
    assert {path.name for path in out.iterdir()} >= {"analysis.json", "analysis.html", "statistics.npz", "config.yaml"}
    page = html.unescape((out / "analysis.html").read_text())
    probes, chance = ([one.probe for one in worth.values()] for worth in (results.worth, results.worth_random))
    is_worth = max(probes) > max(chance)
    assert ("worth most at cut" in page, "no more than those of random weights" in page) == (is_worth, not is_worth)
    # Stored statistics of the very same images: no distance, and only FID without images.
    for index, row in again.distance.cuts.items():
        assert row.kid is None
        assert row.fid.value < 0.2 * np.trace(_covariance(out, index))
    assert "Distance to the source" in (tmp_path / "again" / "analysis.html").read_text()


def _covariance(out: Path, index: int) -> np.ndarray:
    with np.load(out / "statistics.npz") as stored:
        found: np.ndarray = stored[f"covariance_{index}"]
    return found


def test_statistics_of_another_network_are_refused(phantom: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", num_images=np.array(9), network=np.array("resnet"), mean_9=np.zeros(3))
    with pytest.raises(DataError, match="got those of resnet"):
        analyze_cohort(small_config(phantom), tmp_path / "out", num_images=60, source=tmp_path / "other.npz")
    with pytest.raises(DataError, match="found nothing"):
        analyze_cohort(small_config(phantom), tmp_path / "out", num_images=60, source=tmp_path / "nowhere")


def test_a_source_with_broken_images_is_read_as_far_as_it_goes(phantom: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    images = sorted(phantom.parent.rglob("*.png"))[:6]
    for number in range(24):
        shutil.copy(images[number % 6], source / f"{number}.png")
    (source / "broken.png").write_bytes(b"no image")
    said: list[str] = []
    preprocessing = Preprocessing(sides=(32, 32), channels=1, intensity_max=255)
    found = read_source(source, preprocessing, "network", 100, 0, Listener(say=said.append))
    assert isinstance(found, ImageSet)
    assert found.images.shape == (24, 1, 32, 32)
    assert any("broken.png is left out" in text for text in said)
    for number in range(10):
        (source / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="at least 20 readable images"):
        read_source(source, preprocessing, "network", 100, 0, Listener())
    for content in (b"", b"PK\x03\x04 half an archive"):
        (tmp_path / "broken.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"broken\.npz"):
            read_source(tmp_path / "broken.npz", preprocessing, "network", 100, 0, Listener())


def test_a_run_that_fails_leaves_the_reports_of_the_others_whole(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def analysed(folder: Path, *_: object) -> str:
        if folder.name == "broken":
            raise RunError("broken")
        return folder.name

    monkeypatch.setattr(analyze_module, "_analyzed", analysed)
    monkeypatch.setattr(analyze_module, "write_report", lambda folder: written.append(folder.name))
    with pytest.raises(RunError, match="broken"):
        analyze_runs([tmp_path / "one", tmp_path / "two", tmp_path / "broken", tmp_path / "three"])
    assert written == ["one", "two"]


def test_a_fold_is_refused_with_the_way_out(quick: Path, tmp_path: Path) -> None:
    shutil.copytree(quick, tmp_path / "fold_1")
    (tmp_path / "fold_1" / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"got a fold.*Fit without --folds"):
        analyze(tmp_path / "fold_1")
