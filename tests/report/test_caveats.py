import json

import pytest

from medgraft.report.caveats import find_caveats, is_patient_known, is_phantom
from medgraft.report.reading import read_run


def titles(run) -> list[str]:
    return [caveat.title for caveat in find_caveats(read_run(run))]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"test.num_groups": 12}, "Few test patients or groups"),
        ({"test.num_groups": 60}, "A modest test set"),
        ({"ledger.openings": 2}, "Test labels opened 2 times"),
        ({"splits.groups": "image"}, "No patient ids"),
        ({"command": "medgraft demo"}, "A demonstration, not evidence"),
        ({"notes": ["The cohort is the packaged phantom."]}, "A demonstration, not evidence"),
        ({"backbone.load_report.matched_fraction": 0.67}, "Partly random weights"),
        ({"backbone.load_report.source": "none"}, "No pretrained weights"),
        ({"test.verdict": "inconclusive"}, "Nothing proven"),
        ({"late_gain": {"chosen": 0.0, "baseline": 0.03}}, "Training ended while it still helped"),
        ({"seeds": [0]}, "One training seed"),
        ({"splits.counts.test": {"normal": 200, "pneumonia": 4}}, "Hardly any test cases of a class"),
    ],
)
def test_each_fact_brings_its_caveat(make_run, finished_runs, changes, title):
    assert title not in titles(finished_runs["binary"])
    assert title in titles(make_run(changes=changes))


def test_near_duplicates_and_stopping_findings_are_caveats(make_run):
    run = make_run()
    (run / "audit.json").write_text(
        '{"findings": [{"kind": "patients", "severity": "stop", "message": "p7 is in two."}]}'
    )
    assert "A leak or defect in the data" in titles(run)
    assert "Near-duplicates" not in titles(run)


@pytest.mark.parametrize(
    ("kind", "title", "weight"),
    [
        ("duplicate-label-conflict", "Contradicting labels", "strong"),
        ("site-confounding", "A shortcut in the data", "strong"),
        ("mask-affine", "Masks that lie elsewhere than their images", "strong"),
        ("mask-shift", "Masks that may be shifted, or of other images", "strong"),
        ("mask-label", "Numbers that hardly any mask holds", "strong"),
        ("mask-size", "Cases left out for their masks", "note"),
        ("mask-unreadable", "Cases left out for their masks", "note"),
    ],
)
def test_suspect_findings_are_caveats_unless_they_are_only_information(make_run, kind, title, weight):
    run = make_run()
    for severity, expected in (("warn", [weight]), ("info", [])):
        finding = {"kind": kind, "severity": severity, "message": "3 images."}
        (run / "audit.json").write_text(json.dumps({"findings": [finding]}))
        assert [caveat.weight for caveat in find_caveats(read_run(run)) if caveat.title == title] == expected


def test_how_near_duplicates_were_searched_is_no_caveat(finished_runs):
    assert titles(finished_runs["binary"]).count("Near-duplicates") == 1


def test_leaks_that_were_dropped_are_told_as_done(make_run):
    run = make_run(changes={"notes": ["Leaks were dropped: 8 from train, 0 from val; the test split is whole."]})
    finding = {
        "kind": "duplicate-across-splits",
        "severity": "stop",
        "message": "8 images occur in two splits.",
    }
    (run / "audit.json").write_text(json.dumps({"findings": [finding]}))
    assert "Leaks removed" in titles(run)
    assert "A leak or defect in the data" not in titles(run)


def test_the_weightiest_caveats_come_first(make_run):
    run = make_run(changes={"seeds": [0], "test.num_groups": 12})
    weights = [caveat.weight for caveat in find_caveats(read_run(run))]
    assert weights == sorted(weights, reverse=True)


def test_every_real_run_says_that_it_saw_one_source_and_the_phantom_says_more(make_run, finished_runs):
    assert "One source" in titles(finished_runs["binary"])
    run = make_run(changes={"is_phantom": True})
    assert is_phantom(read_run(run))
    assert "One source" not in titles(run)


def test_patients_are_known_from_the_run_or_from_its_predictions(make_run, drop):
    run = make_run(changes={"splits.groups": drop})
    assert is_patient_known(read_run(run)) is True
    (run / "predictions.csv").unlink()
    assert is_patient_known(read_run(run)) is None


@pytest.mark.parametrize(
    ("chosen", "baseline", "weight", "words"),
    [
        (
            0.004,
            0.095,
            "strong",
            "full fine-tuning still rose by 0.095 in AUPRC on validation. Give more --epochs: a base",
        ),
        (0.06, 0.05, "note", "the chosen model still rose by 0.060 and full fine-tuning still rose by 0.050 in AUPRC"),
        (0.03, None, "note", "the chosen model still rose by 0.030 in AUPRC on validation. Give more --epochs."),
        (0.019, 0.019, None, ""),
        (None, None, None, ""),
    ],
)
def test_a_baseline_that_was_still_learning_weighs(make_run, chosen, baseline, weight, words):
    run = read_run(make_run(changes={"late_gain": {"chosen": chosen, "baseline": baseline}, "test.margin": 0.02}))
    found = [caveat for caveat in find_caveats(run) if caveat.title == "Training ended while it still helped"]
    assert [caveat.weight for caveat in found] == ([weight] if weight else [])
    assert all(words in caveat.text for caveat in found)


@pytest.mark.parametrize(
    ("verdict", "continued", "weight"),
    [
        ("better", "inconclusive", "strong"),
        ("non-inferior", "worse", "strong"),
        ("better", "better", "note"),
        ("inconclusive", "inconclusive", "note"),
        ("worse", "better", "note"),
    ],
)
def test_a_warm_start_is_told_and_weighs_when_it_explains_the_gain(make_run, finished_runs, verdict, continued, weight):
    title = "Trained longer than its baseline"
    assert title not in titles(finished_runs["binary"])
    gain = {"value": 0.01, "ci95": [-0.01, 0.03], "p": 0.2}
    changes = {"continued.difference.auroc": gain, "continued.verdict": continued, "test.verdict": verdict}
    run = read_run(make_run(changes=changes))
    (caveat,) = [caveat for caveat in find_caveats(run) if caveat.title == title]
    assert caveat.weight == weight
    assert "+0.010 (" in caveat.text
    assert caveat.text.endswith(f": {continued}.")
