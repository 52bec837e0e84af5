"""Masks written as their images are: place, orientation, numbers, and what cannot carry one."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from dicom_files import dicom, enhanced, save
from medgraft.data.cohort.marked import mask_of, read_mask_cohort
from medgraft.data.decoded.rows import read_files
from medgraft.errors import ConfigError, DataError, RunError
from medgraft.io.mask import read_mask
from medgraft.io.mask_files import mask_format, mask_path, native_sides, write_mask
from medgraft.types import MaskReading, Reading
from volume_files import blob, write_nifti, write_series, write_slices

STUDY = {"StudyInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.5"}


def written(mask: np.ndarray, files: tuple[Path, ...], stem: Path, wanted: str = "auto", classes: int = 1) -> Path:
    kind = mask_format(files, mask.ndim, wanted)
    return write_mask(
        mask, files, mask_path(stem, kind), kind=kind, values=tuple(range(1, classes + 1)),
        classes=tuple(f"class {n}" for n in range(classes)), version="1",
    )  # fmt: skip


def segments(path: Path) -> np.ndarray:
    """(frames, H, W) of a segmentation object."""
    return pydicom.dcmread(path).pixel_array


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA"])
def test_a_nifti_mask_lies_on_its_image_whatever_its_axes(tmp_path: Path, axes: str) -> None:
    ras = np.diag([0.7, 0.5, 2.0, 1.0])
    turn = ornt_transform(io_orientation(ras), axcodes2ornt(tuple(axes)))
    volume = blob(1, is_large=True)
    stored = nibabel.orientations.apply_orientation(volume.transpose(2, 1, 0), turn)
    affine = ras @ inv_ornt_aff(turn, volume.transpose(2, 1, 0).shape)
    file = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(stored.astype(np.int16), affine), file)
    pixels, _ = read_files((file,), 3, Reading())
    mask = (pixels > np.percentile(pixels, 90)).astype(np.uint8)
    path = written(mask, (file,), tmp_path / "out" / "scan")
    assert path.name == "scan.nii.gz"
    found = nibabel.load(path)
    np.testing.assert_allclose(found.affine, affine)
    assert found.shape == stored.shape
    assert found.get_data_dtype() == np.uint8
    # Voxel by voxel where the image is bright, and read again as masks are.
    values = np.asarray(found.dataobj)
    assert stored[values == 1].mean() > stored[values == 0].mean() + 100
    np.testing.assert_array_equal(read_mask(path), mask)


def test_pictures_get_png_of_the_numbers_that_taught(tmp_path: Path) -> None:
    file = tmp_path / "film.jpg"
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(file)
    mask = np.array([[0, 1, 2, 0, 0, 1, 2]] * 5, np.uint8)
    path = write_mask(
        mask, (file,), tmp_path / "a" / "film.png", kind="png", values=(7, 255), classes=("x", "y"), version="1"
    )
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.array([0, 7, 255], np.uint8)[mask])
    large = write_mask(mask, (file,), tmp_path / "b.png", kind="png", values=(1, 300), classes=("x", "y"), version="1")
    assert read_mask(large).max() == 300


def test_folders_of_slices_and_arrays_get_arrays(tmp_path: Path) -> None:
    folder = write_slices(np.zeros((3, 4, 5), np.uint8), tmp_path / "case")
    np.save(tmp_path / "volume.npy", np.zeros((3, 4, 5), np.uint8))
    mask = np.ones((3, 4, 5), np.uint8)
    for file in (folder, tmp_path / "volume.npy"):
        path = written(mask, (file,), tmp_path / f"out_{file.stem}")
        assert path.suffix == ".npy"
        np.testing.assert_array_equal(np.load(path), mask)


def test_a_series_gets_a_segmentation_object_whose_frames_point_at_their_slices(tmp_path: Path) -> None:
    volume = blob(2, is_large=True)
    files = tuple(write_series(volume, tmp_path / "s", series="1.2.3", order=[3, 1, 0, 2, *range(4, 10)], **STUDY))
    pixels, _ = read_files(files, 3, Reading(windows=()))
    mask = np.zeros(pixels.shape, np.uint8)
    mask[2:5, 3:9, 4:10] = 1
    mask[5, 0, 0] = 2
    path = written(mask, files, tmp_path / "seg", classes=2)
    found = pydicom.dcmread(path)
    assert (found.Modality, found.StudyInstanceUID, len(found.SegmentSequence)) == ("SEG", "1.2.4", 2)
    frames = found.pixel_array
    for frame, groups in zip(frames, found.PerFrameFunctionalGroupsSequence, strict=True):
        place = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber) if (
            "SegmentIdentificationSequence" in groups
        ) else int(found.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber)  # fmt: skip
        # Slices from the feet to the head every 2 mm; rows and columns of the file, which run from front to back.
        source = next(file for file in files if float(pydicom.dcmread(file).ImagePositionPatient[2]) == place)
        wanted = mask[round(place / 2)][::-1, ::-1] == number
        np.testing.assert_array_equal(frame.astype(bool), wanted)
        assert pydicom.dcmread(source).SOPInstanceUID == (
            groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        )


def test_a_series_gets_a_nifti_mask_where_it_lies_in_the_patient(tmp_path: Path) -> None:
    files = tuple(
        write_series(blob(2, is_large=True), tmp_path / "s", series="1.2.3", order=[3, 1, 0, 2, *range(4, 10)])
    )
    pixels, _ = read_files(files, 3, Reading(windows=()))
    _, height, width = pixels.shape
    number, row, column = 4, 3, 5
    mask = np.zeros(pixels.shape, np.uint8)
    # Towards the front and the right of the patient: the other way round than rows and columns of the files.
    mask[number, height - 1 - row, width - 1 - column] = 1
    found = nibabel.load(written(mask, files, tmp_path / "mask", "nifti"))
    (voxel,) = np.argwhere(np.asarray(found.dataobj))
    header = next(made for file in files if (made := pydicom.dcmread(file)).ImagePositionPatient[2] == number * 2)
    left, back, up = (float(value) for value in header.ImagePositionPatient)
    rows_mm, columns_mm = (float(value) for value in header.PixelSpacing)
    wanted = (-(left + column * columns_mm), -(back + row * rows_mm), up)
    np.testing.assert_allclose(found.affine @ [*voxel, 1], [*wanted, 1], atol=1e-4)


def test_of_one_file_with_many_frames_the_order_is_that_of_the_file(tmp_path: Path) -> None:
    volume = blob(3, is_large=True)
    order = [4, 0, 2, 1, 3]
    made = enhanced(volume[order], [order_ * 2.0 for order_ in order])
    made.FrameOfReferenceUID = "1.2.5"
    file = save(made, tmp_path / "many.dcm")
    pixels, _ = read_files((file,), 3, Reading(windows=()))
    assert native_sides((file,), pixels, 3, is_resampled=True) == pixels.shape
    assert mask_format((file,), 3, "auto") == "dicom-seg"
    mask = np.zeros(pixels.shape, np.uint8)
    mask[1] = 1
    mask[3, 2:5] = 1
    nifti = written(mask, (file,), tmp_path / "as", "nifti")
    np.testing.assert_array_equal(read_mask(nifti), mask)
    np.testing.assert_array_equal(read_mask(written(mask, (file,), tmp_path / "seg"), (file,)), mask)


def test_a_film_gets_a_segmentation_object_or_what_is_asked_for(tmp_path: Path) -> None:
    file = save(dicom(np.full((6, 5), 9, np.uint16), **STUDY), tmp_path / "film.dcm")
    mask = np.zeros((6, 5), np.uint8)
    mask[2, 3] = 1
    np.testing.assert_array_equal(segments(written(mask, (file,), tmp_path / "a")).reshape(6, 5), mask)
    assert written(mask, (file,), tmp_path / "b", "png").suffix == ".png"
    # Another mask of the same image is another object, the same one the same.
    names = [
        str(pydicom.dcmread(written(one, (file,), tmp_path / "d")).SOPInstanceUID)
        for one in (mask, mask.T.reshape(6, 5), mask)
    ]
    assert names[0] == names[2] != names[1]
    # Nothing marked is a mask, too.
    assert not segments(written(np.zeros_like(mask), (file,), tmp_path / "c")).any()


def test_what_has_no_place_for_a_mask_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "film.png"
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(file)
    with pytest.raises(ConfigError, match="written as dicom-seg"):
        mask_format((file,), 2, "dicom-seg")
    with pytest.raises(ConfigError, match="written as nifti"):
        mask_format((file,), 2, "nifti")
    with pytest.raises(ConfigError, match="--format among"):
        mask_format((file,), 2, "jpeg")  # type: ignore[arg-type]
    nifti = write_nifti(blob(0, is_large=True), tmp_path / "a.nii.gz")
    with pytest.raises(ConfigError, match="written as png"):
        mask_format((nifti,), 3, "png")
    (tmp_path / "full").write_text("")
    with pytest.raises(RunError, match="could not write"):
        written(np.zeros((5, 7), np.uint8), (file,), tmp_path / "full" / "mask")


def test_sides_of_a_resampled_volume_are_those_of_its_file(tmp_path: Path) -> None:
    nifti = write_nifti(blob(0, is_large=True), tmp_path / "a.nii.gz")
    reading = Reading(spacing_mm=(4.0, 1.0, 1.0))
    pixels, facts = read_files((nifti,), 3, reading)
    assert pixels.shape != (10, 12, 14)
    assert native_sides((nifti,), pixels, 3, is_resampled=True) == (10, 12, 14)
    assert facts.stored_mm == (2.0, 0.5, 0.7)


def test_segmentation_objects_are_read_as_the_volumes_they_were_drawn_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    order = [3, 1, 0, 2, *range(4, 10)]
    files = tuple(write_series(blob(2, is_large=True), tmp_path / "s", series="1.2.3", order=order, **STUDY))
    pixels, _ = read_files(files, 3, Reading(windows=()))
    mask = (rng.random(pixels.shape) > 0.7).astype(np.uint8) * rng.integers(1, 3, pixels.shape, dtype=np.uint8)
    mask[4] = 0
    path = written(mask, files, tmp_path / "seg", classes=2)
    np.testing.assert_array_equal(read_mask(path, files), mask)
    np.testing.assert_array_equal(read_mask(path, files[::-1]), mask)
    with pytest.raises(DataError, match="belongs to DICOM images"):
        read_mask(path)
    others = tuple(write_series(blob(2, is_large=True), tmp_path / "t", series="1.2.9", **STUDY))
    with pytest.raises(DataError, match="no segmentation of its images"):
        read_mask(path, others)


def test_a_film_s_mask_is_read_from_its_object_or_from_a_plain_file(tmp_path: Path) -> None:
    file = save(dicom(np.full((6, 5), 9, np.uint16), **STUDY), tmp_path / "film.dcm")
    mask = np.zeros((6, 5), np.uint8)
    mask[2, 1:3] = 1
    np.testing.assert_array_equal(read_mask(written(mask, (file,), tmp_path / "seg"), (file,)), mask)
    # Labels stored as an image are numbers: neither windowed nor inverted.
    plain = save(dicom(3 * mask.astype(np.uint16), photometric="MONOCHROME1", window=(1, 2)), tmp_path / "plain.dcm")
    np.testing.assert_array_equal(read_mask(plain), 3 * mask)


def test_a_table_of_series_and_their_masks_is_a_cohort_of_volumes(tmp_path: Path) -> None:
    rows = []
    for number in range(4):
        place = tmp_path / f"s{number}"
        files = tuple(write_series(blob(number, is_large=True), place, series=f"1.2.{number}", **STUDY))
        pixels, _ = read_files(files, 3, Reading(windows=()))
        mask = (pixels > np.percentile(pixels, 90)).astype(np.uint8)
        seg = written(mask, files, tmp_path / f"mask{number}", "auto" if number % 2 else "nifti")
        rows.append(f"s{number},{seg.name},p{number}")
    (tmp_path / "cases.csv").write_text("\n".join(["path,mask,patient", *rows]))
    cohort = read_mask_cohort(tmp_path / "cases.csv")
    # Of the class the objects tell the name.
    assert (cohort.dims, cohort.classes, len(cohort)) == (3, ("class 0",), 4)
    for row in range(4):
        pixels, _ = read_files(cohort.files_of(row), 3, Reading(windows=()))
        np.testing.assert_array_equal(mask_of(cohort, row), pixels > np.percentile(pixels, 90))


def films_with_segments(folder: Path, named: list[tuple[str, ...]]) -> Path:
    """A table of films; in rows 1 and 2 their first class is marked, in rows 3 and 4 their second, of these names."""
    rows = ["path,mask"]
    for number, classes in enumerate(named):
        file = save(dicom(np.full((6, 5), 9, np.uint16), PatientID=f"p{number}", **STUDY), folder / f"film{number}.dcm")
        mask = np.zeros((6, 5), np.uint8)
        for place in range(len(classes)):
            mask[2 * place : 2 * place + 2] = place + 1
        seg = write_mask(
            mask, (file,), folder / f"seg{number}.dcm", kind="dicom-seg", values=tuple(range(1, len(classes) + 1)),
            classes=classes, version="1",
        )  # fmt: skip
        rows.append(f"{file.name},{seg.name}")
    (folder / "cases.csv").write_text("\n".join(rows))
    return folder / "cases.csv"


def test_segments_are_known_by_their_labels_where_their_numbers_differ(tmp_path: Path) -> None:
    table = films_with_segments(tmp_path, [("liver", "tumour")] * 2 + [("tumour", "liver")] * 2)
    cohort = read_mask_cohort(table)
    assert (cohort.classes, cohort.mask_values) == (("liver", "tumour"), (1, 2))
    assert [[mask_of(cohort, row)[at, 0] for at in (0, 2, 4)] for row in range(4)] == [[1, 2, 0]] * 2 + [[2, 1, 0]] * 2
    np.testing.assert_array_equal(cohort.targets, np.ones((4, 2)))
    # Declared names are those of the labels, whatever the numbers; others are refused.
    declared = read_mask_cohort(table, classes={"tumour": 1, "liver": 2})
    assert declared.classes == ("tumour", "liver")
    assert [mask_of(declared, row)[0, 0] for row in range(4)] == [2, 2, 1, 1]
    with pytest.raises(DataError, match=r"expected these among data\.mask_classes, got liver, tumour"):
        read_mask_cohort(table, classes={"small": 1, "large": 2})
    Image.fromarray(np.ones((6, 5), np.uint8)).save(tmp_path / "plain.png")
    table.write_text(table.read_text() + "\nfilm0.dcm,plain.png".replace("film0.dcm", "film9.dcm"))
    save(dicom(np.full((6, 5), 9, np.uint16), PatientID="p9", **STUDY), tmp_path / "film9.dcm")
    with pytest.raises(DataError, match=r"number their segments differently \(liver, tumour\), and other masks"):
        read_mask_cohort(table)


def test_only_segments_that_show_something_have_to_be_known(tmp_path: Path) -> None:
    file = save(dicom(np.full((6, 5), 9, np.uint16), **STUDY), tmp_path / "film.dcm")
    mask = np.zeros((6, 5), np.uint8)
    mask[:2], mask[2:4] = 2, 3
    seg = write_mask(
        mask, (file,), tmp_path / "seg.dcm", kind="dicom-seg", values=(1, 2, 3), classes=("gall", "liver", "tumour"),
        version="1",
    )  # fmt: skip
    found = read_mask(seg, (file,), MaskReading(segments={"tumour": 1, "liver": 2}))
    assert found[:, 0].tolist() == [2, 2, 1, 1, 0, 0]
    with pytest.raises(DataError, match="holds the segment 'tumour', expected one of liver"):
        read_mask(seg, (file,), MaskReading(segments={"liver": 2}))


def test_segments_without_labels_are_numbers(tmp_path: Path) -> None:
    table = films_with_segments(tmp_path, [("liver", "tumour")] * 4)
    for file in tmp_path.glob("seg*.dcm"):
        made = pydicom.dcmread(file)
        for item in made.SegmentSequence:
            item.SegmentLabel = ""
        made.save_as(file)
    cohort = read_mask_cohort(table)
    assert (cohort.classes, cohort.mask_values) == (("label 1", "label 2"), (1, 2))


def test_segments_give_their_names_to_the_classes_unless_every_file_has_its_own(tmp_path: Path) -> None:
    for place, named in (("a", [("liver", "tumour")] * 4), ("b", [(f"lesion of p{number}",) for number in range(4)])):
        (tmp_path / place).mkdir()
        cohort = read_mask_cohort(films_with_segments(tmp_path / place, named))
        if place == "a":
            assert (cohort.classes, cohort.mask_values) == (("liver", "tumour"), (1, 2))
        else:
            assert cohort.classes == ("foreground",)
            assert any("called differently from file to file (lesion of p0, " in note for note in cohort.notes)


def test_arrays_beside_turned_volumes_are_refused_and_not_written(tmp_path: Path) -> None:
    nifti = write_nifti(blob(0, is_large=True), tmp_path / "a.nii.gz", np.diag([-0.7, -0.5, 2.0, 1.0]))
    series = tuple(write_series(blob(2, is_large=True), tmp_path / "s", series="1.2.3", **STUDY))
    np.save(tmp_path / "mask.npy", np.zeros((10, 12, 14), np.uint8))
    for files in ((nifti,), series):
        with pytest.raises(DataError, match="does not tell how it is turned"):
            read_mask(tmp_path / "mask.npy", files)
        with pytest.raises(ConfigError, match="written as npy"):
            mask_format(files, 3, "npy")
    # Films have no turn.
    film = save(dicom(np.full((6, 5), 9, np.uint16), **STUDY), tmp_path / "film.dcm")
    np.save(tmp_path / "flat.npy", np.ones((6, 5), np.uint8))
    assert read_mask(tmp_path / "flat.npy", (film,)).all()
    assert mask_format((film,), 2, "npy") == "npy"


def test_voxels_of_a_mask_that_are_no_number_are_background(tmp_path: Path) -> None:
    mask = np.full((4, 5, 6), np.nan, np.float32)
    mask[1, 2, 3] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    found = read_mask(tmp_path / "mask.nii.gz")
    assert (found.sum(), found[3, 2, 1]) == (1, 1)


def test_files_without_identifiers_cannot_carry_a_segmentation_object(tmp_path: Path) -> None:
    bare = dicom(np.full((6, 5), 9, np.uint16), **STUDY)
    del bare.SOPInstanceUID
    file = save(bare, tmp_path / "bare.dcm")
    with pytest.raises(DataError, match="cannot carry a DICOM segmentation"):
        written(np.ones((6, 5), np.uint8), (file,), tmp_path / "a")
