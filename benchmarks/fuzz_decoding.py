"""Thousands of damaged files: each one is decoded or refused by name; none crashes, hangs or fills the memory.

    python benchmarks/fuzz_decoding.py --files 10000 --seed 0

Whole files of every format are mutated (flipped bits, cut ends, zero length, foreign pieces, headers that declare
absurd sizes) and read by `read_case_facts` and `read_case` in a child process. A child that dies is a crash, one
that is silent for over ten seconds a hang; memory is the peak of the child beyond what its imports take. Prints what
was refused and why, and every failure with the number that makes its file again.
"""

import argparse
import collections
import functools
import io
import json
import multiprocessing
import resource
import struct
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from pydicom.data import get_testdata_files

from medgraft.errors import MedgraftError
from medgraft.io import read_case, read_case_facts
from medgraft.types import USUAL_READING

SECONDS: Final = 10
MOST_BYTES: Final = 2 * 2**30
LARGEST: Final = 400_000
# Of DICOM in explicit little endian, tag and VR: what decides how much is read and allocated.
TAGS: Final = (
    *(
        b"\x28\x00\x10\x00US",
        b"\x28\x00\x11\x00US",
        b"\x28\x00\x02\x00US",
        b"\x28\x00\x00\x01US",
        b"\x28\x00\x01\x01US",
    ),
    *(
        b"\x28\x00\x03\x01US",
        b"\x28\x00\x08\x00IS",
        b"\x28\x00\x04\x00CS",
        b"\x28\x00\x52\x10DS",
        b"\x28\x00\x53\x10DS",
    ),
    *(b"\x28\x00\x50\x10DS", b"\x28\x00\x51\x10DS", b"\x02\x00\x10\x00UI", b"\x28\x00\x06\x00US"),
)


def whole_files() -> dict[str, bytes]:
    """One or more good files of each format by name: drawn pictures, and pydicom's packaged examples."""
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (48, 40), np.uint8), rng.integers(0, 256, (48, 40, 3), np.uint8)
    deep = rng.integers(0, 65536, (48, 40), np.uint16)
    made = {}
    for name, array, options in (
        ("grey.png", grey, {}), ("colour.png", colour, {}), ("deep.png", deep, {}), ("grey.jpg", grey, {}),
        ("colour.jpg", colour, {}), ("grey.bmp", grey, {}), ("plain.tif", deep, {}),
        ("lzw.tif", grey, {"compression": "tiff_lzw"}), ("deflate.tif", colour, {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tif", colour, {"compression": "jpeg"}),
    ):  # fmt: skip
        stream = io.BytesIO()
        kind = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF"}[Path(name).suffix]
        Image.fromarray(array).save(stream, kind, **options)
        made[name] = stream.getvalue()
    for place in map(Path, get_testdata_files()):
        if place.is_file() and place.suffix in ("", ".dcm") and place.stat().st_size < LARGEST and _is_readable(place):
            made[f"dicom {place.name}"] = place.read_bytes()
    return made


def _is_readable(place: Path) -> bool:
    """Damage to what is refused anyway tests little."""
    try:
        read_case(place, USUAL_READING)
    except MedgraftError as error:
        return "frames, expected one" in str(error)
    return True


def mutated(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """What was done, and the damaged copy."""
    kind = rng.choice(["bits", "header bits", "cut", "empty", "block", "size", "tag", "swap"])
    changed = bytearray(data)
    if kind == "empty":
        return kind, b""
    if kind == "cut":
        return kind, data[: rng.integers(1, len(data))]
    if kind in ("bits", "header bits"):
        reach = len(data) if kind == "bits" else min(len(data), 2000)
        for place in rng.integers(0, reach, rng.integers(1, 30)):
            changed[place] ^= 1 << rng.integers(8)
    elif kind == "block":
        start, length = rng.integers(0, len(data)), rng.integers(1, 500)
        changed[start : start + length] = rng.bytes(length)
    elif kind == "swap":
        start, other, length = rng.integers(0, len(data), 3)
        piece = bytes(changed[other : other + length])
        changed[start : start + len(piece)] = piece
    elif kind == "size":
        _declare_sizes(changed, rng)
    else:
        for tag in rng.permutation(np.array(TAGS, dtype=object))[:3]:
            place = data.find(tag)
            if place >= 0:
                length = struct.unpack_from("<H", data, place + 6)[0]
                text = [b"-1", b"0", b"99999999", b"1e308", b"NaN", b"\0" * 8, rng.bytes(8)][rng.integers(7)]
                changed[place + 8 : place + 8 + length] = text.ljust(length, b" ")[:length]
    return str(kind), bytes(changed)


def _declare_sizes(changed: bytearray, rng: np.random.Generator) -> None:
    """Absurd sides, where the format keeps them; a PNG's checksum is made right again."""
    huge = int(rng.choice([0, 1, 65535, 2**31 - 1]))
    if changed[:4] == b"\x89PNG":
        changed[16:24] = struct.pack(">II", huge, huge)
        changed[29:33] = struct.pack(">I", zlib.crc32(bytes(changed[12:29])))
    elif changed[:2] == b"BM":
        changed[18:26] = struct.pack("<ii", min(huge, 2**31 - 1), min(huge, 2**31 - 1))
    else:
        for tag in TAGS[:2]:
            place = changed.find(tag)
            if place >= 0:
                changed[place + 8 : place + 10] = struct.pack("<H", min(huge, 65535))


def files(number: int, seed: int) -> Iterator[tuple[int, str, bytes]]:
    """The same files for the same seed: number, description, content."""
    originals = list(whole_files().items())
    for index in range(number):
        rng = np.random.default_rng([seed, index])
        name, data = originals[rng.integers(len(originals))]
        kind, content = mutated(data, rng)
        yield index, f"{name}, {kind}", content


def child(pipe: Connection, folder: str) -> None:
    """Reads what it is told to and says how it went."""
    warnings.simplefilter("ignore")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    while (content := pipe.recv()) is not None:
        place = Path(folder) / "case.bin"
        place.write_bytes(content)
        start, told = time.perf_counter(), "decoded"
        for function in (read_case_facts, functools.partial(read_case, reading=USUAL_READING)):
            try:
                function(place)
            except MedgraftError as error:
                told = f"refused: {error}"
                if str(place) not in told:
                    told = f"failure: the file is not named ({error})"
            except BaseException as error:
                told = f"failure: {type(error).__name__}: {error}"
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if used > MOST_BYTES:
            told = f"failure: {used / 2**30:.1f} GiB of memory"
        pipe.send((told, time.perf_counter() - start, used))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz_decoding.json"))
    options = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    failures, slowest, most = [], 0.0, 0
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="medgraft-fuzz-") as folder:

        def started() -> tuple[multiprocessing.process.BaseProcess, Connection]:
            ours, theirs = context.Pipe()
            process = context.Process(target=child, args=(theirs, folder), daemon=True)
            process.start()
            theirs.close()
            return process, ours

        process, pipe = started()
        for index, what, content in files(options.files, options.seed):
            try:
                pipe.send(content)
                told, seconds, used = pipe.recv() if pipe.poll(SECONDS + 60 * (index == 0)) else ("", 0.0, 0)
            except (EOFError, OSError):
                process.join()
                told, seconds, used = f"failure: the process died ({process.exitcode})", 0.0, 0
            told = told or f"failure: no answer within {SECONDS} s"
            slowest, most = max(slowest, seconds), max(most, used)
            kind = told.partition(":")[0]
            counts[kind] += 1
            if kind == "refused":
                reasons[told.partition("case.bin: ")[2][:40]] += 1
            if kind == "failure":
                failures.append({"index": index, "file": what, "told": told})
                print(f"{index} ({what}): {told}", flush=True)
                process.kill()
                process, pipe = started()
        pipe.send(None)
    found = {
        "files": options.files, "seed": options.seed, "counts": dict(counts), "failures": failures,
        "slowest_seconds": slowest, "most_bytes": most, "reasons": dict(reasons.most_common()),
    }  # fmt: skip
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for reason, count in reasons.most_common(12):
        print(f"{count:6} {reason}")
    print(f"{dict(counts)}; slowest {slowest:.1f} s, most memory {most / 2**20:.0f} MiB, {len(failures)} failures")


if __name__ == "__main__":
    main()
