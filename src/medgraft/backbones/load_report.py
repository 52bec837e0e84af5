"""What loading pretrained weights did, and what they had learned before."""

import dataclasses

__all__ = ["Ancestor", "LoadReport"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """One step of what weights learned before.

    Args:
        name: Of the source or run.
        learned: What it learned, and from what.
        licence: As far as known, else an empty string.
        sha256: SHA-256 of its file, else an empty string.
    """

    name: str
    learned: str
    licence: str = ""
    sha256: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What loading pretrained weights into a network did.

    Args:
        source: Where the weights came from (file name, hub name, ``packaged``, ``none``).
        key: Dictionaries and prefixes that lead to the network in its file, joined by dots, as ``FILE#key`` names it;
            empty where nothing surrounds it.
        layout: Whose way of naming tensors the file has: a key of `medgraft.sources.layouts.published.LAYOUTS`,
            ``network`` for the network's own; empty where no file was read.
        names: Published sources that the file may be, by their names in the catalogue.
        licence: As far as known, else an empty string.
        sha256: SHA-256 of the file, else an empty string.
        dropped: Names in the file that are known to belong to no trunk: heads, queues, decoders.
        other_networks: Paths of other networks in the file, which ``FILE#path`` would load.
        matched: Number of the trunk's tensors that were filled.
        missing: Names of trunk tensors that the file lacks.
        unexpected: Names in the file that the network lacks (a source head is expected here).
        wrong_shape: Names that are in both with different shapes.
        matched_fraction: Share of the trunk's parameters that were filled, 0 to 1.
        missing_tail: True when everything missing forms one contiguous tail of the network.
        last_pretrained_cut: Index of the last cut all of whose parameters were filled, or None.
        hint: Why tensors may be missing and what to do, where the file shows it; else empty.
        lineage: What the weights learned, step by step, the first first.
        proof: What the layers that remember what they saw say of the preprocessing, as a sentence.
    """

    source: str
    key: str = ""
    layout: str = ""
    names: tuple[str, ...] = ()
    licence: str = ""
    sha256: str = ""
    dropped: tuple[str, ...] = ()
    other_networks: tuple[str, ...] = ()
    matched: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    matched_fraction: float = 0.0
    missing_tail: bool = False
    last_pretrained_cut: int | None = None
    hint: str = ""
    lineage: tuple[Ancestor, ...] = ()
    proof: str = ""
