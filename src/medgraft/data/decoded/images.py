"""The decoded-once cache: one pass over all images, everything later is rows of memory-mapped files."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pandas as pd

from medgraft.data.decoded.fingerprint import THUMBNAIL
from medgraft.data.decoded.rows import FACTS, Decoded, decode_row, header_row, read_row
from medgraft.data.decoded.store import META, SPARE_BYTES, USED, building, hold, make_room
from medgraft.errors import ConfigError, DataError, RunError
from medgraft.files import replacing_folder, write_json
from medgraft.io.in_order import in_order
from medgraft.types import USUAL_READING, Cohort, Preprocessing, Reading, Resize

__all__ = ["BrokenImage", "DecodedCohort", "Progress", "build_cache", "rows_file", "stamp_of"]

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""
VERSION: Final = 7
"""Part of the key; a change of decoding or of the files' layout raises it."""
SAMPLE: Final = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BrokenImage:
    """An image that could not be read: its path in the cohort and the reason."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedCohort:
    """The readable images of a cohort, decoded; M rows in the cohort's order.

    Args:
        folder: Where the files of the cache lie.
        images: (M, C, *sides) uint8 or uint16, memory-mapped, the network's input as integers.
        thumbs: (M, 64, 64) uint8, memory-mapped.
        facts: (M,) records (`decode.FACTS`): depth, height, width, channels, bits, low, high, hash, sha256, mode …
        rows: (M,) int64 row numbers in the cohort that was decoded.
        paths: (M,) paths of those rows.
        broken: What could not be read.
        channels: 1 or 3.
        bits: 8 or 16.
        sides: Sides of the images in px, or of the volumes in voxels.
        resize: As in `medgraft.types.Preprocessing`.
        reading: How the files were read.
    """

    folder: Path
    images: np.ndarray
    thumbs: np.ndarray
    facts: np.ndarray
    rows: np.ndarray
    paths: np.ndarray
    broken: tuple[BrokenImage, ...]
    channels: int
    bits: int
    sides: tuple[int, ...]
    resize: Resize
    reading: Reading = USUAL_READING

    def __len__(self) -> int:
        return len(self.rows)

    def rows_of(self, cohort: Cohort) -> np.ndarray:
        """(N,) int64: the row of `images` for each row of `cohort`, any selection of the decoded one.

        Raises:
            DataError: An image of the cohort was not decoded.
        """
        # As objects: left to infer, pandas copies all paths into arrow's own memory.
        wanted = pd.Index(cohort.table["path"], dtype=object)
        rows = np.asarray(pd.Index(self.paths, dtype=object).get_indexer(wanted))
        if (rows < 0).any():
            name = cohort.table["path"].iat[int(np.argmin(rows))]
            raise DataError(f"{name}: not in the cache. Select decoded images first: cohort.select(decoded.rows).")
        return rows.astype(np.int64)

    def maximum(self, rows: np.ndarray) -> int:
        """Largest stored integer among some of the images, for `intensity_scale`."""
        return int(self.facts["high"][rows].max())


def build_cache(
    cohort: Cohort,
    folder: str | Path,
    *,
    sides: tuple[int, ...],
    channels: int | None = None,
    resize: Resize = "squash",
    reading: Reading = USUAL_READING,
    limit: int | None = None,
    progress: Progress | None = None,
) -> DecodedCohort:
    """The decoded cohort, from a valid cache in `folder` or from one pass over all files.

    Broken images are recorded and left out. The cache is keyed by paths, file sizes, modification times and
    settings, and appears under its key only when complete. Broken ones are tried again by every call.

    Args:
        cohort: N images.
        folder: Holds caches, one subfolder each; made when missing.
        sides: (height, width) of the images in px, or (depth, height, width) of the volumes in voxels.
        channels: 1 or 3; by default 3 where at least one of up to 32 sampled RGB images is truly coloured.
        resize: As in `medgraft.types.Preprocessing`.
        reading: How stored numbers of medical files become intensities.
        limit: Bytes that `folder` may fill: it is a store (`medgraft.data.decoded.store`), where caches that were not
            used for longest make room, and this one is held until the process ends. None: a folder of the caller's own.
        progress: Told about every image.

    Raises:
        DataError: No image can be read.
        RunError: The folder cannot be written, or the disk is too small.
    """
    if channels not in (None, 1, 3):
        raise ConfigError(f"channels must be 1 (grey), 3 (RGB) or left out, got {channels}.")
    if len(sides) != cohort.dims or min(sides) < 1:
        raise ConfigError(f"expected {cohort.dims} sides of at least 1 px, got {sides}. Typical: 28 to 512.")
    key = _key(cohort, sides, channels, resize, reading)
    final = Path(folder).absolute() / key
    if limit is not None:
        hold(final)
    with building(final) if limit is not None else contextlib.nullcontext():
        if (final / META).is_file() and not _is_mended(decoded := _open(final, cohort, reading), cohort):
            return decoded
        settings = Preprocessing(sides=sides, channels=channels or 0, intensity_max=0, resize=resize, reading=reading)
        with replacing_folder(final) as partial:
            _write(cohort, partial, settings, limit, progress)
        return _open(final, cohort, reading)


def _is_mended(decoded: DecodedCohort, cohort: Cohort) -> bool:
    """Whether an image that could not be read can be read now: a codec was installed, a share is back."""
    settings = Preprocessing(
        sides=decoded.sides,
        channels=decoded.channels,
        intensity_max=2**decoded.bits - 1,
        resize=decoded.resize,
        reading=decoded.reading,
    )
    names = [image.path for image in decoded.broken]
    rows = pd.Index(cohort.table["path"], dtype=object).get_indexer(pd.Index(names, dtype=object))
    decode = functools.partial(decode_row, cohort, preprocessing=settings, bits=decoded.bits)
    return any(isinstance(result, Decoded) for result in in_order(decode, rows.tolist()))


def _key(cohort: Cohort, sides: tuple[int, ...], channels: int | None, resize: str, reading: Reading) -> str:
    """Name of the cache of these images under these settings: 32 hexadecimal digits.

    Args:
        cohort: N images.
        sides: (height, width) in px, or (depth, height, width) in voxels.
        channels: 1 or 3; None where the images decide.
        resize: As in `medgraft.types.Preprocessing`.
        reading: How stored numbers of medical files become intensities.
    """
    digest = hashlib.sha256(f"{VERSION} {sides} {channels} {resize} {reading} {cohort.root.absolute()}\n".encode())
    if cohort.arrays is not None and not cohort.root.is_file():
        for name, array in sorted(cohort.arrays.items()):
            digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
            for image in array:
                digest.update(np.ascontiguousarray(image).data)
    stamp = stamp_of(cohort.root) if cohort.arrays is not None else ""
    for row, name in enumerate(cohort.table["path"]):
        entry = stamp or " ".join(stamp_of(file) for file in cohort.files_of(row))
        digest.update(f"{name}\0{entry}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def stamp_of(path: Path) -> str:
    """Size and time of change of a file, or of all in a folder; ``absent`` where it is not to be had."""
    try:
        status = path.stat()
        if path.is_dir():
            return " ".join(stamp_of(file) for file in sorted(path.iterdir()))
    except OSError:
        return "absent"  # decoding names the file and its reason
    return f"{status.st_size} {status.st_mtime_ns}"


def _survey(cohort: Cohort, channels: int, reading: Reading) -> tuple[int, int]:
    """Channels and bits of the cache, from all headers and a sample of decoded colour images.

    Args:
        cohort: N images.
        channels: 1 or 3; 0 where the images decide.
        reading: How stored numbers of medical files become intensities.
    """
    bits, coloured = 8, []
    headers = in_order(functools.partial(header_row, cohort), range(len(cohort)))
    for row, facts in enumerate(headers):
        if facts is not None:
            bits = max(bits, facts.bits)
            if facts.channels == 3:
                coloured.append(row)
    if channels or len(reading.windows) == 3:
        return channels or 3, bits
    picked = [coloured[i] for i in np.unique(np.linspace(0, len(coloured) - 1, SAMPLE).astype(int))] if coloured else []
    return (3 if any(_is_coloured(cohort, row, reading) for row in picked) else 1), bits


def _is_coloured(cohort: Cohort, row: int, reading: Reading) -> bool:
    """Whether an image is truly coloured once it is decoded; False where it cannot be read.

    Args:
        cohort: N images.
        row: Row number.
        reading: How stored numbers of medical files become intensities.
    """
    try:
        return read_row(cohort, row, reading)[1].channels == 3
    except DataError:
        return False  # told by decode_row


def _write(cohort: Cohort, folder: Path, settings: Preprocessing, limit: int | None, progress: Progress | None) -> None:
    """Decode all images into the files of a cache.

    Args:
        cohort: N images.
        folder: The new cache.
        settings: Reading, sides, way of resizing, and channels: 1 or 3, 0 where the images decide.
        limit: Bytes that the store around the cache may fill; None where it is no store.
        progress: Told about every image; None for nobody.
    """
    channels, bits = _survey(cohort, settings.channels, settings.reading)
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    shape = (channels, *settings.sides)
    num_bytes = len(cohort) * (math.prod(shape) * dtype.itemsize + THUMBNAIL**2 + FACTS.itemsize)
    _reserve(folder, num_bytes, limit)
    preprocessing = dataclasses.replace(settings, channels=channels, intensity_max=2**bits - 1)
    decode = functools.partial(decode_row, cohort, preprocessing=preprocessing, bits=bits)
    rows: list[int] = []
    broken: list[dict[str, str]] = []
    total = len(cohort)
    with (
        rows_file(folder / "images.npy", dtype, (total, *shape)) as images,
        rows_file(folder / "thumbs.npy", np.dtype(np.uint8), (total, THUMBNAIL, THUMBNAIL)) as thumbs,
        rows_file(folder / "facts.npy", FACTS, (total,)) as facts,
        contextlib.closing(in_order(decode, range(total))) as results,
    ):
        for row, result in enumerate(results):
            if isinstance(result, Decoded):
                images.write(result.image.tobytes())
                thumbs.write(result.thumb.tobytes())
                facts.write(result.facts.tobytes())
                rows.append(row)
            else:
                broken.append({"path": str(cohort.table["path"].iat[row]), "reason": result})
            if progress is not None:
                progress(row + 1, total)
    if not rows:
        raise DataError(f"{cohort.root}: none of {total} images can be read. First: {broken[0]['reason']}")
    np.save(folder / "rows.npy", np.array(rows, dtype=np.int64))
    meta = {
        "root": str(cohort.root.absolute()),
        "num_images": len(rows),
        "channels": channels,
        "bits": bits,
        "sides": settings.sides,
        "resize": settings.resize,
        "broken": broken,
    }
    (folder / USED).touch()
    write_json(folder / META, meta)


@contextlib.contextmanager
def rows_file(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """An .npy file to append rows to; rows not written in the end read as zeros.

    Plain writes, because a full disk under a writable mapping kills the process instead of raising an error.

    Args:
        path: The file, which is replaced.
        dtype: What one number, or record, is stored as.
        shape: Rows in all, then the sides of one row.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        start = stream.tell()
        yield stream
        stream.truncate(start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)


def _reserve(folder: Path, needed: int, limit: int | None) -> None:
    """Make room for a cache in its store, and refuse a disk that is too small.

    Args:
        folder: The new cache.
        needed: Bytes that it will fill.
        limit: Bytes that the store around it may fill; None where it is no store.
    """
    if limit is not None:
        make_room(folder.parent, needed, limit)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        sizes = f"needs {needed / 2**20:,.0f} MiB, free are {free / 2**20:,.0f} MiB"
        raise RunError(
            f"{folder.parent}: the image cache {sizes}. Free space, lower --size, or choose another --cache."
        )


def _open(folder: Path, cohort: Cohort, reading: Reading) -> DecodedCohort:
    """The decoded cohort in a whole cache.

    Args:
        folder: The cache.
        cohort: The cohort that was decoded.
        reading: How its files were read.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        rows = np.load(folder / "rows.npy")
        images, thumbs, facts = (
            np.load(folder / f"{name}.npy", mmap_mode="r")[: len(rows)] for name in ("images", "thumbs", "facts")
        )
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: the image cache is damaged ({error}). Remove this folder and run again.") from error
    return DecodedCohort(
        folder=folder,
        images=images,
        thumbs=thumbs,
        facts=facts,
        rows=rows,
        paths=cohort.table["path"].to_numpy(dtype=object)[rows],
        broken=tuple(BrokenImage(**item) for item in meta["broken"]),
        channels=meta["channels"],
        bits=meta["bits"],
        sides=tuple(meta["sides"]),
        resize=meta["resize"],
        reading=reading,
    )
