"""All strategies under one protocol: tuned alike on validation, repeated over seeds, tested together once."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from medgraft.config import CompareConfig, RunConfig
from medgraft.data.labels import rarest_class
from medgraft.data.split import train_fractions, write_splits
from medgraft.data.unknown import retaught
from medgraft.errors import BackboneError, ConfigError
from medgraft.evaluate.comparison import difference_over_seeds, holm, interval_over_seeds
from medgraft.evaluate.efficiency import latency_ms
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.verdict import verdict
from medgraft.files import read_json, write_json, write_table
from medgraft.judge.plan import JudgePlan
from medgraft.judge.test import count_openings, judged_by_trial
from medgraft.listener import Listener
from medgraft.metrics.measures import measure_of, measured
from medgraft.report.comparison_page import write_comparison
from medgraft.run.advising import advice_from
from medgraft.run.folder import demand_same_data, log_event, open_run, run_id_of
from medgraft.run.prepare import Prepared, digest_of, prepared
from medgraft.run.refusals import refuse_early
from medgraft.run.trials import engine_for, second_cut, trial_context, trial_spec, usual_depth
from medgraft.search.fair import FairChoice, depths_to_try, fair_search
from medgraft.search.trial import (
    Trial,
    TrialContext,
    TrialSpec,
    forget_weights,
    is_finished,
    load_trial_model,
    run_trial,
)
from medgraft.search.two_stage import stage_ends
from medgraft.train.engine import Engine
from medgraft.transfer.heads import CLASSICAL
from medgraft.transfer.plan import plan_line
from medgraft.transfer.source import Source
from medgraft.transfer.strategies import STRATEGIES, apply_strategy
from medgraft.types import Cohort, Cut, Judged, TransferPlan, to_json
from medgraft.version import installed_versions

__all__ = ["compare"]

SCHEMA: Final = 1
BASELINE: Final = "ftl"
# Full fine-tuning of the part that is pretrained, where the weights lack the network's tail.
SECOND: Final = "ftl-pretrained"
_MIN_GROUPS: Final = 2
_RANKING: Final = ("auroc", "auprc")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entry:
    """One strategy at one fraction: what validation chose, and its trainings, one per seed."""

    name: str
    strategy: str
    fraction: float
    choice: FairChoice
    trials: tuple[Trial, ...]
    tuning: tuple[Trial, ...]
    context: TrialContext
    found: Prepared
    uncertain: str = ""


def compare(
    config: RunConfig, out: str | Path, *, listener: Listener | None = None, command: str | None = None
) -> dict[str, Any]:
    """Compare strategies into the folder `out` and return what stands in its `comparison.json`.

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
    told = listener or Listener()
    refuse_early(config, "compare")
    names = _wanted(config)
    with open_run(folder, config):
        if (folder / "comparison.json").is_file() and (folder / "comparison.html").is_file():
            told.say(f"{folder} holds the finished comparison.")
            finished: dict[str, Any] = read_json(folder / "comparison.json")
            return finished
        found = prepared(config, told)
        demand_same_data(folder, digest_of(found))
        write_splits(found.cohort, found.groups, folder / "splits.csv")
        # What cannot be done is said before anything is trained.
        fractions = (config.compare or CompareConfig()).fractions
        cohorts = dict(zip(fractions, train_fractions(found.cohort, found.groups, fractions, config.seed), strict=True))
        for policy in (config.compare or CompareConfig()).uncertain:
            retaught(found.cohort, policy, config.seed)
        names, left_out = _fitting(config, found, names, told)
        _check_classes(cohorts, found, names)
        engine = engine_for(config, folder, found, told)
        advice = advice_from(config, found, trial_context(folder, found, engine), told)
        entries = _trained(config, folder, found, cohorts, engine, names, told)
        results = _tested(config, folder, found, entries, told)
        results = {
            **_facts(config, found, command),
            **results,
            "left_out": left_out,
            "advice": {**advice, "outcome": _outcome(advice, results["rows"])},
        }
        write_json(folder / "comparison.json", results)
        write_table(_table(results["rows"]), folder / "comparison.csv")
        write_comparison(folder)
        for entry in entries:
            for trial in (*entry.trials, *entry.tuning):
                forget_weights(trial)
        log_event(folder, "done")
        return results


def _wanted(config: RunConfig) -> list[str]:
    names = config.compare.strategies if config.compare is not None else ("all",)
    # Full fine-tuning is what everything is measured against.
    return list(STRATEGIES) if names == ("all",) else list(dict.fromkeys([BASELINE, *names]))


def _fitting(config: RunConfig, found: Prepared, names: list[str], told: Listener) -> tuple[list[str], dict[str, str]]:
    """The strategies that this network can do, and why not the others; one asked for by name must be possible."""
    is_all = config.compare is not None and config.compare.strategies == ("all",)
    fitting, left_out = [], {}
    truth = found.cohort.training_targets[found.cohort.rows("train")]
    for name in names:
        depth = _depths(found.source, name, 1)[0]
        spec = trial_spec(config, found, name, depth, config.seed)
        try:
            if spec.head.kind in CLASSICAL and truth.ndim == 2 and np.isnan(truth).any():
                raise ConfigError(f"expected every training label to be known for --head {spec.head.kind}.")
            apply_strategy(name, found.source, depth, spec.head, lr=spec.lr, seed=spec.seed, settings=spec.settings)
        except (BackboneError, ConfigError) as error:
            if not is_all:
                raise
            left_out[name] = str(error)
            told.say(f"{name} is left out: {error}")
            continue
        fitting.append(name)
    return fitting, left_out


def _check_classes(cohorts: dict[float, Cohort], found: Prepared, names: Sequence[str]) -> None:
    """Solved heads choose their penalty by cross-validation, which needs every class in two groups."""
    solved = [name for name in names if STRATEGIES[name].fitting == "features"]
    if not solved:
        return
    for fraction, cohort in cohorts.items():
        rows = cohort.rows("train")
        rare, fewest = rarest_class(cohort.task, cohort.targets[rows], len(cohort.classes), found.groups[rows])
        if fewest < _MIN_GROUPS:
            raise ConfigError(
                f"expected at least {_MIN_GROUPS} training groups of {cohort.classes[rare]} at fraction {fraction:g} "
                f"for {' and '.join(solved)}, got {fewest}. Use a larger fraction, or leave them out."
            )


def _depths(source: Source, name: str, num: int) -> list[Cut]:
    """At most `num` depths to try for a strategy, the most promising first; one where it has none."""
    usual = usual_depth(source, name)
    if not STRATEGIES[name].has_depth:
        return [usual]
    if name in ("frozen", "hybrid"):
        return depths_to_try(source.cuts, usual, num)
    # At the last cut ttl, tf and wtst are full fine-tuning, which is compared anyway, and lwft is a probe.
    below = source.cuts[:-1] or source.cuts
    start = usual if name == "gradual" else max(stage_ends(below), key=lambda cut: cut.index)
    return depths_to_try(below, start, num)


class _Counter:
    """Trainings done and to do, and the time they need."""

    def __init__(self, total: int, told: Listener) -> None:
        self.total, self.done, self.told = total, 0, told
        self.seconds: list[float] = []

    def run(self, spec: TrialSpec, context: TrialContext, label: str) -> Trial:
        place = f"training {self.done + 1} of {self.total}: {label}{self._left()}"
        was_there, start = is_finished(spec, context), time.perf_counter()
        result = run_trial(
            spec,
            context,
            lambda done, epochs: self.told.step(place, done, epochs),
            lambda plan: self._say_plan(plan, label),
        )
        self.done += 1
        if not was_there:
            self.seconds.append(time.perf_counter() - start)
        self.told.say(
            f"  {self.done:>4}/{self.total} {label:<44} val AUPRC {result.score:.4f}  "
            f"{result.num_params / 1e6:6.2f} M  {result.seconds:5.0f} s"
        )
        return result

    def _say_plan(self, plan: TransferPlan, label: str) -> None:
        self.told.say(f"  plan of {label}: {plan_line(plan)}")

    def _left(self) -> str:
        """From the trainings of this process: what was read back says nothing about time."""
        if not self.seconds:
            return ""
        each = sum(self.seconds) / len(self.seconds)
        return f", about {each * (self.total - self.done) / 60:.0f} min left"


def _trained(
    config: RunConfig,
    folder: Path,
    found: Prepared,
    cohorts: dict[float, Cohort],
    engine: Engine,
    names: Sequence[str],
    told: Listener,
) -> list[_Entry]:
    settings = config.compare or CompareConfig()
    second = second_cut(config, found)
    policies = settings.uncertain or ("",)
    num_entries = (len(names) * len(policies) + bool(second)) * len(cohorts)
    counter = _Counter(num_entries * (settings.trials + config.seeds - 1), told)
    entries = []
    for fraction, cohort in cohorts.items():
        told.say(cohort.notes[-1])
        for number, policy in enumerate(policies):
            taught = retaught(cohort, policy, config.seed) if policy else cohort
            part = dataclasses.replace(found, cohort=taught)
            place = folder if fraction == 1 else folder / f"fraction_{fraction:g}"
            place = place / f"uncertain_{number}" if number else place
            place.mkdir(exist_ok=True, parents=True)
            context = trial_context(place, part, engine)
            for name in names:
                entry = _entry(config, part, context, name, fraction, counter)
                # The first policy is the one all others are compared with.
                label = f"{entry.name} ({policy})" if number else entry.name
                entries.append(dataclasses.replace(entry, name=label, uncertain=policy))
                log_event(folder, "strategy", strategy=label, fraction=fraction)
            if second is not None and number == 0:
                entries.append(_entry(config, part, context, "ttl", fraction, counter, fixed=second))
    return entries


def _entry(
    config: RunConfig,
    found: Prepared,
    context: TrialContext,
    name: str,
    fraction: float,
    counter: _Counter,
    *,
    fixed: Cut | None = None,
) -> _Entry:
    """Tune one strategy and repeat its choice; `fixed` makes it full fine-tuning of the pretrained part alone."""
    settings = config.compare or CompareConfig()
    strategy, source = STRATEGIES[name], found.source
    depths = [fixed] if fixed else _depths(source, name, settings.trials)
    usual = trial_spec(config, found, name, depths[0], config.seed)
    has_lr = not usual.is_solved
    tuning: list[Trial] = []

    def trained(depth: Cut, lr: float, seed: int) -> Trial:
        spec = dataclasses.replace(trial_spec(config, found, name, depth, seed), lr=lr)
        place = f" at {depth.index} {depth.name if depth.index else ''}".rstrip() if strategy.has_depth else ""
        label = f"{name}{place}{f' lr {lr:.1e}' if has_lr else ''} seed {seed}"
        if fraction != 1:
            label = f"{fraction:g} {label}"
        return counter.run(spec, context, label)

    def score(depth: Cut, lr: float) -> float:
        tuning.append(trained(depth, lr, config.seed))
        return tuning[-1].score

    choice = fair_search(depths, usual.lr, settings.trials, score, has_lr=has_lr)
    counter.total -= settings.trials - len(tuning)
    first = next(t for t in tuning if t.cut.index == choice.depth.index and t.spec.lr == choice.lr)
    others = [trained(choice.depth, choice.lr, config.seed + number) for number in range(1, config.seeds)]
    second = second_cut(config, found)
    for trial in tuning:
        # A trial at the last pretrained cut is one of the second baseline's, too.
        if trial is not first and (second is None or trial.cut.index != second.index):
            forget_weights(trial)
    return _Entry(
        name=SECOND if fixed else name, strategy=name, fraction=fraction, choice=choice, trials=(first, *others),
        tuning=tuple(tuning), context=context, found=found,
    )  # fmt: skip


def _tested(config: RunConfig, folder: Path, found: Prepared, entries: list[_Entry], told: Listener) -> dict[str, Any]:
    rows = found.cohort.case_rows("test")
    plan = JudgePlan(margin=config.evaluate.margin, replicates=config.evaluate.replicates, seed=config.seed)
    openings = count_openings(found.study, run_id_of(folder), folder)
    told.say(
        f"Opening the test set ({len(rows)} {found.cohort.case_noun}) for all; on this machine this is time {openings}."
    )
    predictions = [[judged_by_trial(plan, t, e.found.study, e.context, "test") for t in e.trials] for e in entries]

    weights = bootstrap_weights(predictions[0][0], config.evaluate.replicates, config.seed)
    times = _latencies(entries, found)
    table = [
        _row(config, entry, preds, weights, times[_place(entry)])
        for entry, preds in zip(entries, predictions, strict=True)
    ]
    _judge(config, table, predictions, weights)
    return {
        "rows": table,
        "ledger": {"openings": openings},
        "num_test": len(rows),
        "noun": found.cohort.noun,
        "case_noun": found.cohort.case_noun,
        "num_test_groups": len(np.unique(found.groups[rows])),
    }


def _latencies(entries: list[_Entry], found: Prepared) -> dict[str, dict[str, float]]:
    """By `_place` of strategy and fraction, taking turns: milliseconds on the CPU and, where there is one, the GPU."""
    models = {_place(entry): load_trial_model(entry.trials[0], entry.context)[0] for entry in entries}
    settings = found.preprocessing
    example = torch.rand(1, settings.channels, *settings.sides)
    times = {name: {"cpu_ms": value} for name, value in latency_ms(models, example).items()}
    device = entries[0].context.engine.device
    if device.startswith("cuda"):
        for name, value in latency_ms(models, example, device=device).items():
            times[name]["gpu_ms"] = value
    return times


def _place(entry: _Entry) -> str:
    return f"{entry.name} at {entry.fraction:g}"


def _row(
    config: RunConfig, entry: _Entry, preds: list[Judged], weights: np.ndarray, times: dict[str, float]
) -> dict[str, Any]:
    first = entry.trials[0]
    metrics: dict[str, dict[str, Any]] = {}
    for name in measure_of(preds[0]).metrics(preds[0]):
        values = [measured(pred, name) for pred in preds]
        metrics[name] = {
            "mean": float(np.mean(values)),
            "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        }
    for name in _RANKING:
        metrics[name]["ci95"] = list(interval_over_seeds(preds, name, weights, config.seed))
    return {
        "strategy": entry.name,
        "fraction": entry.fraction,
        "uncertain": entry.uncertain,
        "num_train": len(entry.context.train),
        "cut": {"index": entry.choice.depth.index, "name": entry.choice.depth.name}
        if STRATEGIES[entry.strategy].has_depth
        else None,
        "head": first.spec.head.kind,
        "lr": entry.choice.lr if first.history else None,
        "tried": [list(one) for one in entry.choice.tried],
        "val_auprc": {"mean": float(np.mean([t.score for t in entry.trials]))},
        "test": metrics,
        "num_params": first.num_params,
        "macs": first.macs,
        **times,
        "train_seconds": float(np.mean([trial.seconds for trial in entry.trials])),
        "train_macs": float(np.mean([trial.train_macs for trial in entry.trials])),
        "tuning_macs": float(sum(trial.train_macs for trial in entry.tuning)),
    }


def _judge(
    config: RunConfig, table: list[dict[str, Any]], predictions: list[list[Judged]], weights: np.ndarray
) -> None:
    """Differences to full fine-tuning with the same images, and Holm's adjustment over all of one fraction.

    Where the weights lack the tail of the network, full fine-tuning trains that tail from random weights, which
    flatters truncation; so every strategy is compared with full fine-tuning of the pretrained part, too.
    """
    for fraction in sorted({row["fraction"] for row in table}):
        at = [i for i, row in enumerate(table) if row["fraction"] == fraction]
        base = next(i for i in at if table[i]["strategy"] == BASELINE)
        asked = [i for i in at if i != base]
        family = [i for i in asked if table[i]["strategy"] != SECOND]
        for i in at:
            table[i]["cost_in_ftl"] = table[i]["train_macs"] / table[base]["train_macs"]
            table[i]["seconds_in_ftl"] = table[i]["train_seconds"] / table[base]["train_seconds"]
        for metric in _RANKING:
            gaps = [
                difference_over_seeds(predictions[i], predictions[base], metric, weights, config.seed) for i in asked
            ]
            by_row = dict(zip(asked, gaps, strict=True))
            adjusted = dict(zip(family, holm([by_row[i].p for i in family]), strict=True)) if family else {}
            for i, gap in by_row.items():
                table[i].setdefault("difference", {})[metric] = {**to_json(gap), "p_holm": adjusted.get(i)}
                if metric == "auroc":
                    table[i]["verdict"] = verdict(gap, config.evaluate.margin)
        second = next((i for i in at if table[i]["strategy"] == SECOND), None)
        if second is None:
            continue
        for i in set(at) - {base, second}:
            gap = difference_over_seeds(predictions[i], predictions[second], "auroc", weights, config.seed)
            table[i]["second_difference"] = to_json(gap)


def _outcome(advice: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Where the strategy that was advised first ended among all, by test AUROC at the largest fraction."""
    largest = max(row["fraction"] for row in rows)
    judged = [row for row in rows if row["fraction"] == largest and row["strategy"] != SECOND]
    ranked = sorted(judged, key=lambda r: -r["test"]["auroc"]["mean"])
    names = [row["strategy"] for row in ranked]
    first = advice["advice"][0]["strategy"]
    if first not in names:
        return None
    rank = names.index(first)
    behind = ranked[0]["test"]["auroc"]["mean"] - ranked[rank]["test"]["auroc"]["mean"]
    return {
        "strategy": first,
        "rank": rank + 1,
        "of": len(names),
        "behind_best": behind,
        "advised_cut": (advice["advice"][0]["cut"] or {}).get("index"),
        "chosen_cut": (ranked[rank]["cut"] or {}).get("index"),
    }


def _facts(config: RunConfig, found: Prepared, command: str | None) -> dict[str, Any]:
    report = found.source.backbone.report
    return {
        "schema": SCHEMA,
        "task": found.cohort.task,
        "classes": list(found.cohort.classes),
        "positive": found.cohort.positive,
        "backbone": found.source.backbone.spec.name,
        "weights": {"source": report.source, "sha256": report.sha256, "matched_fraction": report.matched_fraction},
        "sides": list(found.preprocessing.sides),
        "seeds": list(range(config.seed, config.seed + config.seeds)),
        "trials": config.compare.trials if config.compare else 0,
        "epochs": config.train.epochs,
        "margin": config.evaluate.margin,
        "notes": list(found.cohort.notes),
        "versions": installed_versions(),
        "command": command or "",
    }


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    flat = []
    for row in rows:
        gap = row.get("difference", {}).get("auroc", {})
        flat.append(
            {
                "strategy": row["strategy"], "fraction": row["fraction"],
                "cut": row["cut"]["index"] if row["cut"] else None, "lr": row["lr"],
                **{f"{m}_{k}": row["test"][m][k] for m in _RANKING for k in ("mean", "sd")},
                **{f"{m}_{end}": row["test"][m]["ci95"][i] for m in _RANKING for i, end in enumerate(("low", "high"))},
                "difference": gap.get("value"), "p_holm": gap.get("p_holm"), "verdict": row.get("verdict"),
                "num_params": row["num_params"], "macs": row["macs"], "cpu_ms": row["cpu_ms"],
                "cost_in_ftl": row["cost_in_ftl"], "seconds_in_ftl": row["seconds_in_ftl"],
            }
        )  # fmt: skip
    return pd.DataFrame(flat)
