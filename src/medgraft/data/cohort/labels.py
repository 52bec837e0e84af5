"""Label text to classes and targets, and the rules that every layout shares."""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from medgraft.config import Blank
from medgraft.errors import ConfigError, DataError
from medgraft.types import Task

__all__ = [
    "canonical_names",
    "choose_positive",
    "class_matrix",
    "describe_task",
    "encode_flags",
    "as_known",
    "encode_labels",
    "nearest",
    "spelling_key",
    "spelling_variants",
    "rarest_class",
]

NEVER_POSITIVE: Final = frozenset({"normal", "healthy", "negative", "control", "benign", "no finding"})
SEPARATOR: Final = "|"
FLAGS: Final = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
UNCERTAIN: Final = frozenset({"-1", "-1.0", "u", "uncertain"})


def nearest(name: str, choices: Iterable[str]) -> str:
    """Words for an error: the known names most like `name`, else the first ones.

    Args:
        name: What the user wrote.
        choices: What exists.

    Examples:
        >>> nearest("lable", ["path", "label"])
        'Nearest: label.'
    """
    names = list(choices)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Nearest: {', '.join(close)}."
    return f"Known: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}."


def spelling_key(name: str) -> str:
    """A label without what spellings differ in: case, outer blanks, blanks or hyphens or underscores inside.

    Args:
        name: As stored.

    Examples:
        >>> spelling_key(" No_Finding")
        'no finding'
    """
    words = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name.strip())
    return words.casefold()


def spelling_variants(labels: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Spellings that differ only in case, blanks, hyphens or underscores, under their most frequent form.

    Args:
        labels: One text per image, as stored.

    Examples:
        >>> spelling_variants(["benign", "benign", "Benign", "benign ", "malignant"])
        {'benign': ('Benign', 'benign', 'benign ')}
    """
    families: dict[str, Counter[str]] = defaultdict(Counter)
    for label, count in Counter(labels).items():
        families[spelling_key(label)][label] += count
    return {_best_spelling(family): tuple(sorted(family)) for _, family in sorted(families.items()) if len(family) > 1}


def _best_spelling(family: Counter[str]) -> str:
    return min(family, key=lambda name: (-family[name], name)).strip()


def canonical_names(labels: Sequence[str]) -> dict[str, str]:
    """Each stored spelling to the class name that stands for it.

    Whole numbers lose their decimals (``1.0`` is ``1``), other spellings join their most frequent variant.

    Args:
        labels: One text per image, as stored.

    Examples:
        >>> canonical_names(["1.0", "0", "1"])
        {'0': '0', '1': '1', '1.0': '1'}
    """
    counts = Counter(labels)
    if all(_is_whole(label) for label in counts):
        return {label: str(int(float(label))) for label in sorted(counts)}
    families: dict[str, Counter[str]] = defaultdict(Counter)
    for label, count in counts.items():
        families[spelling_key(label)][label] += count
    return {label: _best_spelling(families[spelling_key(label)]) for label in sorted(counts)}


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", text) is not None


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    unique = set(names)
    if all(_is_whole(name) for name in unique):
        return tuple(sorted(unique, key=int))
    return tuple(sorted(unique))


def encode_labels(labels: Sequence[str], known: Sequence[str] = ()) -> tuple[Task, tuple[str, ...], np.ndarray]:
    """Task, class names and targets of one label text per image; ``a|b`` anywhere makes it multilabel.

    Args:
        labels: One text per image; not empty.
        known: Classes of a finished model: labels are taken for them however they are spelled, and one is enough; empty
            where the labels themselves are the classes.

    Returns:
        Targets are (N,) int64, or (N, C) float32 for multilabel. Names are sorted, numbers by value.

    Raises:
        DataError: Fewer than two classes, or one that the model does not know.

    Examples:
        >>> encode_labels(["b", "a", "b"])[:2]
        ('binary', ('a', 'b'))
        >>> encode_labels(["a|b", "b", "c"])[2].tolist()
        [[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if any(SEPARATOR in label for label in labels):
        return _encode_sets([[part for part in label.split(SEPARATOR) if part.strip()] for label in labels])
    names = canonical_names(labels)
    classes = _in_order(names.values())
    if known:
        names = as_known(names, known)
        classes = tuple(known)
    if len(classes) < 2:
        raise DataError(f"expected at least two classes, got only {classes[0]!r}. Add images of another class.")
    index = {name: classes.index(canonical) for name, canonical in names.items()}
    targets = np.array([index[label] for label in labels], dtype=np.int64)
    return ("binary" if len(classes) == 2 else "multiclass"), classes, targets


def as_known(names: Mapping[str, str], known: Sequence[str]) -> dict[str, str]:
    """The names of a finished model for those of a cohort, which may be spelled otherwise.

    Args:
        names: Each stored spelling to the name that stands for it.
        known: Classes of the model.

    Raises:
        DataError: The model does not know one.
    """
    spelled = {spelling_key(name): name for name in known}
    strange = sorted({name for name in names.values() if spelling_key(name) not in spelled})
    if strange:
        raise DataError(
            f"expected the model's classes {', '.join(known)}, got {', '.join(strange)}. "
            "Rename the labels or folders of the cohort."
        )
    return {stored: spelled[spelling_key(name)] for stored, name in names.items()}


def _encode_sets(sets: list[list[str]]) -> tuple[Task, tuple[str, ...], np.ndarray]:
    names = canonical_names([name for labels in sets for name in labels])
    classes = _in_order(names.values())
    if len(classes) < 2:
        raise DataError(f"expected at least two labels, got only {', '.join(classes) or 'none'}.")
    targets = np.zeros((len(sets), len(classes)), dtype=np.float32)
    for row, labels in enumerate(sets):
        targets[row, [classes.index(names[name]) for name in labels]] = 1
    return "multilabel", classes, targets


def encode_flags(
    columns: Mapping[str, Sequence[str | None]],
    where: str,
    first_line: int,
    *,
    takes_uncertain: bool = False,
    blank: Blank = "refuse",
) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) float32 from several columns of 0 and 1, NaN where a label is not known; and where it is uncertain.

    Args:
        columns: Column name to its texts, None where a cell is blank.
        where: The file, for errors.
        first_line: Line of the first text in that file.
        takes_uncertain: Whether -1 is a label.
        blank: What a blank cell is.

    Raises:
        DataError: A value is neither 0 nor 1, nor -1 or blank where these are taken.

    Examples:
        >>> values, is_uncertain = encode_flags({"a": ["1", "-1"], "b": [None, "0"]}, "x.csv", 2,
        ...                                     takes_uncertain=True, blank="negative")
        >>> values.tolist(), is_uncertain.tolist()
        ([[1.0, 0.0], [nan, 0.0]], [[False, False], [True, False]])
    """
    values = np.full((len(next(iter(columns.values()), ())), len(columns)), np.nan, dtype=np.float32)
    is_uncertain = np.zeros(values.shape, dtype=bool)
    for column, (name, texts) in enumerate(columns.items()):
        for row, text in enumerate(texts):
            spelling = (text or "").strip().casefold()
            if spelling in FLAGS:
                values[row, column] = FLAGS[spelling]
                continue
            if not spelling and blank != "refuse":
                values[row, column] = 0.0 if blank == "negative" else np.nan
            elif spelling in UNCERTAIN and takes_uncertain:
                is_uncertain[row, column] = True
            else:
                cell = f"{where}, line {first_line + row}: column {name}"
                if not spelling:
                    raise DataError(f"{cell} is blank or NaN. Fill it in, or say --blank ignore or --blank negative.")
                advice = "Say what it means: --uncertain ignore, zeros, ones or soft(a,b)"
                advice = advice if spelling in UNCERTAIN else "Correct it"
                raise DataError(f"{cell} must be 0 or 1, got {text!r}. {advice}.")
    return values, is_uncertain


def choose_positive(task: Task, classes: Sequence[str], positive: str | None) -> str | None:
    """The positive class of a binary task: the asked one, else the second, never one that means healthy.

    Args:
        task: What is predicted.
        classes: Names in order.
        positive: What the user asked for, or None.

    Raises:
        ConfigError: No such class, or the task is not binary.

    Examples:
        >>> choose_positive("binary", ("malignant", "normal"), None)
        'malignant'
    """
    if task != "binary":
        if positive is not None:
            raise ConfigError(f"--positive is for two classes, got {len(classes)} ({task}). Leave it out.")
        return None
    if positive is not None:
        if positive not in classes:
            raise ConfigError(f"--positive must be one of the classes, got {positive!r}. {nearest(positive, classes)}")
        return positive
    means_healthy = [all(spelling_key(part) in NEVER_POSITIVE for part in name.split(",")) for name in classes]
    return classes[0] if means_healthy[1] and not means_healthy[0] else classes[1]


def describe_task(task: Task, classes: Sequence[str], positive: str | None, asked: str | None) -> list[str]:
    """Notes for the user: the task, its classes, and which one is positive by whose choice.

    Args:
        task: What is predicted.
        classes: Names in order.
        positive: The positive class, or None.
        asked: What the user asked for, or None.

    Examples:
        >>> describe_task("binary", ("a", "b"), "b", None)
        ['Task: binary with 2 classes (a, b).', 'Positive class: b (by default).']
    """
    notes = [f"Task: {task} with {len(classes)} classes ({', '.join(classes)})."]
    origin = "by default" if asked is None else "as asked"
    return [*notes, f"Positive class: {positive} ({origin})."] if positive is not None else notes


def class_matrix(task: Task, targets: np.ndarray, num_classes: int) -> np.ndarray:
    """(N, K) bool: which images must be represented together for scores to exist.

    One column per class (of a segmentation: the masks that show it); for multilabel one per label present and one per
    label absent, because a ranking needs both.

    Args:
        task: What is predicted.
        targets: As in `Cohort`.
        num_classes: C.

    Examples:
        >>> class_matrix("binary", np.array([0, 1]), 2).tolist()
        [[True, False], [False, True]]
    """
    if task == "segmentation":
        return targets > 0.5
    if task == "multilabel":
        return np.concatenate([targets > 0.5, targets <= 0.5], axis=1)
    return np.asarray(targets[:, None] == np.arange(num_classes))


def rarest_class(task: Task, targets: np.ndarray, num_classes: int, groups: np.ndarray) -> tuple[int, int]:
    """Index of the class (label) with the fewest groups that show it, or lack it for a label; and how many these are.

    Args:
        task: What is predicted.
        targets: As in `Cohort`.
        num_classes: C.
        groups: (N,) group of each image.

    Examples:
        >>> rarest_class("multiclass", np.array([0, 0, 1, 1, 2]), 3, np.array([1, 2, 3, 4, 5]))
        (2, 1)
    """
    columns = class_matrix(task, targets, num_classes).T
    counts = [len(np.unique(groups[column])) for column in columns]
    return int(np.argmin(counts)) % num_classes, min(counts)
