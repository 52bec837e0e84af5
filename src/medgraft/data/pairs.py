"""Which mask belongs to which image: two folders, names that differ by a suffix, or the layout of nnU-Net."""

import dataclasses
import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from medgraft.errors import DataError
from medgraft.io.case import is_case
from medgraft.io.mask import is_mask_name

__all__ = ["Pairs", "find_pairs"]

_IMAGES: Final = ("images", "image", "imgs", "img", "scans")
_MASKS: Final = ("masks", "mask", "labels", "label", "segmentations", "annotations", "groundtruth", "gt", "manual")
_CHANNEL: Final = re.compile(r"(.+)_(\d{4})")
_SEPARATORS: Final = "_-. "
_SHOWN: Final = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Images and their masks, as paths relative to the folder.

    Args:
        masks: Image to its masks by observer; one observer is called "".
        labels: Class name to the number that stands for it, where the folder tells; else empty.
        notes: What was inferred, one sentence each.
    """

    masks: Mapping[str, Mapping[str, str]]
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def observers(self) -> tuple[str, ...]:
        """All observers, sorted."""
        return tuple(sorted({name for found in self.masks.values() for name in found}))


def find_pairs(root: Path) -> Pairs:
    """The images below a folder with their masks.

    Understood are nnU-Net's ``imagesTr/case_0000.*`` with ``labelsTr/case.*`` and ``dataset.json``; a folder of images
    beside one of masks (``images``/``masks``, ``labels`` …) whose names are equal or differ by a suffix; and one folder
    in which masks are called as their image with a suffix (``x.jpg``, ``x_1stHO.png``, ``x_2ndHO.png``), one
    for each observer.

    Args:
        root: An existing folder.

    Raises:
        DataError: No image has a mask, or two images claim one.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.jpg", "a_mask.png", "b.jpg", "b_mask.png"):
        ...         (Path(folder) / name).touch()
        ...     find_pairs(Path(folder)).masks["a.jpg"]
        {'': 'a_mask.png'}
    """
    if (root / "dataset.json").is_file() and (root / "imagesTr").is_dir():
        return _nnunet(root)
    folders = {entry.name.casefold(): entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    images = next((folders[name] for name in _IMAGES if name in folders), None)
    masks = next((folders[name] for name in _MASKS if name in folders), None)
    if images is not None and masks is not None:
        return _two_folders(root, images, masks)
    return _by_suffix(root, _files(root))


def _nnunet(root: Path) -> Pairs:
    try:
        told = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
        channels = told.get("channel_names") or told.get("modality") or {}
        named = {str(name): number for name, number in told["labels"].items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{root / 'dataset.json'}: expected nnU-Net's description of a dataset ({error}).") from error
    if len(channels) > 1:
        raise DataError(
            f"{root}: expected images of one channel, got {len(channels)} ({', '.join(map(str, channels.values()))}). "
            "Name the images of one channel and their masks in a table path,mask."
        )
    # Older versions have the number first.
    if all(name.isdigit() for name in named):
        named = {str(name): int(number) for number, name in told["labels"].items()}
    if not all(isinstance(number, int) for number in named.values()):
        raise DataError(f"{root}: expected one number for each label, got regions. Give a table path,mask.")
    images = {}
    for path in _files(root / "imagesTr"):
        found = _CHANNEL.fullmatch(_stem(path))
        images[found[1] if found else _stem(path)] = path
    masks = {_stem(path): path for path in _files(root / "labelsTr")}
    pairs = {_name(root, images[case]): {"": _name(root, masks[case])} for case in sorted(images) if case in masks}
    if not pairs:
        raise DataError(f"{root}: no image of imagesTr has a mask in labelsTr.")
    notes = [f"nnU-Net's layout: {len(pairs)} images with masks."]
    if lost := sorted(set(images) - set(masks)):
        notes.append(f"{len(lost)} images have no mask and were left out: {_shown(lost)}.")
    if (root / "imagesTs").is_dir():
        notes.append("imagesTs has no masks and was left out.")
    return Pairs(masks=pairs, labels=named, notes=tuple(notes))


def _two_folders(root: Path, images: Path, masks: Path) -> Pairs:
    return _paired(root, _files(images), _files(masks))


def _by_suffix(root: Path, files: Sequence[Path]) -> Pairs:
    """Masks are the files called as another one with a suffix, that have none themselves."""
    owners = _owners(files, files)
    owning = set(owners.values())
    masks = [path for path in files if path in owners and path not in owning]
    return _paired(root, [path for path in files if path not in set(masks)], masks)


def _paired(root: Path, images: Sequence[Path], masks: Sequence[Path]) -> Pairs:
    owners = _owners(masks, images)
    found: dict[Path, dict[str, Path]] = defaultdict(dict)
    for mask, image in owners.items():
        suffix = _suffix(mask, image)
        if suffix in found[image]:
            raise DataError(
                f"{image}: has two masks of one name, {found[image][suffix].name} and {mask.name}. Keep one."
            )
        found[image][suffix] = mask
    if not found:
        raise DataError(
            f"{root}: no image has a mask. Expected images/ and masks/, names with a suffix (x.png, x_mask.png), "
            "nnU-Net's imagesTr and labelsTr, or a table path,mask."
        )
    common = {suffix for masks_of in found.values() for suffix in masks_of}
    single = len(common) == 1
    pairs = {
        _name(root, image): {"" if single else suffix: _name(root, mask) for suffix, mask in sorted(masks_of.items())}
        for image, masks_of in sorted(found.items())
    }
    notes = [f"{len(pairs)} images with masks."]
    if lost := sorted(_name(root, image) for image in images if image not in found):
        notes.append(f"{len(lost)} images have no mask and were left out: {_shown(lost)}.")
    if lost := sorted(_name(root, mask) for mask in masks if mask not in owners):
        notes.append(f"{len(lost)} masks belong to no image: {_shown(lost)}.")
    return Pairs(masks=pairs, notes=tuple(notes))


def _owners(masks: Sequence[Path], images: Sequence[Path]) -> dict[Path, Path]:
    """Each mask to the image whose name it bears, alone or with a suffix; the longest of several."""
    by_stem = {_stem(image): image for image in images}
    found = {}
    for mask in masks:
        stem = _stem(mask)
        ends = [len(stem), *(i for i in range(len(stem) - 1, 0, -1) if stem[i] in _SEPARATORS)]
        owner = next((by_stem[stem[:end]] for end in ends if by_stem.get(stem[:end], mask) != mask), None)
        if owner is not None:
            found[mask] = owner
    return found


def _suffix(mask: Path, image: Path) -> str:
    return _stem(mask).removeprefix(_stem(image)).strip(_SEPARATORS)


def _files(folder: Path) -> list[Path]:
    return sorted(
        Path(parent) / name
        for parent, folders, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and (is_mask_name(name) or is_case(Path(parent) / name))
    )


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
