"""DICOM files of every kind to real values, against pydicom's own transforms and arithmetic by hand."""

import base64
import itertools
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut
from pydicom.pixels.processing import apply_windowing

from dicom_files import compressed, dicom, enhanced, lut, save
from medgraft.errors import DataError
from medgraft.io.case import is_case, read_case, read_case_facts
from medgraft.io.dicom import read_dicom
from medgraft.io.dicom_header import read_header
from medgraft.types import Reading


def pixels(kind: str, bits: int, shape: tuple[int, ...] = (12, 10)) -> np.ndarray:
    """Integers over all that `bits` hold."""
    rng = np.random.default_rng(0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if kind == "i" else (0, 2**bits)
    found = rng.integers(low, high, shape)
    found.flat[0], found.flat[1] = low, high - 1
    return found.astype(np.dtype(f"{kind}{1 if bits <= 8 else 2}"))


@pytest.mark.parametrize(
    ("kind", "bits", "photometric", "rescale", "window"),
    list(
        itertools.product(
            ("u", "i"),
            (8, 12, 16),
            ("MONOCHROME1", "MONOCHROME2"),
            (None, (1.0, -1024.0), (0.37, 5.5), (-2.0, 100.0)),
            (None, (40, 400), ([100, 40], [700, 400])),
        )
    ),
)
def test_every_combination_is_what_pydicom_and_the_standard_say(
    tmp_path: Path, kind: str, bits: int, photometric: str, rescale: Any, window: Any
) -> None:
    stored = pixels(kind, bits)
    made = dicom(stored, modality="CT", bits=bits, photometric=photometric, rescale=rescale, window=window)
    _, (frame,) = read_dicom(save(made, tmp_path / "x.dcm"))
    real = apply_modality_lut(stored, made).astype(np.float64)
    ends = apply_modality_lut(np.array([np.iinfo(stored.dtype).min, 0]), made).astype(np.float64)
    assert ends.shape == (2,)
    span = np.array([-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1] if kind == "i" else [0.0, 2.0**bits - 1])
    low, high = sorted(span * rescale[0] + rescale[1]) if rescale else span
    if window:
        shown = apply_windowing(real, made)
        # With a negative slope pydicom's output range runs backwards.
        first, last = span * rescale[0] + rescale[1] if rescale else span
        expected, low, high = (shown - first) / (last - first), 0.0, 1.0
    else:
        expected = real
    if photometric == "MONOCHROME1":
        expected = low + high - expected
    np.testing.assert_allclose(frame.values, expected, rtol=1e-6, atol=1e-6)
    assert frame.values.dtype == np.float32
    assert (frame.low, frame.high) == pytest.approx((low, high))
    wanted = ["rescaled"] * bool(rescale) + ["window"] * bool(window) + ["inverted"] * (photometric == "MONOCHROME1")
    assert list(frame.steps) == wanted


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_functions_are_pydicoms(tmp_path: Path, function: str) -> None:
    made = dicom(pixels("u", 12), window=(1800, 900), function=function)
    _, (frame,) = read_dicom(save(made, tmp_path / "x.dcm"))
    np.testing.assert_allclose(frame.values, apply_windowing(pixels("u", 12), made) / 4095, atol=1e-6)


@pytest.mark.parametrize("modality", ["CT", "PT", "CR", "DX", "MG", "MR", "US", "XA"])
@pytest.mark.parametrize(("policy", "is_rescaled"), [("auto", True), ("always", True), ("never", False)])
def test_without_a_window_rescaling_is_applied_unless_it_is_switched_off(
    tmp_path: Path, modality: str, policy: Any, is_rescaled: bool
) -> None:
    file = save(dicom(pixels("u", 12), modality=modality, rescale=(2.0, -7.0)), tmp_path / "x.dcm")
    _, (frame,) = read_dicom(file, rescale=policy)
    expected = pixels("u", 12) * 2.0 - 7 if is_rescaled else pixels("u", 12)
    np.testing.assert_array_equal(frame.values, expected.astype(np.float32))


@pytest.mark.parametrize("modality", ["CR", "MR"])
def test_before_a_window_every_modality_is_rescaled(tmp_path: Path, modality: str) -> None:
    made = dicom(pixels("u", 12), modality=modality, rescale=(2.0, -7.0), window=(4000, 2000))
    _, (frame,) = read_dicom(save(made, tmp_path / "x.dcm"), rescale="never")
    assert frame.steps == ("rescaled", "window")


def test_luts_are_applied_before_windows_and_in_order(tmp_path: Path) -> None:
    stored = pixels("u", 8)
    made = dicom(stored, modality="CR", bits=8, window=(10, 10), photometric="MONOCHROME1")
    made.ModalityLUTSequence = lut(list(range(1000, 1256)), 0, 16)
    made.VOILUTSequence = lut([min(4095, 16 * n) for n in range(256)], 1000, 12)
    _, (frame,) = read_dicom(save(made, tmp_path / "x.dcm"))
    expected = 4095 - np.minimum(4095, 16.0 * stored)
    np.testing.assert_array_equal(frame.values, expected)
    assert frame.steps == ("modality LUT", "VOI LUT", "inverted")
    assert (frame.low, frame.high) == (0, 4095)


def test_colour_and_palettes_become_rgb(tmp_path: Path) -> None:
    stored = pixels("u", 8, (12, 10, 3))
    _, (frame,) = read_dicom(save(dicom(stored, modality="US", bits=8, photometric="RGB"), tmp_path / "rgb.dcm"))
    np.testing.assert_array_equal(frame.values, stored)
    made = dicom(pixels("u", 8), modality="US", bits=8, photometric="PALETTE COLOR")
    for name, factor in (("Red", 257), ("Green", 128), ("Blue", 1)):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        data = (np.arange(256) * factor).astype("<u2").tobytes()
        setattr(made, f"{name}PaletteColorLookupTableData", data)
        made[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
    _, (frame,) = read_dicom(save(made, tmp_path / "palette.dcm"))
    expected = pixels("u", 8)[..., None].astype(np.float32) * np.array([257, 128, 1])
    np.testing.assert_array_equal(frame.values, expected)
    assert (frame.high, frame.steps) == (65535, ("palette",))


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    grey = np.stack([pixels("u", 8), np.full((12, 10), 128, np.uint8), np.full((12, 10), 128, np.uint8)], -1)
    _, (frame,) = read_dicom(save(dicom(grey, modality="US", bits=8, photometric="YBR_FULL"), tmp_path / "x.dcm"))
    np.testing.assert_allclose(frame.values, grey[..., :1].repeat(3, -1), atol=1)


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"],
    ids=["RLE", "JPEG 2000", "JPEG-LS"],
)
@pytest.mark.parametrize(("kind", "bits"), [("u", 8), ("u", 12), ("i", 12), ("u", 16)])
def test_lossless_syntaxes_decode_to_the_stored_numbers(tmp_path: Path, syntax: str, kind: str, bits: int) -> None:
    if syntax.endswith(".4.80") and kind == "i":
        pytest.skip("JPEG-LS has no sign; pydicom does not write it")
    made = dicom(pixels(kind, bits, (64, 64)), modality="CT", bits=bits)
    header, (frame,) = read_dicom(save(compressed(made, syntax), tmp_path / "x.dcm"))
    np.testing.assert_array_equal(frame.values, pixels(kind, bits, (64, 64)))
    assert header.syntax


# (8, 8), 12 bits: the codestream of a lossless encoder, which pydicom has none of.
HTJ2K = base64.b85decode(
    "|4;u>04YEK0000800008000000000000008000080000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTmwh=~7W"
    "02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000S^xq6lfVEbHTDGubN~PVzyK3K022Tz{sISd0A%q4hjakI024p}6Mzs90fKY@k|>D)!&Csk04g8="
    "6<|1y<En6ibpXygckcYaLILcy0RPz"
)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"])
def test_high_throughput_jpeg_2000_decodes_to_the_stored_numbers(tmp_path: Path, syntax: str) -> None:
    stored = (np.arange(64).reshape(8, 8) * 61).astype(np.uint16)
    made = dicom(stored, modality="CT", bits=12)
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    made.PixelData = encapsulate([HTJ2K])
    _, (frame,) = read_dicom(save(made, tmp_path / "x.dcm"))
    np.testing.assert_array_equal(frame.values, stored)


def test_frames_of_an_enhanced_file_have_their_own_place_and_slope(tmp_path: Path) -> None:
    frames = np.stack([pixels("u", 12), pixels("u", 12) // 2, pixels("u", 12) // 3])
    file = save(enhanced(frames, [5.0, 0.0, 2.5], slopes=[1.0, 2.0, 3.0]), tmp_path / "x.dcm")
    header, values = read_dicom(file)
    assert [frame.position[2] for frame in header.frames] == [5.0, 0.0, 2.5]
    for frame, found, slope in zip(frames, values, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(found.values, frame.astype(np.float32) * slope - 1024)


def test_spacing_of_the_patient_comes_before_that_of_the_detector(tmp_path: Path) -> None:
    both = dicom(pixels("u", 12), PixelSpacing=[0.1, 0.2], ImagerPixelSpacing=[0.3, 0.4])
    assert read_header(save(both, tmp_path / "a.dcm")).frames[0].spacing_of == "PixelSpacing"
    found = read_header(save(dicom(pixels("u", 12), ImagerPixelSpacing=[0.3, 0.4]), tmp_path / "b.dcm")).frames[0]
    assert (found.spacing_mm, found.spacing_of) == ((0.3, 0.4), "ImagerPixelSpacing")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lambda x: x / 4095),
        ({"photometric": "MONOCHROME1"}, lambda x: 1 - x / 4095),
        ({"modality": "CT", "rescale": (1.0, -1024.0)}, lambda x: (x / 4095).clip(0, 1)),
        ({"modality": "CT", "rescale": (1.0, -1024.0), "photometric": "MONOCHROME1"}, lambda x: 1 - x / 4095),
        ({"modality": "US", "bits": 8}, lambda x: x / 255),
    ],
)
def test_a_case_is_sixteen_bits_on_a_stated_scale(tmp_path: Path, options: dict[str, Any], expected: Any) -> None:
    stored = pixels("u", options.get("bits", 12))
    found, facts = read_case(save(dicom(stored, **options), tmp_path / "x.dcm"), Reading())
    np.testing.assert_allclose(found / 65535, expected(stored.astype(float)), atol=1e-5)
    assert (found.dtype, facts.bits, facts.mode) == (np.uint16, 16, "DICOM")


def test_windows_by_name_become_channels(tmp_path: Path) -> None:
    stored = pixels("u", 12)
    made = dicom(stored, modality="CT", rescale=(1.0, -1024.0), window=(40, 400))
    file = save(made, tmp_path / "x.dcm")
    found, facts = read_case(file, Reading(windows=("lung", "mediastinum", "bone")))
    assert found.shape == (12, 10, 3)
    hounsfield = stored.astype(float) - 1024
    for channel, (centre, width) in zip(found.transpose(2, 0, 1), ((-600, 1500), (40, 400), (400, 1800)), strict=True):
        share = ((hounsfield - centre + 0.5) / (width - 1) + 0.5).clip(0, 1)
        np.testing.assert_allclose(channel / 65535, share, atol=1e-5)
    assert facts.steps == ("rescaled", "window")
    none, facts = read_case(file, Reading(windows=()))
    np.testing.assert_allclose(none / 65535, (stored / 4095).clip(0, 1), atol=1e-5)
    with pytest.raises(DataError, match="expected CT for the windows lung, got DX"):
        read_case(save(dicom(stored), tmp_path / "y.dcm"), Reading(windows=("lung",)))


@pytest.mark.parametrize("scaling", ["percentile", "z-score"])
def test_mr_is_scaled_by_its_own_values(tmp_path: Path, scaling: Any) -> None:
    stored = (pixels("u", 12) // 4 + 100).astype(np.uint16)
    found, _ = read_case(save(dicom(stored, modality="MR"), tmp_path / "x.dcm"), Reading(scaling=scaling))
    if scaling == "percentile":
        low, high = np.percentile(stored, [0.5, 99.5])
    else:
        low, high = stored.mean() - 5 * stored.std(), stored.mean() + 5 * stored.std()
    np.testing.assert_allclose(found / 65535, ((stored - low) / (high - low)).clip(0, 1), atol=1e-5)
    if scaling == "percentile":
        np.testing.assert_array_equal(read_case(tmp_path / "x.dcm", Reading())[0], found)


def test_the_header_alone_tells_size_and_channels(tmp_path: Path) -> None:
    facts = read_case_facts(save(dicom(pixels("u", 12)), tmp_path / "x.dcm"))
    assert (facts.height, facts.width, facts.channels, facts.modality) == (12, 10, 1, "DX")
    colour = dicom(pixels("u", 8, (12, 10, 3)), bits=8, photometric="RGB")
    assert read_case_facts(save(colour, tmp_path / "y.dcm")).channels == 3


def test_files_are_known_by_ending_or_by_their_first_bytes(tmp_path: Path) -> None:
    for name in ("IM000001", "1.2.840.113", "a.dcm"):
        assert is_case(save(dicom(pixels("u", 12)), tmp_path / name))
    (tmp_path / "README").write_text("hello")
    assert not is_case(tmp_path / "README")
    assert not is_case(tmp_path / "README.txt")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"Rows": None}, "holds no image"),
        ({"NumberOfFrames": 100_000, "Rows": 60_000}, "over the limit"),
        ({"Rows": 500}, "number of bytes of pixel data is less"),
        ({"BitsStored": 99}, "cannot hold 99"),
        ({"HighBit": 16}, "cannot hold 12"),
        ({"WindowCenter": 10, "WindowWidth": 20, "VOILUTFunction": "MAGIC"}, "VOILUTFunction"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    made = dicom(pixels("u", 12))
    for name, value in change.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = save(made, tmp_path / "x.dcm")
    with pytest.raises(DataError, match=told) as caught:
        read_case(file, Reading())
    assert "x.dcm" in str(caught.value)


def test_a_film_is_no_picture(tmp_path: Path) -> None:
    file = save(dicom(pixels("u", 8, (4, 12, 10)), modality="US", bits=8), tmp_path / "x.dcm")
    with pytest.raises(DataError, match="holds 4 frames"):
        read_case(file, Reading())


def test_a_missing_codec_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import base

    file = save(compressed(dicom(pixels("u", 12, (64, 64))), "1.2.840.10008.1.2.4.80"), tmp_path / "x.dcm")
    monkeypatch.setattr(base.get_decoder(pydicom.uid.UID("1.2.840.10008.1.2.4.80")), "_available", {})
    with pytest.raises(DataError, match=r"JPEG-LS .*medgraft\[dicom\]"):
        read_case(file, Reading())


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "rescale", "entries", "first", "bits"),
    [
        ("u", None, 4096, 0, 8),  # more entries than their own bits can count
        ("u", None, 2000, 1000, 12),
        ("u", (2.0, 0.0), 4096, 0, 16),
        ("u", (0.5, 0.0), 2048, 0, 16),
        ("u", (1.0, -1024.0), 3000, -1024, 12),
        ("u", (1.0, -1024.0), 3000, 64512, 12),  # the same as some files code it
        ("i", None, 4096, -2048, 16),
        ("u", None, 65536, 0, 16),
    ],
)
def test_a_lookup_table_is_looked_up(
    tmp_path: Path, kind: str, rescale: Any, entries: int, first: int, bits: int, is_packed: bool
) -> None:
    if entries == 65536 and not is_packed:
        pytest.skip("more than an element of numbers holds")
    stored = pixels(kind, 12, (40, 40))
    table = (np.arange(entries) * 7) % 2**bits
    made = dicom(stored, modality="CR", bits=12, rescale=rescale)
    made.VOILUTSequence = lut([0, 1], 0, bits)
    item = made.VOILUTSequence[0]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    if first < 0:
        item.LUTDescriptor = [entries - 65536 if entries > 32767 else entries, first, bits]
    else:
        item.LUTDescriptor = [entries % 65536, first, bits]
    if is_packed:
        item.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    else:
        item.add_new("LUTData", "US", table.tolist())
    _, (frame,) = read_dicom(save(made, tmp_path / "x.dcm"))
    real = stored * rescale[0] + rescale[1] if rescale else stored.astype(float)
    begin = first - 65536 if first > 32767 else first
    expected = table[(np.rint(real).astype(int) - begin).clip(0, entries - 1)]
    np.testing.assert_array_equal(frame.values, expected)
    assert (frame.low, frame.high) == (0, 2**bits - 1)


def test_shared_groups_alone_speak_for_every_frame(tmp_path: Path) -> None:
    made = enhanced(pixels("u", 12)[None], [0.0], slopes=[2.0])
    made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = made.PerFrameFunctionalGroupsSequence[
        0
    ].PixelValueTransformationSequence
    del made.PerFrameFunctionalGroupsSequence
    _, (frame,) = read_dicom(save(made, tmp_path / "x.dcm"))
    np.testing.assert_array_equal(frame.values, pixels("u", 12) * 2.0 - 1024)


def test_thirty_two_bits_are_scaled_by_what_the_frame_holds(tmp_path: Path) -> None:
    stored = (pixels("u", 12).astype(np.uint32) * 3 + 50_000).astype(np.uint32)
    found, _ = read_case(save(dicom(stored, modality="OT", bits=32), tmp_path / "x.dcm"), Reading())
    assert (found.min(), found.max()) == (0, 65535)


def test_an_eight_bit_palette_is_bright(tmp_path: Path) -> None:
    made = dicom(pixels("u", 8), modality="US", bits=8, photometric="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(made, f"{name}PaletteColorLookupTableData", np.arange(256, dtype=np.uint8).tobytes())
        made[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
    found, _ = read_case(save(made, tmp_path / "x.dcm"), Reading())
    np.testing.assert_array_equal(found, pixels("u", 8).astype(np.uint16) * 257)


def test_odd_entries_of_a_folder_are_no_cases(tmp_path: Path) -> None:
    (tmp_path / "LINK").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "PIPE")
    assert not is_case(tmp_path / "LINK")
    assert not is_case(tmp_path / "PIPE")
