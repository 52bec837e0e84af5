"""Cine loops: one frame, or all frames of an examination; never a volume of time without a word."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless

from dicom_files import compressed, dicom, enhanced, save
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.decoded.images import build_cache
from medgraft.data.groups import groups_of
from medgraft.errors import DataError
from medgraft.io.case import read_case
from medgraft.io.volume import read_volume
from medgraft.types import Reading

FRAMES = np.stack([np.full((8, 8), 40 * number, np.uint8) + np.eye(8, dtype=np.uint8) for number in range(6)])


def film(kind: str = "grey") -> Any:
    if kind != "colour":
        return dicom(FRAMES, modality="US", bits=8)
    made = dicom(np.zeros((8, 8, 3), np.uint8), modality="US", bits=8, photometric="RGB")
    made.NumberOfFrames = len(FRAMES)
    made.PixelData = np.stack([FRAMES, FRAMES // 2, FRAMES], -1).tobytes()
    return made


STORED: dict[str, Callable[[], Any]] = {
    "grey": film,
    "colour": lambda: film("colour"),
    "RLE": lambda: compressed(film(), RLELossless),
    "JPEG-LS": lambda: compressed(film(), JPEGLSLossless),
}


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize(("wished", "number"), [("first", 0), ("middle", 3), (0, 0), (5, 5)])
def test_one_frame_is_the_image(kind: str, wished: Any, number: int, tmp_path: Path) -> None:
    found, _ = read_case(save(STORED[kind](), tmp_path / "x.dcm"), Reading(frames=wished))
    first = found if found.ndim == 2 else found[..., 0]
    np.testing.assert_array_equal(first // 257, FRAMES[number])


def test_a_film_is_refused_with_its_way_out_whatever_reads_it(tmp_path: Path) -> None:
    file = save(film(), tmp_path / "x.dcm")
    with pytest.raises(DataError, match=r"holds 6 frames, expected one\. It is a film.*--set data\.frames="):
        read_case(file, Reading())
    with pytest.raises(DataError, match=r"They are no volume\. Of a film, use a network for images and --set"):
        read_volume([file], Reading())
    volume = save(enhanced(np.zeros((3, 8, 8), np.uint16), [0.0, 1.0, 2.0]), tmp_path / "v.dcm")
    with pytest.raises(DataError, match=r"It is a volume: use a network for volumes"):
        read_case(volume, Reading())
    with pytest.raises(DataError, match="has 6 frames, got none of number 8"):
        read_case(file, Reading(frames=7))


@pytest.mark.parametrize("has_patients", [True, False])
def test_all_frames_are_images_of_one_examination(has_patients: bool, tmp_path: Path) -> None:
    for number in range(8):
        made = film() if number < 6 else dicom(FRAMES[number - 4], modality="US", bits=8)
        made.PatientID = f"P{number}" if has_patients else "ANON"
        save(made, tmp_path / "x" / "ab"[number % 2] / f"{number}.dcm")
    cohort = read_cohort(tmp_path / "x", frames="all")
    assert len(cohort) == 6 * 6 + 2
    assert len(cohort.case_rows()) == 8
    assert any("6 films hold 36 frames" in note for note in cohort.notes)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(8, 8), reading=Reading(frames="all"))
    films = [row for row in range(len(cohort)) if cohort.frames]
    assert len(decoded) == len(cohort)
    shown = sorted(int(decoded.images[row, 0, 0, 1]) // 257 for row in films[:6])
    assert shown == [0, 40, 80, 120, 160, 200]
    units = cohort.units(np.arange(len(cohort)))
    groups = groups_of(cohort, (), ())
    # No film lies in two groups.
    assert all(len(set(groups[units == unit])) == 1 for unit in np.unique(units))


def test_files_of_one_frame_need_no_word(tmp_path: Path) -> None:
    for number in range(8):
        save(dicom(FRAMES[number % 6], modality="US", bits=8), tmp_path / "ab"[number % 2] / f"{number}.dcm")
    assert len(read_cohort(tmp_path, frames="all")) == 8
    assert not read_cohort(tmp_path, frames="all").frames
