"""The store of decoded cohorts: found again, limited in size, safe from those who clear it."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medgraft.data.decoded.images as cache
from medgraft.data.cohort.labelled import read_cohort
from medgraft.data.decoded.images import DecodedCohort, build_cache
from medgraft.data.decoded.store import META, USED, drop, store_folder, stored_cohorts
from medgraft.types import Cohort

LIMIT = 10**9
HOLDER = """
import sys
from pathlib import Path
from medgraft.data.decoded.store import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def draw(folder: Path, seed: int = 0) -> Cohort:
    rng = np.random.default_rng(seed)
    for label in ("mass", "normal"):
        (folder / label).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return read_cohort(folder)


def decoded(cohort: Cohort, store: Path, *, limit: int = LIMIT, side: int = 16) -> DecodedCohort:
    return build_cache(cohort, store, sides=(side, side), limit=limit)


def used_long_ago(folder: Path, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(folder / USED, (then, then))


def in_another_process(cohort_folder: Path, store: Path, side: int = 16) -> Path:
    """A cache that this process does not hold."""
    code = (
        "from medgraft.data.decoded.images import build_cache; from medgraft.data.cohort.labelled import read_cohort; "
        f"print(build_cache(read_cohort({str(cohort_folder)!r}), {str(store)!r}, sides=({side}, {side}), "
        f"limit={LIMIT}).folder)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    return Path(told.stdout.strip())


def test_a_cohort_is_decoded_once_for_all_jobs(tmp_path: Path) -> None:
    cohort, store = draw(tmp_path / "data"), tmp_path / "store"
    first = decoded(cohort, store)
    stamp = (first.folder / META).stat().st_mtime_ns
    used_long_ago(first.folder, 3)
    again = decoded(read_cohort(tmp_path / "data"), store)
    assert (again.folder, (again.folder / META).stat().st_mtime_ns) == (first.folder, stamp)
    (told,) = stored_cohorts(store)
    assert (told.root, told.num_images, told.sides) == (str(tmp_path / "data"), 8, (16, 16))
    assert told.num_bytes == sum(path.stat().st_size for path in first.folder.iterdir())
    assert time.time() - told.used.timestamp() < 86_400  # using it said so


def test_an_image_that_can_be_read_again_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, store = draw(tmp_path / "data"), tmp_path / "store"
    read = cache.decode_row

    def without_codec(cohort: Cohort, row: int, **rest: Any) -> Any:
        return "needs the extra dicom" if row == 3 else read(cohort, row, **rest)

    monkeypatch.setattr(cache, "decode_row", without_codec)
    assert [image.reason for image in decoded(cohort, store).broken] == ["needs the extra dicom"]
    stamp = (decoded(cohort, store).folder / META).stat().st_mtime_ns
    assert (decoded(cohort, store).folder / META).stat().st_mtime_ns == stamp  # nothing changed, nothing is decoded
    monkeypatch.undo()
    again = decoded(cohort, store)
    assert (len(again), again.broken) == (8, ())


def test_the_same_name_seen_from_another_folder_is_another_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = set()
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        cohort = draw(Path("data"), seed=number)
        for path in Path("data").rglob("*.png"):
            os.utime(path, (0, 0))
        keys.add(decoded(dataclasses.replace(cohort, root=Path("data")), tmp_path / "store").folder)
    assert len(keys) == 2


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    draw(tmp_path / "data")
    store = tmp_path / "store"
    old, newer = (in_another_process(tmp_path / "data", store, side) for side in (16, 24))
    used_long_ago(old, 9)
    used_long_ago(newer, 2)
    decoded(read_cohort(tmp_path / "data"), tmp_path / "beside", side=32)
    sizes = [cohort.num_bytes for cohort in (*stored_cohorts(store), *stored_cohorts(tmp_path / "beside"))]
    # The third has room once the oldest is gone.
    third = decoded(read_cohort(tmp_path / "data"), store, side=32, limit=sum(sizes) - min(sizes) + 1)
    assert not old.exists()
    assert {cohort.folder for cohort in stored_cohorts(store)} == {newer, third.folder}


def test_more_than_the_limit_is_decoded_all_the_same(tmp_path: Path) -> None:
    draw(tmp_path / "data")
    other = in_another_process(tmp_path / "data", tmp_path / "store", 24)
    mine = decoded(read_cohort(tmp_path / "data"), tmp_path / "store", limit=1)
    assert mine.folder.exists()
    assert not other.exists()


def test_what_a_process_uses_is_not_dropped_until_it_ends(tmp_path: Path) -> None:
    draw(tmp_path / "data")
    store = tmp_path / "store"
    folder = in_another_process(tmp_path / "data", store)
    (told,) = stored_cohorts(store)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not drop(told)
        assert (folder / META).is_file()
        holder.communicate("")
    assert drop(told)
    assert not folder.exists()
    assert drop(told)  # gone is gone, whoever did it


def test_who_wants_what_is_being_decoded_waits_and_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, writes = draw(tmp_path / "data"), []
    write = cache._write

    def counted(*arguments: Any) -> None:
        writes.append(arguments)
        # By then the other one has asked, and found nothing.
        asked.wait()
        write(*arguments)

    asked = threading.Event()
    monkeypatch.setattr(cache, "_write", counted)
    hold = cache.hold
    monkeypatch.setattr(cache, "hold", lambda folder: (hold(folder), asked.set() if writes else None))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(decoded, cohort, tmp_path / "store")
        while not writes:
            time.sleep(0.01)
        second = pool.submit(decoded, cohort, tmp_path / "store")
        assert first.result().folder == second.result().folder
    assert len(writes) == 1


def test_what_this_process_uses_is_not_dropped(tmp_path: Path) -> None:
    mine = decoded(draw(tmp_path / "data"), tmp_path / "store")
    (told,) = stored_cohorts(tmp_path / "store")
    assert not drop(told)
    assert mine.images[0].any()


def test_a_half_written_cohort_is_none(tmp_path: Path) -> None:
    mine = decoded(draw(tmp_path / "data"), tmp_path / "store")
    (mine.folder / META).unlink()
    assert stored_cohorts(tmp_path / "store") == []
    assert (decoded(read_cohort(tmp_path / "data"), tmp_path / "store").folder / META).is_file()
    assert stored_cohorts(tmp_path / "nowhere") == []


def test_the_store_lies_where_the_machine_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGRAFT_HOME", str(tmp_path))
    assert store_folder() == tmp_path / "decoded"
