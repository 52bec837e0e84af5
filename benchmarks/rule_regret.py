"""Which rule hands back the better cut from scores of few cases: trainings of `search_regret.py`, divided anew.

    python benchmarks/rule_regret.py --shared ../shared --out runs/regret [--pairs busi-mobilenet …] [--splits 60]

Reads the trainings that `search_regret.py` left in `--out` (every cut, every seed; missing ones are trained).
Validation and test cases of a pair are put together and divided again by groups, so many of them for choosing, the rest
to judge; each rule chooses from one seed's scores, among all cuts and among those that `two-stage` would have tried.
Regret is the judging AUPRC of the best cut less that of the chosen one, both means over the seeds. Rules: `best`;
`within .01` of the highest and one bootstrap SD; and the probability of losing at most .01, at several levels.
`compact` is the latter at .65 where all cuts were compared, else the former. Beside regret how often more than .02 is
lost, and the share of the whole network's parameters.
"""

import argparse
import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from search_regret import PAIRS, opened, tested, trained

from medgraft.evaluate.bootstrap import metric_replicates
from medgraft.evaluate.replicates import bootstrap_weights
from medgraft.metrics.measures import cases_of, measured
from medgraft.search.proposals import drive
from medgraft.search.rule import Choice, choose
from medgraft.search.smoothed import loss_probabilities
from medgraft.search.two_stage import two_stage
from medgraft.types import Cut, Judged, Predictions

LEVELS = (0.5, 0.65, 0.8)
TOLERANCE = 0.01
LARGE = 0.02


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """All cuts of a pair on validation and test cases together: by cut, one set of predictions per seed."""

    cuts: tuple[Cut, ...]
    said: dict[int, list[Predictions]]
    num_params: dict[int, int]


def read(pair: str, options: argparse.Namespace) -> Trained:
    """The trainings of a pair."""
    config, material, context = opened(pair, options)
    said: dict[int, list[Predictions]] = defaultdict(list)
    num_params = {}
    for cut in material.source.cuts:
        for seed in range(options.seeds):
            trial = trained(config, material, context, cut.index, seed)
            val = context.study.val_predictions(trial.val_outputs)
            test = tested(trial, material, context)
            groups = np.concatenate([val.groups, test.groups + 1 + val.groups.max()])
            said[cut.index].append(
                dataclasses.replace(
                    val,
                    probs=np.concatenate([val.probs, test.probs]),
                    targets=np.concatenate([val.targets, test.targets]),
                    groups=groups,
                )
            )
            num_params[cut.index] = trial.num_params
    return Trained(cuts=material.source.cuts, said=dict(said), num_params=num_params)


def divided(pred: Predictions, num: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) bool: about `num` cases for choosing, whole groups, with the shares of the classes."""
    kept = np.zeros(len(pred.groups), dtype=bool)
    for name in np.unique(pred.targets):
        rows = np.flatnonzero(pred.targets == name)
        for group in rng.permutation(np.unique(pred.groups[rows])):
            if kept[rows].sum() >= num * len(rows) / len(pred.groups):
                break
            kept |= pred.groups == group
    return kept


def chosen_by(choice: Choice, sure: Mapping[int, float]) -> dict[str, int]:
    """The cut that each rule takes from one comparison.

    Args:
        choice: What was compared.
        sure: By cut, the probability that it loses at most the tolerance.
    """
    smallest = sorted(choice.candidates, key=lambda one: (one.num_params, one.macs, one.cut))
    highest = max(sure.values())
    found = {
        "best": choice.best,
        "within .01": next(
            one.cut
            for one in smallest
            if one.cut == choice.best or one.mean_difference <= min(one.sd_difference, TOLERANCE)
        ),
    }
    for level in LEVELS:
        found[f"sure {level:g}"] = next(one.cut for one in smallest if sure[one.cut] >= min(level, highest))
    return found


def probabilities(choice: Choice, tried: Mapping[int, Judged], num: int) -> dict[int, float]:
    """By cut, how likely it loses at most the tolerance, also where `compact` does not ask."""
    order = [one.cut for one in choice.candidates]
    weights = bootstrap_weights(tried[order[0]], num=num, seed=0)
    found = loss_probabilities(
        np.array(order),
        np.array([one.score for one in choice.candidates]),
        np.stack([metric_replicates(tried[cut], "auprc", weights) for cut in order], axis=1),
        np.ones(len(order)),
        TOLERANCE,
    )
    return dict(zip(order, found.tolist(), strict=True))


def asked_for(cuts: tuple[Cut, ...], scores: dict[int, float]) -> list[int]:
    """The cuts that a two-stage search looks at."""

    def known(batch: Sequence[tuple[Cut, str]]) -> list[float]:
        return [scores[cut.index] for cut, _ in batch]

    return list(drive(two_stage(cuts), known))


def measured_rules(data: Trained, num: int, options: argparse.Namespace) -> dict[tuple[str, str], np.ndarray]:
    """(S · seeds, 5) regret, whether more than .02 is lost, parameters, probability said and true, by side and rule."""
    first = next(iter(data.said.values()))[0]
    rows = defaultdict(list)
    for number in range(options.splits):
        rng = np.random.default_rng([num, number])
        kept = divided(first, num, rng)
        truth = {
            cut: float(np.mean([measured(cases_of(pred, ~kept), "auprc") for pred in seeds]))
            for cut, seeds in data.said.items()
        }
        best = max(truth.values())
        for seed in range(options.seeds):
            tried = {cut: [cases_of(seeds[seed], kept)] for cut, seeds in data.said.items()}
            scores = {cut: measured(one[0], "auprc") for cut, one in tried.items()}
            asked = asked_for(data.cuts, scores)
            for side, some in (("all", list(tried)), ("two-stage", asked)):
                choice = choose(
                    {cut: tried[cut] for cut in some}, data.cuts, data.num_params, "compact", tolerance=TOLERANCE,
                    replicates=options.replicates,
                )  # fmt: skip
                sure = probabilities(choice, {cut: tried[cut][0] for cut in some}, options.replicates)
                for rule, cut in chosen_by(choice, sure).items():
                    lost = best - truth[cut]
                    share = data.num_params[cut] / max(data.num_params.values())
                    rows[side, rule].append((lost, lost > LARGE, share, sure[cut], lost <= TOLERANCE))
    return {key: np.array(values, dtype=float) for key, values in rows.items()}


def main() -> None:
    """Print a row for each pair, number of cases, side and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--splits", type=int, default=60)
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--cases", type=int, nargs="+", default=[60, 120, 250])
    options = parser.parse_args()
    print(
        "| pair | cases | among | rule | regret | less than `within .01` by | lost > .02 | parameters | said | true |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for pair in options.pairs:
        data = read(pair, options)
        for num in options.cases:
            found = measured_rules(data, num, options)
            for (side, rule), values in found.items():
                regret, large, share, said, true = values.mean(0)
                gap = found[side, "within .01"][:, 0] - values[:, 0]
                # Seeds of one division share its cases.
                each = gap.reshape(-1, options.seeds).mean(1)
                half = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
                print(
                    f"| {pair} | {num} | {side} | {rule} | {regret:.4f} | {each.mean():+.4f} ± {half:.4f} | "
                    f"{large:.3f} | {share:.3f} | {said:.2f} | {true:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
