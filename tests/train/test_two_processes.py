"""Two processes train one model: they agree with each other, and one checkpoint is written."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

SCRIPT = """
import json, os, sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medgraft.train import Engine, ImageSet, TrainSettings, train_model
from medgraft.transfer.plan import ParameterGroup

random = np.random.default_rng(0)
targets = np.arange(48) % 2
images = random.integers(0, 160, (48, 1, 8, 8)).astype(np.uint8)
images += (targets * 40).astype(np.uint8)[:, None, None, None]


def part(rows):
    return ImageSet(
        images=images, rows=rows, targets=targets[rows], intensity_max=255, task="binary", positive=1, num_classes=2
    )


torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
)
named = dict(model.named_parameters())
groups = [ParameterGroup(params=tuple(named.values()), names=tuple(named), lr=0.02, weight_decay=0.0)]
folder = Path(sys.argv[1])
found = train_model(
    model,
    groups,
    (part(np.arange(33)), part(np.arange(33, 48))),
    TrainSettings(epochs=int(sys.argv[2]), batch_size=8, schedule="constant"),
    Engine(device="cpu", is_deterministic=True),
    folder,
)
history = [(row.train_loss, row.scores["auprc"]) for row in found.history]
weights = {name: value.tolist() for name, value in model.state_dict().items()}
said = {"history": history, "weights": weights, "images_seen": found.images_seen, "probs": found.val_outputs.tolist()}
(folder.parent / f"{folder.name}_{os.environ['RANK']}.json").write_text(json.dumps(said))
# Left to the end of the process, gloo's threads now and then abort it on a loaded machine.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def launch(folder, epochs):
    """What each of two processes says after training to `epochs` in `folder`."""
    script = folder.parent / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), str(folder), str(epochs)], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder.parent / f"{folder.name}_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this build of torch has no gloo")
def test_two_processes_agree(tmp_path):
    first, other = launch(tmp_path / "run", 2)
    assert first == other
    assert np.isfinite([value for row in first["history"] for value in row]).all()
    # One of the 33 images has no partner in the other process.
    assert first["images_seen"] == 2 * 32
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["best.safetensors", "checkpoint.safetensors"]
