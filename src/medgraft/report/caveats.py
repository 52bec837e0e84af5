"""What a reader must know before believing the numbers, derived from the facts of the run alone."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

from medgraft.report.formatting import integer, percent, share, signed_with_interval, value_of
from medgraft.report.measures import measure_of
from medgraft.report.reading import RunFiles, look_up, num_unscored

__all__ = ["Caveat", "find_caveats", "is_patient_known", "is_phantom", "still_learning"]

FEW_GROUPS: Final = 20
MODEST_GROUPS: Final = 100
FEW_CASES_OF_A_CLASS: Final = 10
_USUAL_MARGIN: Final = 0.02
# From the weakest statement to the strongest.
_VERDICTS: Final = ("worse", "inconclusive", "non-inferior", "better")
SUSPECT_KINDS: Final = {"conflict": "Contradicting labels", "confounding": "A shortcut in the data"}
DOUBTFUL_MASKS: Final = {
    "mask-affine": "Masks that lie elsewhere than their images",
    "mask-shift": "Masks that may be shifted, or of other images",
    "mask-label": "Numbers that hardly any mask holds",
}
MASKS_LEFT_OUT: Final = ("mask-unreadable", "mask-size")
"""For these findings cases are left out."""


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

    Examples:
        >>> from pathlib import Path
        >>> run = RunFiles(root=Path("run"), results={"test": {"num_groups": 12}, "ledger": {"openings": 3}})
        >>> [caveat.title for caveat in find_caveats(run)][:2]
        ['Few test patients or groups', 'Test labels opened 3 times']
    """
    found = [caveat for rule in RULES for caveat in rule(run)]
    return tuple(sorted(found, key=lambda caveat: caveat.weight != "strong"))


def is_phantom(run: RunFiles) -> bool:
    """Whether the cohort is the packaged phantom.

    Args:
        run: The run folder's content.
    """
    told = [str(run.results.get(key, "")) for key in ("data", "cohort", "command")]
    notes = [str(note) for note in run.results.get("notes") or ()]
    return (
        bool(run.results.get("is_phantom"))
        or "medgraft demo" in told[2]
        or any("phantom" in text.lower() for text in (*told[:2], *notes))
    )


def is_patient_known(run: RunFiles) -> bool | None:
    """Whether cases of one patient were kept together by a patient id; None where the run does not tell.

    Args:
        run: The run folder's content.
    """
    kind = look_up(run.results, "splits.group_kind") or look_up(run.results, "splits.groups")
    if isinstance(kind, str):
        return kind == "patient"
    table = run.predictions.get("test")
    if table is None or "patient" not in table:
        return None
    return bool((table["patient"].fillna("").astype(str) != "").any())


def _phantom(run: RunFiles) -> Iterator[Caveat]:
    if is_phantom(run):
        yield Caveat(
            weight="strong",
            title="A demonstration, not evidence",
            text=f"The {run.noun} are a generated phantom. The numbers show that the program works; "
            "they say nothing about real patients.",
        )


def _test_size(run: RunFiles) -> Iterator[Caveat]:
    groups = value_of(look_up(run.results, "test.num_groups"))
    cases = look_up(run.results, "test.num_cases")
    if groups is None or groups >= MODEST_GROUPS:
        return
    counted = f"{integer(groups)} independent patients or groups" + (
        f" ({integer(cases)} {run.case_noun})" if cases else ""
    )
    if groups < FEW_GROUPS:
        yield Caveat(
            weight="strong",
            title="Few test patients or groups",
            text=f"The test holds only {counted}. Below {FEW_GROUPS} the intervals themselves are rough; "
            + ("collect more." if run.results.get("folds") else "use --folds 5 or collect more."),
        )
    else:
        yield Caveat(
            weight="note",
            title="A modest test set",
            text=f"The test holds {counted}: read the intervals, not the point values.",
        )


def _rare_classes(run: RunFiles) -> Iterator[Caveat]:
    counts = look_up(run.results, "splits.counts.test", {})
    rare = [f"{name} ({count})" for name, count in counts.items() if count < FEW_CASES_OF_A_CLASS]
    if rare:
        yield Caveat(
            weight="strong",
            title="Hardly any test cases of a class",
            text=f"Fewer than {FEW_CASES_OF_A_CLASS} test cases: {', '.join(rare)}. "
            "What is said about them rests on single cases.",
        )


def _openings(run: RunFiles) -> Iterator[Caveat]:
    openings = value_of(look_up(run.results, "ledger.openings"))
    if openings is not None and openings > 1:
        yield Caveat(
            weight="strong",
            title=f"Test labels opened {integer(openings)} times",
            text="The labels of these test cases were looked at in other runs on this machine too. "
            "If the best of several runs is shown, its score is optimistic.",
        )


def _audit_findings(run: RunFiles) -> Iterator[Caveat]:
    notes = " ".join(str(note) for note in run.results.get("notes") or ())
    for finding in (run.audit or look_up(run.results, "audit", {})).get("findings") or ():
        kind, severity = str(finding.get("kind", "")).lower(), finding.get("severity")
        message = str(finding.get("message", "")).strip()
        if kind.endswith("-across-splits") and "Leaks were dropped" in notes:
            yield Caveat(
                weight="note",
                title="Leaks removed",
                text=f"{message} They were taken out of training and validation; the test is whole.",
            )
        elif severity == "stop":
            yield Caveat(weight="strong", title="A leak or defect in the data", text=message)
        elif severity == "warn" and kind.startswith("near"):
            yield Caveat(
                weight="strong",
                title="Near-duplicates",
                text=f"{message} Where such a pair lies in two splits the test is easier than it should be.",
            )
        elif severity == "warn" and (title := SUSPECT_KINDS.get(kind.rpartition("-")[2])):
            yield Caveat(weight="strong", title=title, text=message)
        elif severity == "warn" and kind in DOUBTFUL_MASKS:
            yield Caveat(weight="strong", title=DOUBTFUL_MASKS[kind], text=message)
        elif severity == "warn" and kind in MASKS_LEFT_OUT:
            yield Caveat(weight="note", title="Cases left out for their masks", text=message)


def _observers(run: RunFiles) -> Iterator[Caveat]:
    for name, reason in look_up(run.results, "test.observers_left_out", {}).items():
        yield Caveat(
            weight="note",
            title="An observer who cannot be compared",
            text=f"Nothing is said of {name} beside the truth: {reason}.",
        )


def _patients(run: RunFiles) -> Iterator[Caveat]:
    if is_patient_known(run) is False:
        yield Caveat(
            weight="strong",
            title="No patient ids",
            text=f"Without them two {run.noun} of one patient can lie in training and in test, "
            "which flatters every score and narrows every interval. Give --patient-column or "
            "--patient-regex.",
        )


def _weights(run: RunFiles) -> Iterator[Caveat]:
    report = look_up(run.results, "backbone.load_report", {})
    fraction, test_name = value_of(report.get("matched_fraction")), measure_of(run.results).test_name
    second = look_up(run.results, f"second_baseline.difference.{measure_of(run.results).test}")
    if report.get("source") in ("none", "") or fraction == 0:
        yield Caveat(
            weight="note",
            title="No pretrained weights",
            text="Both models started from random weights; this run says nothing about transfer.",
        )
    elif fraction is not None and fraction < 1:
        yield Caveat(
            weight="strong" if fraction < 0.9 else "note",
            title="Partly random weights",
            text=f"The weights file filled {percent(fraction)} of the network's parameters; the rest "
            f"started at random. "
            + (
                "The fairer baseline, full fine-tuning cut at the last fully pretrained block, is shown beside: "
                f"against it {test_name} differs by {signed_with_interval(second)}: "
                f"{look_up(run.results, 'second_baseline.verdict')}."
                if second
                else "Full fine-tuning carries that handicap too."
            ),
        )


def _warm_start(run: RunFiles) -> Iterator[Caveat]:
    gain = look_up(run.results, "continued.difference.auroc")
    if gain is not None:
        verdicts = [look_up(run.results, f"{place}.verdict") for place in ("test", "continued")]
        ranks = [_VERDICTS.index(verdict) if verdict in _VERDICTS else 0 for verdict in verdicts]
        yield Caveat(
            weight="strong" if ranks[1] < ranks[0] else "note",
            title="Trained longer than its baseline",
            text="The chosen model went on from the weights of full fine-tuning. Against full fine-tuning that was "
            f"trained on for the same computation its AUROC differs by {signed_with_interval(gain)}: "
            f"{verdicts[1]}.",
        )


def _still_learning(run: RunFiles) -> Iterator[Caveat]:
    text = still_learning(run.results)
    if text:
        gains = [value_of(look_up(run.results, f"late_gain.{role}")) or 0.0 for role in ("chosen", "baseline")]
        yield Caveat(
            weight="strong" if gains[1] > gains[0] else "note", title="Training ended while it still helped", text=text
        )


def still_learning(results: Mapping[str, Any]) -> str:
    """Which of the two models gained more than the margin on validation in the last quarter of the epochs, in words.

    Args:
        results: ``results.json``.

    Returns:
        Two sentences; empty where neither did.

    Examples:
        >>> still_learning({"late_gain": {"chosen": 0.004, "baseline": 0.09}, "task": "segmentation"})[:86]
        'In the last quarter of the epochs full fine-tuning still rose by 0.090 in mean Dice on'
    """
    names = {"chosen": "the chosen model", "baseline": "full fine-tuning"}
    margin = look_up(results, "test.margin", _USUAL_MARGIN)
    gains = {role: value_of(look_up(results, f"late_gain.{role}")) or 0.0 for role in names}
    rose = [f"{name} still rose by {gains[role]:.3f}" for role, name in names.items() if gains[role] > margin]
    if not rose:
        return ""
    advice = "Give more --epochs"
    if gains["baseline"] > gains["chosen"]:
        advice += ": a baseline that has not learned what it can flatters the chosen model"
    score = measure_of(results).val_name
    return f"In the last quarter of the epochs {' and '.join(rose)} in {score} on validation. {advice}."


def _verdict(run: RunFiles) -> Iterator[Caveat]:
    if look_up(run.results, "test.verdict") == "inconclusive":
        yield Caveat(
            weight="strong",
            title="Nothing proven",
            text="The interval of the difference includes both harm beyond the margin and no harm. "
            "More test cases would decide it; absence of proof is not proof of equality.",
        )


def _seeds(run: RunFiles) -> Iterator[Caveat]:
    seeds = run.results.get("seeds")
    if isinstance(seeds, list) and len(seeds) == 1:
        yield Caveat(
            weight="note",
            title="One training seed",
            text="The intervals cover the choice of test cases, not the luck of training. --seeds 3 would show it.",
        )


def _unreadable(run: RunFiles) -> Iterator[Caveat]:
    skipped = num_unscored(run, "test")
    if skipped:
        of_all = percent(share(skipped, len(run.predictions["test"])))
        yield Caveat(
            weight="note",
            title="Cases left out",
            text=f"{integer(skipped)} test cases ({of_all}) could not be read and count in no number.",
        )


def _same_source(run: RunFiles) -> Iterator[Caveat]:
    if not is_phantom(run):
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
