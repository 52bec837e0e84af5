"""How often an interval covers the truth, and how often noise is called better: the product's own functions.

    python benchmarks/claims.py [--simulations 400] [--replicates 1000]

Scores are binormal with an AUROC of .9; of two models the scores correlate .8 within a class; cases of a patient share
half of their variance. Each row: coverage of single AUROC and AUPRC (and how often the whole interval lies above the
truth), of the paired difference of two models that are equally good, the share of pairs in which the first is called
better, and of those with p < .05. For masks: cases are skewed (85 % good, 12 % middling, 3 % failures), and the two
models equal on average.
"""

import argparse
import time

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import norm

from medgraft.evaluate.bootstrap import paired_difference
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import interval_of
from medgraft.types import Overlaps, Predictions

AUROC = 0.9
DISTANCE = float(np.sqrt(2) * norm.ppf(AUROC))
LABELS = (
    *((40, 0.2, False), (80, 0.05, False), (150, 0.05, False), (300, 0.05, False), (600, 0.05, False)),
    *((150, 0.2, False), (600, 0.2, False), (80, 0.2, True), (150, 0.2, True), (300, 0.2, True), (600, 0.2, True)),
    (80, 0.5, True),
)
MASKS = (6, 10, 14, 28, 60, 150)


def true_auprc(prevalence: float) -> float:
    """AUPRC of the two distributions that cases are drawn from."""
    thresholds = np.linspace(DISTANCE + 8, -8, 8001)
    recall, fallout = norm.sf(thresholds - DISTANCE), norm.sf(thresholds)
    return float(trapezoid(prevalence * recall / (prevalence * recall + (1 - prevalence) * fallout), recall))


def drawn(rng: np.random.Generator, num: int, prevalence: float, *, is_clustered: bool) -> list[Predictions]:
    """Two equally good models on the same cases."""
    labels = (np.arange(num) < round(num * prevalence)).astype(int)
    groups = np.arange(num)
    if is_clustered:
        # Patients of one to five images, of one class each.
        groups, start = np.zeros(num, dtype=int), 0
        for name in (1, 0):
            rows = np.flatnonzero(labels == name)
            sizes = rng.integers(1, 6, len(rows))
            own = np.repeat(np.arange(len(rows)), sizes)[: len(rows)]
            groups[rows], start = own + start, start + int(own.max()) + 1

    def noise() -> np.ndarray:
        of_group = rng.normal(size=int(groups.max()) + 1)[groups]
        return np.sqrt(0.5) * of_group + np.sqrt(0.5) * rng.normal(size=num) if is_clustered else rng.normal(size=num)

    common = noise()
    models = []
    for _ in range(2):
        scores = np.sqrt(0.8) * common + np.sqrt(0.2) * noise() + DISTANCE * labels
        probs = norm.cdf((scores - DISTANCE / 2) / 2)
        models.append(
            Predictions(
                probs=np.stack([1 - probs, probs], 1), targets=labels, groups=groups, classes=("no", "yes"),
                task="binary", positive=1,
            )
        )  # fmt: skip
    return models


def of_labels(num: int, prevalence: float, *, is_clustered: bool, simulations: int, replicates: int) -> str:
    """One row of the table of labels."""
    truth = {"auroc": AUROC, "auprc": true_auprc(round(num * prevalence) / num)}
    inside = dict.fromkeys(truth, 0)
    above = dict.fromkeys(truth, 0)
    covered = better = small = 0
    few = []
    for seed in range(simulations):
        rng = np.random.default_rng([num, round(1000 * prevalence), int(is_clustered), seed])
        first, second = drawn(rng, num, prevalence, is_clustered=is_clustered)
        weights = bootstrap_weights(first, replicates, seed)
        for name, value in truth.items():
            low, high = interval_of(first, name, weights)
            inside[name] += low <= value <= high
            above[name] += low > value
        gap = paired_difference(first, second, "auroc", weights)
        covered += gap.ci95[0] <= 0 <= gap.ci95[1]
        better += gap.ci95[0] > 0
        small += gap.p < 0.05
        few.append(len(np.unique(first.groups[first.targets == 1])))
    shares = [inside["auroc"], above["auroc"], inside["auprc"], above["auprc"], covered, better, small]
    numbers = " | ".join(f"{share / simulations:.3f}" for share in shares)
    kind = "patients" if is_clustered else "single"
    return f"| {num}, {prevalence:g}, {kind} | {np.mean(few):.0f} | {numbers} |"


def of_masks(num: int, *, simulations: int, replicates: int) -> str:
    """One row of the table of masks."""

    def dice_of(rng: np.random.Generator) -> np.ndarray:
        kind = rng.choice(3, num, p=(0.85, 0.12, 0.03))
        return np.where(kind == 0, rng.beta(40, 6, num), np.where(kind == 1, rng.beta(12, 8, num), rng.beta(2, 8, num)))

    truth = 0.85 * 40 / 46 + 0.12 * 0.6 + 0.03 * 0.2
    inside = covered = better = small = 0
    for seed in range(simulations):
        rng = np.random.default_rng([num, seed])
        models = []
        for _ in range(2):
            both = np.rint(10_000 * dice_of(rng)).astype(int)
            counts = np.stack([np.full(num, 10_000), np.full(num, 10_000), both], -1)[:, None]
            models.append(Overlaps(counts=counts, groups=np.arange(num), classes=("lesion",)))
        weights = bootstrap_weights(models[0], replicates, seed)
        low, high = interval_of(models[0], "dice", weights)
        inside += low <= truth <= high
        gap = paired_difference(models[0], models[1], "dice", weights)
        covered += gap.ci95[0] <= 0 <= gap.ci95[1]
        better += gap.ci95[0] > 0
        small += gap.p < 0.05
    return f"| {num} | " + " | ".join(f"{share / simulations:.3f}" for share in (inside, covered, better, small)) + " |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--replicates", type=int, default=1000)
    asked = parser.parse_args()
    options = {"simulations": asked.simulations, "replicates": asked.replicates}
    start = time.perf_counter()
    print("| cases, prevalence | positive groups | AUROC | above | AUPRC | above | difference | better | p < .05 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for num, prevalence, is_clustered in LABELS:
        print(of_labels(num, prevalence, is_clustered=is_clustered, **options), flush=True)
    print("\n| cases | mean Dice | difference | better | p < .05 |\n|---|---|---|---|---|")
    for num in MASKS:
        print(of_masks(num, **options), flush=True)
    print(f"\n{asked.simulations} simulations a row, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
