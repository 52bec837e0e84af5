"""What networks make of a cohort, cut by cut: of a finished run, of two runs, or of a pretrained network alone."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.analysis import FeatureStatistics, features_at_cuts, statistics_of
from medgraft.config import RunConfig, read_config
from medgraft.data.split import write_splits
from medgraft.deploy.artefact import LoadedModel, load_artefact
from medgraft.errors import ConfigError, RunError
from medgraft.files import read_json, replacing, write_json
from medgraft.listener import Listener
from medgraft.report import write_analysis, write_report
from medgraft.result import read_result
from medgraft.run.exploring import choose_probe
from medgraft.run.folder import open_run
from medgraft.run.measuring import changes, distances, read_source, similarity, worth_of_cuts
from medgraft.run.prepare import Prepared, prepared
from medgraft.run.refusals import refuse_early
from medgraft.run.trials import is_whole, source_name, trial_context, trial_spec
from medgraft.search.trial import TrialContext, forget_weights, run_trial
from medgraft.search.two_stage import stage_ends
from medgraft.train.batches import ImageSet
from medgraft.train.engine import Engine, exact_engine, pick_device
from medgraft.transfer.heads import HeadSettings
from medgraft.transfer.model import TransferModel
from medgraft.transfer.source import BELOW_STEM
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import Cut, Predictions, from_json

__all__ = ["analyze", "analyze_cohort", "analyze_runs"]

SCHEMA: Final = 2
# Probes need more images than similarities, but features of all cuts are held in memory for them.
_PROBED_PER_COMPARED: Final = 5


def analyze(
    run: str | Path,
    *,
    num_images: int = 1000,
    source: str | Path | None = None,
    other: str | Path | None = None,
    is_gain_wanted: bool = False,
    device: str = "auto",
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Analyse a finished run and return what stands in its `analysis.json`; the test set stays shut.

    Args:
        run: A folder of `medgraft fit`, whose data and weights are still where they were.
        num_images: At most so many training images, drawn with the run's seed.
        source: Images the network was pretrained on, or their stored statistics, to measure the distance to.
        other: A second run of the same network on the same images, to compare with.
        is_gain_wanted: Train with the weights up to every stage end against random ones with their statistics
            (WT-ST), as often as there are stages.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; trainings use that of the run where it is there.
        listener: Told how things go.

    Raises:
        RunError: It is no finished run, its data or weights are not those it was made with, or the other run is one of
            another cohort or network.
        DataError: Too few images, or features that cannot be compared.
    """
    folder, told = Path(run), listener or Listener()
    config = _config_of(folder)
    # The run may have been made on another machine: this call's device counts.
    refuse_early(config.model_copy(update={"device": device}), "analyze")
    engine = exact_engine(pick_device(device))
    second = _second_run(folder, config, Path(other)) if other is not None else None
    with tempfile.TemporaryDirectory(prefix="medgraft-analyze-") as place:
        found = prepared(config, told)
        _check_same(folder, found, Path(place))
        context = trial_context(Path(place), found, engine)
        far = _far(source, found, num_images, config.seed, told)
        cuts = found.source.cuts
        before, random = _untrained(config, found)
        after = load_artefact(folder / "baseline").network
        rows = _drawn(context, num_images, config.seed)
        results = {
            "schema": SCHEMA,
            "num_images": len(rows),
            "cuts": [_cut_facts(cut) for cut in cuts],
            **_transfer(config, folder, (before, after, random), context, num_images, told),
            **changes(before, after, context, told),
        }
        if second is not None:
            name, loaded = second
            told.say(f"Comparing the fine-tuned network with that of {name}.")
            apart = similarity(after, loaded.network, context, rows, told)
            results["other"] = {"run": name, "cuts": apart["cuts"], "cka": apart["across"]}
        if far is not None:
            results["distance"] = _distance(before, context, far, num_images, config.seed, told)
        write_json(folder / "analysis.json", results)
        if is_gain_wanted:
            results["gain"] = _gain(config, folder, found, told)
    write_json(folder / "analysis.json", results)
    write_report(folder)
    return results


def _transfer(
    config: RunConfig,
    folder: Path,
    models: tuple[TransferModel, TransferModel, TransferModel],
    context: TrialContext,
    num_images: int,
    told: Listener,
) -> dict[str, Any]:
    """What transfer did to the features of every cut: of the network before, after, and with random weights."""
    before, after, random = models
    cuts, rows = context.source.cuts, _drawn(context, num_images, config.seed)
    told.say(f"Comparing {len(cuts)} cuts before and after transfer on {len(rows)} images.")
    tuned = similarity(before, after, context, rows, told)
    chance = similarity(before, random, context, rows, told)
    sample = context.sample(_PROBED_PER_COMPARED * num_images, config.seed)
    worth_before, _ = worth_of_cuts(before, sample, config.seed, told)
    worth_after, probes = worth_of_cuts(after, sample, config.seed, told)
    return {
        "num_probed": len(sample.train),
        "similarity": {
            "after": tuned["cuts"],
            "random": chance["cuts"],
            "cka_before_after": tuned["across"],
            "cka_after": tuned["within"],
        },
        "signals": {"before": worth_before, "after": worth_after},
        "decision": _decision(config, folder, cuts, probes),
    }


def analyze_cohort(
    config: RunConfig,
    out: str | Path,
    *,
    num_images: int = 1000,
    source: str | Path | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """What a pretrained network makes of a cohort before any training, into `out`; the test set stays shut.

    Writes `analysis.json`, `analysis.html`, and `statistics.npz` with the mean and covariance of the training images'
    features at every cut: enough for somebody else to measure a distance to this cohort without its images.

    Args:
        config: Cohort and network.
        out: New or empty folder, or that of the same analysis.
        num_images: At most so many training images, drawn with the seed.
        source: Images the network was pretrained on, or their stored statistics.
        listener: Told how things go.

    Raises:
        MedgraftError: Whatever is wrong with data, weights or the folder.
    """
    folder, told = Path(out), listener or Listener()
    refuse_early(config, "analyze")
    engine = exact_engine(pick_device(config.device))
    with open_run(folder, config), tempfile.TemporaryDirectory(prefix="medgraft-analyze-") as place:
        found = prepared(config, told)
        context = trial_context(Path(place), found, engine)
        far = _far(source, found, num_images, config.seed, told)
        cuts = found.source.cuts
        before, random = _untrained(config, found)
        rows = _drawn(context, num_images, config.seed)
        told.say(f"Comparing {len(cuts)} cuts of the pretrained network with random weights on {len(rows)} images.")
        chance = similarity(random, before, context, rows, told)
        sample = context.sample(_PROBED_PER_COMPARED * num_images, config.seed)
        worth, _ = worth_of_cuts(before, sample, config.seed, told)
        worth_random, _ = worth_of_cuts(random, sample, config.seed, told)
        results = {
            "schema": SCHEMA,
            "network": found.source.backbone.spec.name,
            "data": Path(config.data.source).name,
            "num_images": len(rows),
            "num_probed": len(sample.train),
            "cuts": [_cut_facts(cut) for cut in cuts],
            "similarity": {"random": chance["cuts"], "cka_before": chance["within"]},
            "signals": {"before": worth, "random": worth_random},
        }
        if far is not None:
            results["distance"] = _distance(before, context, far, num_images, config.seed, told)
        _write_statistics(folder / "statistics.npz", before, sample, source_name(found.source))
    write_json(folder / "analysis.json", results)
    write_analysis(folder)
    return results


def analyze_runs(runs: Sequence[str | Path], **options: Any) -> list[dict[str, Any]]:
    """Analyse several runs with the same options of `analyze`, and show in each report where all of them lie.

    With `source` and `is_gain_wanted` every run is a point: its distance to the source against what the pretrained
    weights brought it.

    References:
        Matsoukas et al. What makes transfer learning work for medical images. CVPR 2022, Fig. 2.
    """
    found = [analyze(run, **options) for run in runs]
    points = [_point(Path(run), results) for run, results in zip(runs, found, strict=True)]
    known = [point for point in points if point is not None]
    if len(known) > 1:
        for run, results in zip(runs, found, strict=True):
            results["points"] = known
            write_json(Path(run) / "analysis.json", results)
            write_report(Path(run))
    return found


def _point(run: Path, results: Mapping[str, Any]) -> dict[str, Any] | None:
    if "distance" not in results or "gain" not in results:
        return None
    last = str(results["cuts"][-1]["index"])
    distance = results["distance"]["cuts"][last]["fid"]
    gain = next(row["gain"] for row in results["gain"] if str(row["depth"]) == last)
    return {"run": run.name, "fid": distance["value"], "ci95": distance["ci95"], "gain": gain}


def _config_of(folder: Path) -> RunConfig:
    if not (folder / "results.json").is_file() or not (folder / "config.yaml").is_file():
        raise RunError(
            f"expected the folder of a finished `medgraft fit`, got {folder} without results.json. "
            "For a cohort give --out."
        )
    config = read_config(folder / "config.yaml")
    # A time budget decides the epochs of a run; its settings do not hold them.
    epochs = read_result(folder).train.epochs
    config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})
    if config.data.folds > 1:
        raise RunError(f"expected a run on one division, got {config.data.folds} folds. Give {folder}/fold_1.")
    # Where decoded images lay when it was made says nothing about this machine.
    return config.model_copy(update={"data": config.data.model_copy(update={"cache": None})})


def _second_run(folder: Path, config: RunConfig, other: Path) -> tuple[str, LoadedModel]:
    """Name and fully fine-tuned network of the other run, which must be one of the same images and architecture."""
    second = _config_of(other)
    if read_result(folder).splits.sha256 != read_result(other).splits.sha256:
        raise RunError(
            f"expected two runs on the same images and split, got others in {other}. Fit both on one cohort."
        )
    same = ("name", "args", "size", "lift")
    if any(getattr(config.backbone, key) != getattr(second.backbone, key) for key in same):
        raise RunError(
            f"expected two runs of one network, got {config.backbone.name} and {second.backbone.name} (name, "
            "arguments, size or lift differ). Compare runs of one architecture."
        )
    return other.name, load_artefact(other / "baseline")


def _check_same(folder: Path, found: Prepared, place: Path) -> None:
    digest = write_splits(found.cohort, found.groups, place / "splits.csv")
    if digest != read_result(folder).splits.sha256:
        raise RunError(
            f"expected the images and the split that the run in {folder} was made with, got others. "
            "Restore the data, or run fit again."
        )


def _untrained(config: RunConfig, found: Prepared) -> tuple[TransferModel, TransferModel]:
    """The network with its pretrained and with random weights."""
    head = HeadSettings(num_outputs=1)
    before, random = (
        apply_strategy(name, found.source, found.source.cuts[-1], head, lr=1.0, seed=config.seed)[0]
        for name in ("ftl", "scratch")
    )
    return before, random


def _drawn(context: TrialContext, num_images: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(len(context.train))[:num_images])


def _cut_facts(cut: Cut) -> dict[str, Any]:
    return {"index": cut.index, "name": cut.name, "stage": cut.stage, "num_params": cut.num_params, "macs": cut.macs}


def _decision(
    config: RunConfig, folder: Path, cuts: tuple[Cut, ...], probes: Mapping[int, Predictions]
) -> dict[str, Any]:
    """Where the probes on fine-tuned features would cut, by the run's rule, and how right that was."""
    choice = choose_probe(config, cuts, probes)
    scores = {candidate.cut: candidate.score for candidate in choice.candidates}
    trained = {one["cut"]: one["score"] for one in read_json(folder / "choice.json")["candidates"]}
    chosen = read_result(folder).chosen.cut.index
    return {
        "cut": _cut_facts(cuts[choice.chosen - 1]),
        "rule": choice.rule,
        # Depths of other strategies mean something else; their scores say nothing about a cut here.
        "is_truncated": config.transfer.strategy in ("ttl", "ftl"),
        "probe": scores[choice.chosen],
        "best": choice.best,
        "best_probe": scores[choice.best],
        "chosen": chosen,
        "trained": trained.get(choice.chosen),
        "best_trained": max(trained.values()),
        "num_trained": len(trained),
    }


def _far(
    source: str | Path | None, found: Prepared, num_images: int, seed: int, told: Listener
) -> tuple[str, ImageSet | dict[int, FeatureStatistics]] | None:
    """The source by name, read before anything is computed: what cannot be read is told at once."""
    if source is None:
        return None
    network = source_name(found.source)
    return Path(source).name, read_source(Path(source), found.preprocessing, network, num_images, seed, told)


def _distance(
    before: TransferModel,
    context: TrialContext,
    source: tuple[str, ImageSet | dict[int, FeatureStatistics]],
    num_images: int,
    seed: int,
    told: Listener,
) -> dict[str, Any]:
    """From the source to the training images, in pretrained features at the ends of the stages."""
    name, other = source
    part = context.sample(num_images, seed)
    return {"source": name, "cuts": distances(before, part, tuple(stage_ends(context.source.cuts)), other, told)}


def _gain(config: RunConfig, folder: Path, found: Prepared, told: Listener) -> list[dict[str, Any]]:
    """Validation AUPRC with the weights of the first blocks, at the ends of the stages; random weights are depth 0."""
    engine: Engine = from_json(Engine, read_json(folder / "engine.json"))
    if engine.device.partition(":")[0] != "cpu" and not _has_device(engine.device):
        told.say(f"The run was trained on {engine.device}, which is not here: the trainings run on the CPU in float32.")
        engine = Engine(device="cpu")
    context = trial_context(folder, found, engine)
    cuts = found.source.cuts
    rows: list[dict[str, Any]] = []
    for depth in (BELOW_STEM, *stage_ends(cuts)):
        name = "ftl" if is_whole("wtst", depth, cuts) else "wtst"
        spec = trial_spec(config, found, name, depth, config.seed)
        label = f"weights up to cut {depth.index}, statistics above"
        trial = run_trial(spec, context, lambda done, total, label=label: told.step(label, done, total))  # type: ignore[misc]
        forget_weights(trial)
        told.say(f"  {label}: val AUPRC {trial.score:.4f}")
        rows.append(
            {"depth": depth.index, "name": depth.name, "val_auprc": trial.score, "val_auroc": trial.scores["auroc"]}
        )
    return [row | {"gain": row["val_auprc"] - rows[0]["val_auprc"]} for row in rows]


def _has_device(device: str) -> bool:
    try:
        pick_device(device)
    except ConfigError:
        return False
    return True


def _write_statistics(path: Path, model: TransferModel, sample: TrialContext, network: str) -> None:
    features = features_at_cuts(model, sample.source.cuts, sample.train, sample.engine)
    arrays: dict[str, Any] = {"num_images": np.array(len(sample.train)), "network": np.array(network)}
    for index, rows in features.items():
        found = statistics_of(rows)
        arrays |= {f"mean_{index}": found.mean, f"covariance_{index}": found.covariance}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)
