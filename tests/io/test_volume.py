"""One volume from its files: NIfTI, DICOM series and multi-frame, arrays, folders of slices."""

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from dicom_files import dicom, enhanced, lut, save, slice_at
from medgraft.errors import DataError
from medgraft.io.dicom_header import DicomFile, read_header
from medgraft.io.mask import read_mask
from medgraft.io.natural import natural
from medgraft.io.nifti import read_nifti
from medgraft.io.series import stacks_of
from medgraft.io.volume import read_volume, read_volume_facts
from medgraft.types import Reading
from volume_files import blob, write_nifti, write_series, write_slices

VOLUME = blob(3, is_large=True)
RANGE = Reading(scaling="range")
RAW = Reading(windows=(), rescale="never", scaling="range")


def stretched(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return np.rint((values.astype(np.float64) - low) / (high - low) * 65535).astype(np.uint16)


# NIfTI


def test_a_nifti_volume_becomes_slices_rows_columns(tmp_path: Path) -> None:
    found, facts = read_volume([write_nifti(VOLUME, tmp_path / "x.nii.gz")], RANGE)
    np.testing.assert_array_equal(found, stretched(VOLUME))
    assert (facts.depth, facts.height, facts.width, facts.channels, facts.bits) == (10, 12, 14, 1, 16)
    assert (facts.mode, facts.spacing_mm) == ("NIfTI", (2.0, 0.5, 0.7))
    header = read_volume_facts([tmp_path / "x.nii.gz"])
    assert (header.depth, header.height, header.width, header.bits) == (10, 12, 14, 16)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_every_orientation_gives_the_same_voxels(axes: tuple[int, ...], flips: tuple[int, ...], tmp_path: Path) -> None:
    voxels = VOLUME.transpose(2, 1, 0).astype(np.int16)
    affine = np.diag([0.7, 0.5, 2.0, 1.0])
    # Stored along other axes and from the other end, with an affine that says so.
    stored = voxels.transpose(axes)
    turned = np.zeros((4, 4))
    turned[3, 3] = 1
    for place, axis in enumerate(axes):
        turned[axis, place] = affine[axis, axis] * flips[place]
        if flips[place] < 0:
            stored = np.flip(stored, place)
            turned[axis, 3] = affine[axis, axis] * (stored.shape[place] - 1)
    nibabel.save(nibabel.Nifti1Image(stored, turned), tmp_path / "x.nii")
    found, facts = read_volume([tmp_path / "x.nii"], RANGE)
    np.testing.assert_array_equal(found, stretched(VOLUME))
    assert facts.spacing_mm == (2.0, 0.5, 0.7)


def test_slope_and_intercept_of_the_header_are_applied_and_gaps_are_the_lowest(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -100)
    nibabel.save(image, tmp_path / "x.nii")
    values, _ = read_nifti(tmp_path / "x.nii")
    np.testing.assert_allclose(values, VOLUME.transpose(2, 1, 0) * 0.5 - 100)
    holes = VOLUME.astype(np.float32)
    holes[0, 0, :3] = np.nan
    found, _ = read_volume([write_nifti(holes, tmp_path / "y.nii")], RANGE)
    assert found[0, 0, :3].tolist() == [0, 0, 0]


def test_by_default_percentiles_of_the_volume_are_its_range(tmp_path: Path) -> None:
    bright = VOLUME.copy()
    bright[0, 0, 0] = 30000
    usual, _ = read_volume([write_nifti(bright, tmp_path / "x.nii")], Reading())
    ranged, _ = read_volume([tmp_path / "x.nii"], RANGE)
    assert usual.max() == ranged.max() == 65535
    assert np.median(usual) > 4 * np.median(ranged)


def test_windows_are_channels(tmp_path: Path) -> None:
    hounsfield = VOLUME.astype(np.float32) - 1000
    found, facts = read_volume(
        [write_nifti(hounsfield, tmp_path / "x.nii")], Reading(windows=("lung", "mediastinum", "bone"))
    )
    assert found.shape == (10, 12, 14, 3)
    assert (facts.channels, facts.steps) == (3, ("window",))
    lung = np.clip((hounsfield + 600 + 0.5) / 1499 + 0.5, 0, 1) * 65535
    assert np.abs(found[..., 0] - lung).max() <= 1


def test_a_common_spacing_is_reached_by_interpolation(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None, None], (10, 12, 14)).copy()
    path = write_nifti(ramp, tmp_path / "x.nii", np.diag([1.0, 1.0, 2.0, 1.0]))
    found, facts = read_volume([path], Reading(scaling="range", spacing_mm=(1.0, 1.0, 1.0)))
    assert facts.spacing_mm == (1.0, 1.0, 1.0)
    assert found.shape == (19, 12, 14)
    np.testing.assert_allclose(found[:, 5, 5] / 65535 * 9, np.arange(19) / 2, atol=1e-3)
    with pytest.raises(DataError, match="Use a wider spacing"):
        read_volume([path], Reading(spacing_mm=(0.01, 0.01, 0.01)))


@pytest.mark.parametrize("name", ["example4d.nii.gz", "anatomical.nii", "standard.nii.gz", "functional.nii"])
def test_packaged_examples_of_nibabel_are_read_or_refused(name: str) -> None:
    path = Path(data_path) / name
    shape = nibabel.load(path).shape
    if len(shape) == 3:
        found, facts = read_volume([path], Reading())
        assert sorted(found.shape) == sorted(shape)
        assert found.max() > found.min()
        assert all(step > 0 for step in facts.spacing_mm)
    else:
        with pytest.raises(DataError, match="expected one volume"):
            read_volume([path], Reading())


def test_what_is_no_nifti_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").write_bytes(b"no archive at all")
    (tmp_path / "y.nii").write_bytes(b"")
    whole = write_nifti(VOLUME, tmp_path / "z.nii").read_bytes()
    (tmp_path / "z.nii").write_bytes(whole[: len(whole) // 2])
    for name in ("x.nii.gz", "y.nii", "z.nii"):
        with pytest.raises(DataError, match=name):
            read_volume([tmp_path / name], Reading())


# DICOM series


def test_a_shuffled_series_is_sorted_along_its_normal(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(VOLUME))
    files = write_series(VOLUME, tmp_path, series="1.2.3", order=order)
    found, facts = read_volume(files, RAW)
    expected = np.rint(VOLUME / 4095 * 65535).astype(np.uint16)
    # DICOM's rows run from front to back and its columns from right to left; the usual ones the other way.
    np.testing.assert_array_equal(found, expected[:, ::-1, ::-1])
    assert facts.spacing_mm == (2.0, 0.5, 0.7)
    assert (facts.mode, facts.modality) == ("DICOM", "CT")


def test_dicom_and_nifti_of_one_scan_are_one_volume(tmp_path: Path) -> None:
    files = write_series(VOLUME, tmp_path, series="1.2.3", rescale=(1, -1024))
    series, _ = read_volume(files, Reading(windows=("lung",)))
    mirrored = np.diag([-0.7, -0.5, 2.0, 1.0])
    path = write_nifti(VOLUME.astype(np.float32) - 1024, tmp_path / "x.nii", mirrored)
    other, _ = read_volume([path], Reading(windows=("lung",)))
    np.testing.assert_array_equal(series, other)


def test_a_gap_a_duplicate_and_a_mixture_are_refused_by_name(tmp_path: Path) -> None:
    files = write_series(VOLUME, tmp_path / "a", series="1.2.3")
    with pytest.raises(DataError, match=r"4\.00 mm between 003\.dcm, 005\.dcm where 2\.00 mm"):
        read_volume([*files[:4], *files[5:]], RAW)
    again = save(slice_at(VOLUME[0], 6.0, series="1.2.3"), tmp_path / "a" / "zz.dcm")
    with pytest.raises(DataError, match=r"two slices lie at one place"):
        read_volume([*files, again], RAW)
    turned = slice_at(VOLUME[0], 30.0, series="1.2.3")
    turned.ImageOrientationPatient = [1, 0, 0, 0, 0, 1]
    with pytest.raises(DataError, match=r"different directions .* \(t\.dcm\)"):
        read_volume([*files, save(turned, tmp_path / "a" / "t.dcm")], RAW)
    lost = save(dicom(VOLUME[0], modality="CT", SeriesInstanceUID="1.2.3"), tmp_path / "a" / "l.dcm")
    with pytest.raises(DataError, match=r"1 of 11 slices lack position"):
        read_volume([*files, lost], RAW)
    with pytest.raises(DataError, match="one slice"):
        read_volume(files[:1], RAW)


def test_every_echo_at_every_time_is_a_volume_of_its_own(tmp_path: Path) -> None:
    stacked: dict[Path, DicomFile] = {}
    for time, echo in itertools.product((1, 2), (10.0, 20.0)):
        for number in range(4):
            made = slice_at(VOLUME[number], 2.0 * number, series="1.2.3", EchoTime=echo)
            made.TemporalPositionIdentifier = time
            path = save(made, tmp_path / f"{time}-{echo}-{number}.dcm")
            stacked[path] = read_header(path)
    names = [stack.name for stack in stacks_of(stacked)]
    assert names == [f"TemporalPositionIdentifier {time}, EchoTime {echo}" for time in (1, 2) for echo in (10.0, 20.0)]


def test_a_spacing_within_five_per_cent_is_no_gap(tmp_path: Path) -> None:
    files = [
        save(slice_at(image, z, series="1.2"), tmp_path / f"{z}.dcm")
        for image, z in zip(VOLUME, np.arange(10) * 2.0 + 0.04 * (np.arange(10) % 2), strict=True)
    ]
    assert read_volume(files, RAW)[0].shape == VOLUME.shape


def test_a_scout_does_not_belong_to_the_volume(tmp_path: Path) -> None:
    files = write_series(VOLUME, tmp_path, series="1.2.3")
    scout = slice_at(VOLUME[0], 400.0, series="1.2.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    found, _ = read_volume([*files, save(scout, tmp_path / "scout.dcm")], RAW)
    assert len(found) == len(VOLUME)


def test_slopes_that_vary_from_slice_to_slice_are_always_applied(tmp_path: Path) -> None:
    files = []
    for number, image in enumerate(VOLUME):
        slope = 1.0 + number
        stored = np.rint(image / slope).astype(np.uint16)
        made = slice_at(stored, number * 2.0, series="1.2", modality="PT", bits=16, rescale=(slope, 0.0))
        files.append(save(made, tmp_path / f"{number}.dcm"))
    found, facts = read_volume(files, Reading(rescale="never", windows=(), scaling="percentile"))
    assert facts.steps == ("rescaled",)
    values = found[:, ::-1, ::-1].astype(float)
    assert np.corrcoef(values.ravel(), VOLUME.ravel())[0, 1] > 0.99


def test_windows_that_vary_are_read_as_the_middle_one(tmp_path: Path) -> None:
    files = [
        save(
            slice_at(image, 2.0 * number, series="1.2", modality="MR", window=(600 + 10 * number, 500)),
            tmp_path / f"{number}.dcm",
        )
        for number, image in enumerate(VOLUME)
    ]
    found, facts = read_volume(files, Reading())
    expected = np.clip((VOLUME.astype(float) - 650 + 0.5) / 499 + 0.5, 0, 1) * 65535
    assert facts.steps == ("window",)
    assert np.abs(found[:, ::-1, ::-1] - expected).max() <= 1


def test_slices_of_which_some_have_a_window_are_refused(tmp_path: Path) -> None:
    files = [
        save(
            slice_at(
                image, 2.0 * number, series="1.2", modality="MR", **({} if number == 5 else {"window": (600, 500)})
            ),
            tmp_path / f"{number}.dcm",
        )
        for number, image in enumerate(VOLUME)
    ]
    with pytest.raises(DataError, match=r"data\.windows=none"):
        read_volume([files[5], *files[:5], *files[6:]], Reading(windows=("file",)))
    assert read_volume(files, Reading(windows=()))[0].shape == VOLUME.shape


# Enhanced multi-frame


def test_frames_are_placed_by_their_functional_groups(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(len(VOLUME))
    path = save(enhanced(VOLUME[order], [2.0 * number for number in order]), tmp_path / "x.dcm")
    found, facts = read_volume([path], Reading(windows=("lung",)))
    expected = np.clip((VOLUME.astype(float) - 1024 + 600 + 0.5) / 1499 + 0.5, 0, 1) * 65535
    assert np.abs(found[:, ::-1, ::-1] - expected).max() <= 1
    assert facts.depth == read_volume_facts([path]).depth == 10


def test_two_volumes_in_one_file_are_told_apart_by_name(tmp_path: Path) -> None:
    made = enhanced(np.concatenate([VOLUME, VOLUME]), [2.0 * number for number in [*range(10), *range(10)]])
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + number // 10
        group.FrameContentSequence = Items([content])
    with pytest.raises(DataError, match="holds 2 volumes"):
        read_volume([save(made, tmp_path / "x.dcm")], Reading())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CT_small.dcm", "holds one slice"),
        ("rtdose.dcm", r"two slices lie at one place \(rtdose.dcm frame 1, rtdose.dcm frame 2\)"),
        ("examples_ybr_color.dcm", "30 of 30 slices lack position"),
        ("rtstruct.dcm", "holds no image"),
    ],
)
def test_packaged_examples_of_pydicom_that_are_no_volume_are_refused(name: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_volume([Path(get_testdata_file(name))], Reading())


# Arrays and pictures


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_keep_their_integers(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    np.save(path, VOLUME) if kind == "npy" else np.savez(path, volume=VOLUME)
    found, facts = read_volume([path], Reading())
    np.testing.assert_array_equal(found, VOLUME)
    assert (facts.mode, facts.spacing_mm, facts.bits) == ("array", (), 16)
    assert read_volume_facts([path]).depth == 10


def test_an_array_of_reals_is_scaled_and_nonsense_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VOLUME.astype(np.float64))
    np.testing.assert_array_equal(read_volume([tmp_path / "x.npy"], RANGE)[0], stretched(VOLUME))
    for name, array in {"two": VOLUME[0], "flat": VOLUME[:1], "text": np.array([[["a"]]])}.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(DataError, match=rf"{name}\.npy: expected numbers of shape \(D, H, W\)"):
            read_volume([tmp_path / f"{name}.npy"], Reading())
    np.savez(tmp_path / "y.npz", a=VOLUME, b=VOLUME)
    with pytest.raises(DataError, match="got 2"):
        read_volume([tmp_path / "y.npz"], Reading())
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not readable as an array"):
        read_volume([tmp_path / "objects.npy"], Reading())
    with pytest.raises(DataError, match="knows no millimetres"):
        read_volume([tmp_path / "x.npy"], Reading(spacing_mm=(1, 1, 1)))


def test_a_folder_of_slices_is_sorted_as_people_count(tmp_path: Path) -> None:
    volume = np.repeat(np.arange(12, dtype=np.uint8)[:, None, None] * 20, 6, 1).repeat(6, 2)
    found, facts = read_volume([write_slices(volume, tmp_path / "case")], Reading())
    np.testing.assert_array_equal(found, volume)
    assert (facts.bits, facts.mode) == (8, "slices")
    assert natural(Path("s2")) < natural(Path("s10"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got 0 pictures"):
        read_volume([tmp_path / "empty"], Reading())


def test_slices_of_another_size_or_colour_are_refused(tmp_path: Path) -> None:
    folder = write_slices(VOLUME, tmp_path / "case")
    Image.fromarray(VOLUME[0, :5]).save(folder / "slice99.png")
    with pytest.raises(DataError, match=r"slice99\.png: a slice of 14×5 px"):
        read_volume([folder], Reading())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 14, 3), dtype=np.uint8)).save(folder / "slice99.png")
    with pytest.raises(DataError, match="coloured"):
        read_volume([folder], Reading())


def test_tables_of_every_slice_and_crooked_windows_are_refused(tmp_path: Path) -> None:
    crooked, tabled = [], []
    for number, image in enumerate(VOLUME):
        made = slice_at(
            image, 2.0 * number, series="1.2", modality="MR", window=(600 + number, 500), function="SIGMOID"
        )
        crooked.append(save(made, tmp_path / f"c{number}.dcm"))
        made = slice_at(image, 2.0 * number, series="1.3", modality="MR", VOILUTSequence=lut(range(4096), 0, 16))
        tabled.append(save(made, tmp_path / f"t{number}.dcm"))
    with pytest.raises(DataError, match="differ and are not linear"):
        read_volume(crooked, Reading())
    with pytest.raises(DataError, match="lookup table of its own"):
        read_volume(tabled, Reading())
    for files in (crooked, tabled):
        assert read_volume(files, Reading(windows=()))[0].shape == VOLUME.shape


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)])
def test_headers_of_a_series_declare_the_volume_as_it_is_read(tmp_path: Path, orientation: tuple[int, ...]) -> None:
    row, column = np.array(orientation, dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    files = []
    for number in range(5):
        made = slice_at(np.full((9, 7), 100 + number, np.uint16), 0.0, series="1.2.3")
        made.ImageOrientationPatient = [float(value) for value in orientation]
        made.ImagePositionPatient = [float(value) for value in 3.0 * number * normal]
        files.append(save(made, tmp_path / f"{number}.dcm"))
    pixels, facts = read_volume(files, Reading(windows=()))
    told = read_volume_facts(files)
    assert (told.depth, told.height, told.width) == pixels.shape
    assert told.spacing_mm == ()
    assert read_volume_facts(files, is_spaced=True).spacing_mm == facts.spacing_mm


# Numbers that are no intensities


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "npy"])
@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
def test_complex_voxels_are_refused_or_become_their_magnitude(suffix: str, kind: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    magnitude = rng.uniform(10, 200, (6, 7, 8)).astype(np.float32)
    values = (magnitude * np.exp(1j * rng.uniform(-np.pi, np.pi, magnitude.shape))).astype(kind)
    found = []
    for name, voxels in (("complex", values), ("plain", magnitude)):
        path = tmp_path / f"{name}.{suffix}"
        np.save(path, voxels) if suffix == "npy" else nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
        found.append(read_volume([path], Reading(complex="magnitude"))[0].astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1
    with pytest.raises(DataError, match=r"complex.*--set data\.complex=magnitude"):
        read_volume([tmp_path / f"complex.{suffix}"], Reading())


@pytest.mark.parametrize("suffix", ["nii.gz", "npy"])
@pytest.mark.filterwarnings("error")
def test_numbers_beyond_float32_are_refused_by_name(suffix: str, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).uniform(0, 1, (6, 7, 8))
    voxels[0, 0, 0] = 1e39
    path = tmp_path / f"x.{suffix}"
    np.save(path, voxels) if suffix == "npy" else nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    with pytest.raises(DataError, match="beyond float32"):
        read_volume([path], Reading())


def test_colours_of_nifti_are_refused_by_name(tmp_path: Path) -> None:
    voxels = np.zeros((6, 7, 8), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(DataError, match=r"holds colours \(R, G, B\)"):
        read_volume([tmp_path / "x.nii"], Reading())
    with pytest.raises(DataError, match="holds colours"):
        read_mask(tmp_path / "x.nii")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_compression_is_seen_in_the_file_not_in_its_name(kind: Any, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 1000, (6, 7, 8)).astype(np.int16)
    nibabel.save(kind(voxels, np.eye(4)), tmp_path / "a.nii")
    nibabel.save(kind(voxels, np.eye(4)), tmp_path / "b.nii.gz")
    expected, _ = read_volume([tmp_path / "a.nii"], Reading())
    (tmp_path / "a.nii").rename(tmp_path / "plain.nii.gz")
    (tmp_path / "b.nii.gz").rename(tmp_path / "packed.nii")
    for name in ("plain.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(read_volume([tmp_path / name], Reading())[0], expected)
        assert read_volume_facts([tmp_path / name]).depth == 8
