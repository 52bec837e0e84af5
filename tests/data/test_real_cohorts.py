from pathlib import Path

import numpy as np
import pytest

from medgraft.config import make_config
from medgraft.data import apply_leaks, audit_cohort, build_cache, groups_of, read_cohort, split_cohort
from medgraft.listener import Listener
from medgraft.run.check import check

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.real


def decoded_and_audited(name, folder, size):
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not beside the project")
    cohort = read_cohort(SHARED / name)
    decoded = build_cache(cohort, folder, sides=(size, size))
    cohort = cohort.select(decoded.rows)
    return cohort, decoded, audit_cohort(cohort, decoded)


def test_pneumoniamnist_has_its_known_duplicates_and_hardly_any_near_ones(tmp_path):
    cohort, decoded, audit = decoded_and_audited("pneumoniamnist.npz", tmp_path, 28)
    assert decoded.images.shape == (5856, 1, 28, 28)
    across, within = audit.of("duplicate-across-splits"), audit.of("duplicate-within-split")
    assert (across.count, within.count) == (8, 21)
    assert "(8 train–val)" in across.message
    assert "3 in test, 18 in train" in within.message
    # Of 17 million pairs; the ones looked at are films of different children.
    assert len(audit.near_duplicates) <= 20
    groups = groups_of(cohort, audit.exact_duplicates, ())
    kept = apply_leaks(cohort, audit, "drop")
    assert [len(kept.rows(split)) for split in ("train", "val", "test")] == [4698, 524, 624]
    rows = decoded.rows_of(kept)
    assert not set(groups[rows][kept.rows("train")]) & set(groups[rows][kept.rows("val")])


def test_busi_has_its_known_near_duplicates_which_stay_together(tmp_path):
    cohort, decoded, audit = decoded_and_audited("busi", tmp_path, 64)
    assert (len(cohort), decoded.channels, cohort.classes) == (780, 1, ("benign", "malignant", "normal"))
    assert len(audit.exact_duplicates) == 1
    assert 182 <= len(audit.near_duplicates) <= 225
    groups = groups_of(cohort, audit.exact_duplicates, audit.near_duplicates)
    assert np.bincount(groups).max() <= 39
    split = split_cohort(cohort, groups, seed=0).table["split"]
    assert all(split[pair.first] == split[pair.second] for pair in audit.near_duplicates)


def test_of_chase_db1_the_second_observer_reaches_what_is_known():
    if not (SHARED / "chasedb1").exists():
        pytest.skip("chasedb1 is not beside the project")
    said = []
    data = {"task": "segmentation", "patient_regex": r"Image_(\d+)"}
    config = make_config(str(SHARED / "chasedb1"), options={"data": data}).data
    audit, cohort = check(config, listener=Listener(say=said.append))
    assert (len(cohort), cohort.table["patient"].nunique(), cohort.dims) == (28, 14, 2)
    assert not [found.kind for found in audit.findings if found.kind.startswith("mask-")]
    assert "2ndHO against the truth, mean Dice of 28 images: foreground 0.777 (pooled 0.775)." in said
