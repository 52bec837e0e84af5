"""DICOM exports from the folder to the prediction: patients from headers, one reading for training and afterwards."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import medgraft
from dicom_files import dicom, save
from medgraft.cli import app
from medgraft.config import DataConfig, make_config
from medgraft.data.cohort.cases import find_cases
from medgraft.data.cohort.identity import keep_names, pseudonym
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.decoded.images import build_cache
from medgraft.deploy.artefact import load_artefact
from medgraft.deploy.predict import predict_files
from medgraft.errors import ConfigError, RunError
from medgraft.listener import Listener
from medgraft.machine import home
from medgraft.types import Reading
from small_runs import evaluate, fit, small_config

NUM = 72


def film(number: int, rng: np.random.Generator) -> np.ndarray:
    """A dark 12-bit film; every second one has a bright disc."""
    stored = rng.integers(100, 900, (40, 36))
    if number % 2:
        y, x = np.ogrid[:40, :36]
        stored[(y - rng.integers(12, 28)) ** 2 + (x - rng.integers(12, 24)) ** 2 < 49] += 2000
    return stored.astype(np.uint16)


def export(root: Path) -> Path:
    """Class folders of mixed CR and DX, MONOCHROME1 and 2, with and without ending, two films a patient."""
    rng = np.random.default_rng(0)
    for number in range(NUM):
        stored, is_inverted = film(number, rng), number % 3 == 0
        made = dicom(
            4095 - stored if is_inverted else stored,
            modality="CR" if number % 5 else "DX",
            photometric="MONOCHROME1" if is_inverted else "MONOCHROME2",
            window=(2048, 4096),
            PatientID=f"patient {number // 4}-{number % 2}",
        )
        name = f"IM{number:06}" if number % 4 else f"{number}.dcm"
        save(made, root / ("disc" if number % 2 else "clear") / name)
    (root / "clear" / "README").write_text("not an image")
    return root


@pytest.fixture(autouse=True)
def _home_of_dicom(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key for all, because names of cases depend on it."""
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-dicom"))


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export."""
    return export(tmp_path_factory.mktemp("pacs") / "films")


@pytest.fixture(scope="module")
def trained(pacs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on it."""
    run = tmp_path_factory.mktemp("dicom-run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-dicom"))
        fit(small_config(pacs, train={"epochs": 6}, transfer={"cut": "4"}), run)
    return run


def test_patients_come_from_the_headers(pacs: Path) -> None:
    cohort = read_cohort(pacs)
    assert len(cohort) == NUM
    assert cohort.table["patient"].nunique() == NUM // 2
    assert any("Patients come from the DICOM headers: 36 patients" in note for note in cohort.notes)


def test_one_patient_id_for_all_is_none(tmp_path: Path) -> None:
    for number in range(8):
        made = dicom(film(number, np.random.default_rng(number)), PatientID="ANON")
        save(made, tmp_path / ("disc" if number % 2 else "clear") / f"{number}.dcm")
    cohort = read_cohort(tmp_path)
    assert cohort.table["patient"].isna().all()
    assert any("have one PatientID" in note for note in cohort.notes)


def test_a_run_keeps_patients_apart_and_says_what_was_done(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    splits = pd.read_csv(trained / "splits.csv")
    assert results["splits"]["group_kind"] == "patient"
    assert splits.groupby("group")["split"].nunique().max() == 1
    found = {finding["kind"]: finding["message"] for finding in results["audit"]["findings"]}
    assert found["dicom"] == f"DICOM: {NUM - 15} CR, 15 DX. Applied: window {NUM}, inverted 24."
    assert results["preprocessing"]["reading"] == {
        "rescale": "auto",
        "windows": ["file"],
        "scaling": "auto",
        "spacing_mm": [],
        "frames": "one",
        "complex": "refuse",
    }
    assert load_artefact(trained).artefact.preprocessing.reading == Reading()


def test_the_user_can_look_up_which_case_is_which(trained: Path, pacs: Path) -> None:
    (names,) = (home() / "names").iterdir()
    table = pd.read_csv(names, index_col="case")["file"]
    known = pd.read_csv(trained / "predictions.csv")
    assert set(known["path"]) <= set(table.index)
    assert all((pacs / file).is_file() for file in table)
    assert names.stat().st_mode & 0o077 == 0


def test_no_identity_leaves_the_machine(trained: Path) -> None:
    for file in trained.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".csv", ".html", ".md", ".jsonl", ".yaml"):
            text = file.read_text(encoding="utf-8")
            assert not {name for name in ("patient 0-0", "IM000001", "4.dcm") if name in text}, file


def test_prediction_from_the_raw_files_is_that_of_the_test(trained: Path, pacs: Path) -> None:
    known = pd.read_csv(trained / "predictions.csv")
    model = load_artefact(trained)
    files = read_cohort(pacs).files
    again = predict_files(model, [pacs / files[name][0] for name in known["path"]])
    assert set(again["status"]) == {"ok"}
    np.testing.assert_allclose(again["prob_disc"], known["prob_disc"], atol=1e-5)
    assert len(find_cases([pacs])) == NUM


def test_an_external_cohort_is_read_as_in_training(trained: Path, pacs: Path, tmp_path: Path) -> None:
    found = evaluate(trained, make_config(str(pacs), options={"data": {"windows": ("lung",)}}).data, replicates=200)
    assert found["num_images"] == NUM


def test_an_export_without_labels_is_told_how_to_label_it(tmp_path: Path) -> None:
    for number in range(39):
        made = dicom(film(number, np.random.default_rng(number)), PatientID=f"T{number}")
        save(made, tmp_path / f"ST{number // 3:04}" / f"IM{number}")
    assert any("label it with --labels TABLE" in note for note in read_cohort(tmp_path).notes)


def test_windows_must_exist_and_make_a_picture(pacs: Path, tmp_path: Path) -> None:
    for windows, told in (("lungs", "expected windows among"), ("lung,bone", "one or three")):
        with pytest.raises(ConfigError, match=told):
            fit(small_config(pacs, data={"windows": windows}), tmp_path / windows)


@pytest.mark.parametrize(
    ("told", "windows"), [("none", ()), ("lung,bone,pe", ("lung", "bone", "pe")), (None, ("file",))]
)
def test_windows_are_named_in_one_word(told: Any, windows: tuple[str, ...]) -> None:
    assert make_config("images", options={"data": {"windows": told}}).data.windows == windows


def test_the_command_line_reads_and_predicts(trained: Path, pacs: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"nonsense")
    called = CliRunner().invoke(
        app,
        ["predict", str(trained), str(pacs / "disc"), str(tmp_path / "broken.dcm"), "-o", str(tmp_path / "out.csv")],
    )
    assert called.exit_code == 0, called.output
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["status"].str.startswith("unreadable").sum() == 1
    assert len(table) == NUM // 2 + 1


def test_an_export_is_labelled_by_a_table_from_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for number in range(60):
        made = dicom(film(number, rng), PatientID=f"Q{number}", AccessionNumber=f"ACC-{number}")
        save(made, tmp_path / "export" / f"STUDY{number % 7}" / f"IM{number:05}")
        rows.append({"Accession Number": f"ACC-{number}", "diagnosis": "disc" if number % 2 else "clear"})
    pd.DataFrame([*rows, {"Accession Number": "ACC-999", "diagnosis": "disc"}]).to_csv(tmp_path / "l.csv", index=False)
    known = ["--labels", str(tmp_path / "l.csv"), "--key", "AccessionNumber"]
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "export"), *known])
    assert checked.exit_code == 0, checked.output
    said = " ".join(checked.output.split())
    assert "60 of 60 images found their AccessionNumber in l.csv; 0 images have no row, 1 rows have no image." in said
    run = tmp_path / "run"
    called = CliRunner().invoke(
        app,
        ["fit", str(tmp_path / "export"), *known, "--out", str(run), "--preset", "fast", "--epochs", "1", "--size", "32",
         "--cut", "3", "--device", "cpu", "--deterministic", "--offline"],
    )  # fmt: skip
    assert called.exit_code == 0, called.output
    assert "ACC-" not in (run / "predictions.csv").read_text() + (run / "report.html").read_text()
    wrong = CliRunner().invoke(app, ["check", str(tmp_path / "export"), *known[:2], "--key", "Room"])
    assert isinstance(wrong.exception, ConfigError)
    assert "data.key" in str(wrong.exception)


def test_units_are_pooled_wherever_something_is_judged(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(2), []
    for number in range(120):
        study = number // 2
        made = dicom(film(study, rng), PatientID=f"R{study}", StudyInstanceUID=f"1.2.{study}")
        save(made, tmp_path / "export" / f"IM{number:05}")
        rows.append({"StudyInstanceUID": f"1.2.{study}", "label": "disc" if study % 2 else "clear"})
    pd.DataFrame(rows).drop_duplicates().to_csv(tmp_path / "l.csv", index=False)
    data = {"labels": str(tmp_path / "l.csv"), "key": "StudyInstanceUID", "unit": "study"}
    lines: list[str] = []
    config = small_config(tmp_path / "export", data=data, train={"epochs": 3}, transfer={"cut": "4"})
    results = fit(config, tmp_path / "run", listener=Listener(say=lines.append))
    judged = pd.read_csv(tmp_path / "run" / "predictions.csv")
    cohort = read_cohort(tmp_path / "export", **data)
    splits = pd.read_csv(tmp_path / "run" / "splits.csv")
    num = int((splits["split"] == "test").sum())
    assert results["test"]["num_cases"] == len(judged) == num // 2
    assert any(f"({num // 2} studies of {num} images)" in line for line in lines)
    assert f"{num // 2} test studies" in (tmp_path / "run" / "report.html").read_text()
    model = load_artefact(tmp_path / "run")
    by_case = dict(zip(cohort.table["path"], cohort.table["unit"], strict=True))
    files = {unit: [] for unit in by_case.values()}
    for case, unit in by_case.items():
        files[unit].append(tmp_path / "export" / cohort.files[case][0])
    for case, prob in zip(judged["path"], judged["prob_disc"], strict=True):
        alone = predict_files(model, files[by_case[case]], unit="image")["prob_disc"]
        assert len(alone) == 2
        assert prob == pytest.approx(alone.mean(), abs=1e-5)
    # Prediction judges what the model was judged by; a broken image costs a remark, one without a study stands alone.
    everyone = predict_files(model, find_cases([tmp_path / "export"])).set_index("path")
    assert set(everyone["images"]) == {2}
    named = [files[by_case[case]][0].as_posix() for case in judged["path"]]
    np.testing.assert_allclose(everyone["prob_disc"][named], judged["prob_disc"], atol=1e-5)
    whole = {name: (tmp_path / "export" / name).read_bytes() for name in ("IM00001", "IM00003")}
    (tmp_path / "export" / "IM00001").write_bytes(whole["IM00001"][:-20])
    (tmp_path / "export" / "IM00003").write_bytes(whole["IM00003"][:200])
    told = medgraft.predict(model, tmp_path / "export")
    assert told["images"].value_counts().to_dict() == {2: 58, 1: 2, 0: 1}
    assert told["status"][0].startswith("1 of 2 images unreadable: ")
    assert told["status"].str.startswith("unreadable: ").sum() == 1
    assert np.isfinite(told["prob_disc"]).sum() == 60
    assert len(medgraft.predict(model, tmp_path / "export", unit="image")) == 120
    for name, content in whole.items():
        (tmp_path / "export" / name).write_bytes(content)
    again = evaluate(tmp_path / "run", config.data, replicates=200, out=tmp_path / "evaluated")
    assert (again["num_images"], again["num_cases"]) == (120, 60)
    assert len(pd.read_csv(tmp_path / "evaluated" / "predictions.csv")) == 60
    assert "1.2.3" not in (tmp_path / "run" / "splits.csv").read_text()


def test_three_windows_make_a_colour_cohort(tmp_path: Path) -> None:
    for number in range(8):
        stored = film(number, np.random.default_rng(number))
        made = dicom(stored, modality="CT", rescale=(1.0, -1024.0), PatientID=f"S{number}")
        save(made, tmp_path / "films" / ("disc" if number % 2 else "clear") / f"{number}.dcm")
    cohort = read_cohort(tmp_path / "films")
    decoded = build_cache(cohort, tmp_path / "cache", sides=(32, 32), reading=Reading(windows=("lung", "bone", "pe")))
    assert decoded.channels == 3
    assert not np.array_equal(decoded.images[0, 0], decoded.images[0, 1])


def test_broken_files_are_pseudonyms_too(tmp_path: Path) -> None:
    for number in range(8):
        name = tmp_path / "films" / ("disc" if number % 2 else "clear") / f"DOE_JOHN_{number}.dcm"
        save(dicom(film(number, np.random.default_rng(number)), PatientID=f"S{number}"), name)
    (tmp_path / "films" / "clear" / "DOE_JANE.dcm").write_bytes(b"")
    (tmp_path / "films" / "clear" / "DOE_JACK.dcm").write_bytes(b"short")
    cohort = read_cohort(tmp_path / "films")
    decoded = build_cache(cohort, tmp_path / "cache", sides=(32, 32))
    assert len(decoded.broken) == 2
    assert "DOE" not in "".join(one.path + one.reason for one in decoded.broken)


def test_names_of_another_table_on_the_same_folder_are_kept(tmp_path: Path) -> None:
    place = keep_names(tmp_path, {"case-a": ('x "quoted", y.dcm',)})
    assert keep_names(tmp_path, {"case-b": ("z.dcm",)}) == place
    assert pd.read_csv(place).to_numpy().tolist() == [["case-a", 'x "quoted", y.dcm'], ["case-b", "z.dcm"]]


def test_a_key_that_is_none_is_refused() -> None:
    pseudonym("anybody")
    key = home() / "pseudonym.key"
    known = key.read_text()
    key.write_text("")
    with pytest.raises(RunError, match="expected a key of 64 characters"):
        pseudonym("anybody")
    key.write_text(known)


def test_options_of_a_table_need_one(pacs: Path) -> None:
    for options in ({"key": "PatientID"}, {"unit": "study"}):
        with pytest.raises(ConfigError, match="Add --labels"):
            read_cohort(pacs, **options)


def test_advice_and_analysis_take_an_export_too(pacs: Path, tmp_path: Path) -> None:
    rows = [(path.relative_to(pacs).as_posix(), path.parent.name) for (path,) in find_cases([pacs])]
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(tmp_path / "l.csv", index=False)
    known = ["--labels", str(tmp_path / "l.csv"), "--key", "path", "--size", "32", "--offline"]
    advised = CliRunner().invoke(app, ["advise", str(pacs), *known, "--json"])
    assert advised.exit_code == 0, advised.output
    analysed = CliRunner().invoke(app, ["analyze", str(pacs), "--out", str(tmp_path / "a"), *known])
    assert analysed.exit_code == 0, analysed.output
    assert (tmp_path / "a" / "analysis.html").is_file()


def judged_by(unit: str, trained: Path, run: Path) -> Path:
    """The trained model as if it had been judged by another unit."""
    shutil.copytree(trained / "model", run / "model")
    described = json.loads((run / "model" / "model.json").read_text())
    (run / "model" / "model.json").write_text(json.dumps(described | {"judged_by": unit}))
    return run


def test_a_model_judged_by_patient_is_evaluated_by_patient_with_or_without_a_table(
    trained: Path, pacs: Path, tmp_path: Path
) -> None:
    """On an export without --labels it was once judged film by film, without a word."""
    run = judged_by("patient", trained, tmp_path / "run")
    said: list[str] = []
    result = evaluate(run, DataConfig(source=str(pacs)), replicates=100, listener=Listener(say=said.append))
    assert (result["num_cases"], result["num_images"], result["judged_by"]) == (NUM // 2, NUM, "patient")
    assert any("judged as 36 patients" in text for text in said)
    alone = evaluate(run, DataConfig(source=str(pacs)), unit="image", replicates=100)
    assert alone["num_cases"] == NUM
    # The same by a table that names the files.
    cohort = read_cohort(pacs)
    rows = [(str(file), label) for row, label in enumerate(cohort.table["label"]) for file in cohort.files_of(row)]
    names = [Path(file).relative_to(pacs).as_posix() for file, _ in rows]
    pd.DataFrame({"path": names, "label": [label for _, label in rows]}).to_csv(tmp_path / "labels.csv", index=False)
    by_table = evaluate(run, DataConfig(source=str(pacs), labels=str(tmp_path / "labels.csv")), replicates=100)
    assert by_table["num_cases"] == NUM // 2
    assert by_table["metrics"]["auroc"]["value"] == pytest.approx(result["metrics"]["auroc"]["value"])


def test_files_that_tell_no_patient_are_judged_alone_and_that_is_said(
    trained: Path, pacs: Path, tmp_path: Path
) -> None:
    run = judged_by("study", trained, tmp_path / "run")
    rng = np.random.default_rng(0)
    for number in range(24):
        place = tmp_path / "png" / ("disc" if number % 2 else "clear") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((film(number, rng) // 16).astype(np.uint8)).save(place)
    said: list[str] = []
    result = evaluate(run, DataConfig(source=str(tmp_path / "png")), replicates=100, listener=Listener(say=said.append))
    assert result["num_cases"] == 24
    assert any("no file tells its study" in text for text in said)
