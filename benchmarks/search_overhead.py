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

import pandas as pd

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.config import RunConfig, make_config
from medgraft.data.phantom import DEMO, write_phantom
from medgraft.listener import Listener
from medgraft.run.doctor import doctor
from medgraft.run.prepare import fitted, network_of, open_cohort, prepared
from medgraft.run.searching import Searched, search_cut
from medgraft.run.trials import engine_for, trial_context
from medgraft.search.trial import Trial
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
    told = Listener(say=print)
    found = prepared(config, told)
    start = time.perf_counter()
    engine = engine_for(config, run, found, told)
    seconds = {"measure the engine": time.perf_counter() - start, "trace": seconds_of_trace(config)}
    context = trial_context(run, found, engine)
    start = time.perf_counter()
    searched = search_cut(config, run, found, context, told)
    wall = time.perf_counter() - start
    rows = [{**row_of(trial), **seconds_of(trial)} for trial in searched.trials]
    check_table(run / "search.csv", searched)
    training, validation = (sum(row[name] for row in rows) for name in ("training", "validation"))
    overhead = wall - training - validation
    return {
        "share": overhead / training,
        "share_with_start_up": (overhead + sum(seconds.values())) / training,
        "seconds": {"wall": wall, "training": training, "validation": validation, "overhead": overhead, **seconds},
        "trials": rows,
        "images": {"train": len(context.train), "val": len(context.val)},
        "config": config.model_dump(mode="json"),
        "environment": {check.name: check.message for check in doctor().checks},
    }


def seconds_of_trace(config: RunConfig) -> float:
    """Of building and tracing the network, apart from the images, which are read once for any purpose."""
    cohort = open_cohort(config.data, Listener())
    start = time.perf_counter()
    prepare_source(*fitted(config, network_of(config), cohort))
    return time.perf_counter() - start


def row_of(trial: Trial) -> dict[str, Any]:
    return {"cut": trial.cut.index, "name": trial.cut.name, "epochs": len(trial.history), "params": trial.num_params}


def seconds_of(trial: Trial) -> dict[str, float]:
    """Training and validation forwards of one trial, from its history."""
    validation = sum(row.val_seconds for row in trial.history)
    return {"training": sum(row.seconds for row in trial.history) - validation, "validation": validation}


def check_table(path: Path, searched: Searched) -> None:
    """The table of the run must tell the same seconds as the trials; otherwise one of them misses something."""
    table = pd.read_csv(path)
    of_trials = sum(row.seconds for trial in searched.trials for row in trial.history)
    if abs(table["seconds"].sum() - of_trials) > 0.01 * of_trials + 0.01 * len(table):
        raise SystemExit(f"expected {of_trials:.2f} s of training in {path}, got {table['seconds'].sum():.2f} s.")


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
