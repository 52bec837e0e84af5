import numpy as np
import pandas as pd
import pytest

from medgraft.errors import RunError
from medgraft.metrics.classification import accuracy
from medgraft.report.run_files import (
    image_data_uri,
    read_predictions,
    read_run,
)


def test_a_folder_without_results_is_refused_with_advice(tmp_path):
    with pytest.raises(RunError, match=r"expected a finished run with results\.json, got .*medgraft fit"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "could not read .*results.json"),
        ("[1]", "expected a JSON object .* got list"),
        ("{}", "expected results.json of schema 3, got None"),
    ],
)
def test_broken_results_are_named(make_run, text, message):
    run = make_run()
    (run / "results.json").write_text(text)
    with pytest.raises(RunError, match=message):
        read_run(run)


def test_a_table_without_a_needed_column_is_named(make_run):
    run = make_run()
    (run / "history.csv").write_text("seed,epoch\n0,1\n")
    with pytest.raises(RunError, match=r"expected the columns role in .*history\.csv, got seed, epoch"):
        read_run(run)


def test_an_empty_table_is_named(make_run):
    run = make_run()
    (run / "search.csv").write_text("")
    with pytest.raises(RunError, match=r"unreadable in .*search\.csv"):
        read_run(run)


def test_a_missing_probability_column_is_named(make_run):
    run = make_run()
    table = pd.read_csv(run / "predictions.csv").drop(columns="prob_normal")
    table.to_csv(run / "predictions.csv", index=False)
    with pytest.raises(RunError, match="got none for prob_normal"):
        read_predictions(read_run(run), "test")


@pytest.mark.parametrize(
    ("label", "message"),
    [("flu", "got 'flu' in predictions.csv, row 1"), ("", "expected one label per case, got ''")],
)
def test_a_label_that_is_no_class_is_named_with_its_row(make_run, label, message):
    run = make_run()
    table = pd.read_csv(run / "predictions.csv")
    table.loc[0, "label"] = label
    table.to_csv(run / "predictions.csv", index=False)
    with pytest.raises(RunError, match=message):
        read_predictions(read_run(run), "test")


def test_classes_called_na_or_with_a_bar_are_read_as_they_are(make_run):
    table = pd.DataFrame({"path": ["a", "b"], "label": ["NA", "x|y"], "prob_NA": [0.9, 0.2], "prob_x|y": [0.1, 0.8]})
    run = make_run(changes={"classes": ["NA", "x|y"], "positive": "NA"})
    table.to_csv(run / "predictions.csv", index=False)
    pred = read_predictions(read_run(run), "test")
    assert pred.targets.tolist() == [0, 1]
    assert pred.positive == 0


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_predictions_read_back_give_the_stored_accuracy(finished_runs, task):
    run = read_run(finished_runs[task])
    assert accuracy(read_predictions(run, "test")) == pytest.approx(run.result.test.chosen.scores["accuracy"].value)


def test_cases_without_a_known_patient_are_groups_of_their_own(make_run):
    run = make_run()
    table = pd.read_csv(run / "predictions.csv")
    table.loc[:3, "patient"] = ""
    table.loc[4:, "patient"] = "one"
    table.to_csv(run / "predictions.csv", index=False)
    groups = read_predictions(read_run(run), "test").groups
    assert len(np.unique(groups)) == 5


def test_cases_without_a_prediction_are_left_out_(make_run):
    run = make_run()
    table = pd.read_csv(run / "predictions.csv").astype({"prob_normal": object, "prob_lesion": object})
    table.loc[3:5, ["prob_normal", "prob_lesion"]] = ""
    table.to_csv(run / "predictions.csv", index=False)
    files = read_run(run)
    assert len(read_predictions(files, "test").probs) == len(table) - 3
    assert np.isfinite(read_predictions(files, "test").probs).all()


@pytest.mark.parametrize("name", ["../results.json", "", "absent.png", "/etc/hostname"])
def test_a_thumbnail_outside_its_folder_is_refused(finished_runs, name):
    with pytest.raises(RunError, match="expected a thumbnail inside"):
        image_data_uri(finished_runs["binary"], name)


def test_a_thumbnail_that_is_no_png_is_refused(make_run):
    run = make_run()
    (run / "report_images" / "evil.png").write_text("<svg onload=alert(1)>")
    with pytest.raises(RunError, match="expected a PNG thumbnail"):
        image_data_uri(run, "evil.png")


def test_a_table_that_is_absent_gives_no_predictions(make_run):
    run = make_run()
    (run / "predictions_val.csv").unlink()
    assert read_predictions(read_run(run), "val") is None
