"""Cohorts of volumes: how they lie in folders, tables, exports and archives."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_files import save, slice_at
from medgraft.data.audit.audit import audit_cohort
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.decoded.fingerprint import thumbnail
from medgraft.data.decoded.images import build_cache
from medgraft.data.decoded.rows import read_row
from medgraft.errors import ConfigError, DataError
from medgraft.io.preprocess import prepare
from medgraft.io.volume import read_volume
from medgraft.phantom.phantom import DEMO_VOLUMES, phantom_case
from medgraft.types import Preprocessing, Reading
from volume_files import blob, write_nifti, write_series, write_slices


def case(number: int) -> np.ndarray:
    return blob(number, is_large=number % 2 == 1)


def test_class_folders_of_nifti_are_volumes_and_masks_beside_them_are_not(tmp_path: Path) -> None:
    for number in range(8):
        write_nifti(case(number), tmp_path / ("small", "large")[number % 2] / f"{number}.nii.gz")
    write_nifti(case(0), tmp_path / "small" / "0_mask.nii.gz")
    cohort = read_cohort(tmp_path)
    assert (cohort.dims, cohort.noun, len(cohort)) == (3, "volumes", 8)
    assert cohort.table["path"].iat[0] == "large/1.nii.gz"
    assert cohort.classes == ("large", "small")
    assert not cohort.files


def test_folders_of_slices_are_volumes_where_volumes_are_wanted(tmp_path: Path) -> None:
    for number in range(8):
        write_slices(case(number), tmp_path / ("small", "large")[number % 2] / f"case{number}")
    assert len(read_cohort(tmp_path)) == 80
    cohort = read_cohort(tmp_path, dims=3)
    assert cohort.table["path"].tolist()[:2] == ["large/case1", "large/case3"]
    np.testing.assert_array_equal(read_row(cohort, 0)[0], case(1))


def test_images_side_by_side_are_no_volume(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_slices(case(0), tmp_path / name)
    with pytest.raises(DataError, match="holds images side by side, expected volumes"):
        read_cohort(tmp_path, dims=3)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Eight patients with one series each in a flat folder, one of them with two, and a report that is no image."""
    for number in range(8):
        options = {"PatientID": f"P{number}", "StudyInstanceUID": f"1.2.{number}", "AccessionNumber": f"A{number}"}
        files = write_series(case(number), tmp_path / "pacs", series=f"1.2.{number}.1", **options)
        for file in files:
            file.rename(file.with_name(f"{number}_{file.name}"))
    for file in write_series(case(9), tmp_path / "pacs", series="1.2.0.2", PatientID="P0", AccessionNumber="A0"):
        file.rename(file.with_name(f"9_{file.name}"))
    (tmp_path / "pacs" / "report.txt").write_text("no image")
    return tmp_path


def test_a_flat_export_is_grouped_by_series(export: Path) -> None:
    lines = [f"1.2.{number}.1,{('small', 'large')[number % 2]}" for number in range(8)]
    (export / "labels.csv").write_text("SeriesInstanceUID,label\n" + "\n".join([*lines, "9.9,large"]))
    cohort = read_cohort(export / "pacs", labels=export / "labels.csv", key="SeriesInstanceUID", dims=3)
    assert len(cohort) == 8
    assert cohort.table["path"].str.startswith("case-").all()
    assert {len(files) for files in cohort.files.values()} == {10}
    assert cohort.table["patient"].nunique() == 8
    assert "8 of 9 volumes found their SeriesInstanceUID" in cohort.notes[0]
    assert "1 volumes have no row, 1 rows have no image" in cohort.notes[0]
    found, facts = read_row(cohort, 0, Reading(windows=(), rescale="never", scaling="range"))
    np.testing.assert_array_equal(found, np.rint(case(0) / 4095 * 65535).astype(np.uint16)[:, ::-1, ::-1])
    assert facts.modality == "CT"


def test_an_export_labelled_by_patient_pools_the_series_of_one(export: Path) -> None:
    lines = [f"P{number},{('small', 'large')[number % 2]}" for number in range(8)]
    (export / "labels.csv").write_text("PatientID,label\n" + "\n".join(lines))
    cohort = read_cohort(export / "pacs", labels=export / "labels.csv", key="PatientID", unit="patient", dims=3)
    assert len(cohort) == 9
    assert len(cohort.case_rows()) == 8


def test_time_points_of_a_series_are_cases_of_their_own(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / ("small", "large")[number % 2] / f"p{number}"
        for time in (1, 2):
            for place, image in enumerate(case(number)):
                made = slice_at(image, 2.0 * place, series=f"1.2.{number}", TemporalPositionIdentifier=time)
                made.PatientID = f"P{number}"
                save(made, folder / f"{place}_{time}.dcm")
    cohort = read_cohort(tmp_path, dims=3)
    assert len(cohort) == 12
    assert {len(files) for files in cohort.files.values()} == {10}
    assert cohort.table["patient"].nunique() == 6


def test_a_table_names_files_and_folders(tmp_path: Path) -> None:
    lines = ["path,label,patient"]
    for number in range(6):
        label = ("small", "large")[number % 2]
        if number < 2:
            write_nifti(case(number), tmp_path / f"{number}.nii")
            lines.append(f"{number}.nii,{label},{number}")
        elif number < 4:
            write_slices(case(number), tmp_path / f"slices{number}")
            lines.append(f"slices{number},{label},{number}")
        else:
            write_series(case(number), tmp_path / f"series{number}", series=f"1.2.{number}")
            lines.append(f"series{number},{label},{number}")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    cohort = read_cohort(tmp_path / "cases.csv")
    assert cohort.dims == 3
    assert cohort.table["path"].tolist()[:4] == ["0.nii", "1.nii", "slices2", "slices3"]
    assert all(name.startswith("case-") for name in cohort.table["path"][4:])
    for row in range(6):
        assert read_row(cohort, row)[0].shape == (10, 12, 14)


def test_a_folder_with_two_series_is_no_case(tmp_path: Path) -> None:
    lines = ["path,label"]
    for number in range(6):
        write_series(case(number), tmp_path / f"{number}", series=f"1.2.{number}")
        lines.append(f"{number},{('small', 'large')[number % 2]}")
    for file in write_series(case(0), tmp_path / "other", series="9.9"):
        file.rename(tmp_path / "0" / f"other_{file.name}")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    cohort = read_cohort(tmp_path / "cases.csv")
    with pytest.raises(DataError, match="expected the slices of one series, got 2 series"):
        read_row(cohort, 0)
    assert read_row(cohort, 1)[0].shape == (10, 12, 14)


def archive(path: Path, shape: tuple[int, ...], count: int = 4) -> Path:
    parts = {}
    for split in ("train", "val", "test"):
        parts[f"{split}_images"] = np.random.default_rng(0).integers(0, 255, (count, *shape), dtype=np.uint8)
        parts[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(path, **parts)
    return path


@pytest.mark.parametrize("shape", [(6, 7, 8), (6, 7, 8, 1)])
def test_medmnist_3d_is_read(shape: tuple[int, ...], tmp_path: Path) -> None:
    cohort = read_cohort(archive(tmp_path / "vesselmnist3d_64.npz", shape))
    assert (cohort.dims, cohort.classes) == (3, ("vessel", "aneurysm"))
    assert "4/4/4 volumes" in cohort.notes[0]
    found, facts = read_row(cohort, 5)
    assert found.shape == (6, 7, 8)
    assert (facts.depth, facts.height, facts.width) == (6, 7, 8)


def test_an_archive_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    volumes, images = archive(tmp_path / "v.npz", (6, 7, 8)), archive(tmp_path / "i.npz", (7, 8))
    with pytest.raises(DataError, match="expected images, got volumes"):
        read_cohort(volumes, dims=2)
    with pytest.raises(DataError, match="expected volumes, got images"):
        read_cohort(images, dims=3)
    assert read_cohort(archive(tmp_path / "c.npz", (7, 8, 3))).dims == 2


def test_the_cache_holds_what_prediction_would_make(tmp_path: Path) -> None:
    for number in range(6):
        write_nifti(case(number), tmp_path / ("small", "large")[number % 2] / f"{number}.nii")
    (tmp_path / "large" / "7.nii").write_bytes(b"nothing of use")
    cohort = read_cohort(tmp_path)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(8, 8, 16), resize="pad")
    assert decoded.images.shape == (6, 1, 8, 8, 16)
    assert [broken.path for broken in decoded.broken] == ["large/7.nii"]
    settings = Preprocessing(sides=(8, 8, 16), channels=1, intensity_max=65535, resize="pad")
    for row, known in enumerate(decoded.rows):
        pixels, facts = read_row(cohort, int(known))
        np.testing.assert_array_equal(decoded.images[row], prepare(pixels, settings, facts.spacing_mm))
    assert decoded.facts["depth"].tolist() == [10] * 6
    with pytest.raises(ConfigError, match="expected 3 sides"):
        build_cache(cohort, tmp_path / "cache", sides=(8, 8))


def test_equal_volumes_have_equal_thumbnails_and_others_do_not() -> None:
    one, two = blob(0, is_large=True), blob(1, is_large=True)
    assert thumbnail(one, 3).shape == (64, 64)
    # Twice as bright is the same after the stretch, but for how a resize rounds.
    assert abs(thumbnail(one * 2, 3).astype(int) - thumbnail(one, 3)).max() <= 1
    assert abs(thumbnail(two, 3).astype(int) - thumbnail(one, 3)).mean() > 5


@pytest.mark.parametrize(
    ("resize", "expected"),
    [("squash", (4, 8, 8)), ("pad", (2, 8, 8)), ("crop", (4, 8, 8))],
)
def test_ways_to_the_sides_of_the_network(resize: str, expected: tuple[int, ...]) -> None:
    volume = np.full((4, 16, 16), 100, np.uint8)
    volume[:2, :4, :4] = 0
    settings = Preprocessing(sides=(4, 8, 8), channels=1, intensity_max=255, resize=resize)
    found = prepare(volume, settings)[0]
    assert found.shape == (4, 8, 8)
    held = np.argwhere(found > 50)
    assert tuple(held.max(0) - held.min(0) + 1) == expected


def test_padding_keeps_the_aspect_of_the_body_not_of_the_grid() -> None:
    volume = np.full((4, 16, 16), 100, np.uint8)
    volume[:2, :4, :4] = 0
    settings = Preprocessing(sides=(8, 8, 8), channels=1, intensity_max=255, resize="pad")
    by_grid = np.argwhere(prepare(volume, settings)[0] > 50)
    by_body = np.argwhere(prepare(volume, settings, (4.0, 1.0, 1.0))[0] > 50)
    assert tuple(np.ptp(by_grid, axis=0) + 1) == (2, 8, 8)
    assert tuple(np.ptp(by_body, axis=0) + 1) == (8, 8, 8)


def test_a_constant_volume_stays_constant_however_it_is_resized() -> None:
    for dtype in (np.uint8, np.uint16):
        for sides in ((3, 5, 7), (20, 9, 11)):
            settings = Preprocessing(sides=sides, channels=3, intensity_max=255)
            assert set(np.unique(prepare(np.full((6, 8, 10), 77, dtype), settings))) == {77}


def test_near_duplicates_of_volumes_are_alike_in_every_view(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = [phantom_case(DEMO_VOLUMES, number, 0)[0] for number in range(60)]
    for number in range(4):
        # A scan exported again: coarser, a little brighter, with other noise.
        coarse = prepare(volumes[number], Preprocessing(sides=(30, 30, 30), channels=1, intensity_max=255))[0]
        volumes.append((coarse * 0.97 + rng.normal(0, 1, coarse.shape)).clip(0, 255).astype(np.uint8))
    for number, volume in enumerate(volumes):
        place = tmp_path / ("a", "b")[number % 2] / f"{number:02d}.npy"
        place.parent.mkdir(exist_ok=True)
        np.save(place, volume)
    cohort = read_cohort(tmp_path)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(16, 16, 16))
    names = [int(Path(path).stem) for path in cohort.table["path"]]
    pairs = {
        tuple(sorted((names[pair.first], names[pair.second]))) for pair in audit_cohort(cohort, decoded).near_duplicates
    }
    assert pairs == {(number, 60 + number) for number in range(4)}


def test_no_name_of_a_person_stands_in_the_reason_of_a_broken_series(tmp_path: Path) -> None:
    for number in range(8):
        folder = tmp_path / ("ill", "well")[number % 2] / f"DOE^JANE_{number}"
        files = write_series(case(number), folder, series=f"1.2.{number}", PatientID=f"P{number}")
        for file in files:
            file.rename(folder / f"JANE_DOE_1961_{file.name}")
        if number == 0:
            (folder / "JANE_DOE_1961_004.dcm").unlink()
    cohort = read_cohort(tmp_path, dims=3)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(8, 8, 8))
    (broken,) = decoded.broken
    assert "4.00 mm between file 4, file 5 where 2.00 mm is usual" in broken.reason
    assert broken.reason.startswith("case-")
    assert not any(word in broken.reason for word in ("DOE", "JANE", "1961"))


def test_what_lies_beside_pictures_makes_no_volumes_of_them(tmp_path: Path) -> None:
    for number in range(8):
        place = tmp_path / "films" / ("a", "b")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(case(number)[5]).save(place / f"{number}.png")
    (tmp_path / "films" / "run" / "cache").mkdir(parents=True)
    (tmp_path / "films" / "run" / "run.json").write_text("{}")
    np.save(tmp_path / "films" / "run" / "cache" / "images.npy", case(0))
    np.save(tmp_path / "films" / "a" / "embeddings.npy", case(0))
    cohort = read_cohort(tmp_path / "films")
    assert (cohort.dims, len(cohort)) == (2, 8)
    for number in range(6):
        write_nifti(case(number), tmp_path / "scans" / ("a", "b")[number % 2] / f"{number}.nii")
    (tmp_path / "scans" / "run").mkdir()
    (tmp_path / "scans" / "run" / "run.json").write_text("{}")
    Image.fromarray(case(0)[5]).save(tmp_path / "scans" / "run" / "picture.png")
    assert read_cohort(tmp_path / "scans").dims == 3


def test_a_table_may_mix_folders_of_every_kind(tmp_path: Path) -> None:
    lines = ["path,label"]
    for number in range(6):
        if number % 3 == 0:
            write_series(case(number), tmp_path / f"{number}", series=f"1.2.{number}")
            scout = slice_at(case(0)[0], 0.0, series=f"9.{number}", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
            save(scout, tmp_path / f"{number}" / "scout.dcm")
        else:
            write_nifti(case(number), tmp_path / f"{number}" / "scan.nii.gz")
        lines.append(f"{number},{('small', 'large')[number % 2]}")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    cohort = read_cohort(tmp_path / "cases.csv")
    assert [read_row(cohort, row)[0].shape for row in range(6)] == [(10, 12, 14)] * 6


def test_a_time_of_every_slice_tells_no_volumes_apart(tmp_path: Path) -> None:
    files = [
        save(slice_at(image, 2.0 * place, series="1.2", ContentTime=f"{120000 + place}"), tmp_path / f"{place}.dcm")
        for place, image in enumerate(case(0))
    ]
    files.append(save(slice_at(case(0)[3], 6.0, series="1.2", ContentTime="130000"), tmp_path / "again.dcm"))
    with pytest.raises(DataError, match=r"two slices lie at one place \((3|again)\.dcm, (3|again)\.dcm\)"):
        read_volume(files, Reading())


def test_slices_of_two_depths_and_windows_for_bytes_are_refused(tmp_path: Path) -> None:
    folder = write_slices(case(0).astype(np.uint8), tmp_path / "slices")
    Image.fromarray(case(0)[0]).save(folder / "slice99.png")
    with pytest.raises(DataError, match="16 bits among others of another depth"):
        read_volume([folder], Reading())
    np.save(tmp_path / "x.npy", case(0).astype(np.uint8))
    with pytest.raises(DataError, match="windows are for Hounsfield units, got bytes"):
        read_volume([tmp_path / "x.npy"], Reading(windows=("lung",)))


def test_an_archive_called_an_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", volume=case(0))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    (tmp_path / "y.npy").write_bytes(b"PK\x03\x04 and nothing")
    for name in ("x.npy", "y.npy"):
        with pytest.raises(DataError, match="not readable as an array"):
            read_volume([tmp_path / name], Reading())


def test_a_folder_of_no_volume_or_of_several_in_a_table_is_a_broken_case_and_stops_nothing(tmp_path: Path) -> None:
    lines = ["path,label"]
    for number in range(8):
        write_series(case(number), tmp_path / f"case{number}", series=f"1.2.{number}")
        lines.append(f"case{number},{('small', 'large')[number % 2]}")
    for file in write_series(case(8), tmp_path / "Miller two", series="1.2.8"):
        file.rename(file.with_name(f"first_{file.name}"))
    write_series(case(9), tmp_path / "Miller two", series="1.2.9")
    (tmp_path / "empty").mkdir()
    write_series(case(7), tmp_path / "Miller three" / "series", series="1.2.7")
    write_slices(case(7), tmp_path / "Miller three" / "pictures")
    # A picture by itself beside the slices is a preview.
    write_series(case(8), tmp_path / "Miller four", series="1.2.10")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "Miller four" / "preview.png")
    names = ["Miller two,small", "Miller three,small", "empty,large", "Miller four,large"]
    (tmp_path / "cases.csv").write_text("\n".join([*lines, *names]))
    cohort = read_cohort(tmp_path / "cases.csv", dims=3)
    assert not cohort.table["path"].str.contains("Miller").any()
    decoded = build_cache(cohort, tmp_path / "cache", sides=(8, 8, 8))
    assert len(decoded) == 9
    reasons = [broken.reason for broken in decoded.broken]
    assert [reason.partition(": ")[2][:34] for reason in reasons] == [
        "expected the slices of one series,",
        "expected one file for a volume, go",
        "expected the slices of one volume,",
    ]
    # What may be DICOM is called by a pseudonym, its folder's name, too.
    assert all("Miller" not in f"{broken.path} {broken.reason}" for broken in decoded.broken)
