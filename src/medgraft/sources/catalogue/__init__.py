"""Published sources by name: one literal, from which docs/sources.md is generated."""

import difflib
from typing import Final

from medgraft.sources.catalogue.imagenet import IMAGENET_LITE0, SUPERVISED
from medgraft.sources.catalogue.medical import MEDICAL
from medgraft.sources.catalogue.self_supervised import SELF_SUPERVISED
from medgraft.sources.catalogue.volumes import VOLUMES
from medgraft.sources.known import KnownSource

__all__ = ["IMAGENET_LITE0", "SOURCES", "nearest_sources"]

SOURCES: Final[dict[str, KnownSource]] = {
    source.name: source for source in (*SUPERVISED, *SELF_SUPERVISED, *MEDICAL, *VOLUMES)
}
"""Every published source, by name."""


def nearest_sources(name: str, count: int = 4) -> list[str]:
    """The sources whose names look most like `name`, at most `count`."""
    return difflib.get_close_matches(name, SOURCES, n=count, cutoff=0.4)
