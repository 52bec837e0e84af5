"""Advice as a value: facts, what probes say of every stage, and which strategies to begin with."""

import dataclasses

__all__ = ["Advice", "NamedCut", "Probe", "Recommendation"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """AUPRC of a linear probe on frozen features at a cut, on validation or cross-fitted on training, too."""

    cut: int
    name: str
    val_auprc: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamedCut:
    """Index and name of a depth."""

    index: int
    name: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A strategy to try.

    Args:
        strategy: A key of `medgraft.transfer.strategies.STRATEGIES`.
        why: A sentence.
        source: The paper that says so.
        cut: Depth to begin with; None where the strategy has no depth, or any will do.
    """

    strategy: str
    why: str
    source: str
    cut: NamedCut | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to start with.

    Args:
        facts: Sentences.
        probes: Linear probes at the ends of the stages.
        domain_distance: Distance from the source's images, in standard deviations; None where nothing remembers these.
        advice: Strategies to try, the most advised first.
    """

    facts: tuple[str, ...]
    probes: tuple[Probe, ...]
    domain_distance: float | None
    advice: tuple[Recommendation, ...]
