"""Two paragraphs of methods ready for a paper, and the references they need, from the facts of the run."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from medgraft.backbones.spec import LIFTS
from medgraft.report import formatting as fmt
from medgraft.report.caveats import is_patient_known, is_phantom
from medgraft.report.measures import LABELS, MASKS, measure_of
from medgraft.report.reading import RunFiles, look_up, was_searched
from medgraft.report.search_figure import USUAL_TOLERANCE
from medgraft.report.wording import SEARCHES, WORDINGS, depth_sentence, is_solved, strategy_words

__all__ = ["REFERENCES", "citation", "decision_sentence", "methods", "summary_sentence"]

Cite = Callable[..., str]
_USUAL_REPLICATES: Final = 2000

REFERENCES: Final = {
    "peng": "Peng L, Liang H, Luo G, Li T, Sun J. Rethinking transfer learning for medical image "
    "classification. "
    "BMVC 2023; medRxiv 2022.11.26.22282782.",
    "kim": "Kim HE, Cosa-Linan A, Santhanam N, et al. Transfer learning for medical image classification: "
    "a literature review. BMC Medical Imaging 2022;22:69.",
    "raghu": "Raghu M, Zhang C, Kleinberg J, Bengio S. Transfusion: understanding transfer learning for "
    "medical "
    "imaging. NeurIPS 2019.",
    "tajbakhsh": "Tajbakhsh N, Shin JY, Gurudu SR, et al. Convolutional neural networks for medical "
    "image analysis: "
    "full training or fine tuning? IEEE Trans Med Imaging 2016;35:1299–1312.",
    "matsoukas": "Matsoukas C, Haslum JF, Sorkhei M, Söderberg M, Smith K. What makes transfer learning "
    "work for "
    "medical images: feature reuse & other factors. CVPR 2022.",
    "howard": "Howard J, Ruder S. Universal language model fine-tuning for text classification. ACL 2018.",
    "kumar": "Kumar A, Raghunathan A, Jones R, Ma T, Liang P. Fine-tuning can distort pretrained features and "
    "underperform out-of-distribution. ICLR 2022.",
    "li": "Li X, Grandvalet Y, Davoine F. Explicit inductive bias for transfer learning with convolutional networks. "
    "ICML 2018.",
    "hu": "Hu EJ, Shen Y, Wallis P, et al. LoRA: low-rank adaptation of large language models. ICLR 2022.",
    "delong": "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated "
    "receiver "
    "operating characteristic curves. Biometrics 1988;44:837–845.",
    "efron": "Efron B, Tibshirani RJ. An introduction to the bootstrap. Chapman & Hall, 1993.",
    "piaggio": "Piaggio G, Elbourne DR, Pocock SJ, Evans SJW, Altman DG. Reporting of noninferiority and "
    "equivalence "
    "randomized trials: extension of the CONSORT 2010 statement. JAMA 2012;308:2594–2604.",
    "youden": "Youden WJ. Index for rating diagnostic tests. Cancer 1950;3:32–35.",
    "wilson": "Wilson EB. Probable inference, the law of succession, and statistical inference. "
    "J Am Stat Assoc 1927;22:209–212.",
    "guo": "Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML 2017.",
    "nikolov": "Nikolov S, Blackwell S, Zverovitch A, et al. Clinically applicable segmentation of head and neck "
    "anatomy for radiotherapy. J Med Internet Res 2021;23:e26151.",
    "brier": "Brier GW. Verification of forecasts expressed in terms of probability. Mon Weather Rev 1950;78:1–3.",
}
LOSSES: Final = {
    "dice-ce": "the sum of Dice and cross-entropy",
    "dice-bce": "the sum of Dice and the binary cross-entropy of each class",
    "dice": "Dice",
    "focal": "the sum of Dice and focal loss",
    "tversky": "Tversky's",
}
WEIGHT_SOURCES: Final = {"none": "random weights", "packaged": "the weights packaged with medgraft"}


def summary_sentence(run: RunFiles) -> str:
    """The run's own verdict sentence, or a plain one from its numbers where it has none.

    Args:
        run: The run folder's content.

    Examples:
        >>> from pathlib import Path
        >>> summary_sentence(RunFiles(root=Path("run"), results={"test": {"verdict": "better"}}))
        'Against full fine-tuning the verdict is: better.'
    """
    told = look_up(run.results, "test.sentence")
    if told:
        # A hyphen before a digit is a minus, unless it stands inside a word or a name.
        return re.sub(r"(?<![\w-])-(?=\d)", "\u2212", str(told))
    verdict = look_up(run.results, "test.verdict")
    if verdict:
        return f"Against full fine-tuning the verdict is: {verdict}."
    measure = measure_of(run.results)
    return f"Test {measure.test_name} {fmt.with_interval(look_up(run.results, f'test.chosen.{measure.test}'))}."


def methods(run: RunFiles) -> tuple[list[str], list[str]]:
    """Two paragraphs (model and training; evaluation) with bracketed numbers, and the numbered references.

    Args:
        run: The run folder's content.

    Examples:
        >>> from pathlib import Path
        >>> results = {"task": "binary", "chosen": {"strategy": "ttl"}, "classes": ["normal", "sick"]}
        >>> paragraphs, references = methods(RunFiles(root=Path("run"), results=results))
        >>> len(paragraphs), "Rethinking" in references[0]
        (2, True)
    """
    cited: list[str] = []

    def cite(*keys: str) -> str:
        for key in keys:
            if key not in cited:
                cited.append(key)
        return f" [{', '.join(str(cited.index(key) + 1) for key in keys)}]" if keys else ""

    training = " ".join(part for part in (_model(run, cite), _data(run), _search(run, cite)) if part)
    testing = " ".join(part for part in (_metrics(run, cite), _intervals(run, cite), _result(run)) if part)
    return [training, testing], [REFERENCES[key] for key in cited]


def citation(results: Mapping[str, Any]) -> str:
    """How to cite the program.

    Args:
        results: Of a run or a comparison, which tell the version.
    """
    version = look_up(results, "versions.medgraft", "")
    name = f"medgraft {version}" if version else "medgraft"
    return f"{name}: transfer learning for medical images, with truncation. Apache-2.0."


def decision_sentence(analysis: Mapping[str, Any]) -> str:
    """Where the features would cut, in a sentence, and how right that was; empty without a decision.

    Args:
        analysis: ``analysis.json``.
    """
    found = analysis.get("decision")
    if not found:
        return ""
    names = {cut["index"]: cut["name"] for cut in analysis["cuts"]}

    def place(index: int) -> str:
        return f"cut {index} ({names.get(index, '')})"

    index = found["cut"]["index"]
    reason = (
        "whose probe is best"
        if index == found["best"]
        else f"the smallest whose probe is not distinguishable from the best, {fmt.number(found['best_probe'])} at "
        f"{place(found['best'])}"
    )
    text = f"The fine-tuned features say: keep {place(index)}, {reason} (AUPRC {fmt.number(found['probe'])})."
    if not found["is_truncated"]:
        return text
    if found["trained"] is None:
        return f"{text} The search did not train there; it chose {place(found['chosen'])}."
    behind = found["best_trained"] - found["trained"]
    if behind <= 0:
        told = "the best of those compared"
    else:
        told = f"{fmt.number(behind)} below the best of those compared" if behind >= 0.0005 else "as good as the best"
    chosen = "so did the search" if index == found["chosen"] else f"the search chose {place(found['chosen'])}"
    return f"{text} Trained there, validation AUPRC is {fmt.number(found['trained'])}, {told}; {chosen}."


def _model(run: RunFiles, cite: Cite) -> str:
    source = look_up(run.results, "backbone.load_report.source")
    chosen = look_up(run.results, "chosen", {})
    words, wording = strategy_words(chosen), WORDINGS.get(chosen.get("strategy", ""))
    keys = wording.references if wording else ()
    sides = run.results.get("patch") or look_up(run.results, "preprocessing.sides")
    kinds = {"binary": "two classes", "multiclass": "the classes", "multilabel": "independent labels"}
    text = f"A {look_up(run.results, 'backbone.name', 'pretrained')} network"
    if source is not None:
        text += f" with {WEIGHT_SOURCES.get(source, f'weights from {source}')}"
    lift = look_up(run.results, "backbone.lift", "none")
    text += f", lifted to volumes ({LIFTS.get(lift, lift)})" if lift != "none" else ""
    text += f" received inputs of {fmt.sides(sides)}" if sides else " was adapted to the task"
    task = str(run.results.get("task", ""))
    if task == "segmentation":
        text += f" and, with a new {chosen.get('head', '')} decoder, was trained to mark"
    else:
        text += f" to tell apart {kinds.get(task, 'the classes')}"
    if task == "segmentation":
        text += f" {', '.join(run.classes)}. {_patches(run)}"
    else:
        text += f" ({', '.join(run.classes)})." if run.classes else "."
    return text + (f" The strategy was {words}{cite(*keys)}." if words else "")


def _patches(run: RunFiles) -> str:
    """What a training on masks saw, and how whole images are marked."""
    train, loss = look_up(run.results, "train", {}), look_up(run.results, "train.loss", "dice-ce")
    marked = fmt.percent(train.get("foreground"))
    return (
        f"In an epoch {train.get('patches')} patches of every image were drawn, {marked} of them around a marked "
        f"pixel; the loss was {LOSSES.get(loss, loss)}. Whole images were marked by patches that overlap by half, "
        "their middles counting most."
    )


def _data(run: RunFiles) -> str:
    splits, folds = look_up(run.results, "splits", {}), run.results.get("folds") or ()
    counts = case_counts_line(splits.get("counts", {}), run.results.get("task"), splits.get("images", {}))
    if folds:
        cases = f"{fmt.integer(look_up(run.results, 'test.num_cases'))} {run.case_noun}"
        counts = (
            f" by nested cross-validation: each of the {cases} was tested once, in one of {len(folds)} folds, by a "
            "model for which the other folds were divided into training and validation"
        )
    if not counts:
        return ""
    what = f"Generated phantom {run.noun}" if is_phantom(run) else run.noun.capitalize()
    alone = f"identical {run.noun}" if run.case_noun == run.noun else f"{run.case_noun} and identical {run.noun}"
    apart = {
        True: f"all {run.noun} of a patient lay in one part",
        False: f"{alone} lay in one part each (patients were not known)",
        None: f"dependent {run.noun} lay in one part",
    }[is_patient_known(run)]
    return f"{what} were split{counts}; {apart}."


def case_counts_line(counts: Mapping[str, Any], task: Any, images: Mapping[str, int] | None = None) -> str:
    """The sizes of the splits for a sentence, or an empty string.

    Args:
        counts: Split to class to count.
        task: Multilabel images (and those with masks) are counted once per label, so there `images` has to tell.
        images: Split to number of images, where the run stored it.

    Examples:
        >>> case_counts_line({"train": {"a": 6}, "val": {"a": 2}, "test": {"a": 2}}, "multiclass")
        ' into 6 for training, 2 for validation and 2 for test'
    """
    if not {"train", "val", "test"} <= set(counts):
        return ""
    sizes = dict(images or {})
    if not sizes and task in ("multilabel", "segmentation"):
        return " into training, validation and test"
    sizes = sizes or {split: sum(found.values()) for split, found in counts.items()}
    train, val, test = (fmt.integer(sizes[split]) for split in ("train", "val", "test"))
    return f" into {train} for training, {val} for validation and {test} for test"


def _search(run: RunFiles, cite: Cite) -> str:
    chosen = look_up(run.results, "chosen", {})
    cut = look_up(chosen, "cut", {})
    if not cut:
        return ""
    seeds = run.results.get("seeds") or []
    over = f" over {len(seeds)} seeds" if len(seeds) > 1 else ""
    budget = f" The final model and full fine-tuning were trained with the same budget{over}."
    if chosen.get("strategy") == "ftl" or is_solved(chosen):
        budget = ""
    elif chosen.get("init") == "ftl":
        extra = fmt.number(look_up(run.results, "search.beyond_ftl"), 2)
        budget = (
            " The final model goes on from the weights of full fine-tuning; full fine-tuning itself, trained on for "
            f"what the search cost beyond it ({extra} of its computation), stands beside{over}."
        )
    if not was_searched(run):
        return f"{depth_sentence(chosen, is_searched=False)}.{budget}"
    trials = look_up(run.results, "search.num_trials")
    method = look_up(run.results, "search.method", "two-stage")
    is_warm = method == "guided" and look_up(run.results, "search.start") == "ftl"
    words, reference = SEARCHES.get("guided from ftl" if is_warm else method, (f"by the search {method}", ""))
    score = "average precision" if measure_of(run.results) is LABELS else "mean Dice"
    judge = "from training images alone, " if method == "svcca" else f"on validation alone by {score}, "
    text = f"The depth was chosen {judge}{words}"
    text += cite(reference) if reference else ""
    if trials:
        seeds, epochs = look_up(run.results, "search.seeds", 1), look_up(run.results, "search.epochs")
        each = f"; the mean of {seeds} seeds of {epochs} epochs counted at every cut" if seeds > 1 else ""
        text += f" ({trials} trials{each})"
    if look_up(run.results, "chosen.rule") == "compact":
        tolerance = fmt.number((run.choice or {}).get("tolerance", USUAL_TOLERANCE))
        text += (
            "; among all cuts tried, the smallest network was taken whose paired bootstrap difference to the "
            f"best was at most {'' if measure_of(run.results) is MASKS else 'one standard deviation and at most '}"
            f"{tolerance}"
        )
    return f"{text}{_chosen_cuts(run, cut)}{budget}"


def _chosen_cuts(run: RunFiles, cut: Mapping[str, Any]) -> str:
    cuts = [look_up(fold, "cut", {}) for fold in run.results.get("folds") or ()] or [cut]
    named = ", ".join(f"{one.get('index', fmt.ABSENT)} ({one.get('name', fmt.ABSENT)})" for one in cuts)
    return f", in every fold by itself. Cuts {named} were chosen." if len(cuts) > 1 else f". Cut {named} was chosen."


def _metrics(run: RunFiles, cite: Cite) -> str:
    if measure_of(run.results) is MASKS:
        test = look_up(run.results, "test", {})
        unit = "pixel" if test.get("unit") == "px" else "mm"
        tolerance = f"{fmt.number(test.get('tolerance'), 1)} {unit}" + ("s" if unit == "pixel" else "")
        return (
            f"Masks were judged once on {_held_out(run)}, at the images' own resolution, by Dice, Jaccard, the "
            f"95th percentile of the symmetric surface distance and surface Dice at {tolerance}{cite('nikolov')}, as "
            "means over cases of the means over classes; a class that neither mask shows counts as right, one that "
            "only one shows as wrong (distance: the image's diagonal). Dice of all pixels pooled stands beside."
        )
    spread = "" if run.results.get("task") == "binary" else " (unweighted means over one-vs-rest classes)"
    text = (
        f"Performance was measured once on {_held_out(run)} as AUROC and step-wise average "
        f"precision{spread}; "
        f"probabilities were judged by the Brier score{cite('brier')} and the expected calibration error "
        f"with 15 bins{cite('guo')}."
    )
    rule = str(look_up(run.results, "test.chosen.operating_point.rule", ""))
    if rule.startswith("youden"):
        return f"{text} Operating points were fixed on validation by Youden's index{cite('youden')}."
    return f"{text} Operating points were fixed on validation ({rule})." if rule else text


def _held_out(run: RunFiles) -> str:
    return "the held-out parts of all folds together" if run.results.get("folds") else "the held-out test set"


def _intervals(run: RunFiles, cite: Cite) -> str:
    over = {True: "patients", False: f"{run.case_noun} or sets of identical {run.noun}", None: "independent groups"}
    text = (
        f"Intervals of 95 % come from {fmt.integer(look_up(run.results, 'test.replicates', _USUAL_REPLICATES))} "
        f"bootstrap replicates over {over[is_patient_known(run)]}"
        f"{'' if measure_of(run.results) is MASKS else ', stratified by class'}{cite('efron')}"
    )
    groups, cases = look_up(run.results, "test.num_groups"), look_up(run.results, "test.num_cases")
    if run.results.get("task") == "binary" and groups is not None and groups == cases:
        text += f", that of AUROC from DeLong's method{cite('delong')}"
    if look_up(run.results, "test.chosen.operating_point"):
        text += f", those of sensitivity and the like from Wilson's method{cite('wilson')}"
    text += "; the difference to full fine-tuning was taken on the same replicates."
    margin = fmt.value_of(look_up(run.results, "test.margin"))
    if margin is not None:
        text += f" Non-inferiority was defined beforehand as a lower bound above {fmt.signed(-margin)} "
        text += measure_of(run.results).test_name
        text += f"{cite('piaggio')}."
    return text


def _result(run: RunFiles) -> str:
    test = look_up(run.results, "test", {})
    measure = measure_of(run.results)
    chosen, baseline = (look_up(test, f"{role}.{measure.test}") for role in ("chosen", "baseline"))
    if not chosen:
        return ""
    text = f"{measure.test_name[:1].upper()}{measure.test_name[1:]} was {fmt.with_interval(chosen)}"
    if baseline:
        text += f" against {fmt.with_interval(baseline)} for full fine-tuning"
    difference = look_up(test, f"difference.{measure.test}")
    if difference:
        text += f" (difference {fmt.signed_with_interval(difference)}, {fmt.p_value(difference)})"
    sizes = look_up(run.results, "efficiency", {})
    part = fmt.share(look_up(sizes, "chosen.num_params"), look_up(sizes, "baseline.num_params"))
    return text + (f", with {fmt.percent(part)} of the parameters." if part is not None else ".")
