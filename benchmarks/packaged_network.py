"""What the packaged network is worth: pretrained against random weights, on the phantom and on given cohorts.

    python benchmarks/packaged_network.py phantom --out runs/packaged --seeds 3
    python benchmarks/packaged_network.py ../shared/data/busi --out runs/packaged --seeds 3 --cut 6

For the phantom the demo runs as it is (its own phantom, search and budget per seed). For a cohort the split is that of
seed 0 and the trainings repeat; the cut is fixed beforehand, so that both kinds of weights deploy the same network.
Prints a Markdown table of test AUROC, mean ± sd over seeds.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from medgraft import fit
from medgraft.run.demo import demo


def phantom_scores(out: Path, seeds: int, weights: str) -> list[dict[str, Any]]:
    rows = []
    for seed in range(seeds):
        results = demo(out / f"phantom-{seed}", seed=seed, weights=weights)
        rows.append(
            {
                "chosen": results.test.chosen.scores["auroc"].value,
                "baseline": results.test.baseline.scores["auroc"].value,
                "cut": results.chosen.cut.name,
                "verdict": results.test.comparison.verdict,
                "share": results.efficiency.chosen.num_params / results.efficiency.baseline.num_params,
            }
        )
    return rows


def cohort_scores(
    data: Path, out: Path, seeds: int, weights: str, cut: str, preset: str
) -> dict[str, dict[str, float]]:
    results = fit(
        data,
        out / f"{data.stem}-{weights}",
        preset=preset,
        data={"leaks": "drop"},
        backbone={"name": "shapes_resnet18", "weights": weights},
        transfer={"cut": cut},
        seeds=seeds,
        offline=True,
    )
    return {key: results["test"][key]["auroc"] for key in ("chosen", "baseline")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="phantom, or a cohort")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cut", default="6")
    parser.add_argument("--preset", default="balanced")
    options = parser.parse_args()
    if options.data == "phantom":
        print("| weights | seed | chosen cut | share of parameters | AUROC chosen | AUROC full | verdict |")
        print("|---|---|---|---|---|---|---|")
        for weights in ("packaged", "none"):
            rows = phantom_scores(options.out, options.seeds, weights)
            for seed, row in enumerate(rows):
                print(
                    f"| {weights} | {seed} | {row['cut']} | {row['share']:.0%} | {row['chosen']:.3f} | "
                    f"{row['baseline']:.3f} | {row['verdict']} |"
                )
            means = [np.mean([row[key] for row in rows]) for key in ("chosen", "baseline")]
            print(f"| {weights} | mean | | | {means[0]:.3f} | {means[1]:.3f} | |", flush=True)
        return
    print(f"| weights | AUROC at cut {options.cut} | AUROC full |")
    print("|---|---|---|")
    for weights in ("packaged", "none"):
        found = cohort_scores(Path(options.data), options.out, options.seeds, weights, options.cut, options.preset)
        cells = [f"{v['mean']:.3f} ± {v['sd'] or 0:.3f}" for v in found.values()]
        print(f"| {weights} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
