"""How far each search for a cut stays behind the best cut, what it costs, and what cheap signals say.

    python benchmarks/search_regret.py --shared ../shared --out runs/regret [--pairs busi-mobilenet …]

Run it in the repository's root. Every cut of every pair is trained with every seed: that is the truth, and the searches
find these trials done. Interrupted, the same call goes on, for as many sittings as it takes; pairs may be trained by
several calls at once. A pair whose truth is whole is judged and its rows are printed.

The oracle of a seed is the cut with the best mean test AUPRC over the *other* seeds. Regret is its AUPRC in that seed
minus that of the search's cut, mean over seeds, with a paired bootstrap interval over the test groups. What a search
hands back can differ from the truth's model at its cut (a warm start), so its own AUPRC stands beside. Test sets are
opened for every trial; nothing is chosen on them but the oracle.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.stats import spearmanr

from medgraft.analysis.networks import worth_of_cuts
from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import RunConfig, make_config
from medgraft.evaluate.bootstrap import paired_difference
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.judge.test import count_openings
from medgraft.listener import Listener
from medgraft.metrics.classification import auprc
from medgraft.phantom.phantom import DEMO, write_phantom
from medgraft.prepare.material import Material
from medgraft.search import (
    Searched,
    Trainer,
    Trial,
    TrialContext,
    load_trial_model,
    reuse_at_cuts,
    run_trial,
    search_cut,
)
from medgraft.setup.plan import context_of, material_of, on_this_machine, plan_run, recipe_of
from medgraft.train.outputs import predict_probs
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import Predictions

# Name in the table, method, where guided starts.
METHODS: Final = (
    ("exhaustive", "exhaustive", "source"),
    ("two-stage", "two-stage", "source"),
    ("svcca", "svcca", "source"),
    ("guided", "guided", "source"),
    ("guided from FTL", "guided", "ftl"),
)

# Data, network, weights (relative to --shared) and settings of each pair.
PAIRS: Final[dict[str, dict[str, Any]]] = {
    "pneumoniamnist-resnet20": {
        "data": "data/pneumoniamnist.npz",
        "backbone": {"name": "examples/cifar_resnet.py:resnet20", "weights": "weights/cifar10_resnet20.th"},
        "train": {"epochs": 5},
    },
    "pneumoniamnist-resnet56": {
        "data": "data/pneumoniamnist.npz",
        "backbone": {"name": "examples/cifar_resnet.py:resnet56", "weights": "weights/cifar10_resnet56.th"},
        "train": {"epochs": 5},
    },
    "busi-mobilenet": {
        "data": "data/busi",
        "backbone": {
            "name": "mobilenetv1_100",
            "args": {"pad_type": "same", "bn_eps": 1e-3},
            "weights": "weights/mobilenetv1_100_imagenet_trunk.safetensors",
            "size": 128,
        },
        "train": {"epochs": 12},
    },
    "phantom-packaged": {
        "data": None,
        "backbone": {"name": PACKAGED_NAME, "weights": "packaged"},
        "train": {"epochs": 30},
    },
}


def config_of(pair: str, shared: Path, out: Path) -> RunConfig:
    """The pair's configuration; the phantom is drawn where it is missing."""
    wanted = PAIRS[pair]
    backbone = dict(wanted["backbone"])
    if wanted["data"] is None:
        source = out / "phantom" / "cases.csv"
        if not source.exists():
            write_phantom(source.parent, DEMO, 0)
    else:
        source = shared / wanted["data"]
        backbone["weights"] = str(shared / backbone["weights"])
    return make_config(
        str(source),
        options={
            "data": {"leaks": "drop"},
            "backbone": backbone,
            "train": wanted["train"],
            "search": {"seeds": 1},
            "offline": True,
        },
    )


def say(text: str) -> None:
    print(text, flush=True)


def opened(pair: str, options: argparse.Namespace) -> tuple[RunConfig, Material, TrialContext]:
    """The pair's cohort and what its trials share; its test set is opened, once for the whole benchmark."""
    place = options.out / pair
    place.mkdir(parents=True, exist_ok=True)
    config = config_of(pair, options.shared, options.out)
    listener = Listener(say=say)
    material = material_of(config, listener)
    _, engine = on_this_machine(config, plan_run(config, material, listener), material, place, listener)
    opening = count_openings(material.dataset, pair, place)
    say(f"{pair}: test set of {len(material.dataset.cohort.rows('test'))} images, opening {opening}.")
    return config, material, context_of(material, engine, place)


def trained(config: RunConfig, material: Material, context: TrialContext, cut: int, seed: int) -> Trial:
    """The trial of one cut and seed, trained where it is missing."""
    trial = run_trial(recipe_of(config, material).spec("ttl", cut, seed), context)
    tested(trial, material, context)
    return trial


def tested(trial: Trial, material: Material, context: TrialContext) -> Predictions:
    """Test predictions of a trial; they lie beside it."""
    test = material.dataset.images("test")
    place = trial.folder / "test_probs.npy"
    if not place.exists():
        model, _ = load_trial_model(trial, context)
        np.save(place, predict_probs(model, test, context.engine))
        say(f"  cut {trial.cut.index}, seed {trial.spec.seed}: val AUPRC {trial.score:.4f}, {trial.seconds:.0f} s")
    return Predictions(
        probs=np.load(place),
        targets=test.targets,
        groups=material.dataset.groups[material.dataset.cohort.rows("test")],
        classes=context.study.classes,
        task=test.task,
        positive=test.positive,
    )


def searched(
    config: RunConfig, material: Material, context: TrialContext, seed: int, search: tuple[str, str, str]
) -> Searched:
    """What a search hands back with one seed; the split stays that of the pair."""
    method, start, rule = search
    searching = config.search.model_copy(update={"method": method, "start": start})
    transfer = config.transfer.model_copy(update={"rule": rule})
    own = config.model_copy(update={"seed": seed, "search": searching, "transfer": transfer})
    return search_cut(plan_run(own, material, Listener()).search, Trainer(context, Listener()))


def judged(
    method: str, results: list[Searched], truth: dict[tuple[int, int], Predictions], material: Material,
    context: TrialContext,
) -> dict[str, Any]:  # fmt: skip
    """A row of the table: one search over the seeds."""
    seeds, cuts = sorted({seed for _, seed in truth}), [cut.index for cut in material.source.cuts]
    oracle = [
        max(cuts, key=lambda cut: float(np.mean([auprc(truth[cut, other]) for other in seeds if other != seed])))
        for seed in seeds
    ]
    best = [truth[cut, seed] for cut, seed in zip(oracle, seeds, strict=True)]
    picks = [one.chosen.cut.index for one in results]
    weights = bootstrap_weights(best[0])
    row: dict[str, Any] = {"method": method, "picks": picks, "oracle": oracle}
    sides = {
        "pick": [truth[cut, seed] for cut, seed in zip(picks, seeds, strict=True)],
        "delivered": [tested(one.chosen, material, context) for one in results],
    }
    continued = [one.continued_seeds[0] for one in results if one.continued_seeds]
    if len(continued) == len(results):
        sides["continued"] = [tested(one, material, context) for one in continued]
    for name, predictions in sides.items():
        regret = paired_difference(best, predictions, "auprc", weights)
        row[name] = {
            "auprc": float(np.mean([auprc(one) for one in predictions])),
            "each": [round(auprc(one), 4) for one in predictions],
            "regret": regret.value,
            "ci95": list(regret.ci95),
        }
    for key in ("cost_in_ftl", "beyond_ftl"):
        row[key] = [round(getattr(one.cost, key), 3) for one in results]
    row["seconds_in_ftl"] = [round(one.cost.seconds / one.cost.baseline_seconds, 2) for one in results]
    row["val_auprc"] = [round(one.chosen.score, 4) for one in results]
    return row


def signals(config: RunConfig, material: Material, context: TrialContext, seed: int, place: Path) -> dict[str, Any]:
    """Cut by cut, what costs a forward pass or less; kept on disk."""
    path = place / f"signals-{seed}.json"
    if path.exists():
        stored: dict[str, Any] = json.loads(path.read_text())
        return stored
    cuts = material.source.cuts
    ftl = trained(config, material, context, len(cuts), seed)
    before, _ = apply_strategy("ftl", material.source, cuts[-1], ftl.spec.head, lr=1.0, seed=0)
    after, _ = load_trial_model(ftl, context)
    sample = context.sample(2000, seed)
    kept: dict[str, Any] = {"parameters": [cut.num_params for cut in cuts]}
    for name, model in (("pretrained", before), ("fine-tuned", after)):
        worth, _ = worth_of_cuts(model, cuts, sample.study, sample.engine, seed, Listener())
        for title, key in (("probe", "probe"), ("kNN", "knn"), ("LogME", "logme")):
            kept[f"{title}, {name}"] = [getattr(worth[cut.index], key) for cut in cuts]
    reuse = reuse_at_cuts(before, after, context.sample(1000, seed))
    kept["SVCCA"] = [float(reuse[cut.index].coefficients.mean()) for cut in cuts]
    path.write_text(json.dumps(kept))
    return kept


def judge(pair: str, config: RunConfig, material: Material, context: TrialContext, options: argparse.Namespace) -> None:
    """The table of a pair whose truth is whole."""
    seeds, place = range(options.seeds), options.out / pair
    cuts = [cut.index for cut in material.source.cuts]
    truth = {
        (cut, seed): tested(trained(config, material, context, cut, seed), material, context)
        for cut in cuts
        for seed in seeds
    }
    means = [float(np.mean([auprc(truth[cut, seed]) for seed in seeds])) for cut in cuts]
    rows = []
    for rule in ("compact", "best"):
        for name, method, start in METHODS:
            results = [searched(config, material, context, seed, (method, start, rule)) for seed in seeds]
            rows.append(judged(name, results, truth, material, context) | {"rule": rule})
            say_row(pair, rows[-1])
    kept = [signals(config, material, context, seed, place) for seed in seeds]
    ranks = {name: float(np.mean([spearmanr(one[name], means).statistic for one in kept])) for name in kept[0]}
    say(f"{pair}: rank correlation with the truth: " + ", ".join(f"{k} {v:+.2f}" for k, v in ranks.items()))
    spread = [float(np.std([auprc(truth[cut, seed]) for seed in seeds], ddof=1)) for cut in cuts]
    facts = {"pair": pair, "truth": means, "sd": spread, "rows": rows, "ranks": ranks}
    (options.out / f"{pair}.json").write_text(json.dumps(facts, indent=1))


def table(out: Path) -> None:
    """Markdown of all pairs that were judged."""
    found = [json.loads(path.read_text()) for pair in PAIRS if (path := out / f"{pair}.json").exists()]
    heads = ("pair", "search", "cuts picked", "at its cut: AUPRC", "regret", "handed back: AUPRC", "regret")
    for rule in ("compact", "best"):
        say(f"\nRule `{rule}`:\n")
        say_cells(*heads, "FTL trained on", "cost", "time")
        say_cells(*["---"] * (len(heads) + 3))
        for facts in found:
            for row in facts["rows"]:
                if row["rule"] == rule:
                    say_row(facts["pair"], row)
    names = list(found[0]["ranks"])
    say("")
    say_cells("rank correlation", *names)
    say_cells(*["---"] * (len(names) + 1))
    for facts in found:
        say_cells(facts["pair"], *(f"{facts['ranks'][name]:+.2f}" for name in names))
    say("")
    for facts in found:
        curve = " ".join(f"{value:.3f}" for value in facts["truth"])
        say(f"- {facts['pair']}, AUPRC from the stem up: {curve}; SD over seeds {np.mean(facts['sd']):.3f}")


def say_cells(*cells: str) -> None:
    say(f"| {' | '.join(cells)} |")


def say_row(pair: str, row: dict[str, Any]) -> None:
    """One search: picks, what they are worth, cost and time beyond full fine-tuning in units of it."""

    def shown(name: str) -> tuple[str, str]:
        one = row[name]
        return f"{one['auprc']:.3f}", f"{one['regret']:+.3f} ({one['ci95'][0]:+.3f} to {one['ci95'][1]:+.3f})"

    continued = f"{row['continued']['auprc']:.3f}" if "continued" in row else "–"
    cost, seconds = f"{np.mean(row['beyond_ftl']):.2f}", f"{np.mean(row['seconds_in_ftl']) - 1:.1f}"
    picks = " ".join(map(str, row["picks"]))
    say_cells(pair, row["method"], picks, *shown("pick"), *shown("delivered"), continued, cost, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only print the table of what was judged")
    options = parser.parse_args()
    if options.table:
        table(options.out)
    for pair in [] if options.table else options.pairs:
        config, material, context = opened(pair, options)
        for seed in range(options.seeds):
            for cut in reversed(material.source.cuts):
                trained(config, material, context, cut.index, seed)
        judge(pair, config, material, context, options)


if __name__ == "__main__":
    main()
