"""How often an interval covers the truth, and how often noise is called better: the product's own functions.

    python benchmarks/claims.py [--simulations 400] [--replicates 1000]

Scores are binormal with an AUROC of .9; of two models the scores correlate .8 within a class; cases of a patient share
half of their variance. Each row: coverage of single AUROC and AUPRC (and how often the whole interval lies above the
truth), of the paired difference of two models that are equally good, the share of pairs in which the first is called
better, and of those with p < .05. For masks: cases are skewed (85 % good, 12 % middling, 3 % failures), and the two
models equal on average. Of several classes or labels the macro mean, of folds whose models are shifted against each
other, of methods whose trainings differ, and calibration error and distance of domains: see each function.
"""

import argparse
import dataclasses
import time

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import norm

from medgraft.analysis.domains import FeatureStatistics, fid, fid_with_interval
from medgraft.evaluate.bootstrap import paired_difference
from medgraft.evaluate.comparison import compare
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.evaluate.summary import interval_of
from medgraft.metrics.measures import measured
from medgraft.types import Overlaps, Predictions, Task

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


def of_classes(task: Task, num: int, *, simulations: int, replicates: int) -> str:
    """One row of the table of several classes (shares .6, .3, .1) or labels (.4, .2, .1, independent of each other)."""
    shares = np.array([0.6, 0.3, 0.1] if task == "multiclass" else [0.4, 0.2, 0.1])

    def models(rng: np.random.Generator, num: int) -> list[Predictions]:
        if task == "multiclass":
            targets = np.repeat(np.arange(3), np.rint(shares * num).astype(int))
            truth = targets[:, None] == np.arange(3)
        else:
            truth = np.stack([rng.permutation(num) < round(share * num) for share in shares], axis=1)
            targets = truth.astype(np.float64)
        common, made = rng.normal(size=truth.shape), []
        for _ in range(2):
            scores = np.sqrt(0.8) * common + np.sqrt(0.2) * rng.normal(size=truth.shape) + DISTANCE * truth
            odds = np.exp(scores)
            probs = odds / odds.sum(1, keepdims=True) if task == "multiclass" else odds / (1 + odds)
            made.append(
                Predictions(
                    probs=probs, targets=targets, groups=np.arange(len(targets)), classes=("a", "b", "c"), task=task
                )
            )
        return made

    large = models(np.random.default_rng(1), 200_000)[0]
    # Precision depends on the shares, which are those of the small sets.
    truth = {name: measured(large, name) for name in ("auroc", "auprc")}
    inside = dict.fromkeys(truth, 0)
    covered = better = small = 0
    for seed in range(simulations):
        first, second = models(np.random.default_rng([num, seed]), num)
        weights = bootstrap_weights(first, replicates, seed)
        for name, value in truth.items():
            low, high = interval_of(first, name, weights)
            inside[name] += low <= value <= high
        gap = paired_difference(first, second, "auroc", weights)
        covered += gap.ci95[0] <= 0 <= gap.ci95[1]
        better += gap.ci95[0] > 0
        small += gap.p < 0.05
    told = (*inside.values(), covered, better, small)
    return (
        f"| {num}, {task} | {round(0.1 * num)} | " + " | ".join(f"{share / simulations:.3f}" for share in told) + " |"
    )


def of_folds(num: int, shift: float, *, simulations: int, replicates: int) -> str:
    """One row of the table of five folds, whose models' logits are shifted by normal numbers of this SD."""
    pooled, within, inside, covered = [], [], 0, 0
    for seed in range(simulations):
        rng = np.random.default_rng([num, round(100 * shift), seed])
        folds = rng.permutation(num) % 5
        models = []
        for pred in drawn(rng, num, 0.2, is_clustered=False):
            odds = np.log(pred.probs[:, 1] / pred.probs[:, 0]) + shift * rng.normal(size=5)[folds]
            probs = 1 / (1 + np.exp(-odds))
            models.append(dataclasses.replace(pred, probs=np.stack([1 - probs, probs], 1), strata=folds))
        weights = bootstrap_weights(models[0], replicates, seed)
        pooled.append(measured(dataclasses.replace(models[0], strata=None), "auroc"))
        within.append(measured(models[0], "auroc"))
        low, high = interval_of(models[0], "auroc", weights)
        inside += low <= AUROC <= high
        gap = paired_difference(models[0], models[1], "auroc", weights)
        covered += gap.ci95[0] <= 0 <= gap.ci95[1]
    told = (np.mean(pooled), np.mean(within), inside / simulations, covered / simulations)
    return f"| {num}, {shift:g} | " + " | ".join(f"{value:.3f}" for value in told) + " |"


def of_methods(num: int, tau: float, num_seeds: int, *, simulations: int, replicates: int) -> str:
    """One row of the table of methods: AUROCs of trainings differ from the method's by normal numbers of SD `tau`.

    The words of `compare` at a margin of .02: how often the first of two equal methods is called better, how often it
    is called non-inferior (or better) where it is worse by just the margin, and how often where it is equal.
    """
    labels = (np.arange(num) < round(0.3 * num)).astype(int)

    def arm(rng: np.random.Generator, common: np.ndarray, area: float) -> list[Predictions]:
        made = []
        for _ in range(num_seeds):
            distance = np.sqrt(2) * norm.ppf(np.clip(area + tau * rng.normal(), 0.55, 0.995))
            scores = np.sqrt(0.8) * common + np.sqrt(0.2) * rng.normal(size=num) + distance * labels
            probs = norm.cdf((scores - distance / 2) / 2)
            made.append(
                Predictions(
                    probs=np.stack([1 - probs, probs], 1), targets=labels, groups=np.arange(num), classes=("no", "yes"),
                    task="binary", positive=1,
                )
            )  # fmt: skip
        return made

    better = wrong = right = 0
    for seed in range(simulations):
        rng = np.random.default_rng([num, round(1e4 * tau), num_seeds, seed])
        common = rng.normal(size=num)
        base = arm(rng, common, AUROC)
        weights = bootstrap_weights(base[0], replicates, seed)
        equal = compare(arm(rng, common, AUROC), base, 0.02, weights).verdict
        worse = compare(arm(rng, common, AUROC - 0.02), base, 0.02, weights).verdict
        better += equal == "better"
        right += equal in ("better", "non-inferior")
        wrong += worse in ("better", "non-inferior")
    told = (better, wrong, right)
    return f"| {num}, {tau:g} | {num_seeds} | " + " | ".join(f"{share / simulations:.3f}" for share in told) + " |"


def of_ece(num: int, sureness: float, *, simulations: int, replicates: int) -> str:
    """One row of the table of calibration: logits are `sureness` times those that would be right."""

    def model(rng: np.random.Generator, num: int) -> Predictions:
        logits = 1.5 * rng.normal(size=num)
        targets = (rng.random(num) < 1 / (1 + np.exp(-logits))).astype(int)
        probs = 1 / (1 + np.exp(-sureness * logits))
        return Predictions(
            probs=np.stack([1 - probs, probs], 1), targets=targets, groups=np.arange(num), classes=("no", "yes"),
            task="binary", positive=1,
        )  # fmt: skip

    truth = 0.0 if sureness == 1 else measured(model(np.random.default_rng(1), 400_000), "ece")
    inside, values = 0, []
    for seed in range(simulations):
        pred = model(np.random.default_rng([num, seed]), num)
        low, high = interval_of(pred, "ece", bootstrap_weights(pred, replicates, seed))
        inside += low <= truth <= high
        values.append(measured(pred, "ece"))
    return f"| {num} | {truth:.3f} | {np.mean(values):.3f} | {inside / simulations:.3f} |"


def of_distance(num: int, width: int, *, simulations: int) -> str:
    """One row of the table of FID: two normal distributions whose means lie 1 apart, one of them 1.3 times as wide."""
    mixing = np.random.default_rng(5).normal(size=(width, width)) / np.sqrt(width)
    shift = np.full(width, 1 / np.sqrt(width))
    truth = fid(
        FeatureStatistics(mean=0 * shift, covariance=mixing @ mixing.T, num_images=num),
        FeatureStatistics(mean=shift, covariance=1.69 * mixing @ mixing.T, num_images=num),
    )
    freed: list[float] = []
    plain: list[float] = []
    inside = 0
    for seed in range(simulations):
        rng = np.random.default_rng([num, width, seed])
        x, y = (rng.normal(size=(num, width)) @ mixing.T for _ in range(2))
        found = fid_with_interval(x, shift + 1.3 * y)
        inside += found.ci95[0] <= truth <= found.ci95[1]
        freed.append(found.value)
        plain.append(found.as_is or 0.0)
    told = f"{truth:.2f} | {np.mean(plain):.2f} | {np.mean(freed):.2f} | {inside / simulations:.3f}"
    return f"| {num}, {width} | {told} |"


def main() -> None:
    """Print all tables."""
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
    print("\n| cases, task | rarest class | AUROC | AUPRC | difference | better | p < .05 |")
    print("|---|---|---|---|---|---|---|")
    for task in ("multiclass", "multilabel"):
        for num in (100, 300, 900):
            print(of_classes(task, num, **options), flush=True)
    print("\n| cases, shift | pooled AUROC | within folds | interval | difference |\n|---|---|---|---|---|")
    for shift in (0.0, 0.3, 0.6, 1.0):
        print(of_folds(300, shift, **options), flush=True)
    print("\n| cases, SD of trainings | seeds | better | non-inferior at -.02 | non-inferior where equal |")
    print("|---|---|---|---|---|")
    for num_seeds in (1, 2, 3, 5):
        for num, tau in ((150, 0.008), (624, 0.003), (624, 0.008), (624, 0.015), (1500, 0.008), (1500, 0.022)):
            # AUROC needs no replicates, and nothing else is asked.
            few = {"simulations": asked.simulations, "replicates": 20}
            print(of_methods(num, tau, num_seeds, **few), flush=True)
    print("\n| cases | true ECE | mean ECE | interval |\n|---|---|---|---|")
    for sureness in (1.0, 2.0):
        for num in (60, 150, 400):
            print(of_ece(num, sureness, **options), flush=True)
    print("\n| images of each, features | true FID | as it is | freed | interval |\n|---|---|---|---|---|")
    for num, width in ((48, 32), (64, 32), (160, 32), (400, 32), (400, 8)):
        print(of_distance(num, width, simulations=asked.simulations), flush=True)
    print(f"\n{asked.simulations} simulations a row, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
