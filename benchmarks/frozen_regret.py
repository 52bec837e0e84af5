"""How much better the depth of a frozen network is chosen by cross-fitted predictions than by validation alone.

    python benchmarks/frozen_regret.py --shared ../shared [--splits 30]

BUSI in the frozen features of MobileNet v1 (ImageNet). Again and again 320 images are drawn for training and 80 for
validation, by groups; the rest judges. At each cut a logistic regression (penalty 1 / C = n / 10, so that thousands of
solutions are affordable) is solved on the training images; it is chosen from its scores on validation, or from
cross-fitted predictions on training and validation images, five folds, by each rule. Regret is the judging AUPRC of the
best cut less that of the chosen one.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from rule_regret import TOLERANCE, chosen_by, probabilities
from search_regret import PAIRS, config_of
from sklearn.linear_model import LogisticRegression

from medgraft.analysis.layers import features_at_cuts
from medgraft.listener import Listener
from medgraft.metrics.measures import measured
from medgraft.search.rule import choose
from medgraft.setup.plan import material_of
from medgraft.train.batches import ImageSet
from medgraft.train.classical import Labelled, solvable_divisions
from medgraft.train.engine import exact_engine
from medgraft.transfer import HeadSettings
from medgraft.transfer.strategies import apply_strategy
from medgraft.types import Predictions

PAIR = "busi-mobilenet"
NUM_TRAIN, NUM_VAL = 320, 80


def solved(features: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Probabilities of some features from a logistic regression on others."""
    mean, scale = features.mean(0), features.std(0) + 1e-6
    model = LogisticRegression(C=10 / len(features), max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit((features - mean) / scale, targets)
    return np.asarray(model.predict_proba((asked - mean) / scale))


def main() -> None:
    """Read the features once, then divide, solve and choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--splits", type=int, default=30)
    options = parser.parse_args()
    config = config_of(PAIR, options.shared, Path())
    assert PAIRS[PAIR]["data"]
    material = material_of(config, Listener())
    dataset, source = material.dataset, material.source
    cohort = dataset.cohort
    data = ImageSet(
        images=dataset.decoded.images, rows=dataset.rows, targets=cohort.targets,
        intensity_max=dataset.preprocessing.intensity_max, task=cohort.task, positive=dataset.positive,
        num_classes=len(cohort.classes),
    )  # fmt: skip
    head = HeadSettings(num_outputs=len(cohort.classes))
    model, _ = apply_strategy("frozen", source, source.cuts[-1], head, lr=0.001, seed=0)
    features = features_at_cuts(model, source.cuts, data, exact_engine("cpu", is_deterministic=True))
    targets, groups = cohort.targets, dataset.groups
    num_params = {cut.index: cut.num_params for cut in source.cuts}

    def said(rows: np.ndarray, probs: np.ndarray) -> Predictions:
        return Predictions(
            probs=probs, targets=targets[rows], groups=groups[rows], classes=cohort.classes, task=cohort.task
        )

    lost: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(options.splits):
        order = np.random.default_rng(number).permutation(np.unique(groups))
        rank = np.argsort(order)[np.searchsorted(np.unique(groups), groups)]
        by_rank = np.argsort(rank, kind="stable")
        train, val, rest = np.split(by_rank, [NUM_TRAIN, NUM_TRAIN + NUM_VAL])
        both = np.concatenate([train, val])
        truth, on_val, crossed = {}, {}, {}
        for cut in source.cuts:
            x = np.asarray(features[cut.index], dtype=np.float64)
            probs = solved(x[train], targets[train], x)
            truth[cut.index] = measured(said(rest, probs[rest]), "auprc")
            on_val[cut.index] = [said(val, probs[val])]
            labelled = Labelled(
                features=x[both], targets=targets[both], groups=groups[both], task=cohort.task, positive=None,
                num_classes=len(cohort.classes),
            )  # fmt: skip
            held_out = np.zeros((len(both), len(cohort.classes)))
            for some, held in solvable_divisions(labelled, 0):
                held_out[held] = solved(x[both[some]], targets[both[some]], x[both[held]])
            crossed[cut.index] = [said(both, held_out)]
        best = max(truth.values())
        for by, tried in (("validation", on_val), ("cross-fitted", crossed)):
            choice = choose(tried, source.cuts, num_params, "compact", tolerance=TOLERANCE, replicates=300)
            sure = probabilities(choice, {index: one[0] for index, one in tried.items()}, 300)
            for rule, index in chosen_by(choice, sure).items():
                share = num_params[index] / num_params[len(source.cuts)]
                lost.setdefault((rule, by), []).append((best - truth[index], share))
    print("| rule | chosen by | regret | lost > .02 | parameters |\n|---|---|---|---|---|")
    for (rule, by), pairs in sorted(lost.items()):
        regret, share = np.array(pairs).T
        error = 1.96 * regret.std(ddof=1) / np.sqrt(len(regret))
        print(
            f"| {rule} | {by} | {regret.mean():.4f} ± {error:.4f} | {(regret > 0.02).mean():.2f} | {share.mean():.3f} |"
        )


if __name__ == "__main__":
    main()
