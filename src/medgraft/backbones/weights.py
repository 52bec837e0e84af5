"""Match the tensors of a weights file to a network by key, shape and order, and say what happened."""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from medgraft.backbones.weights_file import SHARD, StateDict, read_state_dicts, weights_sha256
from medgraft.errors import WeightsError
from medgraft.types import LoadReport

__all__ = ["file_and_key", "load_weights"]

_SHOWN: Final = 5
_MAX_PREFIXES: Final = 8
# Share of the best: from here on another network of the file might be the one that is meant.
_ALIKE: Final = 0.9
_COUNTER: Final = "num_batches_tracked"
_HEAD: Final = 2
"""Tensors of a head: weight and bias."""
_STATISTICS: Final = ("running_mean", "running_var")


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
    _refuse_no_numbers(candidate.fits, file)
    network.load_state_dict({**own, **candidate.fits})
    return _report(file, own, candidate)


def _refuse_no_numbers(tensors: dict[str, Tensor], file: Path) -> None:
    """Refuse weights that hold NaN or infinity: nothing could be learned from there."""
    lost = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if lost:
        names = ", ".join(lost[:_SHOWN]) + (" …" if len(lost) > _SHOWN else "")
        raise WeightsError(
            f"expected finite numbers in {file}, got NaN or infinity in {names}. Fetch or save it again."
        )


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
    counted = [name for name in own if not name.endswith(_COUNTER)]
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
        sha256=weights_sha256(path),
        matched=sum(name in fits for name in counted),
        missing=tuple(missing),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(n for n in state if n in own and own[n].shape != state[n].shape),
        matched_fraction=sum(own[n].numel() for n in counted if n in fits) / max(total, 1),
        hint=_hint(path, own, state, missing),
    )


def _hint(path: Path, own: dict[str, Tensor], state: dict[str, Tensor], missing: Sequence[str]) -> str:
    """Why tensors may be missing and what to do; empty where the file does not show it.

    Args:
        path: The weights file.
        own: The network's tensors by name.
        state: The file's tensors by name.
        missing: The network's tensors that were not filled.
    """
    if shard := SHARD.search(path.name):
        part = f"part {int(shard[1])} of {int(shard[2])}"
        return f"The file is {part}: put the others beside it, or give their index (.json)."
    if missing and all(name.endswith(_STATISTICS) for name in missing):
        return (
            "The file lacks the statistics of its normalisation (running_mean, running_var): save a whole state_dict()."
        )
    stem = next((name for name, value in own.items() if value.ndim > 2), "")
    if stem in state and state[stem].ndim == own[stem].ndim and state[stem].shape[1] != own[stem].shape[1]:
        count, wanted = state[stem].shape[1], own[stem].shape[1]
        return (
            f"The file's first layer reads {count} channel{'s' * (count > 1)}, the network's {wanted}: build it alike "
            f"with --backbone-arg in_chans={count}."
        )
    return ""


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
    if ordered := _by_order(tensors, own):
        yield "", ordered, {}


def _by_order(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under the network's names where both list the same shapes in the same order; empty where they do not.

    So are networks saved whose children were put into a Sequential (RadImageNet): numbers stand for names. What is left
    of a name has to agree, and only a head may be missing or left over at the end.

    Args:
        tensors: Those of the file, in its order.
        own: Those of the network, in its order.
    """
    theirs = [name for name in tensors if not name.endswith(_COUNTER)]
    ours = [name for name in own if not name.endswith(_COUNTER)]
    pairs = list(zip(theirs, ours, strict=False))
    is_alike = (tensors[their].shape == own[our].shape and _may_be(their, our) for their, our in pairs)
    num = next((number for number, is_same in enumerate(is_alike) if not is_same), len(pairs))
    if min(len(theirs), len(ours)) - num > _HEAD or not num:
        return {}
    return {our: tensors[their] for their, our in pairs[:num]}


def _may_be(their: str, our: str) -> bool:
    """Whether the ends of two names agree, of which numbers of children say nothing."""
    (*_, parent, end), (*_, name, own_end) = f".{their}".split("."), f".{our}".split(".")
    return end == own_end and (parent in ("", name) or parent.isdigit())


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
