"""How far each search for a cut stays behind the best cut, and what it costs.

    python benchmarks/search_regret.py --shared ../shared --out runs/regret [--pairs busi-mobilenet …]

Every cut of every pair is trained with every seed: that is the truth. Interrupted, the same call goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import RunConfig, make_config
from medgraft.data.phantom import DEMO, write_phantom
from medgraft.run.judging import count_opening
from medgraft.run.prepare import Listener, Prepared, image_set, prepared
from medgraft.run.trials import engine_for, trial_context, trial_spec
from medgraft.search.trial import Trial, TrialContext, load_trial_model, run_trial
from medgraft.train.loop import predict_probs

EXAMPLES: Final = Path(__file__).parents[1] / "examples"

# Data, network, weights (relative to --shared) and settings of each pair.
PAIRS: Final[dict[str, dict[str, Any]]] = {
    "pneumoniamnist-resnet20": {
        "data": "data/pneumoniamnist.npz",
        "backbone": {"name": f"{EXAMPLES}/cifar_resnet.py:resnet20", "weights": "weights/cifar10_resnet20.th"},
        "train": {"epochs": 5},
    },
    "pneumoniamnist-resnet56": {
        "data": "data/pneumoniamnist.npz",
        "backbone": {"name": f"{EXAMPLES}/cifar_resnet.py:resnet56", "weights": "weights/cifar10_resnet56.th"},
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


def opened(pair: str, options: argparse.Namespace) -> tuple[RunConfig, Prepared, TrialContext]:
    """The pair's cohort and what its trials share; its test set is opened, once for the whole benchmark."""
    place = options.out / pair
    place.mkdir(parents=True, exist_ok=True)
    config = config_of(pair, options.shared, options.out)
    told = Listener(say=say)
    found = prepared(config, place, told)
    context = trial_context(place, found, engine_for(config, place, found, told))
    say(f"{pair}: test set of {len(found.cohort.rows('test'))} images, opening {count_opening(place, found, pair)}.")
    return config, found, context


def trained(config: RunConfig, found: Prepared, context: TrialContext, cut: int, seed: int) -> Trial:
    """The trial of one cut and seed, trained where it is missing; its test predictions lie beside it."""
    depth = found.source.depth(cut)
    strategy = "ftl" if cut == len(found.source.cuts) else "ttl"
    trial = run_trial(trial_spec(config, found, strategy, depth, seed), context)
    place = trial.folder / "test_probs.npy"
    if not place.exists():
        model, _ = load_trial_model(trial, context)
        np.save(place, predict_probs(model, image_set(found, "test"), context.engine))
    say(
        f"  {strategy} at cut {cut}, seed {seed}: val AUPRC {trial.val_auprc:.4f}, {trial.seconds:.0f} s, "
        f"best epoch {trial.best_epoch}"
    )
    return trial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for pair in options.pairs:
        config, found, context = opened(pair, options)
        for seed in range(options.seeds):
            for cut in reversed(found.source.cuts):
                trained(config, found, context, cut.index, seed)
        say(json.dumps({"pair": pair, "cuts": len(found.source.cuts), "seeds": options.seeds}))


if __name__ == "__main__":
    main()
