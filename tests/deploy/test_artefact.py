"""The artefact is whole, checked, and predicts what the model in memory predicts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.data.cohort.cases import find_cases
from medgraft.deploy import (
    Artefact,
    load_artefact,
    predict_files,
    predict_pixels,
    predictions_table,
    save_artefact,
)
from medgraft.deploy.artefact import WeightsOrigin
from medgraft.errors import DataError, RunError
from medgraft.metrics.cases import predicted_targets
from medgraft.transfer import HeadSettings, apply_strategy, prepare_source
from medgraft.types import Predictions, Preprocessing

NETWORK = """
from torch import nn

def tiny(width=4):
    def block(a, b):
        return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU())
    return nn.Sequential(block(1, width), block(width, 2 * width), block(2 * width, 4 * width))
"""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    (tmp_path / "tiny.py").write_text(NETWORK)
    spec = BackboneSpec(name=f"{tmp_path / 'tiny.py'}:tiny", args={"width": 6}, weights="none", size=16)
    source = prepare_source(build_backbone(spec), (16, 16))
    head = HeadSettings(num_outputs=1)
    model, _ = apply_strategy("ttl", source, source.cuts[2], head, lr=1e-3, seed=0)
    artefact = Artefact(
        task="binary",
        classes=("sick", "well"),
        positive="sick",
        strategy="ttl",
        cut=source.cuts[2],
        head=head,
        preprocessing=Preprocessing(sides=(16, 16), channels=1, intensity_max=1023, mean=(0.5,), std=(0.5,)),
        thresholds={"sick": 0.4},
        temperature=1.1,
        weights=WeightsOrigin(source="none"),
    )
    folder = save_artefact(tmp_path / "run" / "model", model.eval(), artefact, source.backbone)
    images = np.random.default_rng(0).integers(0, 1024, (5, 1, 16, 16)).astype(np.uint16)
    with torch.no_grad():
        logits = model(torch.from_numpy(images.astype(np.float32)) / 1023)[:, 0].double().sigmoid().numpy()
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "sick.npy", logits)
    (tmp_path / "tiny.py").unlink()
    return folder


def test_an_own_network_travels_with_the_artefact(saved: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(saved, moved)
    model = load_artefact(moved)
    probs = predict_pixels(model, np.load(tmp_path / "images.npy"))
    np.testing.assert_allclose(probs[:, 0], np.load(tmp_path / "sick.npy"), atol=1e-6)
    np.testing.assert_allclose(probs.sum(1), 1)
    assert model.artefact.thresholds == {"sick": 0.4}


def test_the_artefact_holds_no_pickle_and_nothing_behind_the_cut(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"model.safetensors", "model.json", "network.py"}
    model = load_artefact(saved.parent)
    names = set(model.network.state_dict())
    assert any(name.startswith("trunk.network.1.0.") for name in names)
    assert not any(name.startswith("trunk.network.2.") for name in names)


def test_changed_weights_are_refused(saved: Path) -> None:
    with (saved / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RunError, match="Copy the folder again"):
        load_artefact(saved)


def test_a_newer_format_is_refused(saved: Path) -> None:
    described = json.loads((saved / "model.json").read_text())
    (saved / "model.json").write_text(json.dumps({**described, "format": 99}))
    with pytest.raises(RunError, match="Update medgraft"):
        load_artefact(saved)


def test_files_above_the_training_range_and_broken_files_are_said(saved: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    place = tmp_path / "files"
    place.mkdir()
    Image.fromarray(rng.integers(0, 1024, (20, 20)).astype(np.uint16)).save(place / "good.png")
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(place / "bright.png")
    Image.fromarray(rng.integers(0, 256, (20, 20)).astype(np.uint8)).save(place / "shallow.png")
    (place / "broken.png").write_bytes(b"\x89PNG nonsense")
    table = predict_files(load_artefact(saved), find_cases([place])).set_index("path")
    by_name = {Path(path).name: row for path, row in table.iterrows()}
    assert by_name["good.png"]["status"] == "ok"
    assert by_name["bright.png"]["status"].startswith("above the training range (40000 > 1023)")
    assert by_name["shallow.png"]["status"].startswith("8-bit file")
    assert by_name["broken.png"]["status"].startswith("unreadable:")
    assert np.isnan(by_name["broken.png"]["prob_sick"])
    assert by_name["broken.png"]["pred"] == ""


def test_missing_inputs_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got nothing"):
        find_cases([tmp_path / "absent"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="expected images"):
        find_cases([tmp_path / "bare"])
    with pytest.raises(DataError, match="expected image files"):
        predict_files(load_artefact(saved), [])


@pytest.mark.parametrize("positive", ["normal", "sick"])
def test_a_tie_is_called_alike_by_the_table_and_by_the_metrics(positive):
    predictions = Predictions(
        probs=np.array([[0.5, 0.5], [0.6, 0.4], [0.4, 0.6]]),
        targets=np.array([0, 1, 1]),
        groups=np.arange(3),
        classes=("normal", "sick"),
        task="binary",
        positive=("normal", "sick").index(positive),
    )
    table = predictions_table(predictions, ["a", "b", "c"], ["", "", ""])
    called = [predictions.classes[index] for index in predicted_targets(predictions)]
    assert list(table["pred"]) == called
    assert called[0] != positive


def test_a_model_that_was_stored_with_an_empty_entry_for_slim_is_read(saved: Path) -> None:
    described = json.loads((saved / "model.json").read_text())
    (saved / "model.json").write_text(json.dumps({**described, "slim": {}}))
    assert load_artefact(saved).artefact.slim is None
