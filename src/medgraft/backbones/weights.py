"""Read weights without running anybody's code, match them to a network by key, and say what happened."""

import collections
import hashlib
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medgraft.errors import WeightsError
from medgraft.types import LoadReport

__all__ = ["load_weights", "read_state_dicts", "sha256_of"]

_SHOWN: Final = 5
_MAX_PREFIXES: Final = 8
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


def load_weights(
    network: nn.Module,
    path: Path,
    *,
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> LoadReport:
    """Fill `network` from a file, whatever wrappers and prefixes its keys carry; returns what was matched.

    Args:
        network: Changed in place.
        path: A safetensors file, or a torch file that holds tensors only.
        convert: Renames and reshapes foreign keys (timm has one for most families); tried when keys differ.

    Raises:
        WeightsError: The file is missing, unsafe, unreadable, or not one of its keys fits.
    """
    own = network.state_dict()
    best: tuple[int, dict[str, Tensor], dict[str, Tensor]] | None = None
    candidates = list(read_state_dicts(path))
    for found in candidates:
        for state in _renamings(found, own):
            best = _better(best, state, own)
            if convert is not None and best is not None and best[0] < _size(own):
                best = _better(best, _converted(convert, state), own)
    if best is None or best[0] == 0:
        keys = next(iter(candidates), {})
        raise WeightsError(
            f"expected weights for this network, got none in {path} that fit. The network's first keys: "
            f"{', '.join(list(own)[:_SHOWN])}. The file's first keys: {', '.join(list(keys)[:_SHOWN])}. "
            "Check that the architecture and its arguments are those of the file."
        )
    _, state, fits = best
    network.load_state_dict({**own, **fits})
    return _report(path, own, state, fits)


def _report(path: Path, own: dict[str, Tensor], state: dict[str, Tensor], fits: dict[str, Tensor]) -> LoadReport:
    counted = [name for name in own if not name.endswith("num_batches_tracked")]
    missing = [name for name in counted if name not in fits]
    total = sum(own[name].numel() for name in counted)
    sidecar = path.with_suffix(".json")
    licence = ""
    if sidecar.is_file():
        try:
            licence = str(json.loads(sidecar.read_text(encoding="utf-8")).get("licence", ""))
        except (ValueError, AttributeError) as error:
            raise WeightsError(f"expected a JSON object in {sidecar}, got {error}. Correct or move it.") from error
    return LoadReport(
        source=path.name,
        licence=licence,
        sha256=sha256_of(path),
        matched=sum(name in fits for name in counted),
        missing=tuple(missing),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(n for n in state if n in own and own[n].shape != state[n].shape),
        matched_fraction=sum(own[n].numel() for n in counted if n in fits) / max(total, 1),
    )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_state_dicts(path: Path) -> Iterator[dict[str, Tensor]]:
    """Every dictionary of tensors in a weights file, outermost first (checkpoints often hold several).

    Raises:
        WeightsError: The file is missing, empty, no weights file, or would run code when loaded.
    """
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
    if head.lstrip()[:1] == b"<":
        raise WeightsError(
            f"expected weights in {path}, got a web page (it begins with {head.lstrip()[:20]!r}). "
            "The download failed or needed a login; fetch the file again."
        )
    if path.suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"expected a safetensors file at {path}, got: {error}. Fetch it again.") from error
    else:
        content = _read_torch(path)
    dictionaries = list(_tensor_dicts(content))
    if not dictionaries:
        raise WeightsError(f"expected tensors in {path}, got a {type(content).__name__} without any.")
    yield from dictionaries


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"expected a file with tensors only at {path}, got one that torch refuses to read safely "
            f"({reason}). medgraft never runs code from a weights file: open it once where you trust it and save "
            "model.state_dict() as safetensors."
        ) from error
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"expected a torch weights file at {path}, got: {reason}. Fetch it again.") from error


def _tensor_dicts(content: Any) -> Iterator[dict[str, Tensor]]:
    if isinstance(content, dict):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            yield tensors
        for value in content.values():
            yield from _tensor_dicts(value)


def _renamings(found: dict[str, Tensor], own: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """`found` as it is, and with the prefixes stripped or added that bring most keys together."""
    yield found
    strip: collections.Counter[str] = collections.Counter()
    add: collections.Counter[str] = collections.Counter()
    by_tail = collections.defaultdict(list)
    for name in own:
        by_tail[name.rpartition(".")[2]].append(name)
    for key in found:
        for name in by_tail.get(key.rpartition(".")[2], ()):
            if key.endswith("." + name):
                strip[key[: -len(name)]] += 1
            elif name.endswith("." + key):
                add[name[: -len(key)]] += 1
    for prefix, _ in strip.most_common(_MAX_PREFIXES):
        yield {key.removeprefix(prefix) if key.startswith(prefix) else key: v for key, v in found.items()}
    for prefix, _ in add.most_common(_MAX_PREFIXES):
        yield {prefix + key: value for key, value in found.items()}


def _better(
    best: tuple[int, dict[str, Tensor], dict[str, Tensor]] | None,
    state: dict[str, Tensor],
    own: dict[str, Tensor],
) -> tuple[int, dict[str, Tensor], dict[str, Tensor]] | None:
    fits = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    size = _size(fits)
    return (size, state, fits) if best is None or size > best[0] else best


def _size(state: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())


def _converted(
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    # A converter written for one release of a checkpoint meets keys it does not know on all others.
    try:
        return convert(dict(state))
    except (KeyError, ValueError, RuntimeError, IndexError, AttributeError, TypeError, AssertionError):
        return {}
