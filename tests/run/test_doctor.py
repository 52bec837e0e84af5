import importlib
import importlib.metadata
import json
import shutil
import socket
import sys
import warnings
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from PIL import features

from medgraft.run import doctor as room
from medgraft.run.doctor import Check, Diagnosis, doctor

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def find(name):
    found = [check for check in doctor().checks if check.name == name]
    assert found, f"no check {name}"
    return found[0]


def fake_versions(monkeypatch, **versions):
    real = importlib.metadata.version

    def version(name):
        found = versions.get(name, "real")
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name) if found == "real" else found

    monkeypatch.setattr(importlib.metadata, "version", version)


def fake_import(monkeypatch, **modules):
    """`importlib.import_module` hands out the named stand-ins, or raises those that are exceptions."""
    real = importlib.import_module

    def import_module(name):
        found = modules.get(name.replace(".", "_"))
        if isinstance(found, Exception):
            raise found
        return found or real(name)

    monkeypatch.setattr(importlib, "import_module", import_module)


def fake_package(folder: Path, name: str, version: str):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / name / "version.py").write_text(f"__version__ = '{version}'\n")
    return SimpleNamespace(origin=str(folder / name / "__init__.py"))


def fake_builds(monkeypatch, tmp_path, torch_version, vision_version):
    specs = {
        "torch": fake_package(tmp_path, "torch", torch_version),
        "torchvision": fake_package(tmp_path, "torchvision", vision_version),
    }
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)


def test_the_installation_of_the_tests_is_examined_completely():
    diagnosis = doctor()
    names = {check.name for check in diagnosis.checks}
    assert {"python", "packages", "torch build", "cpu", "memory", "codecs", "packaged weights"} <= names
    assert {"hub cache", "disk here", "disk of MEDGRAFT_HOME", "home"} <= names
    assert [check for check in diagnosis.checks if check.status == "fail"] == []
    assert diagnosis.is_healthy


def test_doctor_makes_no_network_attempt(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a network attempt")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    assert doctor().is_healthy


def test_doctor_leaves_nothing_behind(tmp_path):
    doctor()
    assert list(tmp_path.iterdir()) == []


def test_doctor_does_not_import_the_room_that_needs_timm():
    source = Path(room.__file__).read_text()
    assert "medgraft.backbones import" not in source
    assert "import timm" not in source
    assert "import torch" not in source


def test_only_a_failure_makes_a_diagnosis_unhealthy():
    checks = tuple(Check(name=status, status=status, message="") for status in ("ok", "warn", "fail"))
    assert Diagnosis(checks=checks[:2]).is_healthy
    assert not Diagnosis(checks=checks).is_healthy


def test_an_old_package_is_named_with_its_minimum_and_the_command(monkeypatch):
    fake_versions(monkeypatch, timm="0.9.0")
    check = find("package timm")
    assert check.status == "fail"
    assert "got 0.9.0" in check.message
    assert "pip install --upgrade 'timm>=" in check.message


def test_a_missing_package_and_an_excluded_version_fail(monkeypatch):
    fake_versions(monkeypatch, rich=None, torch="2.9.1")
    assert "got none" in find("package rich").message
    assert "got 2.9.1" in find("package torch").message
    assert not doctor().is_healthy


def test_the_tools_of_developers_are_not_required(monkeypatch):
    fake_versions(monkeypatch, hypothesis=None, ruff=None, pyarrow=None)
    assert find("packages").status == "ok"


def test_an_import_without_an_installation_is_a_warning(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert find("packages").status == "warn"


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(room.platform, "python_version", lambda: "3.9.18")
    check = find("python")
    assert check.status == "fail"
    assert "got 3.9.18" in check.message


@pytest.mark.parametrize(
    ("torch_version", "vision_version"), [("2.13.0+cpu", "0.28.0+cu130"), ("2.13.0+cu126", "0.28.0+cpu")]
)
def test_a_build_mismatch_is_seen_without_importing(monkeypatch, tmp_path, torch_version, vision_version):
    fake_builds(monkeypatch, tmp_path, torch_version, vision_version)
    (check,) = room._builds()
    assert check.status == "fail"
    assert torch_version in check.message
    assert vision_version in check.message
    assert "--force-reinstall torch torchvision" in check.message


def test_a_torch_that_torchvision_was_not_built_for_is_seen(monkeypatch, tmp_path):
    fake_builds(monkeypatch, tmp_path, "2.8.0", "0.28.0")
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: ["numpy", "torch (==2.13.0)"])
    (check,) = room._builds()
    assert check.status == "fail"
    assert "expects torch==2.13.0, got 2.8.0" in check.message


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libcudart.so.13: cannot open shared object file"),
        RuntimeError("operator torchvision::nms does not exist"),
        OSError("undefined symbol"),
        AttributeError("partially initialized module 'torchvision' has no attribute 'extension'"),
    ],
)
def test_a_torchvision_that_cannot_be_imported_is_a_failure_with_its_reason(monkeypatch, error):
    fake_import(monkeypatch, torchvision=error)
    check = find("torch build")
    assert check.status == "fail"
    assert str(error) in check.message


def test_a_broken_torch_stops_no_other_check(monkeypatch):
    fake_import(monkeypatch, torch=OSError("libtorch_cpu.so: cannot open shared object file"))
    assert find("torch build").status == "fail"
    assert find("cpu").status == "warn"
    assert find("packaged weights").status == "ok"


def test_the_build_is_read_from_the_file_and_else_from_the_metadata(monkeypatch, tmp_path):
    spec = fake_package(tmp_path, "torch", "2.15.0+cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    assert room._build_of("torch") == "2.15.0+cpu"
    (tmp_path / "torch" / "version.py").unlink()
    assert room._build_of("torch") == importlib.metadata.version("torch")


def fake_cuda(**parts):
    whole = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "mem_get_info": lambda _index: (10 * 2**30, 16 * 2**30),
        "is_bf16_supported": lambda including_emulation: True,
        "get_device_name": lambda _index: "Some GPU",
        **parts,
    }
    ones = lambda _count, device: torch.ones(8)  # noqa: E731 - the stand-in has no such device
    return SimpleNamespace(cuda=SimpleNamespace(**whole), ones=ones, version=SimpleNamespace(cuda="13.2"))


def test_a_cuda_device_is_named_with_its_memory(monkeypatch):
    fake_import(monkeypatch, torch=fake_cuda())
    (check,) = room._cuda()
    assert check == Check(name="cuda:0", status="ok", message="Some GPU, 10.0 of 16.0 GiB free, bf16")


def test_a_cuda_device_without_a_kernel_for_it_fails(monkeypatch):
    def mem_get_info(_index):
        raise RuntimeError("CUDA error: no kernel image is available\nmore lines")

    fake_import(monkeypatch, torch=fake_cuda(mem_get_info=mem_get_info))
    (check,) = room._cuda()
    assert check.status == "fail"
    assert "no kernel image is available)" in check.message


def test_an_old_driver_is_a_warning_and_not_silence(monkeypatch):
    def is_available():
        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    fake_import(monkeypatch, torch=fake_cuda(is_available=is_available))
    (check,) = room._cuda()
    assert check.status == "warn"
    assert "driver on your system is too old" in check.message


def test_more_threads_than_the_container_may_use_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert room._quota(tmp_path / "cpu.max") == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert room._quota(tmp_path / "cpu.max") is None
    assert room._quota(tmp_path / "absent") is None
    monkeypatch.setattr(room, "_quota", lambda: 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    check = find("cpu")
    assert check.status == "warn"
    assert "OMP_NUM_THREADS=1" in check.message


@pytest.mark.parametrize(("codec", "status"), [("jpg", "fail"), ("zlib", "fail"), ("libtiff", "warn")])
def test_a_missing_codec_is_reported_as_what_cannot_be_read(monkeypatch, codec, status):
    real = features.check
    monkeypatch.setattr(features, "check", lambda name: name != codec and real(name))
    found = [check for check in room._codecs() if codec in check.message and check.status == status]
    assert len(found) == 1


def packaged_copy(monkeypatch, tmp_path):
    folder = tmp_path / "medgraft" / "backbones" / "packaged_weights"
    real = Path(room.__file__).parents[1] / "backbones" / "packaged_weights"
    shutil.copytree(real, folder)
    monkeypatch.setattr(importlib.resources, "files", lambda _name: tmp_path / "medgraft")
    return folder


def test_changed_packaged_weights_fail(monkeypatch, tmp_path):
    folder = packaged_copy(monkeypatch, tmp_path)
    assert all(check.status == "ok" for check in room._packaged())
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (check,) = room._packaged()
    assert check.status == "fail"
    assert "expected sha256" in check.message


@pytest.mark.parametrize("damage", ["no file", "no key", "no json", "no manifest"])
def test_incomplete_packaged_weights_fail(monkeypatch, tmp_path, damage):
    folder = packaged_copy(monkeypatch, tmp_path)
    manifest = next(folder.glob("*.json"))
    if damage == "no file":
        manifest.with_suffix(".safetensors").unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps({}) if damage == "no key" else "<html>")
    (check,) = room._packaged()
    assert check.status == "fail"
    assert "Install medgraft again" in check.message


def test_cached_hub_weights_are_listed_when_a_weights_file_is_really_there(tmp_path):
    cache = tmp_path / "hub"
    for name, file in (("resnet18.a1_in1k", "model.safetensors"), ("resnet50.a1_in1k", "config.json")):
        snapshot = cache / f"models--timm--{name}" / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        (snapshot / file).write_bytes(b"0")
    broken = cache / "models--timm--vit" / "snapshots" / "0123" / "model.safetensors"
    broken.parent.mkdir(parents=True)
    broken.symlink_to(tmp_path / "gone")
    check = find("hub cache")
    assert check.status == "ok"
    assert "resnet18.a1_in1k" in check.message
    assert "resnet50" not in check.message
    assert "vit" not in check.message


def test_an_empty_hub_cache_says_what_offline_use_needs(tmp_path):
    check = find("hub cache")
    assert str(tmp_path / "hub") in check.message
    assert "--weights PATH" in check.message


@pytest.mark.parametrize(("free", "status"), [(10**6, "fail"), (2**30, "warn"), (2**35, "ok")])
def test_disk_space_is_judged(monkeypatch, free, status):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(free, 0, free))
    assert find("disk here").status == status
    assert find("disk of MEDGRAFT_HOME").status == status


def test_a_home_below_a_file_fails(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "file" / "home"))
    check = find("home")
    assert check.status == "fail"
    assert "Set MEDGRAFT_HOME" in check.message


def test_a_home_that_exists_is_written_to_and_left_empty(monkeypatch, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    assert "is writable" in find("home").message
    assert list(folder.iterdir()) == []


def test_little_memory_is_a_warning(monkeypatch):
    memory = SimpleNamespace(available=2**29, total=2**33)
    monkeypatch.setattr(room.psutil, "virtual_memory", lambda: memory)
    assert find("memory").status == "warn"


def test_cores_are_those_the_process_may_use(monkeypatch):
    monkeypatch.setattr(room.os, "sched_getaffinity", lambda _pid: {0, 5, 7}, raising=False)
    assert room._cores() == 3
    monkeypatch.delattr(room.os, "sched_getaffinity")
    monkeypatch.setattr(room.os, "cpu_count", lambda: None)
    assert room._cores() == 1


def test_the_python_of_the_environment_is_named():
    assert sys.executable in find("python").message


def test_every_transfer_syntax_has_its_line(monkeypatch):
    import medgraft.io.dicom_pixels as reading

    lines = room._dicom()
    assert len(lines) == len(reading.COMPRESSED)
    assert {check.status for check in lines} == {"ok"}
    monkeypatch.setattr(reading, "get_decoder", lambda uid: type("None", (), {"available_plugins": ()}))
    missing = room._dicom()
    assert {check.status for check in missing} == {"warn"}
    assert all("medgraft[dicom]" in check.message for check in missing)
