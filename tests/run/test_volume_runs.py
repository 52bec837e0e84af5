"""Whole jobs on volumes: from NIfTI, from a PACS export of series, from an archive, by every way of lifting."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from medgraft.cli import app
from medgraft.config import make_config
from medgraft.data.cohort.cases import find_cases
from medgraft.data.cohort.labelled import read_cohort
from medgraft.deploy.artefact import load_artefact
from medgraft.deploy.predict import predict_files
from medgraft.errors import BackboneError, ConfigError, DataError
from medgraft.estimator import TransferClassifier
from medgraft.listener import Listener
from medgraft.run.analyze import analyze
from medgraft.search.forecast import MemoryForecast, forecast_memory, refuse_memory
from medgraft.train.engine import Engine
from small_runs import compare, evaluate, fit, small_config
from volume_files import blob, write_nifti, write_series, write_slices

NUM = 60
CLASSES = ("small", "large")


def case(number: int) -> np.ndarray:
    return blob(number, is_large=number % 2 == 1)


def volume_config(source: Path, **options: Any) -> Any:
    """A training of the packaged network, cut where 16 voxels still have an extent."""
    base: dict[str, Any] = {"backbone": {"size": 16}, "train": {"epochs": 3, "lr": 3e-3}, "transfer": {"cut": "4"}}
    for key, value in options.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and key in base else value
    return small_config(source, **base)


@pytest.fixture(autouse=True)
def _home_of_volumes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-volumes"))


@pytest.fixture(scope="module")
def nifti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders, every third volume stored from the other end."""
    root = tmp_path_factory.mktemp("nifti")
    for number in range(NUM):
        volume, affine = case(number), np.diag([0.7, 0.5, 2.0, 1.0])
        if number % 3 == 0:
            volume, affine = volume[:, :, ::-1], np.diag([-0.7, 0.5, 2.0, 1.0])
        write_nifti(volume, root / CLASSES[number % 2] / f"p{number:02d}.nii.gz", affine)
    return root


@pytest.fixture(scope="module")
def trained(nifti: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("volume-run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-volumes"))
        fit(volume_config(nifti), run, command="medgraft fit volumes --out run")
    return run


def results_of(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


def test_volumes_need_no_option(trained: Path) -> None:
    results = results_of(trained)
    assert results["preprocessing"]["sides"] == [16, 16, 16]
    assert results["backbone"]["lift"] == "slices"
    page = (trained / "report.html").read_text()
    assert "16 × 16 × 16 voxels" in page
    assert "every slice by itself (2.5D)" in page
    assert "MACs per volume" in page
    assert "<th>Volumes</th>" in page
    assert "reading rescale auto, windows file" in page
    prose = re.sub(r"<style.*?</style>|<svg.*?</svg>|<img[^>]*>", "", page, flags=re.DOTALL)
    named = {found.strip().lower() for found in re.findall(r"(?i)\w*\s*\bimages?\b", prose)}
    assert named == {"medical image", "medical images", "normalisation image"}
    assert "No patient ids" in page
    assert "volumes or sets of identical volumes" in page


def test_pictures_in_the_report_show_every_plane(trained: Path) -> None:
    pictures = sorted((trained / "report_images").glob("*.png"))
    assert pictures
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.size == (32, 32)


def test_prediction_from_the_raw_volumes_is_that_of_the_test(trained: Path, nifti: Path) -> None:
    known = pd.read_csv(trained / "predictions.csv")
    again = predict_files(load_artefact(trained), [nifti / path for path in known["path"]])
    assert set(again["status"]) == {"ok"}
    np.testing.assert_allclose(again["prob_small"], known["prob_small"], atol=1e-5)


def test_a_broken_volume_costs_only_its_own_row(trained: Path, nifti: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.nii").write_bytes(b"nothing")
    good = next(nifti.rglob("*.nii.gz"))
    (tmp_path / good.name).write_bytes(good.read_bytes())
    table = predict_files(load_artefact(trained), find_cases([tmp_path], 3))
    assert [status[:10] for status in table["status"]] == ["unreadable", "ok"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected volumes .*NIfTI.* in "):
        find_cases([tmp_path / "empty"], 3)


def test_another_cohort_of_volumes_is_evaluated(trained: Path, nifti: Path) -> None:
    found = evaluate(trained, make_config(str(nifti)).data, replicates=100)
    assert found["num_images"] == NUM


def test_an_export_of_compressed_series_goes_all_the_way(tmp_path: Path) -> None:
    rows = ["SeriesInstanceUID,label"]
    order = np.random.default_rng(0).permutation(10)
    for number in range(NUM):
        options = {"rescale": (1, -1024), "PatientID": f"patient {number // 2 * 2 + number % 2}"}
        files = write_series(
            case(number), tmp_path / "pacs" / f"{number}", series=f"1.2.{number}", order=order, **options
        )
        rows.append(f"1.2.{number},{CLASSES[number % 2]}")
        if number % 2:
            _compress(files)
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    source = tmp_path / "pacs"
    data = {"labels": str(tmp_path / "labels.csv"), "key": "SeriesInstanceUID", "dims": 3, "windows": ["lung"]}
    config = volume_config(source, data=data, train={"epochs": 2})
    fit(config, tmp_path / "run")
    known = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert known["path"].str.startswith("case-").all()
    cohort = read_cohort(source, labels=tmp_path / "labels.csv", key="SeriesInstanceUID", dims=3)
    model = load_artefact(tmp_path / "run")
    folders = [(source / cohort.files[name][0]).parent for name in known["path"]]
    again = predict_files(model, folders)
    np.testing.assert_allclose(again["prob_large"], known["prob_large"], atol=1e-5)
    assert len(find_cases([source], 3)) == NUM
    for file in (tmp_path / "run").rglob("*"):
        if file.suffix in (".json", ".csv", ".html", ".jsonl"):
            assert "patient 1" not in file.read_text()
            assert "pacs/1" not in file.read_text()


def _compress(files: Sequence[Path]) -> None:
    import pydicom

    for file in files:
        made = pydicom.dcmread(file)
        made.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        made.save_as(file)


def archive(path: Path, num: int = NUM) -> Path:
    parts = {}
    for place, (split, count) in enumerate({"train": num, "val": num // 2, "test": num // 2}.items()):
        volumes = np.stack([case(1000 * place + number) for number in range(count)])
        parts[f"{split}_images"] = (volumes // 4).clip(0, 255).astype(np.uint8)
        parts[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(path, **parts)
    return path


@pytest.mark.parametrize("lift", ["i3d", "acs"])
def test_other_ways_of_lifting_are_stored_and_loaded(lift: str, tmp_path: Path) -> None:
    source = archive(tmp_path / "cases.npz")
    fit(volume_config(source, backbone={"lift": lift}, train={"epochs": 1}), tmp_path / "run")
    results = results_of(tmp_path / "run")
    assert results["backbone"]["lift"] == lift
    model = load_artefact(tmp_path / "run")
    assert model.artefact.head.kind == "pooled"
    known = pd.read_csv(tmp_path / "run" / "predictions.csv")
    for number, row in known.head(3).iterrows():
        np.save(tmp_path / "case.npy", np.load(source)["test_images"][int(row["path"].rpartition("/")[2])])
        again = predict_files(model, [tmp_path / "case.npy"])
        assert again["prob_1"][0] == pytest.approx(row["prob_1"], abs=1e-5), number


def test_a_network_for_volumes_is_compared_and_analysed(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\n"
        "def block(i, o):\n"
        "    return nn.Sequential(nn.Conv3d(i, o, 3, 2, 1), nn.BatchNorm3d(o), nn.ReLU())\n\n\n"
        "def net():\n"
        "    return nn.Sequential(block(1, 6), block(6, 8), block(8, 10))\n"
    )
    source = archive(tmp_path / "cases.npz")
    options = {
        "backbone": {"name": f"{tmp_path / 'net.py'}:net", "weights": "none", "size": 16},
        "train": {"epochs": 1},
        "transfer": {"cut": "auto"},
    }
    compared = compare(
        volume_config(source, **options, compare={"strategies": ("ttl", "frozen", "hybrid"), "trials": 1}),
        tmp_path / "compared",
    )
    assert {row["strategy"] for row in compared["rows"]} >= {"ttl", "frozen", "hybrid"}
    assert compared["sides"] == [16, 16, 16]
    fit(volume_config(source, **options), tmp_path / "run")
    analyze(tmp_path / "run")
    assert (tmp_path / "run" / "analysis.json").is_file()


def test_the_classifier_takes_volumes() -> None:
    volumes = np.stack([case(number) for number in range(40)])
    labels = [CLASSES[number % 2] for number in range(40)]
    model = TransferClassifier(size=16, cut=4, epochs=3, device="cpu", offline=True).fit(volumes, labels)
    assert model.predict_proba(volumes[:5]).shape == (5, 2)


def test_networks_and_data_must_go_together(nifti: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="reads images and the cohort is volumes"):
        fit(volume_config(nifti, backbone={"lift": "none"}), tmp_path / "a")
    images = tmp_path / "images.npz"
    parts = {}
    for split in ("train", "val", "test"):
        parts |= {f"{split}_images": np.zeros((6, 8, 8), np.uint8), f"{split}_labels": np.arange(6) % 2}
    np.savez(images, **parts)
    with pytest.raises(DataError, match="expected volumes, got images"):
        fit(volume_config(images, backbone={"name": "resnext3d_101", "weights": "none"}), tmp_path / "b")
    with pytest.raises(BackboneError, match="expected a network for images"):
        fit(
            volume_config(images, backbone={"name": "resnext3d_101", "weights": "none"}, data={"dims": 2}),
            tmp_path / "c",
        )
    with pytest.raises(ConfigError, match="float32 for volumes on the CPU"):
        fit(volume_config(nifti, train={"precision": "bf16"}), tmp_path / "d")


def test_a_training_that_does_not_fit_is_refused_with_a_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    told = Listener(say=said.append)
    forecast = MemoryForecast(fixed=2**30, per_case=2**30, working=2**20, sides=(64, 64, 64))
    monkeypatch.setattr("medgraft.search.forecast._free_bytes", lambda _device: 20 * 2**30)
    refuse_memory(forecast, 16, "cpu", told)
    assert said == ["Memory: about 17.0 of 20.0 GiB free, with 16 volumes in a batch."]
    with pytest.raises(ConfigError, match=r"need about 33\.0 GiB and 20\.0 GiB are free\. .*batch_size=17"):
        refuse_memory(forecast, 32, "cpu", told)
    large = MemoryForecast(fixed=2**30, per_case=16 * 2**30, working=2**20, sides=(64, 64, 64))
    with pytest.raises(ConfigError, match=r"Use --size 48,48,48 --set train\.batch_size=2, or a smaller network"):
        refuse_memory(large, 32, "cpu", told)
    # What is advised is taken.
    refuse_memory(large.scaled((48, 48, 48)), 2, "cpu", Listener())
    refuse_memory(dataclasses.replace(forecast, sides=(64, 64)), 4, "cpu", told)
    assert len(said) == 3


def test_the_forecast_counts_what_the_backward_pass_needs() -> None:
    import torch
    from torch import nn

    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 512, 1))
    forecast = forecast_memory(network, (1, 8, 8, 8), Engine(device="cpu"))
    assert forecast is not None
    params = sum(p.numel() for p in network.parameters())
    assert forecast.fixed == 4 * 4 * params
    # The input, and the activation once: the linear layer reads what the rectifier keeps.
    kept = 4 * (512 + 8 * 512)
    assert kept <= forecast.per_case <= kept + 7 * 4 * 8 * 512
    assert forecast.total(1000) == forecast.fixed + 1000 * forecast.per_case
    # Of 64 volumes looked at after an epoch only what one operation needs is there at a time.
    assert forecast.working == 6 * 4 * 8 * 512
    assert forecast.total(2) == forecast.fixed + 64 * forecast.working
    assert next(network.parameters()).device == torch.device("cpu")


def test_a_validation_that_does_not_fit_is_refused_whatever_the_batch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medgraft.search.forecast._free_bytes", lambda _device: 20 * 2**30)
    forecast = MemoryForecast(fixed=2**30, per_case=2**30, working=10 * 2**30, sides=(64, 64, 64))
    with pytest.raises(ConfigError, match=r"about 41\.0 GiB and 20\.0 GiB are free\. Use --size 16,16,16 --set"):
        refuse_memory(forecast, 4, "cpu", Listener())
    refuse_memory(forecast.scaled((16, 16, 16)), 4, "cpu", Listener())
    everywhere = dataclasses.replace(forecast, fixed=19 * 2**30)
    with pytest.raises(ConfigError, match=r"are free\. Use a smaller network\."):
        refuse_memory(everywhere, 4, "cpu", Listener())


def test_every_command_can_be_told_to_read_volumes(tmp_path: Path) -> None:
    for number in range(12):
        write_slices(case(number), tmp_path / "cohort" / CLASSES[number % 2] / f"case{number}")
    source, runner = str(tmp_path / "cohort"), CliRunner()
    done = runner.invoke(app, ["check", source, "--set", "data.dims=3"])
    assert "12 volumes in class folders" in done.output, done.output
    done = runner.invoke(app, ["cuts", "resnet18", "--lift", "acs", "--size", "16,64,64", "--json"])
    assert json.loads(done.output)[-1]["shape"] == [512, 1, 2, 2]
    done = runner.invoke(app, ["cuts", "resnet18", "--size", "16,64"])
    assert done.exit_code != 0
