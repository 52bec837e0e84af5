"""Memory that a step frees is there for the next one, and goes back at the end."""

import ctypes
import json
import subprocess
import sys

import pytest

import medgraft.train.memory as memory_room
from medgraft.train.memory import freed_memory_kept

# In a process of its own: what other tests left in the heap would serve these blocks.
SCRIPT = """
import json, resource
import torch
from medgraft.train.memory import freed_memory_kept


def page_faults_of_steps(num):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(num):
        torch.ones(4_000_000)  # 16 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


try:
    with freed_memory_kept("cpu"):
        page_faults_of_steps(2)
        kept = page_faults_of_steps(20)
        1 / 0
except ZeroDivisionError:
    print(json.dumps([kept, page_faults_of_steps(20)]))
"""


@pytest.mark.skipif(memory_room._glibc() is None, reason="only glibc has the switch")
def test_steps_do_not_fault_the_same_pages_in_again_and_an_error_gives_them_back():
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True, timeout=120)
    kept, released = json.loads(said.stdout)
    assert kept < released / 10


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_other_devices_are_left_alone(device, monkeypatch):
    monkeypatch.setattr(memory_room, "_glibc", lambda: pytest.fail("asked for the C library"))
    with freed_memory_kept(device):
        pass


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    with freed_memory_kept("cpu"):
        pass

    def windows(_name):
        raise TypeError

    monkeypatch.setattr(ctypes, "CDLL", windows)
    with freed_memory_kept("cpu"):
        pass
