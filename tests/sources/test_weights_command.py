"""`medgraft weights` as its user meets it: lists, facts, a stick, and one line for what is wrong."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medgraft import cli
from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.sources.catalogue import SOURCES

Command = Callable[..., str]


@pytest.fixture
def weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "home"))

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["medgraft", "weights", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return command


def own_file(folder: Path) -> Path:
    torch.save(build_backbone(BackboneSpec(name="test_resnet", weights="none")).network.state_dict(), folder / "x.pth")
    return folder / "x.pth"


def test_the_list_has_every_source_and_says_how_it_gets_here(weights: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = weights("list", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == list(SOURCES)
    assert not any(row["is_here"] for row in rows)
    assert weights("list", "--offline")[1].endswith("0 sources, 0 of them here.\n")


def test_the_list_for_a_network_has_no_others(weights: Callable[..., tuple[int, str, str]]) -> None:
    rows = json.loads(weights("list", "--for", "resnet50", "--json")[1])
    assert {row["network"] for row in rows} == {"resnet50"}
    assert {"moco-v2-resnet50", "resnet50-imagenet"} <= {row["name"] for row in rows}


def test_all_facts_of_a_source_are_shown(weights: Callable[..., tuple[int, str, str]]) -> None:
    out = weights("show", "moco-v3-vit-s16")[1]
    for fact in (
        "--backbone-arg num_heads=12",
        "CC-BY-NC-4.0, no commercial use, https://",
        "mean (0.485",
        "Chen, Xie",
    ):
        assert fact in out


def test_a_file_is_imported_shown_packed_removed_and_unpacked(
    weights: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, _ = weights("import", own_file(tmp_path), "--as", "our-net", "--backbone", "test_resnet")
    assert (code, out[:31]) == (0, "our-net: imported from x.pth, s")
    assert "1 of them here" in weights("list", "--offline")[1]
    assert "imported from x.pth, sha256" in weights("show", "our-net")[1]
    code, out, _ = weights("verify")
    assert (code, out[:13]) == (0, "ok   our-net:")
    assert weights("pack", "our-net", "-o", tmp_path / "stick")[0] == 0
    assert weights("remove", "our-net")[1] == "Removed our-net.\n"
    assert weights("unpack", tmp_path / "stick")[1].startswith("our-net: sha256 ")
    stored = tmp_path / "home" / "weights" / "our-net" / "x.pth"
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    code, out, _ = weights("verify", "our-net")
    assert (code, out[:13]) == (1, "fail our-net:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "resnet50-imagnet"), "got 'resnet50-imagnet'. Nearest: resnet50-imagenet"),
        (("fetch", "nonsense"), "expected the name of a published source, got 'nonsense'"),
        (("fetch", "mae-vit-b16"), "expected --accept-licence for mae-vit-b16, whose licence CC-BY-NC-4.0"),
        (("import", "nothing.pth", "--as", "our-net"), "or a new one with --backbone, got 'our-net'"),
        (
            ("import", "nothing.pth", "--as", "our-net", "--backbone", "resnet18"),
            "expected a weights file at nothing.pth",
        ),
        (("pack", "our-net", "-o", "stick"), "expected weights 'our-net' in"),
        (("unpack", "stick"), "expected a pack of weights at stick"),
        (("remove", "our-net"), "to remove, got 'our-net'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    weights: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = weights(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.rglob("*.safetensors")) == []
