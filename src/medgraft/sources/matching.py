"""Match the tensors of a file to a network's by key, shape and order; which network is meant, or a refusal."""

import collections
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from medgraft.errors import WeightsError
from medgraft.sources.recognise import COUNTER
from medgraft.sources.weights_file import StateDict

__all__ = ["Candidate", "FamilyConverter", "matched_network"]

FamilyConverter = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Renames and reshapes the keys of a family's other releases; timm has one for most families."""
_MAX_PREFIXES: Final = 8
_SHOWN: Final = 5
# Share of the best: from here on another network of the file might be the one that is meant.
_ALIKE: Final = 0.9
_HEAD: Final = 2
"""Tensors of a head: weight and bias."""


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


def matched_network(
    contents: Sequence[StateDict],
    own: dict[str, Tensor],
    convert: FamilyConverter | None,
    key: str | None,
    file: Path,
) -> Candidate:
    """The network in a file that fits, whatever wrappers and prefixes its keys carry.

    A checkpoint may hold several networks: a model and its moving average, a student and its teacher, the encoders of
    queries and of keys. Where nothing says which is meant, that is for the user to say.

    Args:
        contents: Dictionaries of tensors in the file.
        own: The network's tensors by name.
        convert: Tried where keys differ; None where the family has no such function.
        key: Dictionaries and prefixes that lead to the network, joined by dots, or their beginning; None where the user
            gave none.
        file: For errors.

    Raises:
        WeightsError: Not one key fits, several networks do alike, or none has this key.
    """
    candidates = _candidates(contents, own, convert)
    if not candidates:
        raise WeightsError(
            f"expected weights for this network, got none in {file} that fit. The network's first keys: "
            f"{', '.join(list(own)[:_SHOWN])}. The file's first keys: {', '.join(list(contents[0].tensors)[:_SHOWN])}. "
            "Check that the architecture and its arguments are those of the file."
        )
    return _the_one_meant(candidates, key, file)


def _candidates(
    contents: Sequence[StateDict],
    own: dict[str, Tensor],
    convert: FamilyConverter | None,
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
    theirs = [name for name in tensors if not name.endswith(COUNTER)]
    ours = [name for name in own if not name.endswith(COUNTER)]
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


def _converted(convert: FamilyConverter, state: dict[str, Tensor]) -> dict[str, Tensor]:
    # A converter written for one release of a checkpoint meets keys it does not know on all others.
    try:
        with warnings.catch_warnings():
            # timm's interpolation of position tables is slower than it could be, which is nobody's concern here.
            warnings.filterwarnings("ignore", message=r"torch\.searchsorted")
            return convert(dict(state))
    except (KeyError, ValueError, RuntimeError, IndexError, AttributeError, TypeError, AssertionError):
        return {}
