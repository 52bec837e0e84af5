import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats.contingency import association

from dicom_files import dicom, save
from medgraft.as_json import to_json
from medgraft.data import apply_leaks, audit_cohort, build_cache, read_cohort
from medgraft.data.audit.tables import cramers_v
from medgraft.errors import ConfigError, DataError, LeakError


@pytest.fixture
def audited(tmp_path, write, picture):
    """Reads, decodes and audits a table of {name: (pixels, label, patient, split, site)}."""

    def make(rows, **change):
        write(tmp_path / "d", {name: row[0] for name, row in rows.items()})
        frame = pd.DataFrame(
            [(name, *(list(row[1:]) + [None] * 4)[:4]) for name, row in rows.items()],
            columns=["path", "label", "patient", "split", "site"],
        )
        frame.dropna(axis=1, how="all").to_csv(tmp_path / "d" / "t.csv", index=False)
        cohort = read_cohort(tmp_path / "d" / "t.csv")
        decoded = build_cache(cohort, tmp_path / "c", **({"sides": (16, 16)} | change))
        kept = cohort.select(decoded.rows)
        return kept, audit_cohort(kept, decoded)

    return make


@pytest.fixture
def clean(picture):
    """60 different pictures: two classes, three splits, 20 patients."""
    return {
        f"{n}.png": (picture(n), "ab"[n % 2], f"p{n // 3}", ["train", "train", "val", "test"][(n // 3) % 4])
        for n in range(60)
    }


def kinds(audit):
    return {finding.kind: finding for finding in audit.findings}


def test_a_clean_cohort_has_no_finding_but_the_confirmation(audited, clean):
    cohort, audit = audited(clean)
    assert [finding.kind for finding in audit.findings] == ["patients-disjoint"]
    assert "0 patients are shared" in audit.findings[0].message
    assert not audit.has_leaks
    assert apply_leaks(cohort, audit, "stop") is cohort


def test_broken_constant_and_odd_images_are_told(audited, clean, picture):
    clean["broken.png"] = (b"\x89PNG", "a", "x1", "train")
    clean["flat.png"] = (np.full((64, 64), 9, np.uint8), "a", "x2", "train")
    clean["wide.png"] = (picture(70, 200)[:60], "a", "x3", "train")
    clean["huge.png"] = (picture(71, 400), "b", "x4", "train")
    cohort, audit = audited(clean)
    found = kinds(audit)
    assert found["unreadable"].paths == ("broken.png",)
    assert found["constant"].paths == ("flat.png",)
    assert set(found["odd-size"].paths) == {"wide.png", "huge.png"}
    assert "typical 64×64" in found["odd-size"].message
    assert (audit.num_images, audit.num_broken) == (63, 1)
    json.dumps(to_json(audit))
    assert [cohort.table["path"].iat[row] for row in found["constant"].rows] == ["flat.png"]


def test_duplicates_within_and_across_splits_are_counted(audited, clean, picture):
    clean["copy.bmp"] = (picture(0), "a", "p0", "val")
    clean["twin.png"] = (picture(1), "a", "p0", "train")
    _, audit = audited(clean)
    found = kinds(audit)
    assert "1 train–val" in found["duplicate-across-splits"].message
    assert found["duplicate-across-splits"].severity == "stop"
    assert "1 in train" in found["duplicate-within-split"].message
    assert found["duplicate-label-conflict"].count == 1
    assert len(audit.exact_duplicates) == 2
    assert audit.findings[0].severity == "stop"


def test_near_duplicates_are_pairs_with_their_splits_and_labels(audited, clean, picture):
    brighter = np.clip(picture(5).astype(int) + 8, 0, 255).astype(np.uint8)
    clean["near.png"] = (brighter, "a", "new", "test")
    cohort, audit = audited(clean)
    (pair,) = audit.near_duplicates
    assert {cohort.table["path"].iat[pair.first], cohort.table["path"].iat[pair.second]} == {"5.png", "near.png"}
    assert pair.detail > 0.9
    message = kinds(audit)["near-duplicate"].message
    assert "1 of them across splits" in message
    assert "1 of them with different labels" in message
    assert not audit.has_leaks


def test_views_of_one_patient_may_look_alike(audited, clean, picture):
    brighter = np.clip(picture(5).astype(int) + 8, 0, 255).astype(np.uint8)
    clean["near.png"] = (brighter, "b", "p1", "train")
    _, audit = audited(clean)
    assert len(audit.near_duplicates) == 1
    assert "near-duplicate" not in kinds(audit)


def test_labels_patients_and_classes_are_checked(audited, clean, picture):
    clean["v.png"] = (picture(80), "B ", "p0", "val")
    for name in list(clean):
        if clean[name][3] == "test" and clean[name][1] == "b":
            del clean[name]
    _, audit = audited(clean)
    found = kinds(audit)
    assert "'B', 'b' as 'b'" in found["label-spelling"].message or "'B ', 'b' as 'b'" in found["label-spelling"].message
    assert "1 patients" in found["patient-across-splits"].message
    assert "b in test" in found["class-missing"].message
    assert audit.has_leaks


def test_mixed_depth_and_dropped_colour_are_told(audited, clean, picture):
    clean["deep.png"] = (picture(90).astype(np.uint16) * 256, "a", "x", "train")
    clean["colour.png"] = (np.stack([picture(seed) for seed in (91, 92, 93)], axis=2), "b", "y", "train")
    assert kinds(audited(clean)[1])["mixed-colour"].count == 1
    found = kinds(audited(clean, channels=1)[1])
    assert found["mixed-depth"].count == 61
    assert found["colour-dropped"].paths == ("colour.png",)


def test_a_site_or_a_size_that_gives_the_label_away_is_told(audited, clean, picture):
    rows = {
        name: (picture(n, 64 if label == "a" else 80), label, patient, split, "s1" if label == "a" else "s2")
        for n, (name, (_, label, patient, split)) in enumerate(clean.items())
    }
    found = kinds(audited(rows)[1])
    assert "Cramér's V 1.00" in found["site-confounding"].message
    assert "size-confounding" in found


def test_cramers_v_agrees_with_scipy_but_for_the_correction_of_chance():
    random = np.random.default_rng(0)
    first = random.integers(0, 3, 5000)
    second = np.where(random.random(5000) < 0.6, first, random.integers(0, 3, 5000))
    expected = association(pd.crosstab(first, second).to_numpy(), method="cramer")
    assert cramers_v(first, second) == pytest.approx(expected, abs=0.01)
    assert cramers_v(first, random.integers(0, 2, 5000)) < 0.05
    assert cramers_v(first, np.zeros(5000, int)) == 0
    assert cramers_v(np.arange(10), np.arange(10) % 2) < 0.5


def test_leaks_stop_or_are_dropped_from_train_and_val_but_never_from_test(audited, clean, picture):
    clean["copy.png"] = (picture(9), "b", "n1", "train")
    clean["copy2.png"] = (picture(6), "a", "n2", "train")
    clean["shared.png"] = (picture(95), "b", "p3", "val")
    cohort, audit = audited(clean)
    with pytest.raises(LeakError, match=r"2 images occur with equal pixels.*1 patients have.*--leaks drop"):
        apply_leaks(cohort, audit, "stop")
    dropped = apply_leaks(cohort, audit, "drop")
    lost = set(cohort.table["path"]) - set(dropped.table["path"])
    assert lost == {"copy.png", "copy2.png", "shared.png"}
    assert len(dropped.rows("test")) == len(cohort.rows("test"))
    assert "2 from train, 1 from val" in dropped.notes[-1]
    allowed = apply_leaks(cohort, audit, "allow")
    assert len(allowed) == len(cohort)
    assert "Warning: leaks were allowed" in allowed.notes[-1]
    with pytest.raises(ConfigError, match="stop, drop or allow, got 'maybe'"):
        apply_leaks(cohort, audit, "maybe")


def test_audit_refuses_a_cache_of_other_images(audited, clean, tmp_path):
    cohort, _ = audited(clean)
    decoded = build_cache(cohort, tmp_path / "c", sides=(16, 16))
    with pytest.raises(DataError, match=r"cohort \(59 images\) and cache \(60\)"):
        audit_cohort(cohort.select(np.arange(59)), decoded)


def test_distances_of_pixels_are_told_and_may_not_tell_the_label(tmp_path: Path) -> None:
    for number in range(24):
        image = np.random.default_rng(number).integers(0, 4095, (16, 16)).astype(np.uint16)
        spacing = {"PixelSpacing": [0.2, 0.2]} if number % 2 else {"ImagerPixelSpacing": [0.14, 0.14]}
        folder = ("healthy", "ill")[number % 2]
        save(dicom(image, **(spacing if number > 1 else {})), tmp_path / folder / f"{number}.dcm")
    cohort = read_cohort(tmp_path)
    audit = audit_cohort(cohort, build_cache(cohort, tmp_path / "cache", sides=(16, 16)))
    found = {finding.kind: finding.message for finding in audit.findings}
    assert found["spacing"] == (
        "Distances: rows 0.14 to 0.2 mm, columns 0.14 to 0.2 mm; 11 measured at the detector, where the body is "
        "magnified; 2 without."
    )
    assert "from the distance of pixels or slices alone" in found["spacing-confounding"]
