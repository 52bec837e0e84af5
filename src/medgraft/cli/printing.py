"""What a person reads in the terminal when a job is done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from medgraft.cli.terminal import print_table
from medgraft.metrics.scores import SCORE_NAMES
from medgraft.report.caveats import still_learning
from medgraft.report.comparison_page import comparison_rows
from medgraft.report.formatting import ABSENT, signed_with_interval
from medgraft.report.measures import MASKS, measure_of
from medgraft.report.prose import decision_sentence
from medgraft.report.tables import reuse_rows
from medgraft.report.wording import chosen_name

__all__ = [
    "observer_lines",
    "print_analysis",
    "print_comparison",
    "print_metrics",
    "print_results",
    "value_with_interval",
]


def print_results(console: Console, results: dict[str, Any], out: Path) -> None:
    """Print what the test set said of the chosen model and of full fine-tuning."""
    test, measure = results["test"], measure_of(results)
    shown = ("dice", "surface_dice") if measure is MASKS else ("auroc", "auprc")
    columns = [
        ("test set", False),
        *((f"{SCORE_NAMES[name]} [95 %]", True) for name in shown),
        ("params", True),
        ("MACs", True),
        ("CPU ms", True),
    ]
    print_table(console, columns, _result_rows(results, shown))
    lines = [*observer_lines(test), test["sentence"]]
    if second := results.get("second_baseline"):
        by = signed_with_interval(second["difference"][measure.test])
        lines.append(f"Against full fine-tuning of the pretrained part alone: {second['verdict']}, {by}.")
    if doubt := still_learning(results):
        lines.append(f"warn: {doubt}")
    for line in [*lines, f"Report: {out / 'report.html'}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def observer_lines(judged: dict[str, Any]) -> list[str]:
    """How well other observers agree with the truth, or why nothing is known of it, one line each."""
    return [
        *(
            f"{name} against the same truth: Dice {value_with_interval(told['dice'])}, {told['num_cases']} cases."
            for name, told in judged.get("observers", {}).items()
        ),
        *(
            f"warn: {name} cannot be compared with the truth ({reason})."
            for name, reason in judged.get("observers_left_out", {}).items()
        ),
    ]


def _result_rows(results: dict[str, Any], shown: Sequence[str]) -> list[list[str]]:
    """A row for every model that was tested: its scores, and its cost as far as it is known."""
    test, efficiency = results["test"], results["efficiency"]
    models = [
        (f"chosen: {chosen_name(results['chosen'])}", test["chosen"], efficiency["chosen"]),
        ("full fine-tuning", test["baseline"], efficiency["baseline"]),
    ]
    if second := results.get("second_baseline"):
        models.append((f"full fine-tuning to {second['cut']['name']}", second, second))
    if continued := results.get("continued"):
        models.append(("full fine-tuning, trained on", continued, efficiency["baseline"]))
    return [
        [
            title,
            *(value_with_interval(scores[name]) for name in shown),
            f"{cost['num_params'] / 1e6:.3f} M",
            f"{cost['macs'] / 1e9:.3f} G",
            f"{cost['cpu_ms']:.1f}" if "cpu_ms" in cost else ABSENT,
        ]
        for title, scores, cost in models
    ]


def print_metrics(console: Console, metrics: dict[str, Any], title: str) -> None:
    """Print every metric with its interval."""
    print_table(
        console, [(title, False), ("value [95 %]", True)], [[n, value_with_interval(v)] for n, v in metrics.items()]
    )


def value_with_interval(found: dict[str, Any]) -> str:
    """A value and its 95 % interval."""
    low, high = found["ci95"]
    return f"{found['value']:.3f} [{low:.3f}, {high:.3f}]"


def print_analysis(console: Console, results: dict[str, Any], page: Path) -> None:
    """Print similarity and worth of every cut, and the decision where there is one."""
    rows = reuse_rows(results)
    last = ("tuned", "probe_after") if "decision" in results else ("random", "probe_random")
    heads = [("cut", False), ("SVCCA", True), ("to chance", True), ("CKA", True), ("probe", True), (last[0], True)]
    keys = ("cut", "svcca", "area", "cka", "probe_before", last[1])
    print_table(console, heads, [[row[key] for key in keys] for row in rows])
    if sentence := decision_sentence(results):
        console.print(sentence, markup=False, highlight=False)
    console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)


def print_comparison(console: Console, results: dict[str, Any], out: Path) -> None:
    """Print what fits 80 columns of a comparison's table, the largest fraction first; the page has the rest."""
    heads = [("strategy", False), ("AUROC", True), ("difference [95 %]", True), ("verdict", False), ("params", True)]
    for fraction in sorted({row["fraction"] for row in results["rows"]}, reverse=True):
        rows = comparison_rows([row for row in results["rows"] if row["fraction"] == fraction])
        cells = [
            [
                f"{row['strategy']}{' ' + row['depth'] if row['depth'] != ABSENT else ''}",
                row["auroc"],
                f"{row['difference']} [{row['difference_interval']}]" if row["difference_interval"] else "",
                row["verdict"],
                row["num_params"],
            ]
            for row in rows
        ]
        print_table(console, heads, cells, f"{fraction:.0%} of the training groups")
    console.print(f"Report: {out / 'comparison.html'}", markup=False, highlight=False, soft_wrap=True)
