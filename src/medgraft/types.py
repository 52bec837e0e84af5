"""The plain values that travel between rooms.

Frozen, slotted, keyword-only; `medgraft.as_json` turns any of them into plain JSON types.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeVar, get_args

import numpy as np

__all__ = [
    "USUAL_MASKS",
    "USUAL_READING",
    "VOID",
    "BlockPlan",
    "Cohort",
    "Cut",
    "ImageFacts",
    "KINDS",
    "Judged",
    "Kind",
    "MaskReading",
    "Overlaps",
    "Predictions",
    "Preprocessing",
    "Reading",
    "Resize",
    "SPLITS",
    "Split",
    "Task",
    "TransferPlan",
    "kind_of",
    "Phase",
]

if TYPE_CHECKING:
    # It takes a third of a second to import, and who asks where a network can be cut needs no table.
    import pandas as pd

T = TypeVar("T")
Task = Literal["binary", "multiclass", "multilabel", "segmentation"]
Kind = Literal["labels", "masks"]
Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[str, ...]] = get_args(Split)
Resize = Literal["squash", "pad", "crop"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """The table of labelled images.

    Args:
        root: The folder that relative paths start from, or the `.npz` file that holds the arrays.
        layout: How the images are stored: ``folder``, ``split-folder``, ``table``, ``npz`` or ``array``.
        task: What is predicted.
        classes: Class names in the order of the model's outputs.
        positive: The positive class of a binary task, else None.
        is_ordinal: Whether the classes are grades, from the lowest to the highest.
        table: One row per image, columns ``path label patient site split mask unit`` (str or None). ``path`` is
            relative to `root` with forward slashes; for npz ``<split>/<row>``, e.g. ``train/17``. Images of one
            ``unit`` (an examination) are judged together.
        targets: (N,) int64 class indices, or (N, C) float32 of 0 and 1 for multilabel, NaN where a label is not known.
        notes: What was inferred while reading, one sentence each, for the user.
        arrays: Only for the layouts npz and array: split name to the (N, H, W) or (N, H, W, 3) images, or the
            (N, D, H, W) volumes.
        files: ``path`` to the files behind it, relative to `root`, where it is a pseudonym (DICOM) or stands for
            several (a volume of slices).
        frames: ``path`` to the number of the frame, from 0, where a frame of a film is an image.
        dims: 2 for images, 3 for volumes.
        mask_reading: How numbers of mask files become labels.
        is_uncertain: (N, C) bool: where a label that is not known was given as uncertain; None where none was.
        taught: (N, C) float32: what a training is told, by the policy for uncertain labels; None where `targets` say
            it.
        judged_by: What a ``unit`` is where DICOM headers tell it.
        masks: For each row of a segmentation, for each observer who votes, the files whose marks are united, relative
            to `root`.
        observers: Each other observer's files for every row of a segmentation that has several; none where there is no
            mask.
        mask_values: Numbers in the files of a segmentation that stand for `classes`; 0 is the background.
        is_phantom: Whether the images were drawn by this program, as a file beside them says.
    """

    root: Path
    layout: Literal["folder", "split-folder", "table", "npz", "array"]
    task: Task
    classes: tuple[str, ...]
    positive: str | None
    table: "pd.DataFrame"
    targets: np.ndarray
    notes: tuple[str, ...] = ()
    arrays: dict[str, np.ndarray] | None = None
    files: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    dims: Literal[2, 3] = 2
    is_uncertain: np.ndarray | None = None
    taught: np.ndarray | None = None
    is_ordinal: bool = False
    judged_by: Literal["image", "series", "study", "patient"] = "image"
    masks: tuple[tuple[tuple[str, ...], ...], ...] = ()
    observers: Mapping[str, tuple[tuple[str, ...], ...]] = dataclasses.field(default_factory=dict)
    mask_values: tuple[int, ...] = ()
    mask_reading: "MaskReading" = dataclasses.field(default_factory=lambda: MaskReading())
    is_phantom: bool = False

    def __len__(self) -> int:
        return len(self.table)

    def notes_since(self, before: "Cohort") -> tuple[str, ...]:
        """The notes that were added since this was `before`."""
        return self.notes[len(before.notes) :]

    @property
    def kind(self) -> Kind:
        """What its truth is made of."""
        return kind_of(self.task)

    @property
    def noun(self) -> Literal["images", "volumes"]:
        """``images`` or ``volumes``."""
        return "images" if self.dims == 2 else "volumes"

    @property
    def case_noun(self) -> str:
        """What is judged: `noun`, ``series``, ``studies``, ``patients``, or ``units`` of a table."""
        if len(self.case_rows()) == len(self):
            return self.noun
        return {"image": "units", "series": "series", "study": "studies", "patient": "patients"}[self.judged_by]

    @property
    def training_targets(self) -> np.ndarray:
        """`targets`, with what a training is told where it is told more than is known."""
        return self.targets if self.taught is None else self.taught

    def rows(self, split: str) -> np.ndarray:
        """Row numbers (int64) of one split, in table order."""
        return np.flatnonzero((self.table["split"] == split).to_numpy())

    def units(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64 number of the unit of each of `rows`, by first appearance; without one an image is its own."""
        if "unit" not in self.table or self.table["unit"].isna().all():
            return np.arange(len(rows))
        import pandas as pd

        names = self.table["unit"].iloc[rows].reset_index(drop=True)
        alone = pd.Series([f"\0{row}" for row in range(len(rows))], dtype=object)
        return np.asarray(pd.factorize(names.where(names.notna(), alone))[0], dtype=np.int64)

    def case_rows(self, split: str | None = None) -> np.ndarray:
        """Row numbers of one split (of all), of each unit its first: one for each case that is judged."""
        rows = np.arange(len(self)) if split is None else self.rows(split)
        return np.asarray(rows[np.unique(self.units(rows), return_index=True)[1]])

    def files_of(self, row: int) -> tuple[Path, ...]:
        """The files of one row."""
        name = str(self.table["path"].iat[row])
        return tuple(self.root / file for file in self.files.get(name, (name,)))

    def reading_of(self, row: int, reading: "Reading") -> "Reading":
        """How one row is read: as all are, of a film its own frame."""
        frame = self.frames.get(str(self.table["path"].iat[row]))
        return reading if frame is None else dataclasses.replace(reading, frames=frame)

    def sites(self, rows: np.ndarray) -> list[str | None]:
        """The site of each of `rows`, None where it is not stated."""
        return [site if isinstance(site, str) else None for site in self.table["site"].iloc[rows]]

    def select(self, keep: np.ndarray) -> "Cohort":
        """The cohort with only the rows in `keep` (row numbers or a mask), renumbered."""
        table = self.table.iloc[keep].reset_index(drop=True)
        return dataclasses.replace(
            self,
            table=table,
            targets=self.targets[keep],
            is_uncertain=None if self.is_uncertain is None else self.is_uncertain[keep],
            taught=None if self.taught is None else self.taught[keep],
            masks=_picked(self.masks, keep),
            observers={name: _picked(files, keep) for name, files in self.observers.items()},
        )


def _picked(values: tuple[T, ...], keep: np.ndarray) -> tuple[T, ...]:
    """The values of the rows in `keep` (row numbers or a mask); nothing where there are no values."""
    return tuple(values[row] for row in np.arange(len(values))[keep]) if values else ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What decoding one image found.

    Args:
        height: Rows, px.
        width: Columns, px.
        depth: Slices of a volume, 0 of an image.
        channels: 1 (grey) or 3 (RGB).
        bits: Bits of the integers that decoding hands on (8 or 16).
        mode: The decoder's own word for the pixel format, e.g. ``I;16``, or ``DICOM``, ``NIfTI``.
        modality: Modality in the DICOM header, e.g. ``CT``; else empty.
        steps: What was done to the stored numbers, in order, e.g. ``rescaled``, ``window``, ``inverted``.
        spacing_mm: Between rows and columns (of volumes slices, rows, columns); empty when unknown.
        stored_mm: Distances in the file, before volumes were resampled.
        is_at_detector: The spacing was measured there (ImagerPixelSpacing), where the body is magnified.
        device: Manufacturer and model in the DICOM header; else empty.
        stored_bits: Bits that the file's numbers may use; 0 where that is `bits`.
        decoder: The codec that read it after another one failed; else empty.
    """

    height: int
    width: int
    channels: int
    bits: int
    mode: str
    depth: int = 0
    modality: str = ""
    steps: tuple[str, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    stored_mm: tuple[float, ...] = ()
    is_at_detector: bool = False
    device: str = ""
    stored_bits: int = 0
    decoder: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How stored numbers of medical files become intensities; pictures (PNG, JPEG …) keep theirs.

    Args:
        rescale: Whether DICOM's modality transform is applied where no window asks for it; ``auto``: not in
            angiography and fluoroscopy, where it is not for showing.
        windows: ``("file",)`` for the file's own window or LUT, empty for none, else names of
            `medgraft.io.intensity.CT_WINDOWS`, each a channel.
        scaling: What becomes 0 and 1 where there is no window: ``range`` (what the file can store), ``percentile`` (of
            the image), ``z-score``; ``auto``: percentile for MR, PET and NIfTI, −1024 to 3071 HU for CT, else range.
        spacing_mm: Between slices, rows, columns, that volumes are resampled to; empty to leave theirs.
        frames: Which frame of a DICOM film is the image, by word or by its number from 0; ``one``: a film is refused;
            ``all``: each is an image, of the examination that the file is.
        complex: What complex voxels (NIfTI, arrays) become; ``refuse``: an error.
    """

    rescale: Literal["auto", "always", "never"] = "auto"
    windows: tuple[str, ...] = ("file",)
    scaling: Literal["auto", "range", "percentile", "z-score"] = "auto"
    spacing_mm: tuple[float, ...] = ()
    frames: Literal["one", "first", "middle", "all"] | int = "one"
    complex: Literal["refuse", "magnitude"] = "refuse"


USUAL_READING: Final = Reading()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MaskReading:
    """How the numbers of mask files become labels, the same way in all files of a cohort.

    Args:
        segments: Number by label of the segments of DICOM objects, where these number them differently; empty: their
            own numbers.
        is_by_colour: Whether the grey of a palette's entry is the label, not its number.
        ignored: Number of what is neither a class nor background (a rim, an area that nobody judged), or None.
    """

    segments: Mapping[str, int] = dataclasses.field(default_factory=dict)
    is_by_colour: bool = False
    ignored: int | None = None


VOID: Final = 255
"""Class number of pixels that take no part in any loss or score."""
USUAL_MASKS: Final = MaskReading()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Everything needed to turn a file into the network's input, stored in the artefact.

    Args:
        sides: Sides of the network's input: (height, width) in px, or (depth, height, width) in voxels.
        channels: Channels after decoding: 1 (grey) or 3 (RGB, windows).
        intensity_max: Integers are divided by this, 2^n - 1 with n = 8, 10, 12, 14 or 16.
        resize: ``squash`` (each axis on its own), ``pad`` (keep the aspect, pad with the minimum) or ``crop`` (keep the
            scale, cut or pad around the centre).
        normalisation: ``weights`` (mean and std below) or ``image`` (z-score of each image).
        mean: Per channel of the network's input, on the scale 0 to 1.
        std: Per channel of the network's input, on the scale 0 to 1.
        reading: From the file to the integers.
    """

    sides: tuple[int, ...]
    channels: int
    intensity_max: int
    resize: Resize = "squash"
    normalisation: Literal["weights", "image"] = "weights"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    reading: Reading = USUAL_READING

    @property
    def dims(self) -> Literal[2, 3]:
        """2 for images, 3 for volumes."""
        return 2 if len(self.sides) == 2 else 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A place where exactly one tensor carries everything forward.

    Args:
        index: Counted from 1 at the stem.
        name: The network's own name of the block that ends here, e.g. ``layer3.2``.
        stage: Counted from 0; cuts of one stage share a resolution (or a module, in isotropic networks).
        channels: Channels of the tensor.
        stride: Input side divided by the tensor's side (largest spatial axis), rounded.
        num_params: All parameters executed up to here, no head.
        macs: Multiply-accumulates up to here for one input at the traced size.
        shape: Shape of the tensor for one input, without the batch axis.
        channel_axis: 1 for (B, C, *spatial), -1 for (B, *spatial, C) and (B, N, C).
        tap: Module whose output (or input) is the tensor.
        tap_side: Whether the tensor is the tap's ``output`` or ``input``.
        is_pretrained: False when some parameters up to here were not in the weights file.
    """

    index: int
    name: str
    stage: int
    channels: int
    stride: int
    num_params: int
    macs: int
    shape: tuple[int, ...]
    channel_axis: int
    tap: str
    tap_side: Literal["output", "input"]
    is_pretrained: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """What happens to one block: its treatment and learning rate (0 when frozen or removed)."""

    name: str
    treatment: Literal["reused", "frozen", "slimmed", "re-initialised", "removed", "new"]
    lr: float
    num_params: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of the training: where it begins (share of the epochs, 0 to 1), and each block's learning rate in it."""

    start: float
    lrs: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransferPlan:
    """What a strategy does to every block of a network, printed before training and stored with the run.

    Args:
        strategy: Its name.
        cut: The depth it was given.
        blocks: From stem to head; each one's learning rate is the highest it ever has.
        phases: Parts of the training with learning rates of their own, the first from 0; empty when all is one.
        l2sp: Pull of the kept part towards the source weights and of the head towards zero, 0 each for none.
    """

    strategy: str
    cut: int
    blocks: tuple[BlockPlan, ...]
    phases: tuple[Phase, ...] = ()
    l2sp: tuple[float, float] = (0.0, 0.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Probabilities and truth of one set of cases.

    Args:
        probs: (N, C) float64; a binary task has two columns as well.
        targets: (N,) int64 class indices, or (N, C) 0/1 for multilabel, NaN where a label is not known: such a label
            takes no part in any metric.
        groups: (N,) integers; cases of one patient (or of one set of duplicates) share a number.
        classes: Names of the C columns.
        task: What is predicted.
        positive: Index of the positive class for a binary task, else None.
        is_ordinal: Whether the classes are grades, from the lowest to the highest.
        strata: (N,) integers, equal for cases that one model judged; None for all. Probabilities of several models (of
            folds) are shifted against each other, so that only cases of one are ranked.
    """

    probs: np.ndarray
    targets: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    task: Task
    positive: int | None = None
    is_ordinal: bool = False
    strata: np.ndarray | None = None
    kind: ClassVar[Kind] = "labels"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlaps:
    """How well one model's masks agree with the truth, case by case and class by class.

    Args:
        counts: (N, C, 3) int64: pixels called so, pixels that are so, and both, from
            `medgraft.metrics.overlap.overlap_counts`.
        groups: (N,) integers; cases of one patient (or of one set of duplicates) share a number.
        classes: Names of the C classes, the background left out.
        surfaces: (N, C, 2) float64: HD95, and the share of the surfaces within a tolerance; None where only areas were
            measured.
    """

    counts: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    surfaces: np.ndarray | None = None
    kind: ClassVar[Kind] = "masks"


Judged = Predictions | Overlaps
"""What a model says of a set of cases, beside the truth."""
KINDS: Final[dict[Task, Kind]] = {
    "binary": "labels",
    "multiclass": "labels",
    "multilabel": "labels",
    "segmentation": "masks",
}
"""What the truth of a task is made of; every room that treats it differently has a literal with these keys."""


def kind_of(task: Task) -> Kind:
    """The kind of truth of a task: ``labels`` or ``masks``."""
    return KINDS[task]
