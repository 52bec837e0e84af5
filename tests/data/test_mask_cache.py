"""The cache of masks: beside the images, at their size, whole or not there; what cannot teach is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medgraft.data.mask_cache as mask_cache
from medgraft.data.cache import build_cache
from medgraft.data.mask_cache import build_mask_cache, stored_spacing
from medgraft.data.masks import read_mask_cohort
from medgraft.errors import RunError
from medgraft.io.preprocess import prepare_mask
from medgraft.types import Preprocessing


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
    assert found.unusable[1] == "mask of 9×9 for the 20×30 of images/1.png"
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
