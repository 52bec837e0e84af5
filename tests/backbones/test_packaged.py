import hashlib
import json

import pytest
import torch
from safetensors import safe_open

from medgraft.backbones import packaged
from medgraft.backbones.packaged import (
    PACKAGED_NAME,
    build_packaged,
    packaged_manifest,
    packaged_state,
    packaged_weights,
)
from medgraft.errors import WeightsError


@pytest.fixture
def moved_package(tmp_path, monkeypatch):
    """The package's files in a folder that a test may damage."""
    folder = tmp_path / "packaged_weights"
    folder.mkdir()
    for name in (f"{PACKAGED_NAME}.safetensors", f"{PACKAGED_NAME}.json"):
        (folder / name).write_bytes((packaged_weights().parent / name).read_bytes())
    monkeypatch.setattr(packaged.importlib.resources, "files", lambda package: tmp_path)
    return folder


def test_weights_fit_the_trunk_without_rest():
    report = build_packaged().load_state_dict(packaged_state())
    assert report.missing_keys == report.unexpected_keys == []


def test_trunk_is_small_and_pools_to_128_features():
    trunk = build_packaged().eval()
    assert 0.65e6 < sum(parameter.numel() for parameter in trunk.parameters()) < 0.75e6
    assert trunk(torch.zeros(2, 1, 96, 64)).shape == (2, 128)


def test_file_is_small_and_half_precision_but_loads_as_float32():
    assert packaged_weights().stat().st_size < 3_000_000
    with safe_open(packaged_weights(), framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - not a dict
    assert kinds == {torch.float16, torch.int64}
    assert {value.dtype for value in packaged_state().values()} == {torch.float32, torch.int64}


def test_manifest_describes_the_file():
    manifest = packaged_manifest()
    assert manifest["sha256"] == hashlib.sha256(packaged_weights().read_bytes()).hexdigest()
    assert manifest["file"] == packaged_weights().name
    assert manifest["name"] == PACKAGED_NAME
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["input"] == {"channels": 1, "size": 64, "normalisation": "image"}
    assert manifest["num_params"] == sum(parameter.numel() for parameter in build_packaged().parameters())
    assert {"seed", "steps", "images", "recipe", "versions"} <= set(manifest)


def test_source_accuracy_is_well_above_chance_and_settled():
    manifest = packaged_manifest()
    assert manifest["source_val_accuracy"] > 20 * manifest["source_val_chance"]
    curve = list(manifest["source_val_accuracy_by_step"].values())
    assert abs(curve[-1] - curve[-2]) < 0.02
    assert curve[-1] == max(curve) or max(curve) - curve[-1] < 0.01


def test_loaded_trunk_tells_inputs_apart_and_stays_finite():
    trunk = build_packaged().eval()
    trunk.load_state_dict(packaged_state())
    features = trunk(torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(features).all()
    assert features.std(dim=0).max() > 0.01
    for name, buffer in trunk.named_buffers():
        if name.endswith("running_var"):
            assert (buffer >= 0).all(), name


def test_changed_weights_are_refused(moved_package):
    file = moved_package / f"{PACKAGED_NAME}.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="Expected sha256"):
        packaged_state()


def test_missing_weights_are_refused(moved_package):
    (moved_package / f"{PACKAGED_NAME}.safetensors").unlink()
    with pytest.raises(WeightsError, match="Install medgraft again"):
        packaged_weights()


@pytest.mark.parametrize(("text", "message"), [("{", "Expected JSON"), (json.dumps([1]), "JSON object")])
def test_damaged_manifest_is_refused(moved_package, text, message):
    (moved_package / f"{PACKAGED_NAME}.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        packaged_manifest()
