import dataclasses
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest

from medgraft.analysis.networks import CutSimilarity
from medgraft.evaluate import Difference, Estimate
from medgraft.report.analysis_figures import distance_figure, gain_figure, other_figure
from medgraft.report.curves import confusion_figure, ranking_figure, reliability_figure
from medgraft.report.figures import TREATMENTS, answer_figure, history_figure, plan_figure
from medgraft.report.run_files import read_predictions, read_run
from medgraft.report.search_figure import cut_figure
from medgraft.report.style import STYLE, new_figure, to_svg
from medgraft.result.analysis import DepthGain, OtherRun, RunPoint
from medgraft.result.run import CutFacts
from medgraft.search.rule import Candidate, Choice
from medgraft.types import BlockPlan, Predictions

HOSTILE = '<script>alert(1)</script> & $x^2$ -- "q" \']]>'


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


def draw_all(run) -> dict[str, str]:
    files = read_run(run)
    chosen, baseline = read_predictions(files, "test"), read_predictions(files, "baseline")
    test = files.result.test
    return {
        "answer": answer_figure(
            test.chosen.scores["auroc"],
            test.baseline.scores["auroc"],
            test.comparison.difference["auroc"],
            margin=0.02,
            names=("a", "b"),
        ),
        "cuts": cut_figure(files.search, files.choice),
        "history": history_figure(files.history),
        "plan": plan_figure(files.result.plan.blocks),
        "ranking": ranking_figure(chosen, baseline),
        "reliability": reliability_figure(chosen, baseline),
    }


def choice_of(told: dict[int, tuple[float, float]], *, chosen: int, best: int) -> Choice:
    """A choice by the rule compact among cuts with these scores and SDs of their differences."""
    candidates = tuple(
        Candidate(
            cut=cut, name=str(cut), score=score, mean_difference=0.0, sd_difference=sd, num_params=cut, macs=cut,
            eligible=True,
        )
        for cut, (score, sd) in told.items()
    )  # fmt: skip
    return Choice(rule="compact", tolerance=0.01, chosen=chosen, best=best, candidates=candidates)


def many_classes(num: int) -> Predictions:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(num), 20 * num)
    names = tuple(f"class {k}" for k in range(num))
    return Predictions(
        probs=probs,
        targets=np.arange(20 * num) % num,
        groups=np.arange(20 * num),
        classes=names,
        task="multiclass",
    )


def test_the_same_run_gives_the_same_bytes(finished_runs):
    assert draw_all(finished_runs["multiclass"]) == draw_all(finished_runs["multiclass"])


def test_every_figure_is_well_formed_and_its_text_stays_text(finished_runs):
    for name, svg in draw_all(finished_runs["binary"]).items():
        assert texts(svg), name
        assert "<style" not in svg


def test_hostile_names_are_text_and_not_mathematics():
    blocks = [BlockPlan(name=HOSTILE, treatment="reused", lr=0.1, num_params=3)]
    svg = plan_figure(blocks)
    assert HOSTILE in texts(svg)
    assert "<script" not in svg


def test_a_users_own_matplotlib_settings_neither_matter_nor_change(finished_runs):
    before = draw_all(finished_runs["binary"])
    with matplotlib.rc_context(
        {"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path", "text.color": "red"}
    ):
        assert draw_all(finished_runs["binary"]) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_drawing_needs_no_pyplot():
    code = "import medgraft.report, sys; raise SystemExit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_figures_of_different_names_share_no_ids():
    def ids(name: str) -> set[str]:
        with matplotlib.rc_context(STYLE):
            figure = new_figure(100, 100)
            figure.subplots().plot([0, 1])
            return set(re.findall(r'id="([^"]+)"', to_svg(figure, name=name, label="x")))

    assert ids("a")
    assert not ids("a") & ids("b")


def test_the_cut_figure_marks_what_was_chosen(finished_runs):
    files = read_run(finished_runs["multiclass"])
    files.search.loc[files.search["cut"] > 6, "is_pretrained"] = False
    marked, plain = cut_figure(files.search, files.choice), cut_figure(files.search, None)
    assert {"chosen", "best", "compact threshold", "full fine-tuning", "partly random weights"} <= set(texts(marked))
    assert not {"chosen", "best", "compact threshold"} & set(texts(plain))
    assert {"stage 0", "stage 3", "parameters", "MACs"} <= set(texts(plain))


def test_the_rule_best_has_no_compact_threshold(finished_runs):
    files = read_run(finished_runs["multiclass"])
    best = dataclasses.replace(files.choice, rule="best")
    assert "compact threshold" not in texts(cut_figure(files.search, best))


def test_a_run_with_only_the_baseline_can_be_drawn():
    table = pd.DataFrame({"cut": [9], "val_auprc": [0.9], "role": ["baseline"], "num_params": [10], "macs": [5]})
    assert "full fine-tuning" in texts(cut_figure(table, None))


def test_training_without_losses_still_shows_the_score():
    rows = {
        "role": ["chosen"] * 3,
        "seed": 0,
        "epoch": [1, 2, 3],
        "train_loss": np.nan,
        "val_auprc": [0.5, 0.7, 0.6],
    }
    assert "chosen" in texts(history_figure(pd.DataFrame(rows)))


def test_every_treatment_has_its_colour():
    known = BlockPlan.__dataclass_fields__["treatment"].type.__args__
    assert set(TREATMENTS) == set(known)


def test_an_answer_without_interval_or_margin_can_be_drawn():
    gap = Difference(value=0.1, ci95=(0.0, 0.2), p=0.1)
    svg = answer_figure(Estimate(value=0.9), Estimate(value=0.8), gap, margin=None, names=("a", "b"))
    assert "+0.100" in texts(svg)


@pytest.mark.parametrize("num", [3, 9, 14])
def test_many_classes_stay_legible(num):
    pred = many_classes(num)
    named = "class 0" in texts(ranking_figure(pred, pred))
    assert named == (num <= 7)
    assert ("100 %" in " ".join(texts(confusion_figure(pred)))) is False
    assert "class 0" in texts(confusion_figure(pred))


def test_the_confusion_matrix_shows_every_count():
    pred = many_classes(4)
    called = pred.probs.argmax(axis=1)
    shown = " ".join(texts(confusion_figure(pred)))
    for row, column in np.ndindex(4, 4):
        assert str(int(((pred.targets == row) & (called == column)).sum())) in shown


def test_an_incremental_search_is_drawn_down_to_depth_zero() -> None:
    table = pd.DataFrame(
        {"cut": [2, 1, 0, 2], "val_auprc": [0.7, 0.8, 0.85, 0.9], "role": ["incremental"] * 3 + ["baseline"]}
    )
    drawn = cut_figure(table, None)
    assert len(set(re.findall(r'<use xlink:href="#[^"]+" x="([\d.]+)"', drawn))) >= 3
    assert drawn != cut_figure(table[table["cut"] > 0], None)


def test_the_figure_of_a_guided_search_shows_probes_and_each_cut_as_it_was_in_the_end() -> None:
    rows = [
        (9, 0, 0.80, "baseline"), (4, 0, 0.61, "rung 1"), (5, 0, 0.62, "rung 1"), (5, 0, 0.71, "rung 2"),
        (9, 0, 0.99, "continued"),
    ]  # fmt: skip
    search = pd.DataFrame(rows, columns=["cut", "seed", "val_auprc", "role"])
    signals = pd.DataFrame({"cut": range(1, 10), "probe": np.linspace(0.1, 0.7, 9)})
    svg = cut_figure(search, None, signals=signals)
    assert "probe on fine-tuned features" in svg
    assert {str(cut) for cut in range(1, 10)} <= set(texts(svg))
    without = cut_figure(search[search["val_auprc"] != 0.62], None, signals=signals)
    assert without == svg


def test_a_search_of_two_trainings_shows_size_and_stage_of_every_cut() -> None:
    sizes = {"num_params": [10 * n for n in range(1, 10)], "macs": [100 + n for n in range(1, 10)]}
    signals = pd.DataFrame({"cut": range(1, 10), "stage": [0, 0, 0, 1, 1, 2, 2, 3, 3], **sizes})
    search = signals.iloc[[5, 8]].assign(val_auprc=[0.9, 0.8], role=["guided", "baseline"], seed=0)
    choice = choice_of({6: (0.9, 0.0), 9: (0.8, 0.02)}, chosen=6, best=6)
    svg = cut_figure(search, choice, signals=signals)
    assert {f"stage {number}" for number in range(4)} <= set(texts(svg))
    curves = [line for line in re.findall(r'<path d="([^"]+)"', svg) if line.count("L") == 8]
    assert len(curves) == 2
    assert not [line for line in re.findall(r'<path d="([^"]+)"', cut_figure(search, choice)) if line.count("L") == 8]


def test_the_whole_network_is_marked_when_it_was_chosen_and_later_seeds_are_left_out() -> None:
    rows = [(6, 0, 0.7, "guided"), (9, 0, 0.9, "baseline"), (9, 1, 0.1, "baseline")]
    search = pd.DataFrame(rows, columns=["cut", "seed", "val_auprc", "role"])
    choice = choice_of({6: (0.7, 0.02), 9: (0.9, 0.0)}, chosen=9, best=9)
    svg = cut_figure(search, choice)
    assert {"chosen", "best"} <= set(texts(svg))
    assert svg == cut_figure(search[search["seed"] == 0], choice)


def test_of_folds_one_is_drawn_and_the_others_are_grey() -> None:
    rows = [(cut, fold, 0.6 + (cut + fold) / 100, "stage") for cut in (3, 6) for fold in (1, 2, 3)]
    rows += [(9, fold, 0.7 + fold / 100, "baseline") for fold in (1, 2, 3)]
    search = pd.DataFrame(rows, columns=["cut", "seed", "val_auprc", "role"])
    choice = choice_of({cut: (0.61 + cut / 100, 0.01) for cut in (3, 6)}, chosen=3, best=6)
    svg, pooled = cut_figure(search, choice, fold=1), cut_figure(search, choice)
    assert ("other folds" in texts(svg), "each seed" in texts(svg)) == (True, False)
    assert ("other folds" in texts(pooled), "each seed" in texts(pooled)) == (False, True)
    # The chosen cut is marked where the line is: both are of that fold.
    for drawn, is_there in ((svg, True), (pooled, False)):
        heights = re.findall(r'y="([\d.]+)" style="fill: #ffffff; stroke', drawn)
        marked = re.findall(r'y="([\d.]+)" style="fill: #0072b2; stroke', drawn)[0]
        assert len(heights) == 2
        assert (marked in heights) is is_there


def test_other_gain_and_distance_are_drawn() -> None:
    gain = [DepthGain(depth=depth, name="", val_auprc=0.5, val_auroc=0.5, gain=depth / 10) for depth in (0, 3, 9)]
    assert {"0", "3", "9"} <= set(texts(gain_figure(gain)))
    points = [RunPoint(run=HOSTILE, fid=3.0, ci95=(2.5, 3.5), gain=0.1)] * 2
    assert HOSTILE in "".join(texts(distance_figure(points)))
    cuts = [CutFacts(index=index, name="", num_params=1, macs=1) for index in (1, 2)]
    alike = CutSimilarity(
        svcca=(0.5,), reference=(0.2, 0.1), num_components=1, mean=0.5, area=0.1, pwcca=0.5, cka=0.4, procrustes=0.3
    )
    other = OtherRun(run=HOSTILE, cuts={1: alike, 2: alike}, cka=((1.0, 0.0), (0.0, 1.0)))
    assert HOSTILE in "".join(texts(other_figure(other, cuts)))


def test_a_cut_far_behind_is_told_at_the_edge_and_does_not_flatten_the_others():
    search = pd.DataFrame(
        {
            "cut": [1, 2, 3, 4],
            "val_auprc": [0.31, 0.88, 0.9, 0.89],
            "role": ["stage"] * 3 + ["baseline"],
            "seed": [0] * 4,
        }
    )
    assert "▾ 0.31" in texts(cut_figure(search, None))
    level = cut_figure(search.assign(val_auprc=[0.8, 0.88, 0.9, 0.89]), None)
    assert not any("▾" in text for text in texts(level))
