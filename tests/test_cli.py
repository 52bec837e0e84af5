"""The command line as its user meets it: exit codes, one line for what is wrong, JSON for machines."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from medgraft import cli
from medgraft.cli import app


def run_cli(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["medgraft", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def write_images(folder: Path, classes: dict[str, int], seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 36), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_cuts_prints_a_json_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli(["cuts", "resnet18", "--json", "--size", "64"], monkeypatch, capsys)
    assert code == 0
    found = json.loads(out)
    assert len(found) == 9
    assert found[0]["index"] == 1
    assert {"index", "name", "num_params", "macs"} <= set(found[0])


def test_cuts_takes_arguments_of_the_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["cuts", "mobilenetv1_100", "--backbone-arg", "pad_type=same", "--backbone-arg", "bn_eps=1e-3"]
    code, out, _ = run_cli(arguments, monkeypatch, capsys)
    assert code == 0
    assert "blocks.4.1" in out


def test_check_tells_clean_from_leaking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, split in enumerate(("train", "val", "test")):
        write_images(tmp_path / split, {"a": 8, "b": 8}, seed=number)
    assert run_cli(["check", str(tmp_path)], monkeypatch, capsys)[0] == 0
    shutil.copyfile(tmp_path / "train" / "a" / "0.png", tmp_path / "test" / "a" / "0.png")
    code, out, _ = run_cli(["check", str(tmp_path)], monkeypatch, capsys)
    assert code == 1
    assert "more than one split" in out


def test_check_finds_broken_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, {"a": 12, "b": 12})
    (tmp_path / "a" / "0.png").write_bytes(b"")
    assert run_cli(["check", str(tmp_path)], monkeypatch, capsys)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "DATA/nowhere", "--out", "OUT"], "found nothing"),
        (["fit", "DATA/empty", "--out", "OUT"], "empty"),
        (["fit", "DATA/one", "--out", "OUT"], "class"),
        (["fit", "DATA/few", "--out", "OUT"], "3"),
        (["fit", "DATA/good", "--out", "OUT", "--backbone", "resnet5"], "Nearest: resnet50"),
        (["fit", "DATA/good", "--out", "OUT", "--weights", "DATA/page.pth"], "web page"),
        (["fit", "DATA/good", "--out", "OUT", "--weights", "DATA/nothing.pth"], "got nothing"),
        (["fit", "DATA/good", "--out", "OUT", "--weights", "none", "--cut", "77", "--epochs", "1"], "Its cuts: 1 "),
        (["fit", "DATA/good", "--out", "OUT", "--preset", "quick"], "fast, balanced"),
        (["fit", "DATA/good", "--out", "OUT", "--epochs", "0"], "train.epochs"),
        (["fit", "DATA/good", "--out", "OUT", "--strategy", "magic"], "scratch, frozen, hybrid"),
        (["fit", "DATA/good", "--out", "OUT", "--rule", "smallest"], "transfer.rule"),
        (["fit", "DATA/good", "--out", "OUT", "--margin", "-1"], "evaluate.margin"),
        (["fit", "DATA/good", "--out", "OUT", "--operating-point", "guess"], "youden"),
        (["fit", "DATA/good", "--out", "OUT", "--budget", "soon"], "30m"),
        (["fit", "DATA/good", "--out", "OUT", "--device", "abacus"], "abacus"),
        (["fit", "DATA/good", "--out", "OUT", "--set", "train.speed=9"], "train.speed"),
        (["fit", "DATA/good", "--out", "OUT", "--positive", "c"], "positive"),
        (["fit", "DATA/good", "--out", "OUT", "--backbone-arg", "nonsense"], "NAME=VALUE"),
        (["fit", "DATA/good", "--out", "OUT", "--backbone", "resnet18", "--offline"], "--offline"),
        (["fit", "DATA/missing.csv", "--out", "OUT"], "absent.png"),
        (["fit", "DATA/nan.csv", "--out", "OUT"], "label"),
        (["fit", "DATA/missing.csv", "--out", "OUT", "--label-column", "labels"], "label"),
        (["fit", "DATA/good"], "--out"),
        (["cuts", "nothing_like_it"], "expected a timm architecture"),
        (["predict", "DATA/empty", "DATA/good"], "model.json"),
        (["evaluate", "DATA/empty", "DATA/good"], "model.json"),
        (["check", "DATA/good", "--set", "train.lr=1"], "--set data."),
        (["evaluate", "DATA/empty", "DATA/good", "--set", "evaluate.margin=1"], "--set data."),
        (["analyze", "DATA/empty", "--labels", "x.csv"], "finished run keeps its own"),
        (["analyze", "DATA/empty", "--seed", "3"], "finished run keeps its own"),
        (["analyze", "DATA/empty", "--backbone", "resnet18"], "finished run keeps its own"),
        (["analyze", "DATA/empty", "--set", "seed=3"], "finished run keeps its settings"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    write_images(data / "good", {"a": 20, "b": 20})
    write_images(data / "one", {"a": 10})
    write_images(data / "few", {"a": 10, "b": 2})
    (data / "empty").mkdir()
    (data / "page.pth").write_text("<!DOCTYPE html><html>please log in</html>")
    (data / "missing.csv").write_text("path,label\ngood/a/0.png,a\nabsent.png,b\n")
    (data / "nan.csv").write_text("path,label\ngood/a/0.png,a\ngood/b/0.png,\n")
    filled = [text.replace("DATA", str(data)).replace("OUT", str(tmp_path / "out")) for text in arguments]
    code, _, err = run_cli(filled, monkeypatch, capsys)
    assert code == 2
    assert err.startswith("medgraft: ")
    assert err.count("\n") == 1
    assert words in err
    assert "Traceback" not in err
    assert not list((tmp_path / "out").glob("*"))


def test_a_pickle_with_code_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "owned",)  # type: ignore[return-value]

    torch.save({"state_dict": Malicious()}, tmp_path / "weights.pth")
    write_images(tmp_path / "good", {"a": 20, "b": 20})
    arguments = [
        "fit",
        str(tmp_path / "good"),
        "--out",
        str(tmp_path / "o"),
        "--weights",
        str(tmp_path / "weights.pth"),
    ]
    code, _, err = run_cli(arguments, monkeypatch, capsys)
    assert code == 2
    assert "never runs code" in err
    assert not (tmp_path / "owned").exists()


def test_help_and_version_are_quick_and_load_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['medgraft', '--version']\n"
        "from medgraft import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_nothing_is_printed_of_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "good", {"a": 20, "b": 20})
    rows = [f"good/{c}/{n}.png,{c},Doe-{n // 2}-{c}" for c in "ab" for n in range(20)]
    (tmp_path / "cases.csv").write_text("path,label,patient\n" + "\n".join(rows) + "\n")
    _, out, err = run_cli(["check", str(tmp_path / "cases.csv")], monkeypatch, capsys)
    assert "Doe" not in out + err


GROUPS = ["Data", "Labels", "Network", "Strategy", "Training", "Evaluation", "Running"]


def options_of(command):
    """Name and group of every option of a command, in the order of its help."""
    found = {option.name: option.rich_help_panel for option in command.params if option.param_type_name == "option"}
    found.pop("help", None)
    return found


def test_options_stand_in_the_same_groups_in_the_same_order_in_every_command():
    commands = typer.main.get_command(app).commands
    groups: dict[str, set[str]] = {}
    for name, command in commands.items():
        options = options_of(command)
        assert set(options.values()) <= set(GROUPS), (name, options)
        order = [GROUPS.index(group) for group in options.values()]
        assert order == sorted(order), name
        for option, group in options.items():
            groups.setdefault(option, set()).add(group)
    assert {option: found for option, found in groups.items() if len(found) > 1} == {}
    assert set(options_of(commands["fit"]).values()) == set(GROUPS)


def test_the_help_of_fit_shows_its_groups_at_any_width():
    for width in ("40", "80", "200"):
        text = CliRunner(env={"COLUMNS": width}).invoke(app, ["fit", "--help"]).output
        places = [text.index(f"─ {group} ") for group in GROUPS]
        assert places == sorted(places)
