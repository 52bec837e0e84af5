"""What a reader must know before believing the numbers, derived from the facts of the run alone."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Final, Literal

from medgraft.data.audit.findings import Topic
from medgraft.evaluate.intervals import FEWEST_TRAININGS
from medgraft.evaluate.over_seeds import USUAL_SD
from medgraft.report.formatting import integer, percent, share, signed_with_interval
from medgraft.report.run_files import RunFiles
from medgraft.result.run import RunResult

__all__ = [
    "Caveat",
    "find_caveats",
    "is_patient_known",
    "still_learning",
]

FEW_GROUPS: Final = 20
MODEST_GROUPS: Final = 100
FEW_CASES_OF_A_CLASS: Final = 10
# From the weakest statement to the strongest.
_VERDICTS: Final = ("worse", "inconclusive", "non-inferior", "better")
_WARNED: Final[dict[Topic, tuple[Literal["strong", "note"], str]]] = {
    "near-duplicate": ("strong", "Near-duplicates"),
    "conflict": ("strong", "Contradicting labels"),
    "confounding": ("strong", "A shortcut in the data"),
    "doubtful-mask": ("strong", "Masks to look at"),
    "lost-mask": ("note", "Cases left out for their masks"),
}
"""Weight and title of what the audit warns of."""
_TITLES: Final = {
    "mask-affine": "Masks that lie elsewhere than their images",
    "mask-shift": "Masks that may be shifted, or of other images",
    "mask-label": "Numbers that hardly any mask holds",
}
"""Titles of kinds that say more than their topic."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Caveat:
    """One reservation.

    Args:
        weight: ``strong`` changes what may be concluded, ``note`` is context.
        title: A few words.
        text: One or two plain sentences.
    """

    weight: Literal["strong", "note"]
    title: str
    text: str


def find_caveats(run: RunFiles) -> tuple[Caveat, ...]:
    """Everything in the run that limits what may be concluded, the weightiest first.

    Args:
        run: The run folder's content.
    """
    caveats = [caveat for rule in RULES for caveat in rule(run)]
    return tuple(sorted(caveats, key=lambda caveat: caveat.weight != "strong"))


def is_patient_known(run: RunFiles) -> bool:
    """Whether cases of one patient were kept together by a patient id."""
    return run.result.splits.group_kind == "patient"


def _phantom(run: RunFiles) -> Iterator[Caveat]:
    if run.result.is_phantom:
        yield Caveat(
            weight="strong",
            title="A demonstration, not evidence",
            text=f"The {run.result.noun} are a generated phantom. The numbers show that the program works; "
            "they say nothing about real patients.",
        )


def _test_size(run: RunFiles) -> Iterator[Caveat]:
    groups, cases = run.result.test.num_groups, run.result.test.num_cases
    if groups >= MODEST_GROUPS:
        return
    counted = f"{integer(groups)} independent patients or groups ({integer(cases)} {run.result.case_noun})"
    if groups < FEW_GROUPS:
        yield Caveat(
            weight="strong",
            title="Few test patients or groups",
            text=f"The test holds only {counted}. Below {FEW_GROUPS} the intervals themselves are rough; "
            + ("collect more." if run.result.folds else "use --folds 5 or collect more."),
        )
    else:
        yield Caveat(
            weight="note",
            title="A modest test set",
            text=f"The test holds {counted}: read the intervals, not the point values.",
        )


def _rare_classes(run: RunFiles) -> Iterator[Caveat]:
    splits = run.result.splits
    counts = splits.tested or splits.counts["test"]
    rare = [f"{name} ({count})" for name, count in counts.items() if count < FEW_CASES_OF_A_CLASS]
    if rare:
        yield Caveat(
            weight="strong",
            title="Hardly any test cases of a class",
            text=f"Fewer than {FEW_CASES_OF_A_CLASS} test cases: {', '.join(rare)}. "
            "What is said about them rests on single cases.",
        )


def _openings(run: RunFiles) -> Iterator[Caveat]:
    openings = run.result.ledger.openings
    if openings > 1:
        yield Caveat(
            weight="strong",
            title=f"Test labels opened {integer(openings)} times",
            text="The labels of these test cases were looked at in other runs on this machine too. "
            "If the best of several runs is shown, its score is optimistic.",
        )


def _audit_findings(run: RunFiles) -> Iterator[Caveat]:
    for finding in run.result.audit.findings:
        topic, severity, message = finding.topic, finding.severity, finding.message
        if topic == "leak" and run.result.splits.are_leaks_dropped:
            yield Caveat(
                weight="note",
                title="Leaks removed",
                text=f"{message} They were taken out of training and validation; the test is whole.",
            )
        elif severity == "stop":
            yield Caveat(weight="strong", title="A leak or defect in the data", text=message)
        elif severity == "warn" and topic in _WARNED:
            weight, title = _WARNED[topic]
            if topic == "near-duplicate":
                message += " Where such a pair lies in two splits the test is easier than it should be."
            yield Caveat(weight=weight, title=_TITLES.get(finding.kind, title), text=message)


def _observers(run: RunFiles) -> Iterator[Caveat]:
    for name, reason in run.result.test.reference.observers_left_out.items():
        yield Caveat(
            weight="note",
            title="An observer who cannot be compared",
            text=f"Nothing is said of {name} beside the truth: {reason}.",
        )


def _patients(run: RunFiles) -> Iterator[Caveat]:
    noun, unknown = run.result.noun, run.result.splits.without_patient
    if is_patient_known(run) and not unknown:
        return
    title, start = "No patient ids", f"Without them two {noun}"
    if unknown:
        title = f"Patients of {integer(unknown)} {noun} are not known"
        start = f"Each of these {noun} counts as a patient of its own, so that two"
    yield Caveat(
        weight="strong",
        title=title,
        text=f"{start} of one patient can lie in training and in test, which flatters every score and narrows every "
        "interval. Give --patient-column or --patient-regex.",
    )


def _weights(run: RunFiles) -> Iterator[Caveat]:
    report, second = run.result.backbone.load_report, run.result.second_baseline
    fraction = report.matched_fraction
    if report.source in ("none", "") or fraction == 0:
        yield Caveat(
            weight="note",
            title="No pretrained weights",
            text="Both models started from random weights; this run says nothing about transfer.",
        )
    elif fraction < 1:
        fairer = "Full fine-tuning carries that handicap too."
        if second is not None:
            gap = signed_with_interval(second.comparison.difference[run.measure.judges])
            fairer = (
                "The fairer baseline, full fine-tuning cut at the last fully pretrained block, is shown beside: "
                f"against it {run.measure.judges_name} differs by {gap}: {second.comparison.verdict}."
            )
        yield Caveat(
            weight="strong" if fraction < 0.9 else "note",
            title="Partly random weights",
            text=f"The weights file filled {percent(fraction)} of the network's parameters; the rest "
            f"started at random. {fairer}",
        )


def _warm_start(run: RunFiles) -> Iterator[Caveat]:
    continued = run.result.continued
    if continued is None:
        return
    verdicts = [run.result.test.comparison.verdict, continued.comparison.verdict]
    ranks = [_VERDICTS.index(verdict) for verdict in verdicts]
    gain = signed_with_interval(continued.comparison.difference[run.measure.judges])
    yield Caveat(
        weight="strong" if ranks[1] < ranks[0] else "note",
        title="Trained longer than its baseline",
        text="The chosen model went on from the weights of full fine-tuning. Against full fine-tuning that was "
        f"trained on for the same computation its {run.measure.judges_name} differs by {gain}: {verdicts[1]}.",
    )


def _still_learning(run: RunFiles) -> Iterator[Caveat]:
    text = still_learning(run.result)
    if text:
        gains = [run.result.late_gain.get(role) or 0.0 for role in ("chosen", "baseline")]
        yield Caveat(
            weight="strong" if gains[1] > gains[0] else "note", title="Training ended while it still helped", text=text
        )


def still_learning(result: RunResult) -> str:
    """Which of the two models gained more than the margin on validation in the last quarter of the epochs, in words.

    Returns:
        Two sentences; empty where neither did.
    """
    names = {"chosen": "the chosen model", "baseline": "full fine-tuning"}
    gains = {role: result.late_gain.get(role) or 0.0 for role in names}
    rose = [
        f"{name} still rose by {gains[role]:.3f}" for role, name in names.items() if gains[role] > result.test.margin
    ]
    if not rose:
        return ""
    advice = "Give more --epochs"
    if gains["baseline"] > gains["chosen"]:
        advice += ": a baseline that has not learned what it can flatters the chosen model"
    score = result.measure.chooses_name
    return f"In the last quarter of the epochs {' and '.join(rose)} in {score} on validation. {advice}."


def _verdict(run: RunFiles) -> Iterator[Caveat]:
    if run.result.test.comparison.verdict == "inconclusive":
        yield Caveat(
            weight="strong",
            title="Nothing proven",
            text="The interval of the difference includes both harm beyond the margin and no harm. "
            f"{_what_would_decide(run)} would decide it; absence of proof is not proof of equality.",
        )


def _what_would_decide(run: RunFiles) -> str:
    """More test cases, or first the luck of training measured, where most of the interval is what is assumed of it."""
    spread = run.result.test.comparison.difference[run.measure.judges].spread
    if spread is None or spread.is_measured or spread.trainings < spread.cases or run.result.folds:
        return "More test cases"
    return f"Most of it is the luck of training that is assumed: --seeds {FEWEST_TRAININGS}, then more test cases,"


def _seeds(run: RunFiles) -> Iterator[Caveat]:
    num, folds = len(run.result.seeds), run.result.folds
    if num < FEWEST_TRAININGS or folds:
        # Of folds the first seed alone is pooled.
        title = "One training of each fold" if folds else "One training seed" if num == 1 else f"{num} training seeds"
        known = "was measured on two trainings alone" if num == 2 and not folds else "was not measured"
        taken = "takes what they differ by, at least" if num == 2 and not folds else "assumes"
        text = (
            f"How much another training changes {run.measure.judges_name} {known}: the interval of the difference "
            f"{taken} a standard deviation of {USUAL_SD}, the intervals of the models leave it out. The verdict is "
            "about the models as trained here."
        )
        yield Caveat(
            weight="note", title=title, text=text if folds else f"{text} --seeds {FEWEST_TRAININGS} measures it."
        )


def _unreadable(run: RunFiles) -> Iterator[Caveat]:
    counts = run.result.audit.counts
    lost = counts.unreadable
    if lost:
        of_all = percent(share(lost, lost + counts.images))
        yield Caveat(
            weight="note",
            title="Files left out",
            text=f"{integer(lost)} {run.result.noun} ({of_all}) could not be read and count in no number.",
        )


def _same_source(run: RunFiles) -> Iterator[Caveat]:
    if not run.result.is_phantom:
        yield Caveat(
            weight="note",
            title="One source",
            text="Test and training come from the same cohort. Another hospital, scanner or mix of "
            "patients can "
            "give other numbers: measure there with medgraft evaluate before any use.",
        )


RULES: Final[tuple[Callable[[RunFiles], Iterator[Caveat]], ...]] = (
    _phantom,
    _test_size,
    _rare_classes,
    _openings,
    _audit_findings,
    _observers,
    _patients,
    _weights,
    _warm_start,
    _still_learning,
    _verdict,
    _seeds,
    _unreadable,
    _same_source,
)
