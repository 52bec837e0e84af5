"""One loop: objectives, schedules, precision, checkpoints and resume."""

from medgraft.train.batches import ImageSet
from medgraft.train.engine import Engine, choose_engine, pick_device
from medgraft.train.loop import EpochRow, TrainResult, train_model
from medgraft.train.outputs import predict_probs
from medgraft.train.settings import TrainSettings

__all__ = [
    "Engine",
    "EpochRow",
    "ImageSet",
    "TrainResult",
    "TrainSettings",
    "choose_engine",
    "pick_device",
    "predict_probs",
    "train_model",
]
