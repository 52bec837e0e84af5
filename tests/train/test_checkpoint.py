"""Checkpoints are whole or absent, damage is told, and nothing in them is run."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import medgraft.train.checkpoint as checkpoint
from medgraft import files
from medgraft.errors import RunError
from medgraft.train.checkpoint import load_best, load_checkpoint, remove_checkpoint, save_best, save_checkpoint

STATE = {"model": {"weight": torch.arange(1000.0)}, "epoch": 3, "history": [{"loss": 0.25}], "best": float("-inf")}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, STATE)
    found = load_checkpoint(tmp_path)
    assert torch.equal(found["model"].pop("weight"), STATE["model"]["weight"])
    assert found == {**STATE, "model": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    remove_checkpoint(tmp_path)
    remove_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path) is None


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("bombed",))


def test_a_checkpoint_with_code_is_refused_unrun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Bomb()}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(RunError, match="got a damaged one"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "bombed").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"<html></html>", b"\x00" * 100])
def test_a_file_that_is_no_checkpoint_is_told(tmp_path, content):
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoint\.safetensors, got a damaged one .*Delete it"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_checkpoint_is_told(tmp_path, share):
    save_checkpoint(tmp_path, STATE)
    path = tmp_path / "checkpoint.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RunError, match="got a damaged one"):
        load_checkpoint(tmp_path)


def test_random_bytes_are_always_told(tmp_path):
    random = np.random.default_rng(0)
    for _ in range(60):
        (tmp_path / "checkpoint.safetensors").write_bytes(b"\x80\x02" + random.bytes(40))
        with pytest.raises(RunError, match="got a damaged one"):
            load_checkpoint(tmp_path)


def test_a_checkpoint_of_another_network_is_told(make_run, tmp_path):
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run", STATE)
    with pytest.raises(RunError, match=r"a checkpoint of this model in .*got another .*Delete it"):
        make_run()()


def test_weights_and_outputs_come_back_together(tmp_path):
    weights = {"a": torch.rand(3, 4).t(), "count": torch.tensor(3)}
    probs = np.random.default_rng(0).random((5, 2))
    save_best(tmp_path, weights, probs)
    found, outputs = load_best(tmp_path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)
    np.testing.assert_array_equal(outputs, probs)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 50, b"<html></html>"])
def test_missing_or_damaged_weights_are_told(tmp_path, content):
    if content is not None:
        (tmp_path / "best.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"could not read the weights .*best\.safetensors"):
        load_best(tmp_path)


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, STATE)
    save_best(tmp_path, {"a": torch.ones(2)}, np.ones((1, 2)))

    def full(path, _content=b""):
        with path.open("wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(checkpoint, "save_file", lambda _content, path: full(path))
    with pytest.raises(RunError, match=r"No space left on device\. Free some space"):
        save_checkpoint(tmp_path, {})
    with pytest.raises(RunError, match=r"No space left on device\. Free some space"):
        save_best(tmp_path, {}, np.ones((1, 2)))
    assert load_checkpoint(tmp_path)["epoch"] == 3
    assert load_best(tmp_path)[0].keys() == {"a"}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_disk_that_is_really_full_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda _n: "0")
    (tmp_path / ".unfinished-0-checkpoint.safetensors").symlink_to("/dev/full")
    with pytest.raises(RunError, match="could not write"):
        save_checkpoint(tmp_path, STATE)
    assert list(tmp_path.iterdir()) == []
