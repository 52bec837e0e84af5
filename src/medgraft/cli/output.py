"""What a person reads in the terminal when a job is done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer
from rich.console import Console

from medgraft.cli.terminal import print_table
from medgraft.data.audit.findings import Audit
from medgraft.evaluate.results import MaskReference
from medgraft.metrics.measures import METRIC_NAMES
from medgraft.report.caveats import still_learning
from medgraft.report.comparison_page import comparison_rows
from medgraft.report.formatting import ABSENT, signed_with_interval, with_interval
from medgraft.report.prose import decision_sentence
from medgraft.report.tables import reuse_rows
from medgraft.report.words import chosen_name
from medgraft.result.advice import Advice
from medgraft.result.analysis import AnalysisResult
from medgraft.result.comparison import ComparisonResult
from medgraft.result.external import ExternalResult
from medgraft.result.run import Cost, RunResult
from medgraft.types import kind_of

__all__ = [
    "observer_lines",
    "print_advice",
    "print_analysis",
    "print_audit",
    "print_comparison",
    "print_external",
    "print_results",
]

SHOWN: Final = {"labels": ("auroc", "auprc"), "masks": ("dice", "surface_dice")}
"""Metrics that are printed, by kind of truth; further kinds show what their measure compares first."""


def print_audit(audit: Audit) -> bool:
    """Whether a cohort is clean, after saying so, and naming masks that somebody has to look at."""
    is_whole = not audit.has_leaks and not audit.num_broken
    doubtful = [
        issue for issue in audit.findings if issue.topic in ("doubtful-mask", "lost-mask") and issue.severity == "warn"
    ]
    for issue in doubtful:
        typer.echo(f"{issue.kind}: {', '.join(issue.paths)}{' …' if issue.count > len(issue.paths) else ''}")
    if is_whole and not doubtful:
        typer.echo("clean: no leaks, no broken files.")
        return True
    typer.echo(f"found: {'masks to look at' if is_whole else 'leaks or broken files'}, see above.")
    return False


def print_advice(advice: Advice) -> None:
    """Print what was measured, and the strategies to begin with."""
    for fact in advice.facts:
        typer.echo(f"  {fact}")
    for number, item in enumerate(advice.advice, 1):
        depth = f" at cut {item.cut.index} {item.cut.name}" if item.cut else ""
        typer.echo(f"{number}. {item.strategy}{depth}: {item.why} [{item.source}]")


def print_results(console: Console, result: RunResult, out: Path) -> None:
    """Print what the test set said of the chosen model and of full fine-tuning.

    Args:
        console: Where to print.
        result: Result of the run.
        out: The run's folder.
    """
    shown = SHOWN.get(kind_of(result.task), result.measure.compared[:2])
    columns = [
        ("test set", False),
        *((f"{METRIC_NAMES.get(name, name)} [95 %]", True) for name in shown),
        ("params", True),
        ("MACs", True),
        ("CPU ms", True),
    ]
    print_table(console, columns, _result_rows(result, shown))
    test = result.test
    lines = [*observer_lines(test.reference), test.comparison.sentence]
    if second := result.second_baseline:
        by = signed_with_interval(second.comparison.difference[result.measure.judges])
        lines.append(f"Against full fine-tuning of the pretrained part alone: {second.comparison.verdict}, {by}.")
    if doubt := still_learning(result):
        lines.append(f"warn: {doubt}")
    for line in [*lines, f"Report: {out / 'report.html'}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def observer_lines(reference: MaskReference) -> list[str]:
    """How well other observers agree with the truth, or why nothing is known of it, one line each."""
    return [
        *(
            f"{name} against the same truth: Dice {with_interval(observer.scores['dice'])}, {observer.num_cases} cases."
            for name, observer in reference.observers.items()
        ),
        *(
            f"warn: {name} cannot be compared with the truth ({reason})."
            for name, reason in reference.observers_left_out.items()
        ),
    ]


def _result_rows(result: RunResult, shown: Sequence[str]) -> list[list[str]]:
    """A row for every model that was tested: its scores, and its cost as far as it is known."""
    test, costs = result.test, result.efficiency
    models = [
        (f"chosen: {chosen_name(result.chosen)}", test.chosen, costs.chosen),
        ("full fine-tuning", test.baseline, costs.baseline),
    ]
    if second := result.second_baseline:
        cost = Cost(num_params=second.num_params, macs=second.macs)
        models.append((f"full fine-tuning to {second.cut.name}", second.result, cost))
    if continued := result.continued:
        models.append(("full fine-tuning, trained on", continued.result, costs.baseline))
    return [
        [
            title,
            *(with_interval(model.scores[name]) for name in shown),
            f"{cost.num_params / 1e6:.3f} M",
            f"{cost.macs / 1e9:.3f} G",
            ABSENT if cost.cpu_ms is None else f"{cost.cpu_ms:.1f}",
        ]
        for title, model, cost in models
    ]


def print_external(console: Console, result: ExternalResult) -> None:
    """Print every metric of a model on another cohort with its interval, and what each site says."""
    surfaces = f", surfaces in {result.reference.unit.replace('_', ' ')}" if result.reference.unit else ""
    title = f"{result.num_cases} cases of {result.num_images} images{surfaces}"
    rows = [[METRIC_NAMES.get(name, name), with_interval(score)] for name, score in result.result.scores.items()]
    for name, point in result.result.points.items():
        for words, score in (("sensitivity", point.sensitivity), ("specificity", point.specificity)):
            if score.value is not None:
                rows.append([f"{words} for {name} at {point.threshold:.3f}", with_interval(score)])
    print_table(console, [(title, False), ("value [95 %]", True)], rows)
    first = next(iter(result.result.scores))
    lines = observer_lines(result.reference)
    for name, site in result.sites.items():
        summary = site.reason or (
            f"{site.num_cases} images, {METRIC_NAMES.get(first, first)} {with_interval(site.scores[first])}"
        )
        lines.append(f"{name}: {summary}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_analysis(console: Console, result: AnalysisResult, page: Path) -> None:
    """Print similarity and worth of every cut, and the decision where there is one.

    Args:
        console: Where to print.
        result: Result of the analysis.
        page: Page that shows it.
    """
    rows = reuse_rows(result)
    last = ("tuned", "probe_after") if result.decision else ("random", "probe_random")
    heads = [("cut", False), ("SVCCA", True), ("to chance", True), ("CKA", True), ("probe", True), (last[0], True)]
    keys = ("cut", "svcca", "area", "cka", "probe_before", last[1])
    print_table(console, heads, [[row[key] for key in keys] for row in rows])
    if sentence := decision_sentence(result):
        console.print(sentence, markup=False, highlight=False)
    console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)


def print_comparison(console: Console, result: ComparisonResult, out: Path) -> None:
    """Print what fits 80 columns of a comparison's table, the largest fraction first; the page has the rest.

    Args:
        console: Where to print.
        result: Result of the comparison.
        out: The comparison's folder.
    """
    heads = [("strategy", False), ("AUROC", True), ("difference [95 %]", True), ("verdict", False), ("params", True)]
    for fraction in result.fractions:
        rows = comparison_rows(result.at(fraction))
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
