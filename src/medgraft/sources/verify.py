"""Look at every source on this machine again: is its file the one that was stored, and does it still prove itself."""

import dataclasses

from medgraft.backbones.spec import BackboneSpec
from medgraft.errors import MedgraftError
from medgraft.sources.catalogue import SOURCES
from medgraft.sources.choose import network_of_weights
from medgraft.sources.known import KnownSource
from medgraft.sources.locate import is_here, source_named
from medgraft.sources.open import open_backbone
from medgraft.sources.vault import stored_names

__all__ = ["Verified", "sources_here", "verify"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What looking at a source again said.

    Args:
        name: Of the source.
        is_sound: Whether its file is the one that was stored, fills its network and does not contradict itself.
        words: What was seen.
    """

    name: str
    is_sound: bool
    words: str


def sources_here() -> list[KnownSource]:
    """The sources whose files are on this machine: in an installed package or in the vault."""
    names = dict.fromkeys([*(name for name, source in SOURCES.items() if is_here(source)), *stored_names()])
    return [source for name in names if (source := source_named(name)) is not None]


def verify(name: str) -> Verified:
    """What a source's file says when it is opened again: its digest, its tensors, what it saw.

    Args:
        name: Of a source on this machine.
    """
    try:
        named = network_of_weights(name)
        spec = BackboneSpec(name=named.name, args=named.args, weights=name, is_offline=True)
        report = open_backbone(spec, named.located).report
    except MedgraftError as error:
        return Verified(name=name, is_sound=False, words=str(error))
    missing = f"{len(report.missing)} missing ({report.missing[0]} …)" if report.missing else "none missing"
    return Verified(
        name=name, is_sound=not report.missing, words=f"{report.matched} tensors, {missing}. {report.proof}"
    )
