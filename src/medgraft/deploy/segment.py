"""Images to masks at the size of their files: the same for the test set and for new files."""

import collections
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from torch import nn

from medgraft.config import MaskFormat
from medgraft.data.cohort.pairs import stem_of
from medgraft.data.decoded.rows import read_files
from medgraft.deploy.artefact import LoadedModel
from medgraft.deploy.predict import UNREADABLE, files_of_case, range_status
from medgraft.errors import ConfigError, DataError, MedgraftError, RunError
from medgraft.files import write_table
from medgraft.io.mask_files import cell_mm, mask_format, mask_path, native_sides, write_mask
from medgraft.io.preprocess import prepare, restore
from medgraft.train.batches import whole_input
from medgraft.train.engine import Engine, exact_engine
from medgraft.train.memory import freed_memory_kept
from medgraft.train.outputs import predict_masks
from medgraft.types import Preprocessing
from medgraft.version import __version__

__all__ = ["MASK_LIST", "segment_files", "segment_image"]

_HALF: Final = 0.5
_NOT_WRITTEN: Final = "no mask written"
_FIRST_CHANNEL: Final = "_0000"
MASK_LIST: Final = "masks.csv"
"""What a folder of predicted masks holds, a row per case."""


def segment_image(
    network: nn.Module,
    image: np.ndarray,
    sides: Sequence[int],
    preprocessing: Preprocessing,
    patch: Sequence[int],
    engine: Engine,
    spacing_mm: Sequence[float] = (),
) -> np.ndarray:
    """(*sides) uint8 class numbers, 0 the background: probabilities patch by patch, brought to the size of the file.

    Args:
        network: Network of a segmentation; takes patches of `medgraft.train.batches.whole_input`.
        image: (C, *preprocessing.sides) integers, as `medgraft.io.prepare` makes them.
        sides: Sides of the image in its file.
        preprocessing: How the image was prepared.
        patch: Sides of what the network sees at once.
        engine: Device and arithmetic.
        spacing_mm: Distance of the pixels in the file along each axis; empty where it is unknown.
    """
    is_standardised = preprocessing.normalisation == "image"
    scaled = whole_input(image, preprocessing.intensity_max, is_standardised=is_standardised)
    with freed_memory_kept(engine.device):
        probs = predict_masks(network, scaled, patch, engine).numpy()
    if len(probs) == 1:
        return (restore(probs[0], sides, preprocessing, spacing_mm) > _HALF).astype(np.uint8)
    # One class after the other: all of them at the size of a CT would take gigabytes.
    highest = restore(probs[0], sides, preprocessing, spacing_mm, fill=1.0)
    called = np.zeros(highest.shape, dtype=np.uint8)
    for number, plane in enumerate(probs[1:], 1):
        restored = restore(plane, sides, preprocessing, spacing_mm)
        is_higher = restored > highest
        called[is_higher], highest[is_higher] = number, restored[is_higher]
    return called


def segment_files(
    model: LoadedModel,
    cases: Sequence[Path | tuple[Path, ...]],
    out: Path,
    *,
    kind: MaskFormat = "auto",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Write a mask for every image or volume below `out`, at its own size and place; a broken one costs only its row.

    Masks are called as their images and lie in the same subfolders. The numbers in them are those of the masks that
    taught (in DICOM-SEG: 1, 2 …). ``masks.csv`` there lists them: what stands in it may be written again and is no
    image; no other file is ever overwritten.

    Args:
        model: Model of a segmentation.
        cases: Files and folders, as `medgraft.deploy.predict.predict_files` takes them.
        out: Folder.
        kind: See `medgraft.io.mask_files.mask_format`.
        device: Where to compute.
        progress: Called with (cases done, cases in all).

    Returns:
        One row per case: ``path, mask`` (relative to `out`), for each class ``pixels_…`` and, where the spacing is
        known of any case, ``mm2_…`` (of volumes ``mm3_…``; ``mm2_at_detector_…`` where only that spacing is told, which
        magnifies), ``status`` as in `predict_files`, or ``no mask written: …``.

    Raises:
        DataError: No file was given, or `out` cannot be made.
        ConfigError: The model classifies, masks of these files cannot be written so, a library is missing, or a mask
            would overwrite another file.
    """
    if not model.artefact.patch:
        raise ConfigError(f"expected a model of a segmentation, got one of a {model.artefact.task} task.")
    earlier = _earlier(out)
    own = {
        (out / mask).resolve(): Path(image)
        for mask, image in zip(earlier["mask"], earlier["path"], strict=True)
        if mask
    }
    cases = [case for case in cases if _first(case).resolve() not in own]
    if not cases:
        raise DataError("expected image files, got none. Give files, or a folder with images in it.")
    targets = _targets(cases, out, model.artefact.preprocessing.dims, kind)
    _refuse_others(cases, [path for path, _ in targets], own)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # All of them this program's own: what goes wrong below leaves no mask of an earlier call behind.
        for path, _ in targets:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"could not write to {out}: {error.strerror or error}. Choose another place.") from error
    names = [path.relative_to(out).as_posix() for path, _ in targets]
    kept = earlier[[bool(name) and name not in names and (out / name).is_file() for name in earlier["mask"]]]
    # Before the first mask: an interrupted call may be repeated.
    paths = [_first(case).as_posix() for case in cases]
    _write_list(kept, pd.DataFrame({"path": paths, "mask": names, "status": "interrupted"}), out)
    rows = []
    for number, (case, (path, written_as)) in enumerate(zip(cases, targets, strict=True), 1):
        rows.append(_segmented(model, case, path, written_as, device))
        if progress is not None:
            progress(number, len(cases))
    table = pd.DataFrame(rows)
    table["mask"] = [path.relative_to(out).as_posix() if path else "" for path in table["mask"]]
    table = table.assign(status=table.pop("status"))
    _write_list(kept, table, out)
    return table


def _first(case: Path | tuple[Path, ...]) -> Path:
    """The path by which a case is called."""
    return case[0] if isinstance(case, tuple) else case


def _targets(
    cases: Sequence[Path | tuple[Path, ...]], out: Path, dims: int, kind: MaskFormat
) -> list[tuple[Path, str]]:
    """Where the mask of each case goes, and its format; one that it cannot have is a wrong call, not a broken file.

    Args:
        cases: Files, of volumes also folders of slices or all files of one.
        out: Folder of the masks.
        dims: 2 for images, 3 for volumes.
        kind: See `medgraft.io.mask_files.mask_format`.
    """
    files = [case if isinstance(case, tuple) else (case,) for case in cases]
    kinds = [mask_format(members, dims, kind) for members in files]
    stems = _stems([_first(case) for case in cases])
    targets = [(mask_path(out / stem, mask_kind), mask_kind) for stem, mask_kind in zip(stems, kinds, strict=True)]
    owners: dict[Path, Path] = {}
    for (path, _), case in zip(targets, cases, strict=True):
        if path in owners:
            raise ConfigError(f"{owners[path]} and {_first(case)} would have one mask, {path}. Rename one of them.")
        owners[path] = _first(case)
    return targets


def _earlier(out: Path) -> pd.DataFrame:
    """The list of the masks that earlier calls wrote, or were about to write, below `out`."""
    path = out / MASK_LIST
    if not path.is_file():
        return pd.DataFrame({"path": [], "mask": [], "status": []}, dtype=str)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Choose another --out.") from error
    if not {"path", "mask", "status"} <= set(table):
        raise ConfigError(f"{path}: is no list of an earlier call, but a table of yours. Choose another --out.")
    return table


def _refuse_others(cases: Sequence[Path | tuple[Path, ...]], targets: Sequence[Path], own: Mapping[Path, Path]) -> None:
    """Refuse to overwrite what no earlier call wrote, and the mask of another image (`own`: image of each mask).

    Args:
        cases: Files, of volumes also folders of slices or all files of one.
        targets: Path of each case's mask.
        own: Masks that earlier calls wrote, each with its image.
    """
    for case, target in zip(cases, targets, strict=True):
        if not target.exists():
            continue
        image = own.get(target.resolve())
        if image is None:
            raise ConfigError(
                f"{target}: exists and is no mask of an earlier call, so it is not overwritten. Choose another --out."
            )
        if image.resolve() != _first(case).resolve():
            raise ConfigError(f"{target}: is the mask of {image}, so it is not overwritten. Choose another --out.")


def _write_list(kept: pd.DataFrame, table: pd.DataFrame, out: Path) -> None:
    """Write the list of all masks below `out`: those of earlier calls that are still there, and these; status last.

    Args:
        kept: Rows of earlier calls whose masks are still there.
        table: Rows of this call.
        out: Folder of the masks.
    """
    both = pd.concat([kept, table.astype(object)]) if len(kept) else table
    write_table(both[[*(name for name in both if name != "status"), "status"]], out / MASK_LIST)


def _segmented(
    model: LoadedModel, case: Path | tuple[Path, ...], target: Path, written_as: str, device: str
) -> dict[str, object]:
    """The row of one case, whose mask is written.

    Args:
        model: Model of a segmentation.
        case: A file, of a volume also a folder of slices or all its files.
        target: Path of the mask.
        written_as: Format of the mask.
        device: Where to compute.
    """
    artefact, settings = model.artefact, model.artefact.preprocessing
    row: dict[str, object] = {"path": _first(case).as_posix(), "mask": None}
    try:
        files = files_of_case(case, settings.dims)
        pixels, facts = read_files(files, settings.dims, settings.reading)
    except MedgraftError as error:
        return row | {"status": f"{UNREADABLE}: {error}"}
    stored = facts.stored_mm or facts.spacing_mm
    try:
        sides = native_sides(files, pixels, settings.dims, is_resampled=bool(settings.reading.spacing_mm))
        image = prepare(pixels, settings, facts.spacing_mm)
        network, engine = model.network.to(device), exact_engine(device)
        mask = segment_image(network, image, sides, settings, artefact.patch, engine, spacing_mm=stored)
        written = write_mask(
            mask, files, target, kind=written_as, values=artefact.mask_values, classes=artefact.classes,
            version=__version__,
        )  # fmt: skip
    except (DataError, RunError) as error:
        return row | {"status": f"{_NOT_WRITTEN}: {error}"}
    row["mask"] = written
    counts = np.bincount(mask.ravel(), minlength=len(artefact.classes) + 1)[1:]
    cell = cell_mm(files, stored, settings.dims)
    unit = "mm3" if settings.dims == 3 else "mm2_at_detector" if facts.is_at_detector else "mm2"
    for name, count in zip(artefact.classes, counts, strict=True):
        row[f"pixels_{name}"] = int(count)
        if cell is not None:
            row[f"{unit}_{name}"] = float(count * cell)
    return row | {"status": range_status(int(pixels.max()), facts.bits, model)}


def _stems(paths: Sequence[Path]) -> list[Path]:
    """Where masks go: the paths below their common folder, without suffix; with it where two would be one.

    Where all images are called as nnU-Net calls those of its first channel, their masks are called as it calls them.
    """
    resolved = [path.absolute() for path in paths]
    common = Path(os.path.commonpath([path.parent for path in resolved]))
    below = [path.relative_to(common) for path in resolved]
    names = [stem_of(path) for path in below]
    if all(len(name) > len(_FIRST_CHANNEL) and name.endswith(_FIRST_CHANNEL) for name in names):
        names = [name.removesuffix(_FIRST_CHANNEL) for name in names]
    short = [path.with_name(name) for path, name in zip(below, names, strict=True)]
    taken = collections.Counter(short)
    return [
        stem if taken[stem] == 1 else path.with_name(path.name.replace(".", "_"))
        for stem, path in zip(short, below, strict=True)
    ]
