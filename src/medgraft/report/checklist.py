"""A reporting checklist in the spirit of CLAIM and TRIPOD+AI, filled in where the run knows the answer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from medgraft.report import formatting as fmt
from medgraft.report.caveats import MASKS_LEFT_OUT, is_patient_known, is_phantom
from medgraft.report.measures import measure_of
from medgraft.report.prose import case_counts_line
from medgraft.report.reading import RunFiles, look_up, num_unscored
from medgraft.report.wording import chosen_name

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

    Examples:
        >>> from pathlib import Path
        >>> items = checklist(RunFiles(root=Path("run"), results={"seeds": [0]}))
        >>> [item.answer for item in items if item.question == "Random seeds"]
        ['0']
    """
    rows = (*_study(run), *_data(run), *_model(run), *_evaluation(run), *_discussion())
    return tuple(
        ChecklistItem(section=section, question=question, answer=answer or TO_FILL_IN, is_filled=bool(answer))
        for section, question, answer in rows
    )


def _study(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    task = run.results.get("task", "")
    kind = task if task == "segmentation" else f"{task} classification"
    named = f"{kind}: {', '.join(run.classes)}" if task and run.classes else ""
    positive = run.results.get("positive")
    return (
        ("Study", "Clinical question and intended role of the model", ""),
        ("Study", "Prospective or retrospective; ethics approval and consent", ""),
        ("Study", "Target and classes", named + (f"; positive: {positive}" if named and positive else "")),
    )


def _data(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    known = is_patient_known(run)
    alone = f"{run.case_noun} and identical {run.noun} kept whole (no patient ids)"
    separate = {True: "by patient", False: alone, None: ""}[known]
    splits = look_up(run.results, "splits", {})
    line = case_counts_line(splits.get("counts", {}), run.results.get("task"), splits.get("images", {}))
    folds = run.results.get("folds")
    sizes = f"{len(folds)} folds, each tested once" if folds else line.removeprefix(" into ")
    findings = (run.audit or look_up(run.results, "audit", {})).get("findings")
    origin = "generated phantom, no patients" if is_phantom(run) else ""
    return (
        ("Data", "Source, dates, sites, scanners and settings", origin),
        ("Data", "Inclusion and exclusion; demographics", origin),
        ("Data", "Reference standard and who read it", origin and "known by construction"),
        ("Data", "De-identification", origin),
        ("Data", "Partition sizes", sizes),
        ("Data", "How the partitions are disjoint", separate),
        (
            "Data",
            "Missing or unreadable cases",
            _missing(run, findings),
        ),
        (
            "Data",
            "Duplicates and leaks looked for",
            f"yes: {len(findings)} findings" if findings is not None else "",
        ),
        ("Data", "Preprocessing", _preprocessing(run)),
    )


def _missing(run: RunFiles, findings: Sequence[Mapping[str, Any]] | None) -> str:
    if run.results.get("task") == "segmentation":
        lost = [finding.get("count", 0) for finding in findings or () if finding.get("kind") in MASKS_LEFT_OUT]
        return f"{sum(lost)} {run.noun} without a mask that can be used, left out" if findings is not None else ""
    return f"{num_unscored(run, 'test')} test cases without prediction" if "test" in run.predictions else ""


def _preprocessing(run: RunFiles) -> str:
    told = look_up(run.results, "preprocessing", {})
    if not told.get("sides"):
        return ""
    words = {
        "squash": "each axis scaled on its own",
        "pad": "aspect kept, padded",
        "crop": "scale kept, cut or padded around the centre",
    }
    resize = words.get(told.get("resize", ""), str(told.get("resize", "")))
    return f"{fmt.sides(told['sides'])}, {resize}; intensities divided by {told.get('intensity_max', fmt.ABSENT)}"


def _model(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    results = run.results
    chosen = look_up(results, "chosen", {})
    report = look_up(results, "backbone.load_report", {})
    name = look_up(results, "backbone.name", "")
    architecture = f"{name}, {chosen_name(chosen)}" if name else ""
    start = f"{report.get('source')}, {fmt.percent(report.get('matched_fraction'))} of the parameters" if report else ""
    versions = ", ".join(f"{key} {value}" for key, value in look_up(results, "versions", {}).items())
    rule = chosen.get("rule")
    return (
        ("Model", "Architecture", architecture),
        ("Model", "Initialisation", start),
        (
            "Model",
            "How the final model was selected",
            f"validation {measure_of(results).val_name}, rule {rule}; test not used" if rule else "",
        ),
        ("Model", "Random seeds", ", ".join(str(seed) for seed in results.get("seeds") or ())),
        ("Model", "Software versions", versions),
        ("Model", "Size and speed", _size(run)),
        ("Model", "Where code, model and split can be had", ""),
    )


def _size(run: RunFiles) -> str:
    told = look_up(run.results, "efficiency.chosen", {})
    parts = (
        (told.get("num_params"), fmt.si, " parameters"),
        (told.get("macs"), fmt.si, " MACs"),
        (told.get("cpu_ms"), fmt.milliseconds, " on CPU"),
    )
    return ", ".join(write(value) + unit for value, write, unit in parts if value is not None)


def _evaluation(run: RunFiles) -> tuple[tuple[str, str, str], ...]:
    test = look_up(run.results, "test", {})
    measure = measure_of(run.results)
    main = look_up(test, f"chosen.{measure.test}")
    difference = look_up(test, f"difference.{measure.test}")
    rule = look_up(test, "chosen.operating_point.rule", "")
    openings = look_up(run.results, "ledger.openings")
    ece = look_up(test, "chosen.details.ece", look_up(test, "chosen.ece"))
    return (
        (
            "Evaluation",
            "Main metric with its uncertainty",
            f"{measure.test_name} {fmt.with_interval(main)}" if main else "",
        ),
        (
            "Evaluation",
            "Comparison with a baseline",
            f"full fine-tuning: {fmt.signed_with_interval(difference)} {measure.test_name}, {fmt.p_value(difference)}"
            if difference
            else "",
        ),
        ("Evaluation", "Operating points and how they were set", f"{rule}, on validation" if rule else ""),
        ("Evaluation", "Calibration", f"ECE {fmt.with_interval(ece)}" if ece is not None else ""),
        ("Evaluation", "How often the test labels were used", f"{openings} ×" if openings else ""),
        ("Evaluation", "External validation", ""),
        ("Evaluation", "Performance in subgroups; fairness", ""),
    )


def _discussion() -> tuple[tuple[str, str, str], ...]:
    return (
        ("Discussion", "Failure analysis by a clinician", ""),
        ("Discussion", "Clinical implications and limits", ""),
        ("Discussion", "Registration, protocol, funding, conflicts", ""),
    )
