"""Masks as pictures: where number and colour say different things, colour decides or nobody can know."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medgraft.data.cohort.marked import mask_of, read_mask_cohort
from medgraft.errors import DataError
from medgraft.types import Cohort

BLACK, WHITE, RED, GREEN, GREY = (0, 0, 0), (255, 255, 255), (200, 0, 0), (0, 200, 0), (128, 128, 128)
DISC = (np.add.outer((np.arange(24) - 12) ** 2, (np.arange(24) - 10) ** 2) < 40).astype(np.uint8)
RING = DISC.copy()
RING[8:12, 8:12] *= 2


def palette(numbers: np.ndarray, colours: Sequence[tuple[int, int, int]], mode: str = "png") -> Image.Image:
    """A picture with a palette."""
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def cohort(folder: Path, masks: Sequence[Image.Image], *, suffix: str = "png", **options: Any) -> Cohort:
    """A cohort of noise with these masks, each of which stands for four."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(4 * len(masks)):
        Image.fromarray(rng.integers(0, 255, (24, 24), np.uint8)).save(folder / "images" / f"{number:02d}.png")
        masks[number % len(masks)].save(folder / "masks" / f"{number:02d}.{suffix}", **options)
    return read_mask_cohort(folder)


def marked(found: Cohort) -> None:
    """Every mask marks the disc as its one class."""
    for row in range(len(found)):
        np.testing.assert_array_equal(mask_of(found, row), DISC)


GREYS: Mapping[str, Sequence[Image.Image]] = {
    "palettes in both orders": [palette(DISC, [BLACK, WHITE]), palette(1 - DISC, [WHITE, BLACK])],
    "a palette that begins with the foreground": [palette(1 - DISC, [WHITE, BLACK])],
    "palettes with gaps": [palette(DISC * 7, [BLACK, *[RED] * 6, WHITE]), palette(DISC, [BLACK, WHITE])],
    "grey beside a palette": [palette(DISC, [BLACK, WHITE]), Image.fromarray(DISC * 255)],
    "one bit beside a palette": [palette(1 - DISC, [WHITE, BLACK]), Image.fromarray(DISC.astype(bool))],
    "an adaptive palette": [Image.fromarray(np.dstack([DISC * 255] * 3)).convert("P", palette=1, colors=2)],
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("name", GREYS)
def test_white_is_the_lesion_however_it_is_numbered(name: str, suffix: str, tmp_path: Path) -> None:
    found = cohort(tmp_path, GREYS[name], suffix=suffix)
    assert found.mask_values == (255,)
    marked(found)
    assert any("the greys decide" in note for note in found.notes)


@pytest.mark.parametrize(
    ("masks", "values"),
    [
        ([palette(DISC, [BLACK, WHITE])], (1,)),
        ([palette(DISC, [BLACK, RED]), palette(DISC, [BLACK, RED, GREEN])], (1,)),
        ([palette(DISC, [WHITE, RED])], (1,)),
        ([palette(DISC, [BLACK, RED]), Image.fromarray(DISC)], (1,)),
        ([Image.fromarray(DISC * 255), Image.fromarray(DISC.astype(bool))], (255,)),
    ],
)
def test_where_number_and_colour_agree_numbers_stay(
    masks: Sequence[Image.Image], values: tuple[int, ...], tmp_path: Path
) -> None:
    found = cohort(tmp_path, masks)
    assert found.mask_values == values
    marked(found)


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ([palette(RING, [BLACK, RED, GREEN]), palette(RING, [BLACK, GREEN, RED])], "1 is RGB 200, 0, 0 in one and RGB"),
        ([palette(DISC, [BLACK, RED]), palette(1 - DISC, [RED, BLACK])], "0 is black in one and RGB 200, 0, 0 in"),
        ([palette(1 - DISC, [RED, BLACK])], "black is 1, and 0 is the background"),
        ([palette(DISC, [BLACK, RED]), Image.fromarray(DISC * 255), palette(DISC * 2, [BLACK, GREEN, RED])], "is"),
    ],
)
def test_colours_that_contradict_their_numbers_are_refused_with_two_files(
    masks: Sequence[Image.Image], told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"palettes of masks do not agree: .*{told}.*\d\d\.png, \d\d\.png"):
        cohort(tmp_path, masks)


def test_three_greys_are_three_labels(tmp_path: Path) -> None:
    masks = [palette(RING, [BLACK, GREY, WHITE]), palette(2 - RING, [WHITE, GREY, BLACK])]
    found = cohort(tmp_path, masks)
    assert found.mask_values == (128, 255)
    np.testing.assert_array_equal(mask_of(found, 1), RING)


def test_the_numbers_that_were_named_count_where_they_fit(tmp_path: Path) -> None:
    cohort(tmp_path, [palette(DISC, [BLACK, WHITE])])
    for classes, value in (({"lesion": 1}, 1), ({"lesion": 255}, 255)):
        found = read_mask_cohort(tmp_path, classes=classes)
        assert found.mask_values == (value,)
        marked(found)


@pytest.mark.parametrize("bits", [2, 4])
def test_greys_of_few_bits_whose_numbers_are_the_labels_of_others_are_refused(bits: int, tmp_path: Path) -> None:
    import struct
    import zlib

    def few(numbers: np.ndarray) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        rows = b"".join(
            b"\0" + int("".join(f"{value:0{bits}b}" for value in row), 2).to_bytes(len(row) * bits // 8, "big")
            for row in numbers
        )
        header = struct.pack(">IIBBBBB", *numbers.shape[::-1], bits, 0, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    cohort(tmp_path, [Image.fromarray(RING)])
    (tmp_path / "masks" / "00.png").write_bytes(few(RING))
    with pytest.raises(DataError, match=r"00\.png: a grey picture of few bits, which shows (85|17) where it stores 1"):
        read_mask_cohort(tmp_path)
    for file in (tmp_path / "masks").iterdir():
        file.write_bytes(few(RING))
    found = read_mask_cohort(tmp_path)
    assert found.mask_values == (255 // (2**bits - 1), 2 * 255 // (2**bits - 1))
    np.testing.assert_array_equal(mask_of(found, 0), RING)
