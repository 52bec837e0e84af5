"""Every attribute that changes what a stored number means, against arithmetic by hand (docs/stored-values.md has the table)."""

import io
import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicom_files import compressed, dicom, lut, save, slice_at
from medgraft.errors import DataError
from medgraft.io.case import is_case, read_case
from medgraft.io.volume import read_volume
from medgraft.types import Reading

RAMP = np.tile(np.arange(64, dtype=np.uint16) * 64, (16, 1))
SIGNED = (RAMP.astype(np.int32) - 2048).astype(np.int16)
UP = RAMP / 4095
XA, XRF = "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2"
NEGATIVE = lut([4095 - number for number in range(4096)], 0, 12)
GAMMA = lut([round((number / 4095) ** 2 * 65535) for number in range(4096)], 0, 16)
EMPTY = Items([Dataset()])


def made(stored: np.ndarray = RAMP, *, high_bit: int | None = None, sop: str = "", **options: Any) -> Dataset:
    """A file of 12 bits that is a ramp unless an attribute says otherwise."""
    found = dicom(stored, **options)
    if high_bit is not None:
        found.HighBit = high_bit
    if sop:
        found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = sop
    return found


def window(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """LINEAR of PS3.3 C.11.2.1.2.1."""
    return np.asarray(((values.astype(np.float64) - centre + 0.5) / (width - 1) + 0.5).clip(0, 1))


GREY: dict[str, tuple[Callable[[], Dataset], np.ndarray]] = {
    "stored numbers": (made, UP),
    "MONOCHROME1": (lambda: made(photometric="MONOCHROME1"), 1 - UP),
    "slope -1": (lambda: made(rescale=(-1, 4095)), 1 - UP),
    "slope -1 of CR": (lambda: made(modality="CR", rescale=(-1, 4095)), 1 - UP),
    "slope -1 before a window": (lambda: made(rescale=(-1, 4095), window=(1000, 800)), window(4095 - RAMP, 1000, 800)),
    "slope -1 of MONOCHROME1": (lambda: made(photometric="MONOCHROME1", rescale=(-1, 4095)), UP),
    "slope 0 is none": (lambda: made(rescale=(0, 10)), UP),
    "slope alone is none": (lambda: made(RescaleSlope="-1"), UP),
    "modality LUT": (lambda: made(ModalityLUTSequence=NEGATIVE), 1 - UP),
    "modality LUT before a window": (
        lambda: made(ModalityLUTSequence=NEGATIVE, window=(1000, 800)),
        window(4095 - RAMP, 1000, 800),
    ),
    "modality LUT of 16 bits": (lambda: made(ModalityLUTSequence=GAMMA), np.rint(UP**2 * 65535) / 65535),
    "modality LUT without a table": (
        lambda: made(ModalityLUTSequence=EMPTY, rescale=(-1, 4095)),
        1 - UP,
    ),
    "modality LUT that is empty": (lambda: made(ModalityLUTSequence=Items([])), UP),
    "VOI LUT comes before a window": (
        lambda: made(VOILUTSequence=GAMMA, window=(1000, 800)),
        np.rint(UP**2 * 65535) / 65535,
    ),
    "VOI LUT without a table": (lambda: made(VOILUTSequence=EMPTY, window=(1000, 800)), window(RAMP, 1000, 800)),
    "presentation LUT INVERSE": (lambda: made(PresentationLUTShape="INVERSE"), 1 - UP),
    "presentation LUT IDENTITY of MONOCHROME1": (
        lambda: made(photometric="MONOCHROME1", PresentationLUTShape="IDENTITY"),
        UP,
    ),
    "presentation LUT INVERSE of MONOCHROME1": (
        lambda: made(photometric="MONOCHROME1", PresentationLUTShape="INVERSE"),
        1 - UP,
    ),
    "HighBit 15": (lambda: made(RAMP << 4, high_bit=15), UP),
    "HighBit 13 with other bits around": (lambda: made(RAMP << 2 | 0xC003, high_bit=13), UP),
    "HighBit 15, signed": (lambda: made(SIGNED << 4, high_bit=15), UP),
    "bits above those stored": (lambda: made(RAMP | 0xF000), UP),
    "bits above those stored, signed": (lambda: made((SIGNED & 0x0FFF).astype(np.int16)), UP),
    "angiography, logarithmic": (
        lambda: made(modality="XA", sop=XA, rescale=(-1, 4095), PixelIntensityRelationship="LOG"),
        UP,
    ),
    "fluoroscopy with a modality LUT": (lambda: made(modality="RF", sop=XRF, ModalityLUTSequence=NEGATIVE), UP),
    "sign of the intensity relation": (
        lambda: made(PixelIntensityRelationship="LOG", PixelIntensityRelationshipSign=-1),
        UP,
    ),
    "smallest and largest pixel": (lambda: made(SmallestImagePixelValue=100, LargestImagePixelValue=1000), UP),
    "width 0": (lambda: made(window=(0, 0)), UP),
    "width below 0": (lambda: made(window=(2048, -1000)), UP),
    "width 0, and a second window": (lambda: made(window=([0, 1000], [0, 800])), window(RAMP, 1000, 800)),
    "width below 1": (
        lambda: made(rescale=(0.0001, 0), window=(0.2, 0.4)),
        ((RAMP * 0.0001 - 0.2) / 0.4 + 0.5).clip(0, 1),
    ),
    "RLE with HighBit 15": (lambda: compressed(made(RAMP << 4, bits=16), RLELossless), (RAMP << 4) / 65535),
}


@pytest.mark.parametrize("name", GREY)
def test_a_grey_number_is_what_its_attributes_say(name: str, tmp_path: Path) -> None:
    make, expected = GREY[name]
    found, _ = read_case(save(make(), tmp_path / "x.dcm"), Reading())
    np.testing.assert_allclose(found / 65535, expected, atol=1.01 / 65535)


def test_big_endian_is_read_alike(tmp_path: Path) -> None:
    file = tmp_path / "x.dcm"
    big = made(RAMP << 4, high_bit=15)
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big.PixelData = (RAMP << 4).astype(">u2").tobytes()
    big.save_as(file, implicit_vr=False, little_endian=False)
    found, _ = read_case(file, Reading())
    np.testing.assert_allclose(found / 65535, UP, atol=1.01 / 65535)


def test_a_high_bit_in_a_codestream_is_refused(tmp_path: Path) -> None:
    odd = compressed(made(RAMP), JPEGLSLossless)
    odd.HighBit = 15
    with pytest.raises(DataError, match="HighBit 15 with 12 bits stored in JPEG-LS"):
        read_case(save(odd, tmp_path / "x.dcm"), Reading())


@pytest.mark.parametrize("kind", ["HU", "US", ""])
def test_a_usual_ct_is_scaled_in_hounsfield_units(kind: str, tmp_path: Path) -> None:
    file = save(made(modality="CT", rescale=(1, -1024), **({"RescaleType": kind} if kind else {})), tmp_path / "x.dcm")
    found, _ = read_case(file, Reading())
    np.testing.assert_allclose(found / 65535, UP, atol=1.01 / 65535)


def test_a_ct_of_another_unit_is_not_taken_for_hounsfield_units(tmp_path: Path) -> None:
    file = save(made(modality="CT", rescale=(0.005, 0), RescaleType="Z_EFF"), tmp_path / "x.dcm")
    found, _ = read_case(file, Reading())
    np.testing.assert_allclose(found / 65535, UP, atol=1.01 / 65535)
    with pytest.raises(DataError, match="expected Hounsfield units for the windows lung, got Z_EFF"):
        read_case(file, Reading(windows=("lung",)))


# Padding


def padded(low: int, dtype: Any, *, rows: int = 8) -> np.ndarray:
    """The ramp with rows of padding above and below."""
    stored = np.pad((RAMP // 64 * 16 + 100).astype(np.int64), ((rows, rows), (0, 0)), constant_values=low)
    return stored.astype(dtype)


@pytest.mark.parametrize(
    ("modality", "dtype", "value", "tags"),
    [
        ("MR", np.int16, -32768, {"PixelPaddingValue": -32768}),
        ("MR", np.uint16, 65535, {"PixelPaddingValue": 65535}),
        ("MR", np.uint16, 63000, {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}),
        ("MR", np.uint16, 63000, {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 65535}),
        ("PT", np.int16, -2000, {"PixelPaddingValue": -2000, "RescaleSlope": 0.5, "RescaleIntercept": 0}),
        ("NM", np.uint16, 0, {"PixelPaddingValue": 0}),
    ],
)
def test_padding_takes_no_part_in_the_scale_and_lies_at_its_dark_end(
    modality: str, dtype: Any, value: int, tags: dict[str, Any], tmp_path: Path
) -> None:
    with_padding = dicom(padded(value, dtype), modality=modality, bits=16, **tags)
    bare = {name: tag for name, tag in tags.items() if "Padding" not in name}
    without = dicom(padded(value, dtype)[8:-8], modality=modality, bits=16, **bare)
    found, facts = read_case(save(with_padding, tmp_path / "a.dcm"), Reading())
    expected, _ = read_case(save(without, tmp_path / "b.dcm"), Reading())
    np.testing.assert_array_equal(found[8:-8], expected)
    assert not found[:8].any()
    assert not found[-8:].any()
    assert "padding" in facts.steps


@pytest.mark.parametrize("scaling", ["range", "percentile", "z-score"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_dark_on_every_scale_and_in_negatives(photometric: str, scaling: Any, tmp_path: Path) -> None:
    file = save(
        dicom(padded(4095, np.uint16), photometric=photometric, PixelPaddingValue=4095, rescale=(-1, 4095)),
        tmp_path / "x.dcm",
    )
    found, _ = read_case(file, Reading(scaling=scaling))
    assert not found[:8].any()
    assert found[8:-8].std() > 1000


def test_a_sign_that_the_coding_lost_is_found(tmp_path: Path) -> None:
    stored = padded(-2000, np.int16)
    file = save(dicom(stored, modality="CT", bits=16, rescale=(1, 0), PixelPaddingValue=-2000), tmp_path / "x.dcm")
    found = pydicom.dcmread(file)
    del found.PixelPaddingValue
    found.add_new("PixelPaddingValue", "US", 63536)
    assert "padding" in read_case(save(found, tmp_path / "y.dcm"), Reading())[1].steps


def test_padding_beyond_the_bits_stored_is_padding_all_the_same(tmp_path: Path) -> None:
    file = save(dicom(padded(63536, np.uint16), bits=12, PixelPaddingValue=63536), tmp_path / "x.dcm")
    found, facts = read_case(file, Reading())
    assert not found[:8].any()
    assert "padding" in facts.steps


def test_an_image_of_padding_alone_is_dark(tmp_path: Path) -> None:
    blank = dicom(np.full((8, 8), -2000, np.int16), modality="MR", bits=16, PixelPaddingValue=-2000)
    assert not read_case(save(blank, tmp_path / "x.dcm"), Reading())[0].any()


@pytest.mark.parametrize("spacing", [(), (1.0, 0.4, 0.4)])
def test_padding_stays_out_of_a_volume(spacing: tuple[float, ...], tmp_path: Path) -> None:
    files = []
    for z in range(4):
        # One slice has none.
        stored = padded(-32000, np.int16) if z else padded(100, np.int16)
        made = slice_at(stored, float(z), series="1.2.3", modality="MR", bits=16, PixelPaddingValue=-32000)
        files.append(save(made, tmp_path / f"{z}.dcm"))
    found, facts = read_volume(files, Reading(spacing_mm=spacing))
    assert "padding" in facts.steps
    middle = found[:, found.shape[1] // 2]
    assert middle.min() < 3000
    assert middle.max() > 60000
    assert found[-1, 0].max() == 0


# Colour


def planes() -> np.ndarray:
    """Three channels that differ, (32, 64, 3)."""
    colours = np.zeros((32, 64, 3), np.uint8)
    colours[..., 0], colours[..., 1], colours[..., 2] = 200, np.arange(64) * 3, 10
    return colours


def coloured(stream: bytes, syntax: str, photometric: str, planar: int) -> Dataset:
    """A file of 8-bit colour with this codestream."""
    found = dicom(planes(), modality="US", bits=8, photometric=photometric)
    found.PlanarConfiguration = planar
    found.file_meta.TransferSyntaxUID = syntax
    found.PixelData = encapsulate([stream])
    found["PixelData"].VR, found["PixelData"].is_undefined_length = "OB", True
    return found


def jpeg(*, mode: str = "RGB", subsampling: int = 0, marker: bytes = b"") -> bytes:
    """A codestream of the planes, with no marker that tells its colours but the one given."""
    buffer = io.BytesIO()
    Image.fromarray(planes(), mode).save(buffer, "JPEG", quality=98, subsampling=subsampling)
    stream = buffer.getvalue()
    jfif = 2 + 2 + int.from_bytes(stream[4:6], "big")
    assert stream[2:4] == b"\xff\xe0"
    return stream[:2] + marker + stream[jfif:] if marker != b"JFIF" else stream


def adobe(transform: int) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


# What a codestream says comes before what the header says; where it says nothing, the header is believed.
JPEGS = {
    "JFIF": (jpeg(marker=b"JFIF"), ("RGB", "YBR_FULL", "YBR_FULL_422")),
    "JFIF, half the colours": (jpeg(marker=b"JFIF", subsampling=1), ("RGB", "YBR_FULL", "YBR_FULL_422")),
    "half the colours": (jpeg(subsampling=1), ("RGB", "YBR_FULL", "YBR_FULL_422")),
    "Adobe YCC": (jpeg(marker=adobe(1)), ("RGB", "YBR_FULL", "YBR_FULL_422")),
    "Adobe RGB": (jpeg(mode="YCbCr", marker=adobe(0)), ("RGB", "YBR_FULL", "YBR_FULL_422")),
    "YCC": (jpeg(), ("YBR_FULL", "YBR_FULL_422")),
    "RGB": (jpeg(mode="YCbCr"), ("RGB",)),
}


@pytest.mark.parametrize(
    ("name", "photometric", "planar"),
    [(name, said, planar) for name, (_, all_said) in JPEGS.items() for said in all_said for planar in (0, 1)],
)
def test_colours_of_a_jpeg_are_those_of_its_codestream(
    name: str, photometric: str, planar: int, tmp_path: Path
) -> None:
    file = save(coloured(JPEGS[name][0], JPEGBaseline8Bit, photometric, planar), tmp_path / "x.dcm")
    found, _ = read_case(file, Reading())
    assert np.abs(found // 257 - planes().astype(int)).max() <= 6


@pytest.mark.parametrize(("mct", "photometric"), [(0, "RGB"), (1, "YBR_RCT")])
@pytest.mark.parametrize("planar", [0, 1])
def test_jpeg_2000_knows_no_planes(mct: int, photometric: str, planar: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(planes()).save(buffer, "JPEG2000", mct=mct, irreversible=False)
    file = save(coloured(buffer.getvalue(), JPEG2000Lossless, photometric, planar), tmp_path / "x.dcm")
    np.testing.assert_array_equal(read_case(file, Reading())[0], planes() * np.uint16(257))


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("interleave", [0, 1, 2])
def test_jpeg_ls_says_itself_how_planes_are_interleaved(interleave: int, planar: int, tmp_path: Path) -> None:
    jpeg_ls = pytest.importorskip("jpeg_ls")
    source = planes() if interleave else np.ascontiguousarray(planes().transpose(2, 0, 1))
    stream = bytes(jpeg_ls.encode_array(source, interleave_mode=interleave))
    file = save(coloured(stream, JPEGLSLossless, "RGB", planar), tmp_path / "x.dcm")
    np.testing.assert_array_equal(read_case(file, Reading())[0], planes() * np.uint16(257))


@pytest.mark.parametrize("is_run_length", [False, True])
@pytest.mark.parametrize("planar", [0, 1])
def test_planes_mean_what_they_say_where_nothing_or_run_lengths_compress(
    planar: int, is_run_length: bool, tmp_path: Path
) -> None:
    found = dicom(planes(), modality="US", bits=8, photometric="RGB")
    if is_run_length:
        found = compressed(found, RLELossless)
    elif planar:
        found.PixelData = planes().transpose(2, 0, 1).tobytes()
    found.PlanarConfiguration = planar
    np.testing.assert_array_equal(read_case(save(found, tmp_path / "x.dcm"), Reading())[0], planes() * np.uint16(257))


@pytest.mark.parametrize("photometric", ["HSV", "YBR_PARTIAL_422", "CMYK"])
def test_colours_that_are_no_longer_of_the_standard_are_refused(photometric: str, tmp_path: Path) -> None:
    file = save(dicom(planes(), modality="US", bits=8, photometric=photometric), tmp_path / "x.dcm")
    with pytest.raises(DataError, match=f"expected colours as RGB or YBR_FULL, got {photometric}"):
        read_case(file, Reading())


# Codecs


def stray(stored: np.ndarray) -> Dataset:
    """A JPEG-LS stream with a zero before its end, as the Nema's own reference file has (charls#437)."""
    found = compressed(dicom(stored, modality="MR", bits=16), JPEGLSLossless)
    (frame,) = generate_frames(found.PixelData, number_of_frames=1)
    end = frame.rindex(b"\xff\xd9")
    found.PixelData = encapsulate([frame[:end] + b"\0" + frame[end:]])
    return found


def test_where_one_codec_fails_the_next_is_asked(tmp_path: Path) -> None:
    found, facts = read_case(save(stray(RAMP), tmp_path / "x.dcm"), Reading(scaling="range"))
    np.testing.assert_array_equal(found, RAMP)
    assert facts.decoder == "gdcm"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_no_codec_makes_an_image_of_half_a_stream(syntax: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    found = compressed(dicom(noise, modality="MR"), syntax)
    (frame,) = generate_frames(found.PixelData, number_of_frames=1)
    found.PixelData = encapsulate([frame[: int(share * len(frame))]])
    with pytest.raises(DataError, match=r"x\.dcm"):
        read_case(save(found, tmp_path / "x.dcm"), Reading())


# Files without preamble


@pytest.mark.parametrize(("is_implicit", "is_little"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("name", ["x.dcm", "IM0001", "x.ima"])
def test_a_data_set_without_preamble_is_dicom(is_implicit: bool, is_little: bool, name: str, tmp_path: Path) -> None:
    found = made()
    if not is_little:
        found.PixelData = RAMP.astype(">u2").tobytes()
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = is_little, is_implicit
    pydicom.filewriter.write_dataset(buffer, found)
    (tmp_path / name).write_bytes(buffer.getvalue())
    assert is_case(tmp_path / name)
    np.testing.assert_allclose(read_case(tmp_path / name, Reading())[0] / 65535, UP, atol=1.01 / 65535)


def test_compressed_pixels_without_a_syntax_are_refused(tmp_path: Path) -> None:
    found = compressed(made(), JPEGLSLossless)
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, found)
    (tmp_path / "x").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="compressed pixels without a transfer syntax"):
        read_case(tmp_path / "x", Reading())


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x00\x05\x00" + b"\0" * 200,
        b"\x02\x00\x00\x00UL\x04\x00" + b"\xff" * 300,
        b"\x08\x00\x05\x00CS\x0a\x00 hello" * 9,
    ],
)
def test_bytes_that_begin_alike_are_no_dicom(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not is_case(tmp_path / "x")


def test_no_type_of_picture_is_taken_for_a_data_set(tmp_path: Path) -> None:
    for suffix, size in itertools.product(("png", "jpg", "tif", "bmp"), (1, 8, 2048)):
        Image.new("L", (size, size)).save(tmp_path / f"x.{suffix}")
        (tmp_path / f"x.{suffix}").rename(tmp_path / "x")
        assert not is_case(tmp_path / "x")
    (tmp_path / "y").write_bytes(struct.pack("<HH", 8, 5))
    assert not is_case(tmp_path / "y")
