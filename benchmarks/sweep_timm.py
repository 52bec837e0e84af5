"""Find the cuts of every architecture of the installed timm, from structure alone, and write the table.

    python benchmarks/sweep_timm.py --out docs/timm_cuts.csv

Resumable: architectures that the table already holds are skipped. An architecture counts as found when it has
at least three cuts and every stage end of timm's own `feature_info` is one of them (up to operations without
weights, such as pooling).
"""

import argparse
import csv
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch

from medgraft.cuts.points import find_cuts
from medgraft.cuts.positions import weighted_ops
from medgraft.cuts.trace import trace_network
from medgraft.errors import MedgraftError

COLUMNS = (
    "architecture",
    "family",
    "is_found",
    "num_cuts",
    "num_stages",
    "missing_stage_ends",
    "reason",
    "seconds",
)


def _structure(name: str) -> Any:
    try:
        with torch.device("meta"):
            return timm.create_model(name, num_classes=0)
    except (NotImplementedError, RuntimeError, ValueError, TypeError):
        return timm.create_model(name, num_classes=0)  # a few compute tables in their constructors


def sweep_one(name: str) -> dict[str, object]:
    start = time.perf_counter()
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row.update(architecture=name, is_found=False, num_cuts=0)
    try:
        network = _structure(name)
        row["family"] = type(network).__module__.rpartition(".")[2]
        trace = trace_network(network, network.default_cfg["input_size"], entry="forward_features")
        cuts = find_cuts(trace, has_head=False)
    except MedgraftError as error:
        row["reason"] = str(error)[:200]
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, ImportError) as error:
        row["reason"] = f"timm cannot build it: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
    else:
        known = {weighted_ops(trace, cut.tap, cut.tap_side) for cut in cuts}
        # Some entries of timm name modules that do not exist in the network; those cannot be compared.
        there = {path for path, _ in network.named_modules() if path}
        ends = [info["module"] for info in getattr(network, "feature_info", []) if info["module"] in there]
        missing = [end for end in ends if weighted_ops(trace, end) not in known]
        reason = "no single tensor there" if missing else "few cuts" if len(cuts) < 3 else ""
        row.update(
            num_cuts=len(cuts),
            num_stages=len({cut.stage for cut in cuts}),
            missing_stage_ends=" ".join(missing),
            is_found=not reason,
            reason=reason,
        )
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/timm_cuts.csv"))
    parser.add_argument("--filter", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    done = set()
    if options.out.exists():
        with options.out.open(newline="") as file:
            done = {row["architecture"] for row in csv.DictReader(file)}
    with options.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for name in timm.list_models(options.filter):
            if name not in done:
                writer.writerow(sweep_one(name))
                file.flush()
    with options.out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = sum(row["is_found"] == "True" for row in rows)
    print(f"timm {timm.__version__}: {found} of {len(rows)} architectures ({found / len(rows):.1%})")


if __name__ == "__main__":
    main()
