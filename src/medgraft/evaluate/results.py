"""What a set of test cases says of models: typed values, and the JSON that stands for them in `results.json`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from medgraft.as_json import from_json, to_json
from medgraft.evaluate.intervals import Difference
from medgraft.evaluate.verdict import Verdict
from medgraft.metrics.overlap import MASK_METRICS

__all__ = [
    "ClassPoint",
    "ClassScores",
    "Comparison",
    "Estimate",
    "MaskReference",
    "ModelResult",
    "ObserverResult",
    "Scaled",
    "SiteResult",
    "TestResult",
    "comparison_from_json",
    "comparison_to_json",
    "judged_from_json",
    "judged_to_json",
    "model_from_json",
    "model_to_json",
    "reference_to_json",
]

# Metrics that stand in a model's part with their intervals; of the others the part holds the plain value, and
# ``details`` the rest.
_IN_FULL: Final = ("auroc", "auprc", *MASK_METRICS)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric of one model on one set of cases.

    Args:
        value: Value of the saved model; None where it does not exist (a share of no case).
        ci95: Ends of its 95 % interval, as far as there is one.
        mean: Mean over seeds or folds, as far as there are several.
        sd: Standard deviation over seeds or folds, as far as there are several.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    mean: float | None = None
    sd: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassPoint:
    """The operating point of one class: a threshold of its probability, and what that gives on the test cases."""

    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """Metrics of one class against the rest, and how many of the cases show it."""

    num_cases: int
    scores: dict[str, Estimate]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What temperature scaling, fitted on validation, would make of the probabilities."""

    temperature: float
    brier: float
    ece: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """Everything that the test cases say of one model.

    Args:
        scores: By metric, the one that judges first.
        per_class: By class, where there are several.
        rule: How operating points were chosen on validation; empty where there are none.
        points: By class.
        scaled: None where the model gives no probabilities, or nothing was fitted.
    """

    scores: dict[str, Estimate]
    per_class: dict[str, ClassScores] = dataclasses.field(default_factory=dict)
    rule: str = ""
    points: dict[str, ClassPoint] = dataclasses.field(default_factory=dict)
    scaled: Scaled | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on the same cases.

    Args:
        difference: By metric, the first model less the second.
        verdict: On the metric that judges.
        headline: The verdict in words, without a full stop.
        numbers: What it rests on, in words, without a full stop; empty where the two models are one.
    """

    difference: dict[str, Difference]
    verdict: Verdict
    headline: str
    numbers: str = ""

    @property
    def sentence(self) -> str:
        """The verdict with its numbers."""
        return f"{self.headline}: {self.numbers}." if self.numbers else f"{self.headline}."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SiteResult:
    """The chosen model on the cases of one site, or the reason why nothing can be said."""

    num_cases: int
    num_groups: int
    scores: dict[str, Estimate] = dataclasses.field(default_factory=dict)
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObserverResult:
    """Another observer against the truth on the same cases, and the chosen model less the observer."""

    num_cases: int
    scores: dict[str, Estimate]
    model_less_observer: dict[str, Difference]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MaskReference:
    """What stands beside the overlap of masks: how surfaces were measured, and what other people marked.

    Args:
        unit: Unit of distances between surfaces: ``px``, ``mm``, or ``mm_at_detector`` of magnified films; empty for
            labels.
        tolerance: Tolerance of surface Dice, in that unit; None for labels.
        observers: Other observers of masks, by name.
        observers_left_out: Observers who cannot be compared, and why.
    """

    unit: str = ""
    tolerance: float | None = None
    observers: dict[str, ObserverResult] = dataclasses.field(default_factory=dict)
    observers_left_out: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """What the one opening of a test set found out.

    Args:
        chosen: The chosen model.
        baseline: Full fine-tuning.
        comparison: The chosen model against full fine-tuning.
        margin: Non-inferiority margin, fixed beforehand.
        replicates: Replicates of the bootstrap.
        num_cases: Cases judged.
        num_groups: Independent groups (patients) among them.
        sites: By name, where the cohort tells them.
        reference: What stands beside masks.
    """

    # It begins with the word that makes pytest collect a class.
    __test__ = False

    chosen: ModelResult
    baseline: ModelResult
    comparison: Comparison
    margin: float
    replicates: int
    num_cases: int
    num_groups: int
    sites: dict[str, SiteResult] = dataclasses.field(default_factory=dict)
    reference: MaskReference = dataclasses.field(default_factory=MaskReference)


def model_to_json(model: ModelResult) -> dict[str, Any]:
    """A model's part of `results.json`.

    Examples:
        >>> model_to_json(ModelResult(scores={"auroc": Estimate(value=0.9), "ece": Estimate(value=0.1)}))["ece"]
        0.1
    """
    facts: dict[str, Any] = {
        name: to_json(score) if name in _IN_FULL else score.value for name, score in model.scores.items()
    }
    if model.points:
        facts["operating_point"] = {"rule": model.rule, "classes": to_json(model.points)}
    if details := {name: to_json(score) for name, score in model.scores.items() if name not in _IN_FULL}:
        facts["details"] = details
    if model.per_class:
        facts["per_class"] = {
            name: {"num_cases": part.num_cases, **to_json(part.scores)} for name, part in model.per_class.items()
        }
    if model.scaled is not None:
        facts["temperature_scaled"] = to_json(model.scaled)
    return facts


def model_from_json(stored: Mapping[str, Any]) -> ModelResult:
    """The value that `model_to_json` wrote; keys it does not know are left alone."""
    point, scaled = stored.get("operating_point") or {}, stored.get("temperature_scaled")
    full = {name: stored[name] for name in stored if name in _IN_FULL}
    return ModelResult(
        scores=_estimates({**full, **stored.get("details", {})}),
        per_class={
            name: ClassScores(
                num_cases=part["num_cases"], scores=_estimates({k: v for k, v in part.items() if k != "num_cases"})
            )
            for name, part in stored.get("per_class", {}).items()
        },
        rule=point.get("rule", ""),
        points={name: from_json(ClassPoint, class_point) for name, class_point in point.get("classes", {}).items()},
        scaled=None if scaled is None else from_json(Scaled, scaled),
    )


def judged_to_json(result: TestResult) -> dict[str, Any]:
    """The ``test`` part of `results.json`."""
    facts: dict[str, Any] = {
        "chosen": model_to_json(result.chosen),
        "baseline": model_to_json(result.baseline),
        **comparison_to_json(result.comparison),
        "margin": result.margin,
        "replicates": result.replicates,
        "num_cases": result.num_cases,
        "num_groups": result.num_groups,
    }
    if result.reference.tolerance is not None:
        facts |= reference_to_json(result.reference)
    if result.sites:
        facts["sites"] = {name: _with_scores(site) for name, site in result.sites.items()}
    return facts


def reference_to_json(reference: MaskReference) -> dict[str, Any]:
    """``unit, tolerance, observers, observers_left_out`` beside what is said of masks."""
    return {
        "unit": reference.unit,
        "tolerance": reference.tolerance,
        "observers": {name: _with_scores(observer) for name, observer in reference.observers.items()},
        "observers_left_out": dict(reference.observers_left_out),
    }


def judged_from_json(stored: Mapping[str, Any]) -> TestResult:
    """The value that `judged_to_json` wrote."""
    plain = ("margin", "replicates", "num_cases", "num_groups")
    beside = {name: stored[name] for name in ("observers_left_out", "unit", "tolerance") if name in stored}
    observers = {name: _without_scores(ObserverResult, entry) for name, entry in stored.get("observers", {}).items()}
    return TestResult(
        chosen=model_from_json(stored["chosen"]),
        baseline=model_from_json(stored["baseline"]),
        comparison=comparison_from_json(stored),
        sites={name: _without_scores(SiteResult, site) for name, site in stored.get("sites", {}).items()},
        reference=MaskReference(observers=observers, **beside),
        **{name: stored[name] for name in plain if name in stored},
    )


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """``difference, verdict, sentence`` and the two parts of the sentence."""
    return {**to_json(comparison), "sentence": comparison.sentence}


def comparison_from_json(stored: Mapping[str, Any]) -> Comparison:
    """The value that `comparison_to_json` wrote."""
    comparison: Comparison = from_json(Comparison, stored)
    return comparison


def _estimates(stored: Mapping[str, Any]) -> dict[str, Estimate]:
    return {name: from_json(Estimate, value) for name, value in stored.items()}


def _with_scores(value: SiteResult | ObserverResult) -> dict[str, Any]:
    """Scores beside the facts, not below them."""
    facts: dict[str, Any] = to_json(value)
    scores: dict[str, Any] = facts.pop("scores")
    return facts | scores


def _without_scores(kind: Any, stored: Mapping[str, Any]) -> Any:
    facts = {field.name for field in dataclasses.fields(kind)} - {"scores"}
    rest = {name: value for name, value in stored.items() if name not in facts}
    return from_json(kind, {**{name: stored[name] for name in facts if name in stored}, "scores": rest})
