"""How large images and patches are where nobody says."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medgraft.backbones.build import build_backbone
from medgraft.backbones.spec import BackboneSpec
from medgraft.config import make_config
from medgraft.data.cohort.marked import read_mask_cohort
from medgraft.errors import ConfigError
from medgraft.listener import Listener
from medgraft.prepare.sides import image_and_patch_sides, patches_per_image, typical_sides
from medgraft.setup.plan import material_of
from medgraft.types import Cohort


def pictures(root: Path, *sizes: tuple[int, int]) -> Cohort:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
        for number, (height, width) in enumerate(sizes):
            Image.fromarray(np.full((height, width), 255, np.uint8)).save(root / folder / f"{number}.png")
    return read_mask_cohort(root)


def volumes(root: Path, shape: tuple[int, int, int], steps: tuple[float, float, float]) -> Cohort:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
        for number in range(3):
            image = nibabel.Nifti1Image(np.ones(shape, np.uint8), np.diag([*steps, 1.0]))
            nibabel.save(image, root / folder / f"{number}.nii.gz")
    return read_mask_cohort(root)


def config(**options: Any) -> Any:
    return make_config("x", options=options)


@pytest.mark.parametrize(
    ("sizes", "longest", "images", "patches"),
    [
        # Large images stay as they are; patches are what the network sees.
        ([(960, 999)] * 3, 0, (960, 999), (256, 256)),
        # The median of each side.
        ([(300, 500), (320, 480), (310, 900)], 0, (310, 500), (256, 256)),
        # Reduced to the largest side that is allowed, and no axis below its patch.
        ([(1500, 3000)] * 3, 0, (512, 1024), (256, 256)),
        ([(600, 400)] * 3, 300, (300, 224), (256, 224)),
        # What is smaller than a patch is seen whole, at a size that decoders can double back.
        ([(100, 70)] * 3, 0, (128, 96), (128, 96)),
    ],
)
def test_of_images(
    tmp_path: Path, sizes: list[tuple[int, int]], longest: int, images: tuple[int, ...], patches: tuple[int, ...]
) -> None:
    found = image_and_patch_sides(config(data={"longest": longest}).data, pictures(tmp_path, *sizes), None)
    assert found == (images, patches)


def test_a_patch_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    cohort = pictures(tmp_path, *[(960, 999)] * 3)
    assert image_and_patch_sides(config().data, cohort, (512, 512)) == ((960, 999), (512, 512))
    assert image_and_patch_sides(config().data, cohort, (2048, 2048))[1] == (960, 1024)


def test_a_network_of_one_size_sees_small_images_enlarged(tmp_path: Path) -> None:
    cohort = pictures(tmp_path, *[(150, 400)] * 3)
    assert image_and_patch_sides(config().data, cohort, (224, 224)) == ((160, 400), (160, 224))
    assert image_and_patch_sides(config().data, cohort, (224, 224), is_fixed=True) == ((224, 400), (224, 224))
    swin = build_backbone(BackboneSpec(name="swin_tiny_patch4_window7_224", weights="none"))
    convolutions = build_backbone(BackboneSpec(name="resnet18", weights="none"))
    assert (swin.is_fixed, convolutions.is_fixed) == (True, False)


@pytest.mark.parametrize(("size", "patch"), [(None, (256, 256)), (64, (64, 64))])
def test_the_packaged_network_sees_more_than_the_films_it_was_taught_on(
    tmp_path: Path, size: int | None, patch: tuple[int, int]
) -> None:
    pictures(tmp_path, *[(300, 500)] * 6)
    for number, file in enumerate(sorted((tmp_path / "images").iterdir())):
        grain = np.random.default_rng(number).integers(0, 255, (300, 500), dtype=np.uint8)
        Image.fromarray(grain).save(file)
    options = {"data": {"task": "segmentation"}, "backbone": {"size": size}}
    material = material_of(make_config(str(tmp_path), options=options), Listener())
    assert (material.dataset.preprocessing.sides, material.source.input_sides) == ((300, 500), patch)


def test_of_volumes_with_and_without_a_common_spacing(tmp_path: Path) -> None:
    cohort = volumes(tmp_path, (100, 90, 40), (1.0, 1.0, 3.0))
    assert image_and_patch_sides(config().data, cohort, None) == ((64, 90, 100), (64, 64, 64))
    spaced = config(data={"spacing_mm": [1.5, 1.0, 1.0]})
    assert image_and_patch_sides(spaced.data, cohort, None) == ((80, 90, 100), (64, 64, 64))
    assert typical_sides(cohort) == (40, 64, 64)


def test_patches_cover_half_of_an_image_unless_asked_otherwise() -> None:
    assert patches_per_image((960, 999), (256, 256)) == 8
    assert patches_per_image((256, 256), (256, 256)) == 1
    assert patches_per_image((4096, 4096), (256, 256)) == 16


def test_without_a_readable_image_there_is_no_size(tmp_path: Path) -> None:
    cohort = pictures(tmp_path, *[(20, 20)] * 3)
    for file in (tmp_path / "images").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(ConfigError, match="--size or a readable image"):
        image_and_patch_sides(config().data, cohort, None)
