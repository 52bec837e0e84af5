"""What all tests share: predictions with known strength, and a home that is not the user's."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import settings

import figures
from medgraft.sources import package
from medgraft.train import checkpoint
from medgraft.types import Predictions

# A loaded machine is no failure, and a failure comes back in the next run.
settings.register_profile("medgraft", deadline=None, derandomize=True)
settings.load_profile("medgraft")


def predictions(
    task: str = "binary",
    num_cases: int = 60,
    num_classes: int = 3,
    seed: int = 0,
    decimals: int = 2,
    signal: float = 1.0,
    per_group: int = 1,
) -> Predictions:
    """Random predictions with some truth in them; rounding makes ties."""
    rng = np.random.default_rng(seed)
    C = 2 if task == "binary" else num_classes
    if task == "multilabel":
        targets = rng.integers(0, 2, (num_cases, C))
        targets[0], targets[1] = 0, 1
        logits = rng.normal(size=(num_cases, C)) + signal * (targets - 0.5)
        probs = np.round(1 / (1 + np.exp(-logits)), decimals)
    else:
        targets = rng.permutation(np.arange(num_cases) % C)
        logits = rng.normal(size=(num_cases, C))
        logits[np.arange(num_cases), targets] += signal
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        if task == "binary":
            positive = np.round(probs[:, 1], decimals)
            probs = np.stack((1 - positive, positive), axis=1)
    return Predictions(
        probs=probs,
        targets=targets,
        groups=np.arange(num_cases) // per_group,
        classes=tuple(f"class {k}" for k in range(C)),
        task=task,
        positive=1 if task == "binary" else None,
    )


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., Predictions]:
    return predictions


@pytest.fixture(autouse=True)
def _no_imagenet_package(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Which network is taken where nobody names one does not depend on what is installed; ImageNet's costs minutes."""
    if "imagenet" not in request.keywords:
        monkeypatch.setattr(package, "_file_in", lambda _: None)


@pytest.fixture(scope="module", autouse=True)
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are drawn where pages are tested; elsewhere they would be most of a small run's time.

    Modules that look at them say ``LOOKS_AT_FIGURES = True``.
    """
    are_drawn = "report" in request.path.parts or getattr(request.module, "LOOKS_AT_FIGURES", False)
    with nullcontext() if are_drawn else figures.left_out():
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledger and pseudonym key of the tests stay out of the user's own."""
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture
def writes_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after each epoch, however short."""
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", float("inf"))


@pytest.fixture
def writes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after the first epoch of a process and no other."""
    monkeypatch.setattr(checkpoint, "_WRITING_SHARE", 1e-9)
