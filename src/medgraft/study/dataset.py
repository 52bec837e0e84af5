"""A cohort decoded, with truth, groups and preprocessing: what judges look at, and what a study is taken from."""

import dataclasses

import numpy as np

from medgraft.data.decoded.images import DecodedCohort
from medgraft.data.decoded.masks import stored_spacing
from medgraft.study.study import Study
from medgraft.train.batches import ImageSet, MaskSet
from medgraft.types import Cohort, Preprocessing

__all__ = ["Dataset"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A decoded cohort and how a network reads it.

    Args:
        cohort: N images.
        decoded: Their cache.
        rows: (N,) row of the cache of each.
        groups: (N,) group of each.
        preprocessing: From a file to the network's input.
        patch: Sides of what a network for masks sees at once; empty for labels.
        masks: (M, *sides) uint8 class numbers, a row for each of the cache; None for labels.
    """

    cohort: Cohort
    decoded: DecodedCohort
    rows: np.ndarray
    groups: np.ndarray
    preprocessing: Preprocessing
    patch: tuple[int, ...] = ()
    masks: np.ndarray | None = None

    @property
    def surface_unit(self) -> str:
        """Unit of distances between surfaces: ``mm`` where every image of the cohort tells its spacing, else ``px``.

        ``mm_at_detector`` where some tell only that spacing: there the body is magnified.
        """
        if not all(stored_spacing(self.decoded, int(row)) for row in self.rows):
            return "px"
        return "mm_at_detector" if self.decoded.facts["is_at_detector"][self.rows].any() else "mm"

    def images(self, split: str) -> ImageSet:
        """The images of one split; for training with what it is told in the place of uncertain labels."""
        rows = self.cohort.rows(split)
        targets = self.cohort.training_targets if split == "train" else self.cohort.targets
        if self.masks is not None:
            return MaskSet(
                images=self.decoded.images,
                masks=self.masks,
                rows=self.rows[rows],
                targets=targets[rows],
                intensity_max=self.preprocessing.intensity_max,
                num_classes=len(self.cohort.classes),
                is_standardised=self.preprocessing.normalisation == "image",
            )
        return ImageSet(
            images=self.decoded.images,
            rows=self.rows[rows],
            targets=targets[rows],
            intensity_max=self.preprocessing.intensity_max,
            task=self.cohort.task,
            positive=self.positive,
            num_classes=len(self.cohort.classes),
        )

    @property
    def study(self) -> Study:
        """What trials learn from: the images for training and validation, and nothing of the test set."""
        train, val = self.cohort.rows("train"), self.cohort.rows("val")
        return Study(
            train=self.images("train"),
            val=self.images("val"),
            train_groups=self.groups[train],
            val_groups=self.groups[val],
            val_units=self.cohort.units(val),
            classes=self.cohort.classes,
        )

    @property
    def positive(self) -> int | None:
        """Index of the positive class of a binary task."""
        positive = self.cohort.positive
        return None if positive is None else self.cohort.classes.index(positive)
