import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgraft.data.cohort.labels import (
    canonical_names,
    choose_positive,
    class_matrix,
    encode_flags,
    encode_labels,
    spelling_variants,
)
from medgraft.errors import ConfigError, DataError


def test_classes_are_sorted_and_numbers_by_value():
    assert encode_labels(["b", "a", "c"])[1] == ("a", "b", "c")
    task, classes, targets = encode_labels(["10", "9", "2.0", "10"])
    assert (task, classes, targets.tolist()) == ("multiclass", ("2", "9", "10"), [2, 1, 0, 2])


def test_spellings_join_their_most_frequent_form():
    labels = ["benign", "benign", "Benign", "benign ", "no_finding", "no finding", "No-Finding", "no finding"]
    task, classes, targets = encode_labels(labels)
    assert (task, classes) == ("binary", ("benign", "no finding"))
    assert targets.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert set(spelling_variants(labels)) == {"benign", "no finding"}
    assert canonical_names(["-1", "1"]) == {"-1": "-1", "1": "1"}


@given(
    st.lists(st.sampled_from(["a", "b", "c", "B ", "d-e", "d e"]), min_size=2).filter(lambda x: "a" in x and "b" in x)
)
def test_every_label_keeps_its_own_class(labels):
    names = canonical_names(labels)
    _, classes, targets = encode_labels(labels)
    assert [classes[t] for t in targets] == [names[label] for label in labels]


def test_several_labels_make_a_multilabel_task():
    task, classes, targets = encode_labels(["mass|edema", "edema", "normal"])
    assert (task, classes) == ("multilabel", ("edema", "mass", "normal"))
    assert targets.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert targets.dtype == np.float32


def test_one_class_is_refused():
    with pytest.raises(DataError, match="only 'a'"):
        encode_labels(["a", "a"])
    with pytest.raises(DataError, match="two labels, got only a"):
        encode_labels(["a|a", "a"])


def test_flags_other_than_0_and_1_are_refused_with_their_line():
    with pytest.raises(DataError, match=r"t\.csv, line 3: column b must be 0 or 1, got '-1'"):
        encode_flags({"a": ["0", "1"], "b": ["True", "-1"]}, "t.csv", 2)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("benign", "malignant"), "malignant"),
        (("malignant", "normal"), "malignant"),
        (("malignant", "normal, benign"), "malignant"),
        (("cancer", "No_Finding"), "cancer"),
        (("0", "1"), "1"),
        (("benign", "normal"), "normal"),
    ],
)
def test_the_default_positive_class_is_never_the_healthy_one(classes, expected):
    assert choose_positive("binary", classes, None) == expected


def test_the_asked_positive_class_wins_and_must_exist():
    assert choose_positive("binary", ("a", "b"), "a") == "a"
    with pytest.raises(ConfigError, match=r"got 'malignat'\. Nearest: malignant"):
        choose_positive("binary", ("benign", "malignant"), "malignat")
    with pytest.raises(ConfigError, match="two classes, got 3"):
        choose_positive("multiclass", ("a", "b", "c"), "a")


def test_multilabel_needs_both_sides_of_every_label():
    matrix = class_matrix("multilabel", np.array([[1, 0], [0, 0]], np.float32), 2)
    assert matrix.tolist() == [[True, False, False, True], [False, False, True, True]]
