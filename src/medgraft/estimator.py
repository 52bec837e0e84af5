"""The scikit-learn face: `fit(X, y)`, `predict`, `predict_proba`, `score`, usable in `cross_val_score`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.validation import check_is_fitted

from medgraft.config import RunConfig, make_config
from medgraft.data.cohort.cases import volume_of
from medgraft.data.cohort.patients import patients_of_files
from medgraft.data.cohort.spelling import spelled_once
from medgraft.data.decoded.rows import read_row
from medgraft.deploy.artefact import LoadedModel
from medgraft.deploy.predict import predict_pixels
from medgraft.errors import DataError
from medgraft.io.preprocess import prepare
from medgraft.io.volume import is_volume_name
from medgraft.judge.models import artefact_of
from medgraft.listener import Listener
from medgraft.prepare.material import divided_material
from medgraft.search.outcome import best_trial
from medgraft.search.trainer import Trainer
from medgraft.search.trial import load_trial_model
from medgraft.setup.plan import context_of, on_this_machine, plan_run
from medgraft.setup.refusals import refuse_early
from medgraft.train.engine import pick_device
from medgraft.types import Cohort

__all__ = ["TransferClassifier"]

_VAL_FOLDS = 5


class TransferClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A truncated pretrained network as a scikit-learn classifier.

    A fifth of the training images (whole groups) is held back to choose epoch and cut, with the search of
    `medgraft fit`; `search_` says which it was. No test set is opened: that is the caller's, e.g. `cross_val_score`'s.

    Args:
        backbone: Name of the network, as `medgraft fit` takes it.
        weights: ``hub``, ``none`` or a path.
        backbone_args: Arguments of the network's constructor.
        cut: ``auto``, an index or a name.
        rule: ``compact`` or ``best``.
        search: How the depth is found, as `medgraft fit` takes it.
        strategy: A key of `medgraft.transfer.STRATEGIES`.
        head: ``pooled``, ``flattened``, or a classical one for ``hybrid``; None for the strategy's own.
        size: Input side in px, or (D, H, W) in voxels; None for the network's own.
        lift: How the network reads volumes, as `medgraft fit` takes it.
        preset: ``fast``, ``balanced``, ``thorough`` or ``paper``.
        epochs: None for the preset's.
        seed: Seeds everything.
        device: ``auto``, ``cpu``, ``cuda`` …
        offline: Never touch the network.
    """

    def __init__(
        self,
        backbone: str | None = None,
        weights: str | None = None,
        backbone_args: dict[str, Any] | None = None,
        cut: str | int = "auto",
        rule: Literal["compact", "best"] = "compact",
        search: str = "auto",
        strategy: str = "ttl",
        head: str | None = None,
        size: int | tuple[int, int, int] | None = None,
        lift: str = "auto",
        preset: str = "fast",
        epochs: int | None = None,
        seed: int = 0,
        device: str = "auto",
        offline: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.backbone_args = backbone_args
        self.cut = cut
        self.rule = rule
        self.search = search
        self.strategy = strategy
        self.head = head
        self.size = size
        self.lift = lift
        self.preset = preset
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.offline = offline

    def fit(
        self, X: np.ndarray | Sequence[str | Path], y: Sequence[Any], groups: Sequence[Any] | None = None
    ) -> "TransferClassifier":
        """Train on images and labels.

        Args:
            X: (N, H, W) or (N, H, W, 3) uint8 or uint16, volumes (N, D, H, W), or N names of files (of volumes also of
                folders of slices).
            y: N labels.
            groups: N patients; images of one patient stay together. None: the PatientID of DICOM files, else each image
                for itself.

        Raises:
            DataError: Lengths differ, or fewer than two classes.
        """
        labels = np.asarray(y)
        self.classes_, targets = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2 or len(labels) != len(X):
            raise DataError(
                f"expected one label per image and two classes, got {len(X)} images, {len(labels)} labels and "
                f"{len(self.classes_)} classes."
            )
        config = self._config()
        refuse_early(config, "fit")
        if groups is None and not _is_pixels(X):
            groups = patients_of_files([volume_of(Path(path))[0] for path in X])
        with tempfile.TemporaryDirectory(prefix="medgraft-") as temporary:
            folder = Path(temporary)
            cohort = _cohort(X, self.classes_, targets, groups, self.seed)
            material = divided_material(
                cohort, config.data, config.backbone, folder / "cache", seed=config.seed, is_offline=config.offline
            )
            quiet = Listener()
            plan, engine = on_this_machine(config, plan_run(config, material, quiet), material, folder, quiet)
            context = context_of(material, engine, folder)
            trial = best_trial(plan.search, Trainer(context, quiet))
            network, _ = load_trial_model(trial, context)
        self.cut_ = trial.cut
        self.search_ = plan.search.method
        self.val_auprc_ = trial.score
        artefact = artefact_of(material.dataset, trial, network, material.source.backbone)
        self.model_ = LoadedModel(artefact=artefact, network=network, folder=Path())
        return self

    def predict_proba(self, X: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """(N, C) probabilities, columns in the order of `classes_`."""
        check_is_fitted(self, "model_")
        settings = self.model_.artefact.preprocessing
        cohort = _cohort(X, self.classes_, np.zeros(len(X), dtype=np.int64), None, 0)
        images = []
        for row in range(len(cohort)):
            pixels, facts = read_row(cohort, row, settings.reading)
            images.append(prepare(pixels, settings, facts.spacing_mm))
        return predict_pixels(self.model_, np.stack(images), device=pick_device(self.device))

    def predict(self, X: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """The most probable class of each image."""
        check_is_fitted(self, "model_")
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])

    def _config(self) -> RunConfig:
        options = {
            "backbone": {
                "name": self.backbone,
                "weights": self.weights,
                "args": self.backbone_args or {},
                "size": self.size,
                "lift": self.lift,
            },
            "transfer": {"strategy": self.strategy, "head": self.head, "cut": str(self.cut), "rule": self.rule},
            "train": {"epochs": self.epochs},
            "search": {"method": self.search},
            "seed": self.seed,
            "device": self.device,
            "offline": self.offline,
        }
        return make_config("array", preset=self.preset, options=options)


def _is_pixels(X: np.ndarray | Sequence[str | Path]) -> bool:
    """Whether these are images themselves instead of names of files, which may stand in an array, too.

    Raises:
        DataError: They are pixels of another type than files hold.
    """
    if not isinstance(X, np.ndarray):
        return False
    if X.dtype.kind not in "ui" and not (X.dtype.kind in "UO" and X.ndim == 1):
        raise DataError(f"expected integer pixels (uint8 or uint16) or file names, got {X.dtype}. Convert to uint8.")
    return X.dtype.kind in "ui"


def _cohort(
    X: np.ndarray | Sequence[str | Path],
    classes: np.ndarray,
    targets: np.ndarray,
    groups: Sequence[Any] | None,
    seed: int,
) -> Cohort:
    """The images as a cohort, a fifth of them (whole groups) held back for validation.

    Args:
        X: Images or names of files, as `TransferClassifier.fit` takes them.
        classes: (C,) class names, sorted.
        targets: (N,) class indices; nothing is held back where all are equal.
        groups: N patients, whose images stay together; None: each image for itself.
        seed: Draws what is held back.
    """
    names = tuple(str(name) for name in classes)
    files: dict[str, tuple[str, ...]] = {}
    dims: Literal[2, 3] = 2
    is_array = _is_pixels(X)
    paths = [f"train/{row}" for row in range(len(X))] if is_array else [str(path) for path in X]
    if isinstance(X, np.ndarray) and is_array:
        dims = 3 if X.ndim == 4 and X.shape[3] != 3 else 2
    elif paths and (is_volume_name(paths[0]) or Path(paths[0]).is_dir()):
        dims = 3
        files = {path: tuple(str(file) for file in volume_of(Path(path))) for path in paths}
    table = pd.DataFrame({"path": paths, "label": [names[t] for t in targets]}, dtype=object)
    patients = [None] * len(X) if groups is None else [None if pd.isna(group) else str(group) for group in groups]
    table["patient"] = pd.Series(spelled_once(patients)[0], dtype=object)
    for column in ("site", "split", "mask"):
        table[column] = pd.Series([None] * len(X), dtype=object)
    if len(np.unique(targets)) > 1:
        # An image whose patient is not known is a group of its own.
        codes = pd.factorize(table["patient"])[0]
        codes = np.where(codes < 0, len(X) + np.arange(len(X)), codes)
        num_groups = len(np.unique(codes))
        if num_groups < 2:
            raise DataError(f"expected images of at least two patients to hold some back, got {num_groups}.")
        splitter = StratifiedGroupKFold(min(_VAL_FOLDS, num_groups), shuffle=True, random_state=seed)
        _, val = next(splitter.split(paths, targets, codes))
        table["split"] = "train"
        table.loc[val, "split"] = "val"
    return Cohort(
        root=Path(),
        layout="array" if is_array else "table",
        task="binary" if len(names) == 2 else "multiclass",
        classes=names,
        positive=names[1] if len(names) == 2 else None,
        table=table,
        targets=np.asarray(targets, dtype=np.int64),
        arrays={"train": np.asarray(X)} if is_array else None,
        files=files,
        dims=dims,
    )
