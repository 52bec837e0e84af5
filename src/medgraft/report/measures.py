"""By which numbers a run is judged: those of labels, or those of masks."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["LABELS", "MASKS", "Measure", "measure_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Names of two metrics as results write them and as people say them.

    Args:
        test: Key of what the verdict on the test set is about.
        test_name: In words.
        val: Key of what chooses on validation; a column of the tables with ``val_`` before it.
        val_name: In words.
    """

    test: str
    test_name: str
    val: str
    val_name: str

    @property
    def column(self) -> str:
        """Of the tables of trials and epochs."""
        return f"val_{self.val}"


LABELS: Final = Measure(test="auroc", test_name="AUROC", val="auprc", val_name="AUPRC")
MASKS: Final = Measure(test="dice", test_name="mean Dice", val="dice", val_name="mean Dice")


def measure_of(results: Mapping[str, Any]) -> Measure:
    """Of a run by its task.

    Args:
        results: ``results.json``.

    Examples:
        >>> measure_of({"task": "segmentation"}).column, measure_of({}).column
        ('val_dice', 'val_auprc')
    """
    return MASKS if results.get("task") == "segmentation" else LABELS
