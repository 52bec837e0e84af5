"""Nothing touches a network that was told not to, and without one a hub refuses within seconds."""

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image

from medgraft import cli
from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.backbones.reach import demand_reachable
from medgraft.errors import WeightsError
from medgraft.sources import open_backbone

Command = Callable[..., str]


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Every attempt to open a connection or to look up a name fails and is noted."""
    attempts: list[str] = []

    def refuse(*args: Any, **_: Any) -> NoReturn:
        attempts.append(str(args[:2]))
        raise AssertionError(f"a network was touched: {args[:2]}")

    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "home"))
    return attempts


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["medgraft", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert int(stop.value.code or 0) == code, (arguments, out[-500:], err)
        return out + err

    return command


@pytest.fixture
def films(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, level in (("clear", 60), ("ill", 150)):
        (tmp_path / "films" / label).mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(rng.normal(level, 40, (24, 24)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "films" / label / f"{number}.png")
    return tmp_path / "films"


SMALL = ("--size", "16", "--epochs", "1", "--preset", "fast", "--offline")


@pytest.mark.slow
def test_no_command_touches_a_network_offline(closed: list[str], run: Command, films: Path, tmp_path: Path) -> None:
    network = build_backbone(BackboneSpec(name="test_resnet", weights="none")).network
    torch.save(network.state_dict(), tmp_path / "own.pth")
    run("weights", "import", tmp_path / "own.pth", "--as", "our-net", "--backbone", "test_resnet")
    own = ("--weights", "our-net", *SMALL)
    run("check", films)
    run("fit", films, "--out", tmp_path / "run", "--strategy", "frozen", "--cut", "2", *own)
    run("predict", tmp_path / "run", films / "ill", "-o", tmp_path / "p.csv")
    run("evaluate", tmp_path / "run", films, "-o", tmp_path / "external")
    run("analyze", tmp_path / "run")
    run("advise", films, "--weights", "our-net", "--size", "16", "--offline", "--set", "train.epochs=1")
    run("compare", films, "--out", tmp_path / "both", "--strategies", "frozen", "--trials", 1, "--seeds", 1, *own)
    run("cuts", "test_resnet")
    run("cache")
    run("weights", "list", "--offline")
    run("weights", "show", "our-net")
    run("weights", "verify")
    run("weights", "pack", "our-net", "-o", tmp_path / "stick")
    run("weights", "remove", "our-net")
    run("weights", "unpack", tmp_path / "stick")
    run("weights", "fetch", "resnet18-imagenet", "--offline", code=2)
    assert "--offline" in run("fit", films, "--out", tmp_path / "no", "--backbone", "resnet18", *SMALL, code=2)
    assert not (tmp_path / "no").exists()
    assert closed == []


@pytest.mark.parametrize("name", ["resnet18", "torchvision/alexnet", "medicalnet/resnet10", "torchvision/r3d_18"])
def test_without_a_network_the_hub_refuses_within_five_seconds(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def nobody_answers(*_: Any, **__: Any) -> NoReturn:
        time.sleep(60)
        raise OSError("timed out")

    monkeypatch.setattr(socket, "create_connection", nobody_answers)
    backbone = build_backbone(BackboneSpec(name=name, weights="none"))
    del backbone
    start = time.monotonic()
    with pytest.raises(
        WeightsError, match=r"expected to reach .*, got no answer within 4 s\. Without internet use --wei"
    ):
        open_backbone(BackboneSpec(name=name, weights="hub"))
    built = time.monotonic()
    build_backbone(BackboneSpec(name=name, weights="none"))
    # Building the network takes what it takes on a busy machine; only what the network adds is counted.
    assert built - start - (time.monotonic() - built) < 5


def test_a_proxy_is_asked_instead_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> NoReturn:
        asked.append(address)
        raise OSError("refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("https_proxy", "http://proxy.hospital:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(WeightsError, match=r"expected to reach proxy\.hospital, got OSError: refused"):
        demand_reachable("https://weights.example/file.pth")
    monkeypatch.setenv("no_proxy", "weights.example")
    with pytest.raises(WeightsError, match=r"expected to reach weights\.example"):
        demand_reachable("https://weights.example/file.pth")
    assert asked == [("proxy.hospital", 3128), ("weights.example", 443)]
