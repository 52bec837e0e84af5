"""The artefact that leaves the project, and prediction with it."""

from medgraft.deploy.artefact import Artefact, LoadedModel, load_artefact, save_artefact
from medgraft.deploy.predict import (
    find_cases,
    predict_files,
    predict_pixels,
    predictions_table,
    write_table,
)

__all__ = [
    "Artefact",
    "LoadedModel",
    "find_cases",
    "load_artefact",
    "predict_files",
    "predict_pixels",
    "predictions_table",
    "save_artefact",
    "write_table",
]
