"""From what the user asks for to a network with its weights, what they saw, and a report."""

import dataclasses
from typing import Final

import torch
from torch import nn

from medgraft.backbones.build import build_backbone, finished
from medgraft.backbones.load_report import Ancestor
from medgraft.backbones.spec import Backbone, BackboneSpec
from medgraft.errors import WeightsError
from medgraft.sources.agreement import demand_agreement
from medgraft.sources.hub import published_weights
from medgraft.sources.identify import sources_of
from medgraft.sources.known import Input, KnownSource
from medgraft.sources.layouts.published import PLAIN
from medgraft.sources.load import fill_backbone
from medgraft.sources.locate import Located, locate
from medgraft.sources.proof import prove
from medgraft.sources.run_source import lineage_of_run

__all__ = ["open_backbone"]

_PUBLISHED: Final = ("hub", "packaged")


def open_backbone(spec: BackboneSpec, located: Located | None = None) -> Backbone:
    """The network of `spec` with its weights; nothing ever falls back to random weights silently.

    Args:
        spec: What the user asked for.
        located: The file of the weights, where it was found already.

    Raises:
        BackboneError: Unknown name (the message lists the nearest) or arguments.
        WeightsError: The weights cannot be read, do not fit, or were trained with another network of the same shapes.
    """
    if located is None and spec.weights not in ("none", *_PUBLISHED):
        located = locate(spec.weights)
    flat = dataclasses.replace(spec, lift="none", input="replicate")
    # Building a network must not move anybody's random numbers, see `build_backbone`.
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(dataclasses.replace(flat, weights="none"))
        if located is not None:
            backbone = _filled(dataclasses.replace(backbone, spec=flat), located)
        elif spec.weights in _PUBLISHED:
            backbone = _published(dataclasses.replace(backbone, spec=flat))
        # What a run's own layers saw is known, and no photographs.
        if spec.weights not in ("none", "packaged") and (located is None or located.run is None):
            backbone = _proven(backbone)
    return finished(backbone, spec)


def _published(backbone: Backbone) -> Backbone:
    """A built network with the weights that belong to its name."""
    network, report = published_weights(backbone)
    learned = Ancestor(name=report.source, learned="not stated", licence=report.licence, sha256=report.sha256)
    return dataclasses.replace(backbone, network=network, report=dataclasses.replace(report, lineage=(learned,)))


def _filled(backbone: Backbone, located: Located) -> Backbone:
    """A built network with the weights of a file, and the input these were made for."""
    network = backbone.network
    report = fill_backbone(backbone, located.path, located.key, is_plain=located.run is not None)
    if located.source is not None and report.layout not in (located.source.layout, PLAIN):
        raise WeightsError(
            f"expected the layout {located.source.layout} of {located.source.name} in {located.path}, got "
            f"{report.layout}: it is something else. See medgraft weights show {located.source.name}."
        )
    sources = sources_of(report, network, located.source)
    demand_agreement(backbone, report, sources)
    report = dataclasses.replace(
        report,
        names=tuple(source.name for source in sources),
        licence=report.licence or _licence(sources),
        source=located.source.name if located.source else report.source,
        lineage=_lineage(located, report.sha256, sources),
    )
    return _as_they_saw(dataclasses.replace(backbone, report=report), sources)


def _lineage(located: Located, sha256: str, sources: tuple[KnownSource, ...]) -> tuple[Ancestor, ...]:
    """What weights learned, step by step.

    Args:
        located: Their file.
        sha256: Of the file.
        sources: What they may be.
    """
    before = lineage_of_run(located.run) if located.run is not None else ()
    words = " or ".join(dict.fromkeys(f"{source.objective}: {source.data}" for source in sources))
    name = " or ".join(source.name for source in sources) or located.path.name
    return (*before, Ancestor(name=name, learned=words or "not stated", licence=_licence(sources), sha256=sha256))


def _proven(backbone: Backbone) -> Backbone:
    """The network with what its layers say of its preprocessing in its report.

    Args:
        backbone: With its weights and their preprocessing.

    Raises:
        WeightsError: They saw something else, or some of them hold other tensors than they were trained with.
    """
    proof = prove(backbone)
    name = backbone.report.source
    is_stopping = backbone.spec.proof == "stop"
    if proof.verdict == "contradicts" and is_stopping:
        raise WeightsError(
            f"expected {name} to have seen mean {backbone.mean} and std {backbone.std} (on the scale 0 to 1), got one "
            f"that says otherwise. {proof.words} Give what it saw by --set backbone.mean=… and backbone.std=…, "
            "or go on all the same by --set backbone.proof=say."
        )
    if proof.verdict == "damaged" and is_stopping:
        raise WeightsError(
            f"expected layers in {name} that fit together, got others: {proof.words} Tensors were exchanged, "
            "multiplied or named wrongly, or it is another file. Fetch it again, "
            "or go on all the same by --set backbone.proof=say."
        )
    return dataclasses.replace(backbone, report=dataclasses.replace(backbone.report, proof=proof.words))


def _licence(sources: tuple[KnownSource, ...]) -> str:
    """The licence that all sources share, else an empty string."""
    licences = {source.licence for source in sources}
    return licences.pop() if len(licences) == 1 else ""


def _as_they_saw(backbone: Backbone, sources: tuple[KnownSource, ...]) -> Backbone:
    """The network with the mean, deviation and channel order that its weights were made for; the user's own come first.

    Args:
        backbone: With its weights.
        sources: What these may be; where they differ in their input, the network's usual one stays.
    """
    inputs = {(source.input.mean, source.input.std, source.input.channels) for source in sources}
    if len(inputs) != 1:
        return backbone
    what = sources[0].input
    if what.channels == "bgr":
        _read_rgb(backbone.network)
    if backbone.spec.mean or backbone.spec.std:
        return backbone
    if not what.mean:
        return dataclasses.replace(backbone, normalisation="image")
    mean, std = _per_channel(what, backbone.in_channels)
    return dataclasses.replace(backbone, normalisation="weights", mean=mean, std=std)


def _per_channel(what: Input, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation for the channels that the network reads."""
    if len(what.mean) == count:
        return what.mean, what.std
    if len(what.mean) != 1 and count != 1:
        raise WeightsError(f"expected weights for {count} channels, got such as saw {len(what.mean)}.")
    mean, std = sum(what.mean) / len(what.mean), sum(what.std) / len(what.std)
    return (mean,) * count, (std,) * count


def _read_rgb(network: nn.Module) -> None:
    """Turn the first kernel of a network that was shown blue first."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            with torch.no_grad():
                module.weight.copy_(module.weight.flip(1))
            return
