"""What another cohort says of a finished model, as a value: `evaluation.json`."""

import dataclasses
from typing import Any

from medgraft.as_json import to_json
from medgraft.data.audit.findings import Finding
from medgraft.evaluate.results import MaskReference, ModelResult, SiteResult, model_to_json, reference_to_json

__all__ = ["ExternalResult", "external_to_json"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExternalResult:
    """What another cohort says of a model.

    Args:
        result: Metrics with intervals; operating points keep the thresholds chosen on validation.
        classes: Classes that were judged.
        unlabelled: Labels of the model that the cohort does not have.
        judged_by: What was judged as one.
        num_images: Readable images.
        num_cases: Cases judged.
        num_above_training_range: Images with values above those of the training images.
        findings: Findings of the audit.
        sites: Results by name of the site, where the cohort tells them.
        reference: What stands beside masks.
    """

    result: ModelResult
    classes: tuple[str, ...]
    num_images: int
    num_cases: int
    num_above_training_range: int
    findings: tuple[Finding, ...]
    unlabelled: tuple[str, ...] = ()
    judged_by: str = "image"
    sites: dict[str, SiteResult] = dataclasses.field(default_factory=dict)
    reference: MaskReference = dataclasses.field(default_factory=MaskReference)


def external_to_json(result: ExternalResult) -> dict[str, Any]:
    """The content of `evaluation.json`."""
    facts: dict[str, Any] = to_json(result)
    model = model_to_json(result.result)
    del facts["result"], facts["findings"], facts["reference"]
    metrics = {name: to_json(score) for name, score in result.result.scores.items()}
    facts |= {"metrics": metrics, "audit": to_json(result.findings)}
    if result.result.per_class:
        facts["per_class"] = model["per_class"]
    if result.result.points:
        facts["operating_point"] = to_json(result.result.points)
    facts["sites"] = {key: part | part.pop("scores") for key, part in facts["sites"].items()}
    if result.reference.tolerance is not None:
        del facts["judged_by"]
        facts |= reference_to_json(result.reference)
    return facts
