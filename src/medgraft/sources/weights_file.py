"""Read a weights file, or all parts of one, without running anybody's code; known by its beginning, not by its name."""

import argparse
import dataclasses
import hashlib
import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medgraft.errors import WeightsError

__all__ = ["SHARD", "StateDict", "demand_sha256", "read_state_dicts", "sha256_of", "weights_sha256"]

SHARD: Final = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
"""How parts of one file are called."""
_GLOBAL: Final = re.compile(r"GLOBAL ([\w.]+)")
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")
# Plain numbers of NumPy, under its old and its new name, which checkpoints keep beside tensors; none runs code.
# Settings of a script (argparse) are a bag of values.
_HARMLESS: Final[list[Any]] = [
    argparse.Namespace,
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
]
_STRANGERS: Final[dict[bytes, str]] = {
    b"version https://git-lfs": "a pointer of Git LFS instead of the file. Run git lfs pull where it was cloned.",
    b"\x89HDF": "a Keras or HDF5 file. Convert it: save its tensors by name with safetensors.",
    b"<": "a web page. The download failed or needed a login; fetch the file again.",
    b"{": "a JSON file. Give the weights themselves, or the index of weights in parts (….index.json).",
}
# Whatever the reader of torch stumbles over in a damaged file, found by damaging thousands at random.
_DAMAGED: Final = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    AssertionError,
    TypeError,
    AttributeError,
    struct.error,
    zipfile.BadZipFile,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StateDict:
    """A dictionary of tensors in a weights file, and the names of the dictionaries around it, joined by dots."""

    key: str
    tensors: dict[str, Tensor]


def sha256_of(*paths: Path) -> str:
    """Hexadecimal SHA-256 of files, one after the other, read in pieces."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def demand_sha256(path: Path, expected: str, remedy: str) -> None:
    """Refuse a file that is not the one it was.

    Args:
        path: Of the file.
        expected: Its hexadecimal SHA-256.
        remedy: What to do about it, as a sentence.

    Raises:
        WeightsError: It is missing, or was changed; the message has both digests.
    """
    if not path.is_file():
        raise WeightsError(f"expected the weights file {path}, got nothing. {remedy}")
    digest = sha256_of(path)
    if digest != expected:
        raise WeightsError(f"expected sha256 {expected} of {path}, got {digest}: it was changed. {remedy}")


def weights_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a weights file; of one in parts that of all parts."""
    return sha256_of(*_parts_of(path))


def _parts_of(path: Path) -> list[Path]:
    """The files that hold the weights at `path`: itself, or all parts where it is an index or one part of several.

    Raises:
        WeightsError: An index that cannot be read, or names a file that is not there.
    """
    if path.name.endswith(".index.json"):
        try:
            names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"expected the index of weights in parts at {path}, got {error}.") from error
        parts = [path.parent / Path(str(name)).name for name in names]
        if lost := [part.name for part in parts if not part.is_file()]:
            raise WeightsError(f"expected all parts that {path.name} names beside it, {', '.join(lost)} is missing.")
        return parts
    if shard := SHARD.search(path.name):
        count = int(shard[2])
        parts = [
            path.with_name(f"{path.name[: shard.start()]}-{number:05d}-of-{count:05d}{path.name[shard.end() :]}")
            for number in range(1, count + 1)
        ]
        if all(part.is_file() for part in parts):
            return parts
    return [path]


def read_state_dicts(path: Path) -> Iterator[StateDict]:
    """Every dictionary of tensors in a weights file, outermost first (checkpoints often hold several).

    Of weights in parts any part, or their index, stands for all.

    Raises:
        WeightsError: The file is missing, empty, no weights file, or would run code when loaded.
    """
    parts = _parts_of(path)
    contents = [_read(part) for part in parts]
    whole = contents[0] if len(parts) == 1 else {name: value for content in contents for name, value in content.items()}
    dictionaries = list(_tensor_dicts(whole))
    if not dictionaries:
        raise WeightsError(f"expected tensors in {path}, got a {type(whole).__name__} without any.")
    yield from dictionaries


def _read(path: Path) -> Any:
    """What one weights file holds, known by its beginning, whatever it is called."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "nothing"
        raise WeightsError(f"expected a weights file at {path}, got {kind}. Give the path of the file itself.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(
            f"expected a readable weights file at {path}, got {error}. Check its permissions."
        ) from error
    if not head:
        raise WeightsError(f"expected weights in {path}, got an empty file. Fetch it again.")
    for start, words in _STRANGERS.items():
        if head.lstrip().startswith(start):
            raise WeightsError(f"expected weights in {path}, got {words}")
    if _is_npz(head, path):
        return _read_npz(path)
    if path.suffix == ".safetensors" or _is_safetensors(head, path):
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"expected a safetensors file at {path}, got: {error}. Fetch it again.") from error
    return _read_torch(path)


def _is_safetensors(head: bytes, path: Path) -> bool:
    """Whether a file begins with the length of a JSON header and that header."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= path.stat().st_size - 8


def _is_npz(head: bytes, path: Path) -> bool:
    """Whether a file is an archive of NumPy arrays and nothing else; PyTorch's archives hold other things."""
    if not head.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> dict[str, Tensor]:
    """The numbers of an archive of NumPy arrays; text is left out, objects would be code and are refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            numbers = {name: arrays[name] for name in arrays.files}
    except (*_DAMAGED, zlib.error) as error:
        raise WeightsError(
            f"expected NumPy arrays of plain numbers in {path}, got: {str(error)[:160]}. medgraft never runs code "
            "from a weights file: save the arrays themselves with numpy.savez."
        ) from error
    odd = [name for name, value in numbers.items() if value.dtype.kind == "V"]
    if odd:
        raise WeightsError(
            f"expected numbers that NumPy knows in {path}, got {numbers[odd[0]].dtype} in {odd[0]}. "
            "Save bfloat16 as float32."
        )
    kept = {name: value for name, value in numbers.items() if value.dtype.kind in "biuf"}
    # Copies in native byte order, which alone PyTorch takes.
    return {name: torch.from_numpy(value.astype(_native(value.dtype))) for name, value in kept.items()}


def _native(kind: "np.dtype[Any]") -> "np.dtype[Any]":
    """A type of numbers that PyTorch has, in this machine's byte order."""
    wider = {"uint16": "int32", "uint32": "int64", "uint64": "int64", "float128": "float64"}
    return np.dtype(wider.get(kind.name, kind.name))


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _GLOBAL.search(str(error))
        what = f"an object of the class {named[1]}" if named else "bytes that are no such thing"
        raise WeightsError(
            f"expected a file with tensors only at {path}, got {what}. medgraft never runs code from a weights file: "
            "open it once where you trust it and save model.state_dict() as safetensors."
        ) from error
    except _DAMAGED as error:
        reason = (_ESCAPES.sub("", str(error)).splitlines() or [type(error).__name__])[0][:160]
        raise WeightsError(f"expected a torch weights file at {path}, got: {reason}. Fetch it again.") from error


def _tensor_dicts(content: Any, key: str = "") -> Iterator[StateDict]:
    if isinstance(content, dict):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            yield StateDict(key=key, tensors=tensors)
        for name, value in content.items():
            yield from _tensor_dicts(value, f"{key}.{name}" if key else str(name))
