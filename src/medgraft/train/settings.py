"""How one model is trained, whatever the task."""

import dataclasses
from collections.abc import Callable
from typing import Final, Literal

import torch

from medgraft.errors import ConfigError
from medgraft.train.augment import AugmentSettings
from medgraft.train.mask_losses import MASK_LOSSES, MaskLoss
from medgraft.train.objectives import IMBALANCE, Imbalance
from medgraft.train.patches import PatchSettings
from medgraft.train.schedule import SCHEDULES, ScheduleKind

__all__ = ["OPTIMIZERS", "TrainSettings"]

OPTIMIZERS: Final[dict[str, Callable[..., torch.optim.Optimizer]]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How one model is trained.

    Args:
        epochs: Passes over the training set, at least 1.
        batch_size: Images, or patches of them, per step over all processes.
        optimizer: ``adamw``, ``adam`` or ``sgd`` (Nesterov momentum 0.9).
        schedule: ``cosine`` (warm-up over the first tenth, then to 1 %), ``plateau`` (half the LR when
            the validation score stalls, stop below 1e-7) or ``constant``.
        patience: Epochs without progress before ``plateau`` halves.
        clip_norm: Largest gradient norm; 0 for none.
        imbalance: See `medgraft.train.objectives.make_objective`.
        label_smoothing: 0 to below 1.
        augment: Applied to training batches only.
        average: Share of the training's steps over which weights are averaged for validation and keeping, 0 for none.
        patches: What is seen of images with masks; None where there are none.
        loss: Loss of masks.
        seed: Seeds order, augmentation and dropout.
    """

    epochs: int
    batch_size: int
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: ScheduleKind = "cosine"
    patience: int = 10
    clip_norm: float = 1.0
    imbalance: Imbalance = "none"
    label_smoothing: float = 0.0
    augment: AugmentSettings = dataclasses.field(default_factory=AugmentSettings)
    average: float = 0.0
    patches: PatchSettings | None = None
    loss: MaskLoss = "dice-ce"
    seed: int = 0

    def __post_init__(self) -> None:
        least_of = {"epochs": 1, "batch_size": 1, "patience": 0, "clip_norm": 0, "label_smoothing": 0, "average": 0}
        for name, least in least_of.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "imbalance": IMBALANCE, "loss": MASK_LOSSES}
        for name, options in choices.items():
            if getattr(self, name) not in options:
                raise ConfigError(f"{name} must be one of {', '.join(options)}, got {getattr(self, name)!r}.")
