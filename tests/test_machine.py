"""How threads wait, who else uses the machine, and what commands load."""

import os
import subprocess
import sys
import time

import pytest

from medgraft.machine import busy_cores, home

SPINS = "import os, medgraft; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in __import__('sys').modules)"


def printed(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept | environment
    )
    return done.stdout.strip()


def test_waiting_threads_spin_for_a_while_only_and_before_torch_is_loaded() -> None:
    assert printed(SPINS) == "10000 False"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({"GOMP_SPINCOUNT": "7"}, "7 False"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None False")],
)
def test_what_the_user_has_set_stays(given: dict[str, str], wanted: str) -> None:
    assert printed(SPINS, **given) == wanted


def test_others_at_work_are_seen() -> None:
    code = "import time; end = time.time() + 60\nwhile time.time() < end: pass"
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        # It takes a moment to start.
        while busy_cores() < 0.7 and time.monotonic() < deadline:
            pass
        assert busy_cores() >= 0.7
    finally:
        other.kill()
        other.wait()


def test_the_place_of_the_machine_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGRAFT_HOME", "/somewhere")
    assert home().as_posix() == "/somewhere"


LOADED = "import sys\nfrom medgraft.cli import app\ntry: app({arguments!r})\nexcept BaseException: pass\nprint('|', *sys.modules)"


@pytest.mark.parametrize(
    ("arguments", "spared"),
    [
        (["--help"], "torch timm pandas numpy scipy sklearn matplotlib pydicom monai"),
        (["fit", "--help"], "torch timm pandas numpy scipy sklearn matplotlib pydicom monai"),
        (["fit", "x", "--out", "y", "--nothing"], "torch timm pandas numpy scipy sklearn matplotlib pydicom monai"),
        (["fit", "x", "--out", "y", "--preset", "none"], "torch timm pandas scipy sklearn matplotlib pydicom monai"),
        (
            ["cuts", "resnet18"],
            "pandas scipy sklearn matplotlib pydicom monai nibabel accelerate medgraft.run medgraft.report medgraft.data",
        ),
    ],
)
def test_a_command_loads_what_it_needs_and_no_more(arguments: list[str], spared: str) -> None:
    loaded = set(printed(LOADED.format(arguments=arguments)).rpartition("|")[2].split())
    assert "medgraft.cli" in loaded
    assert not loaded & set(spared.split())
