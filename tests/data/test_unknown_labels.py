"""Uncertain and blank labels: how they are read, what a training is told, and that no score sees them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import medgraft.run.compare as compare_module
from medgraft.config import Blank, RunConfig, make_config
from medgraft.data.cohort.labelled import Unknown, read_cohort
from medgraft.data.cohort.unknown import parse_policy, taught_targets
from medgraft.errors import ConfigError, DataError
from medgraft.listener import Listener
from medgraft.run.check import check
from medgraft.search.trainer import Trainer
from medgraft.search.trial import TrialContext
from medgraft.setup.plan import material_of
from medgraft.study.study import study_key
from medgraft.types import Cohort
from small_runs import compare, fit, small_config

LABELS = "Edema,Mass"


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    """120 films; bright above is an oedema, bright below a mass; some labels are -1, some blank."""
    rng = np.random.default_rng(0)
    lines = ["path,patient,Edema,Mass"]
    for number in range(120):
        edema, mass = rng.integers(0, 2, 2)
        film = rng.integers(0, 120, (16, 16))
        film[:8] += 100 * edema
        film[8:] += 100 * mass
        Image.fromarray(film.astype(np.uint8)).save(tmp_path / f"{number}.png")
        words = [str(edema), str(mass)]
        if number % 5 == 0:
            words[0] = "-1"
        if number % 7 == 0:
            words[1] = ""
        lines.append(f"{number}.png,p{number},{words[0]},{words[1]}")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    return tmp_path / "cases.csv"


def read(table: Path, uncertain: str | None, blank: Blank, seed: int = 0) -> Cohort:
    unknown = Unknown(uncertain=uncertain, blank=blank, seed=seed)
    return read_cohort(table, label_column=LABELS, unknown=unknown)


def test_without_a_word_they_are_refused_with_advice(chexpert: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: column Edema must be 0 or 1, got '-1'. .*--uncertain ignore"):
        read_cohort(chexpert, label_column=LABELS)
    with pytest.raises(DataError, match=r"column Mass is blank or NaN\. .*--blank ignore"):
        read(chexpert, "ignore", "refuse")


def test_truth_is_what_is_known(chexpert: Path) -> None:
    cohort = read(chexpert, "ones", "ignore")
    edema, mass = cohort.targets.T
    assert np.isnan(edema[::5]).all()
    assert np.isnan(mass[::7]).all()
    assert np.isnan(cohort.targets).sum() == 24 + 18
    assert cohort.is_uncertain is not None
    assert cohort.is_uncertain.sum(0).tolist() == [24, 0]
    assert any("Edema 24 uncertain; Mass 18 blank. Uncertain ones are taught as: ones." in n for n in cohort.notes)
    assert (read(chexpert, "ones", "negative").targets[::7, 1] == 0).all()


@pytest.mark.parametrize(("policy", "expected"), [("ignore", np.nan), ("zeros", 0.0), ("ones", 1.0)])
def test_a_training_is_told_what_the_policy_says(policy: str, expected: float, chexpert: Path) -> None:
    taught = read(chexpert, policy, "ignore").taught
    assert taught is not None
    np.testing.assert_array_equal(taught[::5, 0], np.full(24, expected, np.float32))
    assert np.isnan(taught[::7, 1]).all()


def test_soft_labels_are_drawn_once_for_each_case_and_seed(chexpert: Path) -> None:
    cohort = read(chexpert, "soft(0.55,0.85)", "ignore")
    assert cohort.taught is not None
    drawn = cohort.taught[::5, 0]
    assert drawn.min() >= 0.55
    assert drawn.max() <= 0.85
    assert len(np.unique(drawn)) == 24
    again, other = read(chexpert, "soft(0.55,0.85)", "ignore"), read(chexpert, "soft(0.55,0.85)", "ignore", seed=1)
    np.testing.assert_array_equal(again.taught, cohort.taught)
    assert other.taught is not None
    assert (other.taught[::5, 0] != drawn).all()
    # A case draws the same in whatever company.
    part = cohort.select(np.arange(50, 120))
    lines = chexpert.read_text().splitlines()
    chexpert.write_text("\n".join([lines[0], *lines[51:]]))
    np.testing.assert_array_equal(read(chexpert, "soft(0.55,0.85)", "ignore").taught, part.taught)


def test_each_label_may_have_a_policy_of_its_own() -> None:
    policy = parse_policy("zeros,Edema=soft(0.5, 0.8),Mass=ignore", ["Edema", "Mass", "Nodule"])
    assert policy == {"Edema": (0.5, 0.8), "Mass": None, "Nodule": (0.0, 0.0)}
    for text in ("maybe", "soft(0.8,0.5)", "soft(0,2)", "soft(1)", "soft(a,b)", "soft(1.2.3,1)"):
        with pytest.raises(ConfigError, match="expected --uncertain ignore, zeros, ones or soft"):
            parse_policy(text, ["Edema"])
    with pytest.raises(ConfigError, match=r"names no label 'Oedema'.*Edema"):
        parse_policy("Oedema=ones", ["Edema", "Mass"])


def test_blanks_are_not_uncertain() -> None:
    targets = np.full((1, 2), np.nan, dtype=np.float32)
    taught = taught_targets(targets, np.array([[True, False]]), {"a": (1.0, 1.0), "b": (1.0, 1.0)}, ["x"], 0)
    np.testing.assert_array_equal(taught, [[1.0, np.nan]])


def test_they_are_for_several_columns(chexpert: Path) -> None:
    with pytest.raises(ConfigError, match="for several columns of 0 and 1"):
        read_cohort(chexpert, label_column="Edema", unknown=Unknown(uncertain="ones"))


def config_of(table: Path, uncertain: str, **options: Any) -> RunConfig:
    data = {"label_column": LABELS, "uncertain": uncertain, "blank": "ignore"}
    return small_config(table, **{"data": data, "backbone": {"size": 16}, "transfer": {"cut": "3"}, **options})


def test_only_training_images_are_taught(chexpert: Path, tmp_path: Path) -> None:
    dataset = material_of(config_of(chexpert, "ones"), Listener()).dataset
    for split in ("train", "val", "test"):
        images = dataset.images(split)
        rows = dataset.cohort.rows(split)
        uncertain = dataset.cohort.is_uncertain[rows]
        assert uncertain.any()
        if split == "train":
            assert (images.targets[uncertain] == 1).all()
        else:
            assert np.isnan(images.targets[uncertain]).all()


@pytest.mark.parametrize("policy", ["ignore", "soft(0.5,0.9)"])
def test_a_run_scores_what_is_known(policy: str, chexpert: Path, tmp_path: Path) -> None:
    fit(config_of(chexpert, policy, train={"epochs": 4}), tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    table = pd.read_csv(tmp_path / "run" / "predictions.csv", keep_default_na=False)
    assert table["label"].str.contains(r"\?Edema").any()
    areas = []
    for name in ("Edema", "Mass"):
        words = table["label"].str.split("|")
        known = [f"?{name}" not in row for row in words]
        truth = [name in row for row, is_known in zip(words, known, strict=True) if is_known]
        areas.append(roc_auc_score(truth, table.loc[known, f"prob_{name}"]))
    assert results["test"]["chosen"]["auroc"]["value"] == pytest.approx(np.mean(areas), abs=1e-9)
    kinds = {finding["kind"]: finding["message"] for finding in results["audit"]["findings"]}
    assert kinds["unknown-labels"].startswith("42 of 240 labels are not known (18%): 24 uncertain, 18 blank")
    assert "42 of 240 labels are not known" in (tmp_path / "run" / "report.html").read_text()


def test_a_comparison_leaves_out_what_needs_every_label(chexpert: Path, tmp_path: Path) -> None:
    config = config_of(
        chexpert,
        "ignore",
        train={"epochs": 1},
        transfer={"cut": "auto"},
        compare={"strategies": ("frozen", "hybrid"), "trials": 1},
    )
    with pytest.raises(ConfigError, match="every training label to be known for --head svm"):
        compare(config, tmp_path / "compared")


def test_policies_are_compared_with_each_other(chexpert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies: dict[Path, set[str]] = {}

    def trainer(context: TrialContext, *args: Any, **more: Any) -> Trainer:
        studies.setdefault(context.folder, set()).add(study_key(context.study))
        return Trainer(context, *args, **more)

    monkeypatch.setattr(compare_module, "Trainer", trainer)
    config = config_of(
        chexpert,
        "zeros",
        train={"epochs": 1},
        transfer={"cut": "auto"},
        compare={"strategies": ("ttl",), "trials": 1, "uncertain": ("ignore", "ones", "soft(0.5,0.9)")},
    )
    found = compare(config, tmp_path / "compared")
    # Trials are known by their folder and what was asked: what is learned there must not differ.
    assert [len(keys) for keys in studies.values()] == [1, 1, 1]
    assert len(set.union(*studies.values())) == 3
    names = [row["strategy"] for row in found["rows"]]
    assert names == ["ftl", "ttl", "ftl (ones)", "ttl (ones)", "ftl (soft(0.5,0.9))", "ttl (soft(0.5,0.9))"]
    assert [row["uncertain"] for row in found["rows"]] == ["ignore"] * 2 + ["ones"] * 2 + ["soft(0.5,0.9)"] * 2
    areas = [row["test"]["auroc"]["mean"] for row in found["rows"]]
    assert len({round(area, 6) for area in areas}) > 2
    assert not found["rows"][0]["difference"]
    assert all(row["difference"] for row in found["rows"][1:])
    page = (tmp_path / "compared" / "comparison.html").read_text()
    assert "ttl (soft(0.5,0.9))" in page
    with pytest.raises(ConfigError, match="expected --uncertain ignore"):
        compare(
            config_of(chexpert, "ignore", compare={"uncertain": ("perhaps",)}, transfer={"cut": "auto"}), tmp_path / "x"
        )


def test_the_audit_alone_counts_them(chexpert: Path) -> None:
    data = {"label_column": LABELS, "uncertain": "ignore", "blank": "ignore"}
    audit, _ = check(make_config(str(chexpert), options={"data": data}).data)
    assert "unknown-labels" in {finding.kind for finding in audit.findings}
