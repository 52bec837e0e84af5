"""What trials learn from and are scored on, as numbers that another process can open."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.data.cohort.labels import class_matrix
from medgraft.errors import RunError
from medgraft.files import read_json, replacing, write_json
from medgraft.metrics.cases import pooled
from medgraft.train.batches import ImageSet, MaskSet
from medgraft.train.classical import Labelled
from medgraft.types import Judged, Kind, Overlaps, Predictions

__all__ = ["Study", "open_study", "save_study", "study_key"]

# Kept of every class in a sample, where the training set has as many.
_FEWEST_OF_A_CLASS: Final = 20
_FACTS: Final = "study.json"
_ARRAYS: Final = "study.npz"
_SETS: Final = ("train", "val")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """Training and validation images with truth and groups; no name, no path, and nothing of the test set.

    Args:
        train: n images for training; of a segmentation with masks.
        val: m images for validation, likewise.
        train_groups: (n,) group of each training image.
        val_groups: (m,) group of each validation image.
        classes: Class names.
        val_units: (m,) number of each validation image's unit; None where each is judged alone.
    """

    train: ImageSet
    val: ImageSet
    train_groups: np.ndarray
    val_groups: np.ndarray
    classes: tuple[str, ...]
    val_units: np.ndarray | None = None

    def labelled(self, features: np.ndarray) -> Labelled:
        """`features` (n, d) of the training images with their truth and groups."""
        train = self.train
        return Labelled(
            features=features,
            targets=train.targets,
            groups=self.train_groups,
            task=train.task,
            positive=train.positive,
            num_classes=train.num_classes,
        )

    def with_validation(self, features: np.ndarray) -> Labelled:
        """`features` (n + m, d) of the training and the validation images with their truth and groups."""
        train = self.train
        return Labelled(
            features=features,
            targets=np.concatenate([train.targets, self.val.targets]),
            groups=np.concatenate([self.train_groups, self.val_groups]),
            task=train.task,
            positive=train.positive,
            num_classes=train.num_classes,
        )

    def cross_predictions(self, probs: np.ndarray) -> Predictions:
        """`probs` (n + m, C) of the training and the validation images with their truth.

        What training is told of an uncertain label (a share) is not known here.
        """
        targets = np.concatenate([self.train.targets, self.val.targets])
        if self.train.task == "multilabel":
            targets = np.where(np.isin(targets, (0, 1)), targets, np.nan)
        return Predictions(
            probs=probs,
            targets=targets,
            groups=np.concatenate([self.train_groups, self.val_groups]),
            classes=self.classes,
            task=self.val.task,
            positive=self.val.positive,
        )

    def sample(self, num_images: int, seed: int) -> "Study":
        """A study with about `num_images` training images at most, drawn with `seed`, in their order.

        A few of every class (and of the cases without a label) stay, from different groups, so that a rare one can
        still be told apart.
        """
        train = self.train
        order = np.random.default_rng(seed).permutation(len(train))
        columns = class_matrix(train.task, train.targets, train.num_classes).T
        kept = {*order[:num_images].tolist()}
        fewest = min(_FEWEST_OF_A_CLASS, num_images // len(columns))
        for column in columns:
            shown = order[column[order]]
            firsts = np.sort(np.unique(self.train_groups[shown], return_index=True)[1])
            kept |= {*shown[:fewest].tolist(), *shown[firsts[:fewest]].tolist()}
        rows = np.array(sorted(kept))
        part = dataclasses.replace(train, rows=train.rows[rows], targets=train.targets[rows])
        return dataclasses.replace(self, train=part, train_groups=self.train_groups[rows])

    def val_judged(self, outputs: np.ndarray) -> Judged:
        """What a trial kept of the validation set with the truth: labels pooled by unit, or overlaps of masks."""
        return VAL_JUDGED[self.val.kind](self, outputs)

    def val_predictions(self, probs: np.ndarray) -> Predictions:
        """`probs` (m, C) of the validation set with its truth, pooled by unit."""
        predictions = Predictions(
            probs=probs,
            targets=self.val.targets,
            groups=self.val_groups,
            classes=self.classes,
            task=self.val.task,
            positive=self.val.positive,
        )
        return predictions if self.val_units is None else pooled(predictions, self.val_units)


def _overlaps(study: Study, counts: np.ndarray) -> Overlaps:
    return Overlaps(counts=counts, groups=study.val_groups, classes=study.classes)


VAL_JUDGED: Final[dict[Kind, Callable[[Study, np.ndarray], Judged]]] = {
    "labels": Study.val_predictions,
    "masks": _overlaps,
}
"""What the outputs of a trial on the validation set say, by kind of truth."""
_SETS_OF: Final[dict[Kind, type[ImageSet]]] = {"labels": ImageSet, "masks": MaskSet}


def study_key(study: Study) -> str:
    """A short name: studies of the same images, truth and groups have the same one, and no others."""
    digest = hashlib.sha256(json.dumps(study.classes).encode())
    for part in (study.train, study.val):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name not in ("rows", "targets") and isinstance(value, np.ndarray):
                file = getattr(value, "filename", None)
                value = value[part.rows] if file is None else str(Path(file).absolute())
            digest.update(_content(value))
    for value in (study.train_groups, study.val_groups, study.val_units):
        digest.update(_content(value))
    return digest.hexdigest()[:16]


def _content(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    return repr(value).encode()


def save_study(study: Study, folder: Path) -> None:
    """Write what `open_study` needs: small arrays, and where the decoded images are mapped from.

    Images that are not mapped from a file are written, too, but for those that neither learn nor validate.

    Args:
        study: Nothing in it names a person.
        folder: Made when missing.

    Raises:
        RunError: It cannot be written.
    """
    arrays: dict[str, np.ndarray] = {"train_groups": study.train_groups, "val_groups": study.val_groups}
    if study.val_units is not None:
        arrays["val_units"] = study.val_units
    facts: dict[str, Any] = {"classes": study.classes}
    rows = np.concatenate([study.train.rows, study.val.rows])
    for name in _SETS:
        part: ImageSet = getattr(study, name)
        facts[name] = {"kind": part.kind}
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name in ("rows", "targets"):
                arrays[f"{name}_{field.name}"] = value
            else:
                is_array = isinstance(value, np.ndarray)
                facts[name][field.name] = _mapped(value, rows, folder / f"{field.name}.npy") if is_array else value
    try:
        with replacing(folder / _ARRAYS) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise RunError(
            f"could not write to {folder}: {error.strerror or error}. Check rights and free space."
        ) from error
    # Last: a folder with it holds a whole study.
    write_json(folder / _FACTS, facts)


def open_study(folder: Path) -> Study:
    """The study that `save_study` wrote into `folder`.

    Raises:
        RunError: There is none, it is damaged, or the decoded images are gone.
    """
    facts = read_json(folder / _FACTS)
    try:
        with (folder / _ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        train, val = (_opened(facts[name], arrays, name) for name in _SETS)
        return Study(
            train=train,
            val=val,
            train_groups=arrays["train_groups"],
            val_groups=arrays["val_groups"],
            val_units=arrays.get("val_units"),
            classes=tuple(facts["classes"]),
        )
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise RunError(f"could not open the study in {folder}: {error}. Start the run again; it continues.") from error


def _mapped(array: np.ndarray, rows: np.ndarray, path: Path) -> dict[str, Any]:
    """The file that `array` is the beginning of, and its length.

    Args:
        array: (N, …).
        rows: (n,) those that a study is about.
        path: Written where `array` is not mapped from a file; other rows are zero there.
    """
    file = getattr(array, "filename", None)
    if file is None:
        about = np.zeros(array.shape, array.dtype)
        about[rows] = array[rows]
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, about)
        file = path
    return {"file": str(Path(file).absolute()), "length": len(array)}


def _opened(facts: dict[str, Any], arrays: dict[str, np.ndarray], name: str) -> ImageSet:
    """A set of the kind that was saved; what was an array is mapped again.

    Args:
        facts: What was saved of the set, by the name of its field.
        arrays: Rows and targets of all sets.
        name: ``train`` or ``val``.
    """
    fields = {
        key: np.load(value["file"], mmap_mode="r")[: value["length"]] if isinstance(value, dict) else value
        for key, value in facts.items()
        if key != "kind"
    }
    return _SETS_OF[facts["kind"]](**fields, rows=arrays[f"{name}_rows"], targets=arrays[f"{name}_targets"])
