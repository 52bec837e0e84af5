"""NumPy archives (`.npz`): arrays mapped from disk, never unpickled."""

import struct
import tempfile
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from medgraft.errors import DataError

__all__ = ["read_archive"]

LOCAL_HEADER: Final = struct.Struct("<26xHH")
SPOOL_BYTES: Final = 16 * 2**20
"""Compressed members above this size are unpacked to a nameless temporary file instead of memory."""
COPY_BYTES: Final = 2**20


def read_archive(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` by name, read-only, in memory only where they are small.

    A member stored without compression is mapped straight from the archive; a large compressed one is
    unpacked once to a temporary file that vanishes with the array. Either way the memory in use does not
    grow with the number of images.

    Args:
        path: The archive.

    Raises:
        DataError: The file is missing, no archive, damaged, or holds Python objects instead of plain arrays.

    Examples:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder) / "a.npz", x=np.arange(3))
        ...     arrays = read_archive(Path(folder) / "a.npz")
        ...     arrays["x"].tolist()
        [0, 1, 2]
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {info.filename.removesuffix(".npy"): _member(path, archive, info) for info in members}
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its rights."
        ) from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"{path}: expected an .npz archive, got a damaged or foreign file ({error}).") from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """The array of one member, read where it is small and else mapped from disk.

    Args:
        path: The archive.
        archive: The same archive, open.
        info: The member to read.
    """
    with archive.open(info) as stream:
        shape, fortran, dtype = _array_header(stream, f"{path}: {info.filename}")
        start = stream.tell()
        count = int(np.prod(shape, dtype=np.int64))
        if start + count * dtype.itemsize > info.file_size:
            raise DataError(f"{path}: {info.filename} is shorter than its header says. Fetch the file again.")
        order: Any = "F" if fortran else "C"
        if count == 0 or info.file_size < SPOOL_BYTES:
            array = np.frombuffer(stream.read(count * dtype.itemsize), dtype=dtype).reshape(shape, order=order)
            _finish(stream)
            return array
        if info.compress_type == zipfile.ZIP_STORED:
            offset = _data_offset(path, info) + start
            return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
        # The mapping outlives the closed, nameless file.
        with tempfile.TemporaryFile() as spool:
            while block := stream.read(COPY_BYTES):
                spool.write(block)
            spool.flush()
            return np.memmap(spool, dtype=dtype, mode="r", shape=shape, order=order)


def _finish(stream: Any) -> None:
    """Reads to the end, where zipfile compares the checksum."""
    while stream.read(COPY_BYTES):
        pass


def _array_header(stream: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError) as error:  # NumPy reads the header as Python
        raise DataError(f"{where} is no NumPy array ({error}).") from error
    if dtype.hasobject:
        raise DataError(f"{where} holds Python objects, which may carry code. Save it as plain numbers or text.")
    return shape, fortran, dtype


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    # The local header repeats name and extra field with lengths of its own; the central one cannot be
    # trusted here.
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        name_length, extra_length = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    return info.header_offset + LOCAL_HEADER.size + int(name_length) + int(extra_length)
