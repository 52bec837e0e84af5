"""The built-in phantom: a seeded generator of chest-film-like images with known lesions.

It makes the demo and the tests run where no data may be downloaded. It is a demonstration, not evidence:
the films are drawn, the lesions are caricatures, and a score on them says nothing about patients.

The settings of `DEMO` were fixed by looking at pictures, before any network was trained on them.
"""

import csv
import dataclasses
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from medgraft.as_json import to_json
from medgraft.data.cohort.origin import PHANTOM_MARK
from medgraft.errors import ConfigError, RunError
from medgraft.files import replacing, write_json
from medgraft.io.nifti import write_nifti
from medgraft.phantom.anatomy import Anatomy, attenuation, draw_anatomy
from medgraft.phantom.fields import grid, moved
from medgraft.phantom.film import SITES, draw_acquisition, expose
from medgraft.phantom.lesions import LESIONS, draw_lesion, lesion_profile
from medgraft.types import SPLITS

__all__ = [
    "DEMO",
    "DEMO_MASKS",
    "DEMO_VOLUMES",
    "DEMO_VOLUME_MASKS",
    "PhantomSettings",
    "phantom_case",
    "write_phantom",
]

_COLUMNS: Final = ("path", "label", "patient", "split", "site", "mask")

# Share of the lesion's full extent from which a pixel counts as lesion in the mask.
_MASK_LEVEL: Final = 0.3
_EXTRA_IMAGE_RATE: Final = 0.25
_VOXEL_MM: Final = 10.0
"""A chest of 32 cm in 32 voxels."""
# Each writing seed owns this many patient seeds, so that two phantoms never share a patient.
_PATIENTS_PER_SEED: Final = 1_000_000
# What a random stream is for; the stream's seed is (patient_seed, one of these, …).
_ANATOMY, _LESION, _VISITS, _FILM = range(4)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSettings:
    """What a phantom contains.

    Args:
        shape: Pixels per axis, 32 to 1024 each. Two axes make films, three volumes (front to back first).
        num_patients: Patients by split; the splits are train, val and test.
        images_per_patient: Fewest and most films of one patient. Beyond the fewest, each further film is
            taken with probability 1/4.
        classes: Class names: ``normal`` and the lesions ``nodule`` (smooth blob), ``mass`` (spiculated
            shape), ``reticular`` (net-like texture); two or more.
        contrast: Mean attenuation of a lesion's peak; lung against soft tissue is 0.4.
        label_noise: Share of training patients whose written label is another class, 0 to below 1.

    Raises:
        ConfigError: A value makes no sense.

    Examples:
        >>> PhantomSettings(classes=("normal", "mass")).shape
        (64, 64)
    """

    shape: tuple[int, ...] = (64, 64)
    num_patients: dict[str, int] = dataclasses.field(default_factory=lambda: {"train": 240, "val": 200, "test": 450})
    images_per_patient: tuple[int, int] = (1, 2)
    classes: tuple[str, ...] = ("normal", "nodule", "mass")
    contrast: float = 0.30
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        names = ("normal", *LESIONS)
        _require(
            len(self.shape) in (2, 3) and all(32 <= n <= 1024 for n in self.shape),
            f"shape must have two or three axes of 32 to 1024 px, got {self.shape}. The demo uses (64, 64).",
        )
        _require(
            set(self.num_patients) == set(SPLITS) and all(n >= 1 for n in self.num_patients.values()),
            f"num_patients must give 1 or more for train, val and test, got {self.num_patients}.",
        )
        _require(
            sum(self.num_patients.values()) <= _PATIENTS_PER_SEED,
            f"num_patients must sum to {_PATIENTS_PER_SEED} at most, got {self.num_patients}.",
        )
        fewest, most = self.images_per_patient
        _require(
            1 <= fewest <= most,
            f"images_per_patient must be 1 <= fewest <= most, got {self.images_per_patient}.",
        )
        _require(
            len(self.classes) >= 2 and len(set(self.classes)) == len(self.classes) and set(self.classes) <= set(names),
            f"classes must be two or more different ones of {', '.join(names)}, got {self.classes}.",
        )
        _require(
            0.0 < self.contrast <= 1.0,
            f"contrast must be above 0 and at most 1, got {self.contrast}. 0.2 is hard, 0.4 easy.",
        )
        _require(
            0.0 <= self.label_noise < 1.0,
            f"label_noise must be 0 or more and below 1, got {self.label_noise}. Try 0.05.",
        )


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ConfigError(message)


DEMO: Final = PhantomSettings(
    shape=(64, 64),
    num_patients={"train": 240, "val": 200, "test": 450},
    images_per_patient=(1, 2),
    classes=("normal", "nodule", "mass"),
    contrast=0.30,
    label_noise=0.0,
)
DEMO_VOLUMES: Final = dataclasses.replace(
    DEMO,
    shape=(32, 32, 32),
    num_patients={"train": 240, "val": 120, "test": 240},
    images_per_patient=(1, 1),
    # A film adds up what lies behind each other; in a volume a lesion of .3 drowns in the grain of its few voxels.
    contrast=0.8,
)
# Every film shows a lesion: marking nothing is never right.
DEMO_MASKS: Final = dataclasses.replace(
    DEMO, num_patients={"train": 120, "val": 60, "test": 120}, classes=("nodule", "mass")
)
DEMO_VOLUME_MASKS: Final = dataclasses.replace(
    DEMO_VOLUMES, num_patients={"train": 40, "val": 20, "test": 40}, classes=("nodule", "mass")
)


def phantom_case(settings: PhantomSettings, patient_seed: int, image_index: int) -> tuple[np.ndarray, np.ndarray, int]:
    """One film, its lesion mask and its true class (label noise is added on writing only).

    The patient's body and lesion depend on `patient_seed` alone; the film on `image_index` too. The class is
    the seed modulo the number of classes, so consecutive patients are balanced.

    Args:
        settings: What the phantom contains.
        patient_seed: 0 or more.
        image_index: Which film of this patient, 0 or more.

    Returns:
        image: uint8 of `settings.shape`, dense tissue bright.
        mask: bool of the same shape, True in the lesion; empty for normal.
        class_index: Place in `settings.classes`.

    Raises:
        ConfigError: A seed or index is negative.

    Examples:
        >>> image, mask, class_index = phantom_case(DEMO, patient_seed=2, image_index=0)
        >>> image.shape, image.dtype, bool(mask.any()), DEMO.classes[class_index]
        ((64, 64), dtype('uint8'), True, 'mass')
    """
    _require(patient_seed >= 0, f"patient_seed must be 0 or more, got {patient_seed}.")
    _require(image_index >= 0, f"image_index must be 0 or more, got {image_index}.")
    ndim = len(settings.shape)
    class_index = patient_seed % len(settings.classes)
    anatomy = draw_anatomy(_stream(patient_seed, _ANATOMY), ndim)
    film = draw_acquisition(_stream(patient_seed, _FILM, image_index), SITES[_site(patient_seed)], ndim)
    on_film = grid(settings.shape)
    in_patient = moved(on_film, film.shift, film.angle, film.scale)
    beam = attenuation(anatomy, in_patient)
    lesion, mask = _lesion(settings, patient_seed, anatomy, in_patient)
    return expose(beam + lesion, on_film, film), mask, class_index


def _lesion(
    settings: PhantomSettings, patient_seed: int, anatomy: Anatomy, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation and mask of the patient's lesion; both empty for normal.

    Args:
        settings: What the phantom contains.
        patient_seed: 0 or more.
        anatomy: The patient.
        points: (D, …) coordinates in the patient's frame.
    """
    kind = settings.classes[patient_seed % len(settings.classes)]
    if kind == "normal":
        return np.zeros(points.shape[1:], dtype=np.float32), np.zeros(points.shape[1:], dtype=bool)
    lesion = draw_lesion(_stream(patient_seed, _LESION), kind, anatomy)
    profile, extent = lesion_profile(lesion, points)
    return profile * (settings.contrast * lesion.strength), extent >= _MASK_LEVEL


def _site(patient_seed: int) -> str:
    """Name of the site that films this patient, unrelated to the class."""
    return tuple(SITES)[int(_stream(patient_seed, _VISITS).integers(len(SITES)))]


def _num_images(settings: PhantomSettings, patient_seed: int) -> int:
    fewest, most = settings.images_per_patient
    # The first draw of this stream chooses the site.
    stream = _stream(patient_seed, _VISITS)
    stream.integers(len(SITES))
    return fewest + int(stream.binomial(most - fewest, _EXTRA_IMAGE_RATE))


def _stream(patient_seed: int, purpose: int, index: int = 0) -> np.random.Generator:
    """The random numbers of one patient for one purpose.

    Args:
        patient_seed: 0 or more.
        purpose: What they are for: ``_ANATOMY``, ``_LESION``, ``_VISITS`` or ``_FILM``.
        index: Which film of this patient, where each has its own.
    """
    return np.random.default_rng((patient_seed, purpose, index))


def write_phantom(folder: Path, settings: PhantomSettings, seed: int) -> Path:
    """Write `images/*.png`, `masks/*.png` and `cases.csv`; returns the path of the table. Volumes become `*.nii`.

    The same settings and seed give the same bytes. Patients are numbered in random order, so that no name
    tells a class. `cases.csv` is written last and renamed into place: where it stands, the folder is whole.

    Args:
        folder: Made when missing; files of an earlier phantom with the same names are replaced.
        settings: What the phantom contains.
        seed: 0 or more; different seeds share no patient.

    Raises:
        ConfigError: The seed is negative.
        RunError: The folder cannot be written.
    """
    _require(seed >= 0, f"seed must be 0 or more, got {seed}.")
    table = folder / "cases.csv"
    try:
        table.unlink(missing_ok=True)
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        rows = [row for split in SPLITS for row in _write_split(folder, settings, seed, split)]
        write_json(folder / PHANTOM_MARK, {"seed": seed, "settings": to_json(settings)})
        with replacing(table) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows(rows)
    except OSError as error:
        raise RunError(
            f"Expected to write the phantom to {folder}, got {error}. Choose a folder with space."
        ) from error
    return table


def _save(pixels: np.ndarray, path: Path) -> None:
    if pixels.ndim == 2:
        Image.fromarray(pixels).save(path)
    else:
        # Drawn from front to back, head to foot and, as films show it, from the patient's right to the left.
        write_nifti(pixels[::-1, ::-1, ::-1].transpose(2, 0, 1), np.diag([_VOXEL_MM, _VOXEL_MM, _VOXEL_MM, 1.0]), path)


def _write_split(folder: Path, settings: PhantomSettings, seed: int, split: str) -> list[list[str]]:
    """Write the files of one split; returns its table rows.

    Args:
        folder: Holds ``images`` and ``masks``.
        settings: What the phantom contains.
        seed: 0 or more; different seeds share no patient.
        split: ``train``, ``val`` or ``test``.
    """
    suffix = ".png" if len(settings.shape) == 2 else ".nii"
    split_index, num = SPLITS.index(split), settings.num_patients[split]
    before = sum(settings.num_patients[other] for other in SPLITS[:split_index])
    rng = np.random.default_rng((seed, split_index))
    seeds = seed * _PATIENTS_PER_SEED + before + rng.permutation(num)
    noisy = rng.random(num) < settings.label_noise if split == "train" else np.zeros(num, dtype=bool)
    rows = []
    for number, (patient_seed, is_noisy) in enumerate(zip(seeds.tolist(), noisy, strict=True), start=before + 1):
        other = int(rng.integers(1, len(settings.classes))) if is_noisy else 0
        label = settings.classes[(patient_seed + other) % len(settings.classes)]
        patient = f"p{number:05d}"
        for index in range(_num_images(settings, patient_seed)):
            image, mask, _ = phantom_case(settings, patient_seed, index)
            name = f"{patient}_{index}{suffix}"
            _save(image, folder / "images" / name)
            _save(mask.astype(np.uint8) * 255, folder / "masks" / name)
            site = _site(patient_seed)
            rows.append([f"images/{name}", label, patient, split, site, f"masks/{name}"])
    return rows
