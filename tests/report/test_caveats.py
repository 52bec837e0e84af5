import json

import pytest

from kinds import results_of
from medgraft.report.caveats import find_caveats, is_patient_known
from medgraft.report.checklist import checklist
from medgraft.report.prose import methods
from medgraft.report.run_files import read_run

# A run that only the changes of a test cast doubt on.
SOUND = {
    "seeds": [0, 1, 2],
    "test.num_groups": 240,
    "test.verdict": "non-inferior",
    "splits.tested": {"lesion": 120, "normal": 120},
    "audit.findings": [],
    "late_gain": {"chosen": 0.0, "baseline": 0.0},
}


def titles(run) -> list[str]:
    return [caveat.title for caveat in find_caveats(read_run(run))]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"test.num_groups": 12}, "Few test patients or groups"),
        ({"test.num_groups": 60}, "A modest test set"),
        ({"ledger.openings": 2}, "Test labels opened 2 times"),
        ({"splits.group_kind": "images"}, "No patient ids"),
        ({"is_phantom": True}, "A demonstration, not evidence"),
        ({"backbone.load_report.matched_fraction": 0.67}, "Partly random weights"),
        ({"backbone.load_report.source": "none"}, "No pretrained weights"),
        ({"test.verdict": "inconclusive"}, "Nothing proven"),
        ({"late_gain": {"chosen": 0.0, "baseline": 0.03}}, "Training ended while it still helped"),
        ({"seeds": [0]}, "One training seed"),
        ({"seeds": [0, 1]}, "2 training seeds"),
        ({"splits.tested": {"normal": 200, "lesion": 4}}, "Hardly any test cases of a class"),
        ({"splits.without_patient": 4}, "Patients of 4 images are not known"),
        ({"audit.counts": {"images": 97, "unreadable": 3}}, "Files left out"),
    ],
)
def test_each_fact_brings_its_caveat(make_run, changes, title):
    assert title not in titles(make_run(changes=SOUND))
    assert title in titles(make_run(changes={**SOUND, **changes}))


def test_near_duplicates_and_stopping_findings_are_caveats(make_run):
    finding = {"kind": "patients", "severity": "stop", "message": "p7 is in two.", "count": 1}
    run = make_run(changes={"audit.findings": [finding]})
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
    results = json.loads((run / "results.json").read_text())
    for severity, expected in (("warn", [weight]), ("info", [])):
        finding = {"kind": kind, "severity": severity, "message": "3 images.", "count": 3}
        results["audit"]["findings"] = [finding]
        (run / "results.json").write_text(json.dumps(results))
        assert [caveat.weight for caveat in find_caveats(read_run(run)) if caveat.title == title] == expected


def test_how_near_duplicates_were_searched_is_no_caveat(make_run):
    search = {"kind": "near-duplicate-search", "severity": "info", "message": "10 pairs only.", "count": 10}
    pair = {"kind": "near-duplicate", "severity": "warn", "message": "1 pair.", "count": 1}
    assert titles(make_run(changes={"audit.findings": [search, pair]})).count("Near-duplicates") == 1


def test_leaks_that_were_dropped_are_told_as_done(make_run):
    finding = {
        "kind": "duplicate-across-splits",
        "severity": "stop",
        "message": "8 images occur in two splits.",
        "count": 8,
    }
    run = make_run(changes={"splits.are_leaks_dropped": True, "audit.findings": [finding]})
    assert "Leaks removed" in titles(run)
    assert "A leak or defect in the data" not in titles(run)


def test_the_weightiest_caveats_come_first(make_run):
    run = make_run(changes={"seeds": [0], "test.num_groups": 12})
    weights = [caveat.weight for caveat in find_caveats(read_run(run))]
    assert weights == sorted(weights, reverse=True)


def test_every_real_run_says_that_it_saw_one_source_and_the_phantom_says_more(make_run, finished_runs):
    assert "One source" in titles(finished_runs["binary"])
    run = make_run(changes={"is_phantom": True})
    assert "One source" not in titles(run)


@pytest.mark.parametrize("words", ["phantom", "medgraft demo", "generated phantom"])
def test_names_never_make_a_phantom_of_a_cohort(make_run, words):
    """Notes hold names of classes and files: a cohort of CT phantoms was once called a drawing of this program."""
    run = make_run(changes={"notes": [f"310 rows in {words}.csv."], "command": f"medgraft fit {words}"})
    assert "A demonstration, not evidence" not in titles(run)
    assert "phantom" not in " ".join(methods(read_run(run))[0])
    assert "phantom" not in " ".join(item.answer for item in checklist(read_run(run)))


def test_patients_are_known_where_groups_are_patients(make_run):
    assert is_patient_known(read_run(make_run()))
    assert not is_patient_known(read_run(make_run(changes={"splits.group_kind": "images"})))


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
    gain = {"auroc": {"value": 0.01, "ci95": [-0.01, 0.03], "p": 0.2}}
    further = {
        **results_of(finished_runs["binary"])["test"]["baseline"],
        "cut": {"index": 9, "name": "layer4.1", "num_params": 1, "macs": 1}, "num_params": 1, "macs": 1, "epochs": 2,
        "difference": gain, "verdict": continued, "headline": "The compact model is here", "numbers": "",
    }  # fmt: skip
    run = read_run(make_run(changes={"continued": further, "test.verdict": verdict}))
    (caveat,) = [caveat for caveat in find_caveats(run) if caveat.title == title]
    assert caveat.weight == weight
    assert "+0.010 (" in caveat.text
    assert caveat.text.endswith(f": {continued}.")


def test_what_would_decide_depends_on_what_the_interval_is_made_of(make_run):
    def said(**spread):
        whole = {"cases": 0.01, "trainings": 0.02, "freedom": 30.0, "is_measured": False, **spread}
        run = make_run(changes={**SOUND, "test.verdict": "inconclusive", "test.difference.auroc.spread": whole})
        (text,) = (one.text for one in find_caveats(read_run(run)) if one.title == "Nothing proven")
        return text

    assert "--seeds 3, then more test cases, would decide" in said()
    for spread in ({"is_measured": True}, {"cases": 0.03}):
        assert "More test cases would decide" in said(**spread)
