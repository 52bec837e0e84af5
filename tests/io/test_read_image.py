import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medgraft.errors import DataError
from medgraft.io import read_facts, read_image


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def filtered(line, above, width, kind):
    """One PNG line after filter `kind`: the bytes minus their prediction."""
    left = np.concatenate([np.zeros(width, int), line[:-width]])
    corner = np.concatenate([np.zeros(width, int), above[:-width]])
    guess = left + above - corner
    distances = np.abs(np.stack([guess - left, guess - above, guess - corner]))
    paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
    prediction = [0, left, above, (left + above) // 2, paeth][kind]
    return bytes([kind]) + ((line - prediction) % 256).astype(np.uint8).tobytes()


def raw_png(array, colour_type):
    """A 16-bit PNG written by hand, because Pillow cannot; its lines go through all five filters."""
    height, width = array.shape[:2]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = [np.frombuffer(line.astype(">u2").tobytes(), np.uint8).astype(int) for line in array]
    above = [np.zeros_like(lines[0]), *lines]
    per_pixel = len(lines[0]) // width
    data = b"".join(filtered(line, above[y], per_pixel, y % 5) for y, line in enumerate(lines))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_8_bit_files_come_back_unchanged(tmp_path, suffix, shape):
    pixels = noise(*shape)
    read, facts = read_image(saved(tmp_path / f"x.{suffix}", pixels))
    np.testing.assert_array_equal(read, pixels)
    assert (facts.height, facts.width, facts.bits) == (5, 7, 8)
    assert facts.channels == (3 if len(shape) == 3 else 1)
    assert read.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_never_squashed(tmp_path, suffix):
    pixels = noise(6, 4, dtype=np.uint16)
    read, facts = read_image(saved(tmp_path / f"x.{suffix}", pixels))
    np.testing.assert_array_equal(read, pixels)
    assert (read.dtype, facts.bits, facts.channels) == (np.uint16, 16, 1)


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6), (2, 4)])
def test_16_bit_png_with_colour_or_alpha_keeps_all_bits(tmp_path, channels, colour_type):
    pixels = noise(11, 6, channels, dtype=np.uint16)
    if channels in (2, 4):
        pixels[..., -1] = 65535
    (tmp_path / "x.png").write_bytes(raw_png(pixels, colour_type))
    read, facts = read_image(tmp_path / "x.png")
    expected = pixels[..., :3] if channels >= 3 else pixels[..., 0]
    np.testing.assert_array_equal(read, expected)
    assert facts.bits == 16
    assert read_facts(tmp_path / "x.png").bits == 16


def test_32_bit_integer_tiff_is_read_when_it_fits_in_16_bits(tmp_path):
    values = np.array([[0, 300], [65535, 7]], dtype=np.int32)
    read, facts = read_image(saved(tmp_path / "x.tif", values))
    np.testing.assert_array_equal(read, values)
    assert (read.dtype, facts.bits) == (np.uint16, 16)
    with pytest.raises(DataError, match=r"bad\.tif: pixels from -1024 to 3000, expected 0 to 65535"):
        read_image(saved(tmp_path / "bad.tif", np.array([[-1024, 3000]], dtype=np.int32)))


def test_jpeg_is_read_like_pillow_reads_it(tmp_path):
    path = saved(tmp_path / "x.jpg", noise(16, 24, 3), quality=90)
    np.testing.assert_array_equal(read_image(path)[0], np.asarray(Image.open(path)))


def test_rgb_with_equal_channels_counts_as_grey(tmp_path):
    grey = noise(40, 40)
    read, facts = read_image(saved(tmp_path / "x.png", np.stack([grey] * 3, axis=2)))
    np.testing.assert_array_equal(read, grey)
    assert (facts.channels, facts.mode) == (1, "RGB")
    coloured = np.stack([grey] * 3, axis=2)
    coloured[3, 5, 1] ^= 1
    assert read_image(saved(tmp_path / "y.png", coloured))[1].channels == 3


def test_palette_one_bit_and_transparency_become_plain_pixels(tmp_path):
    colour = noise(6, 6, 3)
    palette = Image.fromarray(colour).quantize(8)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png")[0], np.asarray(palette.convert("RGB")))
    bits = noise(4, 4) > 127
    assert set(np.unique(read_image(saved(tmp_path / "b.png", bits))[0])) == {0, 255}
    rgba = np.dstack([colour, np.full((6, 6), 255, np.uint8)])
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", rgba))[0], colour)
    rgba[0, 0, 3] = 0
    assert read_image(saved(tmp_path / "a.png", rgba))[0][0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation_is_honoured(tmp_path, orientation, suffix):
    image = Image.fromarray(noise(3, 5))
    exif = Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / f"x.{suffix}", exif=exif)
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    expected = image.transpose(turn[orientation]) if orientation in turn else image
    np.testing.assert_array_equal(read_image(tmp_path / f"x.{suffix}")[0], np.asarray(expected))


def multipage(path):
    pages = [Image.fromarray(noise(4, 4, seed=seed)) for seed in range(2)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def deep_colour_tiff(path):
    """Uncompressed little-endian RGB with 16 bits per sample."""
    data = noise(2, 2, 3, dtype=np.uint16).tobytes()
    tags = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 140), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, len(data)), (284, 3, 1, 1)]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0\0\0\0"
    path.write_bytes(b"II*\0\x08\0\0\0" + body + struct.pack("<HHH", 16, 16, 16) + data)


def bomb(path):
    data = bytearray(raw_png(noise(2, 2, dtype=np.uint16), 0))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))


def truncated(path):
    path.write_bytes(raw_png(noise(64, 64, dtype=np.uint16), 0)[:3000])


REFUSED = {
    "empty.png": (lambda path: path.touch(), "the file is empty"),
    "folder.png": (lambda path: path.mkdir(), "got a folder"),
    "page.png": (lambda path: path.write_text("<!DOCTYPE html>"), "web page"),
    "text.png": (lambda path: path.write_text("hello"), "starts with b'hello'"),
    "x.dcm.png": (lambda path: path.write_bytes(b"\0" * 128 + b"DICM"), "DICOM"),
    "float.tif": (lambda path: saved(path, np.ones((3, 3), np.float32)), "floating-point"),
    "pages.tif": (multipage, "holds 2 pages"),
    "deep.tif": (deep_colour_tiff, "16-bit colour TIFF"),
    "bomb.png": (bomb, "declares 100000×100000 pixels"),
    "cut.png": (truncated, "damaged or truncated"),
    "header.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0"), "header is damaged"),
    "absent.png": (lambda path: None, "cannot be opened"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_files_are_refused_by_name_with_a_reason(tmp_path, name):
    make, reason = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_jpeg_is_refused(tmp_path):
    data = saved(tmp_path / "x.jpg", noise(200, 200, 3)).read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="truncated"):
        read_image(tmp_path / "x.jpg")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["PNG", "JPEG", "TIFF", "BMP"]), data=st.data())
def test_damaged_bytes_give_pixels_or_a_data_error_never_anything_else(tmp_path, kind, data):
    stream = io.BytesIO()
    Image.fromarray(noise(12, 9, 3)).save(stream, kind)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(3, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    (tmp_path / "x").write_bytes(bytes(content))
    try:
        pixels, facts = read_image(tmp_path / "x")
    except DataError:
        return
    assert pixels.shape[:2] == (facts.height, facts.width)
    assert pixels.dtype in (np.uint8, np.uint16)


def test_facts_of_the_header_agree_with_decoding(tmp_path):
    for array in (noise(4, 5), noise(4, 5, 3), noise(4, 5, dtype=np.uint16)):
        path = saved(tmp_path / "x.png", array)
        assert read_facts(path) == read_image(path)[1]


@pytest.mark.parametrize("keeps_numbers", [True, False])
def test_a_bmp_whose_two_colours_lie_in_bytes_is_not_read_as_bits(keeps_numbers: bool, tmp_path: Path) -> None:
    numbers = np.tile(np.array([[0, 1]], np.uint8), (4, 8))
    image = Image.fromarray(numbers, "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "x.bmp")
    with pytest.raises(DataError, match="more bits than its two colours need"):
        read_image(tmp_path / "x.bmp", keeps_numbers=keeps_numbers)
    Image.fromarray(numbers.astype(bool)).save(tmp_path / "y.bmp")
    np.testing.assert_array_equal(read_image(tmp_path / "y.bmp")[0], numbers * 255)
