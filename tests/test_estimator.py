"""The scikit-learn face."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, cross_val_score
from torch import nn

from dicom_files import dicom, save
from medgraft import TransferClassifier, estimator
from medgraft.config import make_config, to_yaml
from medgraft.data.cohort.patients import patients_of_files
from medgraft.errors import ConfigError, DataError
from medgraft.search import executor
from medgraft.search.trial import Trial, TrialSpec
from small_runs import own_network


def discs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a bright square in every second image."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (count, 32, 32), dtype=np.uint8)
    labels = np.array(["square" if i % 2 else "plain" for i in range(count)])
    for i in range(1, count, 2):
        row, column = rng.integers(4, 18, 2)
        images[i, row : row + 10, column : column + 10] += 120
    return images, labels


def quick(**options: object) -> TransferClassifier:
    settings = {"size": 32, "cut": 3, "epochs": 4, "device": "cpu", "offline": True} | options
    return TransferClassifier(**settings)


def test_it_learns_an_easy_task_and_keeps_its_classes() -> None:
    images, labels = discs(160)
    model = quick(epochs=8).fit(images, labels)
    fresh, truth = discs(60, seed=1)
    assert list(model.classes_) == ["plain", "square"]
    assert model.predict_proba(fresh).shape == (60, 2)
    assert model.score(fresh, truth) > 0.8
    assert model.cut_.index == 3


def test_it_works_in_cross_val_score_with_groups() -> None:
    images, labels = discs(90)
    scores = cross_val_score(quick(epochs=1), images, labels, groups=np.arange(90) // 3, cv=GroupKFold(2))
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_parameters_survive_clone() -> None:
    model = quick(seed=7)
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(cut="auto").cut == "auto"


def test_the_cut_is_searched_on_request() -> None:
    images, labels = discs(80)
    model = quick(cut="auto", epochs=1).fit(images, labels)
    assert 1 <= model.cut_.index <= 9
    with pytest.raises(ConfigError, match="is a search for ttl"):
        quick(cut="auto", search="guided", strategy="lwft").fit(images, labels)


def test_file_names_are_read_like_arrays(tmp_path: Path) -> None:
    images, labels = discs(60)
    paths = []
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    from_files = quick(epochs=1).fit(paths, labels).predict_proba(paths[:5])
    from_array = quick(epochs=1).fit(images, labels).predict_proba(images[:5])
    np.testing.assert_allclose(from_files, from_array, atol=2e-2)


def test_bad_input_is_refused() -> None:
    images, labels = discs(20)
    with pytest.raises(DataError, match="one label per image"):
        quick().fit(images, labels[:-1])
    with pytest.raises(DataError, match="two classes"):
        quick().fit(images, np.full(20, "same"))
    with pytest.raises(DataError, match="uint8 or uint16"):
        quick().fit(images.astype(np.float32), labels)
    with pytest.raises(NotFittedError):
        quick().predict(images)


def test_a_classical_head_is_had_by_name() -> None:
    images, labels = discs(80)
    model = quick(strategy="hybrid", head="knn", cut=4).fit(images, labels)
    assert model.model_.artefact.head.kind == "knn"
    assert model.score(images, labels) > 0.6


def test_a_small_validation_set_is_searched_with_three_seeds_as_in_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    train = executor.run_trial

    def watched(spec: TrialSpec, *rest: object) -> Trial:
        asked.append(spec)
        return train(spec, *rest)

    monkeypatch.setattr(executor, "run_trial", watched)
    images, labels = discs(60)
    network = own_network(tmp_path, 3)
    quick(
        cut="auto", epochs=6, preset="balanced", search="two-stage", backbone=network["name"],
        backbone_args=network["args"], weights=network["weights"],
    ).fit(images, labels)  # fmt: skip
    assert {spec.seed for spec in asked} == {0, 1, 2}
    assert [spec.train.epochs for spec in asked[:-1]] == [5] * (len(asked) - 1)
    assert (asked[-1].train.epochs, asked[-1].seed) == (6, 0)


def test_patients_of_dicom_files_stay_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files, labels = [], []
    for number in range(40):
        made = dicom(rng.integers(0, 4095, (16, 16)).astype(np.uint16), PatientID=f"P{number // 4}")
        files.append(save(made, tmp_path / f"{number}.dcm"))
        labels.append(("a", "b")[(number // 4) % 2])
    assert patients_of_files(files) == [f"P{number // 4}" for number in range(40)]
    seen: list[Any] = []

    def stop(cohort: Any, *_: Any, **__: Any) -> None:
        seen.append(cohort)
        raise RuntimeError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medgraft.estimator.divided_material", stop)
        with pytest.raises(RuntimeError, match="enough"):
            TransferClassifier(size=16, epochs=1).fit(files, labels)
        # Names may stand in an array, too; it is not pixels.
        with pytest.raises(RuntimeError, match="enough"):
            TransferClassifier(size=16, epochs=1).fit(np.array([str(file) for file in files]), labels)
    for cohort in seen:
        assert cohort.table.groupby("patient")["split"].nunique().max() == 1
        assert set(cohort.table["split"]) == {"train", "val"}
    assert patients_of_files([save(dicom(np.zeros((4, 4), np.uint16), PatientID=""), tmp_path / "x.dcm")]) is None


def test_images_of_unknown_patients_are_not_those_of_one(tmp_path: Path) -> None:
    images, labels = discs(24)
    groups = [None if number % 2 else f"p{number // 4}" for number in range(24)]
    classes, targets = np.unique(labels, return_inverse=True)
    cohort = estimator._cohort(images, classes, targets, groups, 0)
    unknown = cohort.table[cohort.table["patient"].isna()]
    assert len(unknown) == 12
    assert set(unknown["split"]) == {"train", "val"}


def test_few_patients_are_divided_and_one_is_refused(tmp_path: Path) -> None:
    images, labels = discs(24)
    model = TransferClassifier(size=32, cut=3, epochs=1, device="cpu", offline=True)
    assert model.fit(images, labels, groups=[number // 8 for number in range(24)]).val_auprc_ >= 0
    with pytest.raises(DataError, match="at least two patients"):
        model.fit(images, labels, groups=["one"] * 24)


def test_arguments_of_a_network_may_be_classes(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\n"
        "def net(activation=nn.ReLU):\n"
        "    def block(i, o):\n"
        "        return nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), activation())\n"
        "    return nn.Sequential(block(1, 4), block(4, 6))\n"
    )
    images, labels = np.random.default_rng(0).integers(0, 255, (60, 16, 16)).astype(np.uint8), np.arange(60) % 2
    found = {}
    for activation in (nn.SiLU, nn.Hardtanh):
        model = TransferClassifier(
            backbone=f"{tmp_path / 'net.py'}:net", backbone_args={"activation": activation}, weights="none", size=16,
            epochs=1, cut=2,
        )  # fmt: skip
        found[activation] = model.fit(images, labels).predict_proba(images[:4])
    assert not np.array_equal(*found.values())
    config = make_config("images", options={"backbone": {"args": {"activation": nn.SiLU}}})
    with pytest.raises(ConfigError, match=r"can be written down .* FILE\.py:FUNCTION"):
        to_yaml(config)
