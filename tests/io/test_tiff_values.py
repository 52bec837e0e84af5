"""What tags of a TIFF say of its numbers, against arithmetic (docs/stored-values.md has the table)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medgraft.errors import DataError
from medgraft.io.image import read_image
from tiff_files import tiff

BYTES = np.tile(np.arange(16, dtype=np.uint8) * 16, (4, 1))
DEEP = np.tile(np.arange(16, dtype=np.uint16) * 4000, (4, 1))


def bits_of(numbers: np.ndarray, bits: int) -> bytes:
    """Rows of numbers of so many bits, each row filled up to bytes."""
    rows = ["".join(f"{int(value):0{bits}b}" for value in row) for row in numbers]
    rows = [row.ljust(-(-len(row) // 8) * 8, "0") for row in rows]
    return b"".join(bytes(int(row[i : i + 8], 2) for i in range(0, len(row), 8)) for row in rows)


def turned(data: bytes) -> bytes:
    """Bits of each byte in reverse: FillOrder 2."""
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)


READ: dict[str, tuple[bytes, dict[str, Any], np.ndarray]] = {
    "8 bits": (BYTES.tobytes(), {}, BYTES),
    "8 bits, white is zero": (BYTES.tobytes(), {"photometric": 0}, 255 - BYTES),
    "1 bit": (bits_of(BYTES // 16 % 2, 1), {"bits": [1]}, BYTES // 16 % 2 * 255),
    "1 bit, white is zero": (bits_of(BYTES // 16 % 2, 1), {"bits": [1], "photometric": 0}, 255 - BYTES // 16 % 2 * 255),
    "1 bit, turned": (turned(bits_of(BYTES // 16 % 2, 1)), {"bits": [1], "tags": {266: [2]}}, BYTES // 16 % 2 * 255),
    "2 bits": (bits_of(BYTES // 64, 2), {"bits": [2]}, BYTES // 64 * 85),
    "4 bits": (bits_of(BYTES // 16, 4), {"bits": [4]}, BYTES // 16 * 17),
    "4 bits, white is zero": (bits_of(BYTES // 16, 4), {"bits": [4], "photometric": 0}, 255 - BYTES // 16 * 17),
    "8 bits, turned": (turned(BYTES.tobytes()), {"tags": {266: [2]}}, BYTES),
    "12 bits": (bits_of(DEEP // 16, 12), {"bits": [12]}, DEEP // 16),
    "16 bits": (DEEP.astype("<u2").tobytes(), {"bits": [16]}, DEEP),
    "16 bits, big-endian": (DEEP.astype(">u2").tobytes(), {"bits": [16], "order": ">"}, DEEP),
    "16 bits, white is zero": (DEEP.astype("<u2").tobytes(), {"bits": [16], "photometric": 0}, 65535 - DEEP),
    "32 bits": (DEEP.astype("<u4").tobytes(), {"bits": [32]}, DEEP),
    "32 signed bits": (DEEP.astype(">i4").tobytes(), {"bits": [32], "order": ">", "tags": {339: [2]}}, DEEP),
    "smallest and largest": (DEEP.astype("<u2").tobytes(), {"bits": [16], "tags": {280: [9], 281: [99]}}, DEEP),
    "palette": (
        BYTES.tobytes(),
        {"photometric": 3, "tags": {320: [*range(65535, -1, -257)] * 3}},
        255 - BYTES,
    ),
    "palette of 8 bits": (BYTES.tobytes(), {"photometric": 3, "tags": {320: [*range(255, -1, -1)] * 3}}, 255 - BYTES),
    "a sample that means nothing": (
        np.dstack([BYTES, np.full_like(BYTES, 7)]).tobytes(),
        {"bits": [8, 8], "tags": {338: [0]}},
        BYTES,
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_number_is_what_the_tags_say(name: str, tmp_path: Path) -> None:
    data, options, expected = READ[name]
    found, _ = read_image(tiff(tmp_path / "x.tif", data, (4, 16), **options))
    np.testing.assert_array_equal(found, expected)


REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "8 signed bits": (BYTES.tobytes(), {"tags": {339: [2]}}, "holds signed 8-bit pixels"),
    "16 signed bits": ((DEEP.astype(int) - 20000).astype("<i2").tobytes(), {"bits": [16], "tags": {339: [2]}}, "pixels from -29536"),
    "floats": (DEEP.astype("<f4").tobytes(), {"bits": [32], "tags": {339: [3]}}, "floating-point"),
    "doubles": (DEEP.astype("<f8").tobytes(), {"bits": [64], "tags": {339: [3]}}, "a TIFF of 64 floating-point bits, grey"),
    "halves": (DEEP.astype("<f2").tobytes(), {"bits": [16], "tags": {339: [3]}}, "a TIFF of 16 floating-point bits, grey"),
    "complex": (DEEP.astype("<u4").tobytes(), {"bits": [32], "tags": {339: [5]}}, "a TIFF of 32 complex bits"),
    "undefined": (DEEP.astype("<u2").tobytes(), {"bits": [16], "tags": {339: [4]}}, "a TIFF of 16 undefined bits"),
    "10 bits": (bits_of(DEEP // 64, 10), {"bits": [10]}, "a TIFF of 10 unsigned bits, grey"),
    "white is zero, big-endian": (DEEP.astype(">u2").tobytes(), {"bits": [16], "photometric": 0, "order": ">"}, r"grey \(white is zero\) in big"),
    "a sensor's mosaic": (DEEP.astype("<u2").tobytes(), {"bits": [16], "photometric": 32803}, "interpretation 32803"),
    "CIELab": (np.dstack([BYTES] * 3).tobytes(), {"bits": [8] * 3, "photometric": 8}, "LAB cannot be read"),
    "deep colour": (np.dstack([DEEP] * 3).tobytes(), {"bits": [16] * 3, "photometric": 2}, "would be squashed"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named_not_called_damaged(name: str, tmp_path: Path) -> None:
    data, options, told = REFUSED[name]
    with pytest.raises(DataError, match=told) as caught:
        read_image(tiff(tmp_path / "x.tif", data, (4, 16), **options))
    assert "damaged" not in str(caught.value)


def test_bits_of_the_file_are_told(tmp_path: Path) -> None:
    _, facts = read_image(tiff(tmp_path / "x.tif", bits_of(DEEP // 16, 12), (4, 16), bits=[12]))
    assert (facts.bits, facts.stored_bits) == (16, 12)
