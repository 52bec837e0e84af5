import shutil

import numpy as np
import pytest
from PIL import Image

from medgraft.data import build_cache, read_cohort
from medgraft.errors import ConfigError, DataError, RunError
from medgraft.io import prepare, read_image
from medgraft.io.in_order import in_order
from medgraft.types import Preprocessing


def folder(tmp_path, write, picture, count=5, **more):
    files = {f"{name}/{number}.png": picture(number + 10 * (name == "b")) for name in "ab" for number in range(count)}
    return read_cohort(write(tmp_path / "images", files | more))


def test_the_cache_holds_what_prepare_makes_of_each_file(tmp_path, write, picture):
    cohort = folder(tmp_path, write, picture)
    seen = []
    decoded = build_cache(
        cohort, tmp_path / "cache", sides=(24, 24), progress=lambda done, total: seen.append((done, total))
    )
    setting = Preprocessing(sides=(24, 24), channels=1, intensity_max=255)
    for row, name in enumerate(cohort.table["path"]):
        pixels, _ = read_image(cohort.root / name)
        np.testing.assert_array_equal(decoded.images[row], prepare(pixels, setting))
        assert (decoded.facts["low"][row], decoded.facts["high"][row]) == (pixels.min(), pixels.max())
    assert isinstance(decoded.images, np.memmap)
    assert (decoded.channels, decoded.bits, decoded.broken) == (1, 8, ())
    assert seen == [(done, 10) for done in range(1, 11)]
    assert decoded.maximum(np.arange(10)) == decoded.facts["high"].max()


def test_broken_files_are_told_and_the_others_kept(tmp_path, write, picture):
    cohort = folder(tmp_path, write, picture, **{"a/0a.png": b"", "b/9.png": b"<html>"})
    decoded = build_cache(cohort, tmp_path / "cache", sides=(8, 8))
    assert [(broken.path, "empty" in broken.reason) for broken in decoded.broken] == [
        ("a/0a.png", True),
        ("b/9.png", False),
    ]
    assert len(decoded) == len(decoded.images) == len(decoded.thumbs) == len(decoded.facts) == 10
    kept = cohort.select(decoded.rows)
    assert kept.table["path"].tolist() == decoded.paths.tolist()
    np.testing.assert_array_equal(decoded.rows_of(kept.select(np.array([7, 2]))), [7, 2])
    with pytest.raises(DataError, match=r"a/0a\.png: not in the cache"):
        decoded.rows_of(cohort)


def test_a_valid_cache_is_reused_and_a_changed_file_is_not(tmp_path, write, picture):
    cohort = folder(tmp_path, write, picture)

    def build(**change):
        calls = []
        decoded = build_cache(
            cohort, tmp_path / "c", **({"sides": (8, 8)} | change), progress=lambda *_: calls.append(1)
        )
        return decoded, len(calls)

    first, count = build()
    assert count == 10
    again, count = build()
    assert count == 0
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.folder, first.paths.tolist()) == (again.folder, again.paths.tolist())
    assert build(sides=(9, 9))[1] == build(channels=3)[1] == build(resize="pad")[1] == 10
    Image.fromarray(picture(99)).save(cohort.root / "a/0.png")
    assert build()[1] == 10


def test_an_interrupted_cache_is_never_taken_for_a_whole_one(tmp_path, write, picture):
    cohort = folder(tmp_path, write, picture)

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(cohort, tmp_path / "c", sides=(8, 8), progress=stop)
    assert list((tmp_path / "c").iterdir()) == []
    assert len(build_cache(cohort, tmp_path / "c", sides=(8, 8))) == 10


def test_channels_follow_what_is_truly_coloured(tmp_path, write, picture):
    grey_rgb = np.stack([picture(0)] * 3, axis=2)
    cohort = folder(tmp_path / "grey", write, picture, **{"a/x.png": grey_rgb})
    assert build_cache(cohort, tmp_path / "c", sides=(8, 8)).channels == 1
    colour = np.stack([picture(0), picture(1), picture(2)], axis=2)
    cohort = folder(tmp_path / "colour", write, picture, **{"a/x.png": colour})
    decoded = build_cache(cohort, tmp_path / "c", sides=(8, 8))
    assert decoded.images.shape == (11, 3, 8, 8)
    assert decoded.facts["channels"].tolist() == [1] * 5 + [3] + [1] * 5
    assert build_cache(cohort, tmp_path / "c", sides=(8, 8), channels=1).images.shape == (11, 1, 8, 8)


def test_16_bits_survive_and_8_bit_files_keep_their_values_beside_them(tmp_path, write, picture):
    deep = picture(0).astype(np.uint16) * 16
    cohort = folder(tmp_path, write, picture, **{"a/deep.png": deep})
    decoded = build_cache(cohort, tmp_path / "c", sides=(64, 64))
    assert (decoded.images.dtype, decoded.bits) == (np.uint16, 16)
    row = decoded.paths.tolist().index("a/deep.png")
    np.testing.assert_array_equal(decoded.images[row, 0], deep)
    np.testing.assert_array_equal(decoded.images[0, 0], picture(0))


def test_arrays_of_an_archive_are_cached_alike(tmp_path, picture):
    images = np.stack([picture(seed) for seed in range(6)])
    labels = np.arange(6)[:, None] % 2
    np.savez(
        tmp_path / "x.npz",
        **{f"{s}_{k}": v for s in ("train", "test") for k, v in (("images", images), ("labels", labels))},
    )
    cohort = read_cohort(tmp_path / "x.npz")
    decoded = build_cache(cohort, tmp_path / "c", sides=(64, 64))
    np.testing.assert_array_equal(decoded.images[:6, 0], images)
    assert decoded.facts["mode"][0] == b"array"
    assert bytes(decoded.facts["sha256"][0]) == bytes(decoded.facts["sha256"][6])


def test_a_cohort_without_one_readable_image_is_refused(tmp_path, write):
    cohort = read_cohort(write(tmp_path / "i", {f"{name}/{n}.png": b"" for name in "ab" for n in range(3)}))
    with pytest.raises(DataError, match=r"none of 6 images can be read\. First: .*empty"):
        build_cache(cohort, tmp_path / "c", sides=(8, 8))
    assert list((tmp_path / "c").iterdir()) == []


def test_a_small_disk_is_told_before_anything_is_written(tmp_path, write, picture, monkeypatch):
    cohort = folder(tmp_path, write, picture)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunError, match=r"needs 0 MiB, free are 0 MiB\. Free space"):
        build_cache(cohort, tmp_path / "c", sides=(8, 8))


def test_an_unwritable_folder_and_nonsense_are_refused(tmp_path, write, picture):
    cohort = folder(tmp_path, write, picture)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="could not write"):
        build_cache(cohort, tmp_path / "file", sides=(8, 8))
    with pytest.raises(ConfigError, match="got 2"):
        build_cache(cohort, tmp_path, sides=(8, 8), channels=2)
    with pytest.raises(ConfigError, match=r"got \(0, 0\)"):
        build_cache(cohort, tmp_path, sides=(0, 0))


def test_a_damaged_cache_names_its_folder(tmp_path, write, picture):
    cohort = folder(tmp_path, write, picture)
    decoded = build_cache(cohort, tmp_path / "c", sides=(8, 8))
    (decoded.folder / "images.npy").write_bytes(b"x")
    with pytest.raises(RunError, match="Remove this folder"):
        build_cache(cohort, tmp_path / "c", sides=(8, 8))


def test_results_come_in_order_and_few_wait():
    import threading
    import time

    running, most, lock = [0], [0], threading.Lock()

    def work(number):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002 * (number % 3))
        return number

    for number in in_order(work, range(60), workers=3):
        with lock:
            running[0] -= 1
        assert number >= 0
    assert most[0] <= 10
    assert list(in_order(work, range(20), workers=3)) == list(range(20))
