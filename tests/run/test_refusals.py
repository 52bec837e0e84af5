"""What is known to fail is refused by every job alike, before an image is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medgraft.prepare.cohort as cohort
import medgraft.prepare.network as network
from medgraft.config import RunConfig, make_config
from medgraft.errors import ConfigError, RunError
from medgraft.estimator import TransferClassifier
from medgraft.files import write_text
from medgraft.run.advise import advise
from medgraft.run.analyze import analyze_cohort
from medgraft.run.compare import compare
from medgraft.run.fit import fit
from medgraft.setup.folder import open_run, output_folder

JOBS: dict[str, Callable[[RunConfig, Path], Any]] = {
    "fit": fit,
    "compare": compare,
    "analyze": analyze_cohort,
    "advise": lambda config, _out: advise(config),
}


def config_of(job: str, sets: list[str]) -> RunConfig:
    options = {"compare": {"strategies": ["ttl"]}} if job == "compare" else {}
    return make_config("nowhere", options=options, sets=sets)


@pytest.fixture(autouse=True)
def _nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("the cohort was read")

    monkeypatch.setattr(cohort, "read_cohort", read)
    monkeypatch.setattr(cohort, "read_mask_cohort", read)
    monkeypatch.setattr(network, "open_backbone", read)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.loss=tversky"], "about masks"),
        (["transfer.decoder=fpn"], "about masks"),
        (["device=abacus"], "device of this machine"),
        (["evaluate.operating_point=best"], "operating point"),
        (["search.method=incremental"], "search for lwft"),
        (["budget_minutes=3", "deterministic=true"], "budget"),
        (["data.folds=2"], "3 to 20, got 2"),
    ],
)
def test_every_job_refuses_it(job: str, sets: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        JOBS[job](config_of(job, sets), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("job", JOBS)
def test_a_launcher_with_several_processes_is_refused(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=f"{job} to run in one process, got 2"):
        JOBS[job](config_of(job, []), tmp_path / "out")


@pytest.mark.parametrize("job", ["compare", "analyze", "advise"])
def test_jobs_on_labels_refuse_masks(job: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{job} understands labels alone"):
        JOBS[job](config_of(job, ["data.task=segmentation"]), tmp_path / "out")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["transfer.cut=3"], "neither --folds nor --cut"),
        (["data.folds=3"], "neither --folds nor --cut"),
        (["transfer.strategy=lwft"], "takes --strategies"),
        (["budget_minutes=3"], "takes no budget"),
        (["transfer.head=svm"], "add hybrid"),
        (["compare.fractions=[0.5,0.5]"], "fractions to compare that differ"),
        (["compare.uncertain=[ones,ones]"], "uncertain to compare that differ"),
        (["compare.strategies=[ttl,ttl]"], "strategies to compare that differ"),
    ],
)
def test_a_comparison_refuses_what_it_would_ignore(sets: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(config_of("compare", sets), tmp_path / "out")


@pytest.mark.parametrize(
    ("job", "sets", "message"),
    [
        ("analyze", ["data.folds=3"], "analyze divides once"),
        ("advise", ["data.folds=3"], "advise divides once"),
        ("analyze", ["budget_minutes=3"], "analyze takes no budget"),
        ("advise", ["budget_minutes=3"], "advise takes no budget"),
        ("analyze", ["executor=processes:2"], "got --executor processes:2"),
    ],
)
def test_a_look_at_a_cohort_refuses_what_it_would_ignore(
    job: str, sets: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        JOBS[job](config_of(job, sets), tmp_path / "out")


def test_scikit_learns_face_refuses_alike() -> None:
    with pytest.raises(ConfigError, match="search for lwft"):
        TransferClassifier(search="incremental").fit(["a.png", "b.png"], [0, 1])


@pytest.mark.parametrize("trained", ["checkpoints", "fold_1/checkpoints"])
def test_an_error_leaves_what_was_trained_and_nothing_else(trained: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="disk"), open_run(tmp_path / "refused", config_of("fit", [])):
        raise RunError("disk full")
    assert not (tmp_path / "refused").exists()

    def fails_late(folder: Path) -> None:
        (folder / trained / "a").mkdir(parents=True)
        raise RunError("disk full")

    with pytest.raises(RunError, match="disk"), open_run(tmp_path / "failed", config_of("fit", [])) as folder:
        fails_late(folder)
    assert (tmp_path / "failed" / trained / "a").is_dir()
    with open_run(tmp_path / "failed", config_of("fit", [])):
        pass


def test_who_comes_second_leaves_the_run_of_the_first_alone(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", config_of("fit", [])) as folder:
        (folder / "mine").mkdir()
        with pytest.raises(RunError, match="is running in it"), open_run(folder, config_of("fit", [])):
            pass
        assert {"config.yaml", "run.json", "mine"} <= {path.name for path in folder.iterdir()}


def test_a_file_elsewhere_that_fails_is_named_instead_of_the_run(tmp_path: Path) -> None:
    lost = tmp_path / "lost.png"
    with (
        pytest.raises(RunError, match=f"could not read or write {lost}"),
        open_run(tmp_path / "run", config_of("fit", [])),
    ):
        lost.read_bytes()


def test_a_run_is_no_place_for_other_results(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", config_of("fit", [])) as folder:
        write_text(folder / "predictions.csv", "mine")
    with pytest.raises(RunError, match="another place for these results"):
        output_folder(folder)
    assert output_folder(folder / "elsewhere").is_dir()
    assert (folder / "predictions.csv").read_text() == "mine"
