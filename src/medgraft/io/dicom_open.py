"""The adapter to pydicom, first part: how a DICOM file is known, opened, and refused where it is damaged."""

import contextlib
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medgraft.errors import DataError

__all__ = ["BROKEN", "is_dicom", "quiet", "read_dataset", "refusing", "uid_of"]

PREAMBLE: Final = 128
# Groups with which a file begins that lacks the preamble: its own description, or the image's.
FIRST_GROUPS: Final = (0x0002, 0x0008)
EXPLICIT: Final = frozenset({b"UL", b"CS", b"DA", b"TM", b"UI", b"LO", b"SH", b"OB"})
INFLATED: Final = 2**30
BLOCK: Final = 2**20
# What pydicom and its codecs let through on damaged bytes; UserWarning is for callers that turn warnings into errors.
BROKEN: Final = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    RecursionError,
    NotImplementedError,
    UserWarning,
    struct.error,
    zlib.error,
)


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do, or is the data set of one without its preamble.

    Raises:
        DataError: It cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(PREAMBLE + 4)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}). Check the path and its rights.") from error
    return head[PREAMBLE:] == b"DICM" or (_begins_data_set(head) and _is_data_set(path))


def _begins_data_set(head: bytes) -> bool:
    """Whether bytes may be the first element of a DICOM data set in any of its three encodings."""
    if len(head) < 12:
        return False
    for order in ("<", ">"):
        group, element, length = struct.unpack(f"{order}HHL", head[:8])
        if group in FIRST_GROUPS and element < 0x100 and (head[4:6] in EXPLICIT or length < PREAMBLE):
            return True
    return False


def _is_data_set(path: Path) -> bool:
    """Whether a file without preamble reads as a data set that says what it is."""
    try:
        with quiet():
            names = ["SOPClassUID", "StudyInstanceUID", "Rows"]
            found = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=names)
            return any(name in found for name in names)
    except BROKEN:
        return False  # bytes that happen to begin alike


def read_dataset(path: Path, *, stop_before_pixels: bool = False) -> Dataset:
    """The file as pydicom reads it.

    Raises:
        DataError: It cannot be read.
    """
    with refusing(path), quiet():
        _refuse_inflation(path)
        dataset = pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, force=is_dicom(path))
        if not uid_of(dataset):
            dataset.file_meta.TransferSyntaxUID = _plain_syntax(dataset)
        return dataset


def _plain_syntax(dataset: Dataset) -> UID:
    """The syntax of a file that does not name one: that of its bytes.

    Raises:
        DataError: Its pixels are compressed, and nothing says how.
    """
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise DataError("compressed pixels without a transfer syntax. Write it out again as a DICOM file (part 10).")
    is_implicit, is_little = dataset.original_encoding
    return ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def _refuse_inflation(path: Path) -> None:
    """Refuse a deflated file that unpacks to too much, because pydicom unpacks it whole."""
    with path.open("rb") as stream:
        if stream.read(PREAMBLE + 4)[PREAMBLE:] != b"DICM":
            return
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as stream:
        stream.seek(PREAMBLE + 4 + 12 + int(meta.FileMetaInformationGroupLength))
        while block := unpacker.unconsumed_tail or stream.read(BLOCK):
            size += len(unpacker.decompress(block, BLOCK))
            if size > INFLATED:
                raise DataError(f"{path}: unpacks to more than {INFLATED // 2**20} MiB. Store it uncompressed.")


def uid_of(dataset: Dataset) -> str:
    """UID of its transfer syntax; empty where it names none."""
    return str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID") or "")


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns what damaged bytes raise inside into one refusal that names the file."""
    try:
        yield
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory for its pixels.") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        # The one gap: what decodes it is under the GPL, so it is the user's to install.
        advice = "Run pip install pylibjpeg-libjpeg" if "12-bit precision" in reason else "Export it again"
        message = f"{path}: damaged or not readable as DICOM ({reason}). {advice}, or leave it out."
        raise DataError(message) from error


_lock = threading.Lock()
_readers: "list[warnings.catch_warnings[Any]]" = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings of every oddity of real files; what matters is refused here by name.

    The filters belong to the process and several threads read: the first to enter sets them, the last restores them.
    """
    with _lock:
        catcher = warnings.catch_warnings()
        if not _readers:
            catcher.__enter__()
            warnings.simplefilter("ignore")
        _readers.append(_readers[0] if _readers else catcher)
    try:
        yield
    finally:
        with _lock:
            first = _readers.pop()
            if not _readers:
                first.__exit__(None, None, None)
