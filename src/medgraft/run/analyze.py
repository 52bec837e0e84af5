"""What networks make of a cohort, cut by cut: of a finished run, of two runs, or of a pretrained network alone."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from medgraft.analysis.domains import FeatureStatistics, statistics_of
from medgraft.analysis.layers import features_at_cuts
from medgraft.analysis.networks import changes, distances, similarity, worth_of_cuts
from medgraft.analysis.source_images import read_source
from medgraft.analysis.statistics import write_statistics
from medgraft.as_json import from_json
from medgraft.config import RunConfig
from medgraft.deploy.artefact import LoadedModel, load_artefact
from medgraft.errors import ConfigError, MedgraftError
from medgraft.files import locked, read_json
from medgraft.listener import Listener
from medgraft.prepare.material import Material
from medgraft.report import write_analysis, write_report
from medgraft.result.analysis import (
    AnalysisResult,
    CutDecision,
    DepthGain,
    OtherRun,
    RunPoint,
    SourceDistance,
    write_analysis_result,
)
from medgraft.result.run import cut_facts, read_result
from medgraft.search.executor import HERE
from medgraft.search.explore import choose_probe
from medgraft.search.gain import gain_by_depth
from medgraft.search.plan import SearchPlan
from medgraft.search.rule import Choice
from medgraft.search.run_engine import kept_engine
from medgraft.search.trial import TrialContext
from medgraft.search.two_stage import stage_ends
from medgraft.setup.begin import as_begun, begin
from medgraft.setup.finished_run import config_of_run, demand_same_split, second_run
from medgraft.setup.folder import open_run
from medgraft.setup.plan import RunPlan, context_of, material_of
from medgraft.setup.refusals import refuse_early
from medgraft.train.batches import ImageSet
from medgraft.train.engine import Engine, exact_engine, pick_device
from medgraft.transfer.heads import HeadSettings
from medgraft.transfer.model import TransferModel
from medgraft.transfer.source import Source, source_name
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import Predictions

__all__ = ["Question", "analyze", "analyze_cohort", "analyze_runs"]

# Probes need more images than similarities, but features of all cuts are held in memory for them.
_PROBED_PER_COMPARED: Final = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a run.

    Args:
        num_images: Most training images to compare on, drawn with the run's seed.
        source: Images the network was pretrained on, or their stored statistics, to measure the distance to.
        other: A second run of the same network on the same images, to compare with.
        is_gain_wanted: Whether networks are trained with the weights up to every stage end against random ones with
            their statistics (WT-ST), as often as there are stages.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; trainings use that of the run where it is there.
        cache: Folder of the store of decoded images; None for the machine's own.
    """

    num_images: int = 1000
    source: str | Path | None = None
    other: str | Path | None = None
    is_gain_wanted: bool = False
    device: str = "auto"
    cache: str | None = None


def analyze(run: str | Path, question: Question | None = None, *, listener: Listener | None = None) -> AnalysisResult:
    """Analyse a finished run; the test set stays shut. Writes `analysis.json` and adds figures to the run's report.

    Args:
        run: A folder of `medgraft fit`, whose data and weights are still where they were.
        question: What is asked; None asks for what needs neither another cohort nor a training.
        listener: Told how things go.

    Raises:
        RunError: It is no finished run, its data or weights are not those it was made with, or the other run is one of
            another cohort or network.
        DataError: Too few images, or features that cannot be compared.
    """
    (result,) = analyze_runs([run], question, listener=listener)
    return result


def analyze_runs(
    runs: Sequence[str | Path], question: Question | None = None, *, listener: Listener | None = None
) -> list[AnalysisResult]:
    """Analyse several runs alike, see `analyze`, and show in each report where all of them lie.

    With a source and the gain every run is a point: its distance to the source against what the pretrained weights
    brought it.

    Args:
        runs: Folders of `medgraft fit`.
        question: What is asked of each.
        listener: Told how things go.

    References:
        Matsoukas et al. What makes transfer learning work for medical images. CVPR 2022, Fig. 2.
    """
    folders, asked = [Path(run) for run in runs], question or Question()
    results = []
    for folder in folders:
        try:
            results.append(_analyzed(folder, asked, listener or Listener()))
        except MedgraftError:
            # What was said of the others stands in their reports, too.
            for done in folders[: len(results)]:
                write_report(done)
            raise
    points = tuple(
        point for folder, result in zip(folders, results, strict=True) if (point := _point(folder, result)) is not None
    )
    if len(points) > 1:
        results = [dataclasses.replace(result, points=points) for result in results]
    for folder, result in zip(folders, results, strict=True):
        write_analysis_result(result, folder)
        write_report(folder)
    return results


def _analyzed(folder: Path, question: Question, listener: Listener) -> AnalysisResult:
    """The analysis of a run, written down; its report is as it was.

    Args:
        folder: The run.
        question: What is asked.
        listener: Told how things go.
    """
    num_images = question.num_images
    config = config_of_run(folder, question.cache)
    # The run may have been made on another machine: this call's device counts. Its budget and executor are spent.
    here = {"device": question.device, "budget_minutes": None, "executor": HERE}
    refuse_early(config.model_copy(update=here), "analyze")
    engine = exact_engine(pick_device(question.device))
    plan = from_json(RunPlan, read_json(folder / "plan.json")).search
    second = second_run(folder, config, Path(question.other)) if question.other is not None else None
    with locked(folder / "run.lock"), tempfile.TemporaryDirectory(prefix="medgraft-analyze-") as temporary:
        material = material_of(config, listener)
        demand_same_split(folder, material, Path(temporary))
        context = context_of(material, engine, Path(temporary))
        far = _far(question.source, material, num_images, config.seed, listener)
        result = _transferred(plan, folder, context, num_images, listener)
        if second is not None:
            result = dataclasses.replace(result, other=_compared(folder, second, context, num_images, plan, listener))
        if far is not None:
            distance = _distance(context, far, num_images, plan.seed, listener)
            result = dataclasses.replace(result, distance=distance)
        write_analysis_result(result, folder)
        if question.is_gain_wanted:
            result = dataclasses.replace(result, gain=_gain(plan, folder, material, listener))
    write_analysis_result(result, folder)
    return result


def _transferred(
    plan: SearchPlan, folder: Path, context: TrialContext, num_images: int, listener: Listener
) -> AnalysisResult:
    """What transfer did to the features of every cut: of the network before, after, and with random weights.

    Args:
        plan: The run's plan.
        folder: The run's folder.
        context: Network and images.
        num_images: Training images to compare on, at most.
        listener: Told how things go.
    """
    source, cuts, study, engine = context.source, context.source.cuts, context.study, context.engine
    before, random = _untrained(source, plan.seed)
    after = load_artefact(folder / "baseline").network
    rows = _drawn(study.train, num_images, plan.seed)
    listener.say(f"Comparing {len(cuts)} cuts before and after transfer on {len(rows)} images.")
    tuned = similarity(before, after, cuts, study.train, rows, engine, listener)
    chance = similarity(before, random, cuts, study.train, rows, engine, listener)
    sample = study.sample(_PROBED_PER_COMPARED * num_images, plan.seed)
    worth, _ = worth_of_cuts(before, cuts, sample, engine, plan.seed, listener)
    worth_after, probes = worth_of_cuts(after, cuts, sample, engine, plan.seed, listener)
    changed = changes(before, after, source, study, engine, listener)
    return AnalysisResult(
        num_images=len(rows),
        num_probed=len(sample.train),
        cuts=tuple(map(cut_facts, cuts)),
        after=tuned.cuts,
        random=chance.cuts,
        cka_before_after=tuned.across,
        cka_after=tuned.within,
        worth=worth,
        worth_after=worth_after,
        decision=_decision(plan, folder, source, probes),
        weights=changed.weights,
        importance=changed.importance,
    )


def analyze_cohort(
    config: RunConfig,
    out: str | Path,
    *,
    num_images: int = 1000,
    source: str | Path | None = None,
    listener: Listener | None = None,
) -> AnalysisResult:
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
    folder, listener = Path(out), listener or Listener()
    config = as_begun(folder, config)
    refuse_early(config, "analyze")
    engine = exact_engine(pick_device(config.device))
    with open_run(folder, config), tempfile.TemporaryDirectory(prefix="medgraft-analyze-") as temporary:
        material = material_of(config, listener)
        config = begin(folder, config, material)
        context = context_of(material, engine, Path(temporary))
        far = _far(source, material, num_images, config.seed, listener)
        result = _untouched(config.seed, context, num_images, listener)
        result = dataclasses.replace(
            result, network=material.source.backbone.spec.name, data=Path(config.data.source).name
        )
        if far is not None:
            distance = _distance(context, far, num_images, config.seed, listener)
            result = dataclasses.replace(result, distance=distance)
        _write_statistics(folder / "statistics.npz", context, num_images, config.seed)
    write_analysis_result(result, folder)
    write_analysis(folder)
    return result


def _untouched(seed: int, context: TrialContext, num_images: int, listener: Listener) -> AnalysisResult:
    """The pretrained network beside one with random weights.

    Args:
        seed: Draws images and random weights.
        context: Network and images.
        num_images: Training images to compare on, at most.
        listener: Told how things go.
    """
    cuts, study, engine = context.source.cuts, context.study, context.engine
    before, random = _untrained(context.source, seed)
    rows = _drawn(study.train, num_images, seed)
    listener.say(f"Comparing {len(cuts)} cuts of the pretrained network with random weights on {len(rows)} images.")
    chance = similarity(random, before, cuts, study.train, rows, engine, listener)
    sample = study.sample(_PROBED_PER_COMPARED * num_images, seed)
    worth, _ = worth_of_cuts(before, cuts, sample, engine, seed, listener)
    worth_random, _ = worth_of_cuts(random, cuts, sample, engine, seed, listener)
    return AnalysisResult(
        num_images=len(rows),
        num_probed=len(sample.train),
        cuts=tuple(map(cut_facts, cuts)),
        random=chance.cuts,
        cka_before=chance.within,
        worth=worth,
        worth_random=worth_random,
    )


def _point(run: Path, result: AnalysisResult) -> RunPoint | None:
    if result.distance is None or not result.gain:
        return None
    last = result.cuts[-1].index
    fid = result.distance.cuts[last].fid
    gain = next(row.gain for row in result.gain if row.depth == last)
    return RunPoint(run=run.name, fid=fid.value, ci95=fid.ci95, gain=gain)


def _compared(
    folder: Path,
    second: tuple[str, LoadedModel],
    context: TrialContext,
    num_images: int,
    plan: SearchPlan,
    listener: Listener,
) -> OtherRun:
    """The fully fine-tuned networks of two runs beside one another.

    Args:
        folder: The run's folder.
        second: Name and fully fine-tuned network of the other run.
        context: Network and images.
        num_images: Training images to compare on, at most.
        plan: Tells the seed that draws them.
        listener: Told how things go.
    """
    name, loaded = second
    listener.say(f"Comparing the fine-tuned network with that of {name}.")
    train = context.study.train
    rows = _drawn(train, num_images, plan.seed)
    after = load_artefact(folder / "baseline").network
    apart = similarity(after, loaded.network, context.source.cuts, train, rows, context.engine, listener)
    return OtherRun(run=name, cuts=apart.cuts, cka=apart.across)


def _untrained(source: Source, seed: int) -> tuple[TransferModel, TransferModel]:
    """The network with its pretrained and with random weights."""
    head = HeadSettings(num_outputs=1)
    before, random = (
        apply_strategy(name, source, source.cuts[-1], head, lr=1.0, seed=seed)[0] for name in ("ftl", "scratch")
    )
    return before, random


def _drawn(data: ImageSet, num_images: int, seed: int) -> np.ndarray:
    """Rows of a sample of images, rising.

    Args:
        data: The images.
        num_images: How many to draw, at most.
        seed: Draws them.
    """
    return np.sort(np.random.default_rng(seed).permutation(len(data))[:num_images])


def _decision(plan: SearchPlan, folder: Path, source: Source, probes: Mapping[int, Predictions]) -> CutDecision:
    """Where probes on fine-tuned features would cut, beside what the search of the run found.

    Args:
        plan: The run's plan.
        folder: The run's folder.
        source: The network with its cuts.
        probes: Cut index to the validation predictions of its probe.
    """
    choice = choose_probe(plan, source.cuts, probes)
    scores = {candidate.cut: candidate.score for candidate in choice.candidates}
    searched: Choice = from_json(Choice, read_json(folder / "choice.json"))
    trained = {candidate.cut: candidate.score for candidate in searched.candidates}
    return CutDecision(
        cut=cut_facts(source.depth(choice.chosen)),
        rule=choice.rule,
        # Depths of other strategies mean something else; their scores say nothing about a cut here.
        is_truncated=plan.strategy in ("ttl", "ftl"),
        probe=scores[choice.chosen],
        best=choice.best,
        best_probe=scores[choice.best],
        chosen=read_result(folder).chosen.cut.index,
        trained=trained.get(choice.chosen),
        best_trained=max(trained.values()),
        num_trained=len(trained),
    )


def _far(
    source: str | Path | None, material: Material, num_images: int, seed: int, listener: Listener
) -> tuple[str, ImageSet | dict[int, FeatureStatistics]] | None:
    """The source by name, read before anything is computed: what cannot be read is told at once.

    Args:
        source: Images of the pretraining, or their stored statistics; None where none were given.
        material: Tells the network, and how images are prepared.
        num_images: Images to read, at most.
        seed: Draws them.
        listener: Told how things go.
    """
    if source is None:
        return None
    network, preprocessing = source_name(material.source), material.dataset.preprocessing
    return Path(source).name, read_source(Path(source), preprocessing, network, num_images, seed, listener)


def _distance(
    context: TrialContext,
    far: tuple[str, ImageSet | dict[int, FeatureStatistics]],
    num_images: int,
    seed: int,
    listener: Listener,
) -> SourceDistance:
    """The distance from the source to the training images, in pretrained features at the ends of the stages.

    Args:
        context: Network and images.
        far: Name of the source, with its images or the statistics of their features.
        num_images: Training images to compare on, at most.
        seed: Draws them.
        listener: Told how things go.
    """
    name, other = far
    before, _ = _untrained(context.source, seed)
    ends = tuple(stage_ends(context.source.cuts))
    train = context.study.sample(num_images, seed).train
    return SourceDistance(source=name, cuts=distances(before, ends, train, other, context.engine, listener))


def _gain(plan: SearchPlan, folder: Path, material: Material, listener: Listener) -> tuple[DepthGain, ...]:
    """What pretrained weights bring by depth, on the engine of the run where it is here.

    Args:
        plan: What the run trained.
        folder: The run.
        material: Its images and network.
        listener: Told how things go.
    """
    engine = kept_engine(folder / "engine.json")
    if engine.device.partition(":")[0] != "cpu" and not _has_device(engine.device):
        listener.say(
            f"The run was trained on {engine.device}, which is not here: the trainings run on the CPU in float32."
        )
        engine = Engine(device="cpu")
    # The weights may lie elsewhere than when the run was made; that they are the same was checked.
    recipe = dataclasses.replace(plan.recipe, source=material.source.spec)
    return gain_by_depth(recipe, plan.seed, context_of(material, engine, folder), listener)


def _has_device(device: str) -> bool:
    try:
        pick_device(device)
    except ConfigError:
        return False
    return True


def _write_statistics(path: Path, context: TrialContext, num_images: int, seed: int) -> None:
    """Write mean and covariance of the pretrained features at every cut.

    Args:
        path: The file.
        context: Network and images.
        num_images: A fifth of the training images that are used, at most.
        seed: Draws them.
    """
    before, _ = _untrained(context.source, seed)
    train = context.study.sample(_PROBED_PER_COMPARED * num_images, seed).train
    features = features_at_cuts(before, context.source.cuts, train, context.engine)
    write_statistics(
        path, {index: statistics_of(rows) for index, rows in features.items()}, source_name(context.source)
    )
