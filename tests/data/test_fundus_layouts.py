"""Fundus sets as they are distributed (DRIVE, STARE, HRF), and formats that they come in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgraft.data.cohort.marked import mask_of, read_mask_cohort
from medgraft.errors import DataError
from medgraft.io.image import read_image

RNG = np.random.default_rng(0)
FIELD = np.full((16, 16), 255, np.uint8)
FIELD[0] = 0


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def photograph() -> np.ndarray:
    return RNG.integers(0, 255, (16, 16, 3), np.uint8)


def vessel(number: int) -> np.ndarray:
    mask = np.zeros((16, 16), np.uint8)
    mask[number % 14 + 1] = 255
    return mask


def drive(root: Path) -> None:
    for part, numbers in (("training", range(21, 41)), ("test", range(1, 21))):
        name = "training" if part == "training" else "test"
        for number in numbers:
            save(photograph(), root / part / "images" / f"{number:02d}_{name}.tif")
            save(vessel(number), root / part / "1st_manual" / f"{number:02d}_manual1.gif")
            save(FIELD, root / part / "mask" / f"{number:02d}_{name}_mask.gif")
            if part == "test":
                save(vessel(number + 1), root / part / "2nd_manual" / f"{number:02d}_manual2.gif")


def stare(root: Path) -> None:
    for number in range(1, 21):
        save(photograph(), root / "stare-images" / f"im{number:04d}.ppm")
        save(vessel(number), root / "labels-ah" / f"im{number:04d}.ah.pgm")
        save(vessel(number + 1), root / "labels-vk" / f"im{number:04d}.vk.pgm")


def hrf(root: Path) -> None:
    for number in range(1, 16):
        for kind in ("dr", "g", "h"):
            save(photograph(), root / "images" / f"{number:02d}_{kind}.jpg")
            save(vessel(number), root / "manual1" / f"{number:02d}_{kind}.tif")
            save(FIELD, root / "mask" / f"{number:02d}_{kind}_mask.tif")


@pytest.mark.parametrize(
    ("make", "count", "observers", "has_field"),
    [(drive, 40, ["2nd_manual"], True), (stare, 20, ["labels-vk"], False), (hrf, 45, [], True)],
)
def test_fundus_sets_are_read_as_they_are_distributed(
    make: Callable[[Path], None], count: int, observers: list[str], has_field: bool, tmp_path: Path
) -> None:
    make(tmp_path)
    found = read_mask_cohort(tmp_path)
    assert len(found) == count
    assert found.classes == ("foreground",)
    assert list(found.observers) == observers
    # A line each, and no field of view.
    assert all((mask_of(found, row) > 0).sum() == 16 for row in range(count))
    assert any("fields of view" in note for note in found.notes) is has_field
    for row in range(count):
        number = int("".join(c for c in Path(found.table["path"].iat[row]).stem if c.isdigit()))
        assert mask_of(found, row)[number % 14 + 1].all()


def test_drive_keeps_its_split(tmp_path: Path) -> None:
    drive(tmp_path)
    found = read_mask_cohort(tmp_path)
    assert found.table["split"].value_counts().to_dict() == {"train": 20, "test": 20}
    second = read_mask_cohort(tmp_path / "test", observer="2nd_manual")
    assert len(second) == 20


@pytest.mark.parametrize("suffix", ["gif", "ppm", "pgm"])
def test_gif_and_ppm_are_read(suffix: str, tmp_path: Path) -> None:
    grey = RNG.integers(0, 255, (9, 7), np.uint8)
    save(grey if suffix != "ppm" else np.dstack([grey] * 3), tmp_path / f"x.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"x.{suffix}")[0], grey)


def test_a_deep_pgm_keeps_its_share_of_the_largest_number(tmp_path: Path) -> None:
    numbers = np.array([[0, 1000, 4095]], dtype=">u2")
    (tmp_path / "x.pgm").write_bytes(b"P5 3 1 4095\n" + numbers.tobytes())
    found, facts = read_image(tmp_path / "x.pgm")
    assert (found.dtype, facts.bits) == (np.uint16, 16)
    np.testing.assert_allclose(found / 65535, numbers / 4095, atol=2e-5)


def test_a_moving_gif_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(RNG.integers(0, 255, (8, 8), np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 3 pages or frames"):
        read_image(tmp_path / "x.gif")
