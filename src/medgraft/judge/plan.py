"""How results are judged; fixed before a test set is opened."""

import dataclasses

__all__ = ["JudgePlan"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JudgePlan:
    """What judging needs to know.

    Args:
        margin: Non-inferiority margin, in units of the metric that judges.
        replicates: Replicates of the bootstrap.
        seed: Seeds the bootstrap.
        operating_point: ``youden`` or ``sensitivity=S``, for labels.
        tolerance: Tolerance of surface Dice, for masks: mm, or px where the spacing is unknown.
    """

    margin: float = 0.02
    replicates: int = 2000
    seed: int = 0
    operating_point: str = "youden"
    tolerance: float = 2.0
