"""The models a run leaves behind: one to use, one to compare with, and what both cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from medgraft.backbones.spec import Backbone
from medgraft.deploy.artefact import Artefact, Judging, WeightsOrigin, save_artefact
from medgraft.evaluate.efficiency import file_bytes, latency_ms
from medgraft.result.run import Cost, Efficiency, Role
from medgraft.search.trial import Trial, TrialContext, load_trial_model, slim_of
from medgraft.study.dataset import Dataset
from medgraft.transfer.model import TransferModel

__all__ = ["artefact_of", "store_models"]

_FOLDERS: Final[dict[Role, str]] = {"chosen": "model", "baseline": "baseline"}


def store_models(
    folder: Path,
    dataset: Dataset,
    context: TrialContext,
    trials: Mapping[Role, Trial],
    judging: Mapping[Role, Judging],
) -> Efficiency:
    """Costs of the chosen model and of full fine-tuning, after both were stored below `folder`.

    Args:
        folder: The run's folder.
        dataset: Its cohort.
        context: Context of its trials.
        trials: ``chosen`` and ``baseline``.
        judging: For each of the two what its `Artefact` knows of its judging.

    Raises:
        RunError: The folder cannot be written.
    """
    models: dict[str, TransferModel] = {role: load_trial_model(trials[role], context)[0] for role in _FOLDERS}
    sides = dataset.patch or dataset.preprocessing.sides
    times = latency_ms(models, torch.rand(1, dataset.preprocessing.channels, *sides))
    costs = {}
    for role, name in _FOLDERS.items():
        trial, backbone = trials[role], context.source.backbone
        save_artefact(
            folder / name, models[role], artefact_of(dataset, trial, models[role], backbone, judging[role]), backbone
        )
        costs[role] = Cost(
            num_params=trial.num_params,
            macs=trial.macs,
            cpu_ms=times[role],
            file_bytes=file_bytes(folder / name / "model.safetensors"),
        )
    return Efficiency(chosen=costs["chosen"], baseline=costs["baseline"], cpu_threads=torch.get_num_threads())


def artefact_of(
    dataset: Dataset, trial: Trial, model: TransferModel, backbone: Backbone, judging: Judging | None = None
) -> Artefact:
    """What is stored beside the tensors of a trial's model.

    Args:
        dataset: Its cohort.
        trial: Training of the model.
        model: Its network.
        backbone: Network that the model was made from.
        judging: Thresholds, temperature or tolerance; None where it was not judged.
    """
    report, cohort, scored = backbone.report, dataset.cohort, judging or Judging()
    return Artefact(
        task=cohort.task,
        classes=cohort.classes,
        positive=cohort.positive,
        is_ordinal=cohort.is_ordinal,
        judged_by=cohort.judged_by,
        strategy=trial.spec.strategy,
        cut=model.trunk.cut,
        head=trial.spec.head,
        preprocessing=dataset.preprocessing,
        thresholds=scored.thresholds,
        temperature=scored.temperature,
        tolerance_mm=scored.tolerance_mm,
        weights=WeightsOrigin(
            source=report.source, licence=report.licence, sha256=report.sha256, lineage=report.lineage
        ),
        frozen=model.frozen,
        slim=slim_of(trial.spec),
        patch=dataset.patch,
        mask_values=cohort.mask_values,
    )
