"""Which published sources a loaded file may be: those of its layout whose network is as large."""

from torch import nn

from medgraft.backbones.load_report import LoadReport
from medgraft.sources.catalogue import SOURCES
from medgraft.sources.catalogue.sizes import SIZES
from medgraft.sources.fingerprint import size_of
from medgraft.sources.known import KnownSource
from medgraft.sources.layouts.published import PLAIN

__all__ = ["sources_of"]


def sources_of(report: LoadReport, network: nn.Module, named: KnownSource | None) -> tuple[KnownSource, ...]:
    """The sources in the catalogue that a file may be; none where its names of tensors are simply the network's own.

    Args:
        report: What loading it said.
        network: Filled from it.
        named: What the user says it is; then it is that.
    """
    if named is not None:
        return (named,)
    size = size_of(network.state_dict())
    return tuple(
        source
        for source in SOURCES.values()
        if source.layout == report.layout != PLAIN and SIZES.get(source.name) == size
    )
