"""Which published sources a loaded file may be: those of its layout whose network is as large."""

from torch import nn

from medgraft.backbones.load_report import LoadReport
from medgraft.sources.catalogue import SOURCES
from medgraft.sources.catalogue.sizes import SIZES
from medgraft.sources.fingerprint import size_of
from medgraft.sources.known import KnownSource
from medgraft.sources.layouts.published import PLAIN

__all__ = ["sources_of", "sources_of_size"]


def sources_of(report: LoadReport, network: nn.Module, named: KnownSource | None) -> tuple[KnownSource, ...]:
    """The sources in the catalogue that a file may be; none where its names of tensors are simply the network's own.

    Args:
        report: What loading it said.
        network: Filled from it.
        named: What the user says it is; then it is that.
    """
    if named is not None:
        return (named,)
    alike = sources_of_size(size_of(network.state_dict()))
    return tuple(source for source in alike if source.layout == report.layout != PLAIN)


def sources_of_size(size: int) -> list[KnownSource]:
    """The sources whose trunk holds so many numbers, see `medgraft.sources.fingerprint.size_of`."""
    return [source for source in SOURCES.values() if SIZES[source.name] == size]
