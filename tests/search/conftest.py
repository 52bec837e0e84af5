from pathlib import Path

import numpy as np
import pytest

from medgraft.backbones.build import build_backbone
from medgraft.backbones.spec import BackboneSpec
from medgraft.search import TrialContext, TrialSpec
from medgraft.study import Study
from medgraft.train import Engine, ImageSet, TrainSettings
from medgraft.transfer.heads import HeadSettings
from medgraft.transfer.source import prepare_source
from medgraft.types import Cut

NETWORK = """
from torch import nn


def block(before, after, stride):
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = block(1, 4, 1)
        self.middle = block(4, 8, 2)
        self.top = block(8, 8, 1)
        self.fc = nn.Linear(8, 10)

    def forward_features(self, images):
        return self.top(self.middle(self.stem(images)))

    def forward(self, images):
        return self.fc(self.forward_features(images).mean((2, 3)))
"""


class Watched(np.ndarray):
    """Images that remember which of their rows were read."""

    def __array_finalize__(self, other):
        self.read = getattr(other, "read", None)

    def __getitem__(self, rows):
        if self.read is not None and isinstance(rows, np.ndarray):
            self.read.update(int(row) for row in rows)
        return np.asarray(super().__getitem__(rows))


@pytest.fixture
def context(tmp_path) -> TrialContext:
    """64 images of 8 × 8 px, of which the last 16 belong to nobody here, and a network of three blocks."""
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    backbone = build_backbone(BackboneSpec(name=f"{path}:Net", weights="none", size=8))
    random = np.random.default_rng(0)
    targets = random.permutation(np.arange(64) % 2)
    images = random.integers(0, 160, (64, 1, 8, 8)).astype(np.uint8)
    images += (targets * 25).astype(np.uint8)[:, None, None, None]
    watched = images.view(Watched)
    watched.read = set()

    def part(rows: np.ndarray) -> ImageSet:
        return ImageSet(
            images=watched,
            rows=rows,
            targets=targets[rows],
            intensity_max=255,
            task="binary",
            positive=1,
            num_classes=2,
        )

    return TrialContext(
        source=prepare_source(backbone, (8, 8)),
        study=Study(
            train=part(np.arange(32)),
            val=part(np.arange(32, 48)),
            train_groups=np.arange(32),
            val_groups=np.arange(16),
            classes=("no", "yes"),
        ),
        engine=Engine(device="cpu", is_deterministic=True),
        folder=Path(tmp_path) / "checkpoints",
    )


@pytest.fixture
def spec_of(context):
    """A short trial: spec_of(cut, strategy=…, seed=…)."""

    def make(cut: int, *, strategy: str = "ttl", seed: int = 0, lr: float = 0.02, epochs: int = 3) -> TrialSpec:
        return TrialSpec(
            source=context.source.spec,
            strategy=strategy,
            cut=cut,
            seed=seed,
            lr=lr,
            weight_decay=0.05,
            head=HeadSettings(num_outputs=1),
            train=TrainSettings(epochs=epochs, batch_size=16, seed=seed),
        )

    return make


@pytest.fixture
def cuts_of_stages():
    """Cuts from the number of cuts in each stage, e.g. [1, 3, 4]."""

    def make(lengths: list[int]) -> tuple[Cut, ...]:
        stages = [stage for stage, length in enumerate(lengths) for _ in range(length)]
        return tuple(
            Cut(
                index=index,
                name=f"block{index}",
                stage=stage,
                channels=4,
                stride=2,
                num_params=100 * index,
                macs=1000 * index,
                shape=(4, 2, 2),
                channel_axis=1,
                tap=f"block{index}",
                tap_side="output",
            )
            for index, stage in enumerate(stages, start=1)
        )

    return make
