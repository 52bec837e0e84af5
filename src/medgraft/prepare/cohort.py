"""From a path to a cohort, decoded and audited, with what was inferred said."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import numpy as np

from medgraft.config import DataConfig
from medgraft.data.audit.audit import audit_cohort
from medgraft.data.audit.findings import Audit
from medgraft.data.cohort.identity import keep_names
from medgraft.data.cohort.labelled import Known, Unknown, read_cohort
from medgraft.data.cohort.marked import read_mask_cohort
from medgraft.data.decoded.images import DecodedCohort, build_cache
from medgraft.data.decoded.store import store_folder
from medgraft.data.groups import groups_of
from medgraft.errors import ConfigError
from medgraft.io.intensity import ct_windows
from medgraft.listener import Listener
from medgraft.types import Cohort, Reading

__all__ = ["AuditedCohort", "audited", "decoded_as_asked", "open_cohort", "reading_of", "store_of"]


def open_cohort(
    config: DataConfig,
    listener: Listener,
    dims: Literal["auto", 2, 3] = "auto",
    seed: int = 0,
    known: Known | None = None,
) -> Cohort:
    """The cohort, after saying what was inferred.

    Args:
        config: Where it lies.
        listener: Told what was inferred.
        dims: What the network reads where `config` leaves it open.
        seed: Seeds what a training is told of uncertain labels.
        known: What a finished model predicts, for a cohort that tests it.

    Raises:
        MedgraftError: Nothing there can be read, or an option does not fit it.
    """
    cohort = _OPENED[config.task](config, dims, seed, known)
    if cohort.positive is not None:
        listener.say(f"Positive class: {cohort.positive} (of {' and '.join(cohort.classes)}).")
    for note in cohort.notes:
        listener.say(note)
    if cohort.files:
        listener.say(f"Which is which stands in {keep_names(cohort.root, cohort.files)}, on this machine alone.")
    return cohort


def _labelled(config: DataConfig, dims: Literal["auto", 2, 3], seed: int, known: Known | None) -> Cohort:
    """A cohort whose truth are labels.

    Args:
        config: Where it lies and how it is read.
        dims: What the network reads where `config` leaves it open.
        seed: Seeds what a training is told of uncertain labels.
        known: What a finished model predicts.
    """
    return read_cohort(
        config.source,
        path_column=config.path_column,
        label_column=config.label_column,
        patient_column=config.patient_column,
        patient_regex=config.patient_regex,
        positive=config.positive,
        labels=config.labels,
        key=config.key,
        unit=config.unit,
        dims=config.dims if config.dims != "auto" else dims,
        grades=config.grades,
        frames=config.frames,
        known=known,
        unknown=Unknown(uncertain=config.uncertain, blank=config.blank, seed=seed),
    )


def _marked(config: DataConfig, _dims: Literal["auto", 2, 3], _seed: int, _known: Known | None) -> Cohort:
    """A cohort whose truth are masks; options about labels mean nothing there.

    Args:
        config: Where it lies and how it is read.
        _dims: Not used: the masks tell it.
        _seed: Not used: nothing is drawn.
        _known: Not used: classes of masks are compared by their numbers, too.
    """
    label_options = {
        "--label-column": config.label_column,
        "--positive": config.positive,
        "--labels": config.labels,
        "--uncertain": config.uncertain,
        "--grades": config.grades or None,
        "--blank": config.blank if config.blank != "refuse" else None,
        "--key": config.key if config.key != "path" else None,
        "data.unit": config.unit if config.unit != "image" else None,
        "data.frames": "all" if config.frames == "all" else None,
    }
    if asked := next((name for name, value in label_options.items() if value is not None), None):
        raise ConfigError(f"{asked} is about labels, got a segmentation, whose truth are masks. Leave it out.")
    cohort = read_mask_cohort(
        config.source,
        observer=config.observer,
        classes=config.mask_classes,
        ignored=config.mask_ignore,
        path_column=config.path_column,
        patient_column=config.patient_column,
        patient_regex=config.patient_regex,
    )
    if config.dims not in ("auto", cohort.dims):
        raise ConfigError(f"data.dims={config.dims} was given, but these masks are of {cohort.noun}. Leave it out.")
    return cohort


_OPENED: Final[dict[str, Callable[[DataConfig, Literal["auto", 2, 3], int, Known | None], Cohort]]] = {
    "classification": _labelled,
    "segmentation": _marked,
}
"""How a cohort is read, by `DataConfig.task`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AuditedCohort:
    """A cohort that was decoded and looked at.

    Args:
        cohort: Its readable part.
        decoded: The images of that part.
        audit: What was found.
    """

    cohort: Cohort
    decoded: DecodedCohort
    audit: Audit

    @property
    def groups(self) -> np.ndarray:
        """(N,) int64: which images belong together, because of a patient, or because they are nearly the same."""
        return groups_of(self.cohort, self.audit.exact_duplicates, self.audit.near_duplicates)


def audited(
    cohort: Cohort,
    config: DataConfig,
    sides: tuple[int, ...],
    channels: int | None,
    listener: Listener,
    *,
    folder: Path | None = None,
) -> AuditedCohort:
    """The readable part of `cohort`, decoded and audited; findings are said.

    Args:
        cohort: As it was read.
        config: How files are read, and where the store of decoded cohorts is.
        sides: Sides of the decoded images in px, of volumes in voxels.
        channels: How many the network reads; None where it reads one or three.
        listener: Told how far it is, and what the audit found.
        folder: Where the cache lies instead of in the store.
    """
    decoded = decoded_as_asked(cohort, config, sides, channels, listener, folder=folder)
    readable = cohort.select(decoded.rows)
    audit = audit_cohort(readable, decoded)
    for finding in audit.findings:
        listener.say(f"{finding.severity}: {finding.message}")
    if not audit.findings:
        listener.say("The audit found nothing.")
    return AuditedCohort(cohort=readable, decoded=decoded, audit=audit)


def decoded_as_asked(
    cohort: Cohort,
    config: DataConfig,
    sides: tuple[int, ...],
    channels: int | None,
    listener: Listener,
    *,
    folder: Path | None = None,
) -> DecodedCohort:
    """The readable images of `cohort`, decoded.

    Args:
        cohort: As it was read.
        config: How files are read, and where the store of decoded cohorts is.
        sides: Sides of the decoded images in px, of volumes in voxels.
        channels: How many the network reads; None where it reads one or three.
        listener: Told how far it is.
        folder: Where the cache lies instead of in the store.
    """
    return build_cache(
        cohort,
        store_of(config) if folder is None else folder,
        sides=sides,
        channels=config.channels if config.channels is not None else channels,
        resize=config.resize,
        reading=reading_of(config),
        limit=round(config.cache_gb * 1e9) if folder is None else None,
        progress=lambda done, total: listener.step("reading images", done, total),
    )


def reading_of(config: DataConfig) -> Reading:
    """How stored numbers of medical files become intensities.

    Raises:
        ConfigError: No such window for CT, or neither one nor three.
    """
    if config.windows != ("file",):
        ct_windows(config.windows)
        if len(config.windows) not in (0, 1, 3):
            raise ConfigError(
                f"expected one or three windows (a grey or a colour image), got {', '.join(config.windows)}."
            )
    return Reading(
        rescale=config.rescale,
        windows=config.windows,
        scaling=config.scaling,
        spacing_mm=config.spacing_mm,
        complex=config.complex,
        frames=config.frames,
    )


def store_of(config: DataConfig) -> Path:
    """The folder in which decoded cohorts are kept."""
    return store_folder() if config.cache is None else Path(config.cache)
