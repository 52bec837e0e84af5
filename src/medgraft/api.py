"""The public functions: the command line's jobs from Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medgraft.config import MaskFormat, Unit, make_config
from medgraft.cuts.truncate import cut_points, truncate
from medgraft.data.cohort.cases import find_cases
from medgraft.deploy.artefact import LoadedModel, load_artefact
from medgraft.deploy.predict import predict_files
from medgraft.deploy.segment import segment_files
from medgraft.estimator import TransferClassifier
from medgraft.listener import Listener
from medgraft.result.run import result_to_json
from medgraft.run.fit import fit as run_fit
from medgraft.train.engine import pick_device

__all__ = ["TransferClassifier", "cut_points", "fit", "load", "predict", "segment", "truncate"]


def fit(
    data: str | Path, out: str | Path, /, *, preset: str = "balanced", sets: Sequence[str] = (), **options: Any
) -> dict[str, Any]:
    """Run the main job on `data` into the folder `out`; returns the content of `results.json` as plain Python types.

    Args:
        data: Folder, table or `.npz`.
        out: Run folder; the same call continues it.
        preset: ``fast``, ``balanced``, ``thorough`` or ``paper``.
        sets: Settings as on the command line, e.g. ``["train.lr=3e-4"]``.
        options: Sections of `medgraft.config.RunConfig`, e.g. ``backbone={"name": "resnet50"}, seed=1`` or
            ``data={"leaks": "drop"}``.

    Raises:
        MedgraftError: Whatever is wrong with data, weights, options or the folder.
    """
    config = make_config(str(data), preset=preset, options=options, sets=sets)
    result = run_fit(config, out, listener=Listener(), command=f"medgraft.fit({str(data)!r}, {str(out)!r}, …)")
    return result_to_json(result)


def load(run: str | Path) -> LoadedModel:
    """The model of a finished run (or of its `model` folder), on the CPU, in evaluation mode."""
    return load_artefact(Path(run))


def predict(
    run: str | Path | LoadedModel,
    inputs: str | Path | Sequence[str | Path],
    *,
    unit: Unit | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Probabilities for image files and folders: columns ``path, prob_<class>…, pred, status``.

    Args:
        run: A finished run, its model folder, or what `load` returned.
        inputs: Files and folders.
        unit: What is judged as one by the DICOM headers: image, series, study or patient, then with the number of its
            readable images in a column ``images`` (``volumes``); None: what the model was judged by.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    """
    model, cases = _opened(run, inputs)
    return predict_files(model, cases, unit=unit, device=pick_device(device))


def segment(
    run: str | Path | LoadedModel,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    /,
    *,
    kind: MaskFormat = "auto",
    device: str = "auto",
) -> pd.DataFrame:
    """Masks for image files and folders, written below `out`; a row for each, as `medgraft.deploy.segment_files` says.

    Args:
        run: A finished run of a segmentation, its model folder, or what `load` returned.
        inputs: Files and folders.
        out: Folder.
        kind: ``auto`` (as the images are), ``png``, ``nifti``, ``npy`` or ``dicom-seg``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    """
    model, cases = _opened(run, inputs)
    return segment_files(model, cases, Path(out), kind=kind, device=pick_device(device))


def _opened(
    run: str | Path | LoadedModel, inputs: str | Path | Sequence[str | Path]
) -> tuple[LoadedModel, list[tuple[Path, ...]]]:
    model = run if isinstance(run, LoadedModel) else load(run)
    many = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    return model, find_cases([Path(path) for path in many], model.artefact.preprocessing.dims)
