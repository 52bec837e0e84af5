"""A codec that crashes costs its file, not the process."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

import medgraft.io.codec_process as room
from dicom_files import compressed, dicom, save
from medgraft.errors import DataError
from medgraft.io.codec_process import decode_apart
from medgraft.io.dicom import read_dicom
from medgraft.io.dicom_pixels import stored_pixels

pytest.importorskip("gdcm")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """JPEG-LS, which GDCM decodes, too."""
    stored = np.random.default_rng(0).integers(0, 4096, (300, 200)).astype(np.uint16)
    return save(compressed(dicom(stored), "1.2.840.10008.1.2.4.80"), tmp_path / "film.dcm")


def test_the_child_hands_over_what_the_codec_decodes(film: Path) -> None:
    np.testing.assert_array_equal(decode_apart(film, "gdcm"), stored_pixels(film, "pyjpegls"))


def test_a_crash_or_silence_is_a_refusal_and_the_next_file_is_read(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode_apart(film, "gdcm")
    child = room._children[0].process
    os.kill(child.pid, signal.SIGSTOP)
    monkeypatch.setattr(room, "_SECONDS", 0.2)
    with pytest.raises(DataError, match=r"film\.dcm: damaged; its decoder \(gdcm\) failed"):
        decode_apart(film, "gdcm")
    monkeypatch.undo()
    assert child.poll() is not None
    assert decode_apart(film, "gdcm").shape == (300, 200)
    os.kill(room._children[0].process.pid, signal.SIGKILL)
    room._children[0].process.wait()
    assert decode_apart(film, "gdcm").shape == (300, 200)


def test_an_interrupted_answer_is_never_the_next_files(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = np.random.default_rng(3).integers(0, 4096, (64, 64)).astype(np.uint16)
    save(compressed(dicom(other), "1.2.840.10008.1.2.4.80"), tmp_path / "other.dcm")
    decode_apart(film, "gdcm")

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(room._children[0].answers, "get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode_apart(film, "gdcm")
    np.testing.assert_array_equal(decode_apart(tmp_path / "other.dcm", "gdcm"), other)


def test_what_the_codec_cannot_read_is_told(tmp_path: Path, film: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(film.read_bytes()[:-20_000])
    with pytest.raises(DataError, match=r"broken\.dcm: damaged"):
        decode_apart(broken, "gdcm")
    assert decode_apart(film, "gdcm").shape == (300, 200)


def test_twelve_bit_jpeg_says_what_would_read_it() -> None:
    """pydicom's own example."""
    with pytest.raises(DataError, match="pip install pylibjpeg-libjpeg"):
        read_dicom(Path(get_testdata_file("JPGExtended.dcm", download=False)))


def test_lossless_jpeg_comes_from_the_child(tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    stored = np.random.default_rng(1).integers(0, 4096, (64, 48)).astype(np.uint16)
    save(dicom(stored), tmp_path / "raw.dcm")
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(tmp_path / "raw.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    header, (frame,) = read_dicom(tmp_path / "lossless.dcm")
    assert "Lossless" in header.syntax
    np.testing.assert_array_equal(frame.values, stored)


def test_flipped_bits_are_decoded_or_refused(film: Path, tmp_path: Path) -> None:
    raw = save(dicom(np.zeros((300, 200), np.uint16)), tmp_path / "raw.dcm")
    refused = named = 0
    for seed in range(150):
        rng, damaged = np.random.default_rng(seed), bytearray((raw if seed % 3 else film).read_bytes())
        for place in rng.integers(0, 1500 if seed % 2 else len(damaged), 12):
            damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / "damaged.dcm").write_bytes(damaged)
        try:
            read_dicom(tmp_path / "damaged.dcm")
        except DataError as error:
            refused += "damaged.dcm" in str(error)
            named += 1
    assert 10 < refused == named < 150
