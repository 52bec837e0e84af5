"""Cohorts of masks: which mask belongs to which image, what stands in it, and what is odd about it."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dicom_files import dicom, enhanced, save
from medgraft.cli import app
from medgraft.config import make_config
from medgraft.data.audit.audit import audit_cohort
from medgraft.data.cohort.marked import mask_of, read_mask_cohort
from medgraft.data.cohort.pairs import Pairs, find_pairs
from medgraft.data.decoded.images import build_cache
from medgraft.data.decoded.masks import build_mask_cache
from medgraft.errors import ConfigError, DataError
from medgraft.io.mask import read_mask
from medgraft.io.mask_files import write_mask
from medgraft.listener import Listener
from medgraft.run.check import check
from volume_files import write_nifti


def disc(number: int, side: int = 64) -> np.ndarray:
    """(side, side) bool: a disc at a place of its own."""
    rng = np.random.default_rng(number)
    row, column = rng.uniform(0.3, 0.7, 2) * side
    y, x = np.mgrid[:side, :side]
    return np.hypot(y - row, x - column) < side * rng.uniform(0.1, 0.25)


def picture(mask: np.ndarray, seed: int) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(0, 6, mask.shape)
    return np.rint(70 + 90 * mask + grain).clip(0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def folder_of(root: Path, count: int = 12, image: str = "images/{}.png", mask: str = "masks/{}.png") -> Path:
    for number in range(count):
        shape = disc(number)
        write(root / image.format(number), picture(shape, number))
        write(root / mask.format(number), shape.astype(np.uint8) * 255)
    return root


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("images/{}.png", "labels/{}_seg.png"),
        ("Images/p{}.png", "GT/p{}.png"),
        ("case_{}.jpg", "case_{}_mask.png"),
        ("case_{}.tif", "case_{}-gt.bmp"),
    ],
)
def test_pairs_are_found_by_folder_or_by_suffix(tmp_path: Path, image: str, mask: str) -> None:
    cohort = read_mask_cohort(folder_of(tmp_path, image=image, mask=mask))
    assert (len(cohort), cohort.task, cohort.classes, cohort.mask_values) == (
        12,
        "segmentation",
        ("foreground",),
        (255,),
    )
    for row in range(12):
        number = int("".join(c for c in Path(cohort.table["path"].iat[row]).stem if c.isdigit()))
        np.testing.assert_array_equal(mask_of(cohort, row), disc(number))
    assert cohort.targets.tolist() == [[1.0]] * 12


def test_the_image_with_the_longest_name_owns_a_mask(tmp_path: Path) -> None:
    pairs = touched(tmp_path, "p1", "p1_mask", "p1_2", "p1_2_mask", "p2", "p2_mask", "alone")
    assert pairs.masks == {
        "p1.png": {"": ("p1_mask.png",)},
        "p1_2.png": {"": ("p1_2_mask.png",)},
        "p2.png": {"": ("p2_mask.png",)},
    }
    assert "1 images have no mask and were left out: alone.png." in pairs.notes


def test_images_without_a_mask_are_named_unless_they_may_be_called_as_patients(tmp_path: Path) -> None:
    told = touched(tmp_path / "a", "a", "a_mask", "b", "b_mask", "c", "c_mask", "x", "y", "z", "zz").notes[-1]
    assert told == "4 images have no mask and were left out: x.png, y.png, z.png, zz.png."
    touched(tmp_path / "b", "images/a", "masks/a")
    (tmp_path / "b" / "images" / "Doe^John.dcm").write_bytes(bytes(128) + b"DICM" + bytes(20))
    told = find_pairs(tmp_path / "b").notes[-1]
    assert told == "1 images have no mask and were left out."


def touched(root: Path, *names: str) -> Pairs:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.png").touch()
    return find_pairs(root)


def test_an_image_without_a_mask_takes_none_of_another(tmp_path: Path) -> None:
    # A follow-up without a mask is an image, not an observer.
    pairs = touched(tmp_path / "a", "p1", "p1_mask", "p1_2", "p2", "p2_mask")
    assert set(pairs.masks) == {"p1.png", "p2.png"}
    assert all(set(found) == {""} for found in pairs.masks.values())
    # The mask of an image that is not there.
    names = [f"{kind}/img_{n}" for n in (1, 2, 3) for kind in ("images", "masks")]
    pairs = touched(tmp_path / "b", *names, "masks/img_1_10", "masks/img_2_other")
    assert pairs.masks["images/img_1.png"] == {"": ("masks/img_1.png",)}
    assert "2 masks belong to no image." in pairs.notes
    # Equal names in folders of patients.
    pairs = touched(tmp_path / "c", "images/p1/1", "images/p2/1", "masks/p2/1", "images/p3/1", "masks/p3/1")
    assert list(pairs.masks) == ["images/p2/1.png", "images/p3/1.png"]
    (tmp_path / "d").mkdir()
    for name in ("a.jpg", "a.png", "b.jpg", "b.png"):
        (tmp_path / "d" / name).touch()
    with pytest.raises(DataError, match=r"a\.jpg and a\.png share a name"):
        find_pairs(tmp_path / "d")


def test_parts_of_a_mask_are_united(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"benign ({number}).png", picture(disc(number), number))
        write(tmp_path / f"benign ({number})_mask.png", disc(number).astype(np.uint8) * 255)
    write(tmp_path / "benign (2)_mask_1.png", disc(9).astype(np.uint8) * 255)
    cohort = read_mask_cohort(tmp_path)
    assert len(cohort) == 4
    assert "1 masks are further parts of another and are united with it." in cohort.notes
    np.testing.assert_array_equal(mask_of(cohort, 2), disc(2) | disc(9))


def test_numbers_alone_do_not_tell_parts_from_observers(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"{number}.png", picture(disc(number), number))
        write(tmp_path / f"{number}_mask_1.png", disc(number).astype(np.uint8) * 255)
    assert find_pairs(tmp_path).masks["2.png"] == {"": ("2_mask_1.png",)}
    # Before, that of one image made it one without a mask, and of all images another observer.
    for number in range(4):
        write(tmp_path / f"{number}_mask_2.png", disc(number + 9).astype(np.uint8) * 255)
        with pytest.raises(DataError, match="masks end with _mask_1 and _mask_2: parts of one mask, or of several"):
            find_pairs(tmp_path)
    for number in range(4):
        (tmp_path / f"{number}_mask_1.png").rename(tmp_path / f"{number}_mask.png")
    assert find_pairs(tmp_path).masks["2.png"] == {"": ("2_mask.png", "2_mask_2.png")}


def test_observers_are_chosen_or_vote(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"{number}.jpg", picture(disc(number), number))
        for name, shift in (("a", 0), ("b", 3), ("c", 100)):
            write(tmp_path / f"{number}_{name}.png", np.roll(disc(number), shift, 0) if shift < 9 else ~disc(number))
    first = read_mask_cohort(tmp_path)
    assert any("3 observers (a, b, c): the truth is a" in note for note in first.notes)
    np.testing.assert_array_equal(mask_of(read_mask_cohort(tmp_path, observer="b"), 1), np.roll(disc(1), 3, 0))
    voted = mask_of(read_mask_cohort(tmp_path, observer="majority"), 1)
    votes = disc(1).astype(int) + np.roll(disc(1), 3, 0) + ~disc(1)
    np.testing.assert_array_equal(voted, votes > 1.5)
    with pytest.raises(ConfigError, match="expected --observer among a, b, c, majority, got 'd'"):
        read_mask_cohort(tmp_path, observer="d")
    (tmp_path / "2_b.png").unlink()
    with pytest.raises(DataError, match="1 images have no mask of b"):
        read_mask_cohort(tmp_path, observer="b")
    for number in range(4):
        write(tmp_path / f"{number}_a.png", disc(number).astype(np.uint8))
    with pytest.raises(DataError, match=r"observers use different numbers \(1 and 255"):
        read_mask_cohort(tmp_path, observer="majority")


@pytest.mark.parametrize(
    "labels", [{"background": 0, "liver": 1, "tumour": 2}, {"0": "background", "1": "liver", "2": "tumour"}]
)
def test_nnunet_folders_are_read_unchanged(tmp_path: Path, labels: dict) -> None:
    for number in range(4):
        volume = np.zeros((6, 10, 12), np.uint16)
        volume[2:4, 3:6, 4:8], volume[3, 4, 5] = 1, 2
        affine = np.diag([-1.0, 1.0, 2.0, 1.0])
        write_nifti(volume * 100, tmp_path / "imagesTr" / f"liver_{number:03d}_0000.nii.gz", affine)
        write_nifti(volume, tmp_path / "labelsTr" / f"liver_{number:03d}.nii.gz", affine)
    write_nifti(volume, tmp_path / "imagesTr" / "liver_004_0000.nii.gz", affine)
    (tmp_path / "imagesTs").mkdir()
    told = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(told))
    cohort = read_mask_cohort(tmp_path)
    assert (cohort.dims, cohort.classes, cohort.mask_values) == (3, ("liver", "tumour"), (1, 2))
    assert cohort.notes[:3] == (
        "nnU-Net's layout: 4 images with masks.",
        "1 images have no mask and were left out: imagesTr/liver_004_0000.nii.gz.",
        "imagesTs has no masks and was left out.",
    )
    # Turned as the images are.
    np.testing.assert_array_equal(mask_of(cohort, 0), volume[:, :, ::-1])
    lost = np.diag([1.0, 1.0, 2.0, 1.0])
    write_nifti(mask_of(cohort, 2).astype(np.uint16), tmp_path / "labelsTr" / "liver_002.nii.gz", lost)
    again = read_mask_cohort(tmp_path)
    audit = audit_cohort(again, build_cache(again, tmp_path / "cache", sides=(8, 8, 8)))
    (found,) = [finding for finding in audit.findings if finding.kind == "mask-affine"]
    assert found.rows == (2,)
    told["labels"] = {"background": 0, "liver": 1, "ignore": 2}
    (tmp_path / "dataset.json").write_text(json.dumps(told))
    assert read_mask_cohort(tmp_path).mask_reading.ignored == 2
    told["labels"] = labels
    told["channel_names"] = ["T1", "T2"]
    (tmp_path / "dataset.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"images of one channel, got 2 \(T1, T2\)"):
        read_mask_cohort(tmp_path)
    del told["channel_names"]
    (tmp_path / "dataset.json").write_text(json.dumps(told))
    write_nifti(volume, tmp_path / "imagesTr" / "liver_001_0001.nii.gz", affine)
    with pytest.raises(
        DataError, match=r"several images of liver_001 \(liver_001_0000\.nii\.gz, liver_001_0001\.nii\.gz"
    ):
        read_mask_cohort(tmp_path)


def test_a_table_names_images_and_masks(tmp_path: Path) -> None:
    folder_of(tmp_path, 6)
    lines = [f"images/{n}.png,masks/{n}.png,P{n // 2},{('train', 'val', 'test')[n // 2]}" for n in range(6)]
    (tmp_path / "cases.csv").write_text("\n".join(["path,mask,patient,split", *lines]))
    cohort = read_mask_cohort(tmp_path)
    assert cohort.table["patient"].tolist() == ["P0", "P0", "P1", "P1", "P2", "P2"]
    assert cohort.table["split"].tolist()[::2] == ["train", "val", "test"]
    np.testing.assert_array_equal(mask_of(cohort.select(np.array([3, 5])), 1), disc(5))
    (tmp_path / "cases.csv").write_text("path,mask\nimages/1.png,masks/1.png\nimages/2.png,masks/none.png")
    with pytest.raises(DataError, match=r"1 of 2 files in column mask are missing: masks/none\.png \(line 3\)"):
        read_mask_cohort(tmp_path)
    (tmp_path / "cases.csv").write_text(
        "\n".join(["path,mask", *(line.rsplit(",", 2)[0] for line in lines), "images/5.png,"])
    )
    with pytest.raises(DataError, match=r"line 8: the mask of .* is missing\. A case needs an image and a mask"):
        read_mask_cohort(tmp_path)


def test_of_several_tables_none_is_taken_and_what_a_model_predicted_is_no_truth(tmp_path: Path) -> None:
    folder_of(tmp_path, 6)
    predicted = "path,mask,pixels_foreground,status\nimages/0.png,masks/1.png,9,ok"
    (tmp_path / "masks.csv").write_text(predicted)
    np.testing.assert_array_equal(mask_of(read_mask_cohort(tmp_path), 0), disc(0))
    for name, numbers in (("train", range(4)), ("test", range(4, 6))):
        lines = [f"images/{n}.png,masks/{n}.png" for n in numbers]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,mask", *lines]))
    with pytest.raises(DataError, match=r"one table of masks, got 2 \(test\.csv, train\.csv\)\. Give the path"):
        read_mask_cohort(tmp_path)
    assert len(read_mask_cohort(tmp_path / "train.csv")) == 4


def test_a_mask_that_tells_how_it_is_turned_needs_an_image_that_does(tmp_path: Path) -> None:
    volume = np.zeros((4, 6, 8), np.uint8)
    volume[1:3, 1:3, 1:3] = 1
    for number in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        np.save(tmp_path / "images" / f"{number}.npy", volume * 99)
        write_nifti(volume, tmp_path / "masks" / f"{number}.nii.gz", np.diag([-1.0, -1.0, 2.0, 1.0]))
    with pytest.raises(
        DataError, match=r"says how it is turned, which its image \(\.npy\) does not\. Export both as NIfTI"
    ):
        read_mask_cohort(tmp_path)


def test_labels_are_numbers_whatever_colour_shows_them(tmp_path: Path) -> None:
    numbers = np.array([[0, 1], [2, 7]], np.uint8)
    palette = Image.fromarray(numbers)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [9] * 759)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png"), numbers)
    deep = numbers.astype(np.uint16) * 300
    np.testing.assert_array_equal(read_mask(write(tmp_path / "deep.png", deep)), deep)
    np.save(tmp_path / "a.npy", numbers.astype(np.float64))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.npy"), numbers)


@pytest.mark.parametrize(
    ("name", "pixels", "reason"),
    [
        ("x.jpg", np.zeros((4, 4), np.uint8), "a JPEG changes the numbers"),
        ("x.png", np.dstack([np.eye(4), np.zeros((4, 4)), np.eye(4)]).astype(np.uint8), "a coloured mask"),
        ("x.npy", np.array([[0.5, 1.0]]), "expected whole numbers"),
        ("y.npy", np.array([[-1, 1]]), "expected labels from 0"),
        ("z.npy", np.zeros(4), r"expected numbers \(H, W\)"),
        ("o.npy", np.array([None, 1]), "not readable as an array"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path: Path, name: str, pixels: np.ndarray, reason: str) -> None:
    if name.endswith(".npy"):
        np.save(tmp_path / name, pixels)
    else:
        write(tmp_path / name, pixels)
    with pytest.raises(DataError, match=reason):
        read_mask(tmp_path / name)


@pytest.mark.parametrize("name", ["m7", "m.mask", "m.dcm", "m.1.2.3"])
def test_a_coloured_mask_is_refused_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    write(tmp_path / "x.png", np.dstack([np.eye(4), np.zeros((4, 4)), np.eye(4)]).astype(np.uint8))
    (tmp_path / "x.png").rename(tmp_path / name)
    with pytest.raises(DataError, match="a coloured mask"):
        read_mask(tmp_path / name)


def test_an_archive_is_no_mask(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", np.eye(4))
    with pytest.raises(DataError, match="got a ZIP archive"):
        read_mask(tmp_path / "m.npz")


def test_smoothed_empty_and_missing_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image has a mask"):
        read_mask_cohort(tmp_path)
    root = folder_of(tmp_path / "smooth", 4)
    write(root / "masks" / "0.png", picture(disc(0), 0))
    with pytest.raises(DataError, match=r"different numbers .* expected one for each class"):
        read_mask_cohort(root)
    root = folder_of(tmp_path / "empty", 4)
    for number in range(4):
        write(root / "masks" / f"{number}.png", np.zeros((64, 64), np.uint8))
    with pytest.raises(DataError, match="every mask is empty"):
        read_mask_cohort(root)
    with pytest.raises(DataError, match="2 patients"):
        read_mask_cohort(folder_of(tmp_path / "few", 2))


def test_numbers_that_hardly_any_mask_holds_are_named_and_classes_can_be_declared(tmp_path: Path) -> None:
    root = folder_of(tmp_path, 12)
    stray = disc(5).astype(np.uint8) * 255
    stray[0, 0] = 254
    write(root / "masks" / "5.png", stray)
    cohort = read_mask_cohort(root)
    assert cohort.classes == ("label 254", "label 255")
    audit = audit_cohort(cohort, build_cache(cohort, tmp_path / "cache", sides=(64, 64)))
    (finding,) = [found for found in audit.findings if found.kind == "mask-label"]
    assert finding.paths == ("images/5.png",)
    assert finding.message.startswith("The numbers 254 stand in 1 of 12 masks alone, e.g. of images/5.png")
    told = CliRunner().invoke(
        app, ["check", str(root), "--task", "segmentation", "--set", "data.mask_classes=disc=255"]
    )
    assert told.exit_code == 1
    assert "mask-unreadable: images/5.png\nfound: masks to look at, see above." in told.output
    options = {"data": {"task": "segmentation", "mask_classes": "vessel=255"}}
    assert make_config(str(root), options=options).data.mask_classes == {"vessel": 255}
    cohort = read_mask_cohort(root, classes={"vessel": 255})
    assert (cohort.classes, cohort.mask_values) == (("vessel",), (255,))
    audit = audit_cohort(cohort, build_cache(cohort, tmp_path / "cache", sides=(64, 64)))
    (finding,) = [found for found in audit.findings if found.kind == "mask-unreadable"]
    assert finding.paths == ("images/5.png",)
    assert "holds the label 254, expected 0 or 255" in finding.message
    for wrong in ("vessel", "vessel=0", "a=1,a=2", "a=1,b=1", "a=70000", {"a": -1}):
        with pytest.raises(ConfigError, match="expected different names with different numbers from 1"):
            make_config(str(root), options={"data": {"task": "segmentation", "mask_classes": wrong}})
    # The only image that holds a number cannot be read: nothing to name.
    (root / "images" / "5.png").write_bytes(b"\x89PNG broken")
    cohort = read_mask_cohort(root)
    decoded = build_cache(cohort, tmp_path / "cache2", sides=(64, 64))
    readable = cohort.select(decoded.rows)
    assert not [found for found in audit_cohort(readable, decoded).findings if found.kind == "mask-label"]


def test_masks_of_one_and_of_255_are_not_two_classes(tmp_path: Path) -> None:
    root = folder_of(tmp_path, 8)
    for number in range(3):
        write(root / "masks" / f"{number}.png", disc(number).astype(np.uint8))
    with pytest.raises(DataError, match="3 masks mark with 1 and 5 with 255, none with both"):
        read_mask_cohort(root)
    assert read_mask_cohort(root, classes={"a": 1, "b": 255}).classes == ("a", "b")


@pytest.mark.parametrize("layout", ["images/{split}/{name}", "{split}/images/{name}"])
def test_folders_that_name_a_split_are_kept(tmp_path: Path, layout: str) -> None:
    source = folder_of(tmp_path / "source", 9)
    for number in range(9):
        split = ("Train", "valid", "test")[number % 3]
        for kind in ("images", "masks"):
            place = tmp_path / "data" / layout.format(split=split, name=f"{number}.png").replace("images", kind)
            place.parent.mkdir(parents=True, exist_ok=True)
            (source / kind / f"{number}.png").rename(place)
    cohort = read_mask_cohort(tmp_path / "data")
    assert cohort.table["split"].value_counts().to_dict() == {"train": 3, "val": 3, "test": 3}
    assert cohort.table["split"][cohort.table["path"].str.contains("Train")].eq("train").all()
    assert "Folders name a split: 3 test, 3 train, 3 val." in cohort.notes
    assert mask_of(cohort, 0).any()


def test_parts_of_a_split_share_their_observers_and_say_what_has_no_mask(tmp_path: Path) -> None:
    for split, observers in (("train", ("1stHO",)), ("test", ("1stHO", "2ndHO"))):
        for number in range(4):
            name = f"{split}{number}"
            write(tmp_path / split / "images" / f"{name}.png", picture(disc(number), number))
            for observer in observers:
                write(tmp_path / split / "masks" / f"{name}_{observer}.png", disc(number).astype(np.uint8))
    write(tmp_path / "val" / "images" / "v.png", picture(disc(9), 9))
    cohort = read_mask_cohort(tmp_path)
    assert (len(cohort), set(cohort.observers)) == (8, {"2ndHO"})
    assert cohort.table["split"].value_counts().to_dict() == {"train": 4, "test": 4}
    assert "1 images have no mask and were left out: val/images/v.png." in cohort.notes


def test_swapped_masks_of_volumes_are_suspected(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        mask = np.zeros((24, 24, 24), np.uint8)
        low = rng.integers(2, 12, 3)
        mask[tuple(slice(at, at + 9) for at in low)] = 1
        image = 300.0 * mask + rng.normal(0, 20, mask.shape)
        for folder, values in (("images", image.astype(np.int16)), ("masks", mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "data" / folder / f"v{number:02}.nii.gz")
    masks = tmp_path / "data" / "masks"
    (masks / "v03.nii.gz").rename(tmp_path / "x.nii.gz")
    (masks / "v07.nii.gz").rename(masks / "v03.nii.gz")
    (tmp_path / "x.nii.gz").rename(masks / "v07.nii.gz")
    cohort = read_mask_cohort(tmp_path / "data")
    audit = audit_cohort(cohort, build_cache(cohort, tmp_path / "cache", sides=(24, 24, 24)))
    (finding,) = [found for found in audit.findings if found.kind == "mask-shift"]
    assert finding.paths == ("images/v03.nii.gz", "images/v07.nii.gz")


def test_a_mask_stored_mirrored_lies_where_its_image_does(tmp_path: Path) -> None:
    for number in range(4):
        mask = np.zeros((8, 9, 10), np.uint8)
        mask[1:4, 2:5, 3:7] = 1
        affine = np.diag([-0.8, -0.8, 2.0, 1.0])
        mirrored = np.diag([0.8, -0.8, 2.0, 1.0])
        mirrored[0, 3] = -0.8 * 7 + (1.0 if number == 2 else 0)
        stored = {"images": (500 * mask.astype(np.int16), affine), "masks": (mask[::-1], mirrored)}
        for folder, (values, where) in stored.items():
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, where), tmp_path / "data" / folder / f"{number}.nii.gz")
    cohort = read_mask_cohort(tmp_path / "data")
    audit = audit_cohort(cohort, build_cache(cohort, tmp_path / "cache", sides=(8, 8, 8)))
    # One of them is a millimetre off.
    (finding,) = [found for found in audit.findings if found.kind == "mask-affine"]
    assert finding.paths == ("images/2.nii.gz",)


def test_uids_are_names_and_files_of_many_frames_are_volumes(tmp_path: Path) -> None:
    for number in range(4):
        film = dicom(np.full((8, 8), 9, np.uint16), PatientID=f"p{number}")
        save(film, tmp_path / "a" / "images" / f"1.2.840.{number}")
        write(tmp_path / "a" / "masks" / f"1.2.840.{number}.png", np.eye(8, dtype=np.uint8))
        volume = np.zeros((5, 8, 8), np.uint16)
        volume[1:3, 2:5, 2:5] = 100
        enhanced_file = save(enhanced(volume, range(5)), tmp_path / "b" / f"v{number}.dcm")
        mask = (volume > 0).astype(np.uint8)
        path = write_mask(
            mask,
            (enhanced_file,),
            tmp_path / "b" / f"m{number}.nii.gz",
            kind="nifti",
            values=(1,),
            classes=("x",),
            version="1",
        )
        assert path.exists()
    assert len(read_mask_cohort(tmp_path / "a")) == 4
    (tmp_path / "b" / "cases.csv").write_text(
        "\n".join(["path,mask", *(f"v{number}.dcm,m{number}.nii.gz" for number in range(4))])
    )
    assert read_mask_cohort(tmp_path / "b").dims == 3
    # One that is broken does not make films of the others.
    whole = (tmp_path / "b" / "v1.dcm").read_bytes()
    (tmp_path / "b" / "v1.dcm").write_bytes(whole[:200])
    assert read_mask_cohort(tmp_path / "b").dims == 3


def test_what_is_odd_about_masks_is_found(tmp_path: Path) -> None:
    root = folder_of(tmp_path, 24)
    write(root / "masks" / "3.png", np.zeros((64, 64), np.uint8))
    write(root / "masks" / "5.png", disc(5, 32).astype(np.uint8) * 255)
    (root / "masks" / "7.png").write_bytes(b"nothing")
    write(root / "masks" / "9.png", np.roll(disc(9), 24, 1).astype(np.uint8) * 255)
    cohort = read_mask_cohort(root)
    audit = audit_cohort(cohort, build_cache(cohort, tmp_path / "cache", sides=(64, 64)))
    found = {finding.kind: finding for finding in audit.findings}
    names = {kind: [Path(path).stem for path in finding.paths] for kind, finding in found.items()}
    assert names["mask-empty"] == ["3"]
    assert names["mask-size"] == ["5"]
    assert "32×32 for the 64×64 of images/5.png" in found["mask-size"].message
    assert names["mask-unreadable"] == ["7"]
    assert names["mask-shift"] == ["9"]


def test_dicom_images_are_pseudonyms_here_too(tmp_path: Path) -> None:
    write(tmp_path / "masks" / "Smith.png", disc(0).astype(np.uint8))
    save(dicom(np.zeros((8, 8), np.uint16)), tmp_path / "images" / "Jones.dcm")
    for number in range(6):
        shape = disc(number)
        stored = picture(shape, number).astype(np.uint16) * 10
        save(dicom(stored, PatientID=f"Miller {number // 2}"), tmp_path / "images" / f"Miller{number}.dcm")
        write(tmp_path / "masks" / f"Miller{number}.png", shape.astype(np.uint8))
    cohort = read_mask_cohort(tmp_path)
    assert cohort.table["path"].str.startswith("case-").all()
    assert cohort.table["patient"].nunique() == 3
    assert cohort.table["mask"].isna().all()
    assert not [note for note in cohort.notes if "Smith" in note or "Jones" in note]
    np.testing.assert_array_equal(mask_of(cohort, 4), disc(4))
    (tmp_path / "masks" / "Miller3.png").write_bytes(b"nothing")
    cohort = read_mask_cohort(tmp_path)
    audit = audit_cohort(cohort, build_cache(cohort, tmp_path / "cache", sides=(16, 16)))
    (message,) = [finding.message for finding in audit.findings if finding.kind == "mask-unreadable"]
    assert "First: mask of case-" in message
    assert "Miller" not in message


def test_check_audits_and_divides_a_segmentation(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data", 12)
    said: list[str] = []
    _, divided = check(
        make_config(str(root), options={"data": {"task": "segmentation"}}).data, listener=Listener(say=said.append)
    )
    assert set(divided.table["split"]) == {"train", "val", "test"}
    done = CliRunner().invoke(app, ["check", str(root), "--task", "segmentation", "--observer", "majority"])
    assert "12 images with masks." in done.output
    assert done.exit_code == 0
    whole = (root / "masks" / "5.png").read_bytes()
    (root / "masks" / "5.png").write_bytes(b"nothing")
    assert CliRunner().invoke(app, ["check", str(root), "--task", "segmentation"]).exit_code == 1
    (root / "masks" / "5.png").write_bytes(whole)
    (root / "notes.csv").write_text("")
    assert not any("against the truth" in line for line in said)
    for number in range(12):
        (root / "masks" / f"{number}.png").rename(root / "masks" / f"{number}_one.png")
        write(root / "masks" / f"{number}_two.png", np.roll(disc(number), 2, 0).astype(np.uint8) * 255)
    check(make_config(str(root), options={"data": {"task": "segmentation"}}).data, listener=Listener(say=said.append))
    (told,) = [line for line in said if "against the truth" in line]
    both = [disc(number) & np.roll(disc(number), 2, 0) for number in range(12)]
    mean = np.mean([shared.sum() / disc(number).sum() for number, shared in enumerate(both)])
    assert told.startswith(f"two against the truth, mean Dice of 12 images: foreground {mean:.3f} (pooled ")
    with pytest.raises(ConfigError, match="--positive is about labels"):
        check(make_config(str(root), options={"data": {"task": "segmentation", "positive": "x"}}).data)


def test_a_reason_is_whole_whatever_the_folders_are_called(tmp_path: Path) -> None:
    """It was cut at the first colon: names of folders took its place, and could make it empty."""
    root = tmp_path / "study: A"
    rng = np.random.default_rng(0)
    for number in range(6):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            values = rng.integers(0, 2, (8, 8)).astype(np.uint8)
            Image.fromarray(values * 200).save(root / folder / f"{number}.png")
    (root / "masks" / "3.png").write_bytes(b"\x89PNG broken")
    cohort = read_mask_cohort(root)
    with pytest.raises(DataError) as raised:
        mask_of(cohort, 3)
    decoded = build_cache(cohort, tmp_path / "cache", sides=(8, 8))
    (reason,) = build_mask_cache(cohort, decoded).unusable.values()
    assert str(raised.value) == f"{root / 'masks' / '3.png'}: {reason}"
    assert "study" not in reason
    assert reason
