"""What a search costs besides training: start-up and bookkeeping, as a share of its training time.

    python benchmarks/search_overhead.py --out search_overhead.json

A cohort (by default the built-in phantom) is prepared, the engine is chosen, and then `search_cut` is timed as
a whole. The seconds that every finished trial stored are taken off:

    overhead = wall time of the search - (training + validation forwards)
    share    = overhead / training

Both sums come from the trials' histories. `share with start-up` also counts tracing the network and measuring the
engine, once per run. Passes and probes of a guided search are no training and count as overhead.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import RunConfig, make_config
from medgraft.listener import Listener
from medgraft.phantom.phantom import DEMO, write_phantom
from medgraft.prepare.cohort import open_cohort
from medgraft.prepare.network import fitted, network_for, network_of
from medgraft.run.doctor import doctor
from medgraft.search.outcome import search_cut
from medgraft.search.trainer import Trainer
from medgraft.search.trial import Trial
from medgraft.setup.plan import context_of, material_of, on_this_machine, plan_run
from medgraft.transfer.source import prepare_source


def config_of(options: argparse.Namespace, work: Path) -> RunConfig:
    source = options.data
    if source is None:
        write_phantom(work / "phantom", DEMO, 0)
        source = work / "phantom" / "cases.csv"
    return make_config(
        str(source),
        preset=options.preset,
        options={
            "data": {"cache": str(work / "decoded")},
            "backbone": {"name": options.backbone, "weights": options.weights, "size": options.size},
            "train": {"epochs": options.epochs},
            "search": {"method": options.search},
            "device": options.device,
            "offline": True,
        },
    )


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    config = config_of(options, work)
    run = work / "run"
    run.mkdir()
    listener = Listener(say=print)
    material = material_of(config, listener)
    plan = plan_run(config, material, listener)
    start = time.perf_counter()
    plan, engine = on_this_machine(config, plan, material, run, listener)
    seconds = {"measure the engine": time.perf_counter() - start, "trace": seconds_of_trace(config)}
    context = context_of(material, engine, run)
    start = time.perf_counter()
    searched = search_cut(plan.search, Trainer(context, listener))
    wall = time.perf_counter() - start
    rows = [{**row_of(trial), **seconds_of(trial)} for trial in searched.trials]
    training, validation = (sum(row[name] for row in rows) for name in ("training", "validation"))
    overhead = wall - training - validation
    return {
        "share": overhead / training,
        "share_with_start_up": (overhead + sum(seconds.values())) / training,
        "seconds": {"wall": wall, "training": training, "validation": validation, "overhead": overhead, **seconds},
        "trials": rows,
        "images": {"train": len(context.study.train), "val": len(context.study.val)},
        "config": config.model_dump(mode="json"),
        "environment": {check.name: check.message for check in doctor().checks},
    }


def seconds_of_trace(config: RunConfig) -> float:
    """Of building and tracing the network, apart from the images, which are read once for any purpose."""
    cohort = open_cohort(config.data, Listener())
    start = time.perf_counter()
    network = network_of(
        config.backbone, network_for(config.backbone, cohort.dims), seed=config.seed, is_offline=config.offline
    )
    prepare_source(*fitted(network, cohort, config.backbone.lift))
    return time.perf_counter() - start


def row_of(trial: Trial) -> dict[str, Any]:
    return {"cut": trial.cut.index, "name": trial.cut.name, "epochs": len(trial.history), "params": trial.num_params}


def seconds_of(trial: Trial) -> dict[str, float]:
    """Training and validation forwards of one trial, from its history."""
    validation = sum(row.val_seconds for row in trial.history)
    return {"training": sum(row.seconds for row in trial.history) - validation, "validation": validation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="any cohort that `medgraft fit` reads; default: the phantom")
    parser.add_argument("--backbone", default=PACKAGED_NAME)
    parser.add_argument("--weights", default="packaged", help="packaged, none or a file")
    parser.add_argument("--size", type=int, help="side of the input, px; default: the network's own")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--search", default="auto", help="as of `medgraft fit`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("search_overhead.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medgraft-overhead-") as work:
        found = measure(options, Path(work))
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    seconds = found["seconds"]
    print("| trials | training | validation | overhead | share | share with start-up |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {len(found['trials'])} | {seconds['training']:.1f} s | {seconds['validation']:.1f} s "
        f"| {seconds['overhead']:.1f} s | {found['share']:.1%} | {found['share_with_start_up']:.1%} |"
    )


if __name__ == "__main__":
    main()
