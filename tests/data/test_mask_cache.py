"""The cache of masks: beside the images, at their size, whole or not there; what cannot teach is named."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

import medgraft.data.decoded.masks as mask_cache
from medgraft.data.audit.audit import audit_cohort
from medgraft.data.cohort.marked import read_mask_cohort
from medgraft.data.decoded.images import build_cache
from medgraft.data.decoded.masks import build_mask_cache, stored_spacing
from medgraft.errors import RunError
from medgraft.io.preprocess import prepare_mask
from medgraft.types import Preprocessing, Reading, Resize


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(6):
        image = rng.integers(0, 255, (20, 30), dtype=np.uint8)
        mask = np.zeros((20, 30), np.uint8)
        mask[4:12, number : number + 9] = 255
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number}.png")
    return tmp_path / "data"


def test_masks_lie_in_the_rows_of_their_images_at_their_size(source: Path, tmp_path: Path) -> None:
    cohort = read_mask_cohort(source)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(16, 16), resize="pad")
    found = build_mask_cache(cohort, decoded)
    assert found.masks.shape == (6, 16, 16)
    assert found.unusable == {}
    setting = Preprocessing(sides=(16, 16), channels=1, intensity_max=255, resize="pad")
    for row in range(6):
        mask = (np.asarray(Image.open(source / cohort.masks[row][0][0])) > 0).astype(np.uint8)
        np.testing.assert_array_equal(found.masks[row], prepare_mask(mask, setting))
    assert stored_spacing(decoded, 0) == ()


def test_masks_of_another_size_or_broken_are_named_and_empty(source: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(source / "masks" / "1.png")
    (source / "masks" / "4.png").write_bytes(b"\x89PNG broken")
    cohort = read_mask_cohort(source)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(20, 30))
    found = build_mask_cache(cohort, decoded)
    assert set(found.unusable) == {1, 4}
    assert found.unusable[1] == "mask of 9×9 for the 30×20 of images/1.png"
    assert not found.masks[1].any()
    assert found.masks[0].any()


def test_a_second_call_reads_no_file_and_other_masks_are_another_cache(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = read_mask_cohort(source)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(20, 30))
    first = np.array(build_mask_cache(cohort, decoded).masks)
    with monkeypatch.context() as patch:
        patch.setattr(mask_cache, "mask_of", None)
        np.testing.assert_array_equal(build_mask_cache(cohort, decoded).masks, first)
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(source / "masks" / "0.png")
    assert build_mask_cache(read_mask_cohort(source), decoded).masks[0].all()


def test_an_interrupted_pass_leaves_no_cache_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = read_mask_cohort(source)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(20, 30))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mask_cache, "prepare_mask", full)
        with pytest.raises(RunError, match="No space left"):
            build_mask_cache(cohort, decoded)
    assert build_mask_cache(cohort, decoded).masks.any()


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("steps", [(5.0, 1.0, 1.0), (2.5, 0.7, 0.9)])
def test_masks_of_resampled_volumes_lie_on_their_images(
    tmp_path: Path, resize: Resize, steps: tuple[float, float, float]
) -> None:
    shape = (20, 30, 26)
    centres = []
    for number in range(4):
        mask = np.zeros(shape, np.uint8)
        at = (1 + 3 * number, 2 + 5 * number, 3 + 4 * number)
        mask[tuple(slice(low, low + 8) for low in at)] = 1
        for folder, values in (("images", 900 * mask.astype(np.int16) + 50), ("masks", mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([*steps[::-1], 1.0]))
            nibabel.save(image, tmp_path / "data" / folder / f"{number}.nii.gz")
    cohort = read_mask_cohort(tmp_path / "data")
    reading = Reading(spacing_mm=(1.0, 1.0, 1.0))
    sides = (64, 32, 32) if resize != "crop" else (120, 40, 40)
    decoded = build_cache(cohort, tmp_path / "cache", sides=sides, resize=resize, reading=reading)
    found = build_mask_cache(cohort, decoded)
    for row in range(4):
        bright = decoded.images[row, 0] > decoded.images[row].max() / 2
        for part in (bright, found.masks[row] > 0):
            centres.append(np.argwhere(part).mean(0))
        # Within half a voxel everywhere, also far from the middle: what a nearest neighbour can lose.
        np.testing.assert_allclose(centres[-1], centres[-2], atol=0.51)
        assert 2 * (bright & (found.masks[row] > 0)).sum() / (bright.sum() + (found.masks[row] > 0).sum()) > 0.85


def test_masks_on_another_grid_are_named_at_a_common_spacing_too(tmp_path: Path) -> None:
    tilted = np.diag([0.8, 0.8, 3.0, 1.0])
    tilted[1, 2] = 3.0 * np.tan(np.radians(20))
    for number in range(4):
        mask = np.zeros((20, 22, 12), np.uint8)
        mask[5:12, 5:12, 3:9] = 1
        affine = tilted if number == 1 else np.diag([0.8, 0.8, 3.0, 1.0])
        for folder, values in (("images", 500 * mask.astype(np.int16) + 50), ("masks", mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            kept = values[:, :, :6] if (folder, number) == ("masks", 2) else values
            nibabel.save(nibabel.Nifti1Image(kept, affine), tmp_path / "data" / folder / f"{number}.nii.gz")
    cohort = read_mask_cohort(tmp_path / "data")
    reading = Reading(spacing_mm=(1.0, 1.0, 1.0))
    decoded = build_cache(cohort, tmp_path / "cache", sides=(32, 32, 32), reading=reading)
    # A tilted gantry is set upright by resampling, and half of the slices are missing.
    unusable = build_mask_cache(cohort, decoded).unusable
    assert set(unusable) == {1, 2}
    (finding,) = [found for found in audit_cohort(cohort, decoded).findings if found.kind == "mask-size"]
    assert finding.paths == ("images/1.nii.gz", "images/2.nii.gz")
    assert unusable[2] == "mask of 16×18×16 voxels at the common spacing for the 16×18×34 of images/2.nii.gz"


@pytest.mark.parametrize("name", ["masks.npy", "unusable.json"])
def test_a_kill_while_masks_are_written_costs_nothing_but_the_time(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cohort = read_mask_cohort(source)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(16, 16))

    def killed(path: Path, *_: object) -> None:
        path.write_text('{"1": "brok')
        raise KeyboardInterrupt

    writer = "rows_file" if name == "masks.npy" else "write_json"
    with monkeypatch.context() as patch:
        patch.setattr(mask_cache, writer, killed)
        with pytest.raises(KeyboardInterrupt):
            build_mask_cache(cohort, decoded)
    assert build_mask_cache(cohort, decoded).unusable == {}


def test_a_damaged_cache_of_masks_is_named(source: Path, tmp_path: Path) -> None:
    cohort = read_mask_cohort(source)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(16, 16))
    build_mask_cache(cohort, decoded)
    (folder,) = decoded.folder.glob("masks-*")
    (folder / "masks.npy").write_bytes(b"")
    with pytest.raises(RunError, match=r"cache of masks is damaged .*Remove this folder"):
        build_mask_cache(cohort, decoded)
