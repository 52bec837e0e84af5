import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medgraft.train import Engine, ImageSet, TrainSettings, train_model
from medgraft.transfer.plan import ParameterGroup


class Net(nn.Module):
    """Two blocks with batch normalisation and dropout: everything that can break a resume."""

    def __init__(self, num_outputs: int = 1, channels: int = 1) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
        )
        self.linear = nn.Linear(8, num_outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.blocks(images).mean((2, 3)))


def images_of(task: str = "binary", num: int = 40, seed: int = 0, positive: int | None = None) -> ImageSet:
    """Images of noise whose brightness tells the class, with an imbalance of about 3 to 1."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 160, (num + 7, 1, 8, 8)).astype(np.uint8)
    rows = random.permutation(num + 7)[:num]
    num_classes = 2 if task == "binary" else 3
    targets = np.where(np.arange(num) % 4 == 0, 1, 0)
    if task == "multiclass":
        targets = np.array([0, 0, 0, 1, 1, 2])[np.arange(num) % 6]
    elif task == "multilabel":
        targets = np.stack([np.arange(num) % step == 0 for step in (2, 3, 5)], 1).astype(np.float32)
    shown = targets.sum(1) if task == "multilabel" else targets
    images[rows] += (30 * shown).astype(np.uint8)[:, None, None, None]
    return ImageSet(
        images=images,
        rows=rows,
        targets=targets,
        intensity_max=255,
        task=task,
        positive=(1 if positive is None else positive) if task == "binary" else None,
        num_classes=num_classes,
    )


def net_of(num_outputs: int = 1, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(num_outputs)


def groups_of(model: nn.Module, lr: float = 0.02) -> list[ParameterGroup]:
    named = dict(model.named_parameters())
    vectors = {n: p for n, p in named.items() if p.ndim == 1}
    matrices = {n: p for n, p in named.items() if p.ndim > 1}
    return [
        ParameterGroup(params=tuple(part.values()), names=tuple(part), lr=lr, weight_decay=decay)
        for part, decay in ((vectors, 0.0), (matrices, 0.05))
    ]


@dataclasses.dataclass
class Run:
    """One training of the small network, with everything replaceable."""

    folder: Path
    data: tuple[ImageSet, ImageSet]
    engine: Engine = dataclasses.field(default_factory=lambda: Engine(device="cpu", is_deterministic=True))
    lr: float = 0.02
    on_epoch: object = None

    def __call__(self, **settings):
        settings = {"epochs": 3, "batch_size": 16, **settings}
        model = net_of(self.data[0].num_outputs)
        found = train_model(
            model,
            groups_of(model, self.lr),
            self.data,
            TrainSettings(**settings),
            self.engine,
            self.folder,
            self.on_epoch,
        )
        return model, found


@pytest.fixture
def make_images():
    return images_of


@pytest.fixture
def make_net():
    return net_of


@pytest.fixture
def make_groups():
    return groups_of


@pytest.fixture
def make_run(tmp_path):
    """A training in a folder of its own: make_run(name, **fields)(**settings) → (model, result)."""

    def make(name: str = "run", **fields) -> Run:
        fields.setdefault("data", (images_of(), images_of(num=24, seed=1)))
        return Run(folder=tmp_path / name, **fields)

    return make
