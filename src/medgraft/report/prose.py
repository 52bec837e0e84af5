"""Two paragraphs of methods ready for a paper, and the references they need, from the facts of the run."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from medgraft.backbones.spec import LIFTS
from medgraft.config import TrainConfig
from medgraft.evaluate.over_seeds import USUAL_SD
from medgraft.metrics.measures import Measure
from medgraft.report import formatting as fmt
from medgraft.report.caveats import is_patient_known
from medgraft.report.run_files import RunFiles, was_searched
from medgraft.report.words import SEARCHES, SURFACE_UNITS, WORDINGS, depth_sentence, strategy_words
from medgraft.result.analysis import AnalysisResult
from medgraft.result.run import RunResult, SplitFacts
from medgraft.search.rule import Choice
from medgraft.types import SPLITS

__all__ = ["REFERENCES", "citation", "decision_sentence", "methods", "split_sizes", "with_minus"]

Cite = Callable[..., str]

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
    "obuchowski": "Obuchowski NA. Nonparametric analysis of clustered ROC curve data. Biometrics 1997;53:567–578.",
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


def with_minus(text: str) -> str:
    """Text whose hyphens before digits are minus signs, unless they stand inside a word or a name.

    Examples:
        >>> with_minus("resnet-18: -0.001")
        'resnet-18: −0.001'
    """
    return re.sub(r"(?<![\w-])-(?=\d)", "\u2212", text)


def methods(run: RunFiles) -> tuple[list[str], list[str]]:
    """Two paragraphs (model and training; evaluation) with bracketed numbers, and the numbered references.

    Args:
        run: The run folder's content.
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


def citation(versions: Mapping[str, str]) -> str:
    """How to cite the program.

    Args:
        versions: Versions of a run or of a comparison.
    """
    version = versions.get("medgraft", "")
    name = f"medgraft {version}" if version else "medgraft"
    return f"{name}: transfer learning for medical images, with truncation. Apache-2.0."


def decision_sentence(analysis: AnalysisResult | None) -> str:
    """Where the features would cut, in a sentence, and how right that was; empty without a decision.

    Args:
        analysis: A run's analysis; None where it was not analysed.
    """
    if analysis is None or analysis.decision is None:
        return ""
    decision, names = analysis.decision, analysis.names

    def named(index: int) -> str:
        return f"cut {index} ({names.get(index, '')})"

    index = decision.cut.index
    reason = (
        "whose probe is best"
        if index == decision.best
        else f"the smallest whose probe is not distinguishable from the best, {fmt.number(decision.best_probe)} at "
        f"{named(decision.best)}"
    )
    text = f"The fine-tuned features say: keep {named(index)}, {reason} (AUPRC {fmt.number(decision.probe)})."
    if not decision.is_truncated:
        return text
    if decision.trained is None:
        return f"{text} The search did not train there; it chose {named(decision.chosen)}."
    behind = decision.best_trained - decision.trained
    if behind <= 0:
        rank = "the best of those compared"
    else:
        rank = f"{fmt.number(behind)} below the best of those compared" if behind >= 0.0005 else "as good as the best"
    chosen = "so did the search" if index == decision.chosen else f"the search chose {named(decision.chosen)}"
    return f"{text} Trained there, validation AUPRC is {fmt.number(decision.trained)}, {rank}; {chosen}."


def _model(run: RunFiles, cite: Cite) -> str:
    result, chosen = run.result, run.result.chosen
    source, wording = result.backbone.load_report.source, WORDINGS.get(chosen.strategy)
    lift = result.backbone.lift
    text = f"A {result.backbone.name} network with {WEIGHT_SOURCES.get(source, f'weights from {source}')}"
    text += f", lifted to volumes ({LIFTS[lift]})" if lift != "none" else ""
    text += f" received inputs of {fmt.sides(result.patch or result.preprocessing.sides)}"
    names = ", ".join(run.classes)
    if result.task == "segmentation":
        text += f" and, with a new {chosen.head} decoder, was trained to mark {names}. {_patches(result.train)}"
    else:
        kinds = {"binary": "two classes", "multiclass": "the classes", "multilabel": "independent labels"}
        text += f" to tell apart {kinds[result.task]} ({names})."
    return f"{text} The strategy was {strategy_words(chosen)}{cite(*(wording.references if wording else ()))}."


def _patches(train: TrainConfig) -> str:
    """What a training on masks saw, and how whole images are marked."""
    return (
        f"In an epoch {train.patches} patches of every image were drawn, {fmt.percent(train.foreground)} of them "
        f"around a marked pixel; the loss was {LOSSES[train.loss]}. Whole images were marked by patches that overlap "
        "by half, their middles counting most."
    )


def _data(run: RunFiles) -> str:
    result = run.result
    counts = split_sizes(result.splits)
    if result.folds:
        cases = f"{fmt.integer(result.test.num_cases)} {result.case_noun}"
        counts = (
            f" by nested cross-validation: each of the {cases} was tested once, in one of {len(result.folds)} folds, "
            "by a model for which the other folds were divided into training and validation"
        )
    what = f"Generated phantom {result.noun}" if result.is_phantom else result.noun.capitalize()
    alone = f"identical {result.noun}"
    if result.case_noun != result.noun:
        alone = f"{result.case_noun} and {alone}"
    apart = f"{alone} lay in one part each (patients were not known)"
    if is_patient_known(run):
        apart = f"all {result.noun} of a patient lay in one part"
    return f"{what} were split{counts}; {apart}."


def split_sizes(splits: SplitFacts) -> str:
    """The sizes of the splits for a sentence, or an empty string where only the test is told (of folds)."""
    if set(splits.images) < set(SPLITS):
        return ""
    train, val, test = (fmt.integer(splits.images[split]) for split in SPLITS)
    return f" into {train} for training, {val} for validation and {test} for test"


def _search(run: RunFiles, cite: Cite) -> str:
    result, chosen, search = run.result, run.result.chosen, run.result.search
    over = f" over {len(result.seeds)} seeds" if len(result.seeds) > 1 else ""
    budget = f" The final model and full fine-tuning were trained with the same budget{over}."
    if chosen.strategy == "ftl" or chosen.is_solved:
        budget = ""
    elif chosen.init == "ftl":
        extra = fmt.number(search.beyond_ftl, 2)
        budget = (
            " The final model goes on from the weights of full fine-tuning; full fine-tuning itself, trained on for "
            f"what the search cost beyond it ({extra} of its computation), stands beside{over}."
        )
    if not was_searched(run):
        return f"{depth_sentence(chosen, is_searched=False)}.{budget}"
    is_warm = search.method == "guided" and search.start == "ftl"
    wording = SEARCHES.get("guided from ftl" if is_warm else search.method)
    words, reference = wording or (f"by the search {search.method}", "")
    score = "average precision" if run.measure.chooses == "auprc" else run.measure.chooses_name
    judge = "from training images alone, " if search.method == "svcca" else f"on validation alone by {score}, "
    text = f"The depth was chosen {judge}{words}{cite(reference) if reference else ''}"
    each = (
        f"; the mean of {search.seeds} seeds of {search.epochs} epochs counted at every cut" if search.seeds > 1 else ""
    )
    text += f" ({search.num_trials} trials{each})"
    if chosen.rule == "compact" and run.choice is not None:
        text += f"; {_rule(run.choice, run.measure)}"
    return f"{text}{_chosen_cuts(result)}{budget}"


def _rule(choice: Choice, measure: Measure) -> str:
    """What the rule ``compact`` took."""
    tolerance = fmt.number(choice.tolerance)
    if choice.sure is None:
        bound = "" if measure.tolerance_alone else "one standard deviation and at most "
        return (
            "among all cuts tried, the smallest network was taken whose paired bootstrap difference to the best was at "
            f"most {bound}{tolerance}"
        )
    return (
        f"among all cuts tried, the smallest network was taken that loses at most {tolerance} against the best with a "
        f"probability of {choice.sure:g} or more (or the highest there was), from a Gaussian process over the cuts "
        "whose noise is the bootstrap's covariance and the luck of training"
    )


def _chosen_cuts(result: RunResult) -> str:
    cuts = [fold.cut for fold in result.folds] or [result.chosen.cut]
    named = ", ".join(f"{cut.index} ({cut.name})" for cut in cuts)
    return f", in every fold by itself. Cuts {named} were chosen." if len(cuts) > 1 else f". Cut {named} was chosen."


def _metrics(run: RunFiles, cite: Cite) -> str:
    test = run.result.test
    if test.reference.tolerance is not None:
        unit = SURFACE_UNITS[test.reference.unit]
        return (
            f"Masks were judged once on {_held_out(run)}, at the images' own resolution, by Dice, Jaccard, the "
            f"95th percentile of the symmetric surface distance and surface Dice at "
            f"{fmt.number(test.reference.tolerance, 1)} {unit}{cite('nikolov')}, as means over cases of the means over "
            "classes; a class that neither mask shows counts as right, one that only one shows as wrong (distance: "
            "the image's diagonal). Dice of all pixels pooled stands beside."
        )
    spread = "" if run.result.task == "binary" else " (unweighted means over one-vs-rest classes)"
    text = (
        f"Performance was measured once on {_held_out(run)} as AUROC and step-wise average "
        f"precision{spread}; "
        f"probabilities were judged by the Brier score{cite('brier')} and the expected calibration error "
        f"with 15 bins{cite('guo')}."
    )
    if test.chosen.rule.startswith("youden"):
        return f"{text} Operating points were fixed on validation by Youden's index{cite('youden')}."
    return f"{text} Operating points were fixed on validation ({test.chosen.rule})." if test.chosen.rule else text


def _held_out(run: RunFiles) -> str:
    return "the held-out parts of all folds together" if run.result.folds else "the held-out test set"


def _intervals(run: RunFiles, cite: Cite) -> str:
    result, test = run.result, run.result.test
    over = "patients" if is_patient_known(run) else f"{result.case_noun} or sets of identical {result.noun}"
    replicates = f"{fmt.integer(test.replicates)} bootstrap replicates"
    # References are numbered in the order in which they are cited.
    if test.reference.tolerance is None:
        ranks = f"those of AUROC and its differences from DeLong's variance{cite('delong')}, summed within {over}"
        ranks += f"{cite('obuchowski')}, with Student's t"
        areas = f"that of AUPRC, on the logit scale, from {replicates}{cite('efron')}, stratified by class"
        shares = f"those of accuracy, sensitivity and the like from Wilson's method{cite('wilson')}"
        text = f"Intervals of 95 % are over {over}: {ranks}; {areas}; {shares}; all others from percentiles of these"
    else:
        text = (
            f"Intervals of 95 % are Student's t over {over}, those of pooled Dice percentiles of "
            + f"{replicates}{cite('efron')}; differences are paired"
        )
    return (
        f"{text}. {_trainings(run)}Non-inferiority was defined beforehand as a lower bound above "
        f"{fmt.signed(-test.margin)} {run.measure.judges_name}{cite('piaggio')}."
    )


def _trainings(run: RunFiles) -> str:
    """Where the luck of training stands in the interval of the difference; empty where it is not in it."""
    spread = run.result.test.comparison.difference[run.measure.judges].spread
    if spread is None or spread.trainings == 0:
        return ""
    if spread.is_measured:
        return "The interval of the difference adds the variance between trainings to that over cases. "
    return (
        "The interval of the difference adds to the variance over cases that of trainings, which was assumed "
        f"(standard deviation {USUAL_SD}). "
    )


def _result(run: RunFiles) -> str:
    test, metric, name = run.result.test, run.measure.judges, run.measure.judges_name
    gap = test.comparison.difference[metric]
    sizes = run.result.efficiency
    part = fmt.share(sizes.chosen.num_params, sizes.baseline.num_params)
    return (
        f"{name[:1].upper()}{name[1:]} was {fmt.with_interval(test.chosen.scores[metric])} against "
        f"{fmt.with_interval(test.baseline.scores[metric])} for full fine-tuning (difference "
        f"{fmt.signed_with_interval(gap)}, {fmt.p_value(gap)}), with {fmt.percent(part)} of the parameters."
    )
