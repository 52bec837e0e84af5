"""Settings of the small runs that tests of whole jobs share."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from medgraft.as_json import to_json
from medgraft.config import DataConfig, RunConfig, make_config
from medgraft.phantom.phantom import PhantomSettings
from medgraft.result.external import external_to_json
from medgraft.result.run import result_to_json
from medgraft.run.compare import compare as run_compare
from medgraft.run.evaluate import evaluate as run_evaluate
from medgraft.run.fit import fit as run_fit

SMALL = PhantomSettings(
    shape=(32, 32), num_patients={"train": 60, "val": 45, "test": 60}, classes=("normal", "nodule", "mass")
)


NETWORK = """
import torch
from torch import nn


class Block(nn.Sequential):
    def __init__(self, before, after, stride):
        super().__init__(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Net(nn.Module):
    def __init__(self, num_blocks=9):
        super().__init__()
        self.stem = Block(1, 12, 2)
        self.layers = nn.ModuleList(Block(12, 12, 2 if index in (2, 5) else 1) for index in range(num_blocks - 1))
        self.fc = nn.Linear(12, 10)

    def forward_features(self, images):
        images = self.stem(images)
        for layer in self.layers:
            images = layer(images)
        return images

    def forward(self, images):
        return self.fc(self.forward_features(images).mean((2, 3)))
"""


def own_network(folder: Path, num_blocks: int = 9) -> dict[str, Any]:
    """A network of one's own with weights in a file: as many cuts as the packaged one, and a twentieth of its cost."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NETWORK)
    space: dict[str, Any] = {}
    exec(NETWORK, space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(space["Net"](num_blocks).state_dict(), folder / "net.safetensors")
    return {
        "name": f"{folder / 'net.py'}:Net",
        "args": {"num_blocks": num_blocks},
        "weights": str(folder / "net.safetensors"),
        "size": 32,
    }


def small_config(source: Path, **options: Any) -> RunConfig:
    """Two epochs at 32 px with the packaged network, reproducible to the bit."""
    base: dict[str, Any] = {
        "backbone": {"name": "shapes_resnet18", "weights": "hub", "size": 32},
        "train": {"epochs": 2, "lr": 3e-3},
        "evaluate": {"replicates": 200},
        "deterministic": True,
        "offline": True,
        "device": "cpu",
    }
    for key, value in options.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and key in base else value
    return make_config(str(source), preset="fast", options=base)


def fit(config: RunConfig, out: str | Path, **options: Any) -> dict[str, Any]:
    """What stands in `results.json` after the main job."""
    return result_to_json(run_fit(config, out, **options))


def evaluate(run: str | Path, config: DataConfig, **options: Any) -> dict[str, Any]:
    """What stands in `evaluation.json` after a model was judged on another cohort."""
    return external_to_json(run_evaluate(run, config, **options))


def compare(config: RunConfig, out: str | Path, **options: Any) -> dict[str, Any]:
    """What stands in `comparison.json` after strategies were compared, but for the schema."""
    compared: dict[str, Any] = json.loads(json.dumps(to_json(run_compare(config, out, **options))))
    return compared
