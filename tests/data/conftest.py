from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medgraft.types import Cohort


def smooth(seed, side=64):
    """A picture of its own: a few random waves plus noise, uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = sum(np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in random.uniform(-6, 6, (8, 3)))
    return np.clip(128 + 14 * waves + random.normal(0, 6, (side, side)), 0, 255).astype(np.uint8)


@pytest.fixture
def picture():
    return smooth


@pytest.fixture
def write():
    """Writes arrays or bytes under a folder: {relative name: content}."""

    def make(folder: Path, files: dict) -> Path:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, np.ndarray):
                Image.fromarray(content).save(path)
            else:
                path.write_bytes(content)
        return folder

    return make


@pytest.fixture
def table_cohort():
    """A cohort without files, for code that looks at the table only."""

    def make(targets, *, patient=None, split=None, site=None, task=None, classes=None, root=Path("cohort")):
        targets = np.asarray(targets)
        count = len(targets)
        task = task or ("multilabel" if targets.ndim == 2 else "binary" if targets.max() < 2 else "multiclass")
        size = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
        classes = classes or tuple("abcdefghij"[:size])
        single = targets.ndim == 1
        table = pd.DataFrame(
            {
                "path": [f"{row}.png" for row in range(count)],
                "label": [classes[t] for t in targets]
                if single
                else ["|".join(np.array(classes)[t > 0]) for t in targets],
                "patient": patient if patient is not None else [None] * count,
                "site": site if site is not None else [None] * count,
                "split": split if split is not None else [None] * count,
                "mask": [None] * count,
            },
            dtype=object,
        )
        positive = classes[1] if task == "binary" else None
        dtype = np.int64 if single else np.float32
        return Cohort(
            root=root,
            layout="folder",
            task=task,
            classes=classes,
            positive=positive,
            table=table,
            targets=targets.astype(dtype),
        )

    return make
