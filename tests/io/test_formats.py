"""A file format is one record: with another in the literal its files are found, read, told of and marked like the rest."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from dicom_files import dicom, save
from medgraft.config import DataConfig, MaskFormat
from medgraft.data.cohort.cases import find_cases, is_volume_file, volumes_in
from medgraft.errors import DataError
from medgraft.io.case import is_case, read_case
from medgraft.io.file_format import FileFormat, MaskWriter, Pixels, Place
from medgraft.io.formats import FORMATS, format_of, names_of_formats
from medgraft.io.mask import is_mask_name, read_mask
from medgraft.io.mask_files import MASK_WRITERS, mask_format, mask_path, write_mask
from medgraft.io.volume import is_volume_name, read_volume, read_volume_facts
from medgraft.io.volume_values import facts_of
from medgraft.listener import Listener
from medgraft.run.check import check
from medgraft.types import USUAL_READING, ImageFacts, Reading


def _cube(path: Path) -> np.ndarray:
    return np.array(json.loads(path.read_text()), dtype=np.uint8)


def _volume(files: Sequence[Path], _reading: Reading) -> Pixels:
    cube = _cube(files[0])
    return cube, facts_of(cube, mode="cube")


def _facts(files: Sequence[Path], _is_spaced: bool) -> ImageFacts:
    return facts_of(_cube(files[0]), mode="cube")


def _mask(path: Path, _images: Sequence[Path], _segments: Mapping[str, int]) -> np.ndarray:
    return _cube(path)


def _write(
    numbers: np.ndarray, _mask: np.ndarray, _files: Sequence[Path], _place: Place, path: Path, *_: object
) -> None:
    path.write_text(json.dumps(numbers.tolist()))


CUBE_MASKS = MaskWriter(name="cube", suffix=".cube", write=_write)
CUBE = FileFormat(
    name="cube",
    suffixes=frozenset({".cube"}),
    is_whole=True,
    volume=_volume,
    volume_facts=_facts,
    mask=_mask,
    mask_suffixes=frozenset({".cube"}),
    writes={3: (CUBE_MASKS,)},
)


@pytest.fixture
def cubes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of volumes in a format that the program has never heard of, and its record."""
    monkeypatch.setitem(FORMATS, "cube", CUBE)
    monkeypatch.setitem(MASK_WRITERS, "cube", CUBE_MASKS)
    rng = np.random.default_rng(0)
    for name in ("dark", "bright"):
        (tmp_path / name).mkdir()
        for number in range(10):
            values = rng.integers(100 if name == "bright" else 0, 200, (4, 6, 5))
            (tmp_path / name / f"{number}.cube").write_text(json.dumps(values.tolist()))
    return tmp_path


def test_files_of_a_new_format_are_found_read_and_audited(cubes: Path) -> None:
    file = cubes / "dark" / "0.cube"
    assert is_volume_name("some.cube")
    assert is_volume_file(file)
    assert not is_case(file)
    assert volumes_in([file]) == [(file,)]
    assert len(find_cases([cubes], 3)) == 20
    pixels, facts = read_volume([file], USUAL_READING)
    np.testing.assert_array_equal(pixels, _cube(file))
    assert (facts.depth, facts.height, facts.width) == (4, 6, 5)
    assert read_volume_facts([file]) == facts
    audit, cohort = check(DataConfig(source=str(cubes), dims=3), listener=Listener())
    assert (audit.num_images, audit.num_broken, cohort.dims) == (20, 0, 3)
    assert "cube" in names_of_formats(3)
    with pytest.raises(DataError, match=r"volumes \(NIfTI, .*cube"):
        find_cases([_empty(cubes)], 3)


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_masks_of_a_new_format_are_read_and_written_like_their_images(cubes: Path) -> None:
    file = cubes / "dark" / "0.cube"
    assert is_mask_name(file.name)
    np.testing.assert_array_equal(read_mask(file), _cube(file))
    kind = mask_format([file], 3, "auto")
    assert kind == "cube"
    mask = np.zeros((4, 6, 5), np.uint8)
    mask[1, 2, 3] = 1
    path = write_mask(
        mask, [file], mask_path(cubes / "marked", kind), kind=kind, values=(7,), classes=("a",), version="0"
    )
    assert path.name == "marked.cube"
    np.testing.assert_array_equal(read_mask(path), 7 * mask)


def test_the_masks_that_are_written_are_those_that_may_be_asked_for() -> None:
    assert {"auto", *MASK_WRITERS} == set(get_args(MaskFormat))


def test_an_image_is_known_by_its_beginning_and_a_stranger_says_what_it_is(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert format_of(tmp_path / "a.png") is FORMATS["picture"]
    assert format_of(tmp_path) is FORMATS["picture"], "a folder of slices"
    (tmp_path / "a.webp").write_bytes(b"RIFF1234WEBP")
    assert format_of(tmp_path / "a.webp") is None
    with pytest.raises(DataError, match="WebP"):
        read_case(tmp_path / "a.webp", USUAL_READING)
    with pytest.raises(DataError, match="expected a volume: NIfTI"):
        read_volume([tmp_path / "a.png"], USUAL_READING)
    assert not is_volume_name(".nii"), "a name, and no ending"


@pytest.mark.parametrize("name", ["a.dcm", "a", "a.png", "a.npy", "a.npz", "a.nii", "a.nii.gz"])
def test_dicom_is_known_by_its_beginning_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    stored = np.arange(16, dtype=np.uint16).reshape(4, 4)
    path = save(dicom(stored), tmp_path / name)
    assert format_of(path) is FORMATS["dicom"]
    assert read_case(path, USUAL_READING)[1].mode == "DICOM"
    assert mask_format([path], 2, "auto") == "dicom-seg"


@pytest.mark.parametrize("name", ["gone", "gone.dcm", "gone.png", "gone.nii.gz", "gone.npy", "folder/gone"])
def test_a_missing_file_cannot_be_opened(name: str, tmp_path: Path) -> None:
    for read in (read_case, lambda path, reading: read_volume([path], reading)):
        with pytest.raises(DataError, match=r"cannot be opened \(No such file"):
            read(tmp_path / name, USUAL_READING)
