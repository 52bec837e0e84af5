"""A reporting checklist in the spirit of CLAIM and TRIPOD+AI, filled in where the run knows the answer."""

import dataclasses
from typing import Final

from medgraft.report import formatting as fmt
from medgraft.report.caveats import is_patient_known
from medgraft.report.prose import split_sizes
from medgraft.report.run_files import RunFiles
from medgraft.report.words import SURFACE_UNITS, chosen_name

__all__ = ["GUIDELINES", "TO_FILL_IN", "ChecklistItem", "checklist"]

TO_FILL_IN: Final = "to be filled in by the user"
GUIDELINES: Final = (
    "Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical Imaging "
    "(CLAIM): "
    "2024 update. Radiol Artif Intell 2024;6:e240300.",
    "Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement. BMJ 2024;385:e078378.",
    "Mitchell M, Wu S, Zaldivar A, et al. Model cards for model reporting. FAT* 2019.",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChecklistItem:
    """One line of the checklist.

    Args:
        section: Part of a paper it belongs to.
        question: What a reader must be able to find.
        answer: What the run knows, or `TO_FILL_IN`.
        is_filled: Whether the run knew it.
    """

    section: str
    question: str
    answer: str
    is_filled: bool


def checklist(run: RunFiles) -> tuple[ChecklistItem, ...]:
    """Every item of the checklist, in the order of a paper.

    Args:
        run: The run folder's content.
    """
    rows = (*_study(run), *_data(run), *_model(run), *_evaluation(run), *_discussion())
    return tuple(
        ChecklistItem(section=section, question=question, answer=answer or TO_FILL_IN, is_filled=bool(answer))
        for section, question, answer in rows
    )


def _study(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    result = run.result
    kind = result.task if result.task == "segmentation" else f"{result.task} classification"
    positive = f"; positive: {result.positive}" if result.positive else ""
    return (
        ("Study", "Clinical question and intended role of the model", ""),
        ("Study", "Prospective or retrospective; ethics approval and consent", ""),
        ("Study", "Target and classes", f"{kind}: {', '.join(run.classes)}{positive}"),
    )


def _data(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    result = run.result
    line = split_sizes(result.splits)
    sizes = f"{len(result.folds)} folds, each tested once" if result.folds else line.removeprefix(" into ")
    origin = "generated phantom, no patients" if result.is_phantom else ""
    return (
        ("Data", "Source, dates, sites, scanners and settings", origin),
        ("Data", "Inclusion and exclusion; demographics", origin),
        ("Data", "Reference standard and who read it", origin and "known by construction"),
        ("Data", "De-identification", origin),
        ("Data", "Partition sizes", sizes),
        ("Data", "How the partitions are disjoint", _disjoint(run)),
        ("Data", "Missing or unreadable cases", _missing(run)),
        ("Data", "Duplicates and leaks looked for", f"yes: {len(result.audit.findings)} findings"),
        ("Data", "Preprocessing", _preprocessing(run)),
    )


def _disjoint(run: RunFiles) -> str:
    result = run.result
    if not is_patient_known(run):
        return f"{result.case_noun} and identical {result.noun} kept whole (no patient ids)"
    unknown = result.splits.without_patient
    return f"by patient, who is not known of {fmt.integer(unknown)} {result.noun}" if unknown else "by patient"


def _missing(run: RunFiles) -> str:
    result = run.result
    lost = [f"{fmt.integer(result.audit.counts.unreadable)} {result.noun} that cannot be read"]
    if result.task == "segmentation":
        unusable = sum(finding.count for finding in result.audit.findings if finding.topic == "lost-mask")
        lost.append(f"{fmt.integer(unusable)} without a mask that can be used")
    return f"{' and '.join(lost)}, left out"


def _preprocessing(run: RunFiles) -> str:
    settings = run.result.preprocessing
    words = {
        "squash": "each axis scaled on its own",
        "pad": "aspect kept, padded",
        "crop": "scale kept, cut or padded around the centre",
    }
    return f"{fmt.sides(settings.sides)}, {words[settings.resize]}; intensities divided by {settings.intensity_max}"


def _model(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    result, report = run.result, run.result.backbone.load_report
    return (
        ("Model", "Architecture", f"{result.backbone.name}, {chosen_name(result.chosen)}"),
        ("Model", "Initialisation", f"{report.source}, {fmt.percent(report.matched_fraction)} of the parameters"),
        (
            "Model",
            "How the final model was selected",
            f"validation {run.measure.chooses_name}, rule {result.chosen.rule}; test not used",
        ),
        ("Model", "Random seeds", ", ".join(str(seed) for seed in result.seeds)),
        ("Model", "Software versions", ", ".join(f"{name} {number}" for name, number in result.versions.items())),
        ("Model", "Size and speed", _size(run)),
        ("Model", "Where code, model and split can be had", ""),
    )


def _size(run: RunFiles) -> str:
    cost = run.result.efficiency.chosen
    parts = (
        (cost.num_params, fmt.si, " parameters"),
        (cost.macs, fmt.si, " MACs"),
        (cost.cpu_ms, fmt.milliseconds, " on CPU"),
    )
    return ", ".join(write(value) + unit for value, write, unit in parts if value is not None)


def _evaluation(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    test, name = run.result.test, run.measure.judges_name
    main, gap = test.chosen.scores[run.measure.judges], test.comparison.difference[run.measure.judges]
    return (
        ("Evaluation", "Main metric with its uncertainty", f"{name} {fmt.with_interval(main)}"),
        (
            "Evaluation",
            "Comparison with a baseline",
            f"full fine-tuning: {fmt.signed_with_interval(gap)} {name}, {fmt.p_value(gap)}",
        ),
        *_thresholds(run),
        ("Evaluation", "How often the test labels were used", f"{run.result.ledger.openings} ×"),
        ("Evaluation", "External validation", ""),
        ("Evaluation", "Performance in subgroups; fairness", ""),
    )


def _thresholds(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    """What turns the model's output into a call: operating points and calibration of labels, the tolerance of masks."""
    test = run.result.test
    if test.reference.tolerance is not None:
        return (
            (
                "Evaluation",
                "Tolerance of surfaces",
                f"{fmt.number(test.reference.tolerance, 1)} {SURFACE_UNITS[test.reference.unit]}",
            ),
        )
    ece = test.chosen.scores.get("ece")
    return (
        (
            "Evaluation",
            "Operating points and how they were set",
            f"{test.chosen.rule}, on validation" if test.chosen.rule else "",
        ),
        ("Evaluation", "Calibration", f"ECE {fmt.with_interval(ece)}" if ece is not None else ""),
    )


def _discussion() -> tuple[tuple[str, str, str], ...]:
    return (
        ("Discussion", "Failure analysis by a clinician", ""),
        ("Discussion", "Clinical implications and limits", ""),
        ("Discussion", "Registration, protocol, funding, conflicts", ""),
    )
