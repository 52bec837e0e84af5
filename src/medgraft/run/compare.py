"""All strategies under one protocol: tuned alike on validation, repeated over seeds, tested together once."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from medgraft.config import CompareConfig, RunConfig
from medgraft.data.cohort.labels import rarest_class
from medgraft.data.cohort.unknown import retaught
from medgraft.data.split import train_fractions, write_splits
from medgraft.errors import BackboneError, ConfigError
from medgraft.files import write_table
from medgraft.judge.strategies import BASELINE, RANKING, SECOND, TunedStrategy, judge_strategies
from medgraft.judge.test import count_openings
from medgraft.listener import Listener
from medgraft.prepare.material import Material, digest_of
from medgraft.report.comparison_page import write_comparison
from medgraft.result.advice import Advice
from medgraft.result.comparison import (
    AdviceOutcome,
    ComparisonResult,
    StrategyResult,
    read_comparison,
    write_comparison_result,
)
from medgraft.result.run import Ledger
from medgraft.run.advise import advice_from
from medgraft.search.executor import Executor, open_executor
from medgraft.search.fair import depths_to_try, fair_search
from medgraft.search.machine import engine_for
from medgraft.search.plan import Recipe
from medgraft.search.proposals import drive
from medgraft.search.trainer import Progress, Trainer, label_of
from medgraft.search.trial import Trial, TrialContext, TrialSpec, forget_weights
from medgraft.search.two_stage import stage_ends
from medgraft.setup.folder import demand_same_data, log_event, open_run, run_id_of
from medgraft.setup.plan import context_of, judge_plan, material_of, recipe_of, second_cut, wish_of
from medgraft.setup.refusals import refuse_early
from medgraft.study.dataset import Dataset
from medgraft.train.engine import Engine
from medgraft.transfer.depths import usual_depth
from medgraft.transfer.heads import CLASSICAL
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import STRATEGIES, apply_strategy
from medgraft.types import Cohort, Cut
from medgraft.version import installed_versions

__all__ = ["compare"]

_MIN_GROUPS: Final = 2


def compare(
    config: RunConfig, out: str | Path, *, listener: Listener | None = None, command: str | None = None
) -> ComparisonResult:
    """Compare strategies into the folder `out`; the result stands in its `comparison.json`, too.

    Every strategy gets the same number of trainings over depth and learning rate, chosen on the first seed's
    validation and rerun on the other seeds; so the spread over seeds underestimates what choosing anew per seed would
    show. The test set is opened once, at the end, for all. The same call continues an interrupted comparison; a
    kill loses at most the running training.

    Args:
        config: With `compare` set.
        out: New, empty, or the folder of the same comparison.
        listener: Told how things go.
        command: As the user typed it, for the report.

    Raises:
        MedgraftError: Whatever is wrong with data, weights, options or the folder.
    """
    folder = Path(out)
    listener = listener or Listener()
    refuse_early(config, "compare")
    settings = config.compare or CompareConfig()
    with open_run(folder, config), open_executor(config.executor) as executor:
        if (folder / "comparison.json").is_file() and (folder / "comparison.html").is_file():
            listener.say(f"{folder} holds the finished comparison.")
            return read_comparison(folder)
        material = material_of(config, listener)
        dataset = material.dataset
        demand_same_data(folder, digest_of(material))
        write_splits(dataset.cohort, dataset.groups, folder / "splits.csv")
        # What cannot be done is said before anything is trained.
        parts = _parts(config, material)
        names, left_out = _possible(config, material, _wanted(settings), listener)
        _check_classes(parts, names)
        recipe = recipe_of(config, material)
        engine = engine_for(wish_of(config), recipe, material.source, dataset, folder / "engine.json", listener)
        # Advice is of what its first word is measured by: the whole of the training data, and the first policy.
        whole = _taught(material, dataset.cohort, next(iter(settings.uncertain), ""), config.seed)
        probing = Trainer(context_of(whole, engine, folder), listener, executor=executor)
        advice = advice_from(whole, recipe, probing, config.evaluate.replicates)
        entries = _trained(config, parts, names, Job(folder, engine, executor, listener))
        openings = _open_test_set(dataset, folder, listener)
        rows = judge_strategies(judge_plan(config), entries)
        result = _result(config, recipe, material, rows, advice)
        result = dataclasses.replace(result, left_out=left_out, ledger=Ledger(openings=openings), command=command or "")
        write_comparison_result(result, folder)
        write_table(_table(rows), folder / "comparison.csv")
        write_comparison(folder)
        for entry in entries:
            for trial in (*entry.trials, *entry.tuning):
                forget_weights(trial)
        log_event(folder, "done")
        return result


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Training data that strategies are compared on: a fraction of the groups, and a policy for uncertain labels."""

    fraction: float
    policy: str
    number: int
    material: Material
    notes: tuple[str, ...]

    def below(self, folder: Path) -> Path:
        """Where its trials are kept in the folder of a comparison."""
        if self.fraction != 1:
            folder = folder / f"fraction_{self.fraction:g}"
        return folder / f"uncertain_{self.number}" if self.number else folder


class Job(NamedTuple):
    """Where a comparison is computed and kept, and who is told."""

    folder: Path
    engine: Engine
    executor: Executor
    listener: Listener


def _parts(config: RunConfig, material: Material) -> list[Part]:
    """All training data, by fraction and policy; what a policy cannot do is refused here."""
    settings, dataset = config.compare or CompareConfig(), material.dataset
    cohorts = train_fractions(dataset.cohort, dataset.groups, settings.fractions, config.seed)
    return [
        Part(
            fraction=fraction,
            policy=policy,
            number=number,
            material=_taught(material, cohort, policy, config.seed),
            notes=cohort.notes_since(dataset.cohort),
        )
        for fraction, cohort in zip(settings.fractions, cohorts, strict=True)
        for number, policy in enumerate(settings.uncertain or ("",))
    ]


def _taught(material: Material, cohort: Cohort, policy: str, seed: int) -> Material:
    """`material` with another cohort, whose training is told of uncertain labels what `policy` says.

    Args:
        material: Material of the comparison.
        cohort: The cohort, or a part of it.
        policy: See `medgraft.data.cohort.unknown.parse_policy`; empty for what the cohort was read with.
        seed: Seeds what a policy draws.
    """
    taught = retaught(cohort, policy, seed) if policy else cohort
    return dataclasses.replace(material, dataset=dataclasses.replace(material.dataset, cohort=taught))


def _wanted(settings: CompareConfig) -> list[str]:
    # Full fine-tuning is what everything is measured against.
    is_all = settings.strategies == ("all",)
    return list(STRATEGIES) if is_all else list(dict.fromkeys([BASELINE, *settings.strategies]))


def _possible(
    config: RunConfig, material: Material, names: list[str], listener: Listener
) -> tuple[list[str], dict[str, str]]:
    """The strategies that this network can do, and why not the others; one asked for by name must be possible.

    Args:
        config: Settings of the comparison.
        material: Cohort and network.
        names: Strategies that are wanted.
        listener: Told what is left out.
    """
    is_all = config.compare is not None and config.compare.strategies == ("all",)
    possible, left_out = [], {}
    source, cohort, recipe = material.source, material.dataset.cohort, recipe_of(config, material)
    truth = cohort.training_targets[cohort.rows("train")]
    for name in names:
        depth = _depths(source, name, 1)[0]
        spec = recipe.spec(name, depth.index, config.seed)
        try:
            if spec.head.kind in CLASSICAL and truth.ndim == 2 and np.isnan(truth).any():
                raise ConfigError(f"expected every training label to be known for --head {spec.head.kind}.")
            apply_strategy(name, source, depth, spec.head, lr=spec.lr, seed=spec.seed, settings=spec.settings)
        except (BackboneError, ConfigError) as error:
            if not is_all:
                raise
            left_out[name] = str(error)
            listener.say(f"{name} is left out: {error}")
            continue
        possible.append(name)
    return possible, left_out


def _check_classes(parts: Sequence[Part], names: Sequence[str]) -> None:
    """Solved heads choose their penalty by cross-validation, which needs every class in two groups."""
    solved = [name for name in names if STRATEGIES[name].fitting == "features"]
    for part in parts if solved else ():
        dataset, cohort = part.material.dataset, part.material.dataset.cohort
        rows = cohort.rows("train")
        rare, fewest = rarest_class(cohort.task, cohort.targets[rows], len(cohort.classes), dataset.groups[rows])
        if fewest < _MIN_GROUPS:
            raise ConfigError(
                f"expected at least {_MIN_GROUPS} training groups of {cohort.classes[rare]} at fraction "
                f"{part.fraction:g} for {' and '.join(solved)}, got {fewest}. Use a larger fraction, or leave them out."
            )


def _depths(source: Source, name: str, num: int) -> list[Cut]:
    """At most `num` depths to try for a strategy, the most promising first; one where it has none.

    Args:
        source: The network with its cuts.
        name: A key of `medgraft.transfer.strategies.STRATEGIES`.
        num: Depths to return, at most.
    """
    usual = usual_depth(source, name)
    if not STRATEGIES[name].has_depth:
        return [usual]
    if name in ("frozen", "hybrid"):
        return depths_to_try(source.cuts, usual, num)
    # At the last cut ttl, tf and wtst are full fine-tuning, which is compared anyway, and lwft is a probe.
    below = source.cuts[:-1] or source.cuts
    start = usual if name == "gradual" else max(stage_ends(below), key=lambda cut: cut.index)
    return depths_to_try(below, start, num)


def _trained(config: RunConfig, parts: Sequence[Part], names: Sequence[str], job: Job) -> list[TunedStrategy]:
    """Every strategy, tuned and repeated on all training data.

    Args:
        config: Settings of the comparison.
        parts: All training data, by fraction and policy.
        names: Strategies to train.
        job: Where the trainings run and are kept.
    """
    settings = config.compare or CompareConfig()
    firsts = [part for part in parts if not part.number]
    second = second_cut(parts[0].material.source, recipe_of(config, parts[0].material))
    num_entries = len(names) * len(parts) + len(firsts) * (second is not None)
    progress = Progress(num_entries * (settings.trials + config.seeds - 1))
    entries = []
    for part in parts:
        recipe = recipe_of(config, part.material)
        for note in part.notes if not part.number else ():
            job.listener.say(note)
        context = context_of(part.material, job.engine, part.below(job.folder))
        prefix = "" if part.fraction == 1 else f"{part.fraction:g} "
        trainer = Trainer(
            context,
            job.listener,
            executor=job.executor,
            progress=progress,
            label=functools.partial(_label, prefix),
        )
        tune = functools.partial(_entry, config, part, recipe, trainer)
        for name in names:
            entry = tune(name)
            entries.append(entry)
            log_event(job.folder, "strategy", strategy=entry.name, fraction=part.fraction)
        if second is not None and not part.number:
            entries.append(tune("ttl", fixed=part.material.source.depth(second)))
    return entries


def _label(prefix: str, spec: TrialSpec, context: TrialContext) -> str:
    """Words for a trial of a comparison, whose learning rates differ.

    Args:
        prefix: Put first; names the fraction.
        spec: The trial's specification.
        context: The trial's context.
    """
    lr = "" if spec.is_solved else f", lr {spec.lr:.1e}"
    return f"{prefix}{label_of(spec, context)}{lr}"


def _entry(
    config: RunConfig, part: Part, recipe: Recipe, trainer: Trainer, name: str, *, fixed: Cut | None = None
) -> TunedStrategy:
    """Tune one strategy and repeat its choice; `fixed` makes it full fine-tuning of the pretrained part alone.

    Args:
        config: Settings of the comparison.
        part: The training data.
        recipe: What all trainings have in common.
        trainer: Runs the trainings.
        name: A key of `medgraft.transfer.strategies.STRATEGIES`.
        fixed: Last fully pretrained cut; None tunes the depth.
    """
    num_trials, source = (config.compare or CompareConfig()).trials, part.material.source
    depths = [fixed] if fixed else _depths(source, name, num_trials)
    has_lr = not recipe.spec(name, depths[0].index, config.seed).is_solved
    tuning: list[Trial] = []

    def scored(asked: Sequence[tuple[Cut, float]]) -> list[float]:
        specs = [recipe.spec(name, depth.index, config.seed, lr=lr) for depth, lr in asked]
        trials = trainer.run([(spec, "tuning") for spec in specs])
        tuning.extend(trials)
        return [trial.score for trial in trials]

    choice = drive(fair_search(depths, recipe.lr, num_trials, has_lr=has_lr), scored)
    if trainer.progress is not None:
        trainer.progress.total -= num_trials - len(tuning)
    first = next(t for t in tuning if t.cut.index == choice.depth.index and t.spec.lr == choice.lr)
    seeds = range(config.seed + 1, config.seed + config.seeds)
    repeats = trainer.run([(recipe.spec(name, choice.depth.index, seed, lr=choice.lr), "seed") for seed in seeds])
    second = second_cut(source, recipe)
    for trial in tuning:
        # A trial at the last pretrained cut is one of the second baseline's, too.
        if trial is not first and trial.cut.index != second:
            forget_weights(trial)
    key = SECOND if fixed else name
    return TunedStrategy(
        # The first policy is the one all others are compared with.
        name=f"{key} ({part.policy})" if part.number else key,
        key=key,
        fraction=part.fraction,
        uncertain=part.policy,
        choice=choice,
        trials=(first, *repeats),
        tuning=tuple(tuning),
        dataset=part.material.dataset,
        context=trainer.context,
    )


def _open_test_set(dataset: Dataset, folder: Path, listener: Listener) -> int:
    """How often the test set was opened on this machine, this time included.

    Args:
        dataset: The cohort.
        folder: The comparison's folder.
        listener: Told so.
    """
    openings = count_openings(dataset, run_id_of(folder), folder)
    listener.say(
        f"Opening the test set ({len(dataset.cohort.case_rows('test'))} {dataset.cohort.case_noun}) for all; on this "
        f"machine this is time {openings}."
    )
    return openings


def _outcome(advice: Advice, rows: Sequence[StrategyResult]) -> AdviceOutcome | None:
    """How right the first word of the advice was; None where that strategy was not compared."""
    largest = max(row.fraction for row in rows)
    judged = [row for row in rows if row.fraction == largest and row.key != SECOND]
    ranked = sorted(judged, key=lambda row: -row.test["auroc"].mean)
    names, first = [row.strategy for row in ranked], advice.advice[0]
    if first.strategy not in names:
        return None
    rank = names.index(first.strategy)
    chosen = ranked[rank].cut
    return AdviceOutcome(
        strategy=first.strategy,
        rank=rank + 1,
        num_strategies=len(names),
        behind_best=ranked[0].test["auroc"].mean - ranked[rank].test["auroc"].mean,
        advised_cut=first.cut.index if first.cut else None,
        chosen_cut=chosen.index if chosen else None,
    )


def _result(
    config: RunConfig, recipe: Recipe, material: Material, rows: tuple[StrategyResult, ...], advice: Advice
) -> ComparisonResult:
    """The result of a comparison; the caller fills in ledger, command and what was left out.

    Args:
        config: Settings of the comparison.
        recipe: Tells the epochs.
        material: Cohort and network.
        rows: Every strategy at every fraction.
        advice: What probes advised before.
    """
    dataset, cohort = material.dataset, material.dataset.cohort
    tested = cohort.case_rows("test")
    return ComparisonResult(
        task=cohort.task,
        classes=cohort.classes,
        positive=cohort.positive,
        backbone=material.source.backbone.spec.name,
        weights=material.source.backbone.report,
        sides=dataset.preprocessing.sides,
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        num_trials=(config.compare or CompareConfig()).trials,
        epochs=recipe.train.epochs,
        margin=config.evaluate.margin,
        rows=rows,
        ledger=Ledger(openings=1),
        num_test=len(tested),
        num_test_groups=len(np.unique(dataset.groups[tested])),
        noun=cohort.noun,
        case_noun=cohort.case_noun,
        advice=advice,
        outcome=_outcome(advice, rows),
        notes=cohort.notes,
        versions=installed_versions(),
    )


def _table(rows: Sequence[StrategyResult]) -> pd.DataFrame:
    flat = []
    for row in rows:
        gap = row.difference.get("auroc")
        ends = {metric: row.test[metric].ci95 or (None, None) for metric in RANKING}
        flat.append(
            {
                "strategy": row.strategy,
                "fraction": row.fraction,
                "cut": row.cut.index if row.cut else None,
                "lr": row.lr,
                **{f"{metric}_{key}": getattr(row.test[metric], key) for metric in RANKING for key in ("mean", "sd")},
                **{f"{m}_{end}": ends[m][i] for m in RANKING for i, end in enumerate(("low", "high"))},
                "difference": gap.value if gap else None,
                "p_holm": gap.p_holm if gap else None,
                "verdict": row.verdict,
                "num_params": row.num_params,
                "macs": row.macs,
                "cpu_ms": row.cpu_ms,
                "cost_in_ftl": row.cost_in_ftl,
                "seconds_in_ftl": row.seconds_in_ftl,
            }
        )
    return pd.DataFrame(flat)
