"""The artefact that leaves the project, and prediction with it."""

from medgraft.deploy.artefact import Artefact, LoadedModel, load_artefact, save_artefact
from medgraft.deploy.predict import (
    predict_files,
    predict_pixels,
    predictions_table,
)
from medgraft.deploy.segment import MASK_LIST, segment_files, segment_image

__all__ = [
    "MASK_LIST",
    "Artefact",
    "LoadedModel",
    "load_artefact",
    "predict_files",
    "predict_pixels",
    "predictions_table",
    "save_artefact",
    "segment_files",
    "segment_image",
]
