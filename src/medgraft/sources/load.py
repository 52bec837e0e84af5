"""Fill a network from a weights file, and say what happened; nothing is dropped or guessed without a word."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from medgraft.backbones.build import family_converter
from medgraft.backbones.load_report import LoadReport
from medgraft.backbones.spec import Backbone
from medgraft.backbones.torchvision_models import without_dropped
from medgraft.errors import WeightsError
from medgraft.sources.layouts.published import LAYOUTS, PLAIN
from medgraft.sources.matching import Candidate, FamilyConverter, matched_network
from medgraft.sources.recognise import COUNTER, NetworkInFile, layout_of, network_in_file
from medgraft.sources.weights_file import SHARD, StateDict, read_state_dicts, weights_sha256

__all__ = ["file_and_key", "fill_backbone", "fill_network", "load_weights"]

_SHOWN: Final = 5
_STATISTICS: Final = ("running_mean", "running_var")
# What tools and older versions keep beside the tensors of a layer, and no feature depends on.
_BOOKKEEPING: Final = (COUNTER, "total_ops", "total_params", "relative_position_index", "attn_mask", "position_ids")


def load_weights(
    network: nn.Module, path: str | Path, *, convert: FamilyConverter | None = None, is_plain: bool = False
) -> LoadReport:
    """Fill `network` from a file and return what was matched.

    A published layout is told by the names and shapes in the file: then the network that its authors mean is loaded, by
    the map of that layout. Of any other file wrappers and prefixes are stripped, and two networks that fit alike are
    refused.

    Args:
        network: Changed in place.
        path: A safetensors file, an archive of NumPy arrays, or a torch file that holds tensors only; ``FILE#key``
            names one network in it by the dictionaries and prefixes that lead to it, e.g. ``dino.pth#student``.
        convert: Renames and reshapes the keys of the family's other releases.
        is_plain: Whether the file is known to have none of the published layouts.

    Raises:
        WeightsError: The file is missing, unsafe, unreadable, not one of its keys fits, several networks in it do, or
            it holds a part of a layer that the network lacks.
    """
    return fill_network(network, *file_and_key(path), convert=convert, is_plain=is_plain)


def fill_network(
    network: nn.Module, file: Path, key: str | None, *, convert: FamilyConverter | None = None, is_plain: bool = False
) -> LoadReport:
    """As `load_weights`, of a file and the network in it that are told apart already.

    Args:
        network: Changed in place.
        file: The weights file.
        key: Dictionaries and prefixes that lead to the network in it, or their beginning; None where nobody named any.
        convert: Renames and reshapes the keys of the family's other releases.
        is_plain: Whether the file is known to have none of the published layouts.

    Raises:
        WeightsError: As there.
    """
    own = network.state_dict()
    contents = list(read_state_dicts(file))
    layout = None if is_plain else layout_of(contents)
    published = None
    if layout is not None:
        published = network_in_file(contents, layout, key, file)
        contents, key = [_by_own_names(published, own)], None
    candidate = matched_network(contents, own, convert, key, file)
    _refuse_half_layers(candidate, own, file)
    _refuse_no_numbers(candidate.fits, file)
    network.load_state_dict({**own, **candidate.fits})
    return _report(file, own, candidate, published)


def fill_backbone(backbone: Backbone, file: Path, key: str | None = None, *, is_plain: bool = False) -> LoadReport:
    """As `fill_network`, with what is known of the releases of a network's family.

    Args:
        backbone: Its network is changed in place.
        file: The weights file.
        key: As for `fill_network`.
        is_plain: As for `fill_network`.

    Raises:
        WeightsError: As for `load_weights`.
    """
    report = fill_network(backbone.network, file, key, convert=family_converter(backbone), is_plain=is_plain)
    return without_dropped(backbone.spec.name, report)


def _by_own_names(published: NetworkInFile, own: dict[str, Tensor]) -> StateDict:
    """A published network's tensors by the names that its layout's map gives them."""
    convert = LAYOUTS[published.layout].convert
    tensors = published.state if convert is None else convert(published.state, own)
    return StateDict(key=published.path, tensors=tensors)


def _refuse_half_layers(candidate: Candidate, own: Mapping[str, Tensor], file: Path) -> None:
    """Refuse a file whose layers have a part that the network's lack: without it they compute something else."""
    layers = {name.rpartition(".")[0] for name in own}
    lost = [
        name
        for name in candidate.state
        if name not in own and "." in name and name.rpartition(".")[0] in layers and not name.endswith(_BOOKKEEPING)
    ]
    if lost:
        raise WeightsError(
            f"expected layers like the network's in {file}, got {_some(lost)}, which the network's layers lack; "
            "dropped, they would leave other features. Build the network that the file was made for."
        )


def _refuse_no_numbers(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Refuse weights that hold NaN or infinity: nothing could be learned from there."""
    lost = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if lost:
        raise WeightsError(
            f"expected finite numbers in {file}, got NaN or infinity in {_some(lost)}. Fetch or save it again."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


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


def _report(path: Path, own: dict[str, Tensor], candidate: Candidate, published: NetworkInFile | None) -> LoadReport:
    """What loading a network of a file did.

    Args:
        path: The weights file; a ``.json`` beside it may tell its licence.
        own: The network's tensors by name.
        candidate: What was loaded.
        published: What the file's layout says of it; None where it has none that is known.
    """
    state, fits = candidate.state, candidate.fits
    counted = [name for name in own if not name.endswith(COUNTER)]
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
        layout=published.layout if published else PLAIN,
        dropped=published.dropped if published else (),
        other_networks=published.others if published else (),
        licence=licence,
        sha256=weights_sha256(path),
        matched=sum(name in fits for name in counted),
        missing=tuple(missing),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(n for n in state if n in own and own[n].shape != state[n].shape),
        matched_fraction=sum(own[n].numel() for n in counted if n in fits) / max(total, 1),
        hint=_hint(path, own, state, missing) or (LAYOUTS[published.layout].caution if published else ""),
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
