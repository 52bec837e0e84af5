"""A label that counts for nothing: neither class nor background, in reading, loss, scores and audit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medgraft.data.audit.audit import audit_cohort
from medgraft.data.cohort.marked import mask_of, read_mask_cohort
from medgraft.data.decoded.images import build_cache
from medgraft.errors import DataError
from medgraft.metrics.overlap import overlap_counts, without_void
from medgraft.train.mask_losses import MASK_LOSSES, make_mask_loss
from medgraft.types import VOID
from volume_files import write_nifti

DISC = np.zeros((16, 16), np.uint8)
DISC[4:10, 4:10] = 1
RIMMED = DISC.copy()
RIMMED[3, 3:11] = RIMMED[10, 3:11] = RIMMED[3:11, 3] = RIMMED[3:11, 10] = 255


def write(root: Path, mask: np.ndarray, *, suffix: str = "png") -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("classes", [{}, {"lesion": 1}])
def test_what_is_ignored_is_neither_class_nor_background(suffix: str, classes: dict[str, int], tmp_path: Path) -> None:
    write(tmp_path, RIMMED, suffix=suffix)
    found = read_mask_cohort(tmp_path, classes=classes, ignored=255)
    assert found.mask_values == (1,)
    np.testing.assert_array_equal(mask_of(found, 0), np.where(RIMMED == 255, VOID, RIMMED))
    decoded = build_cache(found, tmp_path / "cache", sides=(16, 16))
    audit = audit_cohort(found.select(decoded.rows), decoded)
    assert audit.of("mask-unreadable") is None
    # Without a word it is a class, or refused where classes were named.
    plain = read_mask_cohort(tmp_path, classes=classes)
    if classes:
        with pytest.raises(DataError, match="holds the label 255"):
            mask_of(plain, 0)
    else:
        assert plain.mask_values == (1, 255)


def test_a_rim_of_a_palette_does_not_contradict_its_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(tmp_path / "images" / f"{number}.png")
        image = Image.fromarray(RIMMED, "P")
        # The rim is white in one half and beige in the other, as tools paint it.
        image.putpalette([0, 0, 0, 128, 0, 0] + [0, 0, 0] * 253 + [[255, 255, 255], [224, 224, 192]][number % 2])
        image.save(tmp_path / "masks" / f"{number}.png")
    assert read_mask_cohort(tmp_path, ignored=255).mask_values == (1,)
    with pytest.raises(DataError, match="palettes of masks do not agree"):
        read_mask_cohort(tmp_path)


def test_nnunets_own_word_for_it_is_understood(tmp_path: Path) -> None:
    volume = np.zeros((6, 8, 8), np.int16)
    volume[2:4, 2:4, 2:4], volume[4] = 1, 2
    for number in range(6):
        write_nifti(
            np.random.default_rng(number).integers(0, 99, (6, 8, 8)).astype(np.int16),
            tmp_path / "imagesTr" / f"c{number}_0000.nii.gz",
        )
        write_nifti(volume, tmp_path / "labelsTr" / f"c{number}.nii.gz")
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1, "ignore": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    found = read_mask_cohort(tmp_path)
    assert (found.classes, found.mask_values) == (("lesion",), (1,))
    assert np.unique(mask_of(found, 0)).tolist() == [0, 1, VOID]


def test_scores_leave_it_out() -> None:
    truth = np.array([1, 1, VOID, VOID, 0, 0])
    called = np.array([1, 0, 1, 0, 1, 0])
    assert (
        overlap_counts(called, truth, 1).tolist()
        == overlap_counts(called[[0, 1, 4, 5]], truth[[0, 1, 4, 5]], 1).tolist()
    )
    assert without_void(called, truth)[0].tolist() == [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("name", MASK_LOSSES)
@pytest.mark.parametrize("num_outputs", [1, 3])
def test_losses_learn_nothing_from_it(name: str, num_outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, num_outputs, 8, 8, generator=generator, requires_grad=True)
    masks = torch.randint(0, max(num_outputs, 2), (2, 8, 8), generator=generator)
    masks[:, :3] = VOID
    loss = make_mask_loss(name, num_outputs)
    value = loss(logits, masks)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value)
    assert not gradient[:, :, :3].any()
    assert gradient[:, :, 3:].any()
    other = logits.detach().clone()
    other[:, :, :3] = 5.0
    torch.testing.assert_close(loss(other, masks), value)
    if name in ("dice", "tversky"):
        # Nothing is there, so nothing is counted: as if it had been cut off.
        torch.testing.assert_close(loss(logits[:, :, 3:], masks[:, 3:]), value, rtol=1e-4, atol=1e-4)
