"""MedMNIST archives: official splits, labels as numbers, names for the sets we know."""

from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd

from medgraft.data.cohort.folders import COLUMNS
from medgraft.data.cohort.labels import choose_positive, describe_task
from medgraft.errors import DataError
from medgraft.io.archive import read_archive
from medgraft.types import SPLITS, Cohort, Task

__all__ = ["read_medmnist"]

ORGANS: Final = (
    "bladder|femur-left|femur-right|heart|kidney-left|kidney-right|liver|lung-left|lung-right|pancreas|spleen"
)
# Class names of MedMNIST v2 (Yang et al., Scientific Data 2023), in the order of the stored numbers.
NAMES: Final = {
    "pathmnist": "adipose|background|debris|lymphocytes|mucus|smooth muscle|normal colon mucosa|"
    "cancer-associated stroma|colorectal adenocarcinoma epithelium",
    "chestmnist": "atelectasis|cardiomegaly|effusion|infiltration|mass|nodule|pneumonia|pneumothorax|"
    "consolidation|edema|emphysema|fibrosis|pleural|hernia",
    "dermamnist": "actinic keratoses and intraepithelial carcinoma|basal cell carcinoma|"
    "benign keratosis-like lesions|dermatofibroma|melanoma|melanocytic nevi|vascular lesions",
    "octmnist": "choroidal neovascularization|diabetic macular edema|drusen|normal",
    "pneumoniamnist": "normal|pneumonia",
    "breastmnist": "malignant|normal, benign",
    "bloodmnist": "basophil|eosinophil|erythroblast|immature granulocytes|lymphocyte|monocyte|neutrophil|platelet",
    "organamnist": ORGANS,
    "organcmnist": ORGANS,
    "organsmnist": ORGANS,
    "organmnist3d": "liver|kidney-right|kidney-left|femur-right|femur-left|bladder|heart|lung-right|lung-left|spleen|"
    "pancreas",
    "nodulemnist3d": "benign|malignant",
    "adrenalmnist3d": "normal|hyperplasia",
    "fracturemnist3d": "buckle rib fracture|nondisplaced rib fracture|displaced rib fracture",
    "vesselmnist3d": "vessel|aneurysm",
    "synapsemnist3d": "inhibitory synapse|excitatory synapse",
}


def read_medmnist(path: str | Path, *, positive: str | None = None) -> Cohort:
    """The cohort of an archive with ``train_images``, ``train_labels`` and the same for val and test.

    Args:
        path: The `.npz` file. Images are (N, H, W) or (N, H, W, 3), volumes (N, D, H, W) or (N, D, H, W, 1), labels
            (N,), (N, 1) or (N, L) for L labels of 0 and 1.
        positive: Positive class of a binary task.

    Raises:
        DataError: Arrays are missing, do not fit each other, or are neither images nor volumes.

    References:
        Yang et al., MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image
        classification, Scientific Data, 2023.
    """
    path = Path(path)
    stored = read_archive(path)
    splits = [split for split in SPLITS if f"{split}_images" in stored]
    if "train" not in splits:
        members = ", ".join(sorted(stored)) or "nothing"
        raise DataError(f"{path}: expected arrays train_images, train_labels (val, test likewise), got {members}.")
    arrays, dims, labels = {}, {}, []
    for split in splits:
        arrays[split], dims[split] = _images(stored[f"{split}_images"], f"{path}: {split}_images")
        labels.append(_labels(stored, split, len(arrays[split]), path))
    if len({part.shape[1] for part in labels}) > 1:
        raise DataError(f"{path}: the splits have different numbers of label columns. Store them alike.")
    if len(set(dims.values())) > 1:
        raise DataError(f"{path}: images in one split and volumes in another. Store them alike.")
    task, classes, targets, notes = _targets(np.concatenate(labels), path)
    texts = [classes[t] for t in targets] if targets.ndim == 1 else _joined(targets, classes)
    names = [f"{split}/{row}" for split in splits for row in range(len(arrays[split]))]
    table = pd.DataFrame(dict.fromkeys(COLUMNS), index=range(len(names)), dtype=object)
    table["path"], table["label"] = names, texts
    table["split"] = [split for split in splits for _ in range(len(arrays[split]))]
    counts = "/".join(str(len(arrays[split])) for split in splits)
    what = "images" if dims["train"] == 2 else "volumes"
    note = f"Official splits {'/'.join(splits)} of the archive: {counts} {what}."
    chosen = choose_positive(task, classes, positive)
    return Cohort(
        root=path.absolute(),
        layout="npz",
        task=task,
        classes=classes,
        positive=chosen,
        table=table,
        targets=targets,
        notes=(note, *notes, *describe_task(task, classes, chosen, positive)),
        arrays=arrays,
        dims=dims["train"],
    )


def _images(images: np.ndarray, where: str) -> tuple[np.ndarray, Literal[2, 3]]:
    if images.ndim in (4, 5) and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(f"{where}: expected (N, H, W), (N, H, W, 3) or volumes (N, D, H, W), got {images.shape}.")
    if images.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{where}: expected uint8 or uint16, got {images.dtype}. Scale to integers first.")
    return images, 2 if images.ndim == 3 or images.shape[3] == 3 else 3


def _labels(stored: dict[str, np.ndarray], split: str, count: int, path: Path) -> np.ndarray:
    """(n, L) int64 labels of the n images of one split.

    Args:
        stored: Arrays of the archive by name.
        split: ``train``, ``val`` or ``test``.
        count: Images of the split.
        path: The archive, for errors.
    """
    name = f"{split}_labels"
    if name not in stored:
        raise DataError(f"{path}: expected an array {name} beside {split}_images. Add it or remove the images.")
    labels = stored[name]
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or len(labels) != count:
        raise DataError(f"{path}: {name} must have one row per image ({count}), got shape {labels.shape}.")
    if labels.dtype.kind not in "iub" and not (labels.dtype.kind == "f" and np.all(labels == np.rint(labels))):
        raise DataError(f"{path}: {name} must be whole numbers, got {labels.dtype} with other values.")
    return labels.astype(np.int64)


def _targets(labels: np.ndarray, path: Path) -> tuple[Task, tuple[str, ...], np.ndarray, tuple[str, ...]]:
    if labels.shape[1] > 1:
        if not np.isin(labels, (0, 1)).all():
            row = int(np.flatnonzero(~np.isin(labels, (0, 1)).all(axis=1))[0])
            raise DataError(f"{path}: labels of several columns must be 0 or 1, got {labels[row].tolist()}, row {row}.")
        names, notes = _names(path, tuple(range(labels.shape[1])))
        return "multilabel", names, labels.astype(np.float32), notes
    values = np.unique(labels)
    if len(values) < 2:
        raise DataError(f"{path}: expected at least two classes, got only {values[0]}. Add images of another class.")
    names, notes = _names(path, tuple(int(value) for value in values))
    task: Task = "binary" if len(values) == 2 else "multiclass"
    return task, names, np.searchsorted(values, labels[:, 0]).astype(np.int64), notes


def _names(path: Path, values: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    stem = path.stem.split("_")[0].casefold()
    names = NAMES.get(stem, "").split("|")
    if len(names) > 1 and values == tuple(range(len(names))):
        return tuple(names), (f"Class names are those of MedMNIST's {stem} (from the file's name).",)
    return tuple(str(value) for value in values), ("Classes are named by their numbers.",)


def _joined(targets: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    return ["|".join(classes[c] for c in np.flatnonzero(row)) for row in targets]
