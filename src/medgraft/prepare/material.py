"""From a path to all that a job works with: a divided, decoded and audited cohort, and the network that reads it."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from medgraft.backbones.packaged import PACKAGED_NAME
from medgraft.backbones.spec import Backbone
from medgraft.config import BackboneConfig, DataConfig
from medgraft.data.audit.findings import Audit
from medgraft.data.audit.leaks import apply_leaks
from medgraft.data.decoded.images import DecodedCohort
from medgraft.data.decoded.masks import build_mask_cache
from medgraft.data.groups import groups_of
from medgraft.data.split import split_cohort, undivided
from medgraft.errors import DataError
from medgraft.io.preprocess import intensity_scale
from medgraft.listener import Listener
from medgraft.prepare.cohort import audited, decoded_as_asked, open_cohort
from medgraft.prepare.network import fitted, named_network, network_for, network_of, wanted_dims
from medgraft.prepare.sides import image_and_patch_sides
from medgraft.sources.choose import NamedNetwork
from medgraft.study.dataset import Dataset
from medgraft.transfer.source import Source, prepare_source
from medgraft.types import Cohort, Preprocessing

__all__ = ["Material", "digest_of", "divided_material", "prepare_material", "preprocessing_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What a job works with.

    Args:
        dataset: Readable images, after the leak policy, every one in a split; with folds not divided yet.
        source: The network with its cuts.
        audit: Audit of the cohort as given.
        given: What the audit looked at: the cohort before leaks were dropped.
        are_leaks_dropped: Whether the given split leaked and was cleaned.
    """

    dataset: Dataset
    source: Source
    audit: Audit
    given: Cohort
    are_leaks_dropped: bool = False


def prepare_material(
    data: DataConfig, backbone: BackboneConfig, listener: Listener, *, seed: int, is_offline: bool
) -> Material:
    """Everything a search needs.

    Args:
        data: Where the cohort lies and how it is read.
        backbone: The network that reads it.
        listener: Told what was inferred, and what the audit found.
        seed: Seeds the split, labels that are drawn, and weights that are random.
        is_offline: Forbid any attempt to reach a hub.

    Raises:
        MedgraftError: Whatever is wrong with the input; see the functions called.
    """
    named, network = named_network(backbone), None
    if named is not None:
        network = _opened(backbone, named, listener, seed=seed, is_offline=is_offline)
    cohort = open_cohort(data, listener, wanted_dims(backbone.lift, network), seed)
    if network is None:
        network = _opened(backbone, network_for(backbone, cohort.dims), listener, seed=seed, is_offline=is_offline)
    if data.folds > 1:
        # Each fold divides all cases in its own way: what a given split shares between its parts is no leak of theirs.
        cohort = _noted(cohort, undivided(cohort), listener)
    source, image_sides, channels = _source_for(network, cohort, data, backbone)
    looked = audited(cohort, data, image_sides, channels, listener)
    readable, decoded, audit = looked.cohort, looked.decoded, looked.audit
    kept = _noted(readable, apply_leaks(readable, audit, data.leaks), listener)
    masks = None
    if cohort.task == "segmentation":
        kept, masks = _masked(kept, readable, decoded, listener)
    rows = decoded.rows_of(kept)
    groups = looked.groups[rows]
    divided = kept if data.folds > 1 else _noted(kept, split_cohort(kept, groups, seed), listener)
    dataset = Dataset(
        cohort=divided,
        decoded=decoded,
        rows=rows,
        groups=groups,
        preprocessing=preprocessing_of(source, decoded, rows if data.folds > 1 else rows[divided.rows("train")]),
        patch=source.input_sides if masks is not None else (),
        masks=masks,
    )
    return Material(
        dataset=dataset,
        source=source,
        audit=audit,
        given=readable,
        are_leaks_dropped=audit.has_leaks and data.leaks == "drop",
    )


def _noted(before: Cohort, after: Cohort, listener: Listener) -> Cohort:
    """`after`, once what its notes say beyond those of `before` was told.

    Args:
        before: The cohort.
        after: What became of it.
        listener: Told so.
    """
    for note in after.notes_since(before):
        listener.say(note)
    return after


def _opened(
    config: BackboneConfig, named: NamedNetwork, listener: Listener, *, seed: int, is_offline: bool
) -> Backbone:
    """The network with its weights, once the listener was told which it is where the user left that open.

    Args:
        config: Size, mean and deviation.
        named: The network and its weights.
        listener: Told so.
        seed: Seeds weights that are random.
        is_offline: Forbid any attempt to reach a hub.
    """
    if named.why:
        listener.say(f"Network {named.name} with weights {named.weights}: {named.why}")
    return network_of(config, named, seed=seed, is_offline=is_offline)


def divided_material(
    cohort: Cohort, data: DataConfig, backbone: BackboneConfig, folder: Path, *, seed: int, is_offline: bool
) -> Material:
    """Everything a search needs, of images that somebody else has read, labelled and divided; nothing is audited.

    Args:
        cohort: Divided; labels are its truth.
        data: How files are read.
        backbone: The network that reads it.
        folder: Decoded images are kept there.
        seed: Seeds weights that are random.
        is_offline: Forbid any attempt to reach a hub.

    Raises:
        DataError: An image cannot be read.
        MedgraftError: Whatever else is wrong with the input; see the functions called.
    """
    network = network_of(backbone, network_for(backbone, cohort.dims), seed=seed, is_offline=is_offline)
    source, sides, channels = _source_for(network, cohort, data, backbone)
    decoded = decoded_as_asked(cohort, data, sides, channels, Listener(), folder=folder)
    if decoded.broken:
        first = decoded.broken[0]
        raise DataError(
            f"expected readable images, got {len(decoded.broken)} others, first {first.path}: {first.reason}"
        )
    dataset = Dataset(
        cohort=cohort,
        decoded=decoded,
        rows=np.arange(len(cohort)),
        groups=groups_of(cohort, ()),
        preprocessing=preprocessing_of(source, decoded, cohort.rows("train")),
    )
    audit = Audit(findings=(), exact_duplicates=(), near_duplicates=(), num_images=len(cohort), num_broken=0)
    return Material(dataset=dataset, source=source, audit=audit, given=cohort)


def _source_for(
    network: Backbone, cohort: Cohort, data: DataConfig, backbone: BackboneConfig
) -> tuple[Source, tuple[int, ...], int | None]:
    """The network as it reads a cohort, the sides of the images, and the channels it insists on.

    Args:
        network: As it is published.
        cohort: What it shall read.
        data: How the cohort is read.
        backbone: How volumes are read by a network for images.
    """
    network, sides = fitted(network, cohort, backbone.lift)
    image_sides, sides = _image_and_input_sides(data, cohort, network, sides)
    return prepare_source(network, sides), image_sides, 1 if network.in_channels == 1 else None


def _image_and_input_sides(
    data: DataConfig, cohort: Cohort, network: Backbone, sides: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """At which size images are kept, and what the network sees of them at once: with masks a patch.

    Args:
        data: How the cohort is read.
        cohort: The images, with masks or without.
        network: Gives the sides of a patch where it names any.
        sides: Sides of the network's input for whole images.
    """
    if cohort.task != "segmentation":
        return sides, sides
    # The packaged network was taught on films of 64 px, which are no size for patches of larger images.
    is_asked = network.spec.size is not None or network.spec.name != PACKAGED_NAME
    return image_and_patch_sides(data, cohort, network.sides if is_asked else None, is_fixed=network.is_fixed)


def digest_of(material: Material) -> str:
    """What a run learns from and is judged by: which images, their labels or masks, who belongs together."""
    dataset, cohort = material.dataset, material.dataset.cohort
    digest = hashlib.sha256(repr((cohort.classes, cohort.task, dataset.groups.tolist())).encode())
    for path, split in zip(cohort.table["path"], cohort.table["split"], strict=True):
        digest.update(f"{path} {split}\n".encode(errors="surrogateescape"))
    for values in (cohort.targets, cohort.training_targets):
        digest.update(np.ascontiguousarray(values).tobytes())
    # An image that was exchanged has another thumbnail; of masks a pixel may have been corrected.
    for values in (dataset.decoded.thumbs,) if dataset.masks is None else (dataset.decoded.thumbs, dataset.masks):
        for row in dataset.rows:
            digest.update(np.ascontiguousarray(values[row]).tobytes())
    return digest.hexdigest()


def _masked(kept: Cohort, readable: Cohort, decoded: DecodedCohort, listener: Listener) -> tuple[Cohort, np.ndarray]:
    """What of `kept` has a mask that can teach, and all masks, a row for each of the cache.

    Args:
        kept: What is left after the leak policy.
        readable: All readable images; all their masks are cached.
        decoded: Cache of the images.
        listener: Told the size of the masks, and how many images are left out.
    """
    listener.say(f"Masks at {'×'.join(map(str, decoded.sides))}; results are judged at the images' own size.")
    stored = build_mask_cache(readable, decoded)
    rows = decoded.rows_of(kept)
    lost = [row for row in rows.tolist() if row in stored.unusable]
    if lost:
        first = f"{decoded.paths[lost[0]]} ({stored.unusable[lost[0]]})"
        if len(lost) == len(rows):
            raise DataError(f"{kept.root}: no image has a mask that can be used. First: {first}")
        note = f"{len(lost)} images are left out for their masks, e.g. {first}; audit.json lists them."
        listener.say(f"warn: {note}")
        kept = kept.select(np.array([row not in stored.unusable for row in rows.tolist()]))
        kept = dataclasses.replace(kept, notes=(*kept.notes, note))
    return kept, stored.masks


def preprocessing_of(source: Source, decoded: DecodedCohort, train_rows: np.ndarray) -> Preprocessing:
    """How files become the network's input; the intensity scale comes from the training images alone.

    Args:
        source: Whose normalisation is meant.
        decoded: The images.
        train_rows: Rows of `decoded` that train.
    """
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
