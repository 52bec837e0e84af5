"""The page of a comparison says what stands in comparison.json, for any names and any number of strategies."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from medgraft.backbones.load_report import LoadReport
from medgraft.errors import RunError
from medgraft.report.comparison_figures import STYLES, pareto_figure
from medgraft.report.comparison_page import comparison_rows, headline, write_comparison
from medgraft.result.advice import Advice, NamedCut
from medgraft.result.comparison import (
    ComparisonResult,
    Gap,
    MetricOverSeeds,
    StrategyResult,
    read_comparison,
    write_comparison_result,
)
from medgraft.result.run import Ledger
from medgraft.transfer.strategies import STRATEGIES


def row(name: str, auroc: float, **more: Any) -> StrategyResult:
    """One strategy; the baseline has no difference."""
    metric = MetricOverSeeds(mean=auroc, sd=0.006, ci95=(auroc - 0.04, auroc + 0.03))
    gap = Gap(value=auroc - 0.9, ci95=(auroc - 0.93, auroc - 0.87), p=0.04, p_holm=0.4)
    compared = {"difference": {"auroc": gap, "auprc": gap}, "verdict": "inconclusive"} if name != "ftl" else {}
    made: dict[str, Any] = {
        "strategy": name,
        "key": name.partition(" (")[0],
        "fraction": 1.0,
        "uncertain": "",
        "num_train": 499,
        "cut": None,
        "head": "pooled",
        "lr": 0.001 / 3,
        "tried": (),
        "val_score": 0.9,
        "test": {"auroc": metric, "auprc": metric, "ece": MetricOverSeeds(mean=0.05)},
        "num_params": 1_300_000,
        "macs": 185_000_000,
        "cpu_ms": 7.1,
        "train_seconds": 1.0,
        "train_macs": 1e9,
        "tuning_macs": 1e9,
        **compared,
    }
    return StrategyResult(**made | more)


def write(folder: Path, rows: list[StrategyResult]) -> str:
    """The page made from `rows`."""
    result = ComparisonResult(
        task="binary",
        classes=("<b>a</b>", "c"),
        positive="c",
        backbone="net",
        weights=LoadReport(source="net.pth", sha256="ab" * 32),
        sides=(28, 28),
        seeds=(0, 1, 2),
        num_trials=4,
        epochs=5,
        margin=0.02,
        rows=tuple(rows),
        ledger=Ledger(openings=1),
        num_test=156,
        num_test_groups=126,
        noun="images",
        case_noun="images",
        advice=Advice(facts=(), probes=(), domain_distance=None, advice=()),
        left_out={"lora": "lora needs tokens."},
        command="medgraft compare data --out run",
        versions={"medgraft": "0"},
    )
    write_comparison_result(result, folder)
    assert read_comparison(folder) == result
    return write_comparison(folder).read_text()


def test_the_page_shows_every_strategy_with_its_interval_and_escapes_names(tmp_path: Path) -> None:
    cut = NamedCut(index=7, name="layer2.2")
    page = write(tmp_path, [row("ftl", 0.9), row("ttl", 0.91, cut=cut), row("hybrid", 0.88, head="svm", lr=None)])
    table = page[page.index("<table") : page.index("</table>")]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", table))
    assert text.index("ttl") < text.index("ftl") < text.index("hybrid")
    for expected in ("0.910 ± 0.006", "0.870–0.940", "+0.010", "7 layer2.2", "svm", "0.000333", "baseline", "0.400"):
        assert expected in text
    assert "<b>a</b>" not in page
    assert "&lt;b&gt;a&lt;/b&gt;" in page
    assert "lora needs tokens." in page
    assert page.count("<svg") == 2


def test_learning_curves_appear_with_a_second_fraction(tmp_path: Path) -> None:
    rows = [row(name, 0.9) for name in ("ftl", "ttl")]
    page = write(tmp_path, [*rows, *(dataclasses.replace(one, fraction=0.25, num_train=124) for one in rows)])
    assert page.count("<svg") == 3
    assert page.count("<table") == 2


def test_the_headline_names_only_what_is_proven() -> None:
    baseline, other = row("ftl", 0.9), row("ttl", 0.9, verdict="inconclusive")
    assert "no strategy is proven" in headline([baseline, other], 0.02, 3)
    proven = row("ttl", 0.9, verdict="non-inferior", num_params=650_000)
    assert "ttl with 50" in headline([baseline, proven], 0.02, 3)
    assert headline([baseline, proven], 0.02, 3).startswith("Non-inferior")
    assert headline([baseline, proven], 0.02, 1).startswith("As trained here, non-inferior")


def test_strategies_of_equal_cost_do_not_hide_each_other() -> None:
    drawn = pareto_figure([row(name, 0.9) for name in ("ftl", "lwft", "gradual")])
    places = re.findall(r'<use xlink:href="#[^"]+" x="([\d.]+)" y="([\d.]+)" style="fill', drawn)
    assert len(places) == 6, "three points, three entries of the legend"
    assert len(set(places)) == 6


def test_a_row_without_seeds_has_no_sd() -> None:
    alone = row("ftl", 0.9)
    alone.test["auroc"] = dataclasses.replace(alone.test["auroc"], sd=None)
    assert comparison_rows([alone])[0]["auroc"] == "0.900"


def test_no_page_without_results(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"comparison\.json"):
        write_comparison(tmp_path)


def test_a_strategy_without_a_look_of_its_own_is_drawn_all_the_same(tmp_path: Path) -> None:
    """It once ended the job with a KeyError, after all training and after the test was opened."""
    assert set(STRATEGIES) <= set(STYLES)
    rows = [row("ftl", 0.9), row("brand-new", 0.91)]
    page = write(tmp_path, [*rows, *(dataclasses.replace(one, fraction=0.25, num_train=124) for one in rows)])
    assert page.count("<svg") == 3
