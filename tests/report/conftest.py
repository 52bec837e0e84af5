import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medgraft.evaluate.summary import compare, summarise
from medgraft.types import Predictions

BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
DROP = object()
HOSTILE = "<script>alert(1)</script>"
CLASSES = {
    "binary": ("normal", "pneumonia"),
    "multiclass": ("benign", HOSTILE, "normal"),
    "multilabel": ("edema", "mass", "effusion"),
}
SIZES = {"stem": 2_900, "layer1": 9_300, "layer2": 33_000, "layer3": 131_000, "layer4": 525_000}


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished run per task, made once, as `medgraft fit` leaves it."""
    root = tmp_path_factory.mktemp("runs")
    return {task: write_run(root / task, task=task, classes=classes) for task, classes in CLASSES.items()}


@pytest.fixture
def make_run(tmp_path: Path, finished_runs: dict[str, Path]) -> Callable[..., Path]:
    """A private copy of a finished run with some of its results changed (dotted path to value, or DROP)."""

    def make(task: str = "binary", changes: dict[str, Any] | None = None) -> Path:
        run = tmp_path / "run"
        shutil.copytree(finished_runs[task], run, ignore=shutil.ignore_patterns("report.html", "*.md"))
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        for path, value in (changes or {}).items():
            put(results, path, value)
        (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
        return run

    return make


@pytest.fixture
def drop() -> object:
    """The mark for "leave this key out"."""
    return DROP


def write_run(
    root: Path,
    *,
    task: str = "binary",
    classes: tuple[str, ...] = ("normal", "pneumonia"),
    num_test: int = 240,
    seed: int = 0,
    has_thumbnails: bool = True,
    changes: dict[str, Any] | None = None,
) -> Path:
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    positive = 1 if task == "binary" else None
    targets = draw_targets(rng, task, len(classes), num_test)
    groups = np.arange(num_test) // 2

    def make(skill: float) -> Predictions:
        return draw_predictions(rng, task, classes, targets, groups, positive, skill)

    chosen, baseline, val = [make(2.2), make(2.1)], [make(2.1), make(2.0)], make(2.2)
    test = {
        "chosen": summarise(chosen, val),
        "baseline": summarise(baseline, val),
        **compare(chosen, baseline),
        "margin": 0.02,
        "num_cases": num_test,
        "num_groups": num_test // 2,
    }
    results = {**base_results(task, classes, positive), "test": test}
    results["splits"]["counts"]["test"] = count_classes(chosen[0])
    for path, value in (changes or {}).items():
        put(results, path, value)
    (root / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for file, pred in (("", chosen[0]), ("_baseline", baseline[0]), ("_val", val)):
        write_predictions(root / f"predictions{file}.csv", pred)
    write_search(root, rng)
    write_history(root, rng)
    audit = {
        "counts": {"near_duplicates": 4},
        "findings": [
            {"kind": "duplicate-within-split", "severity": "info",
             "message": "18 images are redundant copies within their split (18 in train).",
             "paths": [[f"train/{n}", f"train/{n + 90}"] for n in range(8)]},
            {"kind": "near-duplicate", "severity": "warn",
             "message": "4 pairs (8 images) are nearly the same picture.",
             "paths": ["train/7", "train/95"]},
            {"kind": "near-duplicate-search", "severity": "info",
             "message": "Near-duplicates were searched within 9 bits only.", "paths": []},
        ],
    }  # fmt: skip
    (root / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    if has_thumbnails:
        write_thumbnails(root / "report_images", rng, classes)
    return root


def draw_targets(rng: np.random.Generator, task: str, num_classes: int, num: int) -> np.ndarray:
    if task == "multilabel":
        return (rng.random((num, num_classes)) < 0.35).astype(np.float32)
    return rng.choice(num_classes, num, p=np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum())


def draw_predictions(
    rng: np.random.Generator, task: str, classes: tuple[str, ...], targets: np.ndarray, groups: np.ndarray,
    positive: int | None, skill: float,
) -> Predictions:  # fmt: skip
    truth = targets if task == "multilabel" else np.eye(len(classes))[targets]
    logits = skill * (truth - 0.5) + rng.normal(size=truth.shape)
    probs = 1 / (1 + np.exp(-logits))
    if task != "multilabel":
        probs = np.exp(1.6 * logits)
        probs /= probs.sum(axis=1, keepdims=True)
    return Predictions(probs=probs, targets=targets, groups=groups, classes=classes, task=task, positive=positive)


def count_classes(pred: Predictions) -> dict[str, int]:
    truth = pred.targets if pred.targets.ndim == 2 else np.eye(len(pred.classes))[pred.targets]
    return {name: int(count) for name, count in zip(pred.classes, truth.sum(axis=0), strict=True)}


def base_results(task: str, classes: tuple[str, ...], positive: int | None) -> dict[str, Any]:
    blocks = [{"name": "stem", "treatment": "reused", "lr": 1e-3, "num_params": SIZES["stem"]}]
    for name in BLOCKS:
        kept = int(name[5]) <= 3
        blocks.append({
            "name": name, "treatment": "reused" if kept else "removed", "lr": 1e-3 if kept else 0.0,
            "num_params": SIZES[name[:6]],
        })  # fmt: skip
    blocks.append({"name": "head", "treatment": "new", "lr": 1e-3, "num_params": 64 * len(classes)})
    return {
        "schema": 1,
        "task": task,
        "classes": list(classes),
        "positive": None if positive is None else classes[positive],
        "chosen": {"strategy": "ttl", "rule": "compact", "init": "pretrained",
                   "cut": {"index": 7, "name": "layer3.1", "num_params": 349_600, "macs": 61_000_000}},
        "efficiency": {
            "chosen": {"num_params": 349_700, "macs": 61_000_000, "cpu_ms": 3.42, "file_bytes": 1_412_000},
            "baseline": {"num_params": 1_399_800, "macs": 88_400_000, "cpu_ms": 5.31, "file_bytes": 5_623_000},
        },
        "search": {"num_trials": 7, "seconds": 254.0, "baseline_seconds": 61.0, "cost_in_ftl": 4.6},
        "splits": {
            "sha256": "6c1b" * 16,
            "groups": "patient",
            "counts": {split: {name: 60 * (k + 1) for k, name in enumerate(classes)} for split in ("train", "val")},
        },
        "ledger": {"openings": 1},
        "versions": {"medgraft": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "timm": "1.0.31"},
        "command": "medgraft fit pneumoniamnist.npz --out run --backbone resnet10t --leaks drop --seeds 2",
        "backbone": {
            "name": "resnet10t",
            "load_report": {"source": "packaged", "licence": "Apache-2.0", "sha256": "ab12" * 16, "matched": 62,
                            "missing": [], "unexpected": ["fc.weight", "fc.bias"], "wrong_shape": [],
                            "matched_fraction": 1.0},
        },
        "preprocessing": {"sides": [64, 64], "channels": 1, "intensity_max": 255, "resize": "squash",
                          "normalisation": "image", "mean": [], "std": []},
        "plan": {"strategy": "ttl", "cut": 7, "blocks": blocks},
        "seeds": [0, 1],
        "notes": ["Layout: MedMNIST .npz with its official splits."],
        "second_baseline": None,
    }  # fmt: skip


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
    if value is DROP:
        tree.pop(last, None)
    else:
        tree[last] = value


def write_predictions(path: Path, pred: Predictions) -> None:
    if pred.task == "multilabel":
        names = ["|".join(c for c, has in zip(pred.classes, row, strict=True) if has) for row in pred.targets]
        called = ["|".join(c for c, p in zip(pred.classes, row, strict=True) if p > 0.5) for row in pred.probs]
    else:
        names = [pred.classes[k] for k in pred.targets]
        called = [pred.classes[k] for k in pred.probs.argmax(axis=1)]
    table = pd.DataFrame({
        "path": [f"test/{row}" for row in range(len(names))],
        "patient": [f"case-{group:05x}" for group in pred.groups],
        "label": names,
        **{f"prob_{name}": pred.probs[:, k].round(6) for k, name in enumerate(pred.classes)},
        "pred": called,
        "status": "ok",
    })  # fmt: skip
    table.to_csv(path, index=False)


def write_search(root: Path, rng: np.random.Generator) -> None:
    names, scores = ["stem", *BLOCKS], [0.71, 0.79, 0.82, 0.865, 0.884, 0.903, 0.918, 0.9205, 0.9165]
    params = np.cumsum([SIZES[name[:6].removesuffix(".")] for name in names])
    tried = {1: "stage", 3: "stage", 5: "stage", 7: "stage", 9: "stage", 6: "neighbour", 8: "neighbour"}
    rows = []
    for cut, role in [*tried.items(), (9, "baseline")]:
        for seed in (0, 1):
            score = scores[cut - 1] + rng.normal(scale=0.002)
            rows.append({
                "cut": cut, "name": names[cut - 1], "stage": cut // 2, "seed": seed,
                "strategy": "ftl" if role == "baseline" else "ttl", "val_auprc": score, "val_auroc": score + 0.02,
                "seconds": 20 + 3 * cut, "train_macs": 10**12 * cut, "num_params": int(params[cut - 1]) + 130,
                "macs": int(10**7 * (2 + cut * 0.75)), "is_pretrained": cut < 9, "role": role,
            })  # fmt: skip
    table = pd.DataFrame(rows)
    table.to_csv(root / "search.csv", index=False)
    means = table[table["role"] != "baseline"].groupby("cut").first()
    means["score"] = table[table["role"] != "baseline"].groupby("cut")["val_auprc"].mean()
    best = int(means["score"].idxmax())
    candidates = [
        {"cut": int(cut), "name": row["name"], "score": row["score"],
         "mean_difference": means["score"][best] - row["score"],
         "sd_difference": 0.0 if cut == best else 0.006, "num_params": int(row["num_params"]),
         "macs": int(row["macs"]), "eligible": bool(means["score"][best] - row["score"] <= 0.006)}
        for cut, row in means.iterrows()
    ]  # fmt: skip
    chosen = min(entry["cut"] for entry in candidates if entry["eligible"])
    choice = {"rule": "compact", "chosen": chosen, "best": best, "candidates": candidates}
    (root / "choice.json").write_text(json.dumps(choice), encoding="utf-8")


def write_history(root: Path, rng: np.random.Generator) -> None:
    rows = [
        {"role": role, "seed": seed, "epoch": epoch, "lr": 1e-3, "train_loss": 0.7 * np.exp(-epoch / 6) + 0.05,
         "val_auprc": 0.92 - 0.3 * np.exp(-epoch / 4) + rng.normal(scale=0.006), "val_auroc": 0.9, "seconds": 2.0}
        for role in ("chosen", "baseline")
        for seed in (0, 1)
        for epoch in range(1, 16)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(root / "history.csv", index=False)


def write_thumbnails(folder: Path, rng: np.random.Generator, classes: tuple[str, ...]) -> None:
    folder.mkdir()
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    for row in range(12):
        lungs = np.exp(-(((np.abs(x) - 0.45) / 0.3) ** 2) - (y / 0.7) ** 2)
        spot = np.exp(-((x - rng.uniform(-0.6, 0.6)) ** 2 + (y - rng.uniform(-0.6, 0.6)) ** 2) / 0.03)
        image = 170 - 130 * lungs + 70 * spot + rng.normal(scale=6, size=x.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{row}.png")

    def example(row: int, pred: str) -> dict[str, Any]:
        told = {"image": f"{row}.png", "path": f"test/{row}", "label": classes[0], "pred": pred}
        return {**told, "prob": 0.93 - 0.04 * row}

    index = {
        "duplicates": [
            {"a": "0.png", "b": "0.png", "a_path": "train/12", "b_path": "val/40", "kind": "exact", "similarity": 1.0},
            {"a": "1.png", "b": "2.png", "a_path": "train/7", "b_path": "train/95", "kind": "near", "similarity": 0.991},
        ],
        "hits": [example(row, classes[0]) for row in range(2, 8)],
        "misses": [example(row, classes[-1]) for row in range(8, 12)],
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
