"""A finished job of every kind there is, made by the jobs themselves: what pages are read from, nobody writes by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image
from safetensors.torch import load_file, save_file

from dicom_files import dicom, save
from medgraft.phantom.phantom import PhantomSettings, write_phantom
from medgraft.run.analyze import Question, analyze, analyze_cohort
from medgraft.run.compare import compare
from small_runs import SMALL, fit, own_network, small_config

HOSTILE = "<script>alert(1)</script>"
ONE_CUT = {"strategy": "frozen", "cut": "3"}


def films(folder: Path, rename: dict[str, str] | None = None, **columns: Callable[[pd.DataFrame], Any]) -> Path:
    """The drawn films with other labels, called as a hospital would call them: no phantom for whoever reads them."""
    drawn = write_phantom(folder / "drawn", SMALL, 0)
    table = pd.read_csv(drawn)
    table["path"] = [str(drawn.parent / path) for path in table["path"]]
    table["label"] = table["label"].replace(rename or {})
    for name, column in columns.items():
        table[name] = column(table)
    (drawn.parent / "phantom.json").unlink()
    table.drop(columns=["mask", *(["label"] if columns else [])]).to_csv(folder / "cases.csv", index=False)
    return folder / "cases.csv"


def binary(root: Path) -> Path:
    source = films(root, {"nodule": "lesion", "mass": "lesion"})
    config = small_config(source, seeds=2, backbone=own_network(root / "net", 5))
    fit(config, root / "run", command="medgraft fit cases.csv --out run --seeds 2")
    return root / "run"


def multiclass(root: Path) -> Path:
    source = films(root, {"nodule": HOSTILE})
    fit(small_config(source, search={"method": "two-stage"}), root / "run", command="medgraft fit cases.csv --out run")
    return root / "run"


def demonstration(root: Path) -> Path:
    source = write_phantom(root / "drawn", SMALL, 0)
    fit(small_config(source, backbone=own_network(root / "net", 5)), root / "run")
    return root / "run"


def multilabel(root: Path) -> Path:
    def known(name: str, step: int) -> Callable[[pd.DataFrame], Any]:
        # Some labels are not known.
        return lambda table: [-1 if row % step == 3 else int(label == name) for row, label in enumerate(table["label"])]

    source = films(
        root, nodule=known("nodule", 11), mass=known("mass", 13), odd=lambda table: np.arange(len(table)) % 2
    )
    data = {"label_column": "nodule,mass,odd", "uncertain": "ignore"}
    fit(small_config(source, data=data, transfer=ONE_CUT), root / "run")
    return root / "run"


def grades(root: Path) -> Path:
    fit(small_config(films(root), data={"grades": ["normal", "nodule", "mass"]}, transfer=ONE_CUT), root / "run")
    return root / "run"


def folds(root: Path) -> Path:
    backbone = own_network(root / "net", 5)
    fit(small_config(films(root), data={"folds": 3}, transfer={"strategy": "ttl"}, backbone=backbone), root / "run")
    return root / "run"


def units(root: Path) -> Path:
    rng, lines = np.random.default_rng(0), []
    for study in range(48):
        for film in range(2):
            pixels = rng.integers(100, 900, (32, 32))
            if study % 2:
                pixels[8:20, 10:22] += 1500
            made = dicom(
                pixels.astype(np.uint16), window=(2048, 4096), PatientID=f"p{study}", AccessionNumber=f"a{study}"
            )
            made.StudyInstanceUID = f"1.2.{study}"
            save(made, root / "films" / f"{study}-{film}.dcm")
        lines.append({"AccessionNumber": f"a{study}", "label": ("clear", "shadow")[study % 2]})
    pd.DataFrame(lines).to_csv(root / "labels.csv", index=False)
    data = {"labels": str(root / "labels.csv"), "key": "AccessionNumber", "unit": "study"}
    fit(small_config(root / "films", data=data, transfer=ONE_CUT), root / "run")
    return root / "run"


def without_tail(root: Path) -> Path:
    backbone = own_network(root / "net", 5)
    bottom = {name: value for name, value in load_file(backbone["weights"]).items() if not name.startswith("layers.3")}
    save_file(bottom, root / "bottom.safetensors")
    backbone["weights"] = str(root / "bottom.safetensors")
    fit(small_config(films(root), backbone=backbone), root / "run")
    return root / "run"


def warm_start(root: Path) -> Path:
    search = {"method": "guided", "start": "ftl"}
    config = small_config(films(root), search=search, train={"epochs": 4}, backbone=own_network(root / "net", 5))
    fit(config, root / "run")
    return root / "run"


def volumes(root: Path) -> Path:
    settings = PhantomSettings(
        shape=(32, 32, 32), num_patients={"train": 24, "val": 20, "test": 20}, classes=("normal", "mass")
    )
    source = write_phantom(root / "drawn", settings, 0)
    fit(small_config(source, backbone={"size": [16, 16, 16]}, transfer=ONE_CUT, train={"epochs": 1}), root / "run")
    return root / "run"


def _marked(root: Path, num_classes: int, *, has_observer: bool = False) -> Path:
    """Bright squares on noise with their masks; a second observer sees them a little larger."""
    rng = np.random.default_rng(0)
    for number in range(42):
        image = rng.integers(0, 90, (32, 32)).astype(np.uint8)
        masks = {"masks": np.zeros((32, 32), np.uint8), "second": np.zeros((32, 32), np.uint8)}
        for value in range(1, num_classes + 1):
            y, x = rng.integers(1, 20, 2)
            image[y : y + 8, x : x + 8] = 90 + 70 * value
            masks["masks"][y : y + 8, x : x + 8] = value
            masks["second"][y : y + 9, x : x + 8] = value
        for folder, pixels in {"images": image, **masks}.items():
            if folder != "second" or has_observer:
                place = root / "marked" / ("images" if folder == "images" else folder) / f"p{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(place)
    return root / "marked"


def masks(root: Path) -> Path:
    source = _marked(root, 1)
    options: dict[str, Any] = {"data": {"task": "segmentation"}, "train": {"epochs": 2}}
    fit(small_config(source, search={"max_trials": 2}, **options), root / "run")
    return root / "run"


def several_masks(root: Path) -> Path:
    source = _marked(root, 2)
    options: dict[str, Any] = {"data": {"task": "segmentation"}, "train": {"epochs": 1}, "seeds": 2}
    fit(small_config(source, transfer={"cut": "3"}, **options), root / "run")
    return root / "run"


def folds_of_masks(root: Path) -> Path:
    source = _marked(root, 1)
    options: dict[str, Any] = {"data": {"task": "segmentation", "folds": 3}, "train": {"epochs": 1}}
    fit(small_config(source, transfer={"cut": "3"}, **options), root / "run")
    return root / "run"


def comparison(root: Path) -> Path:
    options: dict[str, Any] = {"compare": {"strategies": ["ttl", "frozen"], "trials": 2, "fractions": [1.0, 0.5]}}
    backbone = own_network(root / "net", 5)
    compare(small_config(films(root), train={"epochs": 1}, seeds=2, backbone=backbone, **options), root / "run")
    return root / "run"


def analysis(root: Path) -> Path:
    run = binary(root)
    analyze(run, Question(num_images=40, source=root / "drawn" / "images", is_gain_wanted=True))
    return run


def analysis_of_a_cohort(root: Path) -> Path:
    analyze_cohort(small_config(films(root), backbone=own_network(root / "net", 5)), root / "run", num_images=40)
    return root / "run"


KINDS: Final[dict[str, Callable[[Path], Path]]] = {
    maker.__name__: maker
    for maker in (
        *(binary, multiclass, demonstration, multilabel, grades, folds, units, without_tail, warm_start, volumes),
        *(masks, several_masks, folds_of_masks, comparison, analysis, analysis_of_a_cohort),
    )
}
PAGES: Final = {"comparison": "comparison.html", "analysis_of_a_cohort": "analysis.html"}
"""Of kinds whose page is no report."""


def results_of(run: Path) -> dict[str, Any]:
    """What stands in `results.json`."""
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found
