"""Read weights without running anybody's code, match them to a network by key, and say what happened."""

import collections
import dataclasses
import hashlib
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medgraft.errors import WeightsError
from medgraft.types import LoadReport

__all__ = ["StateDict", "file_and_key", "load_weights", "read_state_dicts", "sha256_of"]

_SHOWN: Final = 5
_MAX_PREFIXES: Final = 8
# Share of the best: from here on another network of the file might be the one that is meant.
_ALIKE: Final = 0.9
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A network in a weights file.

    Args:
        key: Where it lies.
        state: Tensors, by the names they were read as.
        fits: Tensors of `state` that fit the network.
        under: Tensors of `fits` that also lie under the key; others were found beside it.
    """

    key: str
    state: dict[str, Tensor]
    fits: dict[str, Tensor]
    under: dict[str, Tensor]


def load_weights(
    network: nn.Module,
    path: str | Path,
    *,
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> LoadReport:
    """Fill `network` from a file, whatever wrappers and prefixes its keys carry; returns what was matched.

    A checkpoint may hold several networks: a model and its moving average, a student and its teacher, the encoders of
    queries and of keys. Which is meant is for the user to say.

    Args:
        network: Changed in place.
        path: A safetensors file, or a torch file that holds tensors only; ``FILE#key`` names one network in it by the
            dictionaries and prefixes that lead to it, e.g. ``dino.pth#teacher.backbone``.
        convert: Renames and reshapes foreign keys (timm has one for most families); tried when keys differ.

    Raises:
        WeightsError: The file is missing, unsafe, unreadable, not one of its keys fits, or several networks in it do.
    """
    file, key = file_and_key(path)
    own = network.state_dict()
    contents = list(read_state_dicts(file))
    candidates = _candidates(contents, own, convert)
    if not candidates:
        raise WeightsError(
            f"expected weights for this network, got none in {file} that fit. The network's first keys: "
            f"{', '.join(list(own)[:_SHOWN])}. The file's first keys: {', '.join(list(contents[0].tensors)[:_SHOWN])}. "
            "Check that the architecture and its arguments are those of the file."
        )
    candidate = _the_one_meant(candidates, key, file)
    network.load_state_dict({**own, **candidate.fits})
    return _report(file, own, candidate)


def file_and_key(path: str | Path) -> tuple[Path, str | None]:
    """The file, and the key of the network in it where ``FILE#key`` gives one; a file of that very name is the file.

    Examples:
        >>> file, key = file_and_key("dino.pth#teacher")
        >>> file.name, key
        ('dino.pth', 'teacher')
        >>> file_and_key("resnet50.safetensors")[1] is None
        True
    """
    text = str(path)
    name, sign, key = text.rpartition("#")
    return (Path(text), None) if not sign or Path(text).exists() else (Path(name), key)


def _candidates(
    contents: Sequence[StateDict],
    own: dict[str, Tensor],
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None,
) -> list[Candidate]:
    """Every network of a file that fits somewhere, the best reading of each, in the order of the file.

    Args:
        contents: Every dictionary of tensors in the file.
        own: The network's tensors by name.
        convert: Renames and reshapes foreign keys; tried where keys differ. None where the family has no such function.
    """
    best: dict[str, Candidate] = {}
    for content in contents:
        for prefix, inner, beside in _renamings(content.tensors, own):
            key = ".".join(part for part in (content.key, prefix) if part)
            readings = [(inner, beside)]
            if convert is not None and _size(_fitting(beside | inner, own)) < _size(own):
                readings.append((_converted(convert, inner), {}))
            for under, others in readings:
                state = others | under
                fits = _fitting(state, own)
                if fits and (key not in best or _size(fits) > _size(best[key].fits)):
                    best[key] = Candidate(key=key, state=state, fits=fits, under=_fitting(under, own))
    return list(best.values())


def _the_one_meant(candidates: Sequence[Candidate], key: str | None, file: Path) -> Candidate:
    """The network with this key, or without one the network that fits best.

    Args:
        candidates: At least one.
        key: Dictionaries and prefixes that lead to the network, joined by dots, or their beginning; None where the user
            gave none.
        file: For errors.

    Raises:
        WeightsError: Others fit as well and hold other numbers, or none has this key.
    """
    named = [item for item in candidates if key is None or item.key == key or item.key.startswith(f"{key}.")]
    if not named:
        names = " or ".join(f"{file}#{item.key}" for item in _rivals(candidates))
        raise WeightsError(f"expected a network {key!r} in {file}, got none of that name that fits. Say {names}.")
    rivals = [item for item in named if item.key == key] or _rivals(named)
    if len(rivals) > 1:
        names = " or ".join(f"{file}#{item.key}" for item in rivals)
        raise WeightsError(
            f"expected one network in {file}, got {len(rivals)} that fit alike and hold other numbers. "
            f"Say which: --weights {names}."
        )
    return rivals[0]


def _rivals(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The network that fits best, and others that do nearly as well by what lies under their own key.

    One that holds the same numbers is no other: wrappers often name the same tensors twice.
    """
    best = max(candidates, key=lambda item: _size(item.fits))
    kept = [best]
    for item in candidates:
        is_whole = _size(item.under) >= _ALIKE * _size(best.fits)
        if item is not best and is_whole and not any(_holds_same(item, other) for other in kept):
            kept.append(item)
    return kept


def _holds_same(item: Candidate, other: Candidate) -> bool:
    return all(name in other.fits and torch.equal(value, other.fits[name]) for name, value in item.under.items())


def _report(path: Path, own: dict[str, Tensor], candidate: Candidate) -> LoadReport:
    """What loading a network of a file did.

    Args:
        path: The weights file; a ``.json`` beside it may tell its licence.
        own: The network's tensors by name.
        candidate: What was loaded.
    """
    state, fits = candidate.state, candidate.fits
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
        key=candidate.key,
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


def read_state_dicts(path: Path) -> Iterator[StateDict]:
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


def _tensor_dicts(content: Any, key: str = "") -> Iterator[StateDict]:
    if isinstance(content, dict):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            yield StateDict(key=key, tensors=tensors)
        for name, value in content.items():
            yield from _tensor_dicts(value, f"{key}.{name}" if key else str(name))


def _renamings(
    tensors: dict[str, Tensor], own: dict[str, Tensor]
) -> Iterator[tuple[str, dict[str, Tensor], dict[str, Tensor]]]:
    """`tensors` as they are, and with the prefixes stripped or added that bring most keys together.

    Each time the prefix in the file, what lies under it, and what lies beside it.
    """
    yield "", tensors, {}
    strip: collections.Counter[str] = collections.Counter()
    add: collections.Counter[str] = collections.Counter()
    by_tail = collections.defaultdict(list)
    for name in own:
        by_tail[name.rpartition(".")[2]].append(name)
    for key in tensors:
        for name in by_tail.get(key.rpartition(".")[2], ()):
            if key.endswith("." + name):
                strip[key[: -len(name)]] += 1
            elif name.endswith("." + key):
                add[name[: -len(key)]] += 1
    for prefix, _ in strip.most_common(_MAX_PREFIXES):
        beside = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
        inner = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        yield prefix.removesuffix("."), inner, beside
    for prefix, _ in add.most_common(_MAX_PREFIXES):
        yield "", {prefix + key: value for key, value in tensors.items()}, {}


def _fitting(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}


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
