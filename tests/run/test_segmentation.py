"""Whole jobs on masks: from folders and tables, images and volumes, to a model that marks files like those it was given."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import medgraft
from medgraft.backbones.packaged import packaged_weights
from medgraft.cli import app
from medgraft.cli.output import observer_lines
from medgraft.config import RunConfig, make_config
from medgraft.data.cohort.marked import read_mask_cohort
from medgraft.data.groups import groups_of
from medgraft.data.split import fold_splits, split_cohort
from medgraft.deploy import load_artefact, predict_files, segment_files
from medgraft.errors import ConfigError, DataError, RunError
from medgraft.evaluate.results import MaskReference
from medgraft.io.mask import read_mask
from medgraft.listener import Listener
from medgraft.metrics.overlap import dice, overlap_counts
from medgraft.phantom.phantom import PhantomSettings, write_phantom
from medgraft.report.caveats import find_caveats
from medgraft.report.run_files import RunFiles
from medgraft.result.run import read_result
from medgraft.run.advise import advise
from medgraft.run.compare import compare
from medgraft.search.budget import costs_at_cuts
from medgraft.setup.plan import material_of, plan_run
from small_runs import evaluate, fit, own_network

FILMS = PhantomSettings(
    shape=(32, 48), num_patients={"train": 24, "val": 9, "test": 10}, classes=("nodule", "mass"), contrast=0.6
)
CHESTS = PhantomSettings(
    shape=(32, 32, 32), num_patients={"train": 6, "val": 3, "test": 3}, classes=("nodule", "mass"),
    images_per_patient=(1, 1), contrast=1.0,
)  # fmt: skip


PACKAGED = {"name": "shapes_resnet18", "args": {}, "weights": "hub", "size": 32}


def mask_config(source: Path, **options: Any) -> RunConfig:
    """A short training of a small network on patches of 32 px, reproducible to the bit."""
    base: dict[str, Any] = {
        "data": {"task": "segmentation"},
        "backbone": own_network(source.parent / f"{source.name}-net"),
        "transfer": {"cut": "3"},
        "train": {"epochs": 4, "lr": 5e-3, "batch_size": 8, "patches": 6},
        "evaluate": {"replicates": 100},
        "deterministic": True,
        "offline": True,
        "device": "cpu",
    }
    for key, value in options.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and key in base else value
    return make_config(str(source), preset="fast", options=base)


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-masks"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of 32 × 48 px with lesions; a table names their masks and splits."""
    return write_phantom(tmp_path_factory.mktemp("films"), FILMS, 0)


@pytest.fixture(scope="module")
def observed(films: Path) -> Path:
    """The same without a table, by two observers of whom the second marks a pixel to the right."""
    root = films.parent / "observed"
    root.mkdir()
    for number, file in enumerate(sorted((films.parent / "images").iterdir())[:18]):
        name = f"p{number // 2}_{number}"
        Image.open(file).save(root / f"{name}.png")
        mask = np.asarray(Image.open(films.parent / "masks" / file.name))
        Image.fromarray(mask).save(root / f"{name}_first.png")
        Image.fromarray(np.roll(mask, 1, axis=1)).save(root / f"{name}_second.png")
    return root


def run_config(films: Path) -> RunConfig:
    """Of the run that many tests look at, with the packaged network."""
    return mask_config(films, backbone=PACKAGED, train={"epochs": 3, "patches": 3})


@pytest.fixture(scope="module")
def run(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "films"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(tmp_path_factory.getbasetemp() / "home-of-masks"))
        fit(run_config(films), folder, command="medgraft fit films --task segmentation")
    return folder


def test_the_results_are_those_of_masks(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert (results["task"], results["classes"], results["patch"]) == ("segmentation", ["foreground"], [32, 32])
    test = results["test"]
    for role in ("chosen", "baseline"):
        assert set(test[role]) == {"dice", "pooled_dice", "jaccard", "hd95", "surface_dice", "per_class"}
        low, high = test[role]["dice"]["ci95"]
        assert 0 <= low <= test[role]["dice"]["value"] <= high <= 1
    assert test["chosen"]["dice"]["value"] > 0.2
    assert {"better": "here is better", "worse": "here is worse", "non-inferior": "here is non-inferior"}.get(
        test["verdict"], "is inconclusive"
    ) in test["sentence"]
    assert results["efficiency"]["chosen"]["num_params"] < results["efficiency"]["baseline"]["num_params"]
    assert (test["unit"], test["tolerance"], test["observers"]) == ("px", 2.0, {})
    assert results["splits"]["counts"]["test"]["foreground"] == test["num_cases"]


def test_the_table_of_cases_adds_up_to_the_results(run: Path) -> None:
    table, test = pd.read_csv(run / "predictions.csv"), json.loads((run / "results.json").read_text())["test"]
    assert len(table) == test["num_cases"]
    counts = table[["called_foreground", "true_foreground", "both_foreground"]].to_numpy()
    np.testing.assert_allclose(dice(counts), table["dice_foreground"])
    for column, metric in (("dice", "dice"), ("hd95", "hd95"), ("surface_dice", "surface_dice")):
        assert table[f"{column}_foreground"].mean() == pytest.approx(test["chosen"][metric]["value"])
    assert set(pd.read_csv(run / "search.csv")) >= {"val_dice", "val_pooled_dice"}
    assert set(pd.read_csv(run / "history.csv")) >= {"val_dice", "role"}


def test_files_are_marked_as_the_test_set_was(run: Path, films: Path, tmp_path: Path) -> None:
    # The packaged network takes z-scores: of whole images, before patches are cut.
    assert load_artefact(run).network.normalise.kind == "before"
    table = pd.read_csv(run / "predictions.csv")
    found = medgraft.segment(run, [films.parent / path for path in table["path"]], tmp_path)
    assert (found["status"] == "ok").all()
    for row, mask in zip(table.itertuples(), found["mask"], strict=True):
        called, truth = read_mask(tmp_path / mask), read_mask(films.parent / str(row.path).replace("images", "masks"))
        assert called.shape == truth.shape == (32, 48)
        assert set(np.unique(called)) <= {0, 255}
        counts = overlap_counts((called > 0).astype(np.uint8), (truth > 0).astype(np.uint8), 1)
        assert counts[0].tolist() == [row.called_foreground, row.true_foreground, row.both_foreground]
    assert found["pixels_foreground"].tolist() == table["called_foreground"].tolist()


def test_the_page_shows_masks_and_speaks_of_dice(run: Path) -> None:
    page = (run / "report.html").read_text()
    shown = {f"{case}{end}.png" for case in ("best", "median", "worst") for end in ("", "_overlay")}
    assert shown <= {p.name for p in (run / "report_images").iterdir()}
    assert "Best, median and worst" in page
    assert (
        "A class that neither mask shows counts as right (Dice 1, distance 0); where only one shows it, Dice is 0"
        in page
    )
    assert "Mean Dice on test" in page
    for words in ("AUROC", "AUPRC", "average precision", "Hits and misses"):
        assert words not in page, words
    assert "received inputs of 32 × 32 px" in page.replace("\u202f", " ").replace("\u00a0", " ")
    assert "mean Dice" in (run / "MODEL_CARD.md").read_text()


def test_the_same_command_reads_the_run_back_and_a_broken_one_goes_on(run: Path, films: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = json.loads((run / "results.json").read_text())
    config = run_config(films)
    assert fit(config, run, listener=Listener(say=said.append)) == first
    assert said == [f"{run} holds the finished run."]

    class StoppedError(Exception):
        pass

    def stop(what: str, done: int, _total: int) -> None:
        if what.startswith("ftl") and done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(config, tmp_path / "run", listener=Listener(step=stop))
    again = fit(config, tmp_path / "run")
    assert again["test"]["chosen"] == first["test"]["chosen"]
    assert again["test"]["baseline"] == first["test"]["baseline"]


def test_a_run_does_not_go_on_with_other_masks(films: Path, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(what: str, _done: int, _total: int) -> None:
        if what.startswith("ftl"):
            raise StoppedError

    shutil.copytree(films.parent, tmp_path / "films", ignore=shutil.ignore_patterns("observed"))
    cases = tmp_path / "films" / films.name
    with pytest.raises(StoppedError):
        fit(mask_config(cases), tmp_path / "run", listener=Listener(step=stop))
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    with pytest.raises(StoppedError):
        fit(mask_config(cases), tmp_path / "run", listener=Listener(step=stop))
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == before
    # One pixel is corrected, as a warning may have asked for.
    file = tmp_path / "films" / pd.read_csv(cases)["mask"][0]
    mask = np.asarray(Image.open(file))
    corrected = mask.copy()
    corrected[0, 0] = 255 - mask[0, 0]
    image = tmp_path / "films" / pd.read_csv(cases)["path"][0]
    for truth, picture in ((corrected, np.asarray(Image.open(image))), (mask, np.zeros_like(mask))):
        Image.fromarray(truth).save(file)
        Image.fromarray(picture).save(image)
        with pytest.raises(
            RunError, match=r"expected the images, labels, masks and patients that the run in .* others"
        ):
            fit(mask_config(cases), tmp_path / "run")


def test_an_external_cohort_is_judged_alike_whatever_its_number(run: Path, films: Path, tmp_path: Path) -> None:
    table = pd.read_csv(films)
    table = table[table["split"] == "test"].drop(columns="split")
    (tmp_path / "masks").mkdir()
    for name in table["mask"]:
        mask = np.asarray(Image.open(films.parent / name))
        Image.fromarray((mask > 0).astype(np.uint8)).save(tmp_path / name)
    table["path"] = [str(films.parent / path) for path in table["path"]]
    table["mask"] = [str(tmp_path / name) for name in table["mask"]]
    table.to_csv(tmp_path / "cases.csv", index=False)
    config = make_config(str(tmp_path / "cases.csv")).data
    result = evaluate(run, config, out=tmp_path / "out", replicates=100)
    wanted = json.loads((run / "results.json").read_text())["test"]["chosen"]
    for name in ("dice", "hd95", "surface_dice"):
        assert result["metrics"][name]["value"] == pytest.approx(wanted[name]["value"]), name
    assert {"evaluation.json", "predictions.csv"} == {path.name for path in (tmp_path / "out").iterdir()}
    for number in range(3):
        nibabel.save(nibabel.Nifti1Image(np.zeros((8, 9, 6), np.int16), np.eye(4)), tmp_path / f"v{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 6), np.uint8), np.eye(4)), tmp_path / f"m{number}.nii.gz")
    lines = [f"v{number}.nii.gz,m{number}.nii.gz" for number in range(3)]
    (tmp_path / "volumes.csv").write_text("\n".join(["path,mask", *lines]))
    with pytest.raises(DataError, match="expected images, which the model marks, got volumes"):
        evaluate(run, make_config(str(tmp_path / "volumes.csv")).data)
    with pytest.raises(RunError, match=r"could not write to .*cases\.csv: File exists\. Choose another --out"):
        evaluate(run, config, out=tmp_path / "cases.csv")


def test_other_observers_stand_beside_the_model_and_folds_test_every_image_once(observed: Path, tmp_path: Path) -> None:
    state = {name: value for name, value in load_file(packaged_weights()).items() if not name.startswith("layer4")}
    save_file(state, tmp_path / "bottom.safetensors")
    config = mask_config(
        observed, data={"folds": 3, "patient_regex": r"(p\d+)_", "leaks": "allow"}, train={"epochs": 2},
        backbone=PACKAGED | {"weights": str(tmp_path / "bottom.safetensors")},
    )  # fmt: skip
    results = fit(config, tmp_path / "run")
    test = results["test"]
    assert (test["num_cases"], test["num_groups"], len(results["folds"])) == (18, 9, 3)
    for number, fold in enumerate(results["folds"], 1):
        alone = json.loads((tmp_path / "run" / f"fold_{number}" / "results.json").read_text())["test"]
        assert (fold["chosen"], fold["baseline"]) == (alone["chosen"]["dice"], alone["baseline"]["dice"])
    other = test["observers"]["second"]
    shifted = []
    for path in sorted(observed.glob("*_first.png")):
        mask = (np.asarray(Image.open(path)) > 0).astype(np.uint8)
        shifted.append(dice(overlap_counts(np.roll(mask, 1, axis=1), mask, 1))[0])
    assert other["dice"]["value"] == pytest.approx(np.mean(shifted))
    gap = other["model_less_observer"]["dice"]["value"]
    assert gap == pytest.approx(test["chosen"]["dice"]["value"] - other["dice"]["value"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Other observers against the same truth" in page
    assert "Fold by fold" in page
    assert " over folds" in page
    assert "that of the test images of all folds" in page
    assert "use --folds 5" not in page
    assert results["splits"]["counts"] == {"test": {"foreground": 18}}
    assert results["splits"]["groups"] == {"test": 9}
    assert results["search"]["fold"] in (1, 2, 3)
    openings = [
        json.loads(path.read_text())["ledger"]["openings"] for path in (tmp_path / "run").glob("fold_*/results.json")
    ]
    assert results["ledger"]["openings"] == max(openings)
    assert "Hardly any test cases" not in page
    assert "3 folds, each tested once" in page
    assert "each of the 18 images was tested once, in one of 3 folds" in page
    assert "those of pooled Dice percentiles of 100 bootstrap replicates" in page
    # Where the weights lack the tail the fairer baseline is tested in every fold, too.
    second = results["second_baseline"]
    assert second["cut"]["name"] == "layer3.1"
    means = [json.loads((tmp_path / "run" / f"fold_{n}" / "results.json").read_text()) for n in (1, 2, 3)]
    found = [part["second_baseline"]["dice"]["value"] for part in means]
    assert second["dice"]["mean"] == pytest.approx(np.mean(found))
    assert second["difference"]["dice"]["value"] == pytest.approx(
        test["chosen"]["dice"]["value"] - second["dice"]["value"]
    )
    assert "against it mean Dice differs by" in page


def test_other_observers_of_an_external_cohort_are_told_too(run: Path, observed: Path) -> None:
    asked = ["evaluate", str(run), str(observed), "--patient-regex", r"(p\d+)_"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "18 cases of 18 images, surfaces in px" in result.output
    assert "second against the same truth: Dice 0." in result.output


def test_an_observer_who_cannot_be_compared_is_named(run: Path, observed: Path, tmp_path: Path) -> None:
    for file in observed.glob("*.png"):
        pixels = np.asarray(Image.open(file))
        Image.fromarray(pixels // 255 if file.name.endswith("_second.png") else pixels).save(tmp_path / file.name)
    told = evaluate(run, make_config(str(tmp_path), options={"data": {"patient_regex": r"(p\d+)_"}}).data)
    reason = told["observers_left_out"]["second"]
    assert told["observers"] == {}
    assert "holds the label 1, expected 0 or 255" in reason
    reference = MaskReference(observers_left_out={"second": reason})
    (line,) = observer_lines(reference)
    assert line.startswith("warn: second cannot be compared with the truth (e.g. p")
    result = read_result(run)
    result = dataclasses.replace(result, test=dataclasses.replace(result.test, reference=reference))
    found = [caveat for caveat in find_caveats(RunFiles(root=run, result=result)) if "observer" in caveat.title]
    assert "Nothing is said of second" in found[0].text


def test_several_classes_are_told_apart(films: Path, tmp_path: Path) -> None:
    table = pd.read_csv(films)
    (tmp_path / "masks").mkdir()
    for name, label in zip(table["mask"], table["label"], strict=True):
        mask = np.asarray(Image.open(films.parent / name)) > 0
        mask = mask.astype(np.uint8) * (3 if label == "mass" else 7)
        Image.fromarray(mask).save(tmp_path / name)
        (tmp_path / "renumbered" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([0, 0, 0, 2, 0, 0, 0, 1], np.uint8)[mask]).save(tmp_path / "renumbered" / name)
    table["path"] = [str(films.parent / path) for path in table["path"]]
    table["mask"] = [str(tmp_path / name) for name in table["mask"]]
    table.to_csv(tmp_path / "cases.csv", index=False)
    assert read_mask_cohort(tmp_path / "cases.csv").classes == ("label 3", "label 7")
    config = mask_config(
        tmp_path / "cases.csv", data={"mask_classes": "nodule=7,mass=3"},
        transfer={"cut": "auto", "decoder": "upernet"}, search={"max_trials": 2}, train={"epochs": 1},
    )  # fmt: skip
    results = fit(config, tmp_path / "run")
    assert results["classes"] == ["mass", "nodule"]
    assert set(results["test"]["chosen"]["per_class"]) == {"mass", "nodule"}
    assert results["search"]["method"] == "two-stage"
    assert results["chosen"]["head"] == "upernet"
    # Three levels at least for this decoder: the first cuts are left out.
    assert pd.read_csv(tmp_path / "run" / "search.csv")["cut"].min() >= 4
    assert "Class by class" in (tmp_path / "run" / "report.html").read_text()
    found = segment_files(load_artefact(tmp_path / "run"), [Path(table["path"][0])], tmp_path / "out")
    assert set(np.unique(read_mask(tmp_path / "out" / found["mask"][0]))) <= {0, 3, 7}
    # Another hospital's numbers do not matter where the names are known.
    table = table[table["split"] == "test"].drop(columns="split")
    table["mask"] = [str(tmp_path / "renumbered" / Path(name).relative_to(tmp_path)) for name in table["mask"]]
    table.to_csv(tmp_path / "others.csv", index=False)
    others = make_config(str(tmp_path / "others.csv"), options={"data": {"mask_classes": "nodule=1,mass=2"}}).data
    foreign = make_config(str(tmp_path / "others.csv"), options={"data": {"mask_classes": "nodule=1,Leber=2"}}).data
    with pytest.raises(DataError, match="model's classes mass, nodule in the masks, got nodule, Leber"):
        evaluate(tmp_path / "run", foreign, replicates=100)
    judged = evaluate(tmp_path / "run", others, replicates=100)["per_class"]
    for name in ("mass", "nodule"):
        wanted = results["test"]["chosen"]["per_class"][name]["dice"]["value"]
        assert judged[name]["dice"]["value"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("strategy", "cut", "decoder"),
    [("frozen", "3", "unet"), ("lwft", "3", "unet"), ("wtst", "3", "unet++"), ("scratch", "auto", "fpn")],
)
def test_every_strategy_makes_a_segmenter_that_is_stored_whole(
    films: Path, tmp_path: Path, strategy: str, cut: str, decoder: str
) -> None:
    transfer = {"strategy": strategy, "cut": cut, "decoder": decoder}
    backbone = PACKAGED if decoder == "fpn" else {}
    config = mask_config(films, transfer=transfer, train={"epochs": 1, "patches": 1}, backbone=backbone)
    results = fit(config, tmp_path / "run")
    assert (results["chosen"]["strategy"], results["chosen"]["head"]) == (strategy, decoder)
    assert "solved" not in (tmp_path / "run" / "report.html").read_text()
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    found = segment_files(load_artefact(tmp_path / "run"), [films.parent / table["path"][0]], tmp_path / "out")
    assert found["pixels_foreground"][0] == table["called_foreground"][0]


@pytest.mark.parametrize("resize", ["pad", "crop"])
def test_images_of_several_sizes_are_judged_and_marked_at_their_own(films: Path, tmp_path: Path, resize: str) -> None:
    table = pd.read_csv(films)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, (image, mask) in enumerate(zip(table["path"], table["mask"], strict=True)):
        size = (48, 32) if number % 2 else (70, 56)
        picture, marks = (Image.fromarray(np.asarray(Image.open(films.parent / name))) for name in (image, mask))
        picture.resize(size).save(tmp_path / image)
        marks.resize(size, Image.Resampling.NEAREST).save(tmp_path / mask)
    table.to_csv(tmp_path / "cases.csv", index=False)
    config = mask_config(tmp_path / "cases.csv", data={"resize": resize}, train={"epochs": 1})
    fit(config, tmp_path / "run")
    rows = pd.read_csv(tmp_path / "run" / "predictions.csv")
    found = segment_files(load_artefact(tmp_path / "run"), [tmp_path / path for path in rows["path"]], tmp_path / "out")
    for path, mask in zip(rows["path"], found["mask"], strict=True):
        assert read_mask(tmp_path / "out" / mask).shape == read_mask(tmp_path / path).shape
    assert found["pixels_foreground"].tolist() == rows["called_foreground"].tolist()


def test_a_budget_fits_a_run_on_masks_to_the_clock(films: Path, tmp_path: Path) -> None:
    config = mask_config(
        films, transfer={"cut": "auto"}, train={"epochs": 200}, deterministic=False, budget_minutes=0.15
    )
    results = fit(config, tmp_path / "run")
    decided = json.loads((tmp_path / "run" / "budget.json").read_text())
    assert results["search"]["epochs"] == decided["epochs"] < 200
    # Full fine-tuning and one more training at least, as measured before; and it took about what was measured.
    assert 1.1 * decided["epochs"] * decided["epoch_seconds"] < 9
    history = pd.read_csv(tmp_path / "run" / "history.csv").query("role == 'baseline'")
    assert decided["epoch_seconds"] / 4 < history["seconds"].median() < 4 * decided["epoch_seconds"]


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("chests"), CHESTS, 0)


def test_volumes_end_to_end(chests: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = mask_config(chests, backbone={"size": 16}, train={"epochs": 2, "batch_size": 4})
    results = fit(config, tmp_path / "run", listener=Listener(say=said.append))
    assert (results["patch"], results["backbone"]["lift"], results["test"]["unit"]) == ([16, 16, 16], "acs", "mm")
    assert any("Masks at 32×32×32" in words for words in said)
    file = chests.parent / str(pd.read_csv(tmp_path / "run" / "predictions.csv")["path"][0])
    found = segment_files(load_artefact(tmp_path / "run"), [file], tmp_path / "out")
    mask, image = nibabel.load(tmp_path / "out" / found["mask"][0]), nibabel.load(file)
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine)
    row = pd.read_csv(tmp_path / "run" / "predictions.csv").iloc[0]
    assert (np.asarray(mask.dataobj) > 0).sum() == row["called_foreground"]
    assert found["mm3_foreground"][0] == pytest.approx(1000 * row["called_foreground"])


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("monai/unet", {"features": (4, 4, 8, 8, 16, 4)}),
        ("monai/swin_unetr", {"embed_dim": 12, "num_heads": [1, 1, 2, 4], "depths": [1, 1, 1, 1]}),
    ],
)
def test_networks_of_monai_are_trained_stored_and_mark_volumes(
    chests: Path, tmp_path: Path, name: str, args: dict[str, Any]
) -> None:
    backbone = {"name": name, "weights": "none", "args": args, "size": 32}
    config = mask_config(chests, backbone=backbone, train={"epochs": 1, "batch_size": 2, "patches": 1})
    results = fit(config, tmp_path / "run")
    efficiency = results["efficiency"]
    assert efficiency["chosen"]["num_params"] < efficiency["baseline"]["num_params"]
    row = pd.read_csv(tmp_path / "run" / "predictions.csv").iloc[0]
    found = segment_files(load_artefact(tmp_path / "run"), [chests.parent / str(row["path"])], tmp_path / "out")
    assert found["pixels_foreground"][0] == row["called_foreground"]


def test_a_case_without_a_usable_mask_is_named_and_left_out(observed: Path, tmp_path: Path) -> None:
    for file in observed.glob("*.png"):
        if not file.name.endswith("_second.png"):
            Image.open(file).save(tmp_path / file.name)
    Image.fromarray(np.full((5, 5), 255, np.uint8)).save(tmp_path / "p0_0_first.png")
    said: list[str] = []
    results = fit(
        mask_config(tmp_path, data={"patient_regex": r"(p\d+)_", "leaks": "allow"}, train={"epochs": 1}),
        tmp_path / "run", listener=Listener(say=said.append),
    )  # fmt: skip
    assert sum(sum(part.values()) for part in results["splits"]["counts"].values()) == 17
    reason = "p0_0.png (mask of 5×5 for the 48×32 of p0_0.png)"
    assert f"warn: 1 images are left out for their masks, e.g. {reason}; audit.json lists them." in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Cases left out for their masks" in page
    assert "0 images that cannot be read and 1 without a mask that can be used, left out" in page
    assert f"1 images are left out for their masks, e.g. {reason}" in " ".join(results["notes"])
    assert "Cases left out for their masks" in (tmp_path / "run" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transfer": {"strategy": "tf"}}, "expected a strategy among scratch, frozen"),
        ({"transfer": {"head": "pooled"}}, "transfer.head is about labels"),
        ({"train": {"imbalance": "focal"}}, "train.imbalance is about labels"),
        ({"evaluate": {"operating_point": "sensitivity=0.9"}}, "operating_point is about labels"),
        ({"search": {"method": "guided"}, "transfer": {"cut": "auto"}}, "judges cuts by pooled features"),
        ({"backbone": PACKAGED | {"size": 40}}, "halved as often as layer4.1 needs"),
        ({"transfer": {"dropout": 0.5}}, "transfer.dropout is about labels"),
        ({"data": {"dims": 3}}, "these masks are of images"),
        ({"search": {"start": "ftl"}, "transfer": {"cut": "auto"}}, "search.start=ftl judges cuts"),
        ({"data": {"task": "classification"}, "transfer": {"decoder": "fpn"}}, "transfer.decoder is about masks"),
        ({"data": {"task": "classification"}, "train": {"patches": 3}}, "train.patches is about masks"),
        ({"data": {"label_column": "label"}}, "--label-column is about labels"),
        (
            {"transfer": {"decoder": "fpn"}, "backbone": {"name": "monai/resnet10", "args": {}, "weights": "none"}},
            "for images",
        ),
    ],
)
def test_what_means_nothing_for_masks_is_refused(
    films: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message) as caught:
        fit(mask_config(films, **options), tmp_path / "run")
    assert type(caught.value).__module__ == "medgraft.errors"


def test_jobs_on_labels_refuse_masks_and_models_of_the_other_task(run: Path, films: Path, tmp_path: Path) -> None:
    for job in (lambda c: compare(c, tmp_path / "c"), advise):
        with pytest.raises(ConfigError, match="understands labels alone"):
            job(mask_config(films))
    file = films.parent / "images" / sorted(p.name for p in (films.parent / "images").iterdir())[0]
    with pytest.raises(ConfigError, match="one of a segmentation"):
        predict_files(load_artefact(run), [file])
    with pytest.raises(DataError, match="expected image files"):
        segment_files(load_artefact(run), [], tmp_path)


def test_the_command_line_writes_masks_and_names_what_is_wrong(run: Path, films: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, file in enumerate(sorted((films.parent / "images").iterdir())[:2]):
        Image.open(file).save(tmp_path / "in" / f"{number}.png")
    Image.open(file).save(tmp_path / "in" / "1.bmp")
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["predict", str(run), str(tmp_path / "in"), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "4 cases, 1 with a remark" in result.output
    table = pd.read_csv(out / "masks.csv", keep_default_na=False)
    assert sorted(table["mask"]) == ["", "0.png", "1_bmp.png", "1_png.png"]
    assert table.set_index("mask")["status"][""].startswith("unreadable")
    asked = ["predict", str(run), str(tmp_path / "in" / "0.png"), "-o", str(out)]
    assert "--unit is for labels" in str(CliRunner().invoke(app, [*asked, "--unit", "study"]).exception)
    assert "written as nifti" in str(CliRunner().invoke(app, [*asked, "--format", "nifti"]).exception)
    # Masks of an earlier call are no images; a volume among them costs its own row.
    (tmp_path / "in" / "broken.png").unlink()
    inside = tmp_path / "in" / "masks"
    for _ in range(2):
        again = CliRunner().invoke(app, ["predict", str(run), str(tmp_path / "in"), "-o", str(inside)])
        assert "3 cases, 0 with a remark" in again.output
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    both = [str(tmp_path / "in" / "0.png"), str(tmp_path / "scan.nii.gz")]
    assert "2 cases, 1 with a remark" in CliRunner().invoke(app, ["predict", str(run), *both, "-o", str(out)]).output


def test_predictions_never_overwrite_what_was_there(run: Path, films: Path, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number, file in enumerate(sorted((films.parent / folder).iterdir())[:3]):
            (tmp_path / folder / f"{number}.png").write_bytes(file.read_bytes())
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.png")}
    for out in (tmp_path / "masks", tmp_path / "images", tmp_path / "masks" / ".." / "images"):
        result = CliRunner().invoke(app, ["predict", str(run), str(tmp_path / "images"), "-o", str(out)])
        assert isinstance(result.exception, ConfigError)
        assert "exists and is no mask of an earlier call" in str(result.exception)
        with pytest.raises(ConfigError, match="is not overwritten"):
            medgraft.segment(run, tmp_path / "images", out)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    # A table of the user's own is no list of an earlier call.
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "masks.csv").write_text("path,mask\nimages/0.png,masks/0.png\n")
    with pytest.raises(ConfigError, match="a table of yours"):
        medgraft.segment(run, tmp_path / "images", tmp_path / "own")
    # What was interrupted may be repeated.
    medgraft.segment(run, tmp_path / "images", tmp_path / "out")
    (tmp_path / "out" / "2.png").unlink()
    assert (medgraft.segment(run, tmp_path / "images", tmp_path / "out")["status"] == "ok").all()
    # Calls add to the list, and what went wrong leaves no older mask behind.
    for name in ("0", "1", "0"):
        medgraft.segment(run, tmp_path / "images" / f"{name}.png", tmp_path / "out")
    assert sorted(pd.read_csv(tmp_path / "out" / "masks.csv")["mask"]) == ["0.png", "1.png", "2.png"]
    (tmp_path / "images" / "1.png").write_bytes(b"\x89PNG broken")
    medgraft.segment(run, tmp_path / "images", tmp_path / "out")
    listed = pd.read_csv(tmp_path / "out" / "masks.csv", keep_default_na=False).set_index("path")
    assert listed["mask"][str(tmp_path / "images" / "1.png")] == ""
    assert not (tmp_path / "out" / "1.png").exists()
    # The mask of another image that is called alike.
    (tmp_path / "others").mkdir()
    (tmp_path / "images" / "0.png").replace(tmp_path / "others" / "0.png")
    (tmp_path / "images" / "0.png").write_bytes((tmp_path / "others" / "0.png").read_bytes())
    with pytest.raises(ConfigError, match=r"is the mask of .*images/0\.png"):
        medgraft.segment(run, tmp_path / "others", tmp_path / "out")


def test_masks_are_called_as_nnunet_calls_them_and_never_alike(run: Path, films: Path, tmp_path: Path) -> None:
    file = sorted((films.parent / "images").iterdir())[0]
    for name in ("liver_001_0000", "liver_002_0000"):
        Image.open(file).save(tmp_path / f"{name}.png")
    assert medgraft.segment(run, tmp_path, tmp_path / "out")["mask"].tolist() == ["liver_001.png", "liver_002.png"]
    Image.open(file).save(tmp_path / "liver_003.png")
    found = medgraft.segment(run, [tmp_path / "liver_001_0000.png", tmp_path / "liver_003.png"], tmp_path / "mixed")
    assert found["mask"].tolist() == ["liver_001_0000.png", "liver_003.png"]
    for name in ("a.png", "a.bmp", "a_png.png"):
        (tmp_path / "alike").mkdir(exist_ok=True)
        Image.open(file).save(tmp_path / "alike" / name)
    with pytest.raises(ConfigError, match=r"a\.png and .*a_png\.png would have one mask, .* Rename one"):
        medgraft.segment(run, tmp_path / "alike", tmp_path / "out2")


def test_images_that_show_nothing_are_spread_over_all_parts(films: Path, tmp_path: Path) -> None:
    table = pd.read_csv(films).drop(columns="split")
    (tmp_path / "masks").mkdir()
    for number, name in enumerate(table["mask"]):
        mask = np.asarray(Image.open(films.parent / name))
        Image.fromarray(mask * np.uint8(number % 3 > 0)).save(tmp_path / name)
    table["path"] = [str(films.parent / path) for path in table["path"]]
    table["mask"] = [str(tmp_path / name) for name in table["mask"]]
    table.to_csv(tmp_path / "cases.csv", index=False)
    cohort = read_mask_cohort(tmp_path / "cases.csv")
    groups = groups_of(cohort, [], [])
    empty = ~(cohort.targets > 0).any(1)
    for divided in (split_cohort(cohort, groups, 0), *fold_splits(cohort, groups, 4, 0)):
        shares = [empty[divided.rows(split)].mean() for split in ("train", "val", "test")]
        assert max(shares) - min(shares) < 0.25, shares


def test_only_truncation_is_bound_to_where_a_decoder_can_begin(films: Path, tmp_path: Path) -> None:
    for strategy, wanted in (("ttl", (4, 9)), ("lwft", (1, 9))):
        transfer = {"strategy": strategy, "cut": "auto", "decoder": "upernet"}
        config = mask_config(films, transfer=transfer, backbone=PACKAGED)
        material = material_of(config, Listener())
        plan = plan_run(config, material, Listener()).search
        assert (plan.depths[0], plan.depths[-1]) == wanted
        cost, cuts = costs_at_cuts(plan, material.source), material.source.cuts
        assert cost[9] == 1.0
        # Of a decoder most of the work is near the input: a shallow cut saves less than its encoder's share.
        assert cost[4] > cuts[3].macs / cuts[-1].macs


def test_folders_of_images_and_masks_are_no_classes(films: Path, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for file in sorted((films.parent / folder).iterdir())[:6]:
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="Give --task segmentation"):
        fit(make_config(str(tmp_path)), tmp_path / "run")


def test_sites_and_another_tolerance_go_through_the_run_the_model_and_the_page(films: Path, tmp_path: Path) -> None:
    table = pd.read_csv(films)
    table["site"] = ["north" if number % 3 else "south" for number in range(len(table))]
    for column in ("path", "mask"):
        table[column] = [str(films.parent / name) for name in table[column]]
    table.to_csv(tmp_path / "cases.csv", index=False)
    config = mask_config(tmp_path / "cases.csv", evaluate={"tolerance_mm": 1.0}, train={"epochs": 1})
    results = fit(config, tmp_path / "run")
    assert set(results["test"]["sites"]) == {"north", "south"}
    assert results["test"]["tolerance"] == 1.0
    assert "Site by site" in (tmp_path / "run" / "report.html").read_text()
    found = evaluate(tmp_path / "run", make_config(str(tmp_path / "cases.csv")).data, replicates=100)
    assert (found["tolerance"], found["sites"]["north"]["num_groups"] >= 10) == (1.0, True)
    assert 0 <= found["sites"]["north"]["surface_dice"]["value"] <= 1
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), str(tmp_path / "cases.csv")])
    assert "north: " in result.output
    assert "Dice" in result.output


def test_volumes_at_a_common_spacing_are_marked_in_their_own_grid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(9):
        depth = 12 + 2 * (number % 3)
        mask = np.zeros((40, 36, depth), np.uint8)
        low = rng.integers(4, 14)
        mask[low : low + 14, low + 2 : low + 16, 3 : depth - 3] = 1
        values = (100 + 700.0 * mask + rng.normal(0, 20, mask.shape)).astype(np.int16)
        affine = np.diag([0.8, 0.8, (2.5, 3.0, 2.0)[number % 3], 1.0])
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "data" / "images" / f"p{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / "data" / "masks" / f"p{number}.nii.gz")
    config = mask_config(
        tmp_path / "data", data={"spacing_mm": [1.0, 1.0, 1.0]}, backbone={"size": 16},
        train={"epochs": 4, "batch_size": 4, "patches": 8},
        transfer={"cut": "auto"}, search={"max_trials": 1},
    )  # fmt: skip
    results = fit(config, tmp_path / "run")
    assert results["test"]["unit"] == "mm"
    assert results["search"]["method"] == "two-stage"
    assert len(pd.read_csv(tmp_path / "run" / "search.csv")) == 2
    # Learned and brought back to the right place: a shift of a few voxels would halve it.
    assert results["test"]["chosen"]["dice"]["value"] > 0.8
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    files = [tmp_path / "data" / path for path in table["path"]]
    found = medgraft.segment(tmp_path / "run", files, tmp_path / "out")
    assert found["pixels_foreground"].tolist() == table["called_foreground"].tolist()
    for file, mask_file in zip(files, found["mask"], strict=True):
        assert nibabel.load(tmp_path / "out" / mask_file).shape == nibabel.load(file).shape
