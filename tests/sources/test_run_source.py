"""A finished run is a source: what it learned goes on, with its preprocessing and its ancestors."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from medgraft.backbones import BackboneSpec
from medgraft.deploy import load_artefact
from medgraft.errors import BackboneError, WeightsError
from medgraft.listener import Listener
from medgraft.phantom.phantom import write_phantom
from medgraft.sources import open_backbone
from medgraft.sources.choose import network_of_weights
from medgraft.sources.locate import locate
from small_runs import SMALL, fit, small_config


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, SMALL, 0)
    return folder / "cases.csv"


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "films"
    fit(small_config(phantom, transfer={"strategy": "ttl", "cut": "4"}, train={"epochs": 1}), folder)
    return folder


def test_the_fully_fine_tuned_network_of_a_run_fills_a_network_whole(run: Path) -> None:
    source = str(run / "baseline")
    named = network_of_weights(source)
    assert (named.name, named.weights) == ("shapes_resnet18", source)
    backbone = open_backbone(BackboneSpec(name=named.name, weights=source))
    assert (backbone.report.missing, backbone.report.source, backbone.normalisation) == ((), "films/baseline", "image")
    stored = load_artefact(run / "baseline").network.trunk.state_dict()
    ours = backbone.network.state_dict()
    for name, value in stored.items():
        assert torch.equal(ours[name.removeprefix("network.")], value), name
    steps = [(step.name, step.licence) for step in backbone.report.lineage]
    assert steps == [("packaged", "Apache-2.0"), ("films/baseline", "Apache-2.0")]
    assert backbone.report.lineage[-1].learned.startswith("supervised (ftl at layer4.1): ")


def test_a_truncated_run_leaves_the_rest_random_and_says_so(run: Path) -> None:
    backbone = open_backbone(BackboneSpec(name="shapes_resnet18", weights=str(run)))
    assert backbone.report.source == "films"
    assert all(name.startswith("layer") for name in backbone.report.missing)
    assert backbone.report.missing


def test_a_chain_is_fitted_cut_and_told(run: Path, phantom: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = small_config(
        phantom,
        backbone={"name": None, "weights": str(run / "baseline")},
        transfer={"strategy": "ttl", "cut": "3"},
        train={"epochs": 1},
    )
    results = fit(config, tmp_path / "chain", listener=Listener(say=said.append))
    assert any("packaged → films/baseline" in words for words in said)
    lineage = results["backbone"]["load_report"]["lineage"]
    assert [step["name"] for step in lineage] == ["packaged", "films/baseline"]
    # Really removed: nothing above the cut is stored.
    names = load_artefact(tmp_path / "chain").network.trunk.state_dict()
    assert not [name for name in names if "layer4" in name]
    again = open_backbone(BackboneSpec(name="shapes_resnet18", weights=str(tmp_path / "chain")))
    assert [step.name for step in again.report.lineage] == ["packaged", "films/baseline", "chain"]
    assert "step 2" in (tmp_path / "chain" / "MODEL_CARD.md").read_text(encoding="utf-8")


def changed(run: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(run / "model", folder / "model")
    described = json.loads((folder / "model" / "model.json").read_text())
    (folder / "model" / "model.json").write_text(json.dumps({**described, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slim": {"depth": 2, "width": 0.5}}, "got one slimmed above its cut in"),
        ({"strategy": "lora"}, "got one with adapters in"),
        ({"backbone": {"name": "x", "args": {}, "in_channels": 3, "lift": "acs"}}, "that was lifted to volumes in"),
        ({"sha256": "0"}, "names, got others or none"),
        ({"cut": {}}, "expected the description of a model at"),
    ],
)
def test_what_cannot_go_on_is_refused(run: Path, changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        locate(str(changed(run, tmp_path, **changes)))


def test_a_run_of_another_network_is_refused(run: Path) -> None:
    with pytest.raises((WeightsError, BackboneError)):
        open_backbone(BackboneSpec(name="resnet18", weights=str(run)))
