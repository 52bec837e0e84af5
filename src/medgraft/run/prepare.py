"""From a path to everything a search needs: audited and divided cohort, cache, network, engine."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Final, Literal

import numpy as np

from medgraft.backbones.build import build_backbone, check_size, lifted
from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.backbones.spec import Backbone, BackboneSpec, Lift
from medgraft.config import DataConfig, RunConfig
from medgraft.data.audit import audit_cohort
from medgraft.data.cache import DecodedCohort, build_cache
from medgraft.data.cohort import Unknown, read_cohort
from medgraft.data.findings import Audit
from medgraft.data.groups import groups_of
from medgraft.data.identity import keep_names
from medgraft.data.leaks import apply_leaks
from medgraft.data.mask_cache import build_mask_cache
from medgraft.data.masks import read_mask_cohort
from medgraft.data.split import split_cohort
from medgraft.data.store import store_folder
from medgraft.errors import BackboneError, ConfigError, DataError
from medgraft.io.intensity import ct_windows
from medgraft.io.preprocess import intensity_scale
from medgraft.listener import Listener
from medgraft.run.sides import image_and_patch_sides, typical_sides
from medgraft.study import Study
from medgraft.transfer.source import Source, prepare_source
from medgraft.types import Cohort, Preprocessing, Reading

__all__ = [
    "Prepared",
    "audited",
    "digest_of",
    "fitted",
    "network_of",
    "open_cohort",
    "prepared",
    "preprocessing_of",
    "reading_of",
    "wanted_dims",
]

_USUAL_LIFT: Final[Lift] = "slices"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """What a search needs.

    Args:
        cohort: Readable, after the leak policy, every row in a split.
        decoded: The cache.
        rows: (N,) row of the cache of each case.
        groups: (N,) group of each case.
        audit: Of the cohort as given.
        preprocessing: From a file to the network's input.
        source: The network with its cuts.
        given: What the audit looked at: the cohort before leaks were dropped.
        masks: (M, *sides) uint8 class numbers, a row for each of the cache; of a segmentation.
    """

    cohort: Cohort
    decoded: DecodedCohort
    rows: np.ndarray
    groups: np.ndarray
    audit: Audit
    preprocessing: Preprocessing
    source: Source
    given: Cohort
    masks: np.ndarray | None = None

    @property
    def input_sides(self) -> tuple[int, ...]:
        """What the network sees at once: an image or, of images with masks, a patch of it."""
        return tuple(self.source.trace.shapes[self.source.trace.input][2:])

    @property
    def study(self) -> Study:
        """The images with what belongs to them, without network and audit."""
        return Study(
            cohort=self.cohort,
            decoded=self.decoded,
            rows=self.rows,
            groups=self.groups,
            preprocessing=self.preprocessing,
            patch=self.input_sides if self.masks is not None else (),
            masks=self.masks,
        )


def open_cohort(config: DataConfig, listener: Listener, dims: Literal["auto", 2, 3] = "auto", seed: int = 0) -> Cohort:
    """The cohort, after saying what was inferred.

    Args:
        config: Where it lies.
        listener: Told what was inferred.
        dims: What the network reads where `config` leaves it open.
        seed: Of what a training is told of uncertain labels.
    """
    cohort = (
        _masks(config)
        if config.task == "segmentation"
        else read_cohort(
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
            unknown=Unknown(uncertain=config.uncertain, blank=config.blank, seed=seed),
        )
    )
    if cohort.positive is not None:
        listener.say(f"Positive class: {cohort.positive} (of {' and '.join(cohort.classes)}).")
    for note in cohort.notes:
        listener.say(note)
    if cohort.files:
        listener.say(f"Which is which stands in {keep_names(cohort.root, cohort.files)}, on this machine alone.")
    return cohort


def _masks(config: DataConfig) -> Cohort:
    """A cohort whose truth are masks; options about labels mean nothing there."""
    given = {
        "--label-column": config.label_column,
        "--positive": config.positive,
        "--labels": config.labels,
        "--uncertain": config.uncertain,
        "--grades": config.grades or None,
        "--blank": config.blank if config.blank != "refuse" else None,
        "--key": config.key if config.key != "path" else None,
        "data.unit": config.unit if config.unit != "image" else None,
    }
    if asked := next((name for name, value in given.items() if value is not None), None):
        raise ConfigError(f"{asked} is about labels, got a segmentation, whose truth are masks. Leave it out.")
    cohort = read_mask_cohort(
        config.source,
        observer=config.observer,
        classes=config.mask_classes,
        path_column=config.path_column,
        patient_column=config.patient_column,
        patient_regex=config.patient_regex,
    )
    if config.dims not in ("auto", cohort.dims):
        raise ConfigError(f"data.dims={config.dims} was given, but these masks are of {cohort.noun}. Leave it out.")
    return cohort


def audited(
    cohort: Cohort,
    config: DataConfig,
    sides: tuple[int, ...],
    channels: int | None,
    listener: Listener,
    *,
    folder: Path | None = None,
) -> tuple[Cohort, DecodedCohort, Audit]:
    """The readable part of `cohort`, its cache, and the audit; findings are said.

    Args:
        cohort: As it was read.
        config: How files are read, and where the store of decoded cohorts is.
        sides: Of the decoded images in px, of volumes in voxels.
        channels: That the network reads; None where it reads either.
        listener: Told how far it is, and what the audit found.
        folder: Where the cache lies instead of in the store.
    """
    if folder is None:
        folder, limit = store_of(config), round(config.cache_gb * 1e9)
    else:
        limit = None
    decoded = build_cache(
        cohort,
        folder,
        sides=sides,
        channels=config.channels if config.channels is not None else channels,
        resize=config.resize,
        reading=reading_of(config),
        limit=limit,
        progress=lambda done, total: listener.step("reading images", done, total),
    )
    readable = cohort.select(decoded.rows)
    audit = audit_cohort(readable, decoded)
    for finding in audit.findings:
        listener.say(f"{finding.severity}: {finding.message}")
    if not audit.findings:
        listener.say("The audit found nothing.")
    return readable, decoded, audit


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
    return Reading(rescale=config.rescale, windows=config.windows, scaling=config.scaling, spacing_mm=config.spacing_mm)


def network_of(config: RunConfig) -> Backbone:
    """The network with its weights, as it is published; `fitted` makes it read volumes.

    Raises:
        BackboneError: The network takes neither one nor three channels.
    """
    spec = BackboneSpec(
        name=config.backbone.name,
        args=config.backbone.args,
        weights=config.backbone.weights,
        size=config.backbone.size,
        mean=config.backbone.mean,
        std=config.backbone.std,
        is_offline=config.offline,
    )
    backbone = build_backbone(spec, seed=config.seed)
    if backbone.in_channels not in (1, 3):
        raise BackboneError(f"expected a network for 1 or 3 channels, got {backbone.in_channels}.")
    return backbone


def wanted_dims(config: RunConfig, backbone: Backbone) -> Literal["auto", 2, 3]:
    """What a cohort has to be for this network: volumes where it reads them or is told to, else whatever it is."""
    return 3 if backbone.dims == 3 or config.backbone.lift not in ("auto", "none") else "auto"


def fitted(config: RunConfig, backbone: Backbone, cohort: Cohort) -> tuple[Backbone, tuple[int, ...]]:
    """The network as it reads `cohort`, lifted where needed, and the sides of its input in px or voxels.

    Raises:
        BackboneError: It cannot read volumes, or may not be made to; or it reads nothing else.
    """
    lift = config.backbone.lift
    if cohort.dims < backbone.dims:
        raise BackboneError(
            f"expected a network for images, got {backbone.spec.name}, which reads volumes. Choose another --backbone, "
            "or --set data.dims=3 where the files are slices of volumes."
        )
    if cohort.dims > backbone.dims:
        if lift == "none":
            raise BackboneError(
                f"{backbone.spec.name} reads images and the cohort is volumes. Use another --lift (acs, i3d …), or a "
                "network for volumes such as monai/resnet10."
            )
        usual: Lift = "acs" if cohort.task == "segmentation" else _USUAL_LIFT
        backbone = lifted(backbone, usual if lift == "auto" else lift)
    check_size(backbone)
    return backbone, backbone.sides or typical_sides(cohort)


def store_of(config: DataConfig) -> Path:
    """The folder in which decoded cohorts are kept."""
    return store_folder() if config.cache is None else Path(config.cache)


def prepared(config: RunConfig, listener: Listener) -> Prepared:
    """Everything a search needs; with folds the cohort is not divided yet.

    Raises:
        MedgraftError: Whatever is wrong with the input; see the functions called.
    """
    network = network_of(config)
    cohort = open_cohort(config.data, listener, wanted_dims(config, network), config.seed)
    backbone, sides = fitted(config, network, cohort)
    image_sides = sides
    if cohort.task == "segmentation":
        # The packaged network was taught on films of 64 px, which are no size for patches of larger images.
        is_asked = backbone.spec.size is not None or backbone.spec.name != PACKAGED_NAME
        asked = backbone.sides if is_asked else None
        image_sides, sides = image_and_patch_sides(config, cohort, asked, is_fixed=backbone.is_fixed)
    source = prepare_source(backbone, sides)
    channels = 1 if backbone.in_channels == 1 else None
    readable, decoded, audit = audited(cohort, config.data, image_sides, channels, listener)
    kept = apply_leaks(readable, audit, config.data.leaks)
    _say_new(kept, readable, listener)
    masks = None
    if cohort.task == "segmentation":
        kept, masks = _masked(kept, readable, decoded, listener)
    rows = decoded.rows_of(kept)
    groups = groups_of(readable, audit.exact_duplicates, audit.near_duplicates)[rows]
    # Folds divide later, each in its own way.
    divided = kept if config.data.folds > 1 else split_cohort(kept, groups, config.seed)
    _say_new(divided, kept, listener)
    return Prepared(
        cohort=divided,
        decoded=decoded,
        rows=rows,
        groups=groups,
        audit=audit,
        preprocessing=preprocessing_of(source, decoded, rows if config.data.folds > 1 else rows[divided.rows("train")]),
        source=source,
        given=readable,
        masks=masks,
    )


def digest_of(found: Prepared) -> str:
    """What a run learns from and is judged by: which images, their labels or masks, who belongs together."""
    cohort = found.cohort
    digest = hashlib.sha256(repr((cohort.classes, cohort.task, found.groups.tolist())).encode())
    for path, split in zip(cohort.table["path"], cohort.table["split"], strict=True):
        digest.update(f"{path} {split}\n".encode(errors="surrogateescape"))
    for values in (cohort.targets, cohort.training_targets):
        digest.update(np.ascontiguousarray(values).tobytes())
    # An image that was exchanged has another thumbnail; of masks a pixel may have been corrected.
    for values in (found.decoded.thumbs,) if found.masks is None else (found.decoded.thumbs, found.masks):
        for row in found.rows:
            digest.update(np.ascontiguousarray(values[row]).tobytes())
    return digest.hexdigest()


def _masked(kept: Cohort, readable: Cohort, decoded: DecodedCohort, listener: Listener) -> tuple[Cohort, np.ndarray]:
    """What of `kept` has a mask that can teach, and all masks, a row for each of the cache."""
    listener.say(f"Masks at {'×'.join(map(str, decoded.sides))}; results are judged at the images' own size.")
    found = build_mask_cache(readable, decoded)
    rows = decoded.rows_of(kept)
    lost = [row for row in rows.tolist() if row in found.unusable]
    if lost:
        first = f"{decoded.paths[lost[0]]} ({found.unusable[lost[0]]})"
        if len(lost) == len(rows):
            raise DataError(f"{kept.root}: no image has a mask that can be used. First: {first}")
        note = f"{len(lost)} images are left out for their masks, e.g. {first}; audit.json lists them."
        listener.say(f"warn: {note}")
        kept = kept.select(np.array([row not in found.unusable for row in rows.tolist()]))
        kept = dataclasses.replace(kept, notes=(*kept.notes, note))
    return kept, found.masks


def preprocessing_of(source: Source, decoded: DecodedCohort, train_rows: np.ndarray) -> Preprocessing:
    """How files become the network's input; the intensity scale comes from the training images alone."""
    backbone = source.backbone
    return Preprocessing(
        sides=decoded.sides,
        channels=decoded.channels,
        intensity_max=intensity_scale(decoded.maximum(train_rows)),
        resize=decoded.resize,
        normalisation=backbone.normalisation,
        mean=backbone.mean,
        std=backbone.std,
        reading=decoded.reading,
    )


def _say_new(after: Cohort, before: Cohort, listener: Listener) -> None:
    for note in after.notes[len(before.notes) :]:
        listener.say(note)
