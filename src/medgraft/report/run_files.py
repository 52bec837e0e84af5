"""What a finished run left in its folder, read once and checked, for everything else in this room."""

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from medgraft.as_json import from_json
from medgraft.errors import RunError
from medgraft.metrics.measures import Measure
from medgraft.result.analysis import AnalysisResult, read_analysis
from medgraft.result.pictures import Pictures, read_pictures
from medgraft.result.run import RunResult, read_result
from medgraft.search.rule import Choice
from medgraft.types import Predictions

__all__ = [
    "RunFiles",
    "image_data_uri",
    "read_predictions",
    "read_run",
    "was_searched",
]

PREDICTION_FILES: Final = {
    "test": "predictions.csv",
    "baseline": "predictions_baseline.csv",
    "val": "predictions_val.csv",
}
NEEDED_COLUMNS: Final = {
    "search.csv": ("cut", "role"),
    "history.csv": ("role", "seed", "epoch"),
    "predictions.csv": ("path",),
    "predictions_baseline.csv": ("path",),
    "predictions_val.csv": ("path", "label"),
}
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunFiles:
    """The content of a run folder; only `result` is always there.

    Args:
        root: The run folder.
        result: ``results.json``.
        search: ``search.csv``, one row per trial.
        choice: ``choice.json``.
        history: ``history.csv``, one row per epoch.
        predictions: ``test``, ``baseline`` and ``val`` to their tables, as far as present.
        images: ``report_images/index.json``; None where thumbnails were switched off.
        analysis: ``analysis.json``, where the run was analysed.
        signals: ``signals.csv``, what a search that begins with full fine-tuning saw at every cut.
    """

    root: Path
    result: RunResult
    search: pd.DataFrame | None = None
    choice: Choice | None = None
    history: pd.DataFrame | None = None
    predictions: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    images: Pictures | None = None
    analysis: AnalysisResult | None = None
    signals: pd.DataFrame | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return self.result.classes

    @property
    def measure(self) -> Measure:
        """By which numbers the run chose and judged."""
        return self.result.measure


def read_run(run: Path) -> RunFiles:
    """Everything that a report needs from a run folder.

    Args:
        run: The folder that `medgraft fit` wrote.

    Raises:
        RunError: The folder has no ``results.json``, or one of its files is broken.
    """
    result = read_result(run)
    tables = {role: _table(run / name) for role, name in PREDICTION_FILES.items()}
    choice = _json_if_there(run / "choice.json")
    return RunFiles(
        root=run,
        result=result,
        search=_table(run / "search.csv", result.measure.column),
        choice=None if choice is None else from_json(Choice, choice),
        history=_table(run / "history.csv"),
        predictions={role: table for role, table in tables.items() if table is not None},
        images=read_pictures(run / "report_images"),
        analysis=read_analysis(run) if (run / "analysis.json").is_file() else None,
        signals=_table(run / "signals.csv"),
    )


def was_searched(run: RunFiles) -> bool:
    """Whether the run looked for its depth: it compared several, or its search says that it did."""
    compared = 0 if run.choice is None else len(run.choice.candidates)
    return run.result.search.method != "given" or compared > 1


def read_predictions(run: RunFiles, role: str) -> Predictions | None:
    """One predictions table as arrays, without unread cases; None where there is no table.

    Args:
        run: The run folder's content.
        role: ``test``, ``baseline`` or ``val``.

    Raises:
        RunError: A probability column is missing, or a label is none of the classes.
    """
    table, source = run.predictions.get(role), PREDICTION_FILES[role]
    if table is None:
        return None
    columns = ["label", *(f"prob_{name}" for name in run.classes)]
    if missing := [column for column in columns if column not in table.columns]:
        raise RunError(
            f"expected a column per class in {run.root / source}, got none for {', '.join(missing)}. "
            "Run `medgraft fit` again with the same command: it writes the file anew."
        )
    columns = columns[1:]
    probs = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    is_scored = np.isfinite(probs).all(axis=1)
    scored = table[is_scored]
    task, positive = run.result.task, run.result.positive
    members = _memberships(scored["label"], run.classes, source=source, is_single=task != "multilabel")
    if task == "binary" and positive not in run.classes:
        raise RunError(
            f"expected the positive class to be one of {', '.join(run.classes)}, got {positive!r} in "
            f"{run.root / 'results.json'}. Run `medgraft fit` again with the same command."
        )
    # A case of which no patient is known is a group of its own.
    patients = scored["path"]
    if "patient" in scored:
        patients = scored["patient"].where(scored["patient"].fillna("") != "", patients)
    return Predictions(
        probs=probs[is_scored],
        targets=members if task == "multilabel" else members.argmax(axis=1),
        groups=pd.factorize(patients)[0],
        classes=run.classes,
        task=task,
        positive=run.classes.index(positive) if positive is not None and task == "binary" else None,
    )


def image_data_uri(run: Path, name: str) -> str:
    """A thumbnail as a ``data:`` address.

    Args:
        run: The run folder.
        name: File name inside ``report_images``, no folder in it.

    Raises:
        RunError: The name leaves the folder, or the file is absent or no PNG.
    """
    path = run / "report_images" / name
    if Path(name).name != name or not path.is_file():
        raise RunError(f"expected a thumbnail inside {path.parent}, got {name!r}. Write the report again.")
    content = path.read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        raise RunError(f"expected a PNG thumbnail, got other content in {path}. Write the report again.")
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _memberships(labels: pd.Series, classes: tuple[str, ...], *, source: str, is_single: bool) -> np.ndarray:
    """(N, C) float32 of 0 and 1, NaN for a label that stands with a question mark: it is not known.

    Args:
        labels: (N,) class names, several joined by ``|``, one that is not known behind a question mark.
        classes: Names in the order of the columns.
        source: Name of the file, for messages.
        is_single: Whether every case has exactly one label.
    """
    certain = {name: (column, 1.0) for column, name in enumerate(classes)}
    index = {f"?{name}": (column, np.nan) for column, name in enumerate(classes)} | certain
    out = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, label in enumerate(labels.fillna("").astype(str)):
        # A class name may itself contain the separator, so the whole label is tried first.
        names = [label] if label in index else [name for name in label.split("|") if name]
        for name in names:
            if name not in index:
                raise RunError(
                    f"expected one of the classes {', '.join(classes)}, got {name!r} in {source}, row "
                    f"{row + 1}. "
                    "Is the file from another run?"
                )
            column, value = index[name]
            out[row, column] = value
        if is_single and len(names) != 1:
            raise RunError(
                f"expected one label per case, got {label!r} in {source}, row {row + 1}. "
                "Is the file from a multi-label run?"
            )
    return out


def _json_if_there(path: Path) -> dict[str, Any] | None:
    return _json(path) if path.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(f"expected JSON, got something unreadable in {path}: {error}. Run the step again.") from error
    if not isinstance(value, dict):
        raise RunError(f"expected a JSON object in {path}, got {type(value).__name__}. Run the step again.")
    return value


def _table(path: Path, *needed: str) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    texts = dict.fromkeys(("path", "patient", "label", "pred", "status", "name", "role"), "str")
    try:
        # A class or a patient may be called "NA" or "007".
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={}, encoding="utf-8")
    except (ValueError, OSError) as error:
        raise RunError(
            f"expected a CSV table, got something unreadable in {path}: {error}. Run the step again."
        ) from error
    if missing := [name for name in (*NEEDED_COLUMNS.get(path.name, ()), *needed) if name not in table.columns]:
        raise RunError(f"expected the columns {', '.join(missing)} in {path}, got {', '.join(table.columns)}.")
    for name in table.columns:
        if name not in texts and not pd.api.types.is_numeric_dtype(table[name]):
            numbers = pd.to_numeric(table[name], errors="coerce")
            table[name] = numbers if numbers.notna().any() or not len(table) else table[name]
    return table
