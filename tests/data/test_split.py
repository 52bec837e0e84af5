import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgraft.data import fold_splits, groups_of, split_cohort, write_splits
from medgraft.data.audit.findings import NearPair
from medgraft.data.split import train_fractions, undivided
from medgraft.errors import ConfigError, DataError, RunError


def some(table_cohort, count=400, seed=0, classes=3, **columns):
    return table_cohort(np.random.default_rng(seed).integers(0, classes, count), **columns)


def grouped(count, seed=0, largest=6):
    return np.sort(np.random.default_rng(seed).integers(0, max(2, count // (largest // 2)), count))


def parts(cohort):
    return cohort.table["split"].to_numpy()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(120, 300), classes=st.integers(2, 4))
def test_split_never_shares_a_group_and_keeps_every_class(table_cohort_factory, seed, count, classes):
    cohort = some(table_cohort_factory, count, seed, classes)
    groups = grouped(count, seed)
    split = parts(split_cohort(cohort, groups, seed))
    for group in np.unique(groups):
        assert len(set(split[groups == group])) == 1
    for name in ("train", "val", "test"):
        assert len(np.unique(cohort.targets[split == name])) == classes


@pytest.fixture(scope="module")
def table_cohort_factory():
    from pathlib import Path

    import pandas as pd

    from medgraft.types import Cohort

    def make(targets):
        size = int(targets.max()) + 1
        table = pd.DataFrame({"path": [str(row) for row in range(len(targets))], "split": None}, dtype=object)
        classes = tuple("abcdefgh"[:size])
        task = "binary" if size == 2 else "multiclass"
        return Cohort(
            root=Path("x"),
            layout="folder",
            task=task,
            classes=classes,
            positive=None,
            table=table,
            targets=targets,
        )

    return make


def test_shares_of_images_and_classes_are_within_one_image(table_cohort):
    cohort = some(table_cohort)
    split = parts(split_cohort(cohort, np.arange(400), seed=1))
    for name, fraction in (("train", 0.64), ("val", 0.16), ("test", 0.2)):
        for index in range(3):
            total = (cohort.targets == index).sum()
            assert abs(((split == name) & (cohort.targets == index)).sum() - fraction * total) <= 1


def test_the_same_seed_gives_the_same_split_and_another_one_another(table_cohort):
    cohort, groups = some(table_cohort), grouped(400)
    first, again, other = (parts(split_cohort(cohort, groups, seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_rare_class_reaches_every_part(table_cohort):
    targets = np.zeros(200, int)
    targets[:3] = 1
    for seed in range(20):
        split = parts(split_cohort(table_cohort(targets), np.arange(200), seed))
        assert set(split[:3]) == {"train", "val", "test"}


def test_labels_of_multilabel_cohorts_are_stratified(table_cohort):
    flags = (np.random.default_rng(0).random((500, 4)) < [0.5, 0.2, 0.05, 0.9]).astype(np.float32)
    cohort = table_cohort(flags)
    split = parts(split_cohort(cohort, np.arange(500), seed=0))
    for name in ("train", "val", "test"):
        np.testing.assert_allclose(flags[split == name].mean(axis=0), flags.mean(axis=0), atol=0.03)


def test_a_class_that_one_group_holds_is_refused(table_cohort):
    targets, groups = np.arange(60) % 2, np.arange(60)
    groups[targets == 1] = 100
    with pytest.raises(DataError, match=r"class 'b' has no image in (train|val|test) \(30 in all\)"):
        split_cohort(table_cohort(targets), groups, seed=0)


def test_a_given_complete_split_is_kept(table_cohort):
    given_split = ["train", "val", "test"] * 40
    cohort = some(table_cohort, 120, classes=2, split=given_split)
    divided = split_cohort(cohort, np.arange(120), seed=0)
    assert parts(divided).tolist() == given_split
    assert "given split was kept" in divided.notes[0]


@pytest.mark.parametrize("missing", ["val", "test"])
def test_a_missing_part_is_carved_from_train_by_group(table_cohort, missing):
    other = "test" if missing == "val" else "val"
    given_split = np.array(["train"] * 300 + [other] * 100, dtype=object)
    groups = np.concatenate([grouped(300), 1000 + np.arange(100)])
    divided = split_cohort(some(table_cohort, split=given_split), groups, seed=0)
    split = parts(divided)
    assert (split[300:] == other).all()
    assert set(split[:300]) == {"train", missing}
    assert not set(groups[split == missing]) & set(groups[split == "train"])
    share = (split[:300] == missing).mean()
    assert share == pytest.approx(0.2 if missing == "val" else 0.2 / 0.84, abs=0.03)


def test_only_training_rows_are_split_anew_and_none_is_an_error(table_cohort):
    cohort = some(table_cohort, split=["train"] * 400)
    assert set(parts(split_cohort(cohort, np.arange(400), 0))) == {"train", "val", "test"}
    with pytest.raises(DataError, match="has test, val and no train"):
        split_cohort(some(table_cohort, split=["val", "test"] * 200), np.arange(400), 0)


def test_few_groups_are_told_with_the_way_out(table_cohort):
    notes = split_cohort(some(table_cohort, 60, classes=2), np.arange(60), 0).notes
    assert [note for note in notes if note.startswith("Warning: only 12 groups in test") and "--folds 5" in note]
    assert not any("Warning" in note for note in split_cohort(some(table_cohort), np.arange(400), 0).notes)


def test_nonsense_is_refused(table_cohort):
    cohort = some(table_cohort)
    with pytest.raises(ConfigError, match="fractions must be"):
        split_cohort(cohort, np.arange(400), 0, (0.5, 0.5, 0.5))
    with pytest.raises(DataError, match=r"groups must have shape \(400,\)"):
        split_cohort(cohort, np.arange(3), 0)
    for folds in (2, 401):
        with pytest.raises(ConfigError, match=f"got {folds}"):
            fold_splits(cohort, np.arange(400), folds, 0)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_fractions_are_nested_whole_groups_of_training_alone(table_cohort, task):
    random = np.random.default_rng(0)
    targets = (
        random.integers(0, 2, (600, 3)) if task == "multilabel" else random.integers(0, 2 + (task != "binary"), 600)
    )
    groups = np.arange(600) // 3
    cohort = split_cohort(table_cohort(targets), groups, 0)
    parts = train_fractions(cohort, groups, (1.0, 0.1, 0.5), seed=1)
    rows = [set(part.rows("train")) for part in parts]
    assert rows[0] == set(cohort.rows("train"))
    assert rows[1] < rows[2] < rows[0]
    for fraction, part, mine in zip((1.0, 0.1, 0.5), parts, rows, strict=True):
        assert list(part.rows("test")) == list(cohort.rows("test"))
        assert list(part.rows("val")) == list(cohort.rows("val"))
        assert not set(groups[list(mine)]) & set(groups[list(rows[0] - mine)])
        assert len(mine) == pytest.approx(fraction * len(rows[0]), rel=0.2)
        shares = [np.mean(targets[list(which)], 0) for which in (mine, rows[0])]
        np.testing.assert_allclose(*shares, atol=0.12 if task == "multiclass" else 0.1)
    again = train_fractions(cohort, groups, (1.0, 0.1, 0.5), seed=1)
    assert all(one.table.equals(other.table) for one, other in zip(parts, again, strict=True))


def test_a_fraction_that_loses_a_class_is_refused(table_cohort):
    cohort = split_cohort(table_cohort(np.arange(100) % 2), np.arange(100), 0)
    with pytest.raises(ConfigError, match=r"every class at fraction 0\.001"):
        train_fractions(cohort, np.arange(100), (0.001,), seed=0)
    # A rare class is in the smallest fraction first.
    rare = np.array([0] * 95 + [1] * 5)
    cohort = split_cohort(table_cohort(rare), np.arange(100), 0)
    assert 1 in rare[train_fractions(cohort, np.arange(100), (0.05,), seed=0)[0].rows("train")]
    for bad in ((), (0.0,), (1.5,)):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            train_fractions(cohort, np.arange(100), bad, seed=0)


def test_folds_test_every_group_once_and_choose_on_others(table_cohort):
    cohort, groups = some(table_cohort, 600, classes=2), grouped(600)
    folds = fold_splits(cohort, groups, 5, seed=0)
    tested = np.concatenate([fold.rows("test") for fold in folds])
    assert sorted(tested) == list(range(600))
    for fold in folds:
        sets = [set(groups[fold.rows(split)]) for split in ("train", "val", "test")]
        assert len(set.union(*sets)) == sum(len(one) for one in sets)
        assert len(fold.rows("test")) == pytest.approx(120, abs=6)


def test_a_written_split_says_who_belongs_where_and_its_digest(tmp_path, table_cohort):
    groups = grouped(400)
    divided = split_cohort(some(table_cohort), groups, 0)
    path = tmp_path / "splits.csv"
    digest = write_splits(divided, groups, path)
    again = pd.read_csv(path)
    assert again["path"].tolist() == divided.table["path"].tolist()
    assert again["split"].tolist() == parts(divided).tolist()
    np.testing.assert_array_equal(again["group"], groups)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [found.name for found in tmp_path.iterdir()] == ["splits.csv"]
    with pytest.raises(RunError, match="could not write"):
        write_splits(divided, groups, path / "splits.csv")


def test_a_given_split_is_forgotten_where_folds_divide(table_cohort):
    cohort = some(table_cohort)
    assert undivided(cohort) is cohort
    forgotten = undivided(split_cohort(cohort, grouped(400), 0))
    assert forgotten.table["split"].isna().all()
    assert "The given split is not used" in forgotten.notes[-1]


def test_groups_are_patients_then_duplicates_then_images(table_cohort):
    cohort = table_cohort([0, 1] * 50, patient=["p", "p", "q", None] + [None] * 96)
    groups = groups_of(cohort, [(4, 9), (3, 5)], [NearPair(first=9, second=10, detail=0.99)])
    assert groups[:4].tolist() == [0, 0, 1, 2]
    assert groups[5] == groups[3]
    assert groups[4] == groups[9] == groups[10]
    assert len(np.unique(groups)) == 100 - 1 - 1 - 2
    assert list(dict.fromkeys(groups.tolist())) == list(range(96))


def test_near_duplicates_stop_joining_at_5_percent(table_cohort):
    cohort = table_cohort([0, 1] * 50)
    chain = [NearPair(first=row, second=row + 1, detail=0.99) for row in range(50)]
    assert np.bincount(groups_of(cohort, [], chain)).max() <= 5
    whole = tuple(range(20))
    assert np.bincount(groups_of(cohort, [whole])).max() == 20


def test_duplicates_of_different_patients_join_their_patients(table_cohort):
    patients = [f"p{row // 2}" for row in range(100)]
    groups = groups_of(table_cohort([0, 1] * 50, patient=patients), [(0, 7)])
    assert groups[0] == groups[1] == groups[6] == groups[7]
