"""Which mask belongs to which image: two folders, names that differ by a suffix, or the layout of nnU-Net."""

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Final

from medgraft.data.cohort.folders import SPLIT_NAMES
from medgraft.data.cohort.walk import tree_below
from medgraft.errors import DataError
from medgraft.io.case import is_case
from medgraft.io.mask import is_mask_name

__all__ = ["IMAGE_FOLDERS", "MASK_FOLDERS", "Pairs", "find_pairs", "some_names", "stem_of"]

IMAGE_FOLDERS: Final = ("images", "image", "imgs", "img", "scans")
MASK_FOLDERS: Final = (
    "masks", "mask", "labels", "label", "segmentations", "annotations", "groundtruth", "gt", "manual"
)  # fmt: skip
"""What folders of images and of masks are called."""
_CHANNEL: Final = re.compile(r"(.+)_(\d{4})")
_BY_HAND: Final = re.compile(r"(\d(st|nd|rd|th)[_ -]?)?manual(s|[_ -]?segmentations?)?[_ -]?\d*|labels-\w+")
"""What folders of masks are called that observers drew."""
_SEPARATORS: Final = "_-. "
_SHOWN: Final = 3
_LISTED: Final = 50
_COMMON: Final = 0.5
"""A suffix that so many images share, of the commonest one's, is an observer's."""
_PLAIN: Final = "plain"
"""What an observer is called whose masks have no suffix, beside others' that do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Images and their masks, as paths relative to the folder.

    Args:
        masks: Image to its masks by observer, of each the files whose marks are united; one observer is called "".
        labels: Class name to the number that stands for it, where the folder tells; else empty.
        ignored: The number that counts for nothing, where the folder tells one.
        splits: Image to ``train``, ``val`` or ``test``, where folders say so of every image; else empty.
        notes: What was inferred, one sentence each.
    """

    masks: Mapping[str, Mapping[str, tuple[str, ...]]]
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    ignored: int | None = None
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def observers(self) -> tuple[str, ...]:
        """All observers, sorted."""
        return tuple(sorted({name for by_observer in self.masks.values() for name in by_observer}))


def find_pairs(root: Path) -> Pairs:
    """The images below a folder with their masks.

    Understood are nnU-Net's ``imagesTr/case_0000.*`` with ``labelsTr/case.*`` and ``dataset.json``; a folder of images
    beside one of masks (``images``/``masks``, ``labels`` …) whose names are equal or differ by a suffix; and one folder
    in which masks are called as their image with a suffix (``x.jpg``, ``x_1stHO.png``, ``x_2ndHO.png``), one
    for each observer. Folders ``train``, ``val`` and ``test`` above or below these are a split.

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
        {'': ('a_mask.png',)}
    """
    if (root / "dataset.json").is_file() and (root / "imagesTr").is_dir():
        return _nnunet(root)
    by_hand = [part for folder in (root, *_parts(root)) if (part := _by_hand(root, folder)) is not None]
    if by_hand:
        return _with_splits(_joined(by_hand))
    images, masks = _inside(root)
    if images is not None and masks is not None:
        return _with_splits(_two_folders(root, [(images, masks)]))
    parts = [_inside(folder) for folder in _parts(root)]
    if any(images and masks for images, masks in parts):
        return _with_splits(_two_folders(root, parts))
    return _with_splits(_by_suffix(root, _files(root)))


def _subfolders(folder: Path) -> dict[str, Path]:
    return {entry.name.casefold(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}


def _parts(root: Path) -> list[Path]:
    """The folders of a split."""
    return [folder for name, folder in _subfolders(root).items() if name in SPLIT_NAMES]


def _by_hand(root: Path, folder: Path) -> Pairs | None:
    """Images and what observers marked by hand, a folder each, as DRIVE, STARE and HRF are distributed; else None.

    A folder ``mask`` beside them holds fields of view, which are no truth.

    Args:
        root: Folder that paths start from.
        folder: Where the folders lie.
    """
    inside = _subfolders(folder)
    images = next((inside[name] for name in (*IMAGE_FOLDERS, "stare-images") if name in inside), None)
    observers = {name: path for name, path in inside.items() if _BY_HAND.fullmatch(name)}
    if images is None or not observers:
        return None
    stems = {stem_of(path): path for path in _files(images)}
    pairs: dict[str, dict[str, tuple[str, ...]]] = {}
    for observer, path in observers.items():
        for mask in _files(path):
            if (image := _named_alike(stem_of(mask), stems)) is not None:
                name = "" if len(observers) == 1 else observer
                pairs.setdefault(_name(root, image), {})[name] = (_name(root, mask),)
    if not pairs:
        return None
    where = "" if folder == root else f" in {folder.name}"
    notes = [f"{len(pairs)} images{where} with what was marked by hand ({', '.join(sorted(observers))})."]
    if field := next((name for name in MASK_FOLDERS if name in inside), None):
        notes.append(f"{_name(root, inside[field])} was taken for fields of view and left out.")
    if lost := len(stems) - len(pairs):
        notes.append(f"{lost} images{where} have no mask and were left out.")
    return Pairs(masks=dict(sorted(pairs.items())), notes=tuple(notes))


def _named_alike(stem: str, images: Mapping[str, Path]) -> Path | None:
    """The image that a mask belongs to: called alike, with a suffix, or the only one with its number."""
    ends = (len(stem), *(i for i in range(len(stem) - 1, 0, -1) if stem[i] in _SEPARATORS))
    if (found := next((images[stem[:end]] for end in ends if stem[:end] in images), None)) is not None:
        return found
    number = re.split(rf"[{re.escape(_SEPARATORS)}]", stem)[0]
    same = [path for name, path in images.items() if re.split(rf"[{re.escape(_SEPARATORS)}]", name)[0] == number]
    return same[0] if len(same) == 1 else None


def _joined(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several folders together."""
    masks = {image: dict(by) for part in parts for image, by in part.masks.items()}
    names = {name for by in masks.values() for name in by}
    if len(names) > 1:
        # Whoever drew alone in one part of a split is the first of those who drew in another.
        first = min(names - {""})
        masks = {image: {name or first: files for name, files in by.items()} for image, by in masks.items()}
    return Pairs(masks=masks, notes=tuple(note for part in parts for note in part.notes))


def _inside(folder: Path) -> tuple[Path | None, Path | None]:
    """The folders of images and of masks in a folder."""
    folders = _subfolders(folder)
    images = next((folders[name] for name in IMAGE_FOLDERS if name in folders), None)
    return images, next((folders[name] for name in MASK_FOLDERS if name in folders), None)


def _with_splits(pairs: Pairs) -> Pairs:
    """The pairs with the split that folders name, where every image lies in such a folder and there are several."""
    splits = {}
    for image in pairs.masks:
        for folder in Path(image).parts[:-1]:
            if folder.casefold() in SPLIT_NAMES:
                splits[image] = SPLIT_NAMES[folder.casefold()]
                break
    if len(splits) < len(pairs.masks) or len(set(splits.values())) < 2:
        return pairs
    counts = ", ".join(f"{count} {name}" for name, count in sorted(Counter(splits.values()).items()))
    return dataclasses.replace(pairs, splits=splits, notes=(*pairs.notes, f"Folders name a split: {counts}."))


def _nnunet(root: Path) -> Pairs:
    try:
        description = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
        channels = description.get("channel_names") or description.get("modality") or {}
        channels = channels if isinstance(channels, dict) else dict(enumerate(channels))
        named = {str(name): number for name, number in description["labels"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{root / 'dataset.json'}: expected nnU-Net's description of a dataset ({error}).") from error
    if len(channels) > 1:
        raise DataError(
            f"{root}: expected images of one channel, got {len(channels)} ({', '.join(map(str, channels.values()))}). "
            "Name the images of one channel and their masks in a table path,mask."
        )
    # Older versions have the number first.
    if all(name.isdigit() for name in named):
        named = {str(name): int(number) for number, name in description["labels"].items()}
    if not all(isinstance(number, int) for number in named.values()):
        raise DataError(f"{root}: expected one number for each label, got regions. Give a table path,mask.")
    ignored = named.pop("ignore", None)
    images: dict[str, Path] = {}
    for path in _files(root / "imagesTr"):
        match = _CHANNEL.fullmatch(stem_of(path))
        case = match[1] if match else stem_of(path)
        if case in images:
            raise DataError(
                f"{root}: imagesTr holds several images of {case} ({images[case].name}, {path.name}), expected one "
                "channel. Name the images of one channel and their masks in a table path,mask."
            )
        images[case] = path
    masks = {stem_of(path): path for path in _files(root / "labelsTr")}
    pairs = {_name(root, images[case]): {"": (_name(root, masks[case]),)} for case in sorted(images) if case in masks}
    if not pairs:
        raise DataError(f"{root}: no image of imagesTr has a mask in labelsTr.")
    notes = [f"nnU-Net's layout: {len(pairs)} images with masks."]
    if lost := sorted(set(images) - set(masks)):
        names = [_name(root, images[case]) for case in lost]
        notes.append(f"{len(lost)} images have no mask and were left out{some_names(names, _LISTED)}.")
    if (root / "imagesTs").is_dir():
        notes.append("imagesTs has no masks and was left out.")
    return Pairs(masks=pairs, labels=named, ignored=ignored, notes=tuple(notes))


def _two_folders(root: Path, folders: Sequence[tuple[Path | None, Path | None]]) -> Pairs:
    """Images and masks of one pair of folders, or of one for each part of a split."""
    images: list[Path] = []
    matches: dict[Path, tuple[Path, str, int]] = {}
    num_masks = 0
    for image_folder, mask_folder in folders:
        by_key = _by_key(_files(image_folder), image_folder) if image_folder else {}
        masks = _by_key(_files(mask_folder), mask_folder) if mask_folder else {}
        matches |= _matches(masks, by_key)
        images += by_key.values()
        num_masks += len(masks)
    return _paired(root, images, matches, num_masks)


def _by_suffix(root: Path, files: Sequence[Path]) -> Pairs:
    """Masks are the files called as another one of their folder with a suffix that most images share."""
    by_key = _by_key(files, root)
    matches = _matches(by_key, by_key)
    images = [path for path in files if path not in matches]
    return _paired(root, images, matches, len(matches))


_Key = tuple[str, str]
"""Folder below the one that was asked about, and name without its ending."""


def _by_key(files: Sequence[Path], folder: Path) -> dict[_Key, Path]:
    paths: dict[_Key, Path] = {}
    for path in files:
        key = (path.parent.relative_to(folder).as_posix(), stem_of(path))
        if key in paths:
            raise DataError(
                f"{folder}: {paths[key].name} and {path.name} share a name, so nothing tells image and mask apart. Put "
                "them into images/ and masks/, or name them in a table path,mask."
            )
        paths[key] = path
    return paths


def _matches(masks: Mapping[_Key, Path], images: Mapping[_Key, Path]) -> dict[Path, tuple[Path, str, int]]:
    """Each mask's image, suffix and number of part: by names that are equal or go on with a suffix most images share.

    A number behind such a suffix is a further part of that mask (``x_mask``, ``x_mask_1``); one alone is none, because
    ``p1_2`` is another image of ``p1``.

    Raises:
        DataError: Numbers behind a suffix that never stands alone.
    """
    possible: dict[Path, list[tuple[Path, str]]] = defaultdict(list)
    for (parent, stem), mask in masks.items():
        for end in (len(stem), *(i for i in range(len(stem) - 1, 0, -1) if stem[i] in _SEPARATORS)):
            image = images.get((parent, stem[:end]))
            suffix = stem[end:].strip(_SEPARATORS)
            if image is not None and image != mask and not suffix.isdigit():
                possible[mask].append((image, suffix))
    counts = Counter(suffix for matches in possible.values() for _, suffix in matches)
    least = max(counts.values(), default=0) * _COMMON
    common = {suffix for suffix, count in counts.items() if count >= least}
    _refuse_numbers(common, counts)
    matches = {}
    for mask, candidates in possible.items():
        for image, suffix in candidates:
            base, _, number = suffix.rpartition("_")
            is_part = base in common and number.isdigit()
            if is_part or suffix in common:
                matches[mask] = (image, base, int(number)) if is_part else (image, suffix, 0)
                break
    return {mask: match for mask, match in matches.items() if match[0] not in matches}


def _refuse_numbers(common: Set[str], suffixes: Iterable[str]) -> None:
    """Refuse masks of one image that differ by a number alone: are they parts of one mask, or several observers'?"""
    for suffix in sorted(common):
        base, _, number = suffix.rpartition("_")
        if base and base not in common and number.isdigit():
            others = [other for other in suffixes if re.fullmatch(rf"{re.escape(base)}_\d+", other) and other != suffix]
            if others:
                raise DataError(
                    f"masks end with _{suffix} and _{min(others)}: parts of one mask, or of several observers? Of "
                    f"parts call the first one _{base}; of observers end with names (_{base}_anna, _{base}_ben)."
                )


def _paired(root: Path, images: Sequence[Path], matches: Mapping[Path, tuple[Path, str, int]], num_masks: int) -> Pairs:
    """Images with their masks by observer, and notes on what is left out.

    Args:
        root: Folder that paths start from.
        images: All images.
        matches: Each mask's image, suffix and number of part.
        num_masks: Masks in all, with those that belong to no image.
    """
    if not matches:
        raise DataError(
            f"{root}: no image has a mask. Expected images/ and masks/, names with a suffix (x.png, x_mask.png), "
            "nnU-Net's imagesTr and labelsTr, or a table path,mask."
        )
    is_single = len({suffix for _, suffix, _ in matches.values()}) == 1
    by_image: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for mask, (image, suffix, _) in sorted(matches.items(), key=lambda item: (item[1], item[0])):
        by_image[_name(root, image)]["" if is_single else suffix or _PLAIN].append(_name(root, mask))
    pairs = {image: {name: tuple(parts) for name, parts in by.items()} for image, by in sorted(by_image.items())}
    notes = [f"{len(pairs)} images with masks."]
    if parts := sum(len(files) - 1 for by in pairs.values() for files in by.values()):
        notes.append(f"{parts} masks are further parts of another and are united with it.")
    if without := [name for image in images if (name := _name(root, image)) not in pairs]:
        notes.append(f"{len(without)} images have no mask and were left out{some_names(without, _LISTED)}.")
    if lost := num_masks - len(matches):
        notes.append(f"{lost} masks belong to no image.")
    return Pairs(masks=pairs, notes=tuple(notes))


def some_names(names: Sequence[str], most: int = _SHOWN) -> str:
    """``: a.png, b.png …`` for a message; nothing of DICOM files, whose names may be those of patients.

    Examples:
        >>> some_names(["a.png", "b.png", "c.png", "d.png"])
        ': a.png, b.png, c.png …'
    """
    shown = [name for name in names if is_mask_name(name)][:most]
    return f": {', '.join(shown)}{' …' if len(names) > len(shown) else ''}" if shown else ""


def _files(folder: Path) -> list[Path]:
    return [path for path in tree_below(folder).files if is_mask_name(path.name) or is_case(path)]


def stem_of(path: Path) -> str:
    """The name without an ending; that of a UID is none."""
    name = path.name.removesuffix(".gz")
    return Path(name).stem if not Path(name).suffix[1:].isdigit() else name


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
